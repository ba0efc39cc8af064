// The runs of experiments, page by page, kept fresh while some of them run.
import { useEffect, useMemo, useRef, useState } from '../../vendor/preact.js';
import { rowOf, send, useEvery } from './api.js';
import { identifier } from './filter.js';

/** @typedef {import('./types.js').Row} Row */
/** @typedef {import('./types.js').Order} Order */
/** @typedef {import('./types.js').Keys} Keys */
/** @typedef {import('../client.js').ApiError} ApiError */
/** @typedef {{rows: Row[], token: string | null, waiting: boolean, error: ApiError | null, late: number}} State */

/** The first page comes soon, the others are large. */
const FIRST = 250;
const PAGE = 1000;
const GAP = 5000;

/**
 * @param {string[]} experiments @param {string} filter @param {Order | null} order @param {string} view @param {number} most @param {string | null} [token] @param {AbortSignal} [signal]
 * @returns {Promise<{rows: Row[], token: string | null}>}
 */
export async function search(experiments, filter, order, view, most, token = null, signal = undefined) {
  const page = await send('runs/search', {
    experiment_ids: experiments, run_view_type: view, max_results: most, ...(filter ? { filter } : {}), ...(token ? { page_token: token } : {}),
    ...(order ? { order_by: [`${identifier(order.column)} ${order.descending ? 'DESC' : 'ASC'}`] } : {}),
  }, 'POST', signal);
  return { rows: (page.runs ?? []).map(rowOf), token: page.next_page_token || null };
}

/** The keys that rows have, sorted. @param {Row[]} rows @returns {Keys} */
export function keysOf(rows) {
  const [metrics, params, tags] = [new Set(), new Set(), new Set()];
  for (const row of rows) {
    for (const key of row.metrics.keys()) metrics.add(key);
    for (const key of row.params.keys()) params.add(key);
    for (const key of row.tags.keys()) tags.add(key);
  }
  const sorted = (/** @type {Set<any>} */ set) => [...set].sort((a, b) => a.localeCompare(b));
  return { metrics: sorted(metrics), params: sorted(params), tags: sorted(tags) };
}

const isOpen = (/** @type {Row} */ row) => row.info.status === 'RUNNING' || row.info.status === 'SCHEDULED';

/** @param {string[]} experiments @param {string} filter @param {Order | null} order @param {string} view @param {boolean} live */
export function useRuns(experiments, filter, order, view, live) {
  const [turn, setTurn] = useState(0);
  const [state, setState] = useState(/** @type {State} */ ({ rows: [], token: null, waiting: true, error: null, late: 0 }));
  const now = useRef(state);
  const job = useRef(new AbortController());
  const busy = useRef(/** @type {Promise<void> | null} */ (null));
  const key = JSON.stringify([experiments, filter, order, view]);
  const set = (/** @type {Partial<State>} */ change) => setState((now.current = { ...now.current, ...change }));

  /** @param {number} most */
  const page = async (most) => {
    const { signal } = job.current;
    set({ waiting: true });
    try {
      const next = await search(experiments, filter, order, view, most, now.current.token, signal);
      if (signal.aborted) return;
      // Between two pages runs may have moved: no run is listed twice.
      const known = new Set(now.current.rows.map((row) => row.id));
      set({ rows: [...now.current.rows, ...next.rows.filter((row) => !known.has(row.id))], token: next.token, waiting: false, error: null });
    } catch (error) {
      if (!signal.aborted) set({ waiting: false, token: null, error: /** @type {ApiError} */ (error) });
    }
  };

  useEffect(() => {
    job.current = new AbortController();
    busy.current = null;
    set({ rows: [], token: null, waiting: true, error: null, late: 0 });
    busy.current = page(FIRST).finally(() => { busy.current = null; });
    return () => job.current.abort();
  }, [key, turn]);

  /** Loads the next page, unless one is on its way. */
  const more = () => {
    if (!busy.current && now.current.token) busy.current = page(PAGE).finally(() => { busy.current = null; });
    return busy.current;
  };
  /** Loads all that is left. */
  const all = async () => {
    const { signal } = job.current;
    while (now.current.token && !signal.aborted) await more();
  };

  const refresh = async () => {
    const { signal } = job.current;
    const { rows, error, waiting } = now.current;
    if (error || waiting) return;
    const open = rows.filter(isOpen).slice(0, 200);
    const newest = rows.reduce((latest, row) => Math.max(latest, row.info.start_time ?? 0), 0);
    const [changed, fresh] = await Promise.all([
      open.length ? search(experiments, `attributes.run_id IN (${open.map((row) => `'${row.id}'`).join(', ')})`, null, 'ALL', open.length, null, signal) : { rows: [] },
      search(experiments, `${filter ? `${filter} AND ` : ''}attributes.start_time > ${newest}`, null, view, 200, null, signal),
    ]);
    if (signal.aborted) return;
    const by = new Map(changed.rows.map((row) => [row.id, row]));
    const known = new Set(now.current.rows.map((row) => row.id));
    const added = fresh.rows.filter((row) => !known.has(row.id));
    if (by.size === 0 && added.length === 0) return;
    const updated = now.current.rows.map((row) => by.get(row.id) ?? row);
    // In their own order new runs come first; in another their place is not known.
    set(order ? { rows: updated, late: added.length } : { rows: [...added, ...updated] });
  };
  useEvery(refresh, live ? GAP : null);

  const keys = useMemo(() => keysOf(state.rows), [state.rows]);
  return { ...state, keys, more, all, again: () => setTurn((n) => n + 1) };
}
