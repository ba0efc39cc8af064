// Several runs side by side: charts, differences, parallel coordinates, scatter plot, importance of parameters.
import { useMemo } from '../../vendor/preact.js';
import { count, route, setParams, withParams } from '../client.js';
import { each, read, runLink, useLoad } from '../tracking/api.js';
import { ChartGrid } from '../tracking/chartgrid.js';
import { cell, readOrder } from '../tracking/columns.js';
import { Crumbs, Tabs } from '../tracking/parts.js';
import { Importance, Parallel, Scatter } from '../tracking/plots.js';
import { keysOf, search } from '../tracking/runs.js';
import { Swatch } from '../tracking/table.js';
import { Empty, Failure, html, Panel, Scroll, Title, Waiting } from '../ui.js';

/** @typedef {import('../tracking/types.js').Row} Row */
/** @typedef {import('../tracking/types.js').Column} Column */
/** @typedef {import('../tracking/types.js').Keys} Keys */

/** So many runs are taken where a filter says which. */
const MOST = 500;
const CHARTED = 30;
const COLUMNS = 50;
const TABS = /** @type {[string, string][]} */ ([['charts', 'Charts'], ['table', 'Differences'], ['parallel', 'Parallel coordinates'], ['scatter', 'Scatter plot'], ['importance', 'Parameter importance']]);

/** Rows of a group in the table of differences. @param {{title: string, columns: Column[], rows: Row[], all: boolean}} props */
function Group({ title, columns, rows, all }) {
  const lines = columns.map((column) => ({ column, cells: rows.map((row) => cell(row, column)) })).map((line) => ({ ...line, differs: new Set(line.cells).size > 1 })).filter((line) => all || line.differs);
  if (lines.length === 0) return null;
  return html`<tbody><tr class="group"><th scope="rowgroup" colspan=${rows.length + 1}><span>${title}</span></th></tr>
    ${lines.map(({ column, cells, differs }) => html`<tr key=${column.key} class=${all && differs ? 'differs' : ''}><th scope="row">${column.key.replaceAll('_', '_\u200b')}</th>${cells.map((text, i) => html`<td key=${rows[i]?.id} class=${column.kind === 'm' ? 'num' : ''}>${text === '' ? html`<span class="dim">–</span>` : text}</td>`)}</tr>`)}</tbody>`;
}

/** @param {{rows: Row[], keys: Keys}} props */
function Differences({ rows, keys }) {
  const all = route.value.params.get('all') === '1';
  const shown = rows.slice(0, COLUMNS);
  const of = (/** @type {Column['kind']} */ kind, /** @type {string[]} */ names) => names.map((key) => /** @type {Column} */ ({ kind, key }));
  return html`<${Panel} title="Differences" id="differences" aside=${html`<label class="check"><input type="checkbox" checked=${!all} onChange=${() => setParams({ all: all ? null : '1' }, true)} /> Only differences</label>`}>
    ${rows.length > COLUMNS && html`<p class="note">The first ${COLUMNS} of ${count(rows.length)} runs.</p>`}
    <${Scroll} label="Differences" class="tall"><table class="differences"><thead><tr><td></td>${shown.map((row, i) => html`<th scope="col" key=${row.id}><${Swatch} i=${i} /><a href=${runLink(row.info.experiment_id, row.id)}>${row.name}</a></th>`)}</tr></thead>
      <${Group} title="About" columns=${of('a', ['status', 'start_time', 'duration', 'user_id', 'source'])} rows=${shown} all=${all} />
      <${Group} title="Parameters" columns=${of('p', keys.params)} rows=${shown} all=${all} />
      <${Group} title="Metrics, latest" columns=${of('m', keys.metrics)} rows=${shown} all=${all} />
      <${Group} title="Tags" columns=${of('t', keys.tags.filter((key) => !key.startsWith('mlflow.')))} rows=${shown} all=${all} /></table></${Scroll}></${Panel}>`;
}

/** The runs that the URL names. @param {string[]} experiments @param {URLSearchParams} params @param {AbortSignal} signal @returns {Promise<Row[]>} */
async function load(experiments, params, signal) {
  const ids = (params.get('runs') ?? '').split(',').filter((id) => /^\w+$/.test(id));
  if (ids.length > 0) {
    const { rows } = await search(experiments, `attributes.run_id IN (${ids.map((id) => `'${id}'`).join(', ')})`, null, 'ALL', ids.length, null, signal);
    return ids.flatMap((id) => rows.find((row) => row.id === id) ?? []);
  }
  return (await search(experiments, params.get('filter') ?? '', readOrder(params.get('order')), 'ACTIVE_ONLY', MOST, null, signal)).rows;
}

/** @param {{experiment: string}} props ids, separated by commas */
export function ComparePage({ experiment }) {
  const { params } = route.value;
  const experiments = experiment.split(',');
  const key = [experiment, params.get('runs'), params.get('filter'), params.get('order')].join('\n');
  const { data: rows, error } = useLoad(key, (signal) => load(experiments, params, signal));
  const keys = useMemo(() => keysOf(rows ?? []), [rows]);
  const { data: names } = useLoad(`names ${experiment}`, (signal) => each(experiments, (id) => read('experiments/get', { experiment_id: id }, signal).then((answer) => answer.experiment?.name, () => null)));
  const tab = params.get('tab') ?? 'charts';
  const crumbs = html`<${Crumbs} steps=${[['Experiments', '/experiments'], ...experiments.map((id, i) => /** @type {[string, string]} */ ([names?.[i] ?? `Experiment ${id}`, `/experiments/${id}${params.get('filter') ? `?${new URLSearchParams({ filter: params.get('filter') ?? '' })}` : ''}`]))]} />`;
  const title = html`${crumbs}<${Title} text=${rows ? `Compare ${count(rows.length)} runs` : 'Compare runs'} />`;
  if (error) return html`${title}<${Failure} error=${error} what="The runs" />`;
  if (!rows) return html`${title}<${Waiting} height=${420} />`;
  if (rows.length === 0) return html`${title}<${Empty} title="No such run">The runs of this address are in none of its experiments, or the filter matches none.</${Empty}>`;
  return html`${title}${!params.get('runs') && html`<p class="lead">${params.get('filter') ? html`Those that match <code>${params.get('filter')}</code>` : 'All of the experiment'}${rows.length >= MOST && `, the first ${MOST}`}.</p>`}
    <${Tabs} label="Ways to compare" tabs=${TABS} current=${tab} link=${(/** @type {string} */ to) => withParams({ tab: to === 'charts' ? null : to, metric: null, q: null })} />
    ${tab === 'charts' && html`${rows.length > CHARTED && html`<p class="note">The charts show the first ${CHARTED} runs.</p>`}<${ChartGrid} rows=${rows.slice(0, CHARTED)} keys=${keys.metrics} none="None of these runs has one." />`}
    ${tab === 'table' && html`<${Differences} rows=${rows} keys=${keys} />`}
    ${tab === 'parallel' && html`<${Panel} title="Parallel coordinates" id="parallel"><${Parallel} rows=${rows} keys=${keys} /></${Panel}>`}
    ${tab === 'scatter' && html`<${Panel} title="Scatter plot" id="scatter"><${Scatter} rows=${rows} keys=${keys} /></${Panel}>`}
    ${tab === 'importance' && html`<${Panel} title="Parameter importance" id="importance"><${Importance} rows=${rows} keys=${keys} /></${Panel}>`}`;
}
