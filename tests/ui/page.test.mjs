// The page in a browser: against the fixture, or a real server with TIDEMILL_URL (then what needs known data is skipped).
import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { launch } from './browser.mjs';
import { DECISION, PREDICTION, RUN, start } from './fixture.mjs';
import { ink, visit as open } from './visit.mjs';

/** @typedef {import('playwright-core').Page} Page */

const REAL = process.env.TIDEMILL_URL?.replace(/\/+$/, '');
const BUDGET = 60_000;
const skip = REAL ? 'needs the fixture\'s data' : false;

/** @type {import('playwright-core').Browser} */
let browser;
/** @type {Awaited<ReturnType<typeof start>>} */
let fixture;
let origin = REAL ?? '';

before(async () => {
  browser = await launch();
  fixture = await start();
  origin = REAL ?? fixture.url;
});
after(async () => {
  await browser?.close();
  await fixture?.stop();
});

/** @param {string} url @param {(page: Page) => Promise<void>} check @param {Parameters<typeof open>[4]} [options] */
const visit = (url, check, options) => open(browser, origin, url, check, options);

describe('the endpoint page', () => {
  test('shows the metric over time and the month table', async () => {
    await visit('/', async (page) => {
      await page.waitForSelector('#performance canvas');
      assert.ok((await ink(page, '#performance canvas')) > 1000, 'a curve is drawn');
      assert.ok((await page.locator('.marker').count()) > 0, 'events are marked');
      assert.ok((await page.locator('#months tbody tr').count()) > 0, 'months are listed');
      assert.match(await page.locator('#months thead').innerText(), /frozen[\s\S]*Tidemill[\s\S]*Difference[\s\S]*Outcome/);
    });
  });

  test('shows the numbers that the API gave', { skip }, async () => {
    await visit('/', async (page) => {
      const row = page.locator('#months tbody tr', { hasText: '2013-12' });
      await row.waitFor();
      assert.match((await row.innerText()).replaceAll('\u202f', ' '), /0\.6697\s+0\.7320\s+\+0\.0622\s+28 467/);
      assert.match((await page.locator('.tiles').innerText()).replaceAll('\u202f', ' '), /v12[\s\S]*336 776[\s\S]*2013-12-31[\s\S]*virtual/);
      assert.match(await page.title(), /flight-delay · Tidemill/);
    });
  });

  test('shows an event of the stream without a reload', { skip }, async () => {
    await visit('/', async (page) => {
      await page.waitForSelector('.event-list li');
      await page.evaluate(() => Object.assign(globalThis, { kept: true }));
      await page.waitForSelector('.connection.live');
      const requests = /** @type {string[]} */ ([]);
      page.on('request', (request) => requests.push(new URL(request.url()).pathname));
      await page.waitForTimeout(1100);
      for (let i = 0; i < 5; i += 1) fixture.emit({ kind: 'alert.raised', text: `tide is high ${i}`, subject: ['alert', `live-${i}`] });
      await page.getByText('tide is high 4').waitFor({ timeout: 3000 });
      await page.waitForTimeout(1500);
      assert.equal(await page.evaluate(() => /** @type {any} */ (globalThis).kept), true, 'the page was not reloaded');
      const reads = requests.filter((url) => url.endsWith('/timeline')).length;
      assert.ok(reads >= 1 && reads <= 3, `the timeline is read at most once a second, was read ${reads} times`);
      assert.equal(await page.getByText('tide is high 4').count(), 1, 'the event is listed once');
    });
  });

  test('a feature of the drift strip has a URL and a chart', { skip }, async () => {
    await visit('/', async (page) => {
      await page.getByRole('link', { name: /^temp: latest/ }).click();
      await page.waitForSelector('#feature canvas');
      assert.equal(new URL(page.url()).searchParams.get('feature'), 'temp');
      assert.ok((await ink(page, '#feature canvas')) > 500);
      await page.locator('.drift canvas').first().click({ position: { x: 300, y: 10 } });
      await page.waitForFunction(() => location.search === '?feature=dewp');
      await page.goBack();
      await page.getByRole('heading', { name: 'temp' }).waitFor();
    });
  });

  test('filters events by kind, in the URL', { skip }, async () => {
    await visit('/endpoints/flight-delay?tab=events', async (page) => {
      await page.getByLabel('Kind').selectOption('gate.refused');
      await page.waitForFunction(() => location.search.includes('kind=gate.refused'));
      assert.equal(await page.locator('.event-list li').count(), 2);
      await page.locator('.event-list a').first().click();
      await page.getByRole('heading', { name: 'Gate decision' }).waitFor();
      assert.equal(new URL(page.url()).pathname, `/decisions/${DECISION}`);
    });
  });

  test('zooms into the time that was dragged over, in the URL', { skip }, async () => {
    await visit('/', async (page) => {
      const plot = page.locator('#performance .u-over');
      await plot.waitFor();
      const box = await plot.boundingBox();
      assert.ok(box);
      await page.mouse.move(box.x + 100, box.y + 60);
      await page.mouse.down();
      await page.mouse.move(box.x + 300, box.y + 60, { steps: 4 });
      await page.mouse.up();
      await page.waitForFunction(() => /from=2013.*to=2013/.test(location.search));
      await page.getByRole('link', { name: 'Show all time' }).click();
      await page.waitForFunction(() => location.search === '');
    });
  });

  test('can be used with the keyboard alone', async () => {
    await visit('/', async (page) => {
      await page.waitForSelector('.marker');
      await page.keyboard.press('Tab');
      assert.equal(await page.evaluate(() => document.activeElement?.textContent), 'Skip to content');
      await page.locator('.marker[tabindex="0"]').focus();
      const first = await page.evaluate(() => document.activeElement?.getAttribute('aria-label'));
      await page.keyboard.press('ArrowRight');
      const second = await page.evaluate(() => document.activeElement?.getAttribute('aria-label'));
      assert.notEqual(first, second, 'an arrow key goes to the next event');
      await page.waitForSelector('.tip');
      await page.keyboard.press('/');
      assert.equal(await page.evaluate(() => document.activeElement?.id), 'find');
      await page.keyboard.type('no-such-prediction');
      await page.keyboard.press('Enter');
      await page.getByRole('heading', { name: 'Lineage' }).waitFor();
      assert.equal(new URL(page.url()).pathname, '/predictions/no-such-prediction');
      await page.getByRole('alert').waitFor();
      await page.waitForFunction(() => document.activeElement?.tagName === 'H1');
    }, { allowed: /404/ });
  });

  test('is dark where the system is, and as the reader chose', async () => {
    const background = (/** @type {Page} */ page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    await visit('/', async (page) => {
      const dark = await background(page);
      assert.equal(dark, 'rgb(17, 22, 26)');
      await page.locator('.theme-toggle').click();
      await page.locator('.theme-toggle').click();
      assert.equal(await background(page), 'rgb(245, 246, 247)');
      await page.reload();
      await page.waitForSelector('h1');
      assert.equal(await background(page), 'rgb(245, 246, 247)', 'the choice outlives a reload');
    }, { colorScheme: 'dark' });
  });

  test('fits a window of 360 pixels', async () => {
    await visit('/', async (page) => {
      await page.waitForSelector('#months table');
      await page.waitForTimeout(300);
      assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= 360);
    }, { width: 360 });
  });

  test('does not shift while it loads', { skip }, async () => {
    await visit('/endpoints/flight-delay', async (page) => {
      await page.waitForSelector('#performance canvas');
      await page.waitForTimeout(500);
      const shift = await page.evaluate(() => new Promise((done) => {
        let sum = 0;
        new PerformanceObserver((list) => {
          for (const entry of list.getEntries()) sum += /** @type {any} */ (entry).value;
        }).observe({ type: 'layout-shift', buffered: true });
        setTimeout(() => done(sum), 200);
      }));
      assert.ok(Number(shift) < 0.1, `layout shift is ${shift}`);
    });
  });

  test('says what to do where there is nothing yet', { skip }, async () => {
    const empty = await start({ empty: true });
    const full = origin;
    origin = empty.url;
    try {
      await visit('/', async (page) => {
        for (const text of ['No matured window yet', 'No drift window yet', 'No month yet', 'Nothing has happened yet']) await page.getByText(text).waitFor();
      });
    } finally {
      origin = full;
      await empty.stop();
    }
  });
});

describe('the pages of one thing', () => {
  test('a decision shows its checks with intervals', { skip }, async () => {
    await visit(`/decisions/${DECISION}`, async (page) => {
      await page.getByRole('img', { name: 'difference +0.0094, interval +0.0053 to +0.0135, margin −0.0020' }).waitFor();
      assert.equal(await page.locator('.checks tbody tr').count(), 3);
      assert.match(await page.locator('.verdict').innerText(), /pass/);
      await page.getByText('Raw JSON').click();
      await page.getByText('"config_digest"').waitFor();
      await page.getByRole('link', { name: /^run / }).click();
      await page.getByRole('heading', { name: /^Run / }).waitFor();
    });
  });

  test('a run shows its trigger, metrics and steps', { skip }, async () => {
    await visit(`/runs/${RUN}`, async (page) => {
      await page.waitForSelector('#steps tbody tr');
      assert.match(await page.locator('main').innerText(), /drift: 0\.42[\s\S]*1 h 12 min[\s\S]*0\.72750[\s\S]*train/);
      await page.getByRole('link', { name: 'see the evidence' }).waitFor();
    });
  });

  test('a prediction leads to all that led to it', { skip }, async () => {
    await visit('/predictions', async (page) => {
      await page.getByText('Which prediction?').waitFor();
      await page.getByRole('textbox', { name: 'Prediction id' }).fill(PREDICTION);
      await page.getByRole('button', { name: 'Follow' }).click();
      await page.waitForSelector('.flow');
      const titles = await page.locator('.node-title').allInnerTexts();
      assert.deepEqual(titles, ['Prediction', 'Version', 'Run', 'Code and lock', 'Snapshot', 'Validation', 'Labels', 'Decisions', 'Learnt from by']);
      assert.equal(new URL(page.url()).pathname, `/predictions/${PREDICTION}`);
    });
  });

  test('a model shows its versions and aliases', { skip }, async () => {
    await visit('/models/flight-delay?version=10', async (page) => {
      await page.waitForSelector('#version');
      assert.equal(await page.locator('#versions tbody tr').count(), 12);
    });
  });

  test('an unknown id shows what the API says', { skip }, async () => {
    await visit('/runs/nothing', async (page) => {
      await page.getByText('no `/api/v1/runs/nothing`; check the id').waitFor();
    }, { allowed: /404/ });
  });
});

describe('the first load', () => {
  test('stays under 60 kB compressed, and every module is preloaded', async () => {
    /** @type {{url: string, size: number}[]} */
    let files = [];
    await visit('/', async (page) => {
      await page.waitForSelector('#performance');
      await page.waitForTimeout(500);
      const missing = await page.evaluate(() => {
        const named = new Set([...document.querySelectorAll('link[rel=modulepreload], script[src]')].map((e) => /** @type {any} */ (e).href || /** @type {any} */ (e).src));
        return performance.getEntriesByType('resource').map((e) => e.name).filter((url) => url.endsWith('.js') && !named.has(url));
      });
      assert.deepEqual(missing, [], 'index.html preloads every module');
    }, { collect: (all) => { files = all; } });
    const total = files.reduce((sum, file) => sum + file.size, 0);
    console.log(`first load: ${files.length} files, ${total} bytes compressed`);
    console.log(files.map(({ url, size }) => `${size} ${new URL(url).pathname}`).join('\n'));
    assert.ok(files.length > 10 && total < BUDGET, `${total} bytes`);
  });

  test('no source file is longer than 500 lines', async () => {
    const ui = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../ui/src');
    const { readFile } = await import('node:fs/promises');
    for (const name of await readdir(ui, { recursive: true })) {
      if (name.endsWith('.js')) assert.ok((await readFile(path.join(ui, name), 'utf8')).split('\n').length <= 500, name);
    }
  });
});
