// Plots of many runs: parallel coordinates, scatter, importance of parameters.
import { useMemo, useRef, useState } from '../../vendor/preact.js';
import { useWidth } from '../charts.js';
import { count, go, route, setParams } from '../client.js';
import { hideTip, html, Scroll, tipAt } from '../ui.js';
import { figure, runLink } from './api.js';
import { idOf, labelOf, readColumns, writeColumns } from './columns.js';
import { scaleOf, shade, valueOf } from './scale.js';
import { chance, correlationRatio, spearman } from './stats.js';

/** @typedef {import('./types.js').Row} Row */
/** @typedef {import('./types.js').Column} Column */
/** @typedef {import('./types.js').Keys} Keys */

const HEIGHT = 420;
const TOP = 46;
const BOTTOM = 28;

/** What can be put on an axis. @param {Keys} keys @returns {Column[]} */
const choices = (keys) => [...keys.metrics.map((key) => /** @type {Column} */ ({ kind: 'm', key })), ...keys.params.map((key) => /** @type {Column} */ ({ kind: 'p', key })), { kind: 'a', key: 'start_time' }, { kind: 'a', key: 'duration' }];

/** @param {{label: string, name: string, value: Column, columns: Column[]}} props */
const Choice = ({ label, name, value, columns }) => html`<label>${label} <select class="input" value=${idOf(value)} onChange=${(/** @type {any} */ e) => setParams({ [name]: writeColumns(columns.filter((c) => idOf(c) === e.currentTarget.value)) }, true)}>
  ${columns.map((column) => html`<option key=${idOf(column)} value=${idOf(column)}>${labelOf(column)}</option>`)}</select></label>`;

/** @param {string} name @param {Column} usual */
const chosen = (name, usual) => readColumns(route.value.params.get(name))?.[0] ?? usual;

/** What the colours mean. @param {{rows: Row[], by: Column}} props */
function Shades({ rows, by }) {
  const known = rows.map((row) => valueOf(row, by)).filter((value) => value !== null);
  const { kind, ticks } = scaleOf(known);
  if (known.length === 0) return null;
  if (kind === 'names') return html`<span class="shades">${ticks.slice(0, 8).map((tick) => html`<span key=${tick.text}><i class="swatch" style=${{ background: shade(tick.at) }}></i>${tick.text}</span>`)}</span>`;
  const numbers = known.map(Number);
  const end = (/** @type {number} */ value) => (by.kind === 'a' && by.key === 'start_time' ? new Date(value).toISOString().slice(0, 10) : figure(value));
  return html`<span class="shades num"><span>${end(Math.min(...numbers))}</span><i class="shade-bar" aria-hidden="true"></i><span>${end(Math.max(...numbers))}</span></span>`;
}

/** @param {{row: Row, columns: Column[]}} props */
const About = ({ row, columns }) => html`<strong>${row.name}</strong>${columns.map((column) => {
  const value = valueOf(row, column);
  return html`<div key=${idOf(column)}><span class="dim">${labelOf(column)}</span> ${column.key === 'start_time' && column.kind === 'a' ? new Date(Number(value)).toISOString().slice(0, 16) : typeof value === 'number' ? figure(value) : value ?? '–'}</div>`;
})}`;

/** The metric that colours and targets, if the reader says nothing. @param {Keys} keys @returns {Column} */
const target = (keys) => ({ kind: 'm', key: keys.metrics.find((key) => !key.startsWith('system/')) ?? keys.metrics[0] ?? '' });

/** Parameters that differ between the runs. @param {Row[]} rows @param {Keys} keys */
const varied = (rows, keys) => keys.params.filter((key) => new Set(rows.map((row) => row.params.get(key))).size > 1);

/** @param {{rows: Row[], keys: Keys}} props */
export function Parallel({ rows, keys }) {
  const box = useRef(/** @type {HTMLDivElement | null} */ (null));
  const width = useWidth(box);
  const by = chosen('by', target(keys));
  const axes = readColumns(route.value.params.get('axes')) ?? [...varied(rows, keys).slice(0, 7).map((key) => /** @type {Column} */ ({ kind: 'p', key })), target(keys)];
  const [brushes, setBrushes] = useState(/** @type {Record<string, [number, number]>} */ ({}));
  const [over, setOver] = useState(/** @type {string | null} */ (null));
  const scales = useMemo(() => axes.map((column) => scaleOf(rows.map((row) => valueOf(row, column)), 6)), [rows, writeColumns(axes)]);
  const colours = useMemo(() => scaleOf(rows.map((row) => valueOf(row, by))), [rows, idOf(by)]);
  const [left, right] = [50, 66];
  const x = (/** @type {number} */ i) => left + (axes.length > 1 ? (i / (axes.length - 1)) * (width - left - right) : 0);
  const y = (/** @type {number} */ at) => TOP + (1 - at) * (HEIGHT - TOP - BOTTOM);
  const lines = rows.map((row) => {
    const places = axes.map((column, i) => {
      const value = valueOf(row, column);
      return value === null ? null : scales[i]?.at(value) ?? null;
    });
    const inside = axes.every((column, i) => {
      const brush = brushes[idOf(column)];
      const at = places[i] ?? null;
      return !brush || (at !== null && at >= brush[0] && at <= brush[1]);
    });
    const colourValue = valueOf(row, by);
    // A run without a value on an axis has a gap there.
    const path = places.map((at, i) => (at === null ? '' : `${i === 0 || places[i - 1] === null || places[i - 1] === undefined ? 'M' : 'L'}${x(i).toFixed(1)} ${y(at).toFixed(1)}`)).join('');
    return { row, path, inside, colour: shade(colourValue === null ? null : colours.at(colourValue)) };
  });
  const inside = lines.filter((line) => line.inside).length;
  /** Drags a range over an axis. @param {PointerEvent} event @param {Column} column */
  const brush = (event, column) => {
    const svg = /** @type {SVGElement} */ (event.currentTarget).closest('svg');
    if (!svg) return;
    const at = (/** @type {PointerEvent} */ e) => Math.max(0, Math.min(1, 1 - (e.clientY - svg.getBoundingClientRect().top - TOP) / (HEIGHT - TOP - BOTTOM)));
    const start = at(event);
    const set = (/** @type {number} */ end) => setBrushes((all) => {
      const { [idOf(column)]: _, ...rest } = all;
      return Math.abs(end - start) < 0.01 ? rest : { ...rest, [idOf(column)]: [Math.min(start, end), Math.max(start, end)] };
    });
    const move = (/** @type {PointerEvent} */ e) => set(at(e));
    const up = (/** @type {PointerEvent} */ e) => {
      set(at(e));
      removeEventListener('pointermove', move);
    };
    event.preventDefault();
    addEventListener('pointermove', move);
    addEventListener('pointerup', up, { once: true });
  };
  const toggle = (/** @type {Column} */ column) => setParams({ axes: writeColumns(axes.some((a) => idOf(a) === idOf(column)) ? axes.filter((a) => idOf(a) !== idOf(column)) : [...axes, column]) }, true);
  return html`<div class="toolbar"><${Choice} label="Colour by" name="by" value=${by} columns=${choices(keys)} /><${Shades} rows=${rows} by=${by} />
      <details class="axes"><summary class="button">Axes</summary><div class="axes-list">${choices(keys).slice(0, 200).map((column) => html`<label key=${idOf(column)}><input type="checkbox" checked=${axes.some((a) => idOf(a) === idOf(column))} onChange=${() => toggle(column)} /> ${labelOf(column)}</label>`)}</div></details>
      <span class="dim" role="status">${inside === rows.length ? `${count(rows.length)} runs` : `${count(inside)} of ${count(rows.length)} runs`}</span>${Object.keys(brushes).length > 0 && html`<button type="button" class="link-button" onClick=${() => setBrushes({})}>Show all</button>`}</div>
    <p class="note">Drag along an axis to keep only the runs that cross it there. A run without a value has a gap.</p>
    <div class="plot" ref=${box}>${width > 0 && axes.length > 0 && html`<svg class="parallel" width=${width} height=${HEIGHT} role="img" aria-label=${`Parallel coordinates of ${rows.length} runs over ${axes.map(labelOf).join(', ')}`}>
      <g>${lines.map(({ row, path, inside: shown, colour }) => html`<path key=${row.id} d=${path} class=${`${shown ? '' : 'out'} ${over === row.id ? 'over' : ''}`} style=${{ stroke: colour }}
        onMouseEnter=${(/** @type {any} */ e) => { setOver(row.id); tipAt(e.currentTarget, html`<${About} row=${row} columns=${axes} />`); }} onMouseLeave=${() => { setOver(null); hideTip(); }} onClick=${() => go(runLink(row.info.experiment_id, row.id))} />`)}</g>
      ${axes.map((column, i) => {
        const held = brushes[idOf(column)];
        return html`<g key=${idOf(column)} transform=${`translate(${x(i)} 0)`}><text class="axis-name" y=${i % 2 ? 14 : 30} text-anchor=${i === 0 ? 'start' : i === axes.length - 1 ? 'end' : 'middle'} x=${i === 0 ? -left + 6 : i === axes.length - 1 ? right - 4 : 0}>${labelOf(column).slice(0, 28)}${scales[i]?.kind === 'log' ? ' (log)' : ''}</text>
          <line y1=${TOP} y2=${HEIGHT - BOTTOM} /><g aria-hidden="true">${scales[i]?.ticks.map((tick) => html`<g key=${tick.text} transform=${`translate(0 ${y(tick.at)})`}><line x1="-4" x2="0" /><text x="5" y="4">${tick.text.slice(0, 12)}</text></g>`)}</g>
          ${held && html`<rect class="brush" x="-8" width="16" y=${y(held[1])} height=${y(held[0]) - y(held[1])} />`}<rect class="handle" x="-13" width="26" y=${TOP - 6} height=${HEIGHT - TOP - BOTTOM + 12} onPointerDown=${(/** @type {PointerEvent} */ e) => brush(e, column)} /></g>`;
      })}</svg>`}</div>`;
}

/** @param {{rows: Row[], keys: Keys}} props */
export function Scatter({ rows, keys }) {
  const box = useRef(/** @type {HTMLDivElement | null} */ (null));
  const width = useWidth(box);
  const [active, setActive] = useState(0);
  const columns = choices(keys);
  const first = varied(rows, keys).find((key) => scaleOf(rows.map((row) => row.params.get(key) ?? null)).kind !== 'names') ?? varied(rows, keys)[0];
  const xBy = chosen('sx', first !== undefined ? { kind: 'p', key: first } : { kind: 'a', key: 'start_time' });
  const [yBy, by] = [chosen('sy', target(keys)), chosen('by', target(keys))];
  const [xs, ys, cs] = [xBy, yBy, by].map((column) => scaleOf(rows.map((row) => valueOf(row, column)), 7));
  const [left, bottom, top] = [86, 52, 34];
  const [wide, high] = [Math.max(0, width - left - 34), HEIGHT - bottom - top];
  const points = rows.flatMap((row) => {
    const [x, y, c] = [valueOf(row, xBy), valueOf(row, yBy), valueOf(row, by)];
    const [px, py] = [x === null ? null : xs?.at(x) ?? null, y === null ? null : ys?.at(y) ?? null];
    return px === null || py === null ? [] : [{ row, x: left + px * wide, y: top + (1 - py) * high, colour: shade(c === null ? null : cs?.at(c) ?? null) }];
  }).sort((a, b) => a.x - b.x);
  const at = Math.min(active, points.length - 1);
  /** @param {KeyboardEvent} event */
  const onKeyDown = (event) => {
    const next = /** @type {Record<string, number>} */ ({ ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: points.length - 1 })[event.key];
    if (next === undefined || next < 0 || next >= points.length) return;
    event.preventDefault();
    setActive(next);
    /** @type {Element} */ (event.currentTarget).querySelectorAll('a')[next]?.focus();
  };
  const isTime = (/** @type {Column} */ c) => c.kind === 'a' && c.key === 'start_time';
  const text = (/** @type {Column} */ column, /** @type {{text: string}} */ tick) => (isTime(column) ? new Date(Number(tick.text.replace(/\s/g, ''))).toISOString().slice(0, 10) : tick.text.slice(0, 14));
  return html`<div class="toolbar"><${Choice} label="x" name="sx" value=${xBy} columns=${columns} /><${Choice} label="y" name="sy" value=${yBy} columns=${columns} /><${Choice} label="Colour by" name="by" value=${by} columns=${columns} /><${Shades} rows=${rows} by=${by} /></div>
    <p class="note">${count(points.length)} of ${count(rows.length)} runs have both values.</p>
    <div class="plot" ref=${box}>${width > 0 && html`<svg class="scatter" width=${width} height=${HEIGHT} role="group" aria-label=${`${labelOf(yBy)} against ${labelOf(xBy)} of ${points.length} runs; arrow keys move between them`} onKeyDown=${onKeyDown}>
      <g aria-hidden="true">${xs?.ticks.map((tick) => html`<g key=${tick.text} transform=${`translate(${left + tick.at * wide} 0)`}><line y1=${top - 8} y2=${top + high + 8} /><text y=${top + high + 24} text-anchor="middle">${text(xBy, tick)}</text></g>`)}
        ${ys?.ticks.map((tick) => html`<g key=${tick.text} transform=${`translate(0 ${top + (1 - tick.at) * high})`}><line x1=${left - 10} x2=${left + wide + 10} /><text x=${left - 16} y="4" text-anchor="end">${text(yBy, tick)}</text></g>`)}
        <text class="axis-name" x=${left + wide} y=${HEIGHT - 6} text-anchor="end">${labelOf(xBy)}${xs?.kind === 'log' ? ' (log)' : ''}</text><text class="axis-name" x=${left - 10} y="13">${labelOf(yBy)}${ys?.kind === 'log' ? ' (log)' : ''}</text></g>
      ${points.map(({ row, x, y, colour }, i) => {
        const show = (/** @type {any} */ e) => tipAt(e.currentTarget, html`<${About} row=${row} columns=${[xBy, yBy, by]} />`);
        return html`<a key=${row.id} href=${runLink(row.info.experiment_id, row.id)} tabindex=${i === at ? 0 : -1} aria-label=${`${row.name}: ${labelOf(xBy)} ${valueOf(row, xBy)}, ${labelOf(yBy)} ${valueOf(row, yBy)}`} onMouseEnter=${show} onMouseLeave=${hideTip} onFocus=${show} onBlur=${hideTip}>
          <circle cx=${x} cy=${y} r="5.5" style=${{ fill: colour }} /></a>`;
      })}</svg>`}</div>`;
}

/** How each parameter goes with the metric. @param {Row[]} rows @param {string[]} params @param {string} metric */
export function importanceOf(rows, params, metric) {
  return params.flatMap((key) => {
    const both = rows.filter((row) => row.params.has(key) && Number.isFinite(row.metrics.get(metric) ?? NaN));
    const values = both.map((row) => row.params.get(key) ?? '');
    const y = both.map((row) => row.metrics.get(metric) ?? 0);
    const kinds = new Set(values).size;
    if (both.length < 3 || kinds < 2) return [];
    const numeric = values.every((value) => value.trim() !== '' && Number.isFinite(Number(value)));
    const strength = numeric ? spearman(values.map(Number), y) : correlationRatio(values, y);
    // A name for every run, or nearly, explains everything and nothing.
    if (strength === null || (!numeric && kinds > both.length / 2)) return [];
    return [{ key, numeric, strength, n: both.length, kinds, bound: chance(both.length, numeric ? 1 : kinds - 1) }];
  }).sort((a, b) => Math.abs(b.strength) - Math.abs(a.strength));
}

/** @param {{rows: Row[], keys: Keys}} props */
export function Importance({ rows, keys }) {
  const metrics = keys.metrics.map((key) => /** @type {Column} */ ({ kind: 'm', key }));
  const by = chosen('by', target(keys));
  const found = useMemo(() => importanceOf(rows, varied(rows, keys), by.key), [rows, by.key]);
  return html`<div class="toolbar"><${Choice} label="Metric" name="by" value=${by} columns=${metrics} /></div>
    <p class="note">How far a parameter's order goes with the metric's order over these runs: Spearman's rank correlation for numbers (its sign says the direction), the correlation ratio of ranks for names (no direction). The mark is what 19 of 20 parameters without any effect stay under.
      Each parameter is looked at alone, and what goes together need not be cause and effect.</p>
    ${found.length === 0 ? html`<p class="note"><strong>Nothing to measure:</strong> at least 3 runs have to have the metric and a parameter that differs between them.</p>`
      : html`<${Scroll} label="Importance"><table class="importance"><thead><tr><th scope="col">Parameter</th><th scope="col" class="num">Strength</th><th scope="col"><span class="hidden">Bar</span></th><th scope="col" class="num">Runs</th><th scope="col">Measure</th></tr></thead>
        <tbody>${found.map(({ key, numeric, strength, n, kinds, bound }) => html`<tr key=${key} class=${Math.abs(strength) < bound ? 'weak' : ''}><th scope="row">${key}</th><td class="num">${numeric && strength > 0 ? '+' : ''}${strength.toFixed(2).replace('-', '−')}</td>
          <td class="bar-cell"><svg viewBox="0 0 200 16" preserveAspectRatio="none" role="img" aria-label=${Math.abs(strength) < bound ? 'within what chance gives' : 'more than chance gives'}><rect class="bar-ground" width="200" height="16" /><rect class=${strength < 0 ? 'bar-minus' : 'bar-plus'} width=${Math.abs(strength) * 200} height="16" /><line x1=${bound * 200} x2=${bound * 200} y1="0" y2="16" vector-effect="non-scaling-stroke" /></svg></td>
          <td class="num">${count(n)}</td><td>${numeric ? 'rank correlation' : `correlation ratio, ${kinds} values`}</td></tr>`)}</tbody></table></${Scroll}>`}`;
}
