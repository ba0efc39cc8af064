// The page: header, routes, live connection.
import { render } from '../vendor/preact.js';
import { useEffect, useRef } from '../vendor/hooks.js';
import { connection, listen, status, statusError } from './api.js';
import { html } from './html.js';
import { DecisionPage } from './pages/decision.js';
import { EndpointPage } from './pages/endpoint.js';
import { HomePage } from './pages/home.js';
import { ModelPage } from './pages/model.js';
import { PredictionPage } from './pages/prediction.js';
import { RunPage } from './pages/run.js';
import { Empty } from './parts/ui.js';
import { ThemeToggle } from './parts/theme.js';
import { Tip, hideTip } from './parts/tip.js';
import { go, link, route } from './router.js';

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

function Page() {
  const { page, id } = route.value;
  switch (page) {
    case 'home':
      return html`<${HomePage} />`;
    case 'endpoints':
      return id ? html`<${EndpointPage} key=${id} name=${id} />` : html`<${HomePage} list />`;
    case 'runs':
      if (id) return html`<${RunPage} key=${id} id=${id} />`;
      break;
    case 'decisions':
      if (id) return html`<${DecisionPage} key=${id} id=${id} />`;
      break;
    case 'predictions':
      return html`<${PredictionPage} key=${id} id=${id} />`;
    case 'models':
      if (id) return html`<${ModelPage} key=${id} name=${id} />`;
      break;
    default:
  }
  return html`<h1 tabindex="-1">No such page</h1><${Empty} title="Nothing lives at this address">Go back to <a href="/">the endpoint</a>.</${Empty}>`;
}

function App() {
  const main = useRef(/** @type {HTMLElement | null} */ (null));
  const { path } = route.value;
  const first = useRef(true);
  useEffect(() => {
    hideTip();
    // After a change of page, keyboard and screen reader start at its heading.
    if (!first.current) main.current?.querySelector('h1')?.focus({ preventScroll: true });
    first.current = false;
  }, [path]);
  const failed = statusError.value;
  return html`<${Header} />
    <main id="main" ref=${main} tabindex="-1">
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
