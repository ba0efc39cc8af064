// The runs of an experiment.
import { useMemo, useState } from '../../vendor/preact.js';
import { count, route, setParams, withParams } from '../client.js';
import { each, query, read, send, useLoad } from '../tracking/api.js';
import { Chooser, readColumns, readOrder, usualColumns, writeColumns, writeOrder } from '../tracking/columns.js';
import { FilterBox } from '../tracking/filterbox.js';
import { Chips, Crumbs, Dialog, Form } from '../tracking/parts.js';
import { useRuns } from '../tracking/runs.js';
import { RunsTable } from '../tracking/table.js';
import { Empty, Failure, html, Title, Waiting } from '../ui.js';

/** @typedef {import('../tracking/types.js').Column} Column */
/** @typedef {import('../tracking/types.js').Row} Row */

const VIEWS = /** @type {Record<string, string>} */ ({ active: 'ACTIVE_ONLY', deleted: 'DELETED_ONLY', all: 'ALL' });
/** As many runs go into one comparison. */
const COMPARED = 100;

/** @param {{ids: string[], restore: boolean, close: () => void, done: () => void}} props */
function Remove({ ids, restore, close, done }) {
  const what = `${count(ids.length)} run${ids.length === 1 ? '' : 's'}`;
  return html`<${Dialog} title=${`${restore ? 'Restore' : 'Delete'} ${what}?`} onClose=${close}><p>${restore ? 'They are listed among the active runs again.' : 'They can be restored from the list of deleted runs until the server purges them.'}</p>
    <${Form} submit=${() => each(ids, (id) => send(restore ? 'runs/restore' : 'runs/delete', { run_id: id }))} done=${done} action=${`${restore ? 'Restore' : 'Delete'} ${what}`} danger=${!restore} /></${Dialog}>`;
}

/** @param {{experiment: string}} props */
export function ExperimentPage({ experiment: id }) {
  const { params } = route.value;
  const [filter, view, live] = [params.get('filter') ?? '', params.get('view') ?? 'active', params.get('live') !== 'off'];
  const order = readOrder(params.get('order'));
  const { data, error } = useLoad(id, (signal) => read('experiments/get', { experiment_id: id }, signal));
  const runs = useRuns([id], filter, order, VIEWS[view] ?? 'ACTIVE_ONLY', live);
  const [chosen, setChosen] = useState(/** @type {Set<string>} */ (new Set()));
  const [asked, setAsked] = useState(/** @type {'columns' | 'delete' | 'restore' | null} */ (null));
  const given = readColumns(params.get('cols'));
  // The usual columns come from the first page, and stay while more is loaded.
  const first = runs.rows.length > 0 ? runs.rows[0]?.info.experiment_id : '';
  const usual = useMemo(() => usualColumns(runs.rows, runs.keys), [first, filter, view]);
  const columns = given ?? usual;
  const valuesOf = (/** @type {Column} */ { kind, key }) => {
    const found = new Set();
    for (const row of runs.rows) {
      const value = kind === 'p' ? row.params.get(key) : kind === 't' ? row.tags.get(key) : key === 'run_name' ? row.name : key === 'user_id' ? row.info.user_id : undefined;
      if (value) found.add(value);
      if (found.size >= 30) break;
    }
    return [...found];
  };
  const experiment = data?.experiment;
  const name = experiment?.name ?? `Experiment ${id}`;
  const ids = [...chosen];
  const compare = (/** @type {Record<string, string>} */ fields) => `/experiments/${id}/compare?${query(fields)}`;
  const done = () => {
    setAsked(null);
    setChosen(new Set());
    runs.again();
  };
  const told = runs.waiting ? 'Loading runs' : runs.error ? 'No runs' : `${count(runs.rows.length)}${runs.token ? '+' : ''} run${runs.rows.length === 1 ? '' : 's'}`;
  // An error of the filter is the filter box's; anything else is the page's.
  const wrongFilter = runs.error !== null && filter !== '' && runs.error.status === 400;
  return html`<${Crumbs} steps=${[['Experiments', '/experiments']]} /><${Title} text=${name}><${Chips} tags=${experiment?.tags} /></${Title}>
    ${error && html`<${Failure} error=${error} what="The experiment" />`}
    <${FilterBox} filter=${filter} keys=${runs.keys} valuesOf=${valuesOf} error=${wrongFilter ? runs.error?.message ?? null : null} apply=${(/** @type {string} */ text) => (text === filter ? runs.again() : setParams({ filter: text }))} />
    <div class="toolbar">
      <span role="status" class="told">${told}</span>
      ${runs.token && !runs.waiting && html`<button type="button" class="link-button" onClick=${runs.all}>Load all</button>`}
      ${runs.late > 0 && html`<button type="button" class="link-button" onClick=${runs.again}>${count(runs.late)} new, show</button>`}
      <span class="grow"></span>
      ${ids.length > 0 && html`<span class="dim">${count(ids.length)} selected</span>
        ${ids.length > 1 && (ids.length <= COMPARED ? html`<a class="button primary" href=${compare({ runs: ids.join(',') })}>Compare</a>` : html`<span class="dim">compare up to ${COMPARED}</span>`)}
        ${view === 'deleted' ? html`<button type="button" class="button" onClick=${() => setAsked('restore')}>Restore</button>` : html`<button type="button" class="button" onClick=${() => setAsked('delete')}>Delete</button>`}`}
      ${ids.length === 0 && runs.rows.length > 1 && html`<a class="button" href=${compare({ filter, order: params.get('order') ?? '', tab: 'parallel' })} title="Parallel coordinates, scatter plot and importance of the first 500 runs that match">Compare all</a>`}
      <a class="button" href=${`/experiments/${encodeURIComponent(id)}/models`}>Models</a>
      <button type="button" class="button" onClick=${() => setAsked('columns')}>Columns</button>
      <label>Show <select class="input" value=${view} onChange=${(/** @type {any} */ e) => { setChosen(new Set()); setParams({ view: e.currentTarget.value === 'active' ? null : e.currentTarget.value }); }}>
        <option value="active">active</option><option value="deleted">deleted</option><option value="all">all</option></select></label>
      <label class="check"><input type="checkbox" checked=${live} onChange=${() => setParams({ live: live ? 'off' : null }, true)} /> Live</label>
    </div>
    ${runs.error && !wrongFilter && html`<${Failure} error=${runs.error} what="The list of runs" />`}
    ${runs.rows.length > 0
      ? html`<${RunsTable} key=${`${filter}\n${view}\n${params.get('order')}`} rows=${runs.rows} columns=${columns} order=${order} chosen=${chosen} choose=${setChosen} hasMore=${runs.token !== null} waiting=${runs.waiting} more=${runs.more}
          sort=${(/** @type {any} */ next) => setParams({ order: writeOrder(next) }, true)} />`
      : runs.waiting ? html`<${Waiting} height=${420} />` : !runs.error && html`<${Empty} title=${filter ? 'No run matches' : view === 'deleted' ? 'No run is deleted' : 'No run yet'}>${filter ? html`<a href=${withParams({ filter: null })}>Show all runs</a>, or change the filter.` : html`Start one with <code>mlflow.set_experiment("${name}")</code> and <code>mlflow.start_run()</code>.`}</${Empty}>`}
    ${asked === 'columns' && html`<${Chooser} columns=${columns} keys=${runs.keys} choose=${(/** @type {Column[]} */ next) => setParams({ cols: writeColumns(next) }, true)} usual=${() => setParams({ cols: null }, true)} close=${() => setAsked(null)} />`}
    ${(asked === 'delete' || asked === 'restore') && html`<${Remove} ids=${ids} restore=${asked === 'restore'} close=${() => setAsked(null)} done=${done} />`}`;
}
