// Versions of a registered model, from the registry and from the loop; their signatures.
import { get, isNumber } from '../client.js';
import { pairs } from '../records.js';
import { read } from './api.js';
import { quoted } from './filter.js';
import { versionFile } from './stores.js';

/** @typedef {import('./types.js').RegisteredModel} RegisteredModel */
/** @typedef {import('./types.js').ModelVersion} ModelVersion */
/** @typedef {import('./types.js').Tag} Tag */
/** A version, as registry and loop know it. @typedef {ModelVersion & {number: number, loop: any, metrics: [string, any][]}} Version */
/** A line of the history: `alias_moved`, `stage_moved`, `created`, `renamed`, `requested`, `approved`… @typedef {{kind: string, at: any, version: number | null, detail: any, by: string, why: any, decision: any}} Entry */
/** @typedef {{name: string, description: string, tags: Tag[], aliases: [string, number][], versions: Version[], history: Entry[], needsApproval: boolean}} Model */
/** A side of a signature: a column each. @typedef {{name: string, type: string}[]} Side */
/** @typedef {{inputs: Side, outputs: Side, params: Side}} Signature */

/** @param {any} from `{alias: version}`, `[{alias, version}]` or `[[alias, version]]` @returns {[string, number][]} */
const aliasesOf = (from) => (Array.isArray(from) ? from.map((a) => (Array.isArray(a) ? [a[0], Number(a[1])] : [a.alias ?? a.name, Number(a.version)])) : pairs(from).map(([alias, target]) => [alias, Number(target?.version ?? target)]));

/** The history as the registry tells it, newest first; where it does not, the moves of aliases that the loop knows. @param {any} audit @param {any} own @returns {Entry[]} */
function historyOf(audit, own) {
  const moves = (own?.history ?? own?.alias_history ?? []).map((/** @type {any} */ h) => ({ kind: 'alias_moved', version: h.to ?? h.version ?? null, detail: { alias: h.alias ?? h.kind, from: h.from }, at: h.at, by: h.changed_by ?? h.actor, why: h.why ?? h.reason ?? h.text, decision: h.decision }));
  const entries = /** @type {any[]} */ (audit?.items ?? moves);
  /** @type {Map<string, any>} */
  const last = new Map();
  return entries.map(({ kind, version = null, detail = {}, at, by, why, decision = null }) => {
    const moved = kind === 'alias_moved' ? { ...detail, from: detail.from ?? last.get(detail.alias) ?? null } : detail;
    if (kind === 'alias_moved') last.set(detail.alias, version);
    return { kind, version, detail: moved, at, by: by || '–', why, decision };
  }).reverse();
}

/** What registry and loop know of a model; the loop alone for a server whose registry does not answer. @param {string} name @param {AbortSignal} signal @returns {Promise<Model>} */
export async function loadModel(name, signal) {
  const here = `/models/${encodeURIComponent(name)}`;
  const [registered, found, loop, audit] = await Promise.allSettled([
    read('registered-models/get', { name }, signal), read('model-versions/search', { filter: `name = ${quoted(name)}`, max_results: 1000 }, signal), get(here), get(`${here}/audit`),
  ]);
  const own = loop.status === 'fulfilled' ? loop.value : null;
  const model = /** @type {RegisteredModel | null} */ (registered.status === 'fulfilled' ? registered.value.registered_model : null);
  if (!model && !own) throw registered.status === 'rejected' ? registered.reason : new Error('no answer');
  /** @type {Map<number, any>} */
  const ofLoop = new Map((own?.versions ?? []).map((/** @type {any} */ v) => [Number(v.version), v]));
  const listed = /** @type {ModelVersion[]} */ (found.status === 'fulfilled' ? found.value.model_versions ?? [] : []);
  const versions = (listed.length > 0 ? listed : [...ofLoop.values()].map((v) => ({ name, version: String(v.version), creation_timestamp: v.created_at ?? v.registered_at ?? v.at, run_id: v.run_id ?? v.run })))
    .map((v) => ({ ...v, number: Number(v.version), loop: ofLoop.get(Number(v.version)) ?? null, metrics: pairs(ofLoop.get(Number(v.version))?.metrics) })).sort((a, b) => b.number - a.number);
  return { name, description: model?.description ?? '', tags: model?.tags ?? [], aliases: aliasesOf(model?.aliases ?? own?.aliases), versions, history: historyOf(audit.status === 'fulfilled' ? audit.value : null, own), needsApproval: (model?.tags ?? []).some((tag) => tag.key === 'tidemill.approval' && tag.value === 'required') };
}

/** A column of a signature in MLflow's JSON. @param {any} column @param {number} i */
const columnOf = (column, i) => {
  const tensor = column.type === 'tensor' ? column['tensor-spec'] : null;
  const type = tensor ? `${tensor.dtype} ${JSON.stringify(tensor.shape)}` : typeof column.type === 'string' ? column.type + (column.items ? ` of ${column.items.type}` : '') : JSON.stringify(column.type);
  return { name: String(column.name ?? i), type: type + (column.required === false ? ', optional' : '') };
};

/** The signature in an `MLmodel` file: YAML, in which each side is a text that holds JSON. @param {string} text @returns {Signature | null} */
export function signatureOf(text) {
  const block = /^signature:\n((?:[ ].*\n?|\n)*)/m.exec(text)?.[1];
  if (!block) return null;
  const side = (/** @type {string} */ name) => {
    const found = new RegExp(`^  ${name}: (?:'((?:[^']|'')*)'|"((?:[^"\\\\]|\\\\[\\s\\S])*)")`, 'm').exec(block);
    if (!found) return [];
    // A long text goes over several lines, which YAML joins by a space.
    const json = found[1] !== undefined ? found[1].replace(/\n\s*/g, ' ').replaceAll("''", "'") : JSON.parse(`"${(found[2] ?? '').replace(/\\\n\s*/g, '').replace(/\n\s*/g, ' ')}"`);
    try {
      return JSON.parse(json).map(columnOf);
    } catch {
      return [{ name: 'unreadable', type: json.slice(0, 80) }];
    }
  };
  return { inputs: side('inputs'), outputs: side('outputs'), params: side('params') };
}

/** What stands behind a version: its run, its logged model, its signature. What there is not is empty. @typedef {{params: Map<string, string>, metrics: Map<string, number>, tags: Map<string, string>, signature: Signature | null, experiment: string | null, home: string | null}} Behind; `home` is the logged model's experiment */

/** @param {Version} version @returns {Promise<Behind>} */
export async function behind(version) {
  const loop = version.loop;
  const quiet = (/** @type {Promise<any>} */ asked) => asked.catch(() => null);
  // What the loop trained itself has its signature in the registry: no file has to be read.
  const [answer, logged, file] = await Promise.all([
    version.run_id ? quiet(read('runs/get', { run_id: version.run_id })) : null,
    version.model_id ? quiet(read(`logged-models/${version.model_id}`)) : null,
    version.source ? quiet(fetch(versionFile(version.name, version.version)('MLmodel')).then((response) => (response.ok ? response.text() : null))) : null,
  ]);
  const run = answer?.run;
  const params = new Map([...pairs(loop?.params), ...(logged?.model?.data?.params ?? []).map((/** @type {Tag} */ p) => [p.key, p.value]), ...(run?.data?.params ?? []).map((/** @type {Tag} */ p) => [p.key, p.value])].map(([key, value]) => [key, String(value)]));
  const metrics = new Map([...version.metrics, ...(run?.data?.metrics ?? []).map((/** @type {any} */ m) => [m.key, m.value ?? 0])].filter(([, value]) => isNumber(value) || typeof value === 'string').map(([key, value]) => [key, Number(value)]));
  return { params, metrics, tags: new Map((version.tags ?? []).map(({ key, value }) => [key, value])), signature: file ? signatureOf(file) : null, experiment: run?.info?.experiment_id ?? null, home: logged?.model?.info?.experiment_id ?? null };
}
