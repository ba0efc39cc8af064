// Small parts that every page uses.
import { html } from '../html.js';
import { MISSING, number, short } from '../format.js';
import { useState } from '../../vendor/hooks.js';

/** @typedef {import('../types.js').Json} Json */

/** @param {{title: any, id?: string, aside?: any, children?: any, class?: string}} props */
export const Panel = ({ title, id, aside, children, class: className = '' }) => html`
  <section class=${`panel ${className}`} aria-labelledby=${id && `${id}-title`} id=${id}>
    <header class="panel-head"><h2 id=${id && `${id}-title`}>${title}</h2>${aside && html`<div class="panel-aside">${aside}</div>`}</header>
    ${children}
  </section>`;

/** @param {{title: string, children?: any}} props */
export const Empty = ({ title, children }) => html`<div class="empty"><p class="empty-title">${title}</p><p>${children}</p></div>`;

/** @param {{error: {message: string, status?: number}, what: string}} props */
export const Failure = ({ error, what }) => html`
  <div class="failure" role="alert"><strong>${what} could not be read.</strong> <span>${error.message}</span></div>`;

/** @param {{height?: number}} props */
export const Waiting = ({ height = 240 }) => html`<div class="waiting" style=${{ height: `${height}px` }} role="status"><span class="hidden">Loading</span></div>`;

/** @type {Record<string, string>} */
const TONES = {
  pass: 'good', passed: 'good', finished: 'good', succeeded: 'good', success: 'good', promoted: 'good', promote: 'good', ok: 'good', valid: 'good', completed: 'good',
  fail: 'bad', failed: 'bad', refused: 'bad', rolled_back: 'bad', roll_back: 'bad', rollback: 'bad', invalid: 'bad', quarantined: 'bad', error: 'bad', aborted: 'bad',
  inconclusive: 'warn', holding: 'warn', hold: 'warn', cancelled: 'warn', alert: 'warn', insufficient: 'warn', continue: 'info',
  running: 'info', canary: 'info', shadow: 'info', queued: 'quiet',
};

/** A state or verdict as a coloured word. @param {{value: unknown, tone?: string}} props */
export function Badge({ value, tone }) {
  const text = typeof value === 'boolean' ? (value ? 'passed' : 'failed') : String(value ?? MISSING);
  return html`<span class=${`badge ${tone ?? TONES[text.toLowerCase()] ?? 'quiet'}`}>${text.replaceAll('_', ' ')}</span>`;
}

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

/** A table that scrolls sideways where it does not fit. @param {{label: string, children?: any, class?: string}} props */
export const Scroll = ({ label, children, class: className = '' }) => html`<div class=${`scroll ${className}`} role="region" aria-label=${label} tabindex="0">${children}</div>`;
