// The month table: what the loop did and what it was worth.
import { count, isNumber, metric, number, signed } from '../format.js';
import { html } from '../html.js';
import { Empty, Scroll } from './ui.js';

/** @typedef {import('../types.js').Month} Month */
/** @typedef {import('../types.js').Timeline} Timeline */

const HALF = 26;

/** @param {{value: number | null, largest: number, better: boolean}} props */
function DifferenceBar({ value, largest, better }) {
  if (value === null) return html`<svg class="bar" width=${HALF * 2} height="10" aria-hidden="true"></svg>`;
  const length = Math.max(1, (Math.abs(value) / (largest || 1)) * HALF);
  return html`<svg class=${`bar fill-${better ? 'good' : 'bad'}`} width=${HALF * 2} height="10" aria-hidden="true">
    <rect x=${value < 0 ? HALF - length : HALF} y="1" width=${length} height="8" rx="1" /><line x1=${HALF} x2=${HALF} y1="0" y2="10" /></svg>`;
}

/** @param {{timeline: Timeline}} props */
export function MonthTable({ timeline }) {
  const months = timeline.months ?? [];
  if (months.length === 0) {
    return html`<${Empty} title="No month yet">The table starts with the first prediction. Send one, or run <code>tidemill replay</code> over your history.</${Empty}>`;
  }
  const name = (timeline.metric ?? 'metric').toUpperCase();
  const difference = (/** @type {Month} */ m) => (isNumber(m.auc_champion) && isNumber(m.auc_frozen) ? m.auc_champion - m.auc_frozen : null);
  const largest = Math.max(...months.map((m) => Math.abs(difference(m) ?? 0)));
  const sum = (/** @type {(m: Month) => number | null} */ of) => months.reduce((total, m) => total + (of(m) ?? 0), 0);
  const zero = (/** @type {number | null} */ n, tone = '') => html`<td class=${`num ${n ? tone : 'zero'}`}>${count(n)}</td>`;
  return html`<${Scroll} label="Month by month" class="months"><table>
    <thead><tr><th scope="col">Month</th><th scope="col" class="num">${name}, frozen</th><th scope="col" class="num">${name}, Tidemill</th><th scope="col" class="num">Difference</th>
      <th scope="col" class="num">Predictions</th><th scope="col" class="num">Labels</th><th scope="col" class="num">Retrainings</th><th scope="col" class="num">Refused</th>
      <th scope="col" class="num">Inconclusive</th><th scope="col" class="num">Promoted</th><th scope="col" class="num">Rolled back</th><th scope="col" class="num">Outcome</th></tr></thead>
    <tbody>${months.map((m) => {
      const d = difference(m);
      const better = d !== null && (timeline.higher_is_better !== false ? d >= 0 : d <= 0);
      return html`<tr key=${m.month}><th scope="row">${m.month}</th><td class="num">${metric(m.auc_frozen)}</td><td class="num strong">${metric(m.auc_champion)}</td>
        <td class="num difference"><${DifferenceBar} value=${d} largest=${largest} better=${better} /> <span class=${d === null ? '' : better ? 'tone-good' : 'tone-bad'}>${signed(d)}</span></td>
        <td class="num">${count(m.predictions)}</td><td class="num">${count(m.labels)}</td>${zero(m.retrainings)}${zero(m.refused, 'tone-bad')}${zero(m.inconclusive, 'tone-warn')}
        ${zero(m.promoted, 'tone-good')}${zero(m.rolled_back, 'tone-bad')}<td class="num">${number(m.outcome)}</td></tr>`;
    })}</tbody>
    <tfoot><tr><th scope="row">All</th><td></td><td></td><td></td><td class="num">${count(sum((m) => m.predictions))}</td><td class="num">${count(sum((m) => m.labels))}</td>
      <td class="num">${count(sum((m) => m.retrainings))}</td><td class="num">${count(sum((m) => m.refused))}</td><td class="num">${count(sum((m) => m.inconclusive))}</td>
      <td class="num">${count(sum((m) => m.promoted))}</td><td class="num">${count(sum((m) => m.rolled_back))}</td><td></td></tr></tfoot>
  </table></${Scroll}>`;
}
