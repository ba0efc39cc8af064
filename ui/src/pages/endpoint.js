// An endpoint's whole life on one page: headline, curve, drift, months, events.
import { useEffect, useMemo } from '../../vendor/preact.js';
import { DriftLegend, DriftStrip, Lanes, TimeChart } from '../charts.js';
import { count, day, eventLink, fresh, isNumber, kindOf, link, metric, number, percent, refreshStatus, route, seconds, setParams, signed, status, time, timeline, timelineError, version, watched, withParams } from '../client.js';
import { Badge, Empty, Failure, html, Later, Panel, Scroll, Title, Waiting } from '../ui.js';

/** @typedef {import('../types.js').Month} Month */
/** @typedef {import('../types.js').Timeline} Timeline */

const HALF = 26;

/** @param {{value: number | null, largest: number, better: boolean}} props */
function DifferenceBar({ value, largest, better }) {
  if (value === null) return html`<svg class="bar" width=${HALF * 2} height="10" aria-hidden="true"></svg>`;
  const length = Math.max(1, (Math.abs(value) / (largest || 1)) * HALF);
  return html`<svg class=${`bar fill-${better ? 'good' : 'bad'}`} width=${HALF * 2} height="10" aria-hidden="true">
    <rect x=${value < 0 ? HALF - length : HALF} y="1" width=${length} height="8" rx="1" /><line x1=${HALF} x2=${HALF} y1="0" y2="10" /></svg>`;
}

/** @param {{timeline: Timeline}} props */
export function MonthTable({ timeline }) {
  const months = timeline.months ?? [];
  if (months.length === 0) {
    return html`<${Empty} title="No month yet">The table starts with the first prediction. Send one, or run <code>tidemill replay</code> over your history.</${Empty}>`;
  }
  const name = (timeline.metric ?? 'metric').toUpperCase();
  const difference = (/** @type {Month} */ m) => (isNumber(m.auc_champion) && isNumber(m.auc_frozen) ? m.auc_champion - m.auc_frozen : null);
  const largest = Math.max(...months.map((m) => Math.abs(difference(m) ?? 0)));
  const sum = (/** @type {(m: Month) => number | null} */ of) => months.reduce((total, m) => total + (of(m) ?? 0), 0);
  const zero = (/** @type {number | null} */ n, tone = '') => html`<td class=${`num ${n ? tone : 'zero'}`}>${count(n)}</td>`;
  return html`<${Scroll} label="Month by month" class="months"><table>
    <thead><tr><th scope="col">Month</th><th scope="col" class="num">${name}, frozen</th><th scope="col" class="num">${name}, Tidemill</th><th scope="col" class="num">Difference</th>
      <th scope="col" class="num">Predictions</th><th scope="col" class="num">Labels</th><th scope="col" class="num">Retrainings</th><th scope="col" class="num">Refused</th>
      <th scope="col" class="num">Inconclusive</th><th scope="col" class="num">Promoted</th><th scope="col" class="num">Rolled back</th><th scope="col" class="num">Outcome</th></tr></thead>
    <tbody>${months.map((m) => {
      const d = difference(m);
      const better = d !== null && (timeline.higher_is_better !== false ? d >= 0 : d <= 0);
      return html`<tr key=${m.month}><th scope="row">${m.month}</th><td class="num">${metric(m.auc_frozen)}</td><td class="num strong">${metric(m.auc_champion)}</td>
        <td class="num difference"><${DifferenceBar} value=${d} largest=${largest} better=${better} /> <span class=${d === null ? '' : better ? 'tone-good' : 'tone-bad'}>${signed(d)}</span></td>
        <td class="num">${count(m.predictions)}</td><td class="num">${count(m.labels)}</td>${zero(m.retrainings)}${zero(m.refused, 'tone-bad')}${zero(m.inconclusive, 'tone-warn')}
        ${zero(m.promoted, 'tone-good')}${zero(m.rolled_back, 'tone-bad')}<td class="num">${number(m.outcome)}</td></tr>`;
    })}</tbody>
    <tfoot><tr><th scope="row">All</th><td></td><td></td><td></td><td class="num">${count(sum((m) => m.predictions))}</td><td class="num">${count(sum((m) => m.labels))}</td>
      <td class="num">${count(sum((m) => m.retrainings))}</td><td class="num">${count(sum((m) => m.refused))}</td><td class="num">${count(sum((m) => m.inconclusive))}</td>
      <td class="num">${count(sum((m) => m.promoted))}</td><td class="num">${count(sum((m) => m.rolled_back))}</td><td></td></tr></tfoot>
  </table></${Scroll}>`;
}

/** @typedef {import('../types.js').TimelineEvent} TimelineEvent */

const PAGE = 100;

/** @param {{events: TimelineEvent[], endpoint: string, model: string | null, limit?: number | null}} props events oldest first */
export function EventList({ events, endpoint, model, limit = null }) {
  const { params } = route.value;
  const kind = params.get('kind');
  const subject = params.get('subject');
  const kinds = [...new Set(events.map((event) => event.kind))].sort();
  if (kind && !kinds.includes(kind)) kinds.push(kind);
  const matching = events.filter((event) => (!kind || event.kind === kind) && (!subject || event.subject?.join(':') === subject)).reverse();
  const asked = Number(params.get('show')) || PAGE;
  const most = limit ?? asked;
  const shown = matching.slice(0, most);
  return html`<div class="events">
    <div class="events-filter"><label for="kind">Kind</label>
      <select id="kind" value=${kind ?? ''} onChange=${(/** @type {Event} */ e) => setParams({ kind: /** @type {HTMLSelectElement} */ (e.currentTarget).value || null }, true)}>
        <option value="" selected=${!kind}>All events (${events.length})</option>
        ${kinds.map((k) => html`<option key=${k} value=${k} selected=${k === kind}>${kindOf(k).label} (${events.filter((event) => event.kind === k).length})</option>`)}
      </select>
      ${subject && html`<a class="chip" href=${withParams({ subject: null })} aria-label="Show all subjects again">${subject.replace(':', ' ')} ✕</a>`}</div>
    ${shown.length === 0
      ? html`<${Empty} title=${events.length ? 'No event matches' : 'Nothing has happened yet'}>${events.length
          ? html`<a href=${withParams({ kind: null, subject: null })}>Show all events</a>`
          : html`Alerts, runs, gates and rollouts appear here by themselves. A trigger in <code>tidemill.yaml</code> starts the first one.`}</${Empty}>`
      : html`<ol class="event-list" reversed>${shown.map((event) => {
          const { label, tone } = kindOf(event.kind);
          return html`<li key=${event.seq} data-seq=${event.seq}><a href=${eventLink(event, endpoint, model)}><i class=${`dot fill-${tone}`} aria-hidden="true"></i>
            <span class="event-head"><strong>${label}</strong><time datetime=${event.at}>${time(event.at)}</time></span><span class="event-text">${event.text}</span></a></li>`;
        })}</ol>`}
    ${matching.length > shown.length && html`<p class="note"><a href=${limit === null ? withParams({ show: String(asked + PAGE) }) : withParams({ tab: 'events' })}>${matching.length - shown.length} earlier events</a></p>`}
  </div>`;
}

/** @typedef {import('../types.js').EndpointStatus} EndpointStatus */

const featureChart = () => import('../charts/feature.js').then((module) => module.FeatureChart);
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
            <${DriftStrip} timeline=${data} range=${range ?? [0, 1]} all=${tab === 'drift'} />${feature && html`<${Later} of=${featureChart} height=${240} timeline=${data} range=${range ?? [0, 1]} feature=${feature} />`}`}</${Panel}>`}
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
