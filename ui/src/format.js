// Numbers, times and names as people read them. Every function answers `–` for what is missing.

export const MISSING = '–';
const grouped = new Intl.NumberFormat('en-GB');

/** @param {unknown} value @returns {value is number} */
export const isNumber = (value) => typeof value === 'number' && Number.isFinite(value);

/** A count: `336 776`. @param {unknown} value */
export const count = (value) => (isNumber(value) ? grouped.format(value).replaceAll(',', '\u202f') : MISSING);

/** A metric: four digits after the point. @param {unknown} value @param {number} [digits] */
export const metric = (value, digits = 4) => (isNumber(value) ? value.toFixed(digits).replace('-', '−') : MISSING);

/** A difference with its sign. @param {unknown} value @param {number} [digits] */
export function signed(value, digits = 4) {
  if (!isNumber(value)) return MISSING;
  const text = metric(value, digits);
  return value > 0 ? `+${text}` : text;
}

/** A share of one as per cent. @param {unknown} value @param {number} [digits] */
export const percent = (value, digits = 0) => (isNumber(value) ? `${(value * 100).toFixed(digits)} %` : MISSING);

/** Any number: at most five significant digits. @param {unknown} value */
export function number(value) {
  if (!isNumber(value)) return MISSING;
  if (Number.isInteger(value)) return count(value);
  const size = Math.abs(value);
  if (size >= 1e4) return count(Math.round(value));
  if (size < 1e-4) return value.toExponential(2).replace('-', '−');
  return String(Number(value.toPrecision(5))).replace('-', '−');
}

/** Seconds since the epoch, NaN where there is no time. @param {unknown} at */
export const seconds = (at) => (typeof at === 'string' ? Date.parse(at) / 1000 : isNumber(at) ? at / 1000 : NaN);

/** `2013-05-17 10:00`, UTC. @param {unknown} at */
export function time(at) {
  const date = new Date(typeof at === 'string' ? at : isNumber(at) ? at : NaN);
  return Number.isNaN(date.getTime()) ? MISSING : date.toISOString().slice(0, 16).replace('T', ' ');
}

/** `2013-05-17`, UTC. @param {unknown} at */
export const day = (at) => time(at).slice(0, 10);

/** The time between two times: `3 h 20 min`. @param {unknown} from @param {unknown} until */
export function duration(from, until) {
  const span = seconds(until) - seconds(from);
  if (!Number.isFinite(span) || span < 0) return MISSING;
  if (span < 1) return `${Math.round(span * 1000)} ms`;
  if (span < 60) return `${span.toFixed(1)} s`;
  if (span < 3600) return `${Math.floor(span / 60)} min ${Math.round(span % 60)} s`;
  if (span < 86400) return `${Math.floor(span / 3600)} h ${Math.round((span % 3600) / 60)} min`;
  return `${(span / 86400).toFixed(1)} days`;
}

/** `v3`; version 0 is the endpoint's default answer. @param {unknown} version */
export const version = (version) =>
  version === null || version === undefined ? MISSING : version === 0 ? 'default answer' : `v${version}`;

/** The first digits of an id or digest, enough to tell it from others. @param {unknown} id */
export function short(id) {
  if (typeof id !== 'string') return MISSING;
  const [, scheme = '', digits = id] = /^(sha256:|blake3:)?(.*)$/.exec(id) ?? [];
  return digits.length > 16 ? `${scheme}${digits.slice(0, 12)}…` : id;
}
