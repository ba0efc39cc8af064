// A difference with its confidence interval, against no difference and against the margin.
import { isNumber, signed } from '../client.js';
import { html } from '../ui.js';

/** @typedef {import('../types.js').Check} Check */

const WIDTH = 260;
const HEIGHT = 40;
const TONE = /** @type {Record<string, string>} */ ({ pass: 'good', fail: 'bad', inconclusive: 'warn' });

/** @param {{check: Check}} props */
export function IntervalPlot({ check }) {
  const { difference, lower, upper, margin, verdict } = check;
  if (!isNumber(difference) && !(isNumber(lower) && isNumber(upper))) return html`<span class="dim">no interval</span>`;
  const edge = isNumber(margin) ? -Math.abs(margin) : null;
  const points = [0, edge, difference, lower, upper].filter(isNumber);
  const span = Math.max(...points) - Math.min(...points) || 1;
  const low = Math.min(...points) - span * 0.12;
  const high = Math.max(...points) + span * 0.12;
  const x = (/** @type {number} */ value) => ((value - low) / (high - low)) * WIDTH;
  const label = `difference ${signed(difference)}, interval ${signed(lower)} to ${signed(upper)}, margin ${signed(edge)}`;
  const centre = isNumber(difference) ? difference : ((lower ?? 0) + (upper ?? 0)) / 2;
  return html`<svg class=${`interval fill-${TONE[verdict ?? ''] ?? 'quiet'}`} viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} width=${WIDTH} height=${HEIGHT} role="img" aria-label=${label}>
    ${edge !== null && html`<rect class="interval-bad" x="0" y="4" width=${x(edge)} height="22" /><line class="interval-margin" x1=${x(edge)} x2=${x(edge)} y1="4" y2="26" />
      <text x=${x(edge)} y="37" text-anchor="middle">−margin</text>`}
    <line class="interval-zero" x1=${x(0)} x2=${x(0)} y1="4" y2="26" />
    ${(edge === null || Math.abs(x(0) - x(edge)) > 34) && html`<text x=${x(0)} y="37" text-anchor="middle">0</text>`}
    ${isNumber(lower) && isNumber(upper) && html`<path class="outline" d=${`M${x(lower)} 15H${x(upper)}M${x(lower)} 10v10M${x(upper)} 10v10`} />`}
    <circle cx=${x(centre)} cy="15" r="4.5" /></svg>`;
}
