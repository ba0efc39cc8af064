// From a prediction to everything that led to it, and what came of it.
import { count, go, isNumber, link, metric, number, short, status, time, useGet, version } from '../client.js';
import { Facts, Id, Raw } from '../records.js';
import { Badge, Empty, Failure, html, Panel, Title, Waiting } from '../ui.js';

/** @typedef {import('../types.js').Json} Json */

/** @param {{id: string | null}} props */
function Ask({ id }) {
  /** @param {SubmitEvent} event */
  const submit = (event) => {
    event.preventDefault();
    const asked = String(new FormData(/** @type {HTMLFormElement} */ (event.currentTarget)).get('prediction') ?? '').trim();
    if (asked) go(link('predictions', asked));
  };
  return html`<form class="ask" onSubmit=${submit}><label for="prediction">Prediction id</label>
    <div><input id="prediction" name="prediction" value=${id ?? ''} autocomplete="off" spellcheck=${false} required /><button type="submit">Follow</button></div></form>`;
}

/** The first of several fields that is there. @param {any} from @param {string[]} names */
const first = (from, ...names) => names.map((name) => from?.[name]).find((value) => value !== undefined && value !== null);

/** One line that says what a value holds. @param {any} value */
const brief = (value) => (typeof value === 'string' ? (value.length > 16 ? html`<code>${short(value.replace(/^\w+:/, ''))}</code>` : value) : isNumber(value) ? number(value) : value === undefined || value === null ? '–' : JSON.stringify(value).slice(0, 24));

/** @typedef {{id: string, title: string, line: any, there: boolean, side?: boolean}} Node */

/** @param {any} l the lineage @returns {Node[]} */
function nodesOf(l) {
  const score = l.prediction?.role === 'abstained' ? 'no answer' : first(l.prediction, 'score', 'answer', 'value', 'scores');
  const passed = first(l.validation, 'success', 'passed', 'verdict', 'status');
  const label = l.labels?.at(-1);
  return [
    { id: 'n-prediction', title: 'Prediction', line: html`${isNumber(score) ? metric(score) : brief(score)}`, there: true },
    { id: 'n-version', title: 'Version', line: l.version ? version(first(l.version, 'version', 'number')) : l.prediction?.role === 'abstained' ? 'none' : 'fixed answer', there: Boolean(l.version) },
    { id: 'n-run', title: 'Run', line: brief(first(l.run, 'id', 'run_id')), there: Boolean(l.run) },
    { id: 'n-code', title: 'Code and lock', line: brief(first(l.code, 'code', 'digest')), there: Boolean(l.code) },
    { id: 'n-snapshot', title: 'Snapshot', line: isNumber(l.snapshot?.rows) ? `${count(l.snapshot.rows)} rows` : brief(first(l.snapshot, 'digest', 'id')), there: Boolean(l.snapshot) },
    { id: 'n-validation', title: 'Validation', line: passed === undefined ? '–' : html`<${Badge} value=${passed} />`, there: Boolean(l.validation) },
    { id: 'n-labels', title: 'Labels', line: label ? html`${brief(first(label, 'value'))}${l.labels.length > 1 ? ` (${l.labels.length})` : ''}` : 'none yet', there: Boolean(label), side: true },
    { id: 'n-decisions', title: 'Decisions', line: l.decisions?.length ? html`<${Badge} value=${l.decisions.at(-1).verdict} />` : 'none', there: Boolean(l.decisions?.length), side: true },
    { id: 'n-used', title: 'Learnt from by', line: l.used_by?.length ? `${l.used_by.length} snapshot${l.used_by.length > 1 ? 's' : ''}` : 'none yet', there: Boolean(l.used_by?.length), side: true },
  ];
}

/** @param {{node: Node}} props */
const FlowNode = ({ node }) => html`<li class=${node.there ? '' : 'missing'}><a href=${`#${node.id}`}><span class="node-title">${node.title}</span><span class="node-line">${node.line}</span></a></li>`;

/** @param {{items: Json[], none: string, children: (item: Json) => any}} props */
const Several = ({ items, none, children }) => (items?.length ? html`<ol class="several">${items.map((item, i) => html`<li key=${i}>${children(item)}</li>`)}</ol>` : html`<p class="note">${none}</p>`);

/** @param {{lineage: any}} props */
function Chain({ lineage: l }) {
  const nodes = nodesOf(l);
  const run = first(l.run, 'id', 'run_id');
  const number_ = first(l.version, 'version', 'number');
  const model = first(l.version, 'model', 'name') ?? status.value?.endpoints?.[0]?.model;
  const features = l.prediction?.features;
  return html`
    <nav class="flow" aria-label="The chain"><ol class="flow-main">${nodes.filter((n) => !n.side).map((node) => html`<${FlowNode} key=${node.id} node=${node} />`)}</ol>
      <p class="flow-label">and what came of it</p><ol class="flow-side">${nodes.filter((n) => n.side).map((node) => html`<${FlowNode} key=${node.id} node=${node} />`)}</ol></nav>
    <div class="cards chain">
      <${Panel} title="Prediction" id="n-prediction"><dl class="facts"><div><dt>id</dt><dd><${Id} value=${l.prediction_id} /></dd></div></dl><${Facts} of=${l.prediction} skip=${['features', 'id', 'prediction_id']} />
        ${features && html`<h3>Features as served</h3><${Facts} of=${features} />`}</${Panel}>
      <${Panel} title="Version" id="n-version" aside=${number_ && model && html`<a href=${`${link('models', model)}?version=${number_}`}>Open</a>`}>${l.version ? html`<${Facts} of=${l.version} />` : html`<p class="note">${l.prediction?.role === 'abstained' ? 'Nobody answered: the endpoint abstained.' : 'A fixed answer of the endpoint: no model gave it.'}</p>`}</${Panel}>
      <${Panel} title="Run" id="n-run" aside=${run && html`<a href=${link('runs', run)}>Open</a>`}>${l.run ? html`<${Facts} of=${l.run} skip=${['steps']} />` : html`<p class="note">No run is known: the version was registered from outside, or there is none.</p>`}</${Panel}>
      <${Panel} title="Code and lock" id="n-code">${l.code ? html`<${Facts} of=${l.code} />` : html`<p class="note">No digest recorded.</p>`}</${Panel}>
      <${Panel} title="Snapshot" id="n-snapshot">${l.snapshot ? html`<${Facts} of=${l.snapshot} />` : html`<p class="note">No snapshot recorded.</p>`}</${Panel}>
      <${Panel} title="Validation" id="n-validation">${l.validation ? html`<${Facts} of=${l.validation} skip=${['results']} /><${Raw} value=${l.validation} label="Validation result, JSON" />` : html`<p class="note">The snapshot has no validation result.</p>`}</${Panel}>
      <${Panel} title="Labels" id="n-labels"><${Several} items=${l.labels} none="The truth is not known yet. Send it to POST /api/v1/feedback with this prediction's id.">${(/** @type {Json} */ label) => html`<${Facts} of=${label} />`}</${Several}></${Panel}>
      <${Panel} title="Decisions" id="n-decisions"><${Several} items=${l.decisions} none="No gate or rollout has decided about this version.">${(/** @type {Json} */ d) => html`
        <p><${Badge} value=${d.verdict} /> ${d.id ? html`<a href=${link('decisions', d.id)}>${d.kind ?? 'decision'}</a>` : d.kind} <span class="dim">${time(d.at)}</span></p>`}</${Several}></${Panel}>
      <${Panel} title="Learnt from by" id="n-used"><${Several} items=${l.used_by} none="No training snapshot holds this prediction's label yet.">${(/** @type {Json} */ used) => html`<${Facts} of=${used} />`}</${Several}></${Panel}>
    </div>
    <${Raw} value=${l} />`;
}

/** @param {{id: string | null}} props */
export function PredictionPage({ id }) {
  const { data, error } = useGet(id === null ? null : `/lineage/predictions/${encodeURIComponent(id)}`);
  return html`<${Title} text="Lineage" over="From a prediction to all that led to it" /><${Ask} id=${id} />
    ${id === null && html`<${Empty} title="Which prediction?">Every answer of an endpoint carries its prediction's id. Enter one to see the model version, run, code, data and labels behind it.</${Empty}>`}
    ${error && html`<${Failure} error=${error} what="The lineage" />`}
    ${id !== null && !data && !error && html`<${Waiting} height=${420} />`}
    ${data && html`<${Chain} lineage=${data} />`}`;
}
