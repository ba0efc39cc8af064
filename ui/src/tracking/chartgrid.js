// Charts of many metrics of one or more runs: each is read and drawn when it comes into view.
import { useEffect, useRef, useState } from '../../vendor/preact.js';
import { count, route, setParams, withParams } from '../client.js';
import { Empty, Failure, html } from '../ui.js';
import { curveColour, curveDash, each } from './api.js';
import { MetricChart, treatment } from './chart.js';
import { history } from './history.js';

/** @typedef {import('./types.js').Row} Row */
/** @typedef {import('./types.js').Curve} Curve */
/** @typedef {{axis: 'step' | 'time' | 'relative', log: boolean, smoothing: number, range: import('./history.js').Range}} Look */

const MOST = 60;
const AXES = /** @type {[Look['axis'], string][]} */ ([['step', 'Step'], ['relative', 'Time since start'], ['time', 'Wall clock']]);

/** @returns {Look} */
export function lookOf() {
  const { params } = route.value;
  const axis = params.get('x');
  const [from = NaN, to = NaN] = (params.get('steps') ?? '').split('~').map((text) => (text === '' ? NaN : Number(text)));
  const range = axis === null && Number.isInteger(from) && Number.isInteger(to) && from < to ? /** @type {[number, number]} */ ([from, to]) : null;
  return { range, axis: axis === 'time' || axis === 'relative' ? axis : 'step', log: params.get('log') === '1', smoothing: Math.min(0.99, Math.max(0, Number(params.get('smooth')) || 0)) };
}

/** @param {{look: Look, q: string}} props */
const Controls = ({ look, q }) => html`<div class="toolbar">
  <label class="grow"><span class="hidden">Find a metric</span><input type="search" class="input" placeholder="Find a metric" value=${q} onInput=${(/** @type {any} */ e) => setParams({ q: e.currentTarget.value, metric: null }, true)} /></label>
  ${look.range && html`<span class="dim">Steps ${count(look.range[0])} to ${count(look.range[1])}</span> <a href=${withParams({ steps: null })}>Show all steps</a>`}
  <label>x axis <select class="input" value=${look.axis} onChange=${(/** @type {any} */ e) => setParams({ x: e.currentTarget.value === 'step' ? null : e.currentTarget.value, steps: null }, true)}>${AXES.map(([value, text]) => html`<option key=${value} value=${value}>${text}</option>`)}</select></label>
  <label class="check"><input type="checkbox" checked=${look.log} onChange=${() => setParams({ log: look.log ? null : '1' }, true)} /> Log scale</label>
  <label class="check">Smoothing <input type="range" min="0" max="0.99" step="0.01" value=${look.smoothing} onInput=${(/** @type {any} */ e) => setParams({ smooth: Number(e.currentTarget.value) > 0 ? e.currentTarget.value : null }, true)} /><output class="num">${look.smoothing.toFixed(2)}</output></label></div>`;

/** Looks at some steps only: of these the server gives as many points as it gave of all. @param {number} from @param {number} to */
const zoom = (from, to) => setParams({ steps: `${Math.floor(from)}~${Math.max(Math.ceil(to), Math.floor(from) + 1)}` });

/** @param {{metric: string, rows: Row[], look: Look, stamps: Map<string, string>, large: boolean}} props */
function Card({ metric, rows, look, stamps, large }) {
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const [seen, setSeen] = useState(large);
  const [state, setState] = useState(/** @type {{curves: Curve[], error: any} | null} */ (null));
  const height = large ? 420 : 210;
  const having = rows.map((row, i) => ({ row, i })).filter(({ row }) => row.metrics.has(metric));
  const key = having.map(({ row }) => `${row.id}${stamps.get(`${row.id}\n${metric}`) ?? ''}`).join('\n');
  useEffect(() => {
    if (!box.current || seen) return undefined;
    const observer = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && setSeen(true), { rootMargin: '200px' });
    observer.observe(box.current);
    return () => observer.disconnect();
  }, [seen]);
  useEffect(() => {
    if (!seen) return undefined;
    let current = true;
    const points = having.length > 12 ? 200 : large ? 1200 : 600;
    each(having, async ({ row, i }) => ({ id: row.id, label: row.name, colour: curveColour(i), dash: curveDash(i), history: await history(row.id, metric, points, stamps.get(`${row.id}\n${metric}`) ?? '', look.range) })).then(
      (curves) => current && setState({ curves, error: null }),
      (error) => current && setState({ curves: [], error }),
    );
    return () => {
      current = false;
    };
  }, [seen, key, metric, large, String(look.range)]);
  const said = state ? treatment(state.curves, look.log, look.smoothing) : '';
  return html`<section class="panel chart-card" ref=${box} aria-label=${metric}><header class="panel-head"><h2>${metric}</h2><div class="panel-aside">${large
    ? html`<a href=${withParams({ metric: null })}>All metrics</a>` : html`<a href=${withParams({ metric })} aria-label=${`Enlarge ${metric}`}>Enlarge</a>`}</div></header>
    ${state?.error ? html`<${Failure} error=${state.error} what="The history" />` : !state ? html`<div class="chart-wait" style=${{ height: `${height}px` }}></div>`
      : html`<${MetricChart} label=${metric} curves=${state.curves} height=${height} ...${look} onZoom=${look.axis === 'step' ? zoom : undefined} />`}
    <p class="note caption">${said}</p></section>`;
}

/** @param {{rows: Row[], keys: string[], none: any, stamps?: Map<string, string>}} props `stamps` change when a metric of a run has more to read */
export function ChartGrid({ rows, keys, none, stamps = new Map() }) {
  const [most, setMost] = useState(MOST);
  const { params } = route.value;
  const look = lookOf();
  const q = params.get('q') ?? '';
  const one = params.get('metric');
  if (keys.length === 0) return html`<${Empty} title="No metric yet">${none}</${Empty}>`;
  const found = one !== null && keys.includes(one) ? [one] : keys.filter((key) => key.toLowerCase().includes(q.toLowerCase()));
  return html`<${Controls} look=${look} q=${q} />
    ${rows.length > 1 && html`<ul class="curve-legend" aria-label="Runs">${rows.map((row, i) => html`<li key=${row.id}><i class="swatch" style=${{ background: `var(${curveColour(i)})` }}></i>${row.name}</li>`)}</ul>`}
    <div class=${one ? '' : 'chart-grid'}>${found.slice(0, most).map((metric) => html`<${Card} key=${`${metric}${one ?? ''}`} metric=${metric} rows=${rows} look=${look} stamps=${stamps} large=${one !== null} />`)}</div>
    ${found.length === 0 && html`<p class="note">No metric has such a name.</p>`}
    ${found.length > most && html`<p class="more"><button type="button" class="button" onClick=${() => setMost(most + MOST)}>Show more of ${found.length}</button></p>`}`;
}
