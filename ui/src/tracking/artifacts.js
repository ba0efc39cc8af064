// Artifacts: a tree of folders, opened as one goes, and a preview of the file that was chosen.
import { useState } from '../../vendor/preact.js';
import { route, withParams } from '../client.js';
import { Empty, html } from '../ui.js';
import { size, useLoad } from './api.js';
import { Preview } from './preview.js';

/** @typedef {import('./types.js').Store} Store */
/** @typedef {import('./types.js').File} File */

const nameOf = (/** @type {string} */ path) => path.split('/').at(-1) ?? path;

/** @param {{store: Store, file: File, chosen: string}} props */
function Entry({ store, file, chosen }) {
  const [open, setOpen] = useState(chosen === file.path || chosen.startsWith(`${file.path}/`));
  const from = store.name === 'run' ? null : store.name;
  if (!file.is_dir) {
    return html`<li><a href=${withParams({ path: file.path, from, where: null, by: null, at: null })} aria-current=${chosen === file.path ? 'true' : undefined}><span>${nameOf(file.path)}</span> <small class="dim">${size(file.file_size ?? 0)}</small></a></li>`;
  }
  return html`<li><button type="button" class="folder" aria-expanded=${open} onClick=${() => setOpen(!open)}><span aria-hidden="true">${open ? '▾' : '▸'}</span> ${nameOf(file.path)}</button>
    ${open && html`<${Folder} store=${store} path=${file.path} chosen=${chosen} />`}</li>`;
}

/** @param {{store: Store, path: string, chosen: string, none?: any}} props */
function Folder({ store, path, chosen, none }) {
  const { data, error } = useLoad(`${store.name}\n${path}`, () => store.list(path));
  if (error) return html`<p class="field-error" role="alert">${error.message}</p>`;
  if (!data) return html`<p class="note" role="status">Loading…</p>`;
  if (data.length === 0) return none ?? html`<p class="note">Empty.</p>`;
  const sorted = [...data].sort((a, b) => Number(b.is_dir ?? false) - Number(a.is_dir ?? false) || a.path.localeCompare(b.path));
  return html`<ul class="tree">${sorted.map((file) => html`<${Entry} key=${file.path} store=${store} file=${file} chosen=${chosen} />`)}</ul>`;
}

/** @param {{stores: Store[]}} props */
export function Artifacts({ stores }) {
  const { params } = route.value;
  const from = params.get('from') ?? 'run';
  const path = params.get('path') ?? '';
  const store = stores.find((one) => one.name === from) ?? stores[0];
  return html`<div class="artifacts"><nav class="panel" aria-label="Files">
      ${stores.map((one) => html`<div key=${one.name}>${stores.length > 1 && html`<h3>${one.name === 'run' ? 'Run' : html`Model <code>${one.name.slice(0, 10)}</code>`}</h3>`}
        <${Folder} store=${one} path="" chosen=${one === store ? path : ''} none=${html`<p class="note">No file here. <code>mlflow.log_artifact("report.html")</code> puts one.</p>`} /></div>`)}</nav>
    <section class="panel preview" aria-label="Preview">${path && store ? html`<${Preview} key=${`${store.name}${path}`} url=${store.url(path)} rows=${store.rows(path)} path=${path} />` : html`<${Empty} title="No file chosen">Choose one to look at it here: text, JSON, tables, images and HTML are shown, anything can be downloaded.</${Empty}>`}</section></div>`;
}
