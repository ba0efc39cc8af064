// Histories of metrics, as few points as a chart can show, and how to smooth them.
import { ApiError } from '../client.js';
import { read } from './api.js';

/** @typedef {import('./types.js').History} History */

/** Whether the server downsamples. A stock MLflow server does not: then points are left out instead. */
let downsamples = true;
/** The last histories, by what was asked. @type {Map<string, Promise<History>>} */
const kept = new Map();
const KEPT = 400;

/** @param {any} value */
const numeric = (value) => (value === undefined || value === null ? NaN : Number(value));

/** @param {any[]} points @param {boolean} sampled @param {number | null} total @returns {History} */
function historyOf(points, sampled, total = null) {
  /** @type {History} */
  const history = { step: [], time: [], value: [], low: [], high: [], total: 0, sampled };
  for (const point of points) {
    const value = numeric(point.mean ?? point.value ?? point.last);
    history.step.push(Number(point.step ?? 0));
    history.time.push(Number(point.timestamp ?? 0) / 1000);
    history.value.push(value);
    history.low.push(numeric(point.min ?? point.low ?? value));
    history.high.push(numeric(point.max ?? point.high ?? value));
    history.total += Number(point.count ?? 1);
  }
  if (total !== null) history.total = total;
  return history;
}

/** @param {string} run @param {string} key @param {number} points @returns {Promise<History>} */
async function load(run, key, points) {
  if (downsamples) {
    try {
      const answer = await read('metrics/get-history-downsampled', { run_id: run, metric_key: key, points });
      const buckets = answer.points ?? answer.buckets ?? answer.metrics ?? [];
      const total = answer.total ?? answer.count ?? null;
      return historyOf(buckets, (total !== null && total > buckets.length) || buckets.some((/** @type {any} */ b) => (b.count ?? 1) > 1), total);
    } catch (error) {
      if (!(error instanceof ApiError) || ![404, 405, 501].includes(error.status)) throw error;
      downsamples = false;
    }
  }
  const answer = await read('metrics/get-history-bulk-interval', { run_ids: [run], metric_key: key, max_results: points });
  const found = answer.metrics ?? [];
  return historyOf(found, found.length >= points);
}

/** @param {string} run @param {string} key @param {number} points at most @param {string} stamp changes when there is more to read @returns {Promise<History>} */
export function history(run, key, points, stamp) {
  const id = [run, key, points, stamp].join('\n');
  const known = kept.get(id);
  if (known) return known;
  if (kept.size >= KEPT) kept.delete(kept.keys().next().value ?? '');
  const asked = load(run, key, points);
  kept.set(id, asked);
  asked.catch(() => kept.delete(id));
  return asked;
}

/** An exponential moving average that does not lean on its first value. @param {(number | null)[]} values @param {number} weight of what was before, 0 to 1 */
export function smooth(values, weight) {
  let [sum, mass] = [0, 0];
  return values.map((value) => {
    if (value === null) return null;
    sum = sum * weight + (1 - weight) * value;
    mass = mass * weight + (1 - weight);
    return sum / mass;
  });
}
