// The columns of the runs table: which there are, what a cell says, and the dialog that chooses them.
import { useState } from '../../vendor/preact.js';
import { duration, time } from '../client.js';
import { html } from '../ui.js';
import { figure } from './api.js';
import { Dialog } from './parts.js';

/** @typedef {import('./types.js').Column} Column */
/** @typedef {import('./types.js').Keys} Keys */
/** @typedef {import('./types.js').Row} Row */
/** @typedef {import('./types.js').Order} Order */

export const NAME = /** @type {Column} */ ({ kind: 'a', key: 'run_name' });
const ATTRIBUTES = /** @type {Record<string, string>} */ ({ status: 'Status', start_time: 'Started', duration: 'Took', end_time: 'Ended', user_id: 'User', run_id: 'Run id', source: 'Source' });
const UNSORTED = ['duration', 'source'];
const WIDTHS = { a: 136, m: 118, p: 128, t: 140 };

/** @param {Column} column */
export const idOf = ({ kind, key }) => `${kind}:${key}`;
/** @param {string} id @returns {Column} */
const columnOf = (id) => ({ kind: /** @type {Column['kind']} */ (id[0]), key: id.slice(2) });
/** @param {Column} column */
export const labelOf = ({ kind, key }) => (kind === 'a' ? ATTRIBUTES[key] ?? 'Run' : key);
/** @param {Column} column */
export const widthOf = ({ kind, key }) => (key === 'duration' || key === 'status' ? 104 : key.endsWith('_time') ? 150 : kind === 'a' ? WIDTHS.a : Math.min(220, Math.max(WIDTHS[kind], key.length * 7.5 + 24)));
/** @param {Column} column */
export const isSortable = ({ kind, key }) => kind !== 'a' || !UNSORTED.includes(key);
/** @param {Column} column */
export const isNumeric = ({ kind, key }) => kind === 'm' || key === 'duration';

/** From the URL and to it: keys are separated by commas. @param {string | null} text @returns {Column[] | null} */
export const readColumns = (text) => (text === null ? null : text.split(',').filter((id) => /^[ampt]:./.test(id)).map((id) => columnOf(id.replaceAll('%2C', ',').replaceAll('%25', '%'))));
/** @param {Column[]} columns */
export const writeColumns = (columns) => columns.map((column) => idOf(column).replaceAll('%', '%25').replaceAll(',', '%2C')).join(',') || 'none';

/** `-m:auc` is descending. @param {string | null} text @returns {Order | null} */
export const readOrder = (text) => (text && /^-?[ampt]:./.test(text) ? { column: columnOf(text.replace(/^-/, '')), descending: text.startsWith('-') } : null);
/** @param {Order} order */
export const writeOrder = ({ column, descending }) => (descending ? '-' : '') + idOf(column);

/** What a reader wants first: when and how long, a few metrics, and the parameters that differ. @param {Row[]} rows @param {Keys} keys @returns {Column[]} */
export function usualColumns(rows, keys) {
  const some = rows.slice(0, 200);
  const differ = (/** @type {string} */ key) => new Set(some.map((row) => row.params.get(key))).size > 1;
  const metrics = keys.metrics.filter((key) => !key.startsWith('system/')).slice(0, 5);
  const params = [...keys.params.filter(differ), ...keys.params.filter((key) => !differ(key))].slice(0, 5);
  return [...['status', 'start_time', 'duration'].map((key) => /** @type {Column} */ ({ kind: 'a', key })), ...metrics.map((key) => /** @type {Column} */ ({ kind: 'm', key })), ...params.map((key) => /** @type {Column} */ ({ kind: 'p', key }))];
}

/** A cell as text. @param {Row} row @param {Column} column */
export function cell(row, { kind, key }) {
  if (kind === 'm') return row.metrics.has(key) ? figure(row.metrics.get(key)) : '';
  if (kind === 'p') return row.params.get(key) ?? '';
  if (kind === 't') return row.tags.get(key) ?? '';
  switch (key) {
    case 'start_time': return time(row.info.start_time);
    case 'end_time': return row.info.end_time ? time(row.info.end_time) : '';
    case 'duration': return row.info.end_time ? duration(row.info.start_time, row.info.end_time) : '';
    case 'user_id': return row.info.user_id || (row.tags.get('mlflow.user') ?? '');
    case 'source': return row.tags.get('mlflow.source.name') ?? '';
    case 'run_id': return row.id;
    case 'status': return row.info.status;
    default: return row.name;
  }
}

const GROUPS = /** @type {[Column['kind'], string][]} */ ([['m', 'Metrics'], ['p', 'Parameters'], ['t', 'Tags'], ['a', 'About the run']]);
const MOST = 100;

/** @param {{columns: Column[], keys: Keys, choose: (columns: Column[]) => void, usual: () => void, close: () => void}} props */
export function Chooser({ columns, keys, choose, usual, close }) {
  const [q, setQ] = useState('');
  const chosen = new Set(columns.map(idOf));
  const names = { m: keys.metrics, p: keys.params, t: keys.tags, a: Object.keys(ATTRIBUTES) };
  /** @param {number} i @param {number} by */
  const move = (i, by) => {
    const next = [...columns];
    next.splice(i + by, 0, ...next.splice(i, 1));
    choose(next);
  };
  const toggle = (/** @type {Column} */ column) => choose(chosen.has(idOf(column)) ? columns.filter((c) => idOf(c) !== idOf(column)) : [...columns, column]);
  return html`<${Dialog} title="Columns" onClose=${close}>
    <ol class="chosen-columns" aria-label="Shown, from left to right">${columns.map((column, i) => html`<li key=${idOf(column)} class="chip"><span>${labelOf(column)}</span>
      <button type="button" class="quiet-button" disabled=${i === 0} aria-label=${`Move ${labelOf(column)} to the left`} onClick=${() => move(i, -1)}>←</button>
      <button type="button" class="quiet-button" disabled=${i === columns.length - 1} aria-label=${`Move ${labelOf(column)} to the right`} onClick=${() => move(i, 1)}>→</button>
      <button type="button" class="quiet-button" aria-label=${`Hide ${labelOf(column)}`} onClick=${() => toggle(column)}>✕</button></li>`)}</ol>
    <div class="toolbar"><label class="grow"><span class="hidden">Find a column</span><input type="search" class="input" placeholder="Find a column" value=${q} autofocus onInput=${(/** @type {any} */ e) => setQ(e.currentTarget.value)} /></label>
      <button type="button" class="button" onClick=${usual}>The usual ones</button></div>
    <div class="column-groups">${GROUPS.map(([kind, title]) => {
      const found = names[kind].filter((key) => labelOf({ kind, key }).toLowerCase().includes(q.toLowerCase()));
      return found.length > 0 && html`<fieldset key=${kind}><legend>${title}</legend>${found.slice(0, MOST).map((key) => html`<label key=${key}><input type="checkbox" checked=${chosen.has(`${kind}:${key}`)} onChange=${() => toggle({ kind, key })} /> <span>${labelOf({ kind, key })}</span></label>`)}
        ${found.length > MOST && html`<p class="note">and ${found.length - MOST} more: type a part of the name</p>`}</fieldset>`;
    })}</div></${Dialog}>`;
}
