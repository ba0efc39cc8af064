// Screenshots for people to look at: `node shots.mjs FOLDER`.
import { mkdir } from 'node:fs/promises';
import { launch } from './browser.mjs';
import { DECISION, PREDICTION, RUN, start } from './fixture.mjs';

const folder = process.argv[2] ?? 'shots';
await mkdir(folder, { recursive: true });
const [full, empty] = [await start(), await start({ empty: true })];
const browser = await launch();
/** @type {[string, string, number, 'light' | 'dark'][]} */
const SHOTS = [
  ['endpoint', `${full.url}/?feature=temp`, 1400, 'light'], ['endpoint', `${full.url}/?feature=temp`, 1400, 'dark'], ['endpoint', `${full.url}/`, 360, 'light'], ['endpoint', `${full.url}/`, 360, 'dark'],
  ['decision', `${full.url}/decisions/${DECISION}`, 1200, 'light'], ['decision', `${full.url}/decisions/${DECISION}`, 1200, 'dark'], ['decision', `${full.url}/decisions/${DECISION}`, 360, 'light'],
  ['run', `${full.url}/runs/${RUN}`, 1200, 'light'], ['run', `${full.url}/runs/${RUN}`, 360, 'dark'], ['lineage', `${full.url}/predictions/${PREDICTION}`, 1200, 'light'], ['lineage', `${full.url}/predictions/${PREDICTION}`, 360, 'dark'],
  ['model', `${full.url}/models/flight-delay?version=10`, 1200, 'dark'], ['empty', `${empty.url}/`, 1200, 'light'], ['missing', `${full.url}/runs/nothing`, 800, 'light'],
];
for (const [name, url, width, colorScheme] of SHOTS) {
  const page = await browser.newPage({ viewport: { width, height: 900 }, colorScheme });
  page.on('console', (message) => message.type() === 'error' && console.error(name, message.text()));
  page.on('pageerror', (error) => console.error(name, error.message));
  await page.goto(url);
  await page.waitForTimeout(500);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  if (wide > width) console.error(`${name} at ${width}: the page is ${wide} wide`);
  await page.screenshot({ path: `${folder}/${name}-${width}-${colorScheme}.png`, fullPage: true });
  await page.close();
}
await browser.close();
await Promise.all([full.stop(), empty.stop()]);
