// A server for the browser tests: the files of ui/ under the policy of the real server, and canned answers of /api/v1.
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { tracking } from './tracking-fixture.mjs';

const UI = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../ui');
const TYPES = /** @type {Record<string, string>} */ ({ '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' });
const PAGES = /^\/($|endpoints|runs|decisions|predictions|models|experiments)/;
const DAY = 86_400_000;
const START = Date.UTC(2013, 0, 1);
const FEATURES = ['dep_delay', 'distance', 'air_time', 'carrier', 'origin', 'dest', 'sched_dep_hour', 'weekday', 'month', 'temp', 'dewp', 'humid', 'wind_speed', 'precip', 'pressure', 'visib', 'plane_age', 'seats'];

const iso = (/** @type {number} */ at) => new Date(at).toISOString().replace('.000Z', 'Z');
/** Repeatable noise in -1…1. @param {number} i @param {number} salt */
const noise = (i, salt) => 2 * (Math.abs(Math.sin(i * 12.9898 + salt * 78.233) * 43758.5453) % 1) - 1;
export const RUN = '0190f3a2b1c84d5e9f60718293a4b5c6';
export const DECISION = '0190f3a2c7d94e1fa0b1c2d3e4f50617';
export const PREDICTION = '0190f3a2d5a04b1c8d9e0f1a2b3c4d5e';
const digest = (/** @type {number} */ n) => `sha256:${Array.from({ length: 64 }, (_, i) => ((i * 7 + n * 13 + ((i * i) % 11)) % 16).toString(16)).join('')}`;

/** The year's retrainings: day, what the gate said, what the rollout came to. @type {[number, string, string | null][]} */
const RETRAININGS = [[30, 'passed', 'promoted'], [72, 'passed', 'promoted'], [104, 'inconclusive', null], [118, 'passed', 'promoted'], [160, 'refused', null], [176, 'passed', 'rolled_back'], [190, 'passed', 'promoted'], [236, 'passed', 'promoted'], [262, 'refused', null], [285, 'passed', 'promoted'], [322, 'inconclusive', null], [338, 'passed', 'promoted']];

function eventsOf() {
  /** @type {{at: number, kind: string, text: string, subject: [string, string]}[]} */
  const events = [];
  const add = (/** @type {number} */ day, /** @type {string} */ kind, /** @type {string} */ text, /** @type {string} */ noun, /** @type {string} */ id) => events.push({ at: START + day * DAY, kind, text, subject: [noun, id] });
  let champion = 0;
  RETRAININGS.forEach(([day, verdict, outcome], i) => {
    const v = i + 1;
    const rollout = `rollout-${v}`;
    if (i > 0) add(day, 'alert.raised', `drift: ${(0.32 + i * 0.01).toFixed(2)} of the features are over their threshold`, 'alert', `alert-${v}`);
    add(day + 0.02, 'run.queued', i > 0 ? 'by drift: alert acted upon' : 'by cron: first training', 'run', RUN);
    add(day + 0.05, 'run.started', `training on ${28 + i * 20} k rows`, 'run', RUN);
    add(day + 0.1, 'run.finished', `version ${v} trained, auc 0.7${20 + i}`, 'run', RUN);
    add(day + 0.11, 'version.registered', `flight-delay version ${v}`, 'version', String(v));
    add(day + 0.2, `gate.${verdict}`, `version ${v} against version ${champion}: auc ${verdict === 'refused' ? '−0.0118' : '+0.0094'}`, 'decision', DECISION);
    if (!outcome) return;
    add(day + 0.3, 'rollout.started', `version ${v} shadows`, 'rollout', rollout);
    add(day + 3, 'rollout.canary', `version ${v} on 5 % of traffic`, 'rollout', rollout);
    add(day + 5, 'rollout.canary', `version ${v} on 25 % of traffic`, 'rollout', rollout);
    if (outcome === 'promoted') {
      add(day + 8, 'rollout.promoted', `version ${v} is champion after version ${champion}`, 'rollout', rollout);
      add(day + 8, 'alias.moved', `champion: ${champion} → ${v}`, 'model', 'flight-delay');
      champion = v;
    } else add(day + 7, 'rollout.rolled_back', `version ${v}: errors over the limit`, 'rollout', rollout);
  });
  add(215, 'run.failed', 'step train: exit status 137, out of memory', 'run', RUN);
  add(140, 'snapshot.quarantined', 'expect_column_values_to_be_between on `dep_delay` failed for 812 rows', 'snapshot', digest(4));
  return events.sort((a, b) => a.at - b.at).map((event, i) => ({ seq: i + 1, ...event, at: iso(event.at) }));
}

function timelineOf() {
  const events = eventsOf();
  const promotions = RETRAININGS.flatMap(([day, , outcome], i) => (outcome === 'promoted' ? [[day + 8, i + 1]] : []));
  const performance = Array.from({ length: 51 }, (_, week) => {
    const day = 7 * (week + 2);
    const version = promotions.findLast(([at]) => (at ?? 0) <= day)?.[1] ?? 0;
    const season = 0.02 * Math.sin((day / 365) * 6.28 + 0.4);
    const frozen = 0.724 - (Math.max(0, day - 60) / 305) * 0.058 + season + 0.007 * noise(week, 1);
    const age = day - (promotions.findLast(([at]) => (at ?? 0) <= day)?.[0] ?? 0);
    return { until: iso(START + day * DAY), champion: version === 0 ? null : version === 1 ? frozen : 0.735 + season + 0.006 * noise(week, 2) - age * 0.0003, frozen: version === 0 ? null : frozen, labels: 6100 + Math.round(600 * noise(week, 3)), version };
  });
  const drift = Array.from({ length: 52 }, (_, week) => {
    const features = Object.fromEntries(['prediction', ...FEATURES].map((name, f) => {
      const seasonal = ['temp', 'dewp', 'month', 'humid'].includes(name) ? 0.26 * (1 - Math.cos((week / 52) * 6.28)) : 0.03;
      const burst = f % 5 === 1 && week % 13 > 9 ? 0.12 : 0;
      return [name, Math.max(0.002, seasonal + burst + 0.03 * noise(week, f) + 0.03)];
    }));
    const share = Object.values(features).filter((score) => score >= 0.2).length / Object.keys(features).length;
    return { until: iso(START + 7 * (week + 1) * DAY), features, share, state: week < 2 ? 'insufficient' : share >= 0.2 ? 'alert' : 'ok' };
  });
  const months = Array.from({ length: 12 }, (_, m) => {
    const month = `2013-${String(m + 1).padStart(2, '0')}`;
    const here = (/** @type {string} */ kind) => events.filter((e) => e.at.startsWith(month) && e.kind === kind).length;
    const windows = performance.filter((p) => p.until.startsWith(month) && p.champion !== null);
    const mean = (/** @type {'champion' | 'frozen'} */ of) => (windows.length ? windows.reduce((sum, p) => sum + (p[of] ?? 0), 0) / windows.length : null);
    return { month, predictions: 27_004 + m * 133, labels: 26_398 + m * 120, auc_frozen: mean('frozen'), auc_champion: mean('champion'), retrainings: here('run.finished'), refused: here('gate.refused'), inconclusive: here('gate.inconclusive'), promoted: here('rollout.promoted'), rolled_back: here('rollout.rolled_back'), outcome: windows.length ? 1200.5 + 310 * m : null };
  });
  return { endpoint: 'flight-delay', metric: 'auc', higher_is_better: true, drift_method: ['psi', 0.2, 0.2], performance_window: '7d', months, performance, drift, events };
}

const gate = {
  id: DECISION, kind: 'gate', subject: ['run', RUN], verdict: 'pass', at: '2013-10-13T04:48:00Z', actor: 'tidemill', config_digest: digest(9),
  inputs: { challenger: { version: 10 }, champion: { version: 8 }, holdout: { rows: 12_844, from: '2013-09-28T00:00:00Z', until: '2013-10-12T00:00:00Z' }, seed: 42 },
  result: { checks: [
    { metric: 'auc', test: 'delong', champion: 0.7181, challenger: 0.7275, difference: 0.0094, std_error: 0.0021, lower: 0.0053, upper: 0.0135, margin: 0.002, confidence: 0.95, verdict: 'pass' },
    { metric: 'log_loss', test: 'paired_t', champion: 0.5122, challenger: 0.5119, difference: 0.0003, std_error: 0.0013, lower: -0.0022, upper: 0.0028, margin: 0.005, confidence: 0.95, verdict: 'pass' },
    { metric: 'brier', test: 'paired_t', champion: 0.1612, challenger: 0.1616, difference: -0.0004, std_error: 0.0006, lower: -0.0016, upper: 0.0008, margin: 0.002, confidence: 0.95, verdict: 'pass' },
  ] },
};
const run = {
  id: RUN, trigger_kind: 'drift', trigger_reason: 'drift: 0.42 of the features are over their threshold', state: 'finished', created_at: '2013-10-13T00:28:48Z', started_at: '2013-10-13T01:12:00Z', ended_at: '2013-10-13T02:24:00Z',
  snapshot: digest(2), params: { learning_rate: 0.05, num_leaves: 63, rounds: 200, seed: 42 }, metrics: { auc: 0.7275, log_loss: 0.5119, rows: 228_114 }, code: digest(3), bundle: digest(5), model_version: 10, error: null, decision: DECISION,
};
const steps = [
  { name: 'snapshot', state: 'finished', attempt: 1, started_at: '2013-10-13T01:12:00Z', ended_at: '2013-10-13T01:14:10Z', error: null },
  { name: 'validate', state: 'finished', attempt: 1, started_at: '2013-10-13T01:14:10Z', ended_at: '2013-10-13T01:14:31Z', error: null },
  { name: 'train', state: 'finished', attempt: 2, started_at: '2013-10-13T01:14:31Z', ended_at: '2013-10-13T02:20:11Z', error: null, cache_key: digest(6) },
  { name: 'register', state: 'finished', attempt: 1, started_at: '2013-10-13T02:20:11Z', ended_at: '2013-10-13T02:24:00Z', error: null },
];
const lineage = {
  prediction_id: PREDICTION,
  prediction: { endpoint: 'flight-delay', at: '2013-11-02T14:05:00Z', score: 0.6812, role: 'champion', features: { carrier: 'UA', origin: 'EWR', dest: 'ORD', distance: 719, sched_dep_hour: 17, temp: 51.08, wind_speed: 12.7 }, shadows: [{ version: 1, score: 0.5521 }] },
  version: { model: 'flight-delay', version: 10, metrics: { auc: 0.7275, log_loss: 0.5119 }, created_at: '2013-10-13T02:24:00Z' },
  run: { id: RUN, trigger_kind: 'drift', trigger_reason: run.trigger_reason, params: run.params, seed: 42, key: digest(6), steps },
  code: { code: digest(3), lock: digest(7) },
  snapshot: { digest: digest(2), rows: 228_114, origin: 'predictions and labels', from: '2013-01-01T00:00:00Z', until: '2013-10-12T00:00:00Z' },
  validation: { success: true, statistics: { evaluated_expectations: 9, successful_expectations: 9 }, results: [] },
  labels: [{ value: true, event_time: '2013-11-02T18:31:00Z', received_at: '2013-11-03T00:00:00Z', source: 'ops', kind: 'ground_truth' }],
  decisions: [{ id: DECISION, kind: 'gate', verdict: 'pass', at: gate.at }, { id: 'd2', kind: 'rollout', verdict: 'promote', at: '2013-10-21T00:00:00Z' }],
  used_by: [{ snapshot: digest(8), versions: [12] }],
};
const model = {
  name: 'flight-delay', aliases: { champion: 12, challenger: 11 },
  versions: RETRAININGS.map(([day], i) => ({ version: i + 1, created_at: iso(START + (day + 0.1) * DAY), run_id: RUN, metrics: { auc: 0.72 + i * 0.001, log_loss: 0.52 - i * 0.001 } })),
  history: RETRAININGS.filter(([, , outcome]) => outcome === 'promoted').map(([day], i) => ({ at: iso(START + (day + 8) * DAY), alias: 'champion', from: i === 0 ? null : i, to: i + 1, actor: 'tidemill', reason: 'canary passed', decision: DECISION })),
};

/** Starts the server on a free port; one that only `tracks` has no project. @param {{empty?: boolean, tracks?: boolean}} [options] */
export async function start({ empty = false, tracks = false } = {}) {
  const timeline = timelineOf();
  if (empty) Object.assign(timeline, { months: [], performance: [], drift: [], events: [] });
  const status = {
    version: '0.1.0', project: 'flights', now: '2013-12-31T12:00:00Z', virtual_clock: true, predictions: empty ? 0 : 336_776, labels: empty ? 0 : 327_346, unmatched_labels: 0, rss_mb: 212, peak_rss_mb: 301, open_runs: 0, open_alerts: 0,
    endpoints: [{ name: 'flight-delay', model: 'flight-delay', champion: empty ? null : 12, previous: empty ? null : 10, baseline: empty ? null : 1, canary: null, shadows: empty ? [] : [1], rollout: null, first_served_at: empty ? null : '2013-01-01T05:00:00Z' }],
  };
  if (tracks) Object.assign(status, { project: '', endpoints: [] });
  /** @type {Set<import('node:http').ServerResponse>} */
  const streams = new Set();
  /** @type {Record<string, any>} */
  const answers = {
    '/status': status, '/endpoints/flight-delay/timeline': timeline, [`/runs/${RUN}`]: { ...run, steps }, [`/decisions/${DECISION}`]: gate, [`/lineage/predictions/${PREDICTION}`]: lineage, '/models/flight-delay': model,
  };

  const tracked = tracking();
  const server = createServer(async (request, response) => {
    const url = new URL(request.url ?? '/', 'http://fixture');
    const { pathname } = url;
    const send = (/** @type {number} */ code, /** @type {string} */ type, /** @type {string | Buffer} */ body, headers = {}) => {
      response.writeHead(code, { 'content-type': type, 'content-security-policy': "default-src 'self'", 'x-content-type-options': 'nosniff', ...headers });
      response.end(body);
    };
    if (/^\/(ajax-api|get-artifact|model-versions|api\/v1\/(models\/[^/]+\/|tracking\/).)/.test(pathname)) {
      let body = '';
      for await (const part of request) body += part;
      const answer = tracked.answer(url, request.method ?? 'GET', request.headers['content-type'] ?? '', body);
      if (answer) send(answer.code, answer.type ?? 'application/json', answer.text ?? JSON.stringify(answer.body), answer.headers);
      else send(404, 'application/json', '{}');
      return;
    }
    if (pathname === '/api/v1/events/stream') {
      response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
      response.write(': open\n\n');
      streams.add(response);
      request.on('close', () => streams.delete(response));
      return;
    }
    if (pathname.startsWith('/api/v1')) {
      const answer = answers[decodeURIComponent(pathname.slice('/api/v1'.length))];
      if (answer) send(200, 'application/json', JSON.stringify(answer));
      else send(404, 'application/json', JSON.stringify({ error: { code: 'not_found', message: `no \`${pathname}\`; check the id` } }));
      return;
    }
    const file = path.extname(pathname) === '' && PAGES.test(pathname) ? '/index.html' : pathname;
    try {
      send(200, TYPES[path.extname(file)] ?? 'application/octet-stream', await readFile(path.join(UI, path.normalize(file))));
    } catch {
      send(404, 'text/plain', 'not found');
    }
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', () => done(null)));
  const address = /** @type {import('node:net').AddressInfo} */ (server.address());
  return {
    url: `http://127.0.0.1:${address.port}`,
    timeline,
    tracked,
    /** How many pages listen. */
    listeners: () => streams.size,
    /** Logs an event and tells all pages. @param {{kind: string, text: string, subject: [string, string]}} event */
    emit(event) {
      const logged = { seq: timeline.events.length + 1, at: '2013-12-31T12:00:00Z', ...event };
      timeline.events.push(logged);
      for (const stream of streams) stream.write(`id: ${logged.seq}\ndata: ${JSON.stringify(logged)}\n\n`);
    },
    async stop() {
      for (const stream of streams) stream.end();
      server.closeAllConnections();
      await new Promise((done) => server.close(() => done(null)));
    },
  };
}

// `node fixture.mjs` keeps it up, to look at the page by hand.
if (process.argv[1] === fileURLToPath(import.meta.url)) console.log((await start({ empty: process.argv.includes('--empty') })).url);
