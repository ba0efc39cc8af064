// Dialogs, tags and buttons of the tracking pages.
import { useEffect, useRef, useState } from '../../vendor/preact.js';
import { html } from '../ui.js';
import { ownTags } from './api.js';

/** @typedef {import('./types.js').Tag} Tag */

/** A dialog above the page; Escape closes it, and the focus goes back to where it was. @param {{title: string, onClose: () => void, children?: any}} props */
export function Dialog({ title, onClose, children }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => {
    const before = document.activeElement;
    dialog.current?.showModal();
    return () => before instanceof HTMLElement && before.focus();
  }, []);
  return html`<dialog class="dialog" ref=${dialog} aria-label=${title} onClose=${onClose} onClick=${(/** @type {MouseEvent} */ e) => e.target === dialog.current && dialog.current?.close()}>
    <div class="dialog-body"><header><h2>${title}</h2><button type="button" class="quiet-button" aria-label="Close" onClick=${() => dialog.current?.close()}>✕</button></header>${children}</div></dialog>`;
}

/**
 * A form that tells the server something, and shows what the server says against it.
 * @param {{submit: (fields: Record<string, string>) => Promise<unknown>, done: () => void, action: string, danger?: boolean, children?: any}} props
 */
export function Form({ submit, done, action, danger = false, children }) {
  const [state, setState] = useState({ busy: false, error: '' });
  /** @param {SubmitEvent} event */
  const onSubmit = async (event) => {
    event.preventDefault();
    const form = /** @type {HTMLFormElement} */ (event.currentTarget);
    setState({ busy: true, error: '' });
    try {
      await submit(/** @type {Record<string, string>} */ (Object.fromEntries(new FormData(form))));
      setState({ busy: false, error: '' });
      form.reset();
      done();
    } catch (error) {
      setState({ busy: false, error: /** @type {Error} */ (error).message });
    }
  };
  return html`<form class="form" onSubmit=${onSubmit}>${children}
    ${state.error && html`<p class="field-error" role="alert">${state.error}</p>`}
    <p><button type="submit" class=${danger ? 'button danger' : 'button primary'} disabled=${state.busy}>${action}</button></p></form>`;
}

/** @param {{label: string, name: string, value?: string, required?: boolean, type?: string, autofocus?: boolean, hint?: string}} props */
export const Field = ({ label, name, value = '', required = false, type = 'text', autofocus = false, hint }) => html`
  <label class="field"><span>${label}</span>${type === 'area'
    ? html`<textarea name=${name} rows="4" required=${required} autofocus=${autofocus}>${value}</textarea>`
    : html`<input name=${name} type=${type} defaultValue=${value} required=${required} autofocus=${autofocus} autocomplete="off" spellcheck=${false} />`}
    ${hint && html`<small class="dim">${hint}</small>`}</label>`;

/** @param {{tags: Tag[] | undefined, most?: number}} props */
export function Chips({ tags, most = 4 }) {
  const own = ownTags(tags);
  return own.length === 0 ? null : html`<span class="chips">${own.slice(0, most).map(({ key, value }) => html`<span class="chip" key=${key} title=${`${key}: ${value}`}>${key}${value && html`: <b>${value}</b>`}</span>`)}${own.length > most && html`<span class="dim">and ${own.length - most} more</span>`}</span>`;
}

/** Tags that can be set and taken away. @param {{tags: Tag[] | undefined, set: (key: string, value: string) => Promise<unknown>, remove: (key: string) => Promise<unknown>, changed: () => void}} props */
export function TagEditor({ tags, set, remove, changed }) {
  const [error, setError] = useState('');
  const own = ownTags(tags);
  /** @param {string} key */
  const take = async (key) => {
    try {
      await remove(key);
      changed();
    } catch (failed) {
      setError(/** @type {Error} */ (failed).message);
    }
  };
  return html`<div class="tag-editor">
    ${own.length === 0 ? html`<p class="note">No tags yet.</p>` : html`<ul class="tag-list">${own.map(({ key, value }) => html`<li class="chip" key=${key}><span>${key}${value && html`: <b>${value}</b>`}</span>
      <button type="button" class="quiet-button" aria-label=${`Remove the tag ${key}`} onClick=${() => take(key)}>✕</button></li>`)}</ul>`}
    ${error && html`<p class="field-error" role="alert">${error}</p>`}
    <details class="adder"><summary>Add or change a tag</summary>
      <${Form} submit=${(/** @type {any} */ f) => set(f.key.trim(), f.value)} done=${changed} action="Set tag"><div class="field-row"><${Field} label="Key" name="key" required /><${Field} label="Value" name="value" /></div></${Form}></details>
  </div>`;
}

/** One of several views of the same thing, by links. @param {{label: string, tabs: [string, string][], current: string, link: (tab: string) => string}} props */
export const Tabs = ({ label, tabs, current, link }) => html`<nav class="tabs" aria-label=${label}>${tabs.map(([id, text]) => html`<a key=${id} href=${link(id)} aria-current=${id === current ? 'page' : undefined}>${text}</a>`)}</nav>`;

/** Where one is. @param {{steps: [string, string][]}} props text and URL */
export const Crumbs = ({ steps }) => html`<nav class="crumbs" aria-label="Where you are">${steps.map(([text, url], i) => html`<span key=${url}>${i > 0 && html` <span class="dim" aria-hidden="true">/</span> `}<a href=${url}>${text}</a></span>`)}</nav>`;

/** A head of a column that sorts. @param {{label: any, by: string | null, order: {by: string, descending: boolean}, sort: (by: string, descending: boolean) => void, class?: string}} props */
export function SortHead({ label, by, order, sort, class: className = '' }) {
  if (by === null) return html`<th scope="col" class=${className}>${label}</th>`;
  const here = order.by === by;
  return html`<th scope="col" class=${className} aria-sort=${here ? (order.descending ? 'descending' : 'ascending') : 'none'}>
    <button type="button" class="sort" onClick=${() => sort(by, here ? !order.descending : true)}>${label}<span aria-hidden="true">${here ? (order.descending ? ' ↓' : ' ↑') : ''}</span></button></th>`;
}
