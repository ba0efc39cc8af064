// All experiments: search, create, rename, delete, restore, tags.
import { useState } from '../../vendor/preact.js';
import { count, route, setParams, time, withParams } from '../client.js';
import { send, useLoad } from '../tracking/api.js';
import { Chips, Dialog, Field, Form, SortHead, TagEditor } from '../tracking/parts.js';
import { quoted } from '../tracking/filter.js';
import { Badge, Empty, Failure, html, Panel, Scroll, Title, Waiting } from '../ui.js';

/** @typedef {import('../tracking/types.js').Experiment} Experiment */

const PAGE = 200;
const VIEWS = /** @type {Record<string, string>} */ ({ active: 'ACTIVE_ONLY', deleted: 'DELETED_ONLY', all: 'ALL' });

/** A dialog and the experiment it is about. @typedef {{kind: 'create' | 'rename' | 'delete' | 'tags', of?: Experiment}} Asked */

/** @param {{asked: Asked, close: () => void, again: () => void}} props */
function Ask({ asked, close, again }) {
  const of = /** @type {Experiment} */ (asked.of);
  const done = () => {
    close();
    again();
  };
  if (asked.kind === 'create') {
    return html`<${Dialog} title="New experiment" onClose=${close}><${Form} submit=${(/** @type {any} */ f) => send('experiments/create', { name: f.name, ...(f.location ? { artifact_location: f.location } : {}) })} done=${done} action="Create">
      <${Field} label="Name" name="name" required autofocus /><${Field} label="Artifact location" name="location" hint="Leave empty for the server's own store." /></${Form}></${Dialog}>`;
  }
  if (asked.kind === 'rename') {
    return html`<${Dialog} title=${`Rename ${of.name}`} onClose=${close}><${Form} submit=${(/** @type {any} */ f) => send('experiments/update', { experiment_id: of.experiment_id, new_name: f.name })} done=${done} action="Rename">
      <${Field} label="New name" name="name" value=${of.name} required autofocus /></${Form}></${Dialog}>`;
  }
  if (asked.kind === 'delete') {
    return html`<${Dialog} title=${`Delete ${of.name}?`} onClose=${close}><p>Its runs are hidden with it. It can be restored from the list of deleted experiments until the server purges it.</p>
      <${Form} submit=${() => send('experiments/delete', { experiment_id: of.experiment_id })} done=${done} action="Delete" danger /></${Dialog}>`;
  }
  return html`<${Dialog} title=${`Tags of ${of.name}`} onClose=${close}><${TagEditor} tags=${of.tags} changed=${again}
    set=${(/** @type {string} */ key, /** @type {string} */ value) => send('experiments/set-experiment-tag', { experiment_id: of.experiment_id, key, value })}
    remove=${(/** @type {string} */ key) => send('experiments/delete-experiment-tag', { experiment_id: of.experiment_id, key })} /></${Dialog}>`;
}

/** The first `most` experiments that match. @param {string} q @param {string} view @param {string} order @param {number} most @param {AbortSignal} signal */
async function load(q, view, order, most, signal) {
  /** @type {Experiment[]} */
  const found = [];
  let token = '';
  do {
    const page = await send('experiments/search', { max_results: Math.min(PAGE, most - found.length), view_type: VIEWS[view] ?? VIEWS.active, order_by: [order], ...(q ? { filter: `name ILIKE ${quoted(`%${q}%`)}` } : {}), ...(token ? { page_token: token } : {}) }, 'POST', signal);
    found.push(...(page.experiments ?? []));
    token = page.next_page_token ?? '';
  } while (token && found.length < most);
  return { found, more: Boolean(token) };
}

export function ExperimentsPage() {
  const { params } = route.value;
  const [q, view, most] = [params.get('q') ?? '', params.get('view') ?? 'active', Math.max(PAGE, Number(params.get('most')) || PAGE)];
  const [by = 'last_update_time', direction = 'DESC'] = (params.get('order') ?? '').split(' ').filter(Boolean);
  const [asked, setAsked] = useState(/** @type {Asked | null} */ (null));
  const { data, error, again } = useLoad(`${q}\n${view}\n${by} ${direction}\n${most}`, (signal) => load(q, view, `${by} ${direction}`, most, signal));
  const order = { by, descending: direction === 'DESC' };
  const sort = (/** @type {string} */ name, /** @type {boolean} */ descending) => setParams({ order: `${name} ${descending ? 'DESC' : 'ASC'}` }, true);
  const restore = (/** @type {Experiment} */ of) => send('experiments/restore', { experiment_id: of.experiment_id }).then(again, again);
  const shown = asked?.of ? { ...asked, of: data?.found.find((e) => e.experiment_id === asked.of?.experiment_id) ?? asked.of } : asked;
  return html`<div class="title-row"><${Title} text="Experiments" /><button type="button" class="button primary" onClick=${() => setAsked({ kind: 'create' })}>New experiment</button></div>
    <div class="toolbar" role="search">
      <label class="grow"><span class="hidden">Search by name</span><input type="search" class="input" placeholder="Search by name" value=${q} onInput=${(/** @type {any} */ e) => setParams({ q: e.currentTarget.value, most: null }, true)} /></label>
      <label>Show <select class="input" value=${view} onChange=${(/** @type {any} */ e) => setParams({ view: e.currentTarget.value === 'active' ? null : e.currentTarget.value })}>
        <option value="active">active</option><option value="deleted">deleted</option><option value="all">all</option></select></label>
    </div>
    ${error && html`<${Failure} error=${error} what="The list of experiments" />`}
    ${!data && !error && html`<${Waiting} height=${320} />`}
    ${data && (data.found.length === 0
      ? html`<${Empty} title=${q ? 'No experiment has such a name' : view === 'deleted' ? 'Nothing is deleted' : 'No experiment yet'}>${q ? html`Try a part of the name; capitals do not matter.` : html`Set <code>MLFLOW_TRACKING_URI</code> to this server's address and call <code>mlflow.set_experiment("…")</code>, or create one here.`}</${Empty}>`
      : html`<${Panel} title=${`${count(data.found.length)}${data.more ? '+' : ''} experiment${data.found.length === 1 ? '' : 's'}`} id="list"><${Scroll} label="Experiments"><table class="list">
        <thead><tr><${SortHead} label="Name" by="name" ...${{ order, sort }} /><th scope="col">Tags</th><${SortHead} label="Created" by="creation_time" ...${{ order, sort }} /><${SortHead} label="Changed" by="last_update_time" ...${{ order, sort }} /><th scope="col"><span class="hidden">What can be done</span></th></tr></thead>
        <tbody>${data.found.map((e) => html`<tr key=${e.experiment_id}><th scope="row"><a href=${`/experiments/${e.experiment_id}`}>${e.name}</a> ${e.lifecycle_stage === 'deleted' && html`<${Badge} value="deleted" tone="quiet" />`}<br /><small class="dim">${note(e)}</small></th>
          <td><${Chips} tags=${e.tags} /></td><td class="when">${time(e.creation_time)}</td><td class="when">${time(e.last_update_time)}</td>
          <td class="actions">${e.lifecycle_stage === 'deleted'
            ? html`<button type="button" class="link-button" aria-label=${`Restore ${e.name}`} onClick=${() => restore(e)}>Restore</button>`
            : [['rename', 'Rename'], ['tags', 'Tags'], ['delete', 'Delete']].map(([kind, text]) => html`<button type="button" key=${kind} class="link-button" aria-label=${`${text} ${e.name}`} onClick=${() => setAsked({ kind: /** @type {any} */ (kind), of: e })}>${text}</button>`)}</td></tr>`)}</tbody></table></${Scroll}>
        ${data.more && html`<p class="more"><a class="button" href=${withParams({ most: String(most + PAGE) })}>Show more</a></p>`}</${Panel}>`)}
    ${shown && html`<${Ask} key=${`${shown.kind}${shown.of?.experiment_id}`} asked=${shown} close=${() => setAsked(null)} again=${again} />`}`;
}

/** What people wrote about it, else its id. @param {Experiment} experiment */
const note = (experiment) => experiment.tags?.find((tag) => tag.key === 'mlflow.note.content')?.value?.slice(0, 120) || `id ${experiment.experiment_id}`;
