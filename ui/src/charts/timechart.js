// Lines over time: a thin component around uPlot.
import uPlot from '../../vendor/uplot.js';
import { useEffect, useRef } from '../../vendor/hooks.js';
import { html } from '../html.js';
import { colour, paint } from '../parts/theme.js';
import { hideTip, tip } from '../parts/tip.js';
import { RIGHT, gutter, useWidth } from './layout.js';

/** @typedef {{values: (number | null)[], colour: string, width?: number, dash?: number[], steps?: boolean}} Line */
/** @typedef {{at: number, label: string, colour: string}} Mark */
/**
 * @typedef {object} Props
 * @property {string} label what a screen reader says
 * @property {number[]} x seconds since the epoch
 * @property {Line[]} lines
 * @property {[number, number]} range of time
 * @property {number} height
 * @property {Mark[]} [marks] vertical lines
 * @property {{at: number, label: string} | null} [threshold] a horizontal line
 * @property {number | null} [floor] the smallest upper end of the y axis
 * @property {boolean} [zero] the y axis starts at 0
 * @property {(index: number) => any} describe the tooltip of a point
 * @property {(from: number, until: number) => void} [onZoom]
 */

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const DAY = 86400;

/** Labels of the time axis, in UTC. @param {uPlot} _ @param {number[]} splits @param {number} _axis @param {number} _space @param {number} step */
function timeLabels(_, splits, _axis, _space, step) {
  let year = 0;
  let date = '';
  return splits.map((at) => {
    const t = new Date(at * 1000);
    const monthText = MONTHS[t.getUTCMonth()];
    const newYear = t.getUTCFullYear() !== year;
    year = t.getUTCFullYear();
    if (step >= 28 * DAY) return newYear ? `${monthText}\n${year}` : monthText;
    if (step >= DAY) return `${t.getUTCDate()} ${monthText}${newYear ? `\n${year}` : ''}`;
    const today = `${t.getUTCDate()} ${monthText}`;
    const text = t.toISOString().slice(11, 16) + (today === date ? '' : `\n${today}`);
    date = today;
    return text;
  });
}

/** The y axis: the data with a little air. @param {number | null} min @param {number | null} max @param {Props} props @returns {[number, number]} */
function yRange(min, max, { zero, floor, threshold }) {
  let low = min ?? 0;
  let high = Math.max(max ?? 1, threshold?.at ?? -Infinity, floor ?? -Infinity);
  if (zero) low = Math.min(0, low);
  const air = (high - low || Math.abs(high) * 0.1 || 1) * 0.1;
  return [zero && low === 0 ? 0 : low - air, high + air];
}

/** @param {uPlot} u @param {Props} props */
function drawMarks(u, { marks = [], threshold }) {
  const { ctx, bbox } = u;
  const scale = devicePixelRatio;
  ctx.save();
  ctx.font = `600 ${11 * scale}px system-ui, sans-serif`;
  ctx.textBaseline = 'bottom';
  let free = -Infinity;
  for (const mark of marks) {
    const x = Math.round(u.valToPos(mark.at, 'x', true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.strokeStyle = colour(mark.colour);
    ctx.lineWidth = scale;
    ctx.setLineDash([2 * scale, 3 * scale]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    const half = ctx.measureText(mark.label).width / 2;
    if (x - half < free) continue;
    free = x + half + 4 * scale;
    ctx.fillStyle = colour(mark.colour);
    ctx.textAlign = 'center';
    ctx.fillText(mark.label, x, bbox.top - 3 * scale);
  }
  if (threshold) {
    const y = Math.round(u.valToPos(threshold.at, 'y', true));
    ctx.strokeStyle = colour('--bad');
    ctx.fillStyle = colour('--bad');
    ctx.setLineDash([5 * scale, 4 * scale]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.textAlign = 'right';
    ctx.fillText(threshold.label, bbox.left + bbox.width, y - 3 * scale);
  }
  ctx.restore();
}

/** @param {Props} props @returns {uPlot.AlignedData} */
const dataOf = (props) => /** @type {uPlot.AlignedData} */ ([props.x, ...props.lines.map((line) => line.values)]);

/** @param {HTMLElement} element @param {number} width @param {{current: Props}} latest */
function create(element, width, latest) {
  // The tooltip is shared: only what this chart shows is this chart's to hide.
  let showing = false;
  const axis = {
    stroke: () => colour('--dim'),
    grid: { stroke: () => colour('--grid'), width: 1 },
    ticks: { show: false },
    font: '11px system-ui, sans-serif',
  };
  /** @type {uPlot.Options} */
  const options = {
    width,
    height: latest.current.height,
    padding: [18, RIGHT, 0, 0],
    legend: { show: false },
    tzDate: (at) => uPlot.tzDate(new Date(at * 1000), 'Etc/UTC'),
    cursor: { y: false, drag: { x: Boolean(latest.current.onZoom), y: false, setScale: false }, points: { size: 8 } },
    scales: {
      x: { time: true, range: () => latest.current.range },
      y: { range: (_, min, max) => yRange(min, max, latest.current) },
    },
    axes: [
      { ...axis, size: 36, space: 64, values: timeLabels },
      { ...axis, size: gutter(width), space: 34, values: (_, splits, _axis, _space, step) => splits.map((value) => value.toFixed(Math.min(6, Math.max(0, -Math.floor(Math.log10(step) + 1e-9))))) },
    ],
    series: [
      {},
      ...latest.current.lines.map((line) => ({
        stroke: () => colour(line.colour),
        width: line.width ?? 2,
        dash: line.dash,
        points: { size: 5, width: 1, fill: () => colour(line.colour) },
      })),
    ],
    hooks: {
      draw: [(u) => drawMarks(u, latest.current)],
      setCursor: [
        (u) => {
          const { idx, left } = u.cursor;
          if (idx === null || idx === undefined || left === undefined || left < 0) {
            if (showing) hideTip();
            showing = false;
            return;
          }
          showing = true;
          const box = u.over.getBoundingClientRect();
          tip.value = { x: box.left + u.valToPos(u.data[0][idx], 'x'), y: box.top + 8, body: latest.current.describe(idx) };
        },
      ],
      setSelect: [
        (u) => {
          const { left, width: wide } = u.select;
          if (wide < 8) return;
          latest.current.onZoom?.(u.posToVal(left, 'x'), u.posToVal(left + wide, 'x'));
          u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        },
      ],
    },
  };
  return new uPlot(options, dataOf(latest.current), element);
}

/** @param {Props} props */
export function TimeChart(props) {
  const box = useRef(/** @type {HTMLDivElement | null} */ (null));
  const chart = useRef(/** @type {uPlot | null} */ (null));
  const latest = useRef(props);
  latest.current = props;
  const width = useWidth(box);
  const repaint = paint.value;
  const lines = props.lines.length;

  useEffect(() => {
    if (!box.current || width < 50) return undefined;
    chart.current = create(box.current, width, latest);
    return () => {
      chart.current?.destroy();
      chart.current = null;
      hideTip();
    };
  }, [width, repaint, lines]);

  useEffect(() => {
    chart.current?.setData(dataOf(props));
  }, [props.x, props.lines, props.marks, props.threshold, props.range[0], props.range[1]]);

  return html`<div class="timechart" role="img" aria-label=${props.label} style=${{ height: `${props.height}px` }} ref=${box}></div>`;
}
