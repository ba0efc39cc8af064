// MLflow's REST API, and what the tracking pages share of its answers.
import { useEffect, useRef, useState } from '../../vendor/preact.js';
import { ask, count, isNumber, number } from '../client.js';

/** @typedef {import('./types.js').Run} Run */
/** @typedef {import('./types.js').Row} Row */
/** @typedef {import('./types.js').Tag} Tag */

// Whoever imports this module gets the style sheets with it, before anything is drawn.
await Promise.all(['/records.css', '/tracking.css'].map((href) => new Promise((done) => {
  if (document.querySelector(`link[href="${href}"]`)) done(null);
  else document.head.append(Object.assign(document.createElement('link'), { rel: 'stylesheet', href, onload: done, onerror: done }));
})));

const ROOT = '/ajax-api/2.0/mlflow/';

/** @param {Record<string, string | number | string[] | null | undefined>} fields */
export function query(fields) {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) {
    if (value === null || value === undefined || value === '') continue;
    for (const one of Array.isArray(value) ? value : [value]) params.append(name, String(one));
  }
  return params.toString();
}

/** Reads. @param {string} path below `/ajax-api/2.0/mlflow/` @param {Parameters<typeof query>[0]} [fields] @param {AbortSignal} [signal] */
export const read = (path, fields = {}, signal = undefined) => ask(`${ROOT}${path}?${query(fields)}`, { signal });

/** Posts, patches, deletes. @param {string} path @param {object} body @param {string} [method] @param {AbortSignal} [signal] */
export const send = (path, body, method = 'POST', signal = undefined) => ask(ROOT + path, { method, signal, body: JSON.stringify(body), headers: { 'content-type': 'application/json' } });

/**
 * What `load` gives; loaded again when `key` changes or `again` is called. The old answer stays until the new one is there.
 * @template T @param {string | null} key null loads nothing @param {(signal: AbortSignal) => Promise<T>} load
 * @returns {{data: T | null, error: import('../client.js').ApiError | null, waiting: boolean, again: () => void}}
 */
export function useLoad(key, load) {
  const [turn, setTurn] = useState(0);
  const [state, setState] = useState(/** @type {{key: string | null, turn: number, data: any, error: any}} */ ({ key: null, turn: 0, data: null, error: null }));
  useEffect(() => {
    if (key === null) return undefined;
    const abort = new AbortController();
    load(abort.signal).then(
      (data) => !abort.signal.aborted && setState({ key, turn, data, error: null }),
      (error) => !abort.signal.aborted && setState({ key, turn, data: null, error }),
    );
    return () => abort.abort();
  }, [key, turn]);
  const known = state.key === key && key !== null;
  return { data: known ? state.data : null, error: known ? state.error : null, waiting: key !== null && !(known && state.turn === turn), again: () => setTurn((n) => n + 1) };
}

/** Calls `work` every `gap` milliseconds while the page is seen; never twice at a time. @param {() => Promise<unknown>} work @param {number | null} gap null for never */
export function useEvery(work, gap) {
  const latest = useRef(work);
  latest.current = work;
  useEffect(() => {
    if (gap === null) return undefined;
    let timer = 0;
    let over = false;
    const turn = async () => {
      if (!document.hidden) await latest.current().catch(() => {});
      if (!over) timer = Number(setTimeout(turn, gap));
    };
    timer = Number(setTimeout(turn, gap));
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [gap]);
}

/** Works on `items`, at most `width` at a time. @template T, R @param {T[]} items @param {(item: T, i: number) => Promise<R>} work @param {number} [width] @returns {Promise<R[]>} */
export async function each(items, work, width = 6) {
  /** @type {R[]} */
  const results = new Array(items.length);
  let next = 0;
  await Promise.all(Array.from({ length: Math.min(width, items.length) }, async () => {
    while (next < items.length) {
      const i = next++;
      results[i] = await work(/** @type {T} */ (items[i]), i);
    }
  }));
  return results;
}

/** @param {{key: string, value: any}[] | undefined} list @returns {Map<string, any>} */
const mapOf = (list) => new Map((list ?? []).map(({ key, value }) => [key, value ?? '']));

/** @param {Run} run @returns {Row} */
export function rowOf({ info, data = {} }) {
  const tags = mapOf(data.tags);
  return {
    id: info.run_id, info, tags, name: info.run_name || tags.get('mlflow.runName') || info.run_id.slice(0, 8), params: mapOf(data.params),
    metrics: new Map((data.metrics ?? []).map(({ key, value }) => [key, Number(value ?? 0)])),
  };
}

/** A metric's value: NaN and infinities are values too. @param {unknown} value */
export function figure(value) {
  const it = typeof value === 'string' ? Number(value) : value;
  if (Number.isNaN(it)) return 'NaN';
  if (it === Infinity || it === -Infinity) return it > 0 ? '∞' : '−∞';
  return isNumber(it) ? number(it).replace('-', '−') : '–';
}

/** `1.4 MB`. @param {unknown} bytes */
export function size(bytes) {
  if (!isNumber(bytes)) return '';
  let [value, unit] = [bytes, 0];
  while (value >= 1000 && unit < 4) [value, unit] = [value / 1000, unit + 1];
  return `${unit === 0 ? count(value) : value.toPrecision(3)} ${['B', 'kB', 'MB', 'GB', 'TB'][unit]}`;
}

/** Tags that people set: not the ones by which clients tell their business. @param {Tag[] | undefined} tags */
export const ownTags = (tags) => (tags ?? []).filter(({ key }) => !key.startsWith('mlflow.'));

/** @param {string} experiment @param {string} run */
export const runLink = (experiment, run) => `/experiments/${encodeURIComponent(experiment)}/runs/${encodeURIComponent(run)}`;

/** @param {string} experiment @param {string} model the id of a logged model */
export const modelLink = (experiment, model) => `/experiments/${encodeURIComponent(experiment)}/models/${encodeURIComponent(model)}`;

/** MLflow's states in the words of a badge. */
export const TONES = /** @type {Record<string, string>} */ ({ FINISHED: 'good', FAILED: 'bad', KILLED: 'warn', RUNNING: 'info', SCHEDULED: 'quiet', READY: 'good', PENDING_REGISTRATION: 'info', FAILED_REGISTRATION: 'bad', LOGGED_MODEL_READY: 'good', LOGGED_MODEL_PENDING: 'info', LOGGED_MODEL_UPLOAD_FAILED: 'bad', Production: 'good', Staging: 'info', Archived: 'quiet' });

/** The eleventh curve has the first one's colour, and is dashed. @param {number} i */
export const curveDash = (i) => (i < 10 ? undefined : i < 20 ? [6, 4] : [2, 3]);

/** Colours of curves that stay apart in light and in dark. */
export const curveColour = (/** @type {number} */ i) => `--curve-${i % 10}`;
