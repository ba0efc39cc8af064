// A look into a file, without trusting it: text is text, and HTML runs no script.
import { useEffect, useState } from '../../vendor/preact.js';
import { count } from '../client.js';
import { Failure, html, Later, Scroll, Waiting } from '../ui.js';
import { size, useLoad } from './api.js';

/** As much is read of a file to show it. */
const MOST = 2_000_000;
const ROWS = 500;
const CHILDREN = 200;

const KINDS = /** @type {[RegExp, string][]} */ ([
  [/\.(parquet|pq)$|\.table\.json$/i, 'rows'],
  [/\.(png|jpe?g|gif|webp|bmp|svg|avif|ico)$/i, 'image'], [/\.(json|ipynb|geojson)$/i, 'json'], [/\.(csv|tsv)$/i, 'table'], [/\.html?$/i, 'html'],
  [/\.(arrow|feather|pkl|pickle|joblib|npy|npz|pt|pth|onnx|h5|keras|bin|zip|gz|tar|tgz|bz2|xz|zst|so|whl|pdf|mp4|webm|mp3|wav|safetensors|ubj|model)$/i, 'binary'],
]);

/** @param {string} path */
export const kindOf = (path) => KINDS.find(([pattern]) => pattern.test(path))?.[1] ?? 'text';

const RowsOfFile = () => import('./rows.js').then((module) => module.Rows);

/** The beginning of a file. @param {string} url @param {AbortSignal} signal @returns {Promise<{text: string, cut: boolean, binary: boolean, policy: string, inline: boolean}>} */
async function load(url, signal) {
  const response = await fetch(url, { signal });
  if (!response.ok || !response.body) {
    const said = await response.json().catch(() => null);
    throw new Error(said?.message ?? `the server answered ${response.status}`);
  }
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let [text, read, cut] = ['', 0, false];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    read += value.length;
    text += decoder.decode(value, { stream: true });
    if (read > MOST) {
      cut = true;
      await reader.cancel();
      break;
    }
  }
  return { text, cut, binary: text.slice(0, 4000).includes('\0'), policy: response.headers.get('content-security-policy') ?? '', inline: !/attachment/i.test(response.headers.get('content-disposition') ?? '') };
}

/** Lines of fields: RFC 4180's quotes, and as many rows as are shown. @param {string} text @param {string} separator @param {number} most @returns {string[][]} */
export function table(text, separator, most) {
  /** @type {string[][]} */
  const rows = [];
  let row = /** @type {string[]} */ ([]);
  let [field, quoted] = ['', false];
  for (let i = 0; i < text.length && rows.length < most; i += 1) {
    const c = text[i];
    if (quoted) {
      if (c !== '"') field += c;
      else if (text[i + 1] === '"') {
        field += '"';
        i += 1;
      } else quoted = false;
    } else if (c === '"' && field === '') quoted = true;
    else if (c === separator) {
      row.push(field);
      field = '';
    } else if (c === '\n') {
      rows.push([...row, field.replace(/\r$/, '')]);
      [row, field] = [[], ''];
    } else field += c;
  }
  if (rows.length < most && (field !== '' || row.length > 0)) rows.push([...row, field]);
  return rows;
}

/** @param {{text: string, separator: string, cut: boolean, rows: string | null}} props */
function Table({ text, separator, cut, rows: asked }) {
  const [all, setAll] = useState(cut);
  if (all && asked) return html`<${Later} of=${RowsOfFile} url=${asked} />`;
  const [head = [], ...rows] = table(text, separator, ROWS + 2);
  const more = cut || rows.length > ROWS;
  const shown = rows.slice(0, ROWS);
  const numeric = head.map((_, i) => shown.length > 0 && shown.every((row) => row[i] === undefined || row[i] === '' || Number.isFinite(Number(row[i]))));
  return html`<p class="note">${more ? `The first ${count(shown.length)} rows` : `${count(shown.length)} rows`}, ${count(head.length)} columns.${asked && html` <button type="button" class="link-button" onClick=${() => setAll(true)}>All rows, sorted and filtered</button>`}</p>
    <${Scroll} label="Rows" class="tall"><table><thead><tr>${head.map((name, i) => html`<th scope="col" key=${i} class=${numeric[i] ? 'num' : ''}>${name}</th>`)}</tr></thead>
      <tbody>${shown.map((row, i) => html`<tr key=${i}>${head.map((_, j) => html`<td key=${j} class=${numeric[j] ? 'num' : ''}>${row[j] ?? ''}</td>`)}</tr>`)}</tbody></table></${Scroll}>`;
}

/** A value of JSON; objects and lists fold, and what is folded is not in the document. @param {{name: string | null, value: any, depth: number}} props @returns {any} */
function Json({ name, value, depth }) {
  const [open, setOpen] = useState(depth < 2);
  const [most, setMost] = useState(CHILDREN);
  const label = name === null ? '' : html`<span class="json-key">${name}</span>: `;
  if (value === null || typeof value !== 'object') return html`<div class="json-line">${label}<span class=${`json-${value === null ? 'null' : typeof value}`}>${JSON.stringify(value)}</span></div>`;
  const entries = Object.entries(value);
  const [left, right] = Array.isArray(value) ? ['[', ']'] : ['{', '}'];
  if (entries.length === 0) return html`<div class="json-line">${label}${left}${right}</div>`;
  return html`<div class="json-line"><button type="button" class="folder" aria-expanded=${open} aria-label=${`${name ?? 'all'}, ${entries.length} entries`} onClick=${() => setOpen(!open)}><span aria-hidden="true">${open ? '▾' : '▸'}</span></button>${label}${left}${!open && html`<span class="dim"> ${count(entries.length)} </span>${right}`}
    ${open && html`<div class="json-inside">${entries.slice(0, most).map(([key, inner]) => html`<${Json} key=${key} name=${Array.isArray(value) ? null : key} value=${inner} depth=${depth + 1} />`)}
      ${entries.length > most && html`<button type="button" class="link-button" onClick=${() => setMost(most + CHILDREN * 5)}>and ${count(entries.length - most)} more</button>`}</div>${right}`}</div>`;
}

/** HTML in a frame of its own origin that may do nothing. @param {{url: string, found: {text: string, policy: string, inline: boolean}}} props */
function Page({ url, found }) {
  // Where the server says itself that nothing in the file may run, the file is shown as it is; else by this page's own policy.
  const served = found.inline && /(^|;)\s*sandbox\s*(;|$)/.test(found.policy);
  return html`<p class="note">${served ? 'Shown without scripts.' : 'Shown without scripts, and without styles and images of its own: download it to see it in full.'}</p>
    ${served ? html`<iframe sandbox="" src=${url} title="The file, as a page" referrerpolicy="no-referrer"></iframe>` : html`<iframe sandbox="" srcdoc=${plain(found.text)} title="The file, as a page" referrerpolicy="no-referrer"></iframe>`}`;
}

/** The page without what the policy refuses anyway: else each refusal is an error in the console. @param {string} text */
function plain(text) {
  const unstyled = text.replace(/<style[\s\S]*?(<\/style>|$)/gi, '').replace(/\sstyle\s*=\s*("[^"]*"|'[^']*'|[^\s>]+)/gi, '');
  const page = new DOMParser().parseFromString(unstyled, 'text/html');
  for (const element of page.querySelectorAll('script, style, link, iframe, object, embed, meta, base')) element.remove();
  for (const element of page.querySelectorAll('*')) {
    for (const { name, value } of [...element.attributes]) {
      if (/^on|^style$|^srcset$|^action$|^formaction$/i.test(name) || (/^(src|href|xlink:href|data|poster|background)$/i.test(name) && !value.startsWith('#'))) element.removeAttribute(name);
    }
  }
  return page.documentElement.outerHTML;
}

/** @param {{kind: string, path: string, url: string, rows: string | null, found: {text: string, cut: boolean, binary: boolean, policy: string, inline: boolean}}} props */
function Text({ kind, path, url, rows, found }) {
  if (found.binary) return html`<p class="note">This is no text. Download it to look at it.</p>`;
  if (kind === 'html') return html`<${Page} url=${url} found=${found} />`;
  if (kind === 'table') return html`<${Table} text=${found.text} separator=${/\.tsv$/i.test(path) ? '\t' : ','} cut=${found.cut} rows=${rows} />`;
  // As MLflow's client logs a table.
  if (kind === 'json' && rows && /^\s*\{\s*"columns"\s*:\s*\[/.test(found.text)) return html`<${Later} of=${RowsOfFile} url=${rows} />`;
  if (kind === 'json' && !found.cut) {
    try {
      return html`<div class="json" tabindex="0" role="region" aria-label="JSON"><${Json} name=${null} value=${JSON.parse(found.text)} depth=${0} /></div>`;
    } catch (error) {
      return html`<p class="note">Not valid JSON: ${/** @type {Error} */ (error).message}.</p><pre class="file" tabindex="0">${found.text}</pre>`;
    }
  }
  return html`${found.cut && html`<p class="note">The first ${size(MOST)}.</p>`}<pre class="file" tabindex="0">${found.text}</pre>`;
}

/** @param {{url: string, path: string, rows?: string | null}} props `rows`: where the server gives rows of the file, if it is a table */
export function Preview({ url, path, rows = null }) {
  const kind = kindOf(path);
  const reads = kind !== 'image' && kind !== 'binary' && kind !== 'rows';
  const { data, error } = useLoad(reads ? url : null, (signal) => load(url, signal));
  const [broken, setBroken] = useState(false);
  useEffect(() => setBroken(false), [url]);
  const name = path.split('/').at(-1);
  return html`<header class="panel-head"><h2>${name}</h2><div class="panel-aside"><a class="button" href=${url.replace(/[?&]inline=true/, '')} download=${name}>Download</a></div></header>
    ${(kind === 'binary' || (kind === 'rows' && !rows)) && html`<p class="note">A file of this kind is not shown here. Download it to look at it.</p>`}
    ${kind === 'rows' && rows && html`<${Later} of=${RowsOfFile} url=${rows} />`}
    ${kind === 'image' && (broken ? html`<p class="note">This is no image that the browser understands.</p>` : html`<img class="picture" src=${url} alt=${name} onError=${() => setBroken(true)} />`)}
    ${reads && (error ? html`<${Failure} error=${error} what="The file" />` : data ? html`<${Text} kind=${kind} path=${path} url=${url} rows=${rows} found=${data} />` : html`<${Waiting} height=${240} />`)}`;
}
