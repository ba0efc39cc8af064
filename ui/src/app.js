// The page: header, routes, live connection.
import { render, useEffect } from '../vendor/preact.js';
import { connection, go, link, listen, route, status, statusError } from './client.js';
import { EndpointPage } from './pages/endpoint.js';
import { Empty, hideTip, html, Later, ThemeToggle, Tip, Title, Waiting } from './ui.js';

const LIVE = /** @type {Record<string, string>} */ ({ live: 'Live', connecting: 'Connecting', lost: 'Reconnecting' });

function Header() {
  const { page } = route.value;
  const model = status.value?.endpoints?.[0]?.model;
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
      <a href="/" aria-current=${current('home', 'endpoints')}>Endpoint${(status.value?.endpoints?.length ?? 1) > 1 ? 's' : ''}</a>
      ${model && html`<a href=${link('models', model)} aria-current=${current('models')}>Model</a>`}
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
};

/** The only endpoint there is, if so; else all of them. */
function Home() {
  const endpoints = status.value?.endpoints;
  if (!endpoints) return html`<${Title} text="Tidemill" />${!statusError.value && html`<${Waiting} height=${480} />`}`;
  const [only] = endpoints;
  return only && endpoints.length === 1 ? html`<${EndpointPage} key=${only.name} name=${only.name} />` : html`<${Later} of=${LATER.list} />`;
}

function Page() {
  const { page, id } = route.value;
  if (page === 'home') return html`<${Home} />`;
  if (page === 'endpoints') return id ? html`<${EndpointPage} key=${id} name=${id} />` : html`<${Later} of=${LATER.list} />`;
  if (LATER[page] && (id || page === 'predictions')) return html`<${Later} key=${page + id} of=${LATER[page]} id=${id} />`;
  return html`<${Title} text="No such page" /><${Empty} title="Nothing lives at this address">Go back to <a href="/">the endpoint</a>.</${Empty}>`;
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
