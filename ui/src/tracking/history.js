// Histories of metrics, as few points as a chart can show, and how to smooth them.
import { ApiError } from '../client.js';
import { read } from './api.js';

/** @typedef {import('./types.js').History} History */
/** The steps that are looked at; null for all. @typedef {[number, number] | null} Range */

/** Whether the server downsamples. A stock MLflow server does not: then points are left out instead. */
let downsamples = true;
/** The last histories, by what was asked. @type {Map<string, Promise<History>>} */
const kept = new Map();
const KEPT = 400;

/** @param {any} value */
const numeric = (value) => (value === undefined || value === null ? NaN : Number(value));

/** @returns {History} */
const empty = () => ({ step: [], time: [], value: [], low: [], high: [], total: 0, odd: 0, left: false, mean: false });

/** @param {History} history @param {any} point @param {any} low @param {any} high */
function add(history, point, low, high) {
  history.step.push(Number(point.step ?? 0));
  history.time.push(Number(point.timestamp ?? 0) / 1000);
  history.value.push(numeric(point.value ?? 0));
  history.low.push(numeric(low));
  history.high.push(numeric(high));
}

/** Half-way between two points, with this value. @param {any} first @param {any} last @param {any} value */
const between = (first, last, value) => ({ step: Math.round((Number(first.step ?? 0) + Number(last.step ?? 0)) / 2), timestamp: (Number(first.timestamp ?? 0) + Number(last.timestamp ?? 0)) / 2, value });

/** Each bucket gives its mean, or where the server does not tell that its last point, and its least and greatest value. The curve begins and ends with points as they were logged. @param {any[]} buckets @returns {History} */
function fromBuckets(buckets) {
  const history = empty();
  buckets.forEach(({ count = 1, nan_count: odd = 0, first, last, min, max, mean }, i) => {
    if (i === 0 && count > 1) add(history, first, min.value, max.value);
    const joined = count > 1 && mean !== undefined;
    history.mean ||= joined;
    add(history, joined && i < buckets.length - 1 ? between(first, last, mean) : last, min.value, max.value);
    history.total += count;
    history.odd += odd;
  });
  return history;
}

/** Points as they were logged. @param {any[]} points @param {boolean} left whether some were left out @returns {History} */
function fromPoints(points, left) {
  const history = empty();
  for (const point of points) add(history, point, point.value ?? 0, point.value ?? 0);
  return { ...history, total: points.length, odd: history.value.filter((value) => !Number.isFinite(value)).length, left };
}

/** @param {string} run @param {string} key @param {number} points @param {Range} range @returns {Promise<History>} */
async function load(run, key, points, range) {
  const steps = range ? { start_step: range[0], end_step: range[1] } : {};
  if (downsamples) {
    try {
      return fromBuckets((await read('metrics/get-history-downsampled', { run_id: run, metric_key: key, points, ...steps })).buckets ?? []);
    } catch (error) {
      if (!(error instanceof ApiError) || ![404, 405, 501].includes(error.status)) throw error;
      downsamples = false;
    }
  }
  const found = (await read('metrics/get-history-bulk-interval', { run_ids: [run], metric_key: key, max_results: points, ...steps })).metrics ?? [];
  return fromPoints(found, found.length >= points);
}

/** @param {string} run @param {string} key @param {number} points at most @param {string} stamp changes when there is more to read @param {Range} range @returns {Promise<History>} */
export function history(run, key, points, stamp, range) {
  const id = [run, key, points, stamp, range].join('\n');
  const known = kept.get(id);
  if (known) return known;
  if (kept.size >= KEPT) kept.delete(kept.keys().next().value ?? '');
  const asked = load(run, key, points, range);
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
