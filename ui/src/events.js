// What the kinds of events mean: their lane on the timeline, their tone, where they lead.
import { link } from './router.js';

/** @typedef {import('./types.js').TimelineEvent} TimelineEvent */
/** @typedef {{label: string, lane: string | null, tone: 'good' | 'bad' | 'warn' | 'info' | 'quiet', shape: string}} Kind */

/** @type {Record<string, Kind>} */
export const KINDS = {
  'alert.raised': { label: 'Alert raised', lane: 'Alerts', tone: 'warn', shape: 'triangle' },
  'snapshot.quarantined': { label: 'Snapshot quarantined', lane: 'Alerts', tone: 'bad', shape: 'triangle' },
  'run.queued': { label: 'Run queued', lane: null, tone: 'quiet', shape: 'circle' },
  'run.started': { label: 'Run started', lane: null, tone: 'quiet', shape: 'circle' },
  'run.finished': { label: 'Run finished', lane: 'Retraining', tone: 'info', shape: 'circle' },
  'run.failed': { label: 'Run failed', lane: 'Retraining', tone: 'bad', shape: 'cross' },
  'gate.passed': { label: 'Gate passed', lane: 'Gates', tone: 'good', shape: 'diamond' },
  'gate.refused': { label: 'Gate refused', lane: 'Gates', tone: 'bad', shape: 'cross' },
  'gate.inconclusive': { label: 'Gate inconclusive', lane: 'Gates', tone: 'warn', shape: 'hollow' },
  'rollout.started': { label: 'Rollout started', lane: 'Rollouts', tone: 'quiet', shape: 'tick' },
  'rollout.canary': { label: 'Canary step', lane: 'Rollouts', tone: 'info', shape: 'tick' },
  'rollout.holding': { label: 'Rollout holding', lane: 'Rollouts', tone: 'warn', shape: 'hollow' },
  'rollout.promoted': { label: 'Promoted', lane: 'Rollouts', tone: 'good', shape: 'flag' },
  'rollout.rolled_back': { label: 'Rolled back', lane: 'Rollouts', tone: 'bad', shape: 'cross' },
  'version.registered': { label: 'Version registered', lane: null, tone: 'info', shape: 'circle' },
  'alias.moved': { label: 'Alias moved', lane: null, tone: 'quiet', shape: 'circle' },
};

export const LANES = ['Alerts', 'Retraining', 'Gates', 'Rollouts'];

/** @param {string} kind @returns {Kind} */
export const kindOf = (kind) => KINDS[kind] ?? { label: kind, lane: null, tone: 'quiet', shape: 'circle' };

/**
 * The page about an event's subject. Nouns without a page of their own lead to all events about the same subject.
 * @param {TimelineEvent} event @param {string} endpoint @param {string | null} [model]
 */
export function eventLink(event, endpoint, model = null) {
  const [noun, id] = event.subject ?? ['', ''];
  if (noun === 'run') return link('runs', id);
  if (noun === 'decision' || noun === 'gate') return link('decisions', id);
  if (noun === 'prediction') return link('predictions', id);
  if (noun === 'model') return link('models', id);
  if (noun.endsWith('version') && (model || id.includes('/'))) {
    const [name, number] = id.includes('/') ? id.split('/') : [model, id];
    return `${link('models', name)}?version=${encodeURIComponent(number)}`;
  }
  return `${link('endpoints', endpoint)}?tab=events&subject=${encodeURIComponent(`${noun}:${id}`)}`;
}
