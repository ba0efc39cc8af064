// The one tooltip of the page.
import { signal } from '../../vendor/signals.js';
import { useLayoutEffect, useRef } from '../../vendor/hooks.js';
import { html } from '../html.js';

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
