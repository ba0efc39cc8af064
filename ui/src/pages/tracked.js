// A tracked run: what it was told, its charts, its artifacts.
import { useState } from '../../vendor/preact.js';
import { duration, link, route, time, withParams } from '../client.js';
import { Id } from '../records.js';
import { each, figure, modelLink, query, read, rowOf, runLink, send, TONES, useEvery, useLoad } from '../tracking/api.js';
import { Artifacts } from '../tracking/artifacts.js';
import { modelStore, runStore } from '../tracking/stores.js';
import { ChartGrid } from '../tracking/chartgrid.js';
import { search } from '../tracking/runs.js';
import { Crumbs, Dialog, Field, Form, Tabs, TagEditor } from '../tracking/parts.js';
import { Values } from '../tracking/values.js';
import { Badge, Failure, html, Panel, Title, Waiting } from '../ui.js';

/** @typedef {import('../tracking/types.js').Run} Run */
/** @typedef {import('../tracking/types.js').Row} Row */
/** @typedef {import('../tracking/types.js').ModelVersion} ModelVersion */

const SYSTEM = 'system/';
const CHILDREN = 20;

/** @param {{dataset: any}} props one of the run's inputs */
function Dataset({ dataset: { dataset = {}, tags = [] } }) {
  const context = tags.find((/** @type {any} */ tag) => tag.key === 'mlflow.data.context')?.value;
  let columns = null;
  try {
    columns = JSON.parse(dataset.schema ?? 'null')?.mlflow_colspec?.length ?? null;
  } catch {
    // A schema of another kind says nothing here.
  }
  return html`<dl class="facts"><div><dt>dataset</dt><dd><strong>${dataset.name}</strong> ${context && html`<${Badge} value=${context} />`}</dd></div><div><dt>digest</dt><dd><code>${dataset.digest}</code></dd></div>
    <div><dt>source</dt><dd>${dataset.source_type}</dd></div>${columns !== null && html`<div><dt>columns</dt><dd>${columns}</dd></div>`}</dl>`;
}

/** What came of the run, and what went into it. @param {{run: Run}} props */
function Around({ run }) {
  const id = run.info.run_id;
  const models = [...(run.inputs?.model_inputs ?? []).map((m) => ({ id: m.model_id, how: 'input' })), ...(run.outputs?.model_outputs ?? []).map((m) => ({ id: m.model_id, how: 'output' }))];
  const { data: versions, error } = useLoad(id, (signal) => read('model-versions/search', { filter: `run_id = '${id}'`, max_results: 100 }, signal));
  const { data: names } = useLoad(models.map((m) => m.id).join('\n') || null, (signal) => each(models, (m) => read(`logged-models/${m.id}`, {}, signal).then((answer) => answer.model?.info, () => null)));
  const { data: children } = useLoad(`children ${id}`, (signal) => search([run.info.experiment_id], `tags.\`mlflow.parentRunId\` = '${id}'`, null, 'ACTIVE_ONLY', CHILDREN, null, signal));
  const datasets = run.inputs?.dataset_inputs ?? [];
  const found = /** @type {ModelVersion[]} */ (versions?.model_versions ?? []);
  return html`<${Panel} title="Inputs and outputs" id="around">
    ${datasets.length + models.length === 0 && html`<p class="note">The run names no dataset and no model.</p>`}
    ${datasets.map((dataset, i) => html`<${Dataset} key=${i} dataset=${dataset} />`)}
    ${models.length > 0 && html`<h3>Models</h3><ul class="plain">${models.map((model, i) => html`<li key=${model.id}><a href=${modelLink(names?.[i]?.experiment_id ?? run.info.experiment_id, model.id)}>${names?.[i]?.name ?? model.id}</a> <${Badge} value=${model.how} /> ${names?.[i]?.model_type ?? ''}</li>`)}</ul>`}
    <h3>Registered versions</h3>${error ? html`<p class="note">${error.message}</p>` : found.length === 0 ? html`<p class="note">None of this run.</p>`
      : html`<ul class="plain">${found.map((v) => html`<li key=${v.name + v.version}><a href=${`${link('models', v.name)}?version=${v.version}`}>${v.name} v${v.version}</a> ${(v.aliases ?? []).map((alias) => html`<${Badge} key=${alias} value=${alias} tone="info" />`)}</li>`)}</ul>`}
    ${children && children.rows.length > 0 && html`<h3>Child runs</h3><ul class="plain">${children.rows.map((row) => html`<li key=${row.id}><a href=${runLink(row.info.experiment_id, row.id)}>${row.name}</a> <${Badge} value=${row.info.status.toLowerCase()} tone=${TONES[row.info.status]} /></li>`)}</ul>
      ${children.token && html`<p><a href=${`/experiments/${run.info.experiment_id}?${query({ filter: `tags.\`mlflow.parentRunId\` = '${id}'` })}`}>All of them</a></p>`}`}</${Panel}>`;
}

/** @param {{run: Run, row: Row, again: () => void}} props */
function Overview({ run, row, again }) {
  const { info, data } = run;
  const tag = (/** @type {string} */ key) => row.tags.get(`mlflow.${key}`);
  const metrics = (data.metrics ?? []).filter((m) => !m.key.startsWith(SYSTEM)).sort((a, b) => a.key.localeCompare(b.key));
  const params = [...(data.params ?? [])].sort((a, b) => a.key.localeCompare(b.key));
  const facts = /** @type {[string, any][]} */ ([
    ['id', html`<${Id} value=${info.run_id} />`], ['started', time(info.start_time)], ['ended', info.end_time ? time(info.end_time) : 'not yet'], ['took', info.end_time ? duration(info.start_time, info.end_time) : ''],
    ['user', info.user_id || tag('user')], ['source', tag('source.name')], ['git commit', tag('source.git.commit') && html`<${Id} value=${tag('source.git.commit')} />`],
    ['parent', tag('parentRunId') && html`<a href=${runLink(info.experiment_id, tag('parentRunId') ?? '')}><code>${tag('parentRunId')?.slice(0, 12)}</code></a>`], ['artifacts', html`<code>${info.artifact_uri}</code>`],
  ]).filter(([, value]) => value);
  return html`${tag('note.content') && html`<p class="lead note-text">${tag('note.content')}</p>`}<div class="cards chain">
    <${Panel} title="About" id="about"><dl class="facts">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl></${Panel}>
    <${Panel} title=${`Metrics${metrics.length ? ` (${metrics.length})` : ''}`} id="metrics"><${Values} label="metrics" heads=${['Metric', 'Latest', 'Step']} none="No metric logged."
      rows=${metrics.map((m) => ({ key: m.key, cells: [html`<a href=${withParams({ tab: 'charts', metric: m.key })}>${m.key}</a>`, figure(m.value ?? 0), m.step ?? 0] }))} /></${Panel}>
    <${Panel} title=${`Parameters${params.length ? ` (${params.length})` : ''}`} id="params"><${Values} label="parameters" heads=${['Parameter', 'Value']} none="No parameter logged." rows=${params.map((p) => ({ key: p.key, cells: [p.key, p.value] }))} /></${Panel}>
    <${Panel} title="Tags" id="tags"><${TagEditor} tags=${data.tags} changed=${again} set=${(/** @type {string} */ key, /** @type {string} */ value) => send('runs/set-tag', { run_id: info.run_id, key, value })}
      remove=${(/** @type {string} */ key) => send('runs/delete-tag', { run_id: info.run_id, key })} /></${Panel}>
    <${Around} run=${run} /></div>`;
}

/** What changes when a metric has more to read. @param {Run} run */
const stampsOf = (run) => new Map((run.data.metrics ?? []).map((m) => [`${run.info.run_id}\n${m.key}`, `${m.step ?? 0} ${m.timestamp}`]));

/** Rename, delete, restore. @param {{run: Run, row: Row, again: () => void}} props */
function Actions({ run, row, again }) {
  const [asked, setAsked] = useState('');
  const { run_id: id, lifecycle_stage: stage } = run.info;
  const done = () => {
    setAsked('');
    again();
  };
  return html`<div class="toolbar"><button type="button" class="button" onClick=${() => setAsked('rename')}>Rename</button>
    ${stage === 'deleted' ? html`<button type="button" class="button" onClick=${() => send('runs/restore', { run_id: id }).then(again, again)}>Restore</button>` : html`<button type="button" class="button" onClick=${() => setAsked('delete')}>Delete</button>`}</div>
    ${asked === 'rename' && html`<${Dialog} title="Rename the run" onClose=${() => setAsked('')}><${Form} submit=${(/** @type {any} */ f) => send('runs/update', { run_id: id, run_name: f.name })} done=${done} action="Rename"><${Field} label="New name" name="name" value=${row.name} required autofocus /></${Form}></${Dialog}>`}
    ${asked === 'delete' && html`<${Dialog} title=${`Delete ${row.name}?`} onClose=${() => setAsked('')}><p>It can be restored until the server purges it.</p><${Form} submit=${() => send('runs/delete', { run_id: id })} done=${done} action="Delete" danger /></${Dialog}>`}`;
}

/** @param {{experiment: string, run: string}} props */
export function TrackedRunPage({ experiment, run: id }) {
  const { data, error, again } = useLoad(id, (signal) => read('runs/get', { run_id: id }, signal));
  const { data: about } = useLoad(experiment, (signal) => read('experiments/get', { experiment_id: experiment }, signal).catch(() => null));
  const run = /** @type {Run | undefined} */ (data?.run);
  useEvery(async () => again(), run?.info.status === 'RUNNING' ? 5000 : null);
  const crumbs = html`<${Crumbs} steps=${[['Experiments', '/experiments'], [about?.experiment?.name ?? `Experiment ${experiment}`, `/experiments/${experiment}`]]} />`;
  if (error) return html`${crumbs}<${Title} text="Run" /><${Failure} error=${error} what="The run" />`;
  if (!run) return html`${crumbs}<${Title} text="Run" /><${Waiting} height=${420} />`;
  const row = rowOf({ ...run, data: run.data ?? {} });
  const tab = route.value.params.get('tab') ?? 'overview';
  const keys = [...row.metrics.keys()].sort((a, b) => a.localeCompare(b));
  const models = [...(run.outputs?.model_outputs ?? []), ...(run.inputs?.model_inputs ?? [])].map((m) => m.model_id);
  const tabs = /** @type {[string, string][]} */ ([['overview', 'Overview'], ['charts', 'Charts'], ['system', 'System metrics'], ['artifacts', 'Artifacts']]);
  return html`${crumbs}<div class="title-row"><${Title} text=${row.name} /><${Actions} run=${run} row=${row} again=${again} /></div>
    <p class="lead"><${Badge} value=${run.info.status.toLowerCase()} tone=${TONES[run.info.status]} /> ${run.info.lifecycle_stage === 'deleted' && html`<${Badge} value="deleted" tone="bad" />`} ${time(run.info.start_time)}</p>
    <${Tabs} label="Parts of the run" tabs=${tabs} current=${tab} link=${(/** @type {string} */ to) => withParams({ tab: to === 'overview' ? null : to, metric: null, q: null, path: null, from: null, steps: null })} />
    ${tab === 'overview' && html`<${Overview} run=${{ ...run, data: run.data ?? {} }} row=${row} again=${again} />`}
    ${tab === 'charts' && html`<${ChartGrid} key="charts" rows=${[row]} keys=${keys.filter((key) => !key.startsWith(SYSTEM))} stamps=${stampsOf(run)} none=${html`Log one with <code>mlflow.log_metric("auc", 0.71, step=1)</code>.`} />`}
    ${tab === 'system' && html`<${ChartGrid} key="system" rows=${[row]} keys=${keys.filter((key) => key.startsWith(SYSTEM))} stamps=${stampsOf(run)} none=${html`Call <code>mlflow.enable_system_metrics_logging()</code> before the run starts.`} />`}
    ${tab === 'artifacts' && html`<${Artifacts} stores=${[runStore(id), ...new Set(models)].map((from) => (typeof from === 'string' ? modelStore(from) : from))} />`}`;
}
