// The parts that every page uses: htm, theme, tooltip, title, panels, values.
import { h, htm, signal, useEffect, useLayoutEffect, useRef, useState } from '../vendor/preact.js';
import { arrival, MISSING } from './client.js';

/** @type {(strings: TemplateStringsArray, ...values: any[]) => any} */
export const html = htm.bind(/** @type {any} */ (h));

const KEY = 'tidemill-theme';
const system = matchMedia('(prefers-color-scheme: dark)');

/** `light`, `dark`, or `auto` for the system's choice. */
export const theme = signal(document.documentElement.dataset.theme ?? 'auto');
/** Counts changes of colours, so that what is drawn on a canvas is drawn again. */
export const paint = signal(0);

system.addEventListener('change', () => paint.value++);

/** @param {string} value */
function choose(value) {
  theme.value = value;
  if (value === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = value;
  try {
    if (value === 'auto') localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, value);
  } catch {
    // Storage may be forbidden; the choice then lasts as long as the page.
  }
  paint.value++;
}

/** A colour of the style sheet. @param {string} name */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim() || '#888';

/** The button that goes through the themes. */
export function ThemeToggle() {
  const next = { auto: 'dark', dark: 'light', light: 'auto' }[theme.value] ?? 'auto';
  const icon = { auto: '◐', dark: '☾', light: '☀' }[theme.value];
  return html`<button type="button" class="theme-toggle" title=${`Theme: ${theme.value}; switch to ${next}`}
    aria-label=${`Theme: ${theme.value}. Switch to ${next}`} onClick=${() => choose(next)}>
    <span aria-hidden="true">${icon}</span></button>`;
}

/** What the tooltip shows and where, in pixels of the window; null hides it. */
export const tip = signal(/** @type {{x: number, y: number, body: any} | null} */ (null));

/** Shows a tooltip above an element. @param {Element} element @param {any} body */
export function tipAt(element, body) {
  const box = element.getBoundingClientRect();
  tip.value = { x: box.left + box.width / 2, y: box.top, body };
}

export const hideTip = () => {
  tip.value = null;
};

addEventListener('scroll', hideTip, { passive: true, capture: true });
addEventListener('keydown', (event) => event.key === 'Escape' && hideTip());

export function Tip() {
  const box = useRef(/** @type {HTMLDivElement | null} */ (null));
  const shown = tip.value;
  useLayoutEffect(() => {
    const element = box.current;
    if (!element || !shown) return;
    const { width, height } = element.getBoundingClientRect();
    const left = Math.max(8, Math.min(innerWidth - width - 8, shown.x - width / 2));
    const above = shown.y - height - 12;
    element.style.transform = `translate(${Math.round(left)}px, ${Math.round(above < 8 ? shown.y + 24 : above)}px)`;
  });
  return shown && html`<div class="tip" role="tooltip" ref=${box}>${shown.body}</div>`;
}

/** @param {{text: string, over?: any, children?: any}} props */
export function Title({ text, over, children }) {
  const heading = useRef(/** @type {HTMLHeadingElement | null} */ (null));
  useEffect(() => {
    document.title = `${text} · Tidemill`;
  }, [text]);
  useEffect(() => {
    if (!arrival.pending) return;
    arrival.pending = false;
    heading.current?.focus({ preventScroll: true });
  }, []);
  return html`<div class="title">${over && html`<p class="over">${over}</p>`}<h1 tabindex="-1" ref=${heading}>${text}</h1>${children}</div>`;
}

/** @param {{title: any, id?: string, aside?: any, children?: any, class?: string}} props */
export const Panel = ({ title, id, aside, children, class: className = '' }) => html`
  <section class=${`panel ${className}`} aria-labelledby=${id && `${id}-title`} id=${id}>
    <header class="panel-head"><h2 id=${id && `${id}-title`}>${title}</h2>${aside && html`<div class="panel-aside">${aside}</div>`}</header>
    ${children}
  </section>`;

/** @param {{title: string, children?: any}} props */
export const Empty = ({ title, children }) => html`<div class="empty"><p class="empty-title">${title}</p><p>${children}</p></div>`;

/** @param {{error: {message: string, status?: number}, what: string}} props */
export const Failure = ({ error, what }) => html`
  <div class="failure" role="alert"><strong>${what} could not be read.</strong> <span>${error.message}</span></div>`;

/** @param {{height?: number}} props */
export const Waiting = ({ height = 240 }) => html`<div class="waiting" style=${{ height: `${height}px` }} role="status"><span class="hidden">Loading</span></div>`;

/** @type {Record<string, string>} */
const TONES = {
  pass: 'good', passed: 'good', finished: 'good', succeeded: 'good', success: 'good', promoted: 'good', promote: 'good', ok: 'good', valid: 'good', completed: 'good',
  fail: 'bad', failed: 'bad', refused: 'bad', rolled_back: 'bad', roll_back: 'bad', rollback: 'bad', invalid: 'bad', quarantined: 'bad', error: 'bad', aborted: 'bad',
  inconclusive: 'warn', holding: 'warn', hold: 'warn', cancelled: 'warn', alert: 'warn', insufficient: 'warn', continue: 'info',
  running: 'info', canary: 'info', shadow: 'info', queued: 'quiet',
};

/** A state or verdict as a coloured word. @param {{value: unknown, tone?: string}} props */
export function Badge({ value, tone }) {
  const text = typeof value === 'boolean' ? (value ? 'passed' : 'failed') : String(value ?? MISSING);
  return html`<span class=${`badge ${tone ?? TONES[text.toLowerCase()] ?? 'quiet'}`}>${text.replaceAll('_', ' ')}</span>`;
}

/** A table that scrolls sideways where it does not fit. @param {{label: string, children?: any, class?: string}} props */
export const Scroll = ({ label, children, class: className = '' }) => html`<div class=${`scroll ${className}`} role="region" aria-label=${label} tabindex="0">${children}</div>`;

/** A part that is loaded when it is first shown. @param {{of: () => Promise<any>, [prop: string]: any}} props */
export function Later({ of, ...props }) {
  const [part, setPart] = useState(/** @type {{view: any} | null} */ (null));
  useEffect(() => {
    of().then((view) => setPart({ view }), () => setPart({ view: NotLoaded }));
  }, [of]);
  return part ? html`<${part.view} ...${props} />` : html`<${Waiting} height=${props.height ?? 420} />`;
}

const NotLoaded = () => html`<${Empty} title="This part could not be loaded">Check that the server is running, then reload the page.</${Empty}>`;
