// Screenshots for people to look at: `node shots.mjs FOLDER`.
import { mkdir } from 'node:fs/promises';
import { launch } from './browser.mjs';
import { DECISION, PREDICTION, RUN, start } from './fixture.mjs';
import { runId } from './tracking-fixture.mjs';

const folder = process.argv[2] ?? 'shots';
await mkdir(folder, { recursive: true });
const [full, empty] = [await start(), await start({ empty: true })];
const browser = await launch();
const tracked = `${full.url}/experiments/1/runs/${runId(1)}`;
const compare = `${full.url}/experiments/1/compare?runs=${[2, 3, 4, 5, 6].map(runId).join(',')}`;
/** @type {[string, string, number, 'light' | 'dark'][]} */
const SHOTS = [
  ['endpoint', `${full.url}/?feature=temp`, 1400, 'light'], ['endpoint', `${full.url}/?feature=temp`, 1400, 'dark'], ['endpoint', `${full.url}/`, 360, 'light'], ['endpoint', `${full.url}/`, 360, 'dark'],
  ['decision', `${full.url}/decisions/${DECISION}`, 1200, 'light'], ['decision', `${full.url}/decisions/${DECISION}`, 1200, 'dark'], ['decision', `${full.url}/decisions/${DECISION}`, 360, 'light'],
  ['run', `${full.url}/runs/${RUN}`, 1200, 'light'], ['run', `${full.url}/runs/${RUN}`, 360, 'dark'], ['lineage', `${full.url}/predictions/${PREDICTION}`, 1200, 'light'], ['lineage', `${full.url}/predictions/${PREDICTION}`, 360, 'dark'],
  ['model', `${full.url}/models/flight-delay?version=10`, 1200, 'dark'], ['empty', `${empty.url}/`, 1200, 'light'], ['missing', `${full.url}/runs/nothing`, 800, 'light'],
  ['experiments', `${full.url}/experiments`, 360, 'dark'], ['runs', `${full.url}/experiments/1`, 1280, 'dark'], ['filter', `${full.url}/experiments/1?filter=metrics.auc+>+0.7+AND+foo.x+=+3`, 360, 'light'],
  ['tracked', tracked, 1280, 'dark'], ['tracked', tracked, 360, 'light'], ['charts', `${tracked}?tab=charts&smooth=0.7`, 1280, 'light'], ['charts', `${tracked}?tab=charts`, 360, 'dark'], ['artifacts', `${tracked}?tab=artifacts&path=data.csv`, 1280, 'light'], ['artifacts', `${tracked}?tab=artifacts&path=conf.json`, 360, 'dark'],
  ['compare-charts', `${compare}&metric=auc`, 1280, 'light'], ['compare-table', `${compare}&tab=table`, 1280, 'dark'], ['parallel', `${full.url}/experiments/1/compare?tab=parallel`, 1280, 'dark'], ['parallel', `${full.url}/experiments/1/compare?tab=parallel`, 360, 'light'], ['importance', `${full.url}/experiments/1/compare?tab=importance`, 360, 'dark'],
  ['models', `${full.url}/models`, 360, 'light'], ['models', `${full.url}/models`, 1280, 'dark'], ['version', `${full.url}/models/flight-delay?version=12`, 1280, 'light'], ['version', `${full.url}/models/flight-delay?version=12`, 360, 'dark'], ['diff', `${full.url}/models/flight-delay?version=10&diff=9`, 360, 'light'],
];
for (const [name, url, width, colorScheme] of SHOTS) {
  const page = await browser.newPage({ viewport: { width, height: 900 }, colorScheme });
  page.on('console', (message) => message.type() === 'error' && console.error(name, message.text()));
  page.on('pageerror', (error) => console.error(name, error.message));
  await page.goto(url);
  await page.waitForTimeout(900);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  if (wide > width) console.error(`${name} at ${width}: the page is ${wide} wide`);
  await page.screenshot({ path: `${folder}/${name}-${width}-${colorScheme}.png`, fullPage: true });
  await page.close();
}
await browser.close();
await Promise.all([full.stop(), empty.stop()]);
