// The API's answers, as `crates/control/src/view.rs` and `crates/store` serialise them. Anything may be missing.

/**
 * @typedef {object} EndpointStatus
 * @property {string} name
 * @property {string} model
 * @property {number | null} champion
 * @property {number | null} previous
 * @property {number | null} baseline
 * @property {[number, number] | null} canary version and share, 0 to 1
 * @property {number[]} shadows
 * @property {[string, number] | null} rollout state and target version
 * @property {string | null} first_served_at
 */

/**
 * @typedef {object} Status
 * @property {string} version
 * @property {string} project
 * @property {string} now
 * @property {boolean} virtual_clock
 * @property {number} predictions
 * @property {number} labels
 * @property {number} unmatched_labels
 * @property {number} rss_mb
 * @property {number} peak_rss_mb
 * @property {EndpointStatus[]} endpoints
 * @property {number} open_runs
 * @property {number} open_alerts
 */

/**
 * @typedef {object} Month
 * @property {string} month
 * @property {number} predictions
 * @property {number} labels
 * @property {number | null} auc_frozen
 * @property {number | null} auc_champion
 * @property {number} retrainings
 * @property {number} refused
 * @property {number} inconclusive
 * @property {number} promoted
 * @property {number} rolled_back
 * @property {number | null} outcome
 */

/** @typedef {{until: string, champion: number | null, frozen: number | null, labels: number, version: number}} PerformancePoint */
/** @typedef {{until: string, features: Record<string, number | null>, share: number, state: string}} DriftPoint */
/** @typedef {{seq: number, at: string, kind: string, text: string, subject: [string, string]}} TimelineEvent */

/**
 * @typedef {object} Timeline
 * @property {string} endpoint
 * @property {string} metric
 * @property {boolean} higher_is_better
 * @property {[string, number, number]} drift_method name, threshold, share of features that raises an alert
 * @property {string} performance_window
 * @property {Month[]} months
 * @property {PerformancePoint[]} performance
 * @property {DriftPoint[]} drift
 * @property {TimelineEvent[]} events
 */

/**
 * @typedef {object} Check
 * @property {string} metric
 * @property {string | null} [test]
 * @property {number | null} [champion]
 * @property {number | null} [challenger]
 * @property {number | null} [difference]
 * @property {number | null} [std_error]
 * @property {number | null} [lower]
 * @property {number | null} [upper]
 * @property {number | null} [margin]
 * @property {number | null} [confidence]
 * @property {string | null} [verdict]
 */

/** @typedef {Record<string, any>} Json */

// What the page makes of them.

/** @typedef {{values: (number | null)[], colour: string, width?: number, dash?: number[], steps?: boolean}} Line */
/** @typedef {{at: number, label: string, colour: string}} Mark */
/**
 * @typedef {object} ChartProps
 * @property {string} label what a screen reader says
 * @property {number[]} x seconds since the epoch
 * @property {Line[]} lines
 * @property {[number, number]} range of time
 * @property {number} height
 * @property {Mark[]} [marks] vertical lines
 * @property {{at: number, label: string} | null} [threshold] a horizontal line
 * @property {number | null} [floor] the smallest upper end of the y axis
 * @property {boolean} [zero] the y axis starts at 0
 * @property {(index: number) => any} describe the tooltip of a point
 * @property {(from: number, until: number) => void} [onZoom]
 */
/** @typedef {{x: number, lane: number, events: TimelineEvent[]}} Marker */
/** @typedef {{name: string, highest: number, latest: number | null, over: number}} Feature */
/** @typedef {{label: string, lane: string | null, tone: 'good' | 'bad' | 'warn' | 'info' | 'quiet', shape: string}} Kind */
/** @typedef {{path: string, page: string, id: string | null, params: URLSearchParams}} Route */

export {};
