// One page in a browser of its own, and what must hold on every page.
import assert from 'node:assert/strict';
import { gzipSync } from 'node:zlib';

/** @typedef {import('playwright-core').Page} Page */

/**
 * Opens a page, runs the check, and fails if the console showed an error or a request left the origin.
 * @param {import('playwright-core').Browser} browser @param {string} origin @param {string} url @param {(page: Page) => Promise<void>} check
 * @param {{width?: number, colorScheme?: 'light' | 'dark', allowed?: RegExp, collect?: (files: {url: string, size: number}[]) => void}} [options]
 */
export async function visit(browser, origin, url, check, { width = 1280, colorScheme = 'light', allowed, collect } = {}) {
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme });
  const page = await context.newPage();
  /** @type {string[]} */
  const errors = [];
  /** @type {string[]} */
  const strangers = [];
  /** @type {Promise<{url: string, size: number}>[]} */
  const files = [];
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type()) && !allowed?.test(message.text())) errors.push(message.text());
  });
  page.on('pageerror', (error) => errors.push(error.message));
  page.on('request', (request) => {
    if (!request.url().startsWith(`${origin}/`)) strangers.push(request.url());
  });
  page.on('response', (response) => {
    if (response.url().startsWith(`${origin}/`) && !response.url().includes('/api/')) {
      if (collect) files.push(response.body().then((body) => ({ url: response.url(), size: gzipSync(body, { level: 9 }).length })));
    }
  });
  try {
    await page.goto(origin + url);
    await page.waitForSelector('h1');
    await check(page);
    collect?.(await Promise.all(files));
    assert.deepEqual(errors, [], 'the console shows no error');
    assert.deepEqual(strangers, [], 'no request leaves the origin');
  } finally {
    await context.close();
  }
}

/** How many points of a canvas are not transparent. @param {Page} page @param {string} selector */
export const ink = (page, selector) => page.locator(selector).first().evaluate((element) => {
  const canvas = /** @type {HTMLCanvasElement} */ (element);
  const data = canvas.getContext('2d')?.getImageData(0, 0, canvas.width, canvas.height).data ?? new Uint8ClampedArray();
  let inked = 0;
  for (let i = 3; i < data.length; i += 4) if (data[i]) inked += 1;
  return inked;
});

/** Texts that are too pale or too dark to read: WCAG's contrast of 4.5, against the nearest ground that is not transparent. @param {Page} page @returns {Promise<string[]>} */
export const pale = (page) => page.evaluate(() => {
  const canvas = Object.assign(document.createElement('canvas'), { width: 1, height: 1 });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d', { willReadFrequently: true }));
  const rgba = (/** @type {string} */ colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const light = (/** @type {number[]} */ of) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => {
    const part = (of[i] ?? 0) / 255;
    return sum + weight * (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  }, 0);
  const ground = (/** @type {Element | null} */ element) => {
    for (let at = element; at; at = at.parentElement) {
      const found = rgba(getComputedStyle(at).backgroundColor);
      if ((found[3] ?? 0) > 250) return found;
    }
    return rgba(getComputedStyle(document.body).backgroundColor);
  };
  const wrong = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!element || !node.textContent?.trim() || element.closest('svg, script, noscript, .hidden, [hidden], [disabled], .skip, option') || element.getClientRects().length === 0) continue;
    const [a, b] = [light(rgba(getComputedStyle(element).color)), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) wrong.add(`${ratio.toFixed(2)} ${element.tagName}.${element.className}: ${node.textContent.trim().slice(0, 30)}`);
  }
  return [...wrong];
});
