// Values of runs on an axis: numbers, numbers over several powers of ten, or names.
import { figure } from './api.js';

/** @typedef {import('./types.js').Row} Row */
/** @typedef {import('./types.js').Column} Column */
/** A place from 0 to 1 for each value. @typedef {{kind: 'linear' | 'log' | 'names', at: (value: string | number) => number | null, ticks: {at: number, text: string}[]}} Scale */

/** What a run has for a column, as text or number; null where it has nothing that can be drawn. @param {Row} row @param {Column} column @returns {string | number | null} */
export function valueOf(row, { kind, key }) {
  if (kind === 'm') {
    const value = row.metrics.get(key);
    return value !== undefined && Number.isFinite(value) ? value : null;
  }
  if (kind === 'a') return key === 'start_time' ? row.info.start_time ?? null : key === 'duration' ? (row.info.end_time ? (row.info.end_time - (row.info.start_time ?? 0)) / 1000 : null) : row.name;
  return (kind === 'p' ? row.params : row.tags).get(key) ?? null;
}

/** @param {string | number} value */
const isNumeric = (value) => typeof value === 'number' || (value.trim() !== '' && Number.isFinite(Number(value)));

/** @param {number} low @param {number} high @param {number} most */
function roundSteps(low, high, most) {
  const raw = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5, 10].find((s) => s * power >= raw) ?? 10);
  const steps = [];
  for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; i += 1) steps.push(Number((i * step).toPrecision(12)));
  return steps;
}

/** The scale that fits the values. @param {(string | number | null)[]} values @param {number} [most] ticks @returns {Scale} */
export function scaleOf(values, most = 5) {
  const known = values.filter((value) => value !== null);
  if (known.length > 0 && known.every(isNumeric)) {
    const numbers = known.map(Number);
    const low = numbers.reduce((a, b) => Math.min(a, b), Infinity);
    const high = numbers.reduce((a, b) => Math.max(a, b), -Infinity);
    const log = low > 0 && high / low >= 50;
    const shape = log ? Math.log10 : (/** @type {number} */ x) => x;
    const [from, until] = [shape(low), shape(high)];
    const at = (/** @type {string | number} */ value) => (until > from ? (shape(Number(value)) - from) / (until - from) : 0.5);
    const powers = log ? Array.from({ length: Math.floor(until) - Math.ceil(from) + 1 }, (_, i) => 10 ** (Math.ceil(from) + i)) : [];
    const steps = low === high ? [low] : log ? (powers.length > 1 ? powers : [low, high]) : roundSteps(low, high, most);
    return { kind: log ? 'log' : 'linear', at: (value) => (isNumeric(value) ? at(value) : null), ticks: steps.map((value) => ({ at: at(value), text: figure(value) })) };
  }
  const names = [...new Set(known.map(String))].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
  const place = new Map(names.map((name, i) => [name, (i + 0.5) / names.length]));
  const every = Math.ceil(names.length / (most * 3));
  return { kind: 'names', at: (value) => place.get(String(value)) ?? null, ticks: names.filter((_, i) => i % every === 0).map((text) => ({ at: place.get(text) ?? 0, text })) };
}

/** A colour between two of the style sheet's, for a place from 0 to 1. @param {number | null} at */
export const shade = (at) => (at === null ? 'var(--dim)' : `color-mix(in oklch, var(--curve-1) ${Math.round(at * 100)}%, var(--curve-0))`);
