// The one door to the server: `/api/v1`, and its stream of events.
import { effect, signal } from '../vendor/signals.js';
import { useEffect, useState } from '../vendor/hooks.js';

/** @typedef {import('./types.js').Status} Status */
/** @typedef {import('./types.js').Timeline} Timeline */
/** @typedef {import('./types.js').TimelineEvent} TimelineEvent */

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

/** @param {string} path below `/api/v1` @returns {Promise<any>} */
export async function get(path) {
  let response;
  try {
    response = await fetch(`/api/v1${path}`, { headers: { accept: 'application/json' } });
  } catch {
    throw new ApiError('the server does not answer; check that `tidemill` is running', 0);
  }
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new ApiError(messageOf(body) ?? `the server answered ${response.status}`, response.status);
  if (body === null) throw new ApiError(`\`/api/v1${path}\` did not answer with JSON`, response.status);
  return body;
}

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

const KINDS = [
  'alert.raised', 'run.queued', 'run.started', 'run.finished', 'run.failed', 'snapshot.quarantined', 'gate.passed', 'gate.refused',
  'gate.inconclusive', 'rollout.started', 'rollout.canary', 'rollout.promoted', 'rollout.rolled_back', 'rollout.holding',
  'version.registered', 'alias.moved',
];

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
  for (const kind of KINDS) stream.addEventListener(kind, receive);
  return stream;
}

setInterval(() => {
  if (!document.hidden) refreshStatus();
}, 5000);
