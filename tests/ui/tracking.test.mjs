// The pages of tracking and registry in a browser, against a small stand-in of MLflow's API.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { complete, place, tokens } from '../../ui/src/tracking/filter.js';
import { chance, correlationRatio, ranks, spearman } from '../../ui/src/tracking/stats.js';
import { launch } from './browser.mjs';
import { start } from './fixture.mjs';
import { LONG, runId, RUNS } from './tracking-fixture.mjs';
import { ink, pale, visit as open } from './visit.mjs';

/** @typedef {import('playwright-core').Page} Page */

/** @type {import('playwright-core').Browser} */
let browser;
/** @type {Awaited<ReturnType<typeof start>>} */
let fixture;

before(async () => {
  browser = await launch();
  fixture = await start();
});
after(async () => {
  await browser?.close();
  await fixture?.stop();
});

/** @param {string} url @param {(page: Page) => Promise<void>} check @param {Parameters<typeof open>[4]} [options] */
const visit = (url, check, options) => open(browser, fixture.url, url, check, options);
const plain = (/** @type {string} */ text) => text.replaceAll('\u202f', ' ');
const param = (/** @type {Page} */ page, /** @type {string} */ name) => new URL(page.url()).searchParams.get(name);
const KEYS = { metrics: ['auc', 'val loss'], params: ['boosting', 'rate'], tags: ['team'] };
/** The offers at the end of a filter. @param {string} text */
const offers = (text) => complete(text, text.length, KEYS, () => ['gbdt', 'dart']).offers.map((offer) => offer.text);

describe('the filter grammar', () => {
  test('is read into tokens', () => {
    assert.deepEqual(tokens("metrics.auc>=0.7 AND tags.`a b` = 'x y'").map((t) => [t.kind, t.text]), [['word', 'metrics.auc'], ['op', '>='], ['number', '0.7'], ['word', 'AND'], ['word', 'tags.`a b`'], ['op', '='], ['string', "'x y'"]]);
    assert.equal(tokens("params.a = 'unfinished").at(-1)?.text, "'unfinished");
  });

  test('offers what may come next', () => {
    assert.deepEqual(offers('metrics.'), ['metrics.auc', 'metrics.`val loss`']);
    assert.deepEqual(offers('loss').slice(0, 1), ['metrics.`val loss`']);
    assert.deepEqual(offers('metrics.auc '), ['=', '!=', '>', '>=', '<', '<=']);
    assert.deepEqual(offers('params.boosting '), ['=', '!=', 'LIKE', 'ILIKE', 'IS NULL', 'IS NOT NULL']);
    assert.deepEqual(offers('params.boosting = '), ["'gbdt'", "'dart'"]);
    assert.deepEqual(offers('status = '), ["'RUNNING'", "'FINISHED'", "'FAILED'", "'SCHEDULED'", "'KILLED'"]);
    assert.deepEqual(offers('metrics.auc > 0.7 '), ['AND']);
    assert.ok(offers('metrics.auc > 0.7 AND ').includes('tags.team'));
    assert.deepEqual(offers('metrics.auc > '), []);
  });

  test('finds the place of an error', () => {
    const filter = 'metrics.auc > 0.7 AND foo.x = 3';
    const at = (/** @type {string} */ message) => filter.slice(...(place(filter, message) ?? [0, 0]));
    assert.equal(at("Invalid entity type 'foo'. Valid values are ['metric', 'parameter']"), 'foo');
    assert.equal(at("Invalid clause(s) in filter string: 'foo.x = 3'"), 'foo.x = 3');
    assert.equal(place(filter, 'something is wrong'), null);
    assert.deepEqual(place("metrics.model = 'LR'", "Expected numeric value type for metric. Found 'LR'"), [16, 20]);
    assert.deepEqual(place('1.0 > metrics.acc', "Invalid comparison clause. Expected 'Identifier' found '1.0'"), [0, 3]);
    assert.deepEqual(place("params.abc not like 'x'", "Invalid comparator 'NOT LIKE' not one of {'=', '!='}"), [11, 19]);
    assert.deepEqual(place("params.a = 'b", 'something is wrong'), [11, 13]);
  });
});

describe('the measures of importance', () => {
  test('are what the formulas give', () => {
    assert.deepEqual(ranks([10, 20, 10, 5]), [2.5, 4, 2.5, 1]);
    assert.equal(spearman([1, 2, 3, 4], [10, 100, 1000, 1e9]), 1);
    assert.ok(Math.abs((spearman([1, 2, 3, 4, 5], [5, 6, 7, 8, 7]) ?? 0) - 0.8207826816681233) < 1e-12);
    assert.equal(spearman([1, 1, 1], [1, 2, 3]), null);
    // Ranks 1, 2 | 3, 4: 4 of 5 of the variance lies between the groups.
    assert.ok(Math.abs((correlationRatio(['a', 'a', 'b', 'b'], [1, 2, 3, 4]) ?? 0) - Math.sqrt(0.8)) < 1e-12);
    assert.ok(Math.abs(chance(101, 1) - Math.sqrt(3.841 / 100)) < 1e-12);
    assert.ok(Math.abs(chance(101, 4) ** 2 * 100 - 9.488) < 0.05, 'chi-square with 4 degrees');
  });
});

describe('the list of experiments', () => {
  test('is where a server without a project begins', async () => {
    const bare = await start({ tracks: true });
    try {
      await open(browser, bare.url, '/', async (page) => {
        await page.getByRole('link', { name: 'flight-delay' }).waitFor();
        assert.deepEqual(await page.locator('nav[aria-label=Main] a').allInnerTexts(), ['Experiments', 'Models', 'Lineage']);
      });
    } finally {
      await bare.stop();
    }
  });

  test('searches, and keeps the search in the URL', async () => {
    await visit('/experiments', async (page) => {
      await page.getByRole('link', { name: 'flight-delay' }).waitFor();
      assert.equal(await page.locator('#list tbody tr').count(), 2, 'what is deleted is not listed');
      await page.getByRole('searchbox', { name: 'Search by name' }).fill('FLIGHT');
      await page.waitForFunction(() => document.querySelectorAll('#list tbody tr').length === 1);
      assert.equal(param(page, 'q'), 'FLIGHT');
      await page.getByRole('searchbox', { name: 'Search by name' }).fill('nothing');
      await page.getByText('No experiment has such a name').waitFor();
    });
  });

  test('creates, renames, tags, deletes and restores', async () => {
    await visit('/experiments', async (page) => {
      await page.getByRole('button', { name: 'New experiment' }).click();
      await page.getByLabel('Name', { exact: true }).fill('flight-delay');
      await page.keyboard.press('Enter');
      await page.getByRole('alert').filter({ hasText: "Experiment 'flight-delay' already exists." }).waitFor();
      await page.getByLabel('Name', { exact: true }).fill('ships');
      await page.keyboard.press('Enter');
      await page.getByRole('button', { name: 'Rename ships' }).click();
      await page.getByLabel('New name').fill('boats');
      await page.getByRole('button', { name: 'Rename', exact: true }).click();
      await page.getByRole('button', { name: 'Tags boats' }).click();
      await page.getByText('Add or change a tag').click();
      await page.getByLabel('Key').fill('sea');
      await page.getByLabel('Value').fill('north');
      await page.getByRole('button', { name: 'Set tag' }).click();
      await page.locator('.tag-list').getByText('north').waitFor();
      await page.keyboard.press('Escape');
      await page.waitForFunction(() => !document.querySelector('dialog'));
      await page.getByRole('button', { name: 'Delete boats' }).click();
      await page.getByRole('button', { name: 'Delete', exact: true }).click();
      await page.waitForFunction(() => !document.body.innerText.includes('boats'));
      await page.getByLabel('Show').selectOption('deleted');
      await page.getByRole('button', { name: 'Restore boats' }).click();
      await page.waitForFunction(() => !document.body.innerText.includes('boats'));
    }, { allowed: /400/ });
  });
});

const ready = (/** @type {Page} */ page) => page.waitForSelector('.runs-table tr[data-row]');

describe('the table of runs', () => {
  test('scrolls through 10,000 runs with few rows in the document', async () => {
    await visit('/experiments/1?live=off', async (page) => {
      await ready(page);
      const rows = () => page.locator('.runs-table tr[data-row]').count();
      assert.ok((await rows()) < 80);
      await page.getByRole('button', { name: 'Load all' }).click();
      await page.getByText('10 000 runs').or(page.getByText('10\u202f000 runs')).waitFor({ timeout: 20_000 });
      assert.ok((await rows()) < 80, 'all are loaded, few are in the document');
      const took = await page.evaluate(async () => {
        const box = /** @type {HTMLElement} */ (document.querySelector('.runs-table'));
        const times = [];
        for (let i = 1; i <= 40; i += 1) {
          const before = performance.now();
          box.scrollTop = (box.scrollHeight * i) / 40;
          await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
          times.push(performance.now() - before);
        }
        return times.sort((a, b) => a - b)[20] ?? 0;
      });
      await page.getByRole('link', { name: 'lgbm-0', exact: true }).waitFor();
      assert.ok((await rows()) < 80);
      assert.equal(await page.locator('tr[aria-rowindex="10001"]').count(), 1, 'the last row says which it is');
      console.log(`a jump of 250 rows is drawn in ${took.toFixed(0)} ms (median)`);
      assert.ok(took < 500, `a jump took ${took} ms`);
    });
  });

  test('loads more as one scrolls', async () => {
    await visit('/experiments/1?live=off', async (page) => {
      await ready(page);
      for (let i = 0; i < 3; i += 1) {
        await page.locator('.runs-table').evaluate((box) => { box.scrollTop = box.scrollHeight; });
        await page.waitForTimeout(200);
      }
      await page.waitForFunction(() => /^[2-9].250\+ runs|^[2-9]250\+ runs/.test(document.querySelector('.told')?.textContent ?? ''));
    });
  });

  test('shows the error of the server at its place', async () => {
    await visit('/experiments/1?live=off', async (page) => {
      await ready(page);
      await page.getByRole('combobox', { name: /Filter runs/ }).fill('metrics.auc > 0.7 AND foo.x = 3');
      await page.keyboard.press('Enter');
      await page.getByRole('alert').filter({ hasText: "Invalid entity type 'foo'" }).waitFor();
      assert.equal(await page.locator('.filter-error mark').innerText(), 'foo');
      assert.equal(await page.locator('#filter').getAttribute('aria-invalid'), 'true');
      assert.equal(param(page, 'filter'), 'metrics.auc > 0.7 AND foo.x = 3');
      await page.getByRole('button', { name: 'Clear' }).click();
      await ready(page);
      assert.equal(await page.locator('.filter-error').count(), 0);
    }, { allowed: /400/ });
  });

  test('completes a filter by the keyboard alone', async () => {
    await visit('/experiments/1?live=off', async (page) => {
      await ready(page);
      await page.locator('#filter').focus();
      await page.keyboard.type('boos');
      await page.getByRole('option', { name: /params.boosting/ }).waitFor();
      await page.keyboard.press('ArrowDown');
      assert.ok(await page.locator('#filter').getAttribute('aria-activedescendant'));
      await page.keyboard.press('Enter');
      await page.keyboard.type('= ');
      await page.keyboard.press('ArrowDown');
      await page.keyboard.press('Enter');
      assert.match(await page.locator('#filter').inputValue(), /^params\.boosting = '(gbdt|dart)' $/);
      await page.keyboard.press('Enter');
      await page.waitForFunction(() => location.search.includes('filter=params.boosting'));
      await ready(page);
      assert.ok((await page.locator('.runs-table').innerText()).includes('lgbm-'));
    });
  });

  test('sorts by a column, and says so', async () => {
    await visit('/experiments/1?live=off', async (page) => {
      await ready(page);
      const head = page.getByRole('columnheader', { name: 'auc' });
      await head.getByRole('button').click();
      await page.waitForFunction(() => location.search.includes('order=-m'));
      await ready(page);
      assert.equal(await head.getAttribute('aria-sort'), 'descending');
      const values = (await page.locator('.runs-table tr[data-row] td:nth-child(6)').allInnerTexts()).map(Number);
      assert.ok(values.length > 10 && values.every((value, i) => i === 0 || value <= (values[i - 1] ?? 0)), values.join(' '));
    });
  });

  test('chooses columns, in the URL', async () => {
    await visit('/experiments/1?live=off', async (page) => {
      await ready(page);
      await page.getByRole('button', { name: 'Columns' }).click();
      await page.getByRole('searchbox', { name: 'Find a column' }).fill('team');
      await page.getByRole('checkbox', { name: 'team' }).check();
      await page.getByRole('button', { name: 'Hide loss' }).click();
      await page.getByRole('button', { name: 'Move team to the left' }).click();
      await page.keyboard.press('Escape');
      await page.waitForFunction(() => !document.querySelector('dialog'));
      const heads = await page.locator('.runs-table thead th').allInnerTexts();
      assert.ok(heads.includes('team') && !heads.includes('loss'), heads.join());
      assert.match(param(page, 'cols') ?? '', /t:team/);
      await page.reload();
      await ready(page);
      assert.deepEqual(await page.locator('.runs-table thead th').allInnerTexts(), heads);
    });
  });

  test('moves, selects and opens by the keyboard', async () => {
    await visit('/experiments/1?live=off', async (page) => {
      await ready(page);
      const focused = () => page.evaluate(() => document.activeElement?.textContent);
      await page.locator('.runs-table tr[data-row="0"] a').focus();
      await page.keyboard.press('ArrowDown');
      assert.equal(await focused(), `lgbm-${RUNS - 2}`);
      await page.keyboard.press(' ');
      await page.keyboard.press('PageDown');
      await page.keyboard.press('PageDown');
      assert.notEqual(await focused(), `lgbm-${RUNS - 2}`);
      await page.keyboard.press('Shift+ ');
      assert.match(await page.locator('.toolbar').innerText(), /[2-9]\d selected/);
      await page.keyboard.press('Home');
      assert.equal(await focused(), `lgbm-${RUNS - 1}`);
      await page.keyboard.press('Enter');
      await page.getByRole('heading', { name: `lgbm-${RUNS - 1}` }).waitFor();
      assert.equal(new URL(page.url()).pathname, `/experiments/1/runs/${runId(0)}`);
    });
  });

  test('deletes runs and brings them back', async () => {
    await visit('/experiments/1?live=off', async (page) => {
      await ready(page);
      await page.getByRole('checkbox', { name: `Select lgbm-${RUNS - 13}` }).check();
      await page.getByRole('button', { name: 'Delete', exact: true }).click();
      await page.getByRole('button', { name: 'Delete 1 run' }).click();
      await page.waitForFunction((name) => !document.querySelector('dialog') && document.querySelector('.runs-table') && !document.body.innerText.includes(name), `lgbm-${RUNS - 13}`);
      await page.getByLabel('Show').selectOption('deleted');
      await page.getByRole('checkbox', { name: `Select lgbm-${RUNS - 13}` }).check();
      await page.getByRole('button', { name: 'Restore', exact: true }).click();
      await page.getByRole('button', { name: 'Restore 1 run' }).click();
      await page.getByText('No run is deleted').waitFor();
    });
  });

  test('adds new runs above, and keeps in place what is looked at', async () => {
    await visit('/experiments/1', async (page) => {
      await ready(page);
      await page.locator('.runs-table').evaluate((box) => { box.scrollTop = 1650; });
      const name = `lgbm-${RUNS - 1 - 55}`;
      const before = (await page.getByRole('link', { name, exact: true }).boundingBox())?.y;
      const first = /** @type {any} */ (fixture.tracked.runs[0]);
      const added = structuredClone(first);
      Object.assign(added.info, { run_id: 'f'.repeat(32), run_name: 'brand new', start_time: first.info.start_time + 1000 });
      fixture.tracked.runs.unshift(added);
      try {
        await page.waitForFunction(() => /251/.test(document.querySelector('.told')?.textContent ?? ''), null, { timeout: 9000 });
        assert.equal((await page.getByRole('link', { name, exact: true }).boundingBox())?.y, before);
        await page.locator('.runs-table').evaluate((box) => { box.scrollTop = 0; });
        await page.getByRole('link', { name: 'brand new' }).waitFor();
      } finally {
        fixture.tracked.runs.shift();
      }
    });
  });

  test('shows what running runs tell, without a reload', async () => {
    await visit('/experiments/1?filter=attributes.status+%3D+%27RUNNING%27', async (page) => {
      await page.getByText('running').waitFor();
      const run = /** @type {any} */ (fixture.tracked.runs[0]);
      const before = run.data.metrics[0].value;
      run.data.metrics[0].value = 0.98765;
      try {
        await page.getByText('0.98765').waitFor({ timeout: 9000 });
      } finally {
        run.data.metrics[0].value = before;
      }
    });
  });
});

const RUN = `/experiments/1/runs/${runId(1)}`;

describe('a tracked run', () => {
  test('shows what it was told', async () => {
    await visit(RUN, async (page) => {
      await page.waitForSelector('#around a[href^="/models/"]');
      await page.getByRole('heading', { name: 'Child runs' }).waitFor();
      const text = plain(await page.locator('main').innerText());
      for (const part of ['lgbm-9998', 'finished', 'learning_rate', 'train.py', 'flights', 'training', 'flight-delay v10', 'ops', 'lgbm-9968']) assert.ok(text.includes(part), part);
      await page.getByRole('link', { name: 'auc', exact: true }).click();
      await page.waitForSelector('.chart-card canvas');
      assert.equal(param(page, 'metric'), 'auc');
    });
  });

  test('draws a history of 50,000 points with few of them, and answers at once', async () => {
    await visit(`${RUN}?tab=charts&metric=long`, async (page) => {
      await page.waitForSelector('.chart-card canvas');
      assert.ok((await ink(page, '.chart-card canvas')) > 3000, 'a curve is drawn');
      assert.match(plain(await page.locator('.caption').innerText()), new RegExp(`${LONG / 1000} 000 points in 1 201 stretches: the line goes through the mean of each`));
      assert.ok((await page.locator('.chart-card *').count()) < 40, 'the curve is no part of the document');
      const took = await page.evaluate(async () => {
        const before = performance.now();
        /** @type {HTMLInputElement} */ (document.querySelector('input[type=checkbox]')).click();
        await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
        return performance.now() - before;
      });
      assert.ok(took < 1000, `a change took ${took} ms`);
      await page.waitForFunction(() => location.search.includes('log=1'));
      assert.match(await page.locator('.caption').innerText(), /not above 0/);
    });
  });

  test('reads more of what one zooms into, in the URL', async () => {
    await visit(`${RUN}?tab=charts&metric=long`, async (page) => {
      await page.waitForSelector('.chart-card canvas');
      const box = await page.locator('.chart-card .u-over').boundingBox();
      assert.ok(box);
      await page.mouse.move(box.x + 200, box.y + 60);
      await page.mouse.down();
      await page.mouse.move(box.x + 214, box.y + 60, { steps: 3 });
      await page.mouse.up();
      await page.waitForFunction(() => /steps=\d+/.test(location.search));
      const [from = 0, to = 0] = (param(page, 'steps') ?? '').split('~').map(Number);
      assert.ok(to - from > 100 && to - from < 1200, `${from} to ${to}`);
      // Few steps are left: each point is drawn as it was logged.
      await page.waitForFunction(() => document.querySelector('.caption')?.textContent === '');
      await page.getByRole('link', { name: 'Show all steps' }).click();
      await page.waitForFunction(() => document.querySelector('.caption')?.textContent?.includes('stretches'));
    });
  });

  test('says that a curve is smoothed, and is read by the keyboard', async () => {
    await visit(`${RUN}?tab=charts&metric=auc&smooth=0.6`, async (page) => {
      await page.waitForSelector('.chart-card canvas');
      assert.match(await page.locator('.caption').innerText(), /smoothed \(exponential, 0\.6\); the pale line is what was logged/);
      await page.locator('.metric-chart').focus();
      await page.keyboard.press('End');
      await page.waitForSelector('.tip');
      assert.match(await page.locator('.tip').innerText(), /step 199[\s\S]*logged/);
      const last = await page.locator('.tip').innerText();
      await page.keyboard.press('ArrowLeft');
      await page.waitForFunction((text) => document.querySelector('.tip')?.textContent?.includes('198') && document.querySelector('.tip')?.textContent !== text, last);
    });
  });

  test('keeps system metrics apart', async () => {
    await visit(`${RUN}?tab=system`, async (page) => {
      await page.waitForSelector('.chart-card canvas');
      assert.deepEqual(await page.locator('.chart-card h2').allInnerTexts(), ['system/cpu_utilization_percentage']);
    });
  });

  test('is renamed and tagged', async () => {
    await visit(`/experiments/1/runs/${runId(30)}`, async (page) => {
      await page.getByRole('button', { name: 'Rename' }).click();
      await page.getByLabel('New name').fill('the best one');
      await page.keyboard.press('Enter');
      await page.getByRole('heading', { name: 'the best one' }).waitFor();
      await page.getByRole('button', { name: 'Remove the tag team' }).click();
      await page.getByText('No tags yet.').waitFor();
    });
  });

  test('that is not there says so', async () => {
    await visit('/experiments/1/runs/nothing', async (page) => {
      await page.getByText('No run with id nothing').waitFor();
    }, { allowed: /404/ });
  });
});

describe('artifacts', () => {
  const at = (/** @type {string} */ path) => `${RUN}?tab=artifacts&path=${encodeURIComponent(path)}`;

  test('are a tree, and a file has a URL', async () => {
    await visit(`${RUN}?tab=artifacts`, async (page) => {
      await page.getByRole('button', { name: 'plots' }).click();
      await page.getByRole('link', { name: /dot\.png/ }).click();
      await page.waitForFunction(() => /** @type {HTMLImageElement | null} */ (document.querySelector('img.picture'))?.naturalWidth === 10);
      assert.equal(param(page, 'path'), 'plots/dot.png');
      assert.match((await page.getByRole('link', { name: 'Download' }).getAttribute('href')) ?? '', /get-artifact.*plots%2Fdot\.png$/);
    });
  });

  test('of HTML run no script', async () => {
    await visit(at('report.html'), async (page) => {
      const frame = page.frameLocator('iframe');
      await frame.getByText('All is well.').waitFor();
      await frame.getByRole('heading', { name: 'Report' }).click();
      await page.waitForTimeout(300);
      assert.equal(await page.locator('iframe').getAttribute('sandbox'), '', 'nothing is allowed');
      assert.equal(await page.evaluate(() => 'owned' in globalThis), false, 'no script ran');
      assert.doesNotMatch(await page.title(), /owned/);
    });
  });

  test('of JSON fold, and long lists come in parts', async () => {
    await visit(at('conf.json'), async (page) => {
      await page.waitForSelector('.json');
      assert.match(await page.locator('.json').innerText(), /depth: 6/);
      assert.ok((await page.locator('.json-line').count()) < 230, 'of 450 values 200 are shown');
      await page.getByRole('button', { name: 'and 250 more' }).click();
      assert.ok((await page.locator('.json-line').count()) > 450);
      await page.getByRole('button', { name: /^long, 450/ }).click();
      assert.ok((await page.locator('.json-line').count()) < 30);
    });
  });

  test('of CSV are a table of their first rows', async () => {
    await visit(at('data.csv'), async (page) => {
      await page.getByText('The first 500 rows, 3 columns.').waitFor();
      assert.deepEqual(await page.locator('.preview thead th').allInnerTexts(), ['name', 'distance, km', 'delayed']);
      assert.equal(await page.locator('.preview tbody tr').count(), 500);
      assert.equal(await page.locator('.preview tbody td').first().innerText(), 'flight "0"');
    });
  });

  test('of text are shown as text, of Parquet can be downloaded', async () => {
    await visit(at('notes.txt'), async (page) => {
      await page.locator('pre.file').waitFor();
      assert.match(await page.locator('pre.file').innerText(), /Trained on <b>all<\/b> of 2013\./);
      await page.getByRole('link', { name: /model\.parquet/ }).click();
      await page.getByText('A Parquet table is not shown here. Download it to look at it.').waitFor();
    });
  });
});

const COMPARE = `/experiments/1/compare?runs=${[2, 3, 4, 5].map(runId).join(',')}`;

describe('a comparison', () => {
  test('is reached from the table, and overlays curves', async () => {
    await visit('/experiments/1?live=off', async (page) => {
      await ready(page);
      for (const i of [2, 3]) await page.getByRole('checkbox', { name: `Select lgbm-${RUNS - 1 - i}` }).check();
      await page.getByRole('link', { name: 'Compare', exact: true }).click();
      await page.getByRole('heading', { name: 'Compare 2 runs' }).waitFor();
      await page.waitForSelector('.chart-card canvas');
      assert.ok((await ink(page, '.chart-card canvas')) > 1000);
      assert.match((await page.locator('.metric-chart').first().getAttribute('aria-label')) ?? '', /lgbm-9997 ends at .*lgbm-9996 ends at/);
    });
  });

  test('shows only differences, or all', async () => {
    await visit(`${COMPARE}&tab=table`, async (page) => {
      await page.waitForSelector('.differences');
      const keys = () => page.locator('.differences tbody th').allInnerTexts().then((all) => all.join(' ').replaceAll('\u200b', ''));
      assert.doesNotMatch(await keys(), /seed/);
      assert.match(await keys(), /learning_rate/);
      await page.getByRole('checkbox', { name: 'Only differences' }).uncheck();
      await page.waitForFunction(() => document.querySelector('.differences')?.textContent?.includes('seed'));
      assert.equal(param(page, 'all'), '1');
    });
  });

  test('draws parallel coordinates that can be narrowed', async () => {
    await visit('/experiments/1/compare?filter=metrics.auc+%3E+0.74&tab=parallel', async (page) => {
      await page.waitForSelector('.parallel path');
      assert.equal(await page.locator('.parallel path').count(), 500);
      const box = await page.locator('.parallel .handle').first().boundingBox();
      assert.ok(box);
      await page.mouse.move(box.x + 13, box.y + 20);
      await page.mouse.down();
      await page.mouse.move(box.x + 13, box.y + box.height / 3, { steps: 3 });
      await page.mouse.up();
      await page.getByText(/^\d+ of 500 runs$/).waitFor();
      assert.ok((await page.locator('.parallel path.out').count()) > 20);
      await page.getByRole('button', { name: 'Show all' }).click();
    });
  });

  test('draws a scatter plot with chosen axes', async () => {
    await visit(`${COMPARE}&tab=scatter`, async (page) => {
      await page.waitForSelector('.scatter circle');
      assert.equal(await page.locator('.scatter circle').count(), 4);
      await page.locator('#scatter select').first().selectOption('p:num_leaves');
      await page.waitForFunction(() => location.search.includes('sx=p%3Anum_leaves'));
      await page.locator('.scatter a[tabindex="0"]').focus();
      await page.keyboard.press('ArrowRight');
      await page.waitForSelector('.tip');
      await page.keyboard.press('Enter');
      await page.waitForFunction(() => location.pathname.startsWith('/experiments/1/runs/'));
    });
  });

  test('says how parameters go with a metric, and what chance gives', async () => {
    await visit('/experiments/1/compare?tab=importance', async (page) => {
      await page.waitForSelector('.importance tbody tr');
      const text = await page.locator('#importance').innerText();
      assert.match(text, /learning_rate[\s\S]*num_leaves/);
      assert.match(text, /Spearman/);
      assert.match(await page.locator('.importance tr', { hasText: 'boosting' }).innerText(), /correlation ratio, 2 values/);
      assert.equal(await page.locator('.importance tr.weak', { hasText: 'boosting' }).count(), 1, 'what has no effect is within what chance gives');
    });
  });
});

describe('logged models', () => {
  test('of an experiment are listed with their metrics, and can be searched', async () => {
    await visit('/experiments/1?live=off', async (page) => {
      await page.getByRole('link', { name: 'Models', exact: true }).last().click();
      await page.getByRole('link', { name: 'delay-model' }).waitFor();
      assert.match(await page.locator('#list').innerText(), /auc[\s\S]*delay-model[\s\S]*ready[\s\S]*flight-delay v12[\s\S]*0\.78/);
      await page.getByPlaceholder('metrics.auc').fill("name = 'nothing'");
      await page.keyboard.press('Enter');
      await page.getByText('No model matches').waitFor();
      assert.match(page.url(), /filter=/);
    });
    await visit('/experiments/1/models?filter=metrics.auc+%3E', async (page) => {
      await page.getByText('the filter ends where a number was expected').waitFor();
    }, { allowed: /400/ });
  });

  test('show what is known of them, and their files', async () => {
    await visit('/experiments/1/models/m-0001', async (page) => {
      await page.waitForSelector('#signature table');
      const text = await page.locator('main').innerText();
      for (const part of ['delay-model', 'flights-2013', '0.78', 'max_depth', 'distance', 'flight-delay v12', 'team']) assert.ok(text.includes(part), part);
      await page.getByText('Add or change a tag').click();
      await page.getByLabel('Key').fill('checked');
      await page.getByLabel('Value').fill('yes');
      await page.getByRole('button', { name: 'Set tag' }).click();
      await page.getByText('checked').waitFor();
      await page.getByRole('link', { name: 'Artifacts' }).click();
      await page.getByRole('link', { name: /MLmodel/ }).click();
      await page.getByText('python_function').waitFor();
    });
  });

  test('are reached from their run', async () => {
    await visit(RUN, async (page) => {
      await page.locator('#around').getByRole('link', { name: 'delay-model' }).click();
      await page.getByRole('heading', { name: 'delay-model' }).waitFor();
    });
  });
});

describe('models', () => {
  test('are listed and lead to their versions', async () => {
    await visit('/models', async (page) => {
      await page.getByRole('link', { name: 'flight-delay' }).waitFor();
      assert.match(await page.locator('#list').innerText(), /champion v12[\s\S]*house-prices/);
      await page.getByRole('link', { name: 'v12' }).click();
      await page.getByRole('heading', { name: 'Version 12' }).waitFor();
    });
  });

  test('show a version with its run, aliases and signature', async () => {
    await visit('/models/flight-delay?version=12', async (page) => {
      await page.waitForSelector('#signature table');
      const text = await page.locator('#version').innerText();
      for (const part of ['distance', 'dest_temp', 'float64 [-1]', 'champion', 'learning_rate', 'validated']) assert.ok(text.includes(part), part);
      await page.getByRole('button', { name: 'Set alias' }).click();
      await page.getByLabel('Alias', { exact: true }).fill('candidate');
      await page.keyboard.press('Enter');
      await page.getByRole('button', { name: 'Take the alias candidate away' }).click();
      await page.waitForFunction(() => !document.body.innerText.includes('candidate'));
    });
  });

  test('tell their whole history', async () => {
    await visit('/models/flight-delay', async (page) => {
      await page.waitForSelector('#history tbody tr');
      const lines = await page.locator('#history tbody tr').allInnerTexts();
      assert.match(lines[0] ?? '', /champion v9 → v12/);
      assert.match(lines[1] ?? '', /Stage of v9: None → Production\s+ada\s+as agreed/);
      assert.match(lines.at(-1) ?? '', /Created/);
      await page.getByRole('link', { name: 'canary passed' }).click();
      await page.getByRole('heading', { name: 'Gate decision' }).waitFor();
    });
  });

  test('ask for a move and approve it', async () => {
    await visit('/models/flight-delay?version=11', async (page) => {
      await page.getByRole('button', { name: 'Ask for a move' }).click();
      await page.getByLabel('Alias', { exact: true }).fill('champion');
      await page.getByLabel('Why').fill('better on every airport');
      await page.keyboard.press('Enter');
      await page.getByRole('button', { name: 'Approve request 1' }).click();
      await page.getByLabel('Comment').fill('agreed');
      await page.getByRole('button', { name: 'Approve', exact: true }).click();
      await page.locator('#requests').getByText('agreed').waitFor();
      assert.match(await page.locator('#requests').innerText(), /approved alias champion[\s\S]*better on every airport[\s\S]*eve/);
    });
  });

  test('show what differs between two versions', async () => {
    await visit('/models/flight-delay?version=10', async (page) => {
      await page.getByLabel('Compare with').selectOption('9');
      await page.waitForSelector('#diff .differences');
      const text = await page.locator('#diff').innerText();
      assert.match(text, /From v9 to v10[\s\S]*incompatible[\s\S]*input `distance` was long and is double; input `dest_temp` is new and required/);
      assert.match(text, /auc\s+0\.\d+\s+0\.\d+\s+[+−]0\.\d+/);
      assert.match(text, /weather\s+–\s+both\s+added/);
      assert.doesNotMatch(text, /validated/);
      assert.equal(param(page, 'diff'), '9');
      await page.goto(`${fixture.url}/models/flight-delay?version=10&diff=8`);
      await page.getByText('cannot call v10 as it is: input `distance` was long and is double').waitFor();
    });
  });
});

describe('every page of tracking', () => {
  const PAGES = ['/experiments', '/experiments/1?live=off', RUN, `${RUN}?tab=charts`, `${RUN}?tab=artifacts&path=conf.json`, `${COMPARE}&tab=table`, `${COMPARE}&tab=scatter`, '/experiments/1/compare?tab=importance', '/experiments/1/models', '/experiments/1/models/m-0001', '/models', '/models/flight-delay?version=10', '/models/flight-delay?version=10&diff=9'];
  const settle = (/** @type {Page} */ page) => page.waitForFunction(() => document.querySelector('main :is(table, .panel)') && !document.querySelector('.waiting, .chart-wait'));

  /** Goes to one after the other. @param {Page} page @param {(url: string) => Promise<void>} check */
  const tour = async (page, check) => {
    for (const url of PAGES) {
      await page.goto(fixture.url + url);
      await settle(page);
      await check(url);
    }
  };

  test('can be read where it is dark', async () => {
    await visit('/models', (page) => tour(page, async (url) => assert.deepEqual(await pale(page), [], url)), { colorScheme: 'dark' });
  });

  test('can be read in 360 pixels of light, and names what can be used', async () => {
    await visit('/models', (page) => tour(page, async (url) => {
      assert.deepEqual(await pale(page), [], url);
      assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= 360, url);
      const nameless = await page.evaluate(() => [...document.querySelectorAll('button, a, input, select, textarea, iframe')].filter((e) => {
        const labelled = e.getAttribute('aria-label') || e.textContent?.trim() || e.getAttribute('title') || /** @type {any} */ (e).labels?.[0]?.textContent?.trim() || e.querySelector('img')?.getAttribute('alt');
        return !labelled;
      }).map((e) => e.outerHTML.slice(0, 120)));
      assert.deepEqual(nameless, [], url);
    }), { width: 360 });
  });
});
