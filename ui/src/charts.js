// The charts of the endpoint page, on one time axis: curves, lanes of events, drift strip.
import { useEffect, useRef, useState } from '../vendor/preact.js';
import uPlot from '../vendor/uplot.js';
import { eventLink, isNumber, kindOf, LANES, metric, percent, route, seconds, time, withParams } from './client.js';
import { colour, hideTip, html, paint, tip, tipAt } from './ui.js';

/** Room on the right of every plot, pixels. */
export const RIGHT = 18;

/** Room on the left for labels, pixels. @param {number} width */
export const gutter = (width) => (width < 640 ? 78 : 128);

/** An element's width, as it changes. @param {{current: HTMLElement | null}} ref */
export function useWidth(ref) {
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const element = ref.current;
    if (!element) return undefined;
    const observer = new ResizeObserver(() => setWidth(Math.floor(element.clientWidth)));
    observer.observe(element);
    setWidth(Math.floor(element.clientWidth));
    return () => observer.disconnect();
  }, []);
  return width;
}

/** Where a time lies between the left and the right end. @param {number} at @param {[number, number]} range @param {number} width of the plot */
export const position = (at, [from, until], width) => ((at - from) / (until - from || 1)) * width;

/** @typedef {import('./types.js').ChartProps} Props */

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

/** @typedef {import('./types.js').TimelineEvent} TimelineEvent */
/** @typedef {import('./types.js').Marker} Marker */

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

/** @typedef {import('./types.js').DriftPoint} DriftPoint */
/** @typedef {import('./types.js').Timeline} Timeline */
/** @typedef {import('./types.js').Feature} Feature */

const CELL = 20;
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
  const height = features.length * CELL;
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
        ctx.fillRect(x0, row * CELL + 1, Math.max(0.75, x1 - x0 - gap), CELL - 2);
      });
    });
  }, [drift, plot, range[0], range[1], repaint, features.length, chosen]);

  /** Which cell lies under the pointer. @param {MouseEvent} event */
  const cellAt = (event) => {
    const { left: x, top: y } = /** @type {Element} */ (event.currentTarget).getBoundingClientRect();
    const at = range[0] + ((event.clientX - x) / plot) * (range[1] - range[0]);
    const i = windows.findIndex(([from, until]) => at > from && at <= until);
    return { feature: features[Math.floor((event.clientY - y) / CELL)], point: drift[i] };
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
        ${features.map((feature) => html`<li key=${feature.name} style=${{ height: `${CELL}px` }}>
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
