// A page's heading; it also names the browser's tab.
import { useEffect } from '../../vendor/hooks.js';
import { html } from '../html.js';

/** @param {{text: string, over?: any, children?: any}} props */
export function Title({ text, over, children }) {
  useEffect(() => {
    document.title = `${text} · Tidemill`;
  }, [text]);
  return html`<div class="title">${over && html`<p class="over">${over}</p>`}<h1 tabindex="-1">${text}</h1>${children}</div>`;
}
