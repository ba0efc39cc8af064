// Drift at a glance: a row for each feature, a cell for each window, coloured against the threshold.
import { useEffect, useRef } from '../../vendor/hooks.js';
import { isNumber, metric, percent, seconds, time } from '../format.js';
import { html } from '../html.js';
import { colour, paint } from '../parts/theme.js';
import { hideTip, tip } from '../parts/tip.js';
import { route, withParams } from '../router.js';
import { RIGHT, gutter, position, useWidth } from './layout.js';
import { TimeChart } from './timechart.js';

/** @typedef {import('../types.js').DriftPoint} DriftPoint */
/** @typedef {import('../types.js').Timeline} Timeline */
/** @typedef {{name: string, highest: number, latest: number | null, over: number}} Feature */

const ROW = 20;
const STEPS = 12;
const SHOWN = 16;

/** A hex colour as three numbers. @param {string} hex */
const rgb = (hex) => [1, 3, 5].map((i) => Number.parseInt(hex.slice(i, i + 2), 16));

/** `STEPS` colours between two. @param {string} from @param {string} to */
function ramp(from, to) {
  const [a, b] = [rgb(from), rgb(to)];
  return Array.from({ length: STEPS }, (_, i) => `rgb(${a.map((low, c) => Math.round(low + ((b[c] - low) * i) / (STEPS - 1))).join(' ')})`);
}

/** The colour of a score: cool below the threshold, warm from it on. */
function palette() {
  const cool = ramp(colour('--heat-none'), colour('--heat-cool'));
  const hot = ramp(colour('--heat-warm'), colour('--heat-hot'));
  return (/** @type {number} */ ratio) => (ratio < 1 ? cool[Math.max(0, Math.floor(ratio * STEPS))] : hot[Math.min(STEPS - 1, Math.floor(((ratio - 1) / 2) * STEPS))]);
}

/** Features with what matters of their scores, the worst first. @param {DriftPoint[]} drift @param {number} threshold @returns {Feature[]} */
export function featuresOf(drift, threshold) {
  /** @type {Map<string, Feature>} */
  const found = new Map();
  for (const point of drift) {
    for (const [name, score] of Object.entries(point.features ?? {})) {
      const feature = found.get(name) ?? { name, highest: -Infinity, latest: null, over: 0 };
      if (isNumber(score)) {
        feature.highest = Math.max(feature.highest, score);
        feature.latest = score;
        if (score >= threshold) feature.over += 1;
      }
      found.set(name, feature);
    }
  }
  return [...found.values()].sort((a, b) => b.highest - a.highest || a.name.localeCompare(b.name));
}

/** Start and end of each window, seconds. @param {DriftPoint[]} drift @returns {[number, number][]} */
function windowsOf(drift) {
  const ends = drift.map((point) => seconds(point.until));
  const gaps = ends.slice(1).map((end, i) => end - (ends[i] ?? end)).sort((a, b) => a - b);
  const usual = gaps[Math.floor(gaps.length / 2)] ?? 7 * 86400;
  return ends.map((end, i) => [Math.max(end - usual, i > 0 ? ends[i - 1] ?? 0 : -Infinity), end]);
}

/** @param {{timeline: Timeline, range: [number, number], all?: boolean}} props */
export function DriftStrip({ timeline, range, all = false }) {
  const box = useRef(/** @type {HTMLDivElement | null} */ (null));
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const width = useWidth(box);
  const drift = timeline.drift;
  const threshold = timeline.drift_method?.[1] || 1;
  const chosen = route.value.params.get('feature');
  const every = featuresOf(drift, threshold);
  const features = every.filter((feature, i) => all || i < SHOWN || feature.name === chosen);
  const windows = windowsOf(drift);
  const left = gutter(width);
  const plot = Math.max(0, width - left - RIGHT);
  const height = features.length * ROW;
  const repaint = paint.value;

  useEffect(() => {
    const element = canvas.current;
    const ctx = element?.getContext('2d');
    if (!element || !ctx || plot === 0) return;
    const scale = devicePixelRatio;
    element.width = plot * scale;
    element.height = height * scale;
    ctx.scale(scale, scale);
    const paletteOf = palette();
    windows.forEach(([from, until], i) => {
      const x0 = Math.max(0, position(from, range, plot));
      const x1 = Math.min(plot, position(until, range, plot));
      if (x1 <= x0) return;
      const point = drift[i];
      const gap = x1 - x0 > 5 ? 1 : 0;
      features.forEach(({ name }, row) => {
        const score = point?.features?.[name];
        ctx.fillStyle = isNumber(score) ? paletteOf(score / threshold) : colour('--heat-missing');
        ctx.globalAlpha = point?.state === 'insufficient' ? 0.4 : 1;
        ctx.fillRect(x0, row * ROW + 1, Math.max(0.75, x1 - x0 - gap), ROW - 2);
      });
    });
  }, [drift, plot, range[0], range[1], repaint, features.length, chosen]);

  /** Which cell lies under the pointer. @param {MouseEvent} event */
  const cellAt = (event) => {
    const { left: x, top: y } = /** @type {Element} */ (event.currentTarget).getBoundingClientRect();
    const at = range[0] + ((event.clientX - x) / plot) * (range[1] - range[0]);
    const i = windows.findIndex(([from, until]) => at > from && at <= until);
    return { feature: features[Math.floor((event.clientY - y) / ROW)], point: drift[i] };
  };
  /** @param {MouseEvent} event */
  const onMove = (event) => {
    const { feature, point } = cellAt(event);
    if (!feature || !point) return hideTip();
    const score = point.features?.[feature.name];
    tip.value = {
      x: event.clientX,
      y: event.clientY - 4,
      body: html`<strong>${feature.name}</strong> ${metric(score, 3)} <span class="dim">threshold ${metric(threshold, 3)}</span><br />
        <span class="dim">window to ${time(point.until)} · ${percent(point.share)} of features over · ${point.state}</span>`,
    };
    return undefined;
  };
  /** @param {string} name */
  const urlOf = (name) => withParams({ feature: name === chosen ? null : name });

  return html`<div class="drift" ref=${box}>
    <div class="drift-grid">
      <ul class="drift-names" style=${{ width: `${left}px` }}>
        ${features.map((feature) => html`<li key=${feature.name} style=${{ height: `${ROW}px` }}>
          <a href=${urlOf(feature.name)} aria-current=${feature.name === chosen ? 'true' : undefined} title=${feature.name}
            aria-label=${`${feature.name}: latest ${metric(feature.latest, 3)}, highest ${metric(feature.highest, 3)}, over the threshold in ${feature.over} windows`}>${feature.name}</a></li>`)}
      </ul>
      <canvas ref=${canvas} aria-hidden="true" style=${{ width: `${plot}px`, height: `${height}px` }} onMouseMove=${onMove} onMouseLeave=${hideTip}
        onClick=${(/** @type {MouseEvent} */ event) => {
          const { feature } = cellAt(event);
          const anchor = feature && box.current?.querySelectorAll('a')[features.indexOf(feature)];
          if (anchor) anchor.click();
        }}></canvas>
    </div>
    ${features.length < every.length && html`<p class="note">The ${features.length} features that moved most, of ${every.length}. <a href=${withParams({ tab: 'drift' })}>Show all</a></p>`}
  </div>`;
}

export const DriftLegend = () => html`<span class="heat-legend"><span><i class="heat-bar cool" aria-hidden="true"></i> below threshold</span>
  <span><i class="heat-bar hot" aria-hidden="true"></i> at or above</span></span>`;

/** One feature's scores. @param {{timeline: Timeline, range: [number, number], feature: string}} props */
export function FeatureChart({ timeline, range, feature }) {
  const [method, threshold] = timeline.drift_method ?? ['score', 0];
  const x = timeline.drift.map((point) => seconds(point.until));
  const values = timeline.drift.map((point) => point.features?.[feature] ?? null);
  const known = values.filter(isNumber);
  return html`<div class="feature-chart" id="feature">
    <div class="feature-head"><h3>${feature}</h3> <span class="dim">${method} by window, threshold ${metric(threshold, 3)}, highest ${known.length ? metric(Math.max(...known), 3) : '–'}</span>
      <a class="close" href=${withParams({ feature: null })}>Close</a></div>
    ${known.length === 0
      ? html`<p class="note">No window holds a score of <code>${feature}</code>.</p>`
      : html`<${TimeChart} label=${`${method} of ${feature} over time`} x=${x} lines=${[{ values, colour: '--series-drift' }]} range=${range} height=${180} zero
          threshold=${{ at: threshold, label: 'threshold' }}
          describe=${(/** @type {number} */ i) => html`<strong>${metric(values[i], 3)}</strong> <span class="dim">window to ${time(timeline.drift[i]?.until)}</span>`} />`}
  </div>`;
}
