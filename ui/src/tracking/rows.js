// The rows of a table in a file, a page at a time; the server sorts and filters.
import { useRef } from '../../vendor/preact.js';
import { ask, count, isNumber, route, setParams, withParams } from '../client.js';
import { html, Scroll, Waiting } from '../ui.js';
import { query, useLoad } from './api.js';

const PAGE = 100;
/** Of a text in a cell as much is shown. */
const LONGEST = 300;
/** As many rows are downloaded at most. */
const MOST = 1_000_000;
const NUMBERS = ['integer', 'float'];

/** @typedef {{name: string, type: string, title?: string}} Column */
/** @typedef {{columns: Column[], rows: any[][], offset: number, next_offset: number | null, total: number, more: boolean}} Answer */

/** @param {{value: any}} props */
function Cell({ value }) {
  if (value === null) return html`<span class="dim" title="no value">–</span>`;
  const text = String(value);
  return text.length > LONGEST ? html`<span title=${`${count(text.length)} characters`}>${text.slice(0, LONGEST)}…</span>` : text;
}

/** @param {{column: Column, by: string}} props */
function Head({ column, by }) {
  const { name, type, title } = column;
  const way = by === `${name} ASC` ? 'ascending' : by === `${name} DESC` ? 'descending' : 'none';
  const next = way === 'none' ? `${name} ASC` : way === 'ascending' ? `${name} DESC` : null;
  return html`<th scope="col" aria-sort=${way} class=${NUMBERS.includes(type) ? 'num' : ''}><button type="button" class="sort" title=${title === undefined ? type : `${type}; the file calls it “${title}”`} onClick=${() => setParams({ by: next, at: null })}><span>${name}</span><span aria-hidden="true">${way === 'none' ? '' : way === 'ascending' ? ' ▲' : ' ▼'}</span></button></th>`;
}

/** @param {{url: string}} props where the server gives rows of the file */
export function Rows({ url }) {
  const { params } = route.value;
  const [where, by, at] = [params.get('where') ?? '', params.get('by') ?? '', Math.max(0, Number(params.get('at')) || 0)];
  const asked = `${url}&${query({ filter: where, order_by: by })}`;
  const { data, error } = useLoad(`${asked}&offset=${at}`, (signal) => /** @type {Promise<Answer>} */ (ask(`${asked}&offset=${at}&limit=${PAGE}`, { signal })));
  const before = useRef(/** @type {Answer | null} */ (null));
  if (data) before.current = data;
  const shown = data ?? before.current;
  /** @param {SubmitEvent} event */
  const filter = (event) => {
    event.preventDefault();
    setParams({ where: String(new FormData(/** @type {HTMLFormElement} */ (event.currentTarget)).get('where')).trim() || null, at: null });
  };
  const end = shown ? shown.offset + shown.rows.length : 0;
  return html`<form class="toolbar" role="search" onSubmit=${filter}>
      <label class="grow"><span class="hidden">Show only rows for which this is true</span><input class="input" type="search" name="where" key=${where} defaultValue=${where} placeholder="score > 0.5 AND label = 'cat'" autocomplete="off" spellcheck=${false} /></label><button type="submit" class="button">Filter</button>
      <a class="button" href=${`${asked}&${query({ limit: MOST, format: 'parquet' })}`} download="rows.parquet">These rows as Parquet</a></form>
    ${error && html`<p class="field-error" role="alert">${error.message}</p>`}
    ${!shown ? !error && html`<${Waiting} height=${240} />` : html`<p class="note" role="status">${shown.rows.length === 0 ? `No row of ${count(shown.total)}` : `Rows ${count(shown.offset + 1)} to ${count(end)} of ${count(shown.total)}`}${where && ' that match'}, ${count(shown.columns.length)} columns.</p>
    <${Scroll} label="Rows" class="tall"><table><thead><tr>${shown.columns.map((column) => html`<${Head} key=${column.name} column=${column} by=${by} />`)}</tr></thead>
      <tbody>${shown.rows.map((row, i) => html`<tr key=${shown.offset + i}>${row.map((value, j) => html`<td key=${j} class=${NUMBERS.includes(shown.columns[j]?.type ?? '') ? 'num' : ''}><${Cell} value=${value} /></td>`)}</tr>`)}</tbody></table></${Scroll}>
    <nav class="toolbar" aria-label="Pages of rows">${at > 0 && html`<a class="button" href=${withParams({ at: at > PAGE ? String(at - PAGE) : null })}>Before</a>`}${isNumber(shown.next_offset) && html`<a class="button" href=${withParams({ at: String(shown.next_offset) })}>After</a>`}</nav>`}`;
}
