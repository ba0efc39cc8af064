// Where artifacts come from: runs, logged models, model versions.
import { query, read } from './api.js';

/** @typedef {import('./types.js').Store} Store */

/** Asks for a file to look at: served with a policy that lets no script run, where the server knows how. */
const LOOK = { inline: 'true' };

/** @param {string} run @returns {Store} */
export const runStore = (run) => ({
  name: 'run', list: (path) => read('artifacts/list', { run_id: run, path }).then((answer) => answer.files ?? []),
  url: (path) => `/get-artifact?${query({ run_id: run, path, ...LOOK })}`,
  rows: (path) => `/api/v1/tracking/tables/rows?${query({ run_id: run, path })}`,
});

/** @param {string} model its id @returns {Store} */
export const modelStore = (model) => ({
  name: model, list: (path) => read(`logged-models/${model}/artifacts/directories`, { artifact_directory_path: path }).then((answer) => answer.files ?? []),
  url: (path) => `/ajax-api/2.0/mlflow/logged-models/${model}/artifacts/files?${query({ artifact_file_path: path, ...LOOK })}`,
  rows: (path) => `/api/v1/tracking/model-tables/rows?${query({ model_id: model, path })}`,
});

/** Files of a version are read by name; what there is, is known by its run or logged model. @param {string} name @param {string} version */
export const versionFile = (name, version) => (/** @type {string} */ path) => `/model-versions/get-artifact?${query({ name, version, path })}`;
