// Any record of the API as readable facts: for the pages of one thing.
import { useState } from '../vendor/preact.js';
import { MISSING, number, short } from './client.js';
import { html } from './ui.js';

/** @typedef {import('./types.js').Json} Json */

// Whoever imports this module gets its style sheet with it, before anything is drawn.
await new Promise((done) => {
  const sheet = Object.assign(document.createElement('link'), { rel: 'stylesheet', href: '/records.css', onload: done, onerror: done });
  document.head.append(sheet);
});

/** An id, shortened, that copies itself. @param {{value: unknown}} props */
export function Id({ value }) {
  const [copied, setCopied] = useState(false);
  if (typeof value !== 'string') return html`<span>${MISSING}</span>`;
  const copy = () => {
    navigator.clipboard?.writeText(value).then(() => {
      setCopied(true);
      setTimeout(() => setCopied(false), 1200);
    }, () => {});
  };
  return html`<button type="button" class="id" title=${`${value} – click to copy`} onClick=${copy}>${copied ? 'copied' : short(value)}</button>`;
}

const DIGEST = /^((sha256|blake3):)?[0-9a-f]{24,}$/;

/** Any value of the API as one readable thing. @param {{value: any, depth?: number}} props @returns {any} */
export function Value({ value, depth = 0 }) {
  if (value === null || value === undefined || value === '') return html`<span class="dim">${MISSING}</span>`;
  if (typeof value === 'number') return html`<span class="num">${number(value)}</span>`;
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (typeof value === 'string') {
    if (DIGEST.test(value)) return html`<${Id} value=${value} />`;
    if (/^\d{4}-\d\d-\d\dT\d\d:\d\d/.test(value)) return html`<time datetime=${value}>${value.slice(0, 16).replace('T', ' ')}</time>`;
    return value;
  }
  if (Array.isArray(value) && value.every((v) => v === null || typeof v !== 'object')) return value.length ? value.map((v) => (typeof v === 'number' ? number(v) : String(v))).join(', ') : html`<span class="dim">none</span>`;
  if (depth >= 2) return html`<code>${JSON.stringify(value)}</code>`;
  if (Array.isArray(value)) return html`<ul class="plain">${value.map((v) => html`<li><${Value} value=${v} depth=${depth + 1} /></li>`)}</ul>`;
  return html`<${Facts} of=${value} depth=${depth + 1} />`;
}

/** Names and values of an object. @param {{of: Json | null | undefined, skip?: string[], depth?: number}} props @returns {any} */
export function Facts({ of, skip = [], depth = 0 }) {
  const rows = Object.entries(of ?? {}).filter(([name]) => !skip.includes(name));
  if (rows.length === 0) return html`<span class="dim">none</span>`;
  return html`<dl class="facts">${rows.map(([name, value]) => html`<div><dt>${name.replaceAll('_', ' ')}</dt><dd><${Value} value=${value} depth=${depth} /></dd></div>`)}</dl>`;
}

/** The API's answer as it came. @param {{value: any, label?: string}} props */
export const Raw = ({ value, label = 'Raw JSON' }) => html`<details class="raw"><summary>${label}</summary><pre tabindex="0">${JSON.stringify(value, null, 2)}</pre></details>`;

/** `{a: 1}` or `[{key: 'a', value: 1}]` as pairs. @param {any} from @returns {[string, any][]} */
export function pairs(from) {
  if (Array.isArray(from)) return from.map((row, i) => [String(row?.key ?? row?.name ?? i), row?.value ?? row]);
  return from && typeof from === 'object' ? Object.entries(from) : [];
}

