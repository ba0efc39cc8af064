// The page: header, routes, live connection.
import { render, useEffect } from '../vendor/preact.js';
import { connection, go, link, listen, route, status, statusError } from './client.js';
import { EndpointPage } from './pages/endpoint.js';
import { Empty, hideTip, html, Later, ThemeToggle, Tip, Title, Waiting } from './ui.js';

const LIVE = /** @type {Record<string, string>} */ ({ live: 'Live', connecting: 'Connecting', lost: 'Reconnecting' });

function Header() {
  const { page } = route.value;
  // A server without a project has no endpoint: it tracks.
  const tracksOnly = status.value?.endpoints?.length === 0 && !status.value.project;
  const current = (/** @type {string[]} */ ...pages) => (pages.includes(page) ? 'page' : undefined);
  /** @param {SubmitEvent} event */
  const find = (event) => {
    event.preventDefault();
    const form = /** @type {HTMLFormElement} */ (event.currentTarget);
    const id = String(new FormData(form).get('id') ?? '').trim();
    if (id) {
      form.reset();
      go(link('predictions', id));
    }
  };
  return html`<header class="top">
    <a class="skip" href="#main">Skip to content</a>
    <a class="brand" href="/"><img src="/icon.svg" alt="" width="26" height="26" /><span>Tidemill</span></a>
    <span class="project">${status.value?.project ?? ''}</span>
    <nav aria-label="Main">
      ${!tracksOnly && html`<a href="/" aria-current=${current('home', 'endpoints')}>Endpoint${(status.value?.endpoints?.length ?? 1) > 1 ? 's' : ''}</a>`}
      <a href="/experiments" aria-current=${current('experiments', tracksOnly ? 'home' : '')}>Experiments</a>
      <a href="/models" aria-current=${current('models')}>Models</a>
      <a href="/predictions" aria-current=${current('predictions')}>Lineage</a>
    </nav>
    <form class="find" role="search" onSubmit=${find}>
      <input name="id" id="find" type="search" placeholder="Prediction id" aria-label="Find a prediction by its id (press / to come here)" autocomplete="off" spellcheck=${false} />
      <kbd aria-hidden="true">/</kbd>
    </form>
    <span class=${`connection ${connection.value}`} role="status" title="The stream of events"><i aria-hidden="true"></i><span>${LIVE[connection.value]}</span></span>
    <${ThemeToggle} />
  </header>`;
}

/** Pages that are loaded when they are first asked for. @type {Record<string, () => Promise<any>>} */
const LATER = {
  runs: () => import('./pages/run.js').then((module) => module.RunPage),
  decisions: () => import('./pages/decision.js').then((module) => module.DecisionPage),
  predictions: () => import('./pages/prediction.js').then((module) => module.PredictionPage),
  models: () => import('./pages/model.js').then((module) => module.ModelPage),
  list: () => import('./pages/list.js').then((module) => module.ListPage),
  registry: () => import('./pages/models.js').then((module) => module.ModelsPage),
  experiments: () => import('./pages/experiments.js').then((module) => module.ExperimentsPage),
  experiment: () => import('./pages/experiment.js').then((module) => module.ExperimentPage),
  tracked: () => import('./pages/tracked.js').then((module) => module.TrackedRunPage),
  compare: () => import('./pages/compare.js').then((module) => module.ComparePage),
  logged: () => import('./pages/logged.js').then((module) => module.LoggedPage),
};

/** The only endpoint there is, if so; else all of them. A server without a project shows its experiments. */
function Home() {
  const endpoints = status.value?.endpoints;
  if (!endpoints) return html`<${Title} text="Tidemill" />${!statusError.value && html`<${Waiting} height=${480} />`}`;
  const [only] = endpoints;
  if (!only && !status.value?.project) return html`<${Experiments} id=${null} />`;
  return only && endpoints.length === 1 ? html`<${EndpointPage} key=${only.name} name=${only.name} />` : html`<${Later} of=${LATER.list} />`;
}

/** `/experiments`, `/experiments/ID`, `/experiments/ID/runs/RUN`, `/experiments/ID/models`, `/experiments/ID/models/MODEL` and `/experiments/ID,ID/compare`. @param {{id: string | null}} props */
function Experiments({ id }) {
  if (!id) return html`<${Later} of=${LATER.experiments} />`;
  const [experiment, noun, run] = id.split('/');
  const part = noun === undefined ? LATER.experiment : noun === 'runs' && run ? LATER.tracked : noun === 'compare' ? LATER.compare : noun === 'models' ? LATER.logged : null;
  return part ? html`<${Later} key=${id} of=${part} experiment=${experiment} run=${run} />` : html`<${Nowhere} />`;
}

const Nowhere = () => html`<${Title} text="No such page" /><${Empty} title="Nothing lives at this address">Go back to <a href="/">the endpoint</a>.</${Empty}>`;

function Page() {
  const { page, id } = route.value;
  if (page === 'home') return html`<${Home} />`;
  if (page === 'endpoints') return id ? html`<${EndpointPage} key=${id} name=${id} />` : html`<${Later} of=${LATER.list} />`;
  if (page === 'models' && !id) return html`<${Later} of=${LATER.registry} />`;
  if (page === 'experiments') return html`<${Experiments} id=${id} />`;
  if (LATER[page] && (id || page === 'predictions')) return html`<${Later} key=${page + id} of=${LATER[page]} id=${id} />`;
  return html`<${Nowhere} />`;
}

function App() {
  const { path } = route.value;
  useEffect(() => {
    hideTip();
  }, [path]);
  const failed = statusError.value;
  return html`<${Header} />
    <main id="main" tabindex="-1">
      ${failed && html`<div class="failure" role="alert"><strong>The server's status could not be read.</strong> <span>${failed.message}</span></div>`}
      <${Page} />
    </main>
    <footer>Tidemill ${status.value?.version ?? ''} <span class="dim">· times are UTC · <a href="/api/v1/status">API</a></span></footer>
    <${Tip} />`;
}

addEventListener('keydown', (event) => {
  const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLTextAreaElement;
  if (event.key === '/' && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    document.getElementById('find')?.focus();
  }
});

listen();
render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById('app')));
