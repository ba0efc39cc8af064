// MLflow's REST API with canned experiments, runs and models, as far as the pages use it: 10,000 runs, a history of 50,000 points.

/** @typedef {{code: number, body?: any, text?: string, type?: string, headers?: Record<string, string>}} Answer */

export const RUNS = 10_000;
export const LONG = 50_000;
const START = Date.UTC(2013, 5, 1);
const noise = (/** @type {number} */ i, /** @type {number} */ salt) => 2 * (Math.abs(Math.sin(i * 12.9898 + salt * 78.233) * 43758.5453) % 1) - 1;
/** The id of the `i`th run, the newest first. @param {number} i */
export const runId = (i) => i.toString(16).padStart(32, '0');
const tags = (/** @type {Record<string, string>} */ of) => Object.entries(of).map(([key, value]) => ({ key, value }));

/** @param {number} i */
function runOf(i) {
  const rate = Number((10 ** (-3 + 2.5 * ((noise(i, 1) + 1) / 2))).toPrecision(4));
  const leaves = [15, 31, 63, 127][i % 4] ?? 31;
  const auc = 0.7 + 0.05 * Math.exp(-((Math.log10(rate) + 1.5) ** 2)) + 0.0001 * leaves + 0.002 * noise(i, 2);
  const start = START - i * 600_000;
  const status = i === 0 ? 'RUNNING' : i % 9 === 4 ? 'FAILED' : 'FINISHED';
  const metric = (/** @type {string} */ key, /** @type {number | string} */ value, /** @type {number} */ step) => ({ key, value, timestamp: start + step * 1000, step });
  const metrics = [metric('auc', auc, 199), metric('loss', i === 7 ? 'NaN' : 0.62 - auc / 2, 199), metric('system/cpu_utilization_percentage', 61.5, 49)];
  if (i === 1) metrics.push(metric('long', 0.25, LONG - 1));
  return {
    info: { run_id: runId(i), run_name: `lgbm-${RUNS - 1 - i}`, experiment_id: '1', user_id: 'ada', status, start_time: start, ...(status === 'RUNNING' ? {} : { end_time: start + 184_000 }), artifact_uri: `mlflow-artifacts:/1/${runId(i)}/artifacts`, lifecycle_stage: 'active' },
    data: { metrics, params: tags({ learning_rate: String(rate), num_leaves: String(leaves), boosting: i % 3 ? 'gbdt' : 'dart', seed: '42' }), tags: tags({ 'mlflow.runName': `lgbm-${RUNS - 1 - i}`, 'mlflow.user': 'ada', 'mlflow.source.name': 'train.py', team: i % 2 ? 'ops' : 'growth', ...(i === 31 || i === 32 ? { 'mlflow.parentRunId': runId(1) } : {}) }) },
    inputs: i === 1 ? { dataset_inputs: [{ dataset: { name: 'flights', digest: '191bb80e', source_type: 'local', schema: '{"mlflow_colspec": [{"name": "distance", "type": "double"}]}' }, tags: tags({ 'mlflow.data.context': 'training' }) }] } : {},
    outputs: i === 1 ? { model_outputs: [{ model_id: 'm-0001', step: 0 }] } : {},
  };
}

/** @param {string} key @param {number} first @param {number} count @param {number} points @param {string} run */
function bucketsOf(key, first, count, points, run) {
  const at = (/** @type {number} */ step) => {
    const value = key === 'long' ? Math.sin(step / 4000) + 0.2 * noise(step, 5) + (step === 31_337 ? 5 : 0) : key === 'auc' ? 0.75 - 0.1 * Math.exp(-step / 40) + 0.004 * noise(step, Number.parseInt(run.slice(-4), 16)) : 0.3 + 0.7 * Math.exp(-step / 50);
    return { value, timestamp: START + step * 1000, step };
  };
  return Array.from({ length: Math.min(count, points) }, (_, b) => {
    const of = Math.min(count, points);
    const from = Math.floor((b * count) / of);
    const all = Array.from({ length: Math.floor(((b + 1) * count) / of) - from }, (_unused, j) => at(first + from + j));
    return { count: all.length, nan_count: 0, first: all[0], last: all.at(-1), min: all.reduce((x, y) => (y.value < x.value ? y : x)), max: all.reduce((x, y) => (y.value > x.value ? y : x)), mean: all.reduce((sum, one) => sum + one.value, 0) / all.length };
  });
}

const PIXEL = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAYAAACNMs+9AAAAFUlEQVR42mNk+M9Qz0AEYBxVSF+FABJADveWkH6oAAAAAElFTkSuQmCC', 'base64');
const FILES = /** @type {Record<string, string | Buffer>} */ ({
  'conf.json': JSON.stringify({ model: { depth: 6, layers: [1, 2, { width: null }] }, text: 'a', long: Array.from({ length: 450 }, (_, i) => i) }),
  'data.csv': `name,"distance, km",delayed\n${Array.from({ length: 900 }, (_, i) => `"flight ""${i}""",${i * 3},${i % 2 === 0}`).join('\n')}\n`,
  'notes.txt': 'Trained on <b>all</b> of 2013.\n'.repeat(40),
  'report.html': '<style>h1 { color: teal }</style><h1 onclick="parent.owned = 1">Report</h1><p style="color: red">All is well.</p><img src="x" onerror="parent.owned = 1"><script>parent.owned = 1; parent.document.title = "owned"; document.body.textContent = "owned"</script>',
  'model.parquet': Buffer.from('PAR1'), 'plots/dot.png': PIXEL,
});
const MLMODEL = (/** @type {string} */ inputs) => `flavors:\n  python_function:\n    loader_module: mlflow.sklearn\nsignature:\n  inputs: '${inputs}'\n  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1]}}]'\n  params: null\nutc_time_created: '2013-06-01'\n`;

const CLAUSE = /^\s*(?:(\w+)\.)?(`[^`]+`|"[^"]+"|[\w./]+)\s*(!=|>=|<=|=|>|<|I?LIKE|IN)\s*('[^']*'|"[^"]*"|\([^)]*\)|[-\d.e]+)\s*$/i;
const KINDS = /** @type {Record<string, string>} */ ({ metrics: 'm', metric: 'm', params: 'p', param: 'p', parameter: 'p', tags: 't', tag: 't', attributes: 'a', attribute: 'a' });

/** @param {any} run @param {string} kind @param {string} key */
const valueOf = (run, kind, key) => (kind === 'a' ? run.info[key] : (kind === 'm' ? run.data.metrics : kind === 'p' ? run.data.params : run.data.tags).find((/** @type {any} */ one) => one.key === key)?.value);

/** @param {any} value @param {string} op @param {any} with_ */
function holds(value, op, with_) {
  if (value === undefined) return false;
  switch (op.toUpperCase()) {
    case '=': return String(value) === String(with_);
    case '!=': return String(value) !== String(with_);
    case '>': return Number(value) > Number(with_);
    case '>=': return Number(value) >= Number(with_);
    case '<': return Number(value) < Number(with_);
    case '<=': return Number(value) <= Number(with_);
    case 'IN': return String(with_).includes(`'${value}'`);
    default: return new RegExp(`^${String(with_).replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replaceAll('%', '.*')}$`, op.toUpperCase() === 'ILIKE' ? 'i' : '').test(String(value));
  }
}

/** @param {string} filter */
function matcher(filter) {
  const clauses = filter.split(/\s+AND\s+/i).filter((part) => part.trim()).map((part) => {
    const found = CLAUSE.exec(part);
    if (!found) throw new Error(`Invalid clause(s) in filter string: '${part.trim()}'`);
    const [, entity = 'attribute', key = '', op = '', value = ''] = found;
    const kind = KINDS[entity.toLowerCase()];
    if (!kind) throw new Error(`Invalid entity type '${entity}'. Valid values are ['metric', 'parameter', 'tag', 'attribute', 'dataset']`);
    return { kind, key: key.replace(/^[`"]|[`"]$/g, ''), op, value: value.startsWith('(') ? value : value.replace(/^['"]|['"]$/g, '') };
  });
  return (/** @type {any} */ run) => clauses.every((clause) => holds(valueOf(run, clause.kind, clause.key), clause.op, clause.value));
}

export function tracking() {
  const runs = Array.from({ length: RUNS }, (_, i) => runOf(i));
  const experiments = [
    { experiment_id: '1', name: 'flight-delay', lifecycle_stage: 'active', creation_time: START, last_update_time: START + 5000, tags: tags({ team: 'ops', 'mlflow.note.content': 'Delays of flights from New York' }) },
    { experiment_id: '0', name: 'Default', lifecycle_stage: 'active', creation_time: START - 1000, last_update_time: START, tags: [] },
    { experiment_id: '2', name: 'an old one', lifecycle_stage: 'deleted', creation_time: START - 2000, last_update_time: START - 2000, tags: [] },
  ];
  const version = (/** @type {number} */ number) => ({ name: 'flight-delay', version: String(number), creation_timestamp: START + number * 86_400_000, last_updated_timestamp: START + number * 86_400_000, current_stage: number === 9 ? 'Production' : 'None', status: 'READY', run_id: runId(20 - number), source: `models:/m-${number}`, user_id: 'ada', description: number === 10 ? 'With the weather at the destination.' : '', tags: tags(number === 10 ? { validated: 'yes', weather: 'both' } : { validated: 'yes' }), aliases: number === 12 ? ['champion'] : [] });
  const models = [
    { name: 'flight-delay', description: 'Will it be late?', creation_timestamp: START, last_updated_timestamp: START + 12 * 86_400_000, latest_versions: [version(12)], tags: tags({ team: 'ops' }), aliases: [{ alias: 'champion', version: '12' }, { alias: 'challenger', version: '11' }] },
    { name: 'house-prices', creation_timestamp: START, last_updated_timestamp: START, latest_versions: [], tags: [], aliases: [] },
  ];
  const ok = (/** @type {any} */ body = {}) => /** @type {Answer} */ ({ code: 200, body });
  const missing = (/** @type {string} */ what) => /** @type {Answer} */ ({ code: 404, body: { error_code: 'RESOURCE_DOES_NOT_EXIST', message: `No ${what}` } });
  const wrong = (/** @type {string} */ message) => /** @type {Answer} */ ({ code: 400, body: { error_code: 'INVALID_PARAMETER_VALUE', message } });
  const setTag = (/** @type {any[]} */ list, /** @type {any} */ { key, value }) => {
    list.splice(0, list.length, ...list.filter((tag) => tag.key !== key), ...(value === undefined ? [] : [{ key, value }]));
    return ok();
  };
  const experiment = (/** @type {string} */ id) => experiments.find((e) => e.experiment_id === id);
  const run = (/** @type {string} */ id) => runs.find((r) => r.info.run_id === id);

  /** @type {Record<string, (fields: any) => Answer>} */
  const calls = {
    'experiments/search': ({ view_type: view = 'ACTIVE_ONLY', filter = '' }) => {
      const sought = /ILIKE '%(.*)%'/.exec(filter)?.[1]?.toLowerCase() ?? '';
      return ok({ experiments: experiments.filter((e) => (view === 'ALL' || (view === 'DELETED_ONLY') === (e.lifecycle_stage === 'deleted')) && e.name.toLowerCase().includes(sought)) });
    },
    'experiments/get': ({ experiment_id: id }) => (experiment(id) ? ok({ experiment: experiment(id) }) : missing(`experiment with id ${id}`)),
    'experiments/create': ({ name }) => {
      if (experiments.some((e) => e.name === name)) return { code: 400, body: { error_code: 'RESOURCE_ALREADY_EXISTS', message: `Experiment '${name}' already exists.` } };
      experiments.unshift({ experiment_id: String(experiments.length), name, lifecycle_stage: 'active', creation_time: START, last_update_time: START, tags: [] });
      return ok({ experiment_id: '3' });
    },
    'experiments/update': ({ experiment_id: id, new_name: name }) => ok(Object.assign(experiment(id) ?? {}, { name }) && {}),
    'experiments/delete': ({ experiment_id: id }) => ok(Object.assign(experiment(id) ?? {}, { lifecycle_stage: 'deleted' }) && {}),
    'experiments/restore': ({ experiment_id: id }) => ok(Object.assign(experiment(id) ?? {}, { lifecycle_stage: 'active' }) && {}),
    'experiments/set-experiment-tag': (f) => setTag(experiment(f.experiment_id)?.tags ?? [], f),
    'experiments/delete-experiment-tag': (f) => setTag(experiment(f.experiment_id)?.tags ?? [], { key: f.key }),
    'runs/search': ({ experiment_ids: ids = [], filter = '', run_view_type: view = 'ACTIVE_ONLY', max_results: most = 1000, order_by: [order] = [], page_token: token }) => {
      let matches;
      try {
        matches = matcher(filter);
      } catch (error) {
        return wrong(/** @type {Error} */ (error).message);
      }
      let found = runs.filter((r) => ids.includes(r.info.experiment_id) && (view === 'ALL' || (view === 'DELETED_ONLY') === (r.info.lifecycle_stage === 'deleted')) && matches(r));
      const [, entity = '', key = '', way = 'ASC'] = /^(\w+)\.`?(.+?)`?(?:\s+(ASC|DESC))?$/.exec(order ?? '') ?? [];
      if (entity) {
        const keyed = found.map((r) => ({ r, v: valueOf(r, KINDS[entity] ?? 'a', key) }));
        keyed.sort((a, b) => (way === 'DESC' ? -1 : 1) * (Number.isNaN(Number(a.v)) ? String(a.v).localeCompare(String(b.v)) : Number(a.v) - Number(b.v)));
        found = keyed.map(({ r }) => r);
      }
      const from = token ? Number(Buffer.from(token, 'base64').toString()) : 0;
      return ok({ runs: found.slice(from, from + most), ...(from + most < found.length ? { next_page_token: Buffer.from(String(from + most)).toString('base64') } : {}) });
    },
    'runs/get': ({ run_id: id }) => (run(id) ? ok({ run: run(id) }) : missing(`run with id ${id}`)),
    'runs/update': ({ run_id: id, ...change }) => ok(Object.assign(run(id)?.info ?? {}, change) && {}),
    'runs/delete': ({ run_id: id }) => ok(Object.assign(run(id)?.info ?? {}, { lifecycle_stage: 'deleted' }) && {}),
    'runs/restore': ({ run_id: id }) => ok(Object.assign(run(id)?.info ?? {}, { lifecycle_stage: 'active' }) && {}),
    'runs/set-tag': (f) => setTag(run(f.run_id)?.data.tags ?? [], f),
    'runs/delete-tag': (f) => setTag(run(f.run_id)?.data.tags ?? [], { key: f.key }),
    'metrics/get-history-downsampled': ({ run_id: id, metric_key: key, points, start_step: from = 0, end_step: to = LONG }) => ok({ buckets: bucketsOf(key, Number(from), Math.min(Number(to) + 1, key === 'long' ? LONG : 200) - Number(from), Number(points), id) }),
    'artifacts/list': ({ path = '' }) => ok({ root_uri: 'mlflow-artifacts:/1', files: path === '' ? [{ path: 'plots', is_dir: true }, ...Object.keys(FILES).filter((name) => !name.includes('/')).map((name) => ({ path: name, is_dir: false, file_size: FILES[name]?.length }))] : [{ path: 'plots/dot.png', is_dir: false, file_size: PIXEL.length }] }),
    'registered-models/search': ({ filter = '' }) => ok({ registered_models: models.filter((m) => m.name.includes(/ILIKE '%(.*)%'/.exec(filter)?.[1] ?? '')) }),
    'registered-models/get': ({ name }) => (models.some((m) => m.name === name) ? ok({ registered_model: models.find((m) => m.name === name) }) : missing(`model ${name}`)),
    'registered-models/alias': ({ name, alias, version: to }) => {
      const model = models.find((m) => m.name === name);
      if (model) model.aliases = [...model.aliases.filter((a) => a.alias !== alias), ...(to ? [{ alias, version: to }] : [])];
      return ok();
    },
    'model-versions/search': ({ filter = '' }) => ok({ model_versions: filter.startsWith('name') ? (filter.includes('flight-delay') ? Array.from({ length: 12 }, (_, i) => version(12 - i)) : []) : filter.includes(runId(1)) ? [version(10)] : [] }),
    'logged-models/m-0001': () => ok({ model: LOGGED }),
    'logged-models/m-0001/tags': (f) => ok(LOGGED.info.tags.push(...f.tags)),
    'logged-models/search': (f) => (f.filter === 'metrics.auc >' ? wrong('the filter ends where a number was expected') : ok({ models: f.filter ? [] : [LOGGED] })),
    'logged-models/m-0001/artifacts/files': () => ({ code: 200, type: 'text/plain', text: MLMODEL('[{"type": "double", "name": "distance", "required": true}]') }),
    'logged-models/m-0001/artifacts/directories': () => ok({ files: [{ path: 'MLmodel', is_dir: false, file_size: 300 }] }),
  };

  const LOGGED = {
    info: { model_id: 'm-0001', experiment_id: '1', name: 'delay-model', model_type: 'sklearn', status: 'LOGGED_MODEL_READY', creation_timestamp_ms: START, last_updated_timestamp_ms: START + 1000, source_run_id: runId(1), artifact_uri: 'mlflow-artifacts:/1/models/m-0001/artifacts', tags: tags({ team: 'ops', 'mlflow.modelVersions': '[{"name": "flight-delay", "version": 12}]' }) },
    data: { params: tags({ max_depth: '4' }), metrics: [{ key: 'auc', value: 0.78, step: 0, timestamp: START, run_id: runId(1), dataset_name: 'flights-2013', dataset_digest: 'abc' }] },
  };
  /** @type {any[]} */
  const requests = [];
  const audit = [
    { kind: 'created', model: 'flight-delay', detail: {}, at: '2013-01-31T00:00:00Z', by: 'tidemill', why: '' },
    { kind: 'alias_moved', model: 'flight-delay', version: 9, detail: { alias: 'champion' }, at: '2013-02-08T00:00:00Z', by: 'tidemill', why: 'canary passed', decision: '0190f3a2c7d94e1fa0b1c2d3e4f50617' },
    { kind: 'stage_moved', model: 'flight-delay', version: 9, detail: { from: 'None', to: 'Production' }, at: '2013-03-01T00:00:00Z', by: 'ada', why: 'as agreed' },
    { kind: 'alias_moved', model: 'flight-delay', version: 12, detail: { alias: 'champion' }, at: '2013-12-13T00:00:00Z', by: 'tidemill', why: 'canary passed' },
  ];
  /** What the registry has beyond MLflow. @param {(string | undefined)[]} of @param {string} method @param {string} body @returns {Answer} */
  function registry([model, number, noun, id, verdict], method, body) {
    if (model !== 'flight-delay') return noun || model === 'house-prices' ? ok({ items: [] }) : missing(`model ${model}`);
    if (noun === undefined) return ok({ items: audit });
    if (noun === 'compare') return ok({ model, a: Number(number), b: Number(id), compatible: number === '9' ? false : number === '8' ? null : true, reasons: number === '9' ? ['input `distance` was long and is double', 'input `dest_temp` is new and required'] : number === '8' ? ['version 8 has no signature that is known here'] : [] });
    if (method === 'GET') return ok({ items: requests.filter((r) => String(r.version) === number) });
    const told = JSON.parse(body);
    if (verdict) return ok(Object.assign(requests.find((r) => String(r.id) === id) ?? {}, { state: verdict === 'approve' ? 'approved' : 'rejected', decided_by: 'eve', decided_at: '2013-12-14T00:00:00Z', comment: told.comment }));
    const [[kind, target] = ['', '']] = Object.entries(told.to);
    requests.push({ id: requests.length + 1, version: Number(number), kind, target, why: told.why, requested_by: 'ada', requested_at: '2013-12-13T00:00:00Z', state: 'open' });
    return ok(requests.at(-1));
  }

  return {
    runs,
    /** Answers what belongs to MLflow's API; null for anything else. @param {URL} url @param {string} method @param {string} type @param {string} body @returns {Answer | null} */
    answer(url, method, type, body) {
      const { pathname, searchParams } = url;
      if (pathname === '/get-artifact') {
        const path = searchParams.get('path') ?? '';
        const file = FILES[path];
        if (file === undefined) return missing(`artifact ${path}`);
        return { code: 200, text: /** @type {any} */ (file), type: path.endsWith('.png') ? 'image/png' : path.endsWith('.html') ? 'text/html' : 'text/plain', headers: { 'content-disposition': `attachment; filename=${path.split('/').at(-1)}`, 'content-security-policy': "default-src 'none'; sandbox" } };
      }
      if (pathname === '/model-versions/get-artifact') return { code: 200, type: 'text/plain', text: MLMODEL(Number(searchParams.get('version')) >= 10 ? '[{"type": "double", "name": "distance", "required": true}, {"type":\n    "double", "name": "dest_temp", "required": true}]' : '[{"type": "long", "name": "distance", "required": true}]') };
      const ours = /^\/api\/v1\/models\/([^/]+)\/(?:audit|versions\/(\d+)\/(requests|compare)(?:\/(\d+))?(?:\/(approve|reject))?)$/.exec(pathname);
      if (ours) return registry(ours.slice(1), method, body);
      const found = /^\/(?:ajax-)?api\/2\.0\/mlflow\/(.+)$/.exec(pathname);
      if (!found) return null;
      const call = calls[decodeURIComponent(found[1] ?? '')];
      if (!call) return { code: 404, body: { error_code: 'ENDPOINT_NOT_FOUND', message: `no \`${pathname}\`` } };
      if (method !== 'GET' && !type.startsWith('application/json')) return wrong('Bad Request. Content-Type must be one of application/json.');
      return call(method === 'GET' ? Object.fromEntries(searchParams) : JSON.parse(body || '{}'));
    },
  };
}
