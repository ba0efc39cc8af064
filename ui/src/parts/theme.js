// Light, dark or as the system says; kept in the browser.
import { signal } from '../../vendor/signals.js';
import { html } from '../html.js';

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
