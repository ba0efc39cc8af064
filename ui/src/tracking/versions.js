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
/** @typedef {{at: any, alias: string, from: any, to: any, by: string, why: any, decision: any}} Move */
/** @typedef {{name: string, description: string, tags: Tag[], aliases: [string, number][], versions: Version[], moves: Move[]}} Model */
/** A side of a signature: a column each. @typedef {{name: string, type: string}[]} Side */
/** @typedef {{inputs: Side, outputs: Side, params: Side}} Signature */

/** @param {any} from `{alias: version}`, `[{alias, version}]` or `[[alias, version]]` @returns {[string, number][]} */
const aliasesOf = (from) => (Array.isArray(from) ? from.map((a) => (Array.isArray(a) ? [a[0], Number(a[1])] : [a.alias ?? a.name, Number(a.version)])) : pairs(from).map(([alias, target]) => [alias, Number(target?.version ?? target)]));

/** What registry and loop know of a model; the loop alone for a server whose registry does not answer. @param {string} name @param {AbortSignal} signal @returns {Promise<Model>} */
export async function loadModel(name, signal) {
  const [registered, found, loop] = await Promise.allSettled([
    read('registered-models/get', { name }, signal), read('model-versions/search', { filter: `name = ${quoted(name)}`, max_results: 1000 }, signal), get(`/models/${encodeURIComponent(name)}`),
  ]);
  const own = loop.status === 'fulfilled' ? loop.value : null;
  const model = /** @type {RegisteredModel | null} */ (registered.status === 'fulfilled' ? registered.value.registered_model : null);
  if (!model && !own) throw registered.status === 'rejected' ? registered.reason : new Error('no answer');
  /** @type {Map<number, any>} */
  const ofLoop = new Map((own?.versions ?? []).map((/** @type {any} */ v) => [Number(v.version), v]));
  const listed = /** @type {ModelVersion[]} */ (found.status === 'fulfilled' ? found.value.model_versions ?? [] : []);
  const versions = (listed.length > 0 ? listed : [...ofLoop.values()].map((v) => ({ name, version: String(v.version), creation_timestamp: v.created_at ?? v.registered_at ?? v.at, run_id: v.run_id ?? v.run })))
    .map((v) => ({ ...v, number: Number(v.version), loop: ofLoop.get(Number(v.version)) ?? null, metrics: pairs(ofLoop.get(Number(v.version))?.metrics) })).sort((a, b) => b.number - a.number);
  const moves = (own?.history ?? own?.alias_history ?? []).map((/** @type {any} */ h) => ({ at: h.at, alias: h.alias ?? h.kind, from: h.from ?? null, to: h.to ?? h.version ?? null, by: h.changed_by ?? h.actor ?? '–', why: h.why ?? h.reason ?? h.text, decision: h.decision ?? null })).reverse();
  return { name, description: model?.description ?? '', tags: model?.tags ?? [], aliases: aliasesOf(model?.aliases ?? own?.aliases), versions, moves };
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

/** What stands behind a version: its run, its logged model, its signature. What there is not is empty. @typedef {{params: Map<string, string>, metrics: Map<string, number>, tags: Map<string, string>, signature: Signature | null, experiment: string | null}} Behind */

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
  return { params, metrics, tags: new Map((version.tags ?? []).map(({ key, value }) => [key, value])), signature: file ? signatureOf(file) : null, experiment: run?.info?.experiment_id ?? null };
}
