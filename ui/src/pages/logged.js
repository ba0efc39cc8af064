// The logged models of an experiment, and one of them.
import { useState } from '../../vendor/preact.js';
import { count, go, link, route, setParams, time, withParams } from '../client.js';
import { Id } from '../records.js';
import { figure, modelLink, read, runLink, send, TONES, useLoad } from '../tracking/api.js';
import { Artifacts } from '../tracking/artifacts.js';
import { Chips, Crumbs, Dialog, Form, SortHead, Tabs, TagEditor } from '../tracking/parts.js';
import { modelStore } from '../tracking/stores.js';
import { Values } from '../tracking/values.js';
import { Columns } from '../tracking/version.js';
import { signatureOf } from '../tracking/versions.js';
import { Badge, Empty, Failure, html, Panel, Scroll, Title, Waiting } from '../ui.js';

/** @typedef {import('../tracking/types.js').Tag} Tag */
/** @typedef {{key: string, value: any, step?: number, run_id?: string, dataset_name?: string, dataset_digest?: string}} Metric */
/** @typedef {{model_id: string, experiment_id: string, name: string, model_type?: string, status?: string, creation_timestamp_ms?: number, last_updated_timestamp_ms?: number, source_run_id?: string, artifact_uri?: string, tags?: Tag[]}} Info */
/** @typedef {{info: Info, data?: {params?: Tag[], metrics?: Metric[]}}} Logged */

const PAGE = 50;
/** So many metrics have a column of their own. */
const SHOWN = 4;

const word = (/** @type {string | undefined} */ status) => (status ?? '').replace('LOGGED_MODEL_', '').replaceAll('_', ' ').toLowerCase();

/** The registered versions that were made of it, as the registry notes them. @param {Info} info @returns {{name: string, version: number | string}[]} */
function versionsOf({ tags = [] }) {
  try {
    return JSON.parse(tags.find((tag) => tag.key === 'mlflow.modelVersions')?.value ?? '[]');
  } catch {
    return [];
  }
}

/** @param {{of: Info}} props */
const Versions = ({ of }) => html`${versionsOf(of).map(({ name, version }) => html`<a key=${name + version} href=${`${link('models', name)}?version=${version}`}>${name} v${version}</a> `)}`;

/** @param {string} experiment @param {string} filter @param {{by: string, descending: boolean}} order @param {number} most @param {AbortSignal} signal */
async function load(experiment, filter, { by, descending }, most, signal) {
  /** @type {Logged[]} */
  const found = [];
  let token = null;
  do {
    const body = { experiment_ids: [experiment], filter: filter || undefined, order_by: [{ field_name: by, ascending: !descending }], max_results: PAGE, page_token: token ?? undefined };
    const page = await send('logged-models/search', body, 'POST', signal);
    found.push(...(page.models ?? []));
    token = page.next_page_token || null;
  } while (token && found.length < most);
  return { found, more: token !== null };
}

/** @param {{experiment: string}} props */
function List({ experiment }) {
  const { params } = route.value;
  const [filter, most] = [params.get('filter') ?? '', Math.max(PAGE, Number(params.get('most')) || PAGE)];
  const [by = 'creation_timestamp', direction = 'DESC'] = (params.get('order') ?? '').split(' ').filter(Boolean);
  const order = { by, descending: direction === 'DESC' };
  const { data, error } = useLoad(`${experiment}\n${filter}\n${by} ${direction}\n${most}`, (signal) => load(experiment, filter, order, most, signal));
  const sort = (/** @type {string} */ name, /** @type {boolean} */ descending) => setParams({ order: `${name} ${descending ? 'DESC' : 'ASC'}` }, true);
  const keys = [...new Set((data?.found ?? []).flatMap((model) => (model.data?.metrics ?? []).map((metric) => metric.key)))].sort().slice(0, SHOWN);
  /** @param {SubmitEvent} event */
  const search = (event) => {
    event.preventDefault();
    setParams({ filter: String(new FormData(/** @type {HTMLFormElement} */ (event.currentTarget)).get('filter') ?? '').trim(), most: null });
  };
  return html`<form class="toolbar" role="search" onSubmit=${search}><label class="grow"><span class="hidden">Filter</span><input name="filter" type="search" class="input" spellcheck=${false} autocomplete="off" placeholder="metrics.auc > 0.8 AND name LIKE 'delay%'" defaultValue=${filter} /></label><button type="submit" class="button">Search</button></form>
    ${error && html`<${Failure} error=${error} what="The list of logged models" />`}
    ${!data && !error && html`<${Waiting} height=${320} />`}
    ${data && (data.found.length === 0 ? html`<${Empty} title=${filter ? 'No model matches' : 'No model was logged'}>${filter ? html`<a href=${withParams({ filter: null })}>Show all models</a>, or change the filter.` : html`Log one with <code>mlflow.sklearn.log_model(model, name="model")</code>.`}</${Empty}>`
      : html`<${Panel} title=${`${count(data.found.length)}${data.more ? '+' : ''} logged model${data.found.length === 1 ? '' : 's'}`} id="list"><${Scroll} label="Logged models"><table class="list"><thead><tr>
          <${SortHead} label="Name" by="name" ...${{ order, sort }} /><th scope="col">Status</th><th scope="col">Type</th><th scope="col">Run</th><th scope="col">Versions</th>${keys.map((key) => html`<${SortHead} key=${key} label=${key} by=${`metrics.${key}`} class="num" ...${{ order, sort }} />`)}<th scope="col">Tags</th><${SortHead} label="Created" by="creation_timestamp" ...${{ order, sort }} /></tr></thead>
        <tbody>${data.found.map(({ info, data: logged }) => html`<tr key=${info.model_id}><th scope="row"><a href=${modelLink(experiment, info.model_id)}>${info.name}</a></th><td><${Badge} value=${word(info.status)} tone=${TONES[info.status ?? '']} /></td><td>${info.model_type ?? ''}</td>
          <td>${info.source_run_id && html`<a href=${runLink(experiment, info.source_run_id)}><code>${info.source_run_id.slice(0, 8)}</code></a>`}</td><td><${Versions} of=${info} /></td>
          ${keys.map((key) => html`<td key=${key} class="num">${figure(logged?.metrics?.find((metric) => metric.key === key)?.value)}</td>`)}<td><${Chips} tags=${info.tags} /></td><td class="when">${time(info.creation_timestamp_ms)}</td></tr>`)}</tbody></table></${Scroll}>
        ${data.more && html`<p class="more"><a class="button" href=${withParams({ most: String(most + PAGE) })}>Show more</a></p>`}</${Panel}>`)}`;
}

/** @param {{model: Logged, again: () => void}} props */
function Overview({ model: { info, data = {} }, again }) {
  const { data: file } = useLoad(info.model_id, (signal) => fetch(modelStore(info.model_id).url('MLmodel'), { signal }).then((answer) => (answer.ok ? answer.text() : null)));
  const signature = file ? signatureOf(file) : null;
  const [metrics, params] = [[...(data.metrics ?? [])].sort((a, b) => a.key.localeCompare(b.key)), [...(data.params ?? [])].sort((a, b) => a.key.localeCompare(b.key))];
  const facts = /** @type {[string, any][]} */ ([
    ['id', html`<${Id} value=${info.model_id} />`], ['type', info.model_type], ['created', time(info.creation_timestamp_ms)], ['changed', time(info.last_updated_timestamp_ms)],
    ['run', info.source_run_id && html`<a href=${runLink(info.experiment_id, info.source_run_id)}><code>${info.source_run_id.slice(0, 12)}</code></a>`],
    ['versions', versionsOf(info).length > 0 && html`<${Versions} of=${info} />`], ['artifacts', info.artifact_uri && html`<code>${info.artifact_uri}</code>`],
  ]).filter(([, value]) => value);
  const path = `logged-models/${info.model_id}/tags`;
  return html`<div class="cards chain">
    <${Panel} title="About" id="about"><dl class="facts">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl></${Panel}>
    <${Panel} title="Metrics" id="metrics"><${Values} label="metrics" heads=${['Metric', 'Value', 'Dataset', 'Run']} none="No metric of this model was logged."
      rows=${metrics.map((m) => ({ key: m.key, cells: [m.key, figure(m.value ?? 0), m.dataset_name ?? '–', m.run_id ? html`<a href=${runLink(info.experiment_id, m.run_id)}><code>${m.run_id.slice(0, 8)}</code></a>` : '–'] }))} /></${Panel}>
    <${Panel} title="Parameters" id="params"><${Values} label="parameters" heads=${['Parameter', 'Value']} none="No parameter logged." rows=${params.map((p) => ({ key: p.key, cells: [p.key, p.value] }))} /></${Panel}>
    <${Panel} title="Signature" id="signature">${signature ? html`<${Columns} side=${signature.inputs} title="Inputs" /><${Columns} side=${signature.outputs} title="Outputs" /><${Columns} side=${signature.params} title="Parameters" />` : html`<p class="note">None: the model has no <code>MLmodel</code> file with a signature.</p>`}</${Panel}>
    <${Panel} title="Tags" id="tags"><${TagEditor} tags=${info.tags} changed=${again} set=${(/** @type {string} */ key, /** @type {string} */ value) => send(path, { tags: [{ key, value }] }, 'PATCH')}
      remove=${(/** @type {string} */ key) => send(`${path}/${encodeURIComponent(key)}`, {}, 'DELETE')} /></${Panel}></div>`;
}

/** @param {{experiment: string, id: string, of: [string, string][]}} props */
function One({ experiment, id, of }) {
  const { data, error, again } = useLoad(id, (signal) => read(`logged-models/${encodeURIComponent(id)}`, {}, signal));
  const [asked, setAsked] = useState(false);
  const crumbs = html`<${Crumbs} steps=${[...of, ['Models', `/experiments/${encodeURIComponent(experiment)}/models`]]} />`;
  const model = /** @type {Logged | undefined} */ (data?.model);
  if (error) return html`${crumbs}<${Title} text="Logged model" /><${Failure} error=${error} what="The model" />`;
  if (!model) return html`${crumbs}<${Title} text="Logged model" /><${Waiting} height=${420} />`;
  const tab = route.value.params.get('tab') ?? 'overview';
  return html`${crumbs}<div class="title-row"><${Title} text=${model.info.name} /><div class="toolbar"><button type="button" class="button" onClick=${() => setAsked(true)}>Delete</button></div></div>
    <p class="lead"><${Badge} value=${word(model.info.status)} tone=${TONES[model.info.status ?? '']} /> ${time(model.info.creation_timestamp_ms)}</p>
    <${Tabs} label="Parts of the model" tabs=${[['overview', 'Overview'], ['artifacts', 'Artifacts']]} current=${tab} link=${(/** @type {string} */ to) => withParams({ tab: to === 'overview' ? null : to, path: null, from: null })} />
    ${tab === 'artifacts' ? html`<${Artifacts} stores=${[modelStore(id)]} />` : html`<${Overview} model=${model} again=${again} />`}
    ${asked && html`<${Dialog} title=${`Delete ${model.info.name}?`} onClose=${() => setAsked(false)}><p>Its run stays, and versions that were registered of it.</p><${Form} submit=${() => send(`logged-models/${encodeURIComponent(id)}`, {}, 'DELETE')} done=${() => go(`/experiments/${encodeURIComponent(experiment)}/models`)} action="Delete" danger /></${Dialog}>`}`;
}

/** `run` is what stands behind `models/` in the URL: a model's id. @param {{experiment: string, run?: string}} props */
export function LoggedPage({ experiment, run: id }) {
  const { data: about } = useLoad(experiment, (signal) => read('experiments/get', { experiment_id: experiment }, signal).catch(() => null));
  const of = /** @type {[string, string][]} */ ([['Experiments', '/experiments'], [about?.experiment?.name ?? `Experiment ${experiment}`, `/experiments/${encodeURIComponent(experiment)}`]]);
  if (id) return html`<${One} experiment=${experiment} id=${id} of=${of} />`;
  return html`<${Crumbs} steps=${of} /><${Title} text="Logged models" /><${List} experiment=${experiment} />`;
}
