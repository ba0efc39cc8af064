// All endpoints, where there are none or several.
import { count, link, status, time, version } from '../client.js';
import { Badge, Empty, html, Panel, Scroll, Title, Waiting } from '../ui.js';

export function ListPage() {
  const now = status.value;
  if (!now) return html`<${Title} text="Endpoints" /><${Waiting} height=${480} />`;
  const endpoints = now.endpoints ?? [];
  return html`<${Title} text="Endpoints" over=${now.project} />
    <p class="lead">${count(now.predictions)} predictions, ${count(now.labels)} labels, server time ${time(now.now)}</p>
    ${endpoints.length === 0
      ? html`<${Empty} title="No endpoint yet">An endpoint appears as soon as a project with an <code>endpoint</code> is loaded. Declare it in <code>tidemill.yaml</code>,
          or run <code>tidemill replay</code> over your history to see what a year of it would have earned.</${Empty}>`
      : html`<${Panel} title="All endpoints" id="all"><${Scroll} label="All endpoints"><table><thead><tr><th scope="col">Name</th><th scope="col">Model</th><th scope="col">Champion</th><th scope="col">Rollout</th><th scope="col">First served</th></tr></thead>
          <tbody>${endpoints.map((e) => html`<tr key=${e.name}><th scope="row"><a href=${link('endpoints', e.name)}>${e.name}</a></th><td><a href=${link('models', e.model)}>${e.model}</a></td>
            <td>${version(e.champion)}</td><td>${e.rollout ? html`<${Badge} value=${e.rollout[0]} /> ${version(e.rollout[1])}` : 'none'}</td><td class="when">${time(e.first_served_at)}</td></tr>`)}</tbody></table></${Scroll}></${Panel}>`}`;
}
