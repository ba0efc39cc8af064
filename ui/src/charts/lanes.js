// The events beneath the timeline: one lane for each part of the loop, on the same time axis.
import { useRef, useState } from '../../vendor/hooks.js';
import { LANES, eventLink, kindOf } from '../events.js';
import { seconds, time } from '../format.js';
import { html } from '../html.js';
import { hideTip, tipAt } from '../parts/tip.js';
import { RIGHT, gutter, position, useWidth } from './layout.js';

/** @typedef {import('../types.js').TimelineEvent} TimelineEvent */
/** @typedef {{x: number, lane: number, events: TimelineEvent[]}} Marker */

const ROW = 24;
/** Markers of a lane that are closer than this become one, pixels. */
const CLOSE = 9;
const WEIGHT = { bad: 4, good: 3, warn: 2, info: 1, quiet: 0 };

/** @param {TimelineEvent[]} events oldest first @param {[number, number]} range @param {number} width @returns {Marker[]} */
export function markersOf(events, range, width) {
  /** @type {Marker[]} */
  const markers = [];
  /** @type {(Marker | undefined)[]} */
  const lastOf = [];
  for (const event of events) {
    const lane = LANES.indexOf(kindOf(event.kind).lane ?? '');
    const x = position(seconds(event.at), range, width);
    if (lane < 0 || !(x >= -0.5 && x <= width + 0.5)) continue;
    const last = lastOf[lane];
    if (last && x - last.x < CLOSE) {
      last.events.push(event);
      continue;
    }
    const marker = { x, lane, events: [event] };
    lastOf[lane] = marker;
    markers.push(marker);
  }
  return markers.sort((a, b) => a.x - b.x || a.lane - b.lane);
}

/** The event that a marker stands for: the weightiest, the last among equals. @param {Marker} marker */
function leading(marker) {
  return marker.events.reduce((best, event) => (WEIGHT[kindOf(event.kind).tone] >= WEIGHT[kindOf(best.kind).tone] ? event : best));
}

/** @param {{shape: string}} props */
function Glyph({ shape }) {
  switch (shape) {
    case 'triangle':
      return html`<path d="M0-5.5 5.5 4.5h-11z" />`;
    case 'diamond':
      return html`<path d="M0-6 6 0 0 6-6 0z" />`;
    case 'hollow':
      return html`<path class="outline" d="M0-5 5 0 0 5-5 0z" />`;
    case 'cross':
      return html`<path class="outline" d="M-4-4 4 4M4-4-4 4" />`;
    case 'tick':
      return html`<path class="outline" d="M0-5V5" />`;
    case 'flag':
      return html`<path d="M-6-1 0-7 6-1H2.5V6h-5V-1z" />`;
    default:
      return html`<circle r="4.5" />`;
  }
}

/** @param {{marker: Marker}} props */
const MarkerTip = ({ marker }) => html`
  ${marker.events.slice(-5).map((event) => html`<div class="tip-event"><strong class=${`tone-${kindOf(event.kind).tone}`}>${kindOf(event.kind).label}</strong>
    <span class="dim">${time(event.at)}</span><br />${event.text}</div>`)}
  ${marker.events.length > 5 && html`<div class="dim">and ${marker.events.length - 5} before</div>`}`;

/** @param {{events: TimelineEvent[], range: [number, number], endpoint: string, model: string | null}} props */
export function Lanes({ events, range, endpoint, model }) {
  const box = useRef(/** @type {HTMLDivElement | null} */ (null));
  const width = useWidth(box);
  const [active, setActive] = useState(0);
  const left = gutter(width);
  const plot = Math.max(0, width - left - RIGHT);
  const markers = plot > 0 ? markersOf(events, range, plot) : [];
  const tabbable = Math.min(active, markers.length - 1);

  /** @param {KeyboardEvent} event */
  const onKeyDown = (event) => {
    const steps = /** @type {Record<string, number>} */ ({ ArrowRight: tabbable + 1, ArrowLeft: tabbable - 1, Home: 0, End: markers.length - 1 });
    const next = steps[event.key];
    if (next === undefined || next < 0 || next >= markers.length) return;
    event.preventDefault();
    setActive(next);
    /** @type {Element} */ (event.currentTarget).querySelectorAll('a')[next]?.focus();
  };

  return html`<div class="lanes" ref=${box} style=${{ height: `${LANES.length * ROW}px` }}>
    <svg width=${width} height=${LANES.length * ROW} role="group" aria-label="Events on the timeline; arrow keys move between them" onKeyDown=${onKeyDown}>
      ${LANES.map((name, i) => html`<g key=${name} aria-hidden="true">
        <text x=${left - 10} y=${i * ROW + ROW / 2 + 4} text-anchor="end">${name}</text>
        <line x1=${left} x2=${left + plot} y1=${i * ROW + ROW / 2} y2=${i * ROW + ROW / 2} /></g>`)}
      ${markers.map((marker, i) => {
        const event = leading(marker);
        const kind = kindOf(event.kind);
        const show = (/** @type {Event} */ e) => tipAt(/** @type {Element} */ (e.currentTarget), html`<${MarkerTip} marker=${marker} />`);
        const more = marker.events.length > 1 ? ` and ${marker.events.length - 1} more` : '';
        return html`<a key=${event.seq} class=${`marker fill-${kind.tone}`} href=${eventLink(event, endpoint, model)} tabindex=${i === tabbable ? 0 : -1}
          transform=${`translate(${left + marker.x} ${marker.lane * ROW + ROW / 2})`} aria-label=${`${kind.label}, ${time(event.at)}: ${event.text}${more}`}
          onMouseEnter=${show} onMouseLeave=${hideTip} onFocus=${show} onBlur=${hideTip}>
          <rect class="hit" x="-9" y="-12" width="18" height="24" /><${Glyph} shape=${kind.shape} /></a>`;
      })}
    </svg></div>`;
}
