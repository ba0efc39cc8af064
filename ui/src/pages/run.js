// A run: why it started, what it used, what came of it.
import { duration, link, metric, number, status, time, useGet, version } from '../client.js';
import { Facts, Id, pairs, Raw, Value } from '../records.js';
import { Badge, Failure, html, Panel, Scroll, Title, Waiting } from '../ui.js';

/** @typedef {import('../types.js').Json} Json */

/** @param {{steps: Json[]}} props */
function Steps({ steps }) {
  const known = ['name', 'step', 'id', 'state', 'status', 'attempt', 'attempts', 'started_at', 'ended_at', 'error'];
  return html`<${Scroll} label="Steps"><table><thead><tr><th scope="col">Step</th><th scope="col">State</th><th scope="col" class="num">Attempt</th><th scope="col">Started</th><th scope="col" class="num">Took</th><th scope="col">More</th></tr></thead>
    <tbody>${steps.map((step, i) => html`<tr key=${i}><th scope="row">${step.name ?? step.step ?? step.id ?? i + 1}</th><td><${Badge} value=${step.state ?? step.status} /></td>
      <td class="num">${number(step.attempt ?? (Array.isArray(step.attempts) ? step.attempts.length : step.attempts))}</td><td class="when">${time(step.started_at)}</td><td class="num">${duration(step.started_at, step.ended_at)}</td>
      <td>${step.error ? html`<span class="tone-bad">${typeof step.error === 'string' ? step.error : step.error.message ?? JSON.stringify(step.error)}</span>` : Object.keys(step).some((k) => !known.includes(k)) ? html`<details><summary>Details</summary><${Facts} of=${step} skip=${known} /></details>` : ''}</td></tr>`)}</tbody></table></${Scroll}>`;
}

/** @param {{label: string, of: any, digits?: number | null}} props */
function Pairs({ label, of, digits = null }) {
  const rows = pairs(of);
  if (rows.length === 0) return html`<p class="note">None recorded.</p>`;
  return html`<${Scroll} label=${label}><table class="pairs"><tbody>${rows.map(([name, value]) => html`<tr key=${name}><th scope="row">${name}</th><td class="num">${digits !== null && typeof value === 'number' && !Number.isInteger(value) ? metric(value, digits) : html`<${Value} value=${value} />`}</td></tr>`)}</tbody></table></${Scroll}>`;
}

/** @param {{id: string}} props */
export function RunPage({ id }) {
  const { data: answer, error } = useGet(`/runs/${encodeURIComponent(id)}`);
  const title = html`<${Title} text=${`Run ${id.slice(0, 12)}`} over="Training run" />`;
  if (error) return html`${title}<${Failure} error=${error} what="The run" />`;
  if (!answer) return html`${title}<${Waiting} height=${420} />`;
  const run = answer.run ?? answer;
  const steps = answer.steps ?? run.steps ?? [];
  const model = run.model ?? status.value?.endpoints?.[0]?.model;
  const decision = typeof run.decision === 'string' ? run.decision : run.decision?.id;
  const error_ = typeof run.error === 'string' ? run.error : run.error?.message;
  return html`${title}
    <p class="lead"><${Badge} value=${run.state} /> ${run.trigger_reason ?? html`started by ${run.trigger_kind ?? 'hand'}`}</p>
    ${error_ && html`<div class="failure"><strong>The run failed.</strong> <span>${error_}</span></div>`}
    <div class="cards chain">
      <${Panel} title="What happened" id="summary"><dl class="facts">
        <div><dt>id</dt><dd><${Id} value=${run.id ?? id} /></dd></div>
        <div><dt>trigger</dt><dd>${run.trigger_kind ?? '–'}</dd></div>
        <div><dt>queued</dt><dd>${time(run.created_at)}</dd></div><div><dt>started</dt><dd>${time(run.started_at)}</dd></div><div><dt>ended</dt><dd>${time(run.ended_at)}</dd></div>
        <div><dt>took</dt><dd>${duration(run.started_at, run.ended_at)}</dd></div>
        <div><dt>model version</dt><dd>${run.model_version ? (model ? html`<a href=${`${link('models', model)}?version=${run.model_version}`}>${version(run.model_version)}</a>` : version(run.model_version)) : html`<span class="dim">none</span>`}</dd></div>
        <div><dt>gate decision</dt><dd>${decision ? html`<a href=${link('decisions', decision)}>${run.decision?.verdict ? html`<${Badge} value=${run.decision.verdict} />` : 'see the evidence'}</a>` : html`<span class="dim">none</span>`}</dd></div></dl></${Panel}>
      <${Panel} title="What it used" id="inputs"><dl class="facts">
        ${['snapshot', 'code', 'lock', 'environment', 'bundle', 'seed', 'key'].filter((name) => run[name] !== undefined && run[name] !== null).map((name) => html`<div key=${name}><dt>${name}</dt><dd><${Value} value=${run[name]} /></dd></div>`)}</dl>
        ${!run.snapshot && !run.code && html`<p class="note">Nothing recorded yet.</p>`}</${Panel}>
      <${Panel} title="Metrics" id="metrics"><${Pairs} label="Metrics" of=${run.metrics} digits=${5} /></${Panel}>
      <${Panel} title="Parameters" id="params"><${Pairs} label="Parameters" of=${run.params} /></${Panel}>
    </div>
    <${Panel} title="Steps" id="steps">${steps.length ? html`<${Steps} steps=${steps} />` : html`<p class="note">No step has started.</p>`}</${Panel}>
    <${Raw} value=${answer} />`;
}
