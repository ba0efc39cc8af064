// A registered model: its versions, its aliases, its history, one version, the difference between two.
import { useState } from '../../vendor/preact.js';
import { go, link, metric, route, time, version, withParams } from '../client.js';
import { Value } from '../records.js';
import { send, TONES, useLoad } from '../tracking/api.js';
import { Chips, Crumbs, Dialog, Field, Form, TagEditor } from '../tracking/parts.js';
import { VersionDiff, VersionPart } from '../tracking/version.js';
import { loadModel } from '../tracking/versions.js';
import { Badge, Empty, Failure, html, Panel, Scroll, Title, Waiting } from '../ui.js';

/** @typedef {import('../tracking/versions.js').Model} Model */

/** @param {{model: Model, chosen: string | null}} props */
function Versions({ model, chosen }) {
  const { versions, aliases } = model;
  const metrics = [...new Set(versions.flatMap((v) => v.metrics.map(([name]) => name)))].slice(0, 4);
  const staged = versions.some((v) => v.current_stage && v.current_stage !== 'None');
  return html`<${Scroll} label="Versions"><table><thead><tr><th scope="col">Version</th><th scope="col">Aliases</th>${staged && html`<th scope="col">Stage</th>`}<th scope="col">Registered</th>${metrics.map((name) => html`<th scope="col" class="num" key=${name}>${name}</th>`)}<th scope="col">Tags</th><th scope="col">Description</th></tr></thead>
    <tbody>${versions.map((v) => {
      const isChosen = chosen === String(v.number);
      const values = Object.fromEntries(v.metrics);
      return html`<tr key=${v.number} class=${isChosen ? 'chosen' : ''}><th scope="row"><a href=${withParams({ version: isChosen ? null : String(v.number), diff: null })} aria-current=${isChosen ? 'true' : undefined}>${version(v.number)}</a>${v.status && v.status !== 'READY' && html` <${Badge} value=${v.status.toLowerCase()} tone=${TONES[v.status]} />`}</th>
        <td>${aliases.filter(([, number]) => number === v.number).map(([name]) => html`<${Badge} key=${name} value=${name} tone=${name === 'champion' ? 'good' : 'info'} /> `)}</td>${staged && html`<td>${v.current_stage && v.current_stage !== 'None' && html`<${Badge} value=${v.current_stage} tone=${TONES[v.current_stage]} />`}</td>`}<td class="when">${time(v.creation_timestamp)}</td>
        ${metrics.map((name) => html`<td class="num" key=${name}>${metric(values[name])}</td>`)}<td><${Chips} tags=${v.tags} most=${2} /></td><td class="short">${v.description}</td></tr>`;
    })}</tbody></table></${Scroll}>`;
}

const SAID = /** @type {Record<string, string>} */ ({ created: 'Created', renamed: 'Renamed', deleted: 'Deleted', version_deleted: 'Version deleted', requested: 'Asked for', approved: 'Approved', rejected: 'Refused' });

/** A line of the history in words. @param {{entry: import('../tracking/versions.js').Entry}} props */
function What({ entry: { kind, version: number, detail } }) {
  const of = number === null ? '' : html` <strong>${version(number)}</strong>`;
  if (kind === 'alias_moved') {
    return html`<${Badge} value=${detail.alias} tone=${detail.alias === 'champion' ? 'good' : 'info'} /> ${number === null ? 'taken away' : html`${detail.from === null ? 'to' : html`${version(detail.from)} →`}${of}`}`;
  }
  if (kind === 'stage_moved') return html`Stage of${of}: ${detail.from} → <${Badge} value=${detail.to} tone=${TONES[detail.to]} />`;
  const to = detail?.to && typeof detail.to === 'object' ? Object.entries(detail.to).map(([noun, name]) => `${noun} ${name}`).join(', ') : detail?.to;
  return html`${SAID[kind] ?? kind.replaceAll('_', ' ')}${to ? html` <em>${to}</em> for` : ''}${of}${detail?.request ? html` <span class="dim">(request ${detail.request})</span>` : ''}`;
}

/** Rename, describe, tag, delete. @param {{model: Model, again: () => void}} props */
function Actions({ model, again }) {
  const [asked, setAsked] = useState('');
  const { name } = model;
  const close = () => setAsked('');
  const done = () => {
    close();
    again();
  };
  const renamed = { name };
  return html`<div class="toolbar">${[['text', 'Describe'], ['tags', 'Tags'], ['rename', 'Rename'], ['delete', 'Delete']].map(([kind, text]) => html`<button type="button" class="button" key=${kind} onClick=${() => setAsked(kind ?? '')}>${text}</button>`)}</div>
    ${asked === 'text' && html`<${Dialog} title=${`Describe ${name}`} onClose=${close}><${Form} submit=${(/** @type {any} */ f) => send('registered-models/update', { name, description: f.text }, 'PATCH')} done=${done} action="Save"><${Field} label="Description" name="text" type="area" value=${model.description} autofocus /></${Form}></${Dialog}>`}
    ${asked === 'tags' && html`<${Dialog} title=${`Tags of ${name}`} onClose=${close}><${TagEditor} tags=${model.tags} changed=${again} set=${(/** @type {string} */ key, /** @type {string} */ value) => send('registered-models/set-tag', { name, key, value })} remove=${(/** @type {string} */ key) => send('registered-models/delete-tag', { name, key }, 'DELETE')} /></${Dialog}>`}
    ${asked === 'rename' && html`<${Dialog} title=${`Rename ${name}`} onClose=${close}><${Form} submit=${(/** @type {any} */ f) => { renamed.name = f.name; return send('registered-models/rename', { name, new_name: f.name }); }} done=${() => go(link('models', renamed.name))} action="Rename"><${Field} label="New name" name="name" value=${name} required autofocus /></${Form}></${Dialog}>`}
    ${asked === 'delete' && html`<${Dialog} title=${`Delete ${name}?`} onClose=${close}><p>All its versions go with it. This cannot be undone; runs and artifacts stay.</p><${Form} submit=${() => send('registered-models/delete', { name }, 'DELETE')} done=${() => go('/models')} action="Delete" danger /></${Dialog}>`}`;
}

/** @param {{id: string}} props its name */
export function ModelPage({ id: name }) {
  const { params } = route.value;
  const { data: model, error, again } = useLoad(name, (signal) => loadModel(name, signal));
  const crumbs = html`<${Crumbs} steps=${[['Models', '/models']]} />`;
  if (error) return html`${crumbs}<${Title} text=${name} /><${Failure} error=${error} what="The model" />`;
  if (!model) return html`${crumbs}<${Title} text=${name} /><${Waiting} height=${420} />`;
  const [chosen, diff] = [params.get('version'), params.get('diff')];
  const one = model.versions.find((v) => String(v.number) === chosen);
  const other = model.versions.find((v) => String(v.number) === diff);
  return html`${crumbs}<div class="title-row"><${Title} text=${name}><${Chips} tags=${model.tags} /></${Title}><${Actions} model=${model} again=${again} /></div>
    <p class="lead">${model.versions.length} version${model.versions.length === 1 ? '' : 's'}${model.aliases.map(([alias, target]) => html`<span key=${alias}> · ${alias} is <strong>${version(target)}</strong></span>`)}</p>
    ${model.description && html`<p class="lead note-text">${model.description}</p>`}
    ${one && other && html`<${VersionDiff} key=${`${diff} ${chosen}`} a=${other} b=${one} all=${params.get('all') === '1'} />`}
    ${one && !other && html`<${VersionPart} key=${chosen} model=${model} version=${one} again=${again} />`}
    ${chosen && !one && html`<p class="note">There is no version ${chosen}.</p>`}
    ${model.versions.length === 0
      ? html`<${Empty} title="No version yet">A training run registers the first one. Start it by a trigger in <code>tidemill.yaml</code>, or register a model with MLflow's client.</${Empty}>`
      : html`<${Panel} title="Versions" id="versions"><${Versions} model=${model} chosen=${chosen} /></${Panel}>`}
    <${Panel} title="History" id="history">${model.history.length === 0
      ? html`<p class="note">Nothing has happened yet.</p>`
      : html`<${Scroll} label="History"><table><thead><tr><th scope="col">When</th><th scope="col">What</th><th scope="col">By</th><th scope="col">Why</th></tr></thead>
        <tbody>${model.history.map((h, i) => html`<tr key=${i}><td class="when">${time(h.at)}</td><td><${What} entry=${h} /></td><td>${h.by}</td>
          <td>${h.decision ? html`<a href=${link('decisions', h.decision)}>${h.why || 'decision'}</a>` : html`<${Value} value=${h.why} />`}</td></tr>`)}</tbody></table></${Scroll}>`}</${Panel}>`;
}
