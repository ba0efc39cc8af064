// The URL is the page's state: `route` is read from it, `go` and `setParams` write it.
import { signal } from '../vendor/signals.js';

/** @typedef {{path: string, page: string, id: string | null, params: URLSearchParams}} Route */

const PAGES = ['endpoints', 'runs', 'decisions', 'predictions', 'models'];

/** @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** @returns {Route} */
function read() {
  const [noun = '', ...rest] = location.pathname.replace(/^\/+|\/+$/g, '').split('/');
  const page = noun === '' ? 'home' : PAGES.includes(noun) ? noun : 'unknown';
  const id = rest.length > 0 ? decoded(rest.join('/')) : null;
  return { path: location.pathname, page, id, params: new URLSearchParams(location.search) };
}

/** Where we are. */
export const route = signal(read());

/** Goes to another page. @param {string} url @param {boolean} [replace] */
export function go(url, replace = false) {
  const before = location.pathname;
  history[replace ? 'replaceState' : 'pushState'](null, '', url);
  route.value = read();
  if (location.pathname !== before) scrollTo(0, 0);
}

/** The current URL with other parameters; null takes one away. @param {Record<string, string | null>} changes */
export function withParams(changes) {
  const params = new URLSearchParams(route.value.params);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === '') params.delete(name);
    else params.set(name, value);
  }
  const query = params.toString();
  return route.value.path + (query ? `?${query}` : '');
}

/** @param {Record<string, string | null>} changes @param {boolean} [replace] */
export const setParams = (changes, replace = false) => go(withParams(changes), replace);

/** A page's URL: `link('runs', id)`. @param {string} noun @param {unknown} id */
export const link = (noun, id) => `/${noun}/${encodeURIComponent(String(id))}`;

addEventListener('popstate', () => {
  route.value = read();
});

// Plain links between our own pages change the URL without a reload.
addEventListener('click', (event) => {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const anchor = event.target instanceof Element ? event.target.closest('a') : null;
  const href = anchor?.getAttribute('href');
  if (!href || !href.startsWith('/') || href.startsWith('/api/') || anchor?.hasAttribute('target')) return;
  event.preventDefault();
  go(href);
});
