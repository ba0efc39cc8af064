// An endpoint's whole life on one page.
import { useEffect, useMemo } from '../../vendor/hooks.js';
import { fresh, refreshStatus, status, timeline, timelineError, watched } from '../api.js';
import { DriftLegend, DriftStrip, FeatureChart } from '../charts/drift.js';
import { Lanes } from '../charts/lanes.js';
import { TimeChart } from '../charts/timechart.js';
import { count, day, isNumber, metric, percent, seconds, signed, time, version } from '../format.js';
import { html } from '../html.js';
import { EventList } from '../parts/events.js';
import { MonthTable } from '../parts/months.js';
import { Title } from '../parts/title.js';
import { Badge, Empty, Failure, Panel, Waiting } from '../parts/ui.js';
import { link, route, setParams, withParams } from '../router.js';

/** @typedef {import('../types.js').Timeline} Timeline */
/** @typedef {import('../types.js').TimelineEvent} TimelineEvent */
/** @typedef {import('../types.js').EndpointStatus} EndpointStatus */

const TABS = [['overview', 'Overview'], ['months', 'Months'], ['drift', 'Drift'], ['events', 'Events']];

/** @param {{label: string, children?: any, note?: any}} props */
const Tile = ({ label, children, note }) => html`<div class="tile"><dt>${label}</dt><dd><span class="tile-value">${children}</span><span class="tile-note">${note ?? '\u00a0'}</span></dd></div>`;

/** @param {{endpoint: EndpointStatus | undefined, data: Timeline | null}} props */
function Headline({ endpoint, data }) {
  const now = status.value;
  const last = data?.performance.findLast((p) => isNumber(p.champion));
  const gain = last && isNumber(last.champion) && isNumber(last.frozen) ? last.champion - last.frozen : null;
  const better = gain !== null && (data?.higher_is_better !== false ? gain >= 0 : gain <= 0);
  const coverage = now && now.predictions > 0 ? now.labels / now.predictions : null;
  const rollout = endpoint?.rollout;
  const canary = endpoint?.canary;
  return html`<dl class="tiles">
    <${Tile} label="Champion" note=${endpoint?.previous ? `after ${version(endpoint.previous)}` : endpoint?.first_served_at ? `since ${day(endpoint.first_served_at)}` : null}>
      ${endpoint?.champion ? html`<a href=${`${link('models', endpoint.model)}?version=${endpoint.champion}`}>${version(endpoint.champion)}</a>` : html`<span class="dim">none yet</span>`}</${Tile}>
    <${Tile} label=${`${(data?.metric ?? 'metric').toUpperCase()}, latest window`} note=${gain !== null ? html`<span class=${better ? 'tone-good' : 'tone-bad'}>${signed(gain)}</span> vs frozen` : last ? `window to ${day(last.until)}` : 'no matured window'}>${metric(last?.champion)}</${Tile}>
    <${Tile} label="Predictions" note=${now?.open_runs ? `${count(now.open_runs)} run${now.open_runs === 1 ? '' : 's'} open` : 'no open run'}>${count(now?.predictions)}</${Tile}>
    <${Tile} label="Labels" note=${coverage !== null ? `${percent(coverage)} of predictions` : null}>${count(now?.labels)}</${Tile}>
    <${Tile} label="Rollout" note=${canary ? `${version(canary[0])} on ${percent(canary[1])} of traffic` : rollout ? `target ${version(rollout[1])}` : endpoint?.shadows?.length ? `shadow ${endpoint.shadows.map(version).join(', ')}` : 'none under way'}>
      ${rollout ? html`<${Badge} value=${rollout[0]} />` : canary ? html`<${Badge} value="canary" />` : html`<span class="dim">idle</span>`}</${Tile}>
    <${Tile} label="Server time" note=${now && html`${time(now.now).slice(11)} UTC ${now.virtual_clock && html`<${Badge} value="virtual" tone="info" />`}`}>${day(now?.now)}</${Tile}>
  </dl>`;
}

/** From the first to the last thing that happened. @param {Timeline} data @param {TimelineEvent[]} events @returns {[number, number] | null} */
function extent(data, events) {
  const times = [...data.performance.map((p) => p.until), ...data.drift.map((p) => p.until), ...events.map((e) => e.at)].map(seconds).filter(isNumber);
  if (times.length === 0) return null;
  const from = times.reduce((a, b) => Math.min(a, b));
  const until = times.reduce((a, b) => Math.max(a, b));
  const air = (until - from || 86400) * 0.015;
  return [from - air, until + air];
}

/** What the URL zooms to. @param {URLSearchParams} params @param {[number, number]} all @returns {[number, number]} */
function zoomed(params, all) {
  const [from, until] = [seconds(params.get('from')), seconds(params.get('to'))];
  return [Number.isFinite(from) ? from : all[0], Number.isFinite(until) ? until : all[1]];
}

/** @param {{data: Timeline, events: TimelineEvent[], range: [number, number], model: string | null}} props */
function Performance({ data, events, range, model }) {
  const points = data.performance;
  const x = useMemo(() => points.map((p) => seconds(p.until)), [points]);
  const lines = useMemo(() => [
    { values: points.map((p) => p.frozen ?? null), colour: '--series-frozen', width: 1.75, dash: [5, 4] },
    { values: points.map((p) => p.champion ?? null), colour: '--series-champion', width: 2.25 },
  ], [points]);
  const marks = useMemo(() => points.flatMap((p, i) => {
    const before = points[i - 1];
    // A version took over: mark when, as the log says, else at the window that shows it first.
    if (!before || before.version === p.version || p.version === 0) return [];
    const promoted = events.findLast((e) => e.kind === 'rollout.promoted' && e.at <= p.until && e.at > before.until);
    return [{ at: seconds(promoted?.at ?? p.until), label: version(p.version), colour: '--good' }];
  }), [points, events]);
  if (points.length === 0) {
    return html`<${Empty} title="No matured window yet">The curve starts once a window of ${data.performance_window ?? 'predictions'} has its labels. Send labels to <code>POST /api/v1/feedback</code> as they become known.</${Empty}>`;
  }
  const name = data.metric.toUpperCase();
  const zoom = (/** @type {number} */ from, /** @type {number} */ until) => setParams({ from: new Date(from * 1000).toISOString().slice(0, 16) + 'Z', to: new Date(until * 1000).toISOString().slice(0, 16) + 'Z' });
  return html`<${TimeChart} label=${`${name} over time, as served and for the frozen first model; the month table holds the numbers`} x=${x} lines=${lines} marks=${marks} range=${range} height=${270} onZoom=${zoom}
      describe=${(/** @type {number} */ i) => {
        const p = points[i];
        if (!p) return null;
        const gain = isNumber(p.champion) && isNumber(p.frozen) ? p.champion - p.frozen : null;
        return html`<div class="dim">window to ${time(p.until)}</div><div><i class="key champion"></i> as served (${version(p.version)}) <strong>${metric(p.champion)}</strong></div>
          <div><i class="key frozen"></i> frozen first model <strong>${metric(p.frozen)}</strong></div><div class="dim">${signed(gain)} · ${count(p.labels)} labels</div>`;
      }} />
    <${Lanes} events=${events} range=${range} endpoint=${data.endpoint} model=${model} />`;
}

const Legend = () => html`<span class="legend"><span><i class="key champion"></i> as served</span> <span><i class="key frozen"></i> frozen first model</span></span>`;

/** @param {{name: string}} props */
export function EndpointPage({ name }) {
  useEffect(() => {
    watched.value = name;
    refreshStatus();
    return () => {
      if (watched.peek() === name) watched.value = null;
    };
  }, [name]);
  const { params } = route.value;
  const tab = params.get('tab') ?? 'overview';
  const feature = params.get('feature');
  const endpoint = status.value?.endpoints?.find((e) => e.name === name);
  const model = endpoint?.model ?? null;
  const answer = watched.value === name ? timeline.value : null;
  const data = useMemo(() => answer && { ...answer, months: answer.months ?? [], performance: answer.performance ?? [], drift: answer.drift ?? [] }, [answer]);
  const events = useMemo(() => [...(answer?.events ?? []), ...fresh.value], [answer, fresh.value]);
  const all = useMemo(() => data && extent(data, events), [data, events]);
  const range = all && zoomed(params, all);
  const isZoomed = params.has('from') || params.has('to');
  const shows = (/** @type {string} */ one) => tab === 'overview' || tab === one;

  const reset = isZoomed && html`<a class="chip" href=${withParams({ from: null, to: null })}>Show all time</a>`;
  const body = () => {
    if (!data) return timelineError.value ? html`<${Failure} error=${timelineError.value} what="The timeline" />` : html`<div class="stack"><${Waiting} height=${430} /><${Waiting} height=${420} /></div>`;
    const panels = html`
      ${tab !== 'events' && html`<${Panel} title="Performance over time" id="performance" aside=${html`${reset}<${Legend} />`}>
        <${Performance} data=${data} events=${events} range=${range ?? [0, 1]} model=${model} />
        ${data.performance.length > 0 && !isZoomed && html`<p class="note wide-only">Drag over the curve to look closer.</p>`}</${Panel}>`}
      ${shows('drift') && html`<${Panel} title="Drift" id="drift" aside=${html`<${DriftLegend} />`}>
        ${data.drift.length === 0
          ? html`<${Empty} title="No drift window yet">The strip starts when the first monitoring window closes. <code>monitors</code> in <code>tidemill.yaml</code> sets its length.</${Empty}>`
          : html`<p class="note">Score of <strong>${data.drift_method?.[0]}</strong> by feature and window; threshold ${metric(data.drift_method?.[1], 3)}, alert at ${percent(data.drift_method?.[2])} of features. Choose a feature for its curve.</p>
            <${DriftStrip} timeline=${data} range=${range ?? [0, 1]} all=${tab === 'drift'} />${feature && html`<${FeatureChart} timeline=${data} range=${range ?? [0, 1]} feature=${feature} />`}`}</${Panel}>`}
`;
    const months = html`<${Panel} title="Month by month" id="months"><${MonthTable} timeline=${data} /></${Panel}>`;
    const list = html`<${Panel} title="Events" id="events" class="events-panel"><${EventList} events=${events} endpoint=${name} model=${model} limit=${tab === 'overview' ? 40 : null} /></${Panel}>`;
    if (tab === 'overview') return html`<div class="columns"><div class="stack">${panels}</div>${months}${list}</div>`;
    return html`<div class="stack">${tab === 'events' ? list : html`${panels}${tab === 'months' && months}`}</div>`;
  };

  return html`<${Title} text=${name} over=${html`Endpoint${model && html` of model <a href=${link('models', model)}>${model}</a>`}`} />
    <${Headline} endpoint=${endpoint} data=${data} />
    ${data && timelineError.value && html`<${Failure} error=${timelineError.value} what="News of the timeline" />`}
    <nav class="tabs" aria-label="Sections">${TABS.map(([id, label]) => html`<a key=${id} href=${withParams({ tab: id === 'overview' ? null : String(id) })} aria-current=${tab === id ? 'page' : undefined}>${label}</a>`)}</nav>
    ${body()}`;
}
