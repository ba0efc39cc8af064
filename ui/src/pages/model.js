// A registered model: its versions, its aliases, and how they moved.
import { link, metric, route, time, useGet, version, withParams } from '../client.js';
import { Facts, pairs, Raw, Value } from '../records.js';
import { Badge, Empty, Failure, html, Panel, Scroll, Title, Waiting } from '../ui.js';

/** @typedef {import('../types.js').Json} Json */

/** @param {{versions: Json[], aliases: [string, any][], chosen: string | null}} props */
function Versions({ versions, aliases, chosen }) {
  const metrics = [...new Set(versions.flatMap((v) => pairs(v.metrics).map(([name]) => name)))].slice(0, 4);
  return html`<${Scroll} label="Versions"><table><thead><tr><th scope="col">Version</th><th scope="col">Aliases</th><th scope="col">Registered</th>${metrics.map((name) => html`<th scope="col" class="num" key=${name}>${name}</th>`)}<th scope="col">Run</th></tr></thead>
    <tbody>${versions.map((v) => {
      const number = String(v.version);
      const run = v.run_id ?? v.run;
      const values = Object.fromEntries(pairs(v.metrics));
      const called = aliases.filter(([, target]) => String(target?.version ?? target) === number).map(([name]) => name);
      return html`<tr key=${number} class=${chosen === number ? 'chosen' : ''}><th scope="row"><a href=${withParams({ version: chosen === number ? null : number })} aria-current=${chosen === number ? 'true' : undefined}>${version(v.version)}</a></th>
        <td>${called.map((name) => html`<${Badge} key=${name} value=${name} tone=${name === 'champion' ? 'good' : 'info'} /> `)}</td><td class="when">${time(v.created_at ?? v.registered_at ?? v.at)}</td>
        ${metrics.map((name) => html`<td class="num" key=${name}>${metric(values[name])}</td>`)}<td>${typeof run === 'string' ? html`<a href=${link('runs', run)}><code>${run.slice(0, 12)}</code></a>` : '–'}</td></tr>`;
    })}</tbody></table></${Scroll}>`;
}

/** @param {{id: string}} props its name */
export function ModelPage({ id: name }) {
  const { data, error } = useGet(`/models/${encodeURIComponent(name)}`);
  const title = html`<${Title} text=${name} over="Registered model" />`;
  if (error) return html`${title}<${Failure} error=${error} what="The model" />`;
  if (!data) return html`${title}<${Waiting} height=${420} />`;
  const chosen = route.value.params.get('version');
  const versions = /** @type {Json[]} */ ([...(data.versions ?? [])]).sort((a, b) => Number(b.version) - Number(a.version));
  /** @type {[string, any][]} */
  const aliases = Array.isArray(data.aliases)
    ? data.aliases.map((/** @type {any} */ a) => (Array.isArray(a) ? a : [a.alias ?? a.name, a.version]))
    : pairs(data.aliases);
  const detail = versions.find((v) => String(v.version) === chosen);
  const history = /** @type {Json[]} */ ([...(data.history ?? data.alias_history ?? [])]).reverse();
  return html`${title}
    <p class="lead">${versions.length} version${versions.length === 1 ? '' : 's'}${aliases.map(([alias, target]) => html`<span key=${alias}> · ${alias} is <strong>${version(target?.version ?? target)}</strong></span>`)}</p>
    ${versions.length === 0
      ? html`<${Empty} title="No version yet">A training run registers the first one. Start it by a trigger in <code>tidemill.yaml</code>, or register a model with MLflow's client.</${Empty}>`
      : html`<${Panel} title="Versions" id="versions"><${Versions} versions=${versions} aliases=${aliases} chosen=${chosen} /></${Panel}>`}
    ${detail && html`<${Panel} title=${`Version ${chosen}`} id="version" aside=${html`<a class="close" href=${withParams({ version: null })}>Close</a>`}><${Facts} of=${detail} /></${Panel}>`}
    <${Panel} title="How the aliases moved" id="history">${history.length === 0
      ? html`<p class="note">No alias has moved yet.</p>`
      : html`<${Scroll} label="History"><table><thead><tr><th scope="col">When</th><th scope="col">Alias</th><th scope="col">From</th><th scope="col">To</th><th scope="col">By</th><th scope="col">Why</th></tr></thead>
        <tbody>${history.map((h, i) => html`<tr key=${i}><td class="when">${time(h.at)}</td><td><${Badge} value=${h.alias ?? h.kind} tone=${h.alias === 'champion' ? 'good' : 'info'} /></td><td>${version(h.from)}</td><td>${version(h.to ?? h.version)}</td><td>${h.actor ?? '–'}</td>
          <td>${h.decision ? html`<a href=${link('decisions', h.decision)}>${h.reason ?? 'decision'}</a>` : html`<${Value} value=${h.reason ?? h.text} />`}</td></tr>`)}</tbody></table></${Scroll}>`}</${Panel}>
    <${Raw} value=${data} />`;
}
