// What the page knows: how to write a number, where it is, what events mean, what the server says.
import { effect, signal, useEffect, useState } from '../vendor/preact.js';

export const MISSING = '–';
const grouped = new Intl.NumberFormat('en-GB');

/** @param {unknown} value @returns {value is number} */
export const isNumber = (value) => typeof value === 'number' && Number.isFinite(value);

/** A count: `336 776`. @param {unknown} value */
export const count = (value) => (isNumber(value) ? grouped.format(value).replaceAll(',', '\u202f') : MISSING);

/** A metric: four digits after the point. @param {unknown} value @param {number} [digits] */
export const metric = (value, digits = 4) => (isNumber(value) ? value.toFixed(digits).replace('-', '−') : MISSING);

/** A difference with its sign. @param {unknown} value @param {number} [digits] */
export function signed(value, digits = 4) {
  if (!isNumber(value)) return MISSING;
  const text = metric(value, digits);
  return value > 0 ? `+${text}` : text;
}

/** A share of one as per cent. @param {unknown} value @param {number} [digits] */
export const percent = (value, digits = 0) => (isNumber(value) ? `${(value * 100).toFixed(digits)} %` : MISSING);

/** Any number: at most five significant digits. @param {unknown} value */
export function number(value) {
  if (!isNumber(value)) return MISSING;
  if (Number.isInteger(value)) return count(value);
  const size = Math.abs(value);
  if (size >= 1e4) return count(Math.round(value));
  if (size < 1e-4) return value.toExponential(2).replace('-', '−');
  return String(Number(value.toPrecision(5))).replace('-', '−');
}

/** Seconds since the epoch, NaN where there is no time. @param {unknown} at */
export const seconds = (at) => (typeof at === 'string' ? Date.parse(at) / 1000 : isNumber(at) ? at / 1000 : NaN);

/** `2013-05-17 10:00`, UTC. @param {unknown} at */
export function time(at) {
  const date = new Date(typeof at === 'string' ? at : isNumber(at) ? at : NaN);
  return Number.isNaN(date.getTime()) ? MISSING : date.toISOString().slice(0, 16).replace('T', ' ');
}

/** `2013-05-17`, UTC. @param {unknown} at */
export const day = (at) => time(at).slice(0, 10);

/** The time between two times: `3 h 20 min`. @param {unknown} from @param {unknown} until */
export function duration(from, until) {
  const span = seconds(until) - seconds(from);
  if (!Number.isFinite(span) || span < 0) return MISSING;
  if (span < 1) return `${Math.round(span * 1000)} ms`;
  if (span < 60) return `${span.toFixed(1)} s`;
  if (span < 3600) return `${Math.floor(span / 60)} min ${Math.round(span % 60)} s`;
  if (span < 86400) return `${Math.floor(span / 3600)} h ${Math.round((span % 3600) / 60)} min`;
  return `${(span / 86400).toFixed(1)} days`;
}

/** `v3`; version 0 is the endpoint's default answer. @param {unknown} version */
export const version = (version) =>
  version === null || version === undefined ? MISSING : version === 0 ? 'default answer' : `v${version}`;

/** The first digits of an id or digest, enough to tell it from others. @param {unknown} id */
export function short(id) {
  if (typeof id !== 'string') return MISSING;
  const [, scheme = '', digits = id] = /^(sha256:|blake3:)?(.*)$/.exec(id) ?? [];
  return digits.length > 16 ? `${scheme}${digits.slice(0, 12)}…` : id;
}

/** @typedef {import('./types.js').Route} Route */

const PAGES = ['endpoints', 'runs', 'decisions', 'predictions', 'models', 'experiments'];

/** @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** @returns {Route} */
function read() {
  const [noun = '', ...rest] = location.pathname.replace(/^\/+|\/+$/g, '').split('/');
  const page = noun === '' ? 'home' : PAGES.includes(noun) ? noun : 'unknown';
  const id = rest.length > 0 ? decoded(rest.join('/')) : null;
  return { path: location.pathname, page, id, params: new URLSearchParams(location.search) };
}

/** Where we are. */
export const route = signal(read());

/** After a change of page, keyboard and screen reader start at its heading, once there is one. */
export const arrival = { pending: false };

/** Goes to another page. @param {string} url @param {boolean} [replace] */
export function go(url, replace = false) {
  const before = location.pathname;
  history[replace ? 'replaceState' : 'pushState'](null, '', url);
  route.value = read();
  if (location.pathname !== before) {
    arrival.pending = true;
    scrollTo(0, 0);
  }
}

/** The current URL with other parameters; null takes one away. @param {Record<string, string | null>} changes */
export function withParams(changes) {
  const params = new URLSearchParams(route.value.params);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === '') params.delete(name);
    else params.set(name, value);
  }
  const query = params.toString();
  return route.value.path + (query ? `?${query}` : '');
}

/** @param {Record<string, string | null>} changes @param {boolean} [replace] */
export const setParams = (changes, replace = false) => go(withParams(changes), replace);

/** A page's URL: `link('runs', id)`. @param {string} noun @param {unknown} id */
export const link = (noun, id) => `/${noun}/${encodeURIComponent(String(id))}`;

addEventListener('popstate', () => {
  arrival.pending = location.pathname !== route.peek().path;
  route.value = read();
});

// Plain links between our own pages change the URL without a reload.
addEventListener('click', (event) => {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const anchor = event.target instanceof Element ? event.target.closest('a') : null;
  const href = anchor?.getAttribute('href');
  if (!href || !href.startsWith('/') || href.startsWith('/api/') || anchor?.hasAttribute('target') || anchor?.hasAttribute('download')) return;
  event.preventDefault();
  go(href);
});

/** @typedef {import('./types.js').TimelineEvent} TimelineEvent */
/** @typedef {import('./types.js').Kind} Kind */

/** @type {Record<string, Kind>} */
export const KINDS = {
  'alert.raised': { label: 'Alert raised', lane: 'Alerts', tone: 'warn', shape: 'triangle' },
  'snapshot.quarantined': { label: 'Snapshot quarantined', lane: 'Alerts', tone: 'bad', shape: 'triangle' },
  'run.queued': { label: 'Run queued', lane: null, tone: 'quiet', shape: 'circle' },
  'run.started': { label: 'Run started', lane: null, tone: 'quiet', shape: 'circle' },
  'run.finished': { label: 'Run finished', lane: 'Retraining', tone: 'info', shape: 'circle' },
  'run.failed': { label: 'Run failed', lane: 'Retraining', tone: 'bad', shape: 'cross' },
  'gate.passed': { label: 'Gate passed', lane: 'Gates', tone: 'good', shape: 'diamond' },
  'gate.refused': { label: 'Gate refused', lane: 'Gates', tone: 'bad', shape: 'cross' },
  'gate.inconclusive': { label: 'Gate inconclusive', lane: 'Gates', tone: 'warn', shape: 'hollow' },
  'rollout.started': { label: 'Rollout started', lane: 'Rollouts', tone: 'quiet', shape: 'tick' },
  'rollout.canary': { label: 'Canary step', lane: 'Rollouts', tone: 'info', shape: 'tick' },
  'rollout.holding': { label: 'Rollout holding', lane: 'Rollouts', tone: 'warn', shape: 'hollow' },
  'rollout.promoted': { label: 'Promoted', lane: 'Rollouts', tone: 'good', shape: 'flag' },
  'rollout.rolled_back': { label: 'Rolled back', lane: 'Rollouts', tone: 'bad', shape: 'cross' },
  'version.registered': { label: 'Version registered', lane: null, tone: 'info', shape: 'circle' },
  'alias.moved': { label: 'Alias moved', lane: null, tone: 'quiet', shape: 'circle' },
};

export const LANES = ['Alerts', 'Retraining', 'Gates', 'Rollouts'];

/** @param {string} kind @returns {Kind} */
export const kindOf = (kind) => KINDS[kind] ?? { label: kind, lane: null, tone: 'quiet', shape: 'circle' };

/**
 * The page about an event's subject. Nouns without a page of their own lead to all events about the same subject.
 * @param {TimelineEvent} event @param {string} endpoint @param {string | null} [model]
 */
export function eventLink(event, endpoint, model = null) {
  const [noun, id] = event.subject ?? ['', ''];
  if (noun === 'run') return link('runs', id);
  if (noun === 'decision' || noun === 'gate') return link('decisions', id);
  if (noun === 'prediction') return link('predictions', id);
  if (noun === 'model') return link('models', id);
  if (noun.endsWith('version') && (model || id.includes('/'))) {
    const [name, number] = id.includes('/') ? id.split('/') : [model, id];
    return `${link('models', name)}?version=${encodeURIComponent(number)}`;
  }
  return `${link('endpoints', endpoint)}?tab=events&subject=${encodeURIComponent(`${noun}:${id}`)}`;
}

/** @typedef {import('./types.js').Status} Status */
/** @typedef {import('./types.js').Timeline} Timeline */

/** An answer that is not the one we asked for. */
export class ApiError extends Error {
  /** @param {string} message @param {number} status */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** What the API says went wrong, in whichever of the usual shapes. @param {any} body @returns {string | null} */
function messageOf(body) {
  const said = body?.error?.message ?? body?.message ?? body?.error ?? body?.detail ?? body?.title;
  return typeof said === 'string' ? said : null;
}

/** Asks the server, and throws an `ApiError` unless it answers well. @param {string} url @param {RequestInit} [how] @returns {Promise<any>} */
export async function ask(url, how) {
  let response;
  try {
    response = await fetch(url, { ...how, headers: { accept: 'application/json', ...how?.headers } });
  } catch (error) {
    if (how?.signal?.aborted) throw error;
    throw new ApiError('the server does not answer; check that `tidemill` is running', 0);
  }
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new ApiError(messageOf(body) ?? `the server answered ${response.status}`, response.status);
  if (body === null) throw new ApiError(`\`${url}\` did not answer with JSON`, response.status);
  return body;
}

/** @param {string} path below `/api/v1` @returns {Promise<any>} */
export const get = (path) => ask(`/api/v1${path}`);

/**
 * What `path` answers; asked again when it changes. The old answer stays while the new one is on its way.
 * @param {string | null} path
 * @returns {{data: any, error: ApiError | null}}
 */
export function useGet(path) {
  const [state, setState] = useState(/** @type {{path: string | null, data: any, error: ApiError | null}} */ ({ path, data: null, error: null }));
  useEffect(() => {
    let current = true;
    if (path !== null) {
      get(path).then(
        (data) => current && setState({ path, data, error: null }),
        (error) => current && setState({ path, data: null, error }),
      );
    }
    return () => {
      current = false;
    };
  }, [path]);
  return state.path === path ? state : { data: null, error: null };
}

/** The server at a glance; null before the first answer. */
export const status = signal(/** @type {Status | null} */ (null));
/** Why the status could not be read, if so. */
export const statusError = signal(/** @type {ApiError | null} */ (null));
/** The endpoint that the page shows; its timeline is kept fresh. */
export const watched = signal(/** @type {string | null} */ (null));
/** Its timeline; null before the first answer. */
export const timeline = signal(/** @type {Timeline | null} */ (null));
/** Why the timeline could not be read, if so. */
export const timelineError = signal(/** @type {ApiError | null} */ (null));
/** Events since the timeline was read, oldest first. */
export const fresh = signal(/** @type {TimelineEvent[]} */ ([]));
/** `connecting`, `live` or `lost`. */
export const connection = signal('connecting');

/** Calls `work` now, or as soon as `gap` milliseconds have passed since its last end; never twice at a time. @param {() => Promise<void>} work @param {number} gap */
function throttled(work, gap) {
  let running = false;
  let again = false;
  return function start() {
    if (running) {
      again = true;
      return;
    }
    running = true;
    work().finally(() => {
      setTimeout(() => {
        running = false;
        if (again) {
          again = false;
          start();
        }
      }, gap);
    });
  };
}

export const refreshStatus = throttled(async () => {
  try {
    const before = status.value;
    const now = await get('/status');
    status.value = now;
    statusError.value = null;
    if (before && (before.predictions !== now.predictions || before.labels !== now.labels)) refreshTimeline();
  } catch (error) {
    statusError.value = /** @type {ApiError} */ (error);
  }
}, 1000);

export const refreshTimeline = throttled(async () => {
  const name = watched.peek();
  if (name === null) return;
  try {
    const answer = await get(`/endpoints/${encodeURIComponent(name)}/timeline`);
    if (watched.peek() !== name) return;
    const last = (answer.events ?? []).reduce((/** @type {number} */ most, /** @type {TimelineEvent} */ e) => Math.max(most, e.seq), -1);
    timeline.value = answer;
    timelineError.value = null;
    fresh.value = fresh.peek().filter((event) => event.seq > last);
  } catch (error) {
    if (watched.peek() === name) timelineError.value = /** @type {ApiError} */ (error);
  }
}, 1000);

effect(() => {
  const name = watched.value;
  timeline.value = null;
  timelineError.value = null;
  fresh.value = [];
  if (name !== null) refreshTimeline();
});

/** Takes a message of the stream. @param {MessageEvent} message */
function receive(message) {
  /** @type {TimelineEvent & {endpoint?: string}} */
  let event;
  try {
    event = JSON.parse(message.data);
  } catch {
    return;
  }
  if (typeof event?.seq !== 'number' || (event.endpoint && event.endpoint !== watched.peek())) return;
  const known = timeline.peek()?.events ?? [];
  const isKnown = known.some((e) => e.seq === event.seq) || fresh.peek().some((e) => e.seq === event.seq);
  if (!isKnown) fresh.value = [...fresh.peek(), event].slice(-500);
  refreshTimeline();
  refreshStatus();
}

/** Opens the stream of events and keeps the status fresh. */
export function listen() {
  refreshStatus();
  const stream = new EventSource('/api/v1/events/stream');
  stream.onopen = () => {
    // After a break, what was missed comes with the timeline.
    if (connection.peek() === 'lost') refreshTimeline();
    connection.value = 'live';
  };
  stream.onerror = () => {
    connection.value = 'lost';
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  };
  stream.onmessage = receive;
  for (const kind of Object.keys(KINDS)) stream.addEventListener(kind, receive);
  return stream;
}

setInterval(() => {
  if (!document.hidden) refreshStatus();
}, 5000);
