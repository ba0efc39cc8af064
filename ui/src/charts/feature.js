// One feature's drift scores over time; loaded when a feature is chosen.
import { TimeChart } from '../charts.js';
import { isNumber, metric, seconds, time, withParams } from '../client.js';
import { html } from '../ui.js';

/** @typedef {import('../types.js').Timeline} Timeline */

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
