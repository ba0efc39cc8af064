// The list of events, newest first, as they come.
import { eventLink, kindOf } from '../events.js';
import { time } from '../format.js';
import { html } from '../html.js';
import { route, setParams, withParams } from '../router.js';
import { Empty } from './ui.js';

/** @typedef {import('../types.js').TimelineEvent} TimelineEvent */

const PAGE = 100;

/** @param {{events: TimelineEvent[], endpoint: string, model: string | null, limit?: number | null}} props events oldest first */
export function EventList({ events, endpoint, model, limit = null }) {
  const { params } = route.value;
  const kind = params.get('kind');
  const subject = params.get('subject');
  const kinds = [...new Set(events.map((event) => event.kind))].sort();
  if (kind && !kinds.includes(kind)) kinds.push(kind);
  const matching = events.filter((event) => (!kind || event.kind === kind) && (!subject || event.subject?.join(':') === subject)).reverse();
  const asked = Number(params.get('show')) || PAGE;
  const most = limit ?? asked;
  const shown = matching.slice(0, most);
  return html`<div class="events">
    <div class="events-filter"><label for="kind">Kind</label>
      <select id="kind" value=${kind ?? ''} onChange=${(/** @type {Event} */ e) => setParams({ kind: /** @type {HTMLSelectElement} */ (e.currentTarget).value || null }, true)}>
        <option value="" selected=${!kind}>All events (${events.length})</option>
        ${kinds.map((k) => html`<option key=${k} value=${k} selected=${k === kind}>${kindOf(k).label} (${events.filter((event) => event.kind === k).length})</option>`)}
      </select>
      ${subject && html`<a class="chip" href=${withParams({ subject: null })} aria-label="Show all subjects again">${subject.replace(':', ' ')} ✕</a>`}</div>
    ${shown.length === 0
      ? html`<${Empty} title=${events.length ? 'No event matches' : 'Nothing has happened yet'}>${events.length
          ? html`<a href=${withParams({ kind: null, subject: null })}>Show all events</a>`
          : html`Alerts, runs, gates and rollouts appear here by themselves. A trigger in <code>tidemill.yaml</code> starts the first one.`}</${Empty}>`
      : html`<ol class="event-list" reversed>${shown.map((event) => {
          const { label, tone } = kindOf(event.kind);
          return html`<li key=${event.seq} data-seq=${event.seq}><a href=${eventLink(event, endpoint, model)}><i class=${`dot fill-${tone}`} aria-hidden="true"></i>
            <span class="event-head"><strong>${label}</strong><time datetime=${event.at}>${time(event.at)}</time></span><span class="event-text">${event.text}</span></a></li>`;
        })}</ol>`}
    ${matching.length > shown.length && html`<p class="note"><a href=${limit === null ? withParams({ show: String(asked + PAGE) }) : withParams({ tab: 'events' })}>${matching.length - shown.length} earlier events</a></p>`}
  </div>`;
}
