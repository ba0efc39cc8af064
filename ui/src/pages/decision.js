// A decision record: the verdict and the evidence that led to it.
import { IntervalPlot } from '../charts/interval.js';
import { count, isNumber, link, metric, percent, signed, status, time, useGet, version } from '../client.js';
import { Facts, Id, Raw, Value } from '../records.js';
import { Badge, Failure, html, Panel, Scroll, Title, Waiting } from '../ui.js';

/** @typedef {import('../types.js').Check} Check */
/** @typedef {import('../types.js').Json} Json */

const MEANING = /** @type {Record<string, string>} */ ({
  pass: 'Every check passed: the challenger may go on to its rollout.',
  fail: 'At least one check failed: the challenger is refused, the champion stays.',
  inconclusive: 'Not enough data to tell. The challenger neither passes nor fails; the champion stays.',
});

/** @param {{checks: Check[]}} props */
const Checks = ({ checks }) => html`<${Scroll} label="Checks"><table class="checks"><thead><tr><th scope="col">Metric</th><th scope="col" class="num">Champion</th><th scope="col" class="num">Challenger</th>
  <th scope="col" class="num">Difference</th><th scope="col">Interval</th><th scope="col" class="num">Margin</th><th scope="col">Verdict</th></tr></thead>
  <tbody>${checks.map((c, i) => html`<tr key=${i}><th scope="row">${c.metric}${c.test && html`<br /><small class="dim">${c.test}</small>`}</th><td class="num" data-label="Champion">${metric(c.champion)}</td><td class="num" data-label="Challenger">${metric(c.challenger)}</td>
    <td class="num" data-label="Difference"><strong>${signed(c.difference)}</strong>${isNumber(c.std_error) && html`<br /><small class="dim">± ${metric(c.std_error)} s.e.</small>`}</td>
    <td class="wide"><${IntervalPlot} check=${c} />${isNumber(c.lower) && isNumber(c.upper) && html`<small class="dim interval-text">${isNumber(c.confidence) ? percent(c.confidence) : ''} one-sided bounds ${signed(c.lower)} to ${signed(c.upper)}</small>`}</td>
    <td class="num" data-label="Margin">${isNumber(c.margin) ? metric(c.margin) : '–'}</td><td><${Badge} value=${c.verdict} /></td></tr>`)}</tbody></table></${Scroll}>`;

/** A side of the comparison, with a link to its version. @param {{side: any, model: string | null}} props */
function Side({ side, model }) {
  const number = isNumber(side) ? side : side?.version;
  const rest = side && typeof side === 'object' ? side : {};
  const name = rest.model ?? model;
  return html`${isNumber(number) ? (name && number > 0 ? html`<a href=${`${link('models', name)}?version=${number}`}>${version(number)}</a>` : version(number)) : html`<${Value} value=${side} />`}
    ${Object.keys(rest).some((k) => k !== 'version') && html` <${Facts} of=${rest} skip=${['version']} />`}`;
}

/** @param {{id: string}} props */
export function DecisionPage({ id }) {
  const { data, error } = useGet(`/decisions/${encodeURIComponent(id)}`);
  const kind = data?.kind ?? 'decision';
  const title = html`<${Title} text=${data ? `${String(kind).replace(/^./, (c) => c.toUpperCase()).replaceAll('_', ' ')} decision` : 'Decision'} over="Decision record" />`;
  if (error) return html`${title}<${Failure} error=${error} what="The decision" />`;
  if (!data) return html`${title}<${Waiting} height=${420} />`;
  const inputs = data.inputs ?? {};
  const result = data.result ?? {};
  const checks = Array.isArray(result.checks) ? result.checks : [];
  const model = inputs.model ?? inputs.challenger?.model ?? status.value?.endpoints?.[0]?.model ?? null;
  const holdout = inputs.holdout;
  return html`${title}
    <div class=${`verdict verdict-${data.verdict}`}><${Badge} value=${data.verdict} /> <span>${kind === 'gate' ? MEANING[data.verdict] ?? '' : result.reason ?? ''}</span></div>
    ${checks.length > 0 && html`<${Panel} title="Checks" id="checks"><p class="note">Difference is challenger minus champion on the same rows, oriented so that more is better. A check passes when its whole interval lies right of −margin.</p><${Checks} checks=${checks} /></${Panel}>`}
    <div class="cards">
      <${Panel} title="Compared" id="inputs"><dl class="facts">
        ${inputs.challenger !== undefined && html`<div><dt>challenger</dt><dd><${Side} side=${inputs.challenger} model=${model} /></dd></div>`}
        ${inputs.champion !== undefined && html`<div><dt>champion</dt><dd><${Side} side=${inputs.champion} model=${model} /></dd></div>`}
        ${holdout && html`<div><dt>holdout</dt><dd>${count(holdout.rows)} rows, ${time(holdout.from)} to ${time(holdout.until)}</dd></div>`}</dl>
        ${Object.keys(inputs).some((k) => !['challenger', 'champion', 'holdout'].includes(k)) && html`<${Facts} of=${inputs} skip=${['challenger', 'champion', 'holdout']} />`}</${Panel}>
      <${Panel} title="Record" id="record"><dl class="facts"><div><dt>id</dt><dd><${Id} value=${data.id ?? id} /></dd></div><div><dt>decided</dt><dd>${time(data.at)}</dd></div>
        <div><dt>by</dt><dd>${data.actor ?? '–'}</dd></div><div><dt>about</dt><dd><${Subject} of=${data.subject} /></dd></div><div><dt>config</dt><dd><${Value} value=${data.config_digest} /></dd></div></dl></${Panel}>
      ${Object.keys(result).some((k) => k !== 'checks') && html`<${Panel} title="Result" id="result"><${Facts} of=${result} skip=${['checks']} /></${Panel}>`}
    </div>
    <${Raw} value=${data} />`;
}

/** What a decision is about: `["run", id]`, `run:id` or anything else. @param {{of: any}} props */
function Subject({ of }) {
  const [noun, id] = Array.isArray(of) ? of : typeof of === 'string' ? of.split(/[:/](.*)/s) : [];
  if (noun === 'run' && id) return html`<a href=${link('runs', id)}>run ${id.slice(0, 12)}</a>`;
  return html`<${Value} value=${Array.isArray(of) ? of.join(' ') : of} />`;
}
