// All registered models.
import { useState } from '../../vendor/preact.js';
import { count, go, link, route, setParams, time, withParams } from '../client.js';
import { read, send, useLoad } from '../tracking/api.js';
import { quoted } from '../tracking/filter.js';
import { Chips, Dialog, Field, Form, SortHead } from '../tracking/parts.js';
import { Badge, Empty, Failure, html, Panel, Scroll, Title, Waiting } from '../ui.js';

/** @typedef {import('../tracking/types.js').RegisteredModel} RegisteredModel */

const PAGE = 100;

/** @param {string} q @param {string} order @param {number} most @param {AbortSignal} signal */
async function load(q, order, most, signal) {
  /** @type {RegisteredModel[]} */
  const found = [];
  let token = '';
  do {
    const page = await read('registered-models/search', { filter: q ? `name ILIKE ${quoted(`%${q}%`)}` : '', max_results: Math.min(PAGE, most - found.length), order_by: [order], page_token: token }, signal);
    found.push(...(page.registered_models ?? []));
    token = page.next_page_token ?? '';
  } while (token && found.length < most);
  return { found, more: Boolean(token) };
}

/** The newest version's number. @param {RegisteredModel} model */
const newest = (model) => (model.latest_versions ?? []).reduce((most, v) => Math.max(most, Number(v.version)), 0);

export function ModelsPage() {
  const { params } = route.value;
  const [q, most] = [params.get('q') ?? '', Math.max(PAGE, Number(params.get('most')) || PAGE)];
  const [by = 'name', direction = 'ASC'] = (params.get('order') ?? '').split(' ').filter(Boolean);
  const [asked, setAsked] = useState(false);
  const { data, error } = useLoad(`${q}\n${by} ${direction}\n${most}`, (signal) => load(q, `${by} ${direction}`, most, signal));
  const order = { by, descending: direction === 'DESC' };
  const sort = (/** @type {string} */ name, /** @type {boolean} */ descending) => setParams({ order: `${name} ${descending ? 'DESC' : 'ASC'}` }, true);
  const made = { name: '' };
  return html`<div class="title-row"><${Title} text="Models" /><button type="button" class="button primary" onClick=${() => setAsked(true)}>New model</button></div>
    <div class="toolbar" role="search"><label class="grow"><span class="hidden">Search by name</span><input type="search" class="input" placeholder="Search by name" value=${q} onInput=${(/** @type {any} */ e) => setParams({ q: e.currentTarget.value, most: null }, true)} /></label></div>
    ${error && html`<${Failure} error=${error} what="The list of models" />`}
    ${!data && !error && html`<${Waiting} height=${320} />`}
    ${data && (data.found.length === 0 ? html`<${Empty} title=${q ? 'No model has such a name' : 'No model yet'}>${q ? 'Try a part of the name; capitals do not matter.' : html`Register one with <code>mlflow.register_model("runs:/…/model", "name")</code>, or let a pipeline train one.`}</${Empty}>`
      : html`<${Panel} title=${`${count(data.found.length)}${data.more ? '+' : ''} model${data.found.length === 1 ? '' : 's'}`} id="list"><${Scroll} label="Models"><table class="list"><thead><tr><${SortHead} label="Name" by="name" ...${{ order, sort }} /><th scope="col" class="num">Newest</th><th scope="col">Aliases</th><th scope="col">Tags</th><${SortHead} label="Changed" by="last_updated_timestamp" ...${{ order, sort }} /></tr></thead>
        <tbody>${data.found.map((m) => html`<tr key=${m.name}><th scope="row"><a href=${link('models', m.name)}>${m.name}</a>${m.description && html`<br /><small class="dim">${m.description.slice(0, 120)}</small>`}</th><td class="num">${newest(m) ? html`<a href=${`${link('models', m.name)}?version=${newest(m)}`}>v${newest(m)}</a>` : '–'}</td>
          <td>${(m.aliases ?? []).map((a) => html`<${Badge} key=${a.alias} value=${`${a.alias} v${a.version}`} tone=${a.alias === 'champion' ? 'good' : 'info'} /> `)}</td><td><${Chips} tags=${m.tags} /></td><td class="when">${time(m.last_updated_timestamp)}</td></tr>`)}</tbody></table></${Scroll}>
        ${data.more && html`<p class="more"><a class="button" href=${withParams({ most: String(most + PAGE) })}>Show more</a></p>`}</${Panel}>`)}
    ${asked && html`<${Dialog} title="New model" onClose=${() => setAsked(false)}><${Form} submit=${(/** @type {any} */ f) => { made.name = f.name; return send('registered-models/create', { name: f.name, ...(f.description ? { description: f.description } : {}) }); }} done=${() => go(link('models', made.name))} action="Create">
      <${Field} label="Name" name="name" required autofocus /><${Field} label="Description" name="description" type="area" /></${Form}></${Dialog}>`}`;
}
