// MLflow's messages, as the server answers them. Fields that are unset are left out.

/** @typedef {{key: string, value: string}} Tag */
/** @typedef {{key: string, value: number | string, timestamp: number, step?: number, run_id?: string}} Metric */

/**
 * @typedef {object} RunInfo
 * @property {string} run_id
 * @property {string} [run_name]
 * @property {string} experiment_id
 * @property {string} [user_id]
 * @property {string} status
 * @property {number} [start_time]
 * @property {number} [end_time]
 * @property {string} [artifact_uri]
 * @property {string} [lifecycle_stage]
 */

/**
 * @typedef {object} Run
 * @property {RunInfo} info
 * @property {{metrics?: Metric[], params?: Tag[], tags?: Tag[]}} data
 * @property {{dataset_inputs?: any[], model_inputs?: any[]}} [inputs]
 * @property {{model_outputs?: any[]}} [outputs]
 */

/** @typedef {{experiment_id: string, name: string, artifact_location?: string, lifecycle_stage?: string, creation_time?: number, last_update_time?: number, tags?: Tag[]}} Experiment */
/** @typedef {{path: string, is_dir?: boolean, file_size?: number}} File */

/**
 * @typedef {object} ModelVersion
 * @property {string} name
 * @property {string} version
 * @property {number} [creation_timestamp]
 * @property {number} [last_updated_timestamp]
 * @property {string} [current_stage]
 * @property {string} [description]
 * @property {string} [source]
 * @property {string} [run_id]
 * @property {string} [status]
 * @property {string} [user_id]
 * @property {string} [model_id]
 * @property {Tag[]} [tags]
 * @property {string[]} [aliases]
 */

/** @typedef {{name: string, description?: string, creation_timestamp?: number, last_updated_timestamp?: number, latest_versions?: ModelVersion[], tags?: Tag[], aliases?: {alias: string, version: string}[]}} RegisteredModel */

// What the pages make of them.

/**
 * A run as the table and the comparison read it.
 * @typedef {object} Row
 * @property {string} id
 * @property {string} name
 * @property {RunInfo} info
 * @property {Map<string, number>} metrics latest values; NaN and infinities included
 * @property {Map<string, string>} params
 * @property {Map<string, string>} tags
 */

/** `a`ttribute, `m`etric, `p`aram or `t`ag, and its key. @typedef {{kind: 'a' | 'm' | 'p' | 't', key: string}} Column */
/** @typedef {{column: Column, descending: boolean}} Order */
/** Keys known from the loaded runs. @typedef {{metrics: string[], params: string[], tags: string[]}} Keys */
/** A history: logged points, each with the least and the greatest value of its stretch; how many were logged, how many are NaN, whether some were left out, whether the values are means of stretches. @typedef {{step: number[], time: number[], value: number[], low: number[], high: number[], total: number, odd: number, left: boolean, mean: boolean}} History */
/** A curve of a chart. @typedef {{id: string, label: string, colour: string, dash?: number[], history: History}} Curve */
/** Where artifacts come from. @typedef {{name: string, list: (path: string) => Promise<File[]>, url: (path: string) => string, rows: (path: string) => string}} Store */

export {};
