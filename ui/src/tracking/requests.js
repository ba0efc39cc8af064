// Requests that a version gets an alias or a stage: asking, approving, refusing.
import { useState } from '../../vendor/preact.js';
import { ask, get, time } from '../client.js';
import { Badge, html, Panel } from '../ui.js';
import { useLoad } from './api.js';
import { Dialog, Field, Form } from './parts.js';

/** @typedef {{id: number, kind: string, target: string, why: string, requested_by: string, requested_at: any, state: string, decided_by?: string, decided_at?: any, comment?: string}} Request */

const TONES = /** @type {Record<string, string>} */ ({ open: 'info', approved: 'good', rejected: 'bad' });

/** @param {string} path below `/api/v1` @param {object} body */
const post = (path, body) => ask(`/api/v1${path}`, { method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json' } });

/** @param {{model: import('./versions.js').Model, version: import('./versions.js').Version, stages: string[], again: () => void}} props */
export function Requests({ model, version, stages, again }) {
  const here = `/models/${encodeURIComponent(model.name)}/versions/${version.number}/requests`;
  const { data, error, again: reload } = useLoad(here, () => get(here));
  const [asked, setAsked] = useState(/** @type {{kind: 'ask' | 'approve' | 'reject', of?: Request} | null} */ (null));
  const close = () => setAsked(null);
  const done = () => {
    close();
    reload();
    again();
  };
  // A server without requests has nothing to show here.
  if (error) return null;
  const found = /** @type {Request[]} */ ([...(data?.items ?? [])].reverse());
  return html`<${Panel} title="Approvals" id="requests" aside=${html`<button type="button" class="link-button" onClick=${() => setAsked({ kind: 'ask' })}>Ask for a move</button>`}>
    <p class="note">${model.needsApproval ? html`Aliases and stages of this model move only when somebody else approves.` : html`Nobody has to approve moves of this model; its tag <code>tidemill.approval</code> set to <code>required</code> changes that.`}</p>
    ${found.length > 0 && html`<ol class="several">${found.map((r) => html`<li key=${r.id}><p><${Badge} value=${r.state} tone=${TONES[r.state]} /> ${r.kind} <strong>${r.target}</strong> <span class="dim">${time(r.requested_at)}, ${r.requested_by || 'anonymous'}</span></p><p>${r.why}</p>
      ${r.state === 'open' ? html`<p><button type="button" class="link-button" aria-label=${`Approve request ${r.id}`} onClick=${() => setAsked({ kind: 'approve', of: r })}>Approve</button> · <button type="button" class="link-button" aria-label=${`Refuse request ${r.id}`} onClick=${() => setAsked({ kind: 'reject', of: r })}>Refuse</button></p>`
        : html`<p class="dim">${r.decided_by || 'anonymous'}, ${time(r.decided_at)}${r.comment ? `: ${r.comment}` : ''}</p>`}</li>`)}</ol>`}
    ${asked?.kind === 'ask' && html`<${Dialog} title=${`Ask for a move of version ${version.number}`} onClose=${close}><${Form} action="Ask" done=${done} submit=${(/** @type {any} */ f) => post(here, { to: f.kind === 'alias' ? { alias: f.alias.trim() } : { stage: f.kind }, why: f.why })}>
      <label class="field"><span>What it is to get</span><select name="kind" class="input"><option value="alias">the alias below</option>${stages.map((stage) => html`<option key=${stage} value=${stage}>stage ${stage}</option>`)}</select></label>
      <${Field} label="Alias" name="alias" value="champion" /><${Field} label="Why" name="why" required autofocus /></${Form}></${Dialog}>`}
    ${asked?.of && html`<${Dialog} title=${`${asked.kind === 'approve' ? 'Approve' : 'Refuse'}: ${asked.of.kind} ${asked.of.target}`} onClose=${close}><p>${asked.of.why}</p><${Form} action=${asked.kind === 'approve' ? 'Approve' : 'Refuse'} danger=${asked.kind === 'reject'} done=${done} submit=${(/** @type {any} */ f) => post(`${here}/${asked.of?.id}/${asked.kind}`, { comment: f.comment })}>
      <${Field} label="Comment" name="comment" autofocus /></${Form}></${Dialog}>`}</${Panel}>`;
}
