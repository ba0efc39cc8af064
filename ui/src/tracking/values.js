// Names and values of a run or a logged model.
import { useState } from '../../vendor/preact.js';
import { html, Scroll } from '../ui.js';

const MOST = 200;

/** Names and values, with a search where there are many. @param {{label: string, rows: {key: string, cells: any[]}[], heads: string[], none: string}} props */
export function Values({ label, rows, heads, none }) {
  const [q, setQ] = useState('');
  const [all, setAll] = useState(false);
  if (rows.length === 0) return html`<p class="note">${none}</p>`;
  const found = rows.filter((row) => row.key.toLowerCase().includes(q.toLowerCase()));
  return html`${rows.length > 15 && html`<label><span class="hidden">Find in ${label}</span><input type="search" class="input find-in" placeholder=${`Find in ${rows.length}`} value=${q} onInput=${(/** @type {any} */ e) => setQ(e.currentTarget.value)} /></label>`}
    <${Scroll} label=${label}><table class="values"><thead><tr>${heads.map((head, i) => html`<th scope="col" key=${head} class=${i > 0 && heads.length > 2 ? 'num' : ''}>${head}</th>`)}</tr></thead>
    <tbody>${found.slice(0, all ? found.length : MOST).map(({ key, cells }) => html`<tr key=${key}>${cells.map((cell, i) => (i === 0 ? html`<th scope="row">${cell}</th>` : html`<td class=${heads.length > 2 ? 'num' : ''}>${cell}</td>`))}</tr>`)}</tbody></table></${Scroll}>
    ${found.length > MOST && !all && html`<p><button type="button" class="link-button" onClick=${() => setAll(true)}>Show all ${found.length}</button></p>`}`;
}
