// Curves of metrics: lines, bands from least to greatest where points were joined, a cursor that the keyboard moves.
import { useEffect, useMemo, useRef } from '../../vendor/preact.js';
import uPlot from '../../vendor/uplot.js';
import { useWidth } from '../charts.js';
import { count } from '../client.js';
import { colour, hideTip, html, paint, tip } from '../ui.js';
import { figure } from './api.js';
import { smooth } from './history.js';

/** @typedef {import('./types.js').Curve} Curve */
/** @typedef {'step' | 'time' | 'relative'} Axis */
/** @typedef {{label: string, curves: Curve[], axis: Axis, log: boolean, smoothing: number, height: number, range?: import('./history.js').Range, onZoom?: (from: number, to: number) => void}} Props `onZoom` is told which steps were dragged over; without it the chart zooms by itself */
/** A curve as it is drawn. @typedef {{curve: Curve, x: number[], value: (number | null)[], line: (number | null)[], low: (number | null)[], high: (number | null)[], banded: boolean}} Drawn */

/** @param {number} seconds */
const span = (seconds) => (Math.abs(seconds) < 120 ? `${Number(seconds.toPrecision(3))} s` : Math.abs(seconds) < 7200 ? `${Number((seconds / 60).toPrecision(3))} min` : Math.abs(seconds) < 172_800 ? `${Number((seconds / 3600).toPrecision(3))} h` : `${Number((seconds / 86_400).toPrecision(3))} d`);

/** Steps of an axis of durations, seconds. */
const SPANS = [0.001, 0.01, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 432_000, 864_000, 2_592_000, 8_640_000];

/** @param {number} x @param {Axis} axis */
const place = (x, axis) => (axis === 'step' ? `step ${count(x)}` : axis === 'relative' ? `after ${span(x)}` : new Date(x * 1000).toISOString().slice(0, 19).replace('T', ' '));

/** @param {Curve} curve @param {Axis} axis @param {boolean} log @param {number} smoothing @returns {Drawn} */
function drawn(curve, axis, log, smoothing) {
  const { step, time, value, low, high } = curve.history;
  const start = time.reduce((least, at) => Math.min(least, at), Infinity);
  const at = axis === 'step' ? step : axis === 'time' ? time : time.map((t) => t - start);
  // What is told twice for one place, or out of order, is drawn in order.
  const order = at.map((_, i) => i).sort((a, b) => (at[a] ?? 0) - (at[b] ?? 0) || a - b);
  const fits = (/** @type {number | undefined} */ y) => (y !== undefined && Number.isFinite(y) && (!log || y > 0) ? y : null);
  const pick = (/** @type {number[]} */ from) => order.map((i) => fits(from[i]));
  const values = pick(value);
  const [lows, highs] = [pick(low), pick(high)];
  return { curve, x: order.map((i) => at[i] ?? 0), value: values, line: smoothing > 0 ? smooth(values, smoothing) : values, low: lows, high: highs, banded: lows.some((y, i) => y !== null && y < (highs[i] ?? y)) };
}

/** The place in `xs` that is nearest to `x`. @param {number[]} xs @param {number} x */
function nearest(xs, x) {
  let [low, high] = [0, xs.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((xs[middle] ?? 0) < x) low = middle + 1;
    else high = middle;
  }
  return low > 0 && x - (xs[low - 1] ?? 0) < (xs[low] ?? 0) - x ? low - 1 : low;
}

/** @param {{x: number, lines: Drawn[], axis: Axis, smoothing: number}} props */
function Reading({ x, lines, axis, smoothing }) {
  const rows = lines.map((line) => ({ line, i: nearest(line.x, x) })).filter(({ line, i }) => line.line[i] !== undefined && line.line[i] !== null).sort((a, b) => Number(b.line.line[b.i]) - Number(a.line.line[a.i]));
  return html`<div class="dim">${place(x, axis)}</div>${rows.slice(0, 10).map(({ line, i }) => html`<div class="reading" key=${line.curve.id}><i class="swatch" style=${{ background: colour(line.curve.colour) }}></i><span>${lines.length > 1 ? line.curve.label : ''}</span> <strong>${figure(line.line[i])}</strong>
    ${smoothing > 0 && html` <span class="dim">logged ${figure(line.value[i])}</span>`}${line.banded && line.low[i] !== line.high[i] && html` <span class="dim">${figure(line.low[i])} to ${figure(line.high[i])}</span>`}</div>`)}
    ${rows.length > 10 && html`<div class="dim">and ${rows.length - 10} more</div>`}`;
}

/** A colour that lets through what is behind it. @param {string} name @param {string} alpha */
const pale = (name, alpha) => `${colour(name)}${alpha}`;

/** @param {Drawn[]} lines @param {boolean} smoothed @returns {uPlot.AlignedData} */
function tableOf(lines, smoothed) {
  const tables = lines.map((line) => /** @type {uPlot.AlignedData} */ ([line.x, line.line, ...(smoothed ? [line.value] : []), ...(line.banded ? [line.high, line.low] : [])]));
  return tables.length === 1 ? /** @type {uPlot.AlignedData} */ (tables[0]) : uPlot.join(tables);
}

/** @param {HTMLElement} element @param {number} width @param {Props} props @param {Drawn[]} lines */
function create(element, width, props, lines) {
  const { axis, log, smoothing, height, range, onZoom } = props;
  let showing = false;
  const smoothed = smoothing > 0;
  /** @type {uPlot.Series[]} */
  const series = [{}];
  /** @type {uPlot.Band[]} */
  const bands = [];
  for (const { curve, banded, x } of lines) {
    series.push({ stroke: () => colour(curve.colour), width: 1.8, dash: curve.dash, points: { show: x.length < 40, size: 5, width: 1, fill: () => colour(curve.colour) } });
    if (smoothed) series.push({ stroke: () => pale(curve.colour, '55'), width: 1, points: { show: false } });
    if (banded) {
      bands.push({ series: [series.length, series.length + 1], fill: () => pale(curve.colour, '2e') });
      // The edges have a thin line: a single spike would not be seen as an area.
      const edge = () => ({ stroke: () => pale(curve.colour, '70'), width: 1, points: { show: false } });
      series.push(edge(), edge());
    }
  }
  const look = { stroke: () => colour('--dim'), grid: { stroke: () => colour('--grid'), width: 1 }, ticks: { show: false }, font: '11px system-ui, sans-serif' };
  const plot = new uPlot({
    width, height, padding: [10, 12, 0, 0], legend: { show: false },
    tzDate: (at) => uPlot.tzDate(new Date(at * 1000), 'Etc/UTC'),
    cursor: { y: false, drag: { x: true, y: false, setScale: !onZoom }, points: { size: 7 } },
    scales: { x: { time: axis === 'time', ...(range ? { range: () => /** @type {[number, number]} */ (range) } : {}) }, y: log ? { distr: 3 } : { range: (_, low, high) => (low === null || high === null ? [0, 1] : low === high ? [low - (Math.abs(low) * 0.05 || 1), high + (Math.abs(high) * 0.05 || 1)] : uPlot.rangeNum(low, high, 0.08, false)) } },
    axes: [
      { ...look, size: 30, space: 70, ...(axis === 'relative' ? { incrs: SPANS, values: (/** @type {any} */ _, /** @type {number[]} */ at) => at.map(span) } : axis === 'step' ? { values: (/** @type {any} */ _, /** @type {number[]} */ at) => at.map((x) => (Number.isInteger(x) ? count(x) : '')) } : {}) },
      { ...look, size: 62, space: 32, values: (_, at) => at.map((y) => (y === null ? '' : figure(y))) },
    ],
    series, bands,
    hooks: { setCursor: [(u) => {
      const { left } = u.cursor;
      if (left === undefined || left < 0 || u.data[0].length === 0) {
        if (showing) hideTip();
        showing = false;
        return;
      }
      showing = true;
      const box = u.over.getBoundingClientRect();
      const x = u.data[0][nearest(/** @type {number[]} */ (u.data[0]), u.posToVal(left, 'x'))] ?? 0;
      tip.value = { x: box.left + u.valToPos(x, 'x'), y: box.top + 4, body: html`<${Reading} x=${x} lines=${lines} axis=${axis} smoothing=${smoothing} />` };
    }],
    setSelect: [(u) => {
      const { left, width: wide } = u.select;
      if (!onZoom || wide < 6) return;
      onZoom(u.posToVal(left, 'x'), u.posToVal(left + wide, 'x'));
      u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    }] },
  }, tableOf(lines, smoothed), element);
  return plot;
}

/** @param {Props} props */
export function MetricChart(props) {
  const { label, curves, axis, log, smoothing, height } = props;
  const box = useRef(/** @type {HTMLDivElement | null} */ (null));
  const chart = useRef(/** @type {uPlot | null} */ (null));
  const width = useWidth(box);
  const repaint = paint.value;
  const lines = useMemo(() => curves.map((curve) => drawn(curve, axis, log, smoothing)).filter((line) => line.x.length > 0), [curves, axis, log, smoothing]);
  useEffect(() => {
    if (!box.current || width < 50 || lines.length === 0) return undefined;
    chart.current = create(box.current, width, props, lines);
    return () => {
      chart.current?.destroy();
      chart.current = null;
      hideTip();
    };
  }, [width, repaint, lines, height]);

  /** @param {KeyboardEvent} event */
  const onKeyDown = (event) => {
    const u = chart.current;
    const xs = /** @type {number[] | undefined} */ (u?.data[0]);
    if (!u || !xs || xs.length === 0) return;
    const [i, step] = [u.cursor.idx ?? -1, Math.max(1, Math.round(xs.length / 50))];
    const to = /** @type {Record<string, number>} */ ({ ArrowRight: i + 1, ArrowLeft: i < 0 ? xs.length - 1 : i - 1, PageDown: i + step, PageUp: i - step, Home: 0, End: xs.length - 1 })[event.key];
    if (to === undefined) return;
    event.preventDefault();
    u.setCursor({ left: u.valToPos(xs[Math.max(0, Math.min(xs.length - 1, to))] ?? 0, 'x'), top: 10 });
  };
  const last = lines.slice(0, 5).map((line) => `${line.curve.label} ends at ${figure(line.value.findLast((y) => y !== null))}`).join(', ');
  return html`<div class="timechart metric-chart" role="img" tabindex="0" aria-label=${`${label} by ${axis === 'step' ? 'step' : 'time'}: ${last || 'nothing to draw'}. Arrow keys read it.`} style=${{ height: `${height}px` }} ref=${box}
    onKeyDown=${onKeyDown} onBlur=${() => chart.current?.setCursor({ left: -10, top: -10 })}></div>`;
}

/** What was done to the points of these curves, in words. @param {Curve[]} curves @param {boolean} log @param {number} smoothing */
export function treatment(curves, log, smoothing) {
  const said = [];
  if (smoothing > 0) said.push(`smoothed (exponential, ${smoothing}); the pale line is what was logged`);
  const joined = curves.filter((curve) => curve.history.total > curve.history.value.length);
  const sum = (/** @type {(curve: Curve) => number} */ of, /** @type {Curve[]} */ over) => count(over.reduce((all, curve) => all + of(curve), 0));
  if (joined.length > 0) said.push(`${sum((curve) => curve.history.total, joined)} points in ${sum((curve) => curve.history.value.length, joined)} stretches: the line goes through the ${joined.some((curve) => curve.history.mean) ? 'mean' : 'last'} of each, the band from least to greatest`);
  if (curves.some((curve) => curve.history.left)) said.push('points were left out by the server');
  if (curves.some((curve) => curve.history.odd > 0)) said.push(`${sum((curve) => curve.history.odd, curves)} NaN or infinite`);
  const all = curves.flatMap((curve) => curve.history.value);
  const low = log ? all.filter((y) => Number.isFinite(y) && y <= 0).length : 0;
  if (low > 0) said.push(`${count(low)} not above 0, not on a log scale`);
  return said.join('; ');
}
