// One version of a model, and what differs between two.
import { useState } from '../../vendor/preact.js';
import { get, link, setParams, signed, time, version as called, withParams } from '../client.js';
import { Facts, Id } from '../records.js';
import { Badge, html, Panel, Scroll, Waiting } from '../ui.js';
import { figure, modelLink, runLink, send, TONES, useLoad } from './api.js';
import { Dialog, Field, Form, TagEditor } from './parts.js';
import { Requests } from './requests.js';
import { behind } from './versions.js';

/** @typedef {import('./versions.js').Version} Version */
/** @typedef {import('./versions.js').Model} Model */
/** @typedef {import('./versions.js').Side} Side */
/** @typedef {import('./versions.js').Behind} Behind */

const STAGES = ['None', 'Staging', 'Production', 'Archived'];

/** @param {{side: Side, title: string}} props */
export const Columns = ({ side, title }) => (side.length === 0 ? null : html`<h3>${title}</h3><${Scroll} label=${title}><table class="values"><tbody>${side.map((column) => html`<tr key=${column.name}><th scope="row">${column.name}</th><td><code>${column.type}</code></td></tr>`)}</tbody></table></${Scroll}>`);

/** @param {{of: Map<string, any>, none: string, show?: (value: any) => any}} props */
const Pairs = ({ of, none, show = (value) => value }) => (of.size === 0 ? html`<p class="note">${none}</p>` : html`<table class="values"><tbody>${[...of].sort(([a], [b]) => a.localeCompare(b)).map(([key, value]) => html`<tr key=${key}><th scope="row">${key}</th><td class="num">${show(value)}</td></tr>`)}</tbody></table>`);

/** @param {{model: Model, version: Version, again: () => void}} props */
function Edit({ model, version, again }) {
  const [asked, setAsked] = useState('');
  const { name } = model;
  const close = () => setAsked('');
  const done = () => {
    close();
    again();
  };
  return html`<div class="toolbar"><button type="button" class="button" onClick=${() => setAsked('alias')}>Set alias</button><button type="button" class="button" onClick=${() => setAsked('stage')}>Change stage</button>
    <button type="button" class="button" onClick=${() => setAsked('text')}>Describe</button><button type="button" class="button" onClick=${() => setAsked('delete')}>Delete</button></div>
    ${asked === 'alias' && html`<${Dialog} title=${`Give version ${version.number} an alias`} onClose=${close}><p>An alias that another version has moves to this one.</p><${Form} submit=${(/** @type {any} */ f) => send('registered-models/alias', { name, alias: f.alias.trim(), version: version.version })} done=${done} action="Set alias"><${Field} label="Alias" name="alias" required autofocus /></${Form}></${Dialog}>`}
    ${asked === 'stage' && html`<${Dialog} title=${`Stage of version ${version.number}`} onClose=${close}><${Form} submit=${(/** @type {any} */ f) => send('model-versions/transition-stage', { name, version: version.version, stage: f.stage, archive_existing_versions: f.archive === 'on' })} done=${done} action="Change stage">
      <label class="field"><span>Stage</span><select name="stage" class="input">${STAGES.map((stage) => html`<option key=${stage} selected=${stage === version.current_stage}>${stage}</option>`)}</select></label><label class="check"><input type="checkbox" name="archive" /> Archive the versions that are in this stage now</label></${Form}></${Dialog}>`}
    ${asked === 'text' && html`<${Dialog} title=${`Describe version ${version.number}`} onClose=${close}><${Form} submit=${(/** @type {any} */ f) => send('model-versions/update', { name, version: version.version, description: f.text }, 'PATCH')} done=${done} action="Save"><${Field} label="Description" name="text" type="area" value=${version.description ?? ''} autofocus /></${Form}></${Dialog}>`}
    ${asked === 'delete' && html`<${Dialog} title=${`Delete version ${version.number}?`} onClose=${close}><p>This cannot be undone. Its run and its artifacts stay.</p><${Form} submit=${() => send('model-versions/delete', { name, version: version.version }, 'DELETE')} done=${() => { close(); setParams({ version: null }); again(); }} action="Delete" danger /></${Dialog}>`}`;
}

/** @param {{model: Model, version: Version, again: () => void}} props */
export function VersionPart({ model, version, again }) {
  const { data } = useLoad(`${model.name}\n${version.number}`, () => behind(version));
  const aliases = model.aliases.filter(([, number]) => number === version.number).map(([alias]) => alias);
  const others = model.versions.filter((other) => other.number !== version.number);
  const run = version.run_id;
  const unalias = (/** @type {string} */ alias) => send('registered-models/alias', { name: model.name, alias }, 'DELETE').then(again, again);
  const facts = /** @type {[string, any][]} */ ([
    ['registered', time(version.creation_timestamp)], ['changed', version.last_updated_timestamp && time(version.last_updated_timestamp)], ['status', version.status && html`<${Badge} value=${version.status.toLowerCase()} tone=${TONES[version.status]} />`],
    ['stage', version.current_stage && version.current_stage !== 'None' && html`<${Badge} value=${version.current_stage} tone=${TONES[version.current_stage]} />`],
    ['aliases', aliases.length > 0 && aliases.map((alias) => html`<span class="chip" key=${alias}>${alias} <button type="button" class="quiet-button" aria-label=${`Take the alias ${alias} away`} onClick=${() => unalias(alias)}>✕</button></span> `)],
    ['user', version.user_id], ['tracked run', data?.experiment && run && html`<a href=${runLink(data.experiment, run)}><code>${run.slice(0, 12)}</code></a>`],
    ['training run', (version.loop?.run ?? version.loop?.run_id) && html`<a href=${link('runs', version.loop.run ?? version.loop.run_id)}><code>${String(version.loop.run ?? version.loop.run_id).slice(0, 12)}</code></a>`],
    ['logged model', version.model_id && (data?.home ? html`<a href=${modelLink(data.home, version.model_id)}><code>${version.model_id.slice(0, 12)}</code></a>` : html`<${Id} value=${version.model_id} />`)], ['source', version.source && html`<code>${version.source}</code>`],
  ]).filter(([, value]) => value);
  return html`<section id="version" aria-label=${`Version ${version.number}`}>
    <div class="title-row"><h2 class="version-title">Version ${version.number}</h2><div class="toolbar">${others.length > 0 && html`<label>Compare with <select class="input" onChange=${(/** @type {any} */ e) => e.currentTarget.value && setParams({ diff: e.currentTarget.value })}><option value="">a version</option>${others.map((other) => html`<option key=${other.number} value=${other.number}>v${other.number}</option>`)}</select></label>`}
      <a href=${`/api/v1/models/${encodeURIComponent(model.name)}/versions/${version.number}/card`} target="_blank">Card</a>
      <a class="close" href=${withParams({ version: null })}>Close</a></div></div>
    <${Edit} model=${model} version=${version} again=${again} />
    ${version.description && html`<p class="lead note-text">${version.description}</p>`}
    ${!data ? html`<${Waiting} height=${240} />` : html`<div class="cards chain">
      <${Panel} title="About" id="about"><dl class="facts">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl></${Panel}>
      <${Panel} title="Metrics" id="version-metrics"><${Pairs} of=${data.metrics} none="Neither run nor loop told one." show=${figure} /></${Panel}>
      <${Panel} title="Parameters" id="version-params"><${Pairs} of=${data.params} none="None known." /></${Panel}>
      <${Panel} title="Signature" id="signature">${data.signature ? html`<${Columns} side=${data.signature.inputs} title="Inputs" /><${Columns} side=${data.signature.outputs} title="Outputs" /><${Columns} side=${data.signature.params} title="Parameters" />` : html`<p class="note">None: the model has no <code>MLmodel</code> file with a signature.</p>`}</${Panel}>
      <${Panel} title="Tags" id="version-tags"><${TagEditor} tags=${version.tags} changed=${again} set=${(/** @type {string} */ key, /** @type {string} */ value) => send('model-versions/set-tag', { name: model.name, version: version.version, key, value })}
        remove=${(/** @type {string} */ key) => send('model-versions/delete-tag', { name: model.name, version: version.version, key }, 'DELETE')} /></${Panel}>
      <${Requests} model=${model} version=${version} stages=${STAGES} again=${again} />
      ${version.loop && html`<${Panel} title="From the loop" id="loop"><${Facts} of=${version.loop} skip=${['metrics', 'params', 'version', 'model', 'signature', 'description']} /></${Panel}>`}</div>`}</section>`;
}

/** @param {Side | undefined} side */
const mapOf = (side) => new Map((side ?? []).map(({ name, type }) => [name, type]));

/** @param {{title: string, a: Map<string, any>, b: Map<string, any>, all: boolean, metric?: boolean}} props */
function Group({ title, a, b, all, metric = false }) {
  const keys = [...new Set([...a.keys(), ...b.keys()])].sort((x, y) => x.localeCompare(y));
  const rows = keys.map((key) => ({ key, a: a.get(key), b: b.get(key) })).map((row) => ({ ...row, differs: !Object.is(row.a, row.b) })).filter((row) => all || row.differs);
  const text = (/** @type {any} */ value) => (value === undefined ? html`<span class="dim">–</span>` : metric ? figure(value) : String(value));
  return html`<tbody><tr class="group"><th scope="rowgroup" colspan="4"><span>${title}</span></th></tr>${rows.length === 0 ? html`<tr><td colspan="4" class="dim">${keys.length === 0 ? 'none known' : 'no difference'}</td></tr>`
    : rows.map((row) => html`<tr key=${row.key} class=${all && row.differs ? 'differs' : ''}><th scope="row">${row.key}</th><td class=${metric ? 'num' : ''}>${text(row.a)}</td><td class=${metric ? 'num' : ''}>${text(row.b)}</td>
      <td class="num">${metric && row.a !== undefined && row.b !== undefined ? signed(row.b - row.a) : row.a === undefined ? html`<${Badge} value="added" tone="info" />` : row.b === undefined ? html`<${Badge} value="removed" tone="warn" />` : ''}</td></tr>`)}</tbody>`;
}

/** Whether the newer can take the older's place, as the registry judges it; null where it does not know. @param {Version} a @param {Version} b @returns {Promise<{compatible: boolean | null, reasons: string[]} | null>} */
const judged = (a, b) => get(`/models/${encodeURIComponent(a.name)}/versions/${a.number}/compare/${b.number}`).catch(() => null);

/** The same by the signatures in the versions' `MLmodel` files, where the registry does not know them. @param {Behind} a @param {Behind} b */
function judgedHere(a, b) {
  if (!a.signature || !b.signature) return null;
  const [taken, given] = [mapOf(a.signature.inputs), mapOf(b.signature.outputs)];
  const reasons = [
    ...b.signature.inputs.filter(({ name, type }) => (taken.has(name) ? taken.get(name) !== type : !type.endsWith(', optional'))).map(({ name, type }) => (taken.has(name) ? `input \`${name}\` was ${taken.get(name)} and is ${type}` : `input \`${name}\` is new and required`)),
    ...a.signature.outputs.filter(({ name, type }) => given.get(name) !== type).map(({ name, type }) => (given.has(name) ? `output \`${name}\` was ${type} and is ${given.get(name)}` : `output \`${name}\` is gone`)),
  ];
  return { compatible: reasons.length === 0, reasons };
}

/** @param {{a: Version, b: Version, all: boolean}} props from `a` to `b` */
export function VersionDiff({ a, b, all }) {
  const { data } = useLoad(`${a.name}\n${a.number}\n${b.number}`, () => Promise.all([behind(a), behind(b), judged(a, b)]));
  const verdict = data && (typeof data[2]?.compatible === 'boolean' ? data[2] : judgedHere(data[0], data[1]) ?? data[2]);
  return html`<${Panel} title=${`From ${called(a.number)} to ${called(b.number)}`} id="diff" aside=${html`<a href=${withParams({ version: String(b.number), diff: String(a.number) })}>Swap</a>
      <label class="check"><input type="checkbox" checked=${!all} onChange=${() => setParams({ all: all ? null : '1' }, true)} /> Only differences</label><a class="close" href=${withParams({ diff: null, all: null })}>Close</a>`}>
    ${!data ? html`<${Waiting} height=${240} />` : html`${verdict && html`<p class="note">${verdict.compatible === null ? html`<${Badge} value="not known" />` : html`<${Badge} value=${verdict.compatible ? 'compatible' : 'incompatible'} tone=${verdict.compatible ? 'good' : 'bad'} />`}
      ${verdict.compatible ? ` Who calls ${called(a.number)} can call ${called(b.number)} without a change.` : verdict.compatible === false ? ` Who calls ${called(a.number)} cannot call ${called(b.number)} as it is: ${verdict.reasons.join('; ')}.` : ` ${verdict.reasons.join('; ')}.`}</p>`}
    <${Scroll} label="Differences"><table class="differences"><thead><tr><td></td><th scope="col">${called(a.number)}</th><th scope="col">${called(b.number)}</th><th scope="col" class="num">Change</th></tr></thead>
      <${Group} title="Metrics" a=${data[0].metrics} b=${data[1].metrics} all=${all} metric />
      <${Group} title="Parameters" a=${data[0].params} b=${data[1].params} all=${all} />
      <${Group} title="Tags" a=${data[0].tags} b=${data[1].tags} all=${all} />
      <${Group} title="Inputs" a=${mapOf(data[0].signature?.inputs)} b=${mapOf(data[1].signature?.inputs)} all=${all} />
      <${Group} title="Outputs" a=${mapOf(data[0].signature?.outputs)} b=${mapOf(data[1].signature?.outputs)} all=${all} />
      <${Group} title="Inference parameters" a=${mapOf(data[0].signature?.params)} b=${mapOf(data[1].signature?.params)} all=${all} /></table></${Scroll}>`}</${Panel}>`;
}
