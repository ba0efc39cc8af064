-- What Weights & Biases' client tells that MLflow's tables have no place for, and sweeps. A W&B run is a tracked run.

CREATE TABLE wandb_runs (
    run_id         TEXT PRIMARY KEY,
    workspace      TEXT NOT NULL,
    entity         TEXT NOT NULL,
    project        TEXT NOT NULL,
    name           TEXT NOT NULL,
    display_name   TEXT NOT NULL,
    config         TEXT NOT NULL,
    summary        TEXT NOT NULL,
    tags           TEXT NOT NULL,
    notes          TEXT NOT NULL,
    group_name     TEXT NOT NULL,
    job_type       TEXT NOT NULL,
    sweep          TEXT,
    state          TEXT NOT NULL,
    exit_code      INTEGER,
    created_ms     INTEGER NOT NULL,
    heartbeat_ms   INTEGER NOT NULL,
    -- How many lines of each stream are stored: what a client sends again lies below.
    history_lines  INTEGER NOT NULL,
    events_lines   INTEGER NOT NULL,
    log_lines      INTEGER NOT NULL,
    history_tail   TEXT NOT NULL,
    events_tail    TEXT NOT NULL,
    stop_requested BOOLEAN NOT NULL
);
CREATE UNIQUE INDEX wandb_runs_by_name ON wandb_runs (workspace, entity, project, name);
CREATE INDEX wandb_runs_by_heartbeat ON wandb_runs (state, heartbeat_ms);
CREATE TABLE wandb_log_lines (
    run_id TEXT NOT NULL,
    line   INTEGER NOT NULL,
    text   TEXT NOT NULL,
    PRIMARY KEY (run_id, line)
) WITHOUT ROWID;
CREATE TABLE wandb_alerts (
    number   INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id   TEXT NOT NULL,
    title    TEXT NOT NULL,
    text     TEXT NOT NULL,
    severity TEXT NOT NULL,
    at_ms    INTEGER NOT NULL
);
CREATE INDEX wandb_alerts_by_run ON wandb_alerts (run_id, number);

-- Bytes of artifacts are known to the client by their MD5, and to us by their own digest.
CREATE TABLE wandb_blobs (
    workspace TEXT NOT NULL,
    md5       TEXT NOT NULL,
    digest    TEXT NOT NULL,
    size      INTEGER NOT NULL,
    PRIMARY KEY (workspace, md5)
) WITHOUT ROWID;
CREATE INDEX wandb_blobs_by_digest ON wandb_blobs (digest);
CREATE TABLE wandb_collections (
    number       INTEGER PRIMARY KEY AUTOINCREMENT,
    workspace    TEXT NOT NULL,
    entity       TEXT NOT NULL,
    project      TEXT NOT NULL,
    name         TEXT NOT NULL,
    type         TEXT NOT NULL,
    next_version INTEGER NOT NULL,
    created_ms   INTEGER NOT NULL
);
CREATE UNIQUE INDEX wandb_collections_by_name ON wandb_collections (workspace, entity, project, name);
CREATE TABLE wandb_artifacts (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    collection  INTEGER NOT NULL REFERENCES wandb_collections (number) ON DELETE CASCADE,
    -- Given when the artifact is committed.
    version     INTEGER,
    state       TEXT NOT NULL,
    digest      TEXT NOT NULL,
    client_id   TEXT NOT NULL,
    description TEXT NOT NULL,
    metadata    TEXT NOT NULL,
    -- Given to the version when it is committed, a JSON list.
    aliases     TEXT NOT NULL,
    run_id      TEXT,
    manifest    TEXT,
    size        INTEGER NOT NULL,
    file_count  INTEGER NOT NULL,
    created_ms  INTEGER NOT NULL,
    updated_ms  INTEGER NOT NULL
);
CREATE UNIQUE INDEX wandb_artifacts_by_version ON wandb_artifacts (collection, version) WHERE version IS NOT NULL;
CREATE INDEX wandb_artifacts_by_digest ON wandb_artifacts (collection, digest);
CREATE INDEX wandb_artifacts_by_manifest ON wandb_artifacts (manifest) WHERE manifest IS NOT NULL;
CREATE INDEX wandb_artifacts_by_client ON wandb_artifacts (client_id);
CREATE TABLE wandb_artifact_files (
    artifact INTEGER NOT NULL,
    path     TEXT NOT NULL,
    md5      TEXT NOT NULL,
    size     INTEGER NOT NULL,
    -- Where the bytes are, if they were never sent here.
    ref      TEXT,
    PRIMARY KEY (artifact, path)
) WITHOUT ROWID;
CREATE TABLE wandb_aliases (
    collection INTEGER NOT NULL REFERENCES wandb_collections (number) ON DELETE CASCADE,
    alias      TEXT NOT NULL,
    artifact   INTEGER NOT NULL,
    PRIMARY KEY (collection, alias)
) WITHOUT ROWID;
CREATE TABLE wandb_run_artifacts (
    run_id    TEXT NOT NULL,
    direction TEXT NOT NULL,
    artifact  INTEGER NOT NULL,
    at_ms     INTEGER NOT NULL,
    PRIMARY KEY (run_id, direction, artifact)
) WITHOUT ROWID;
CREATE INDEX wandb_run_artifacts_by_artifact ON wandb_run_artifacts (artifact, direction);

CREATE TABLE sweeps (
    sweep_id     TEXT PRIMARY KEY,
    workspace    TEXT NOT NULL,
    entity       TEXT NOT NULL,
    project      TEXT NOT NULL,
    display_name TEXT NOT NULL,
    config       TEXT NOT NULL,
    state        TEXT NOT NULL,
    seed         INTEGER NOT NULL,
    created_ms   INTEGER NOT NULL,
    updated_ms   INTEGER NOT NULL
);
CREATE INDEX sweeps_by_project ON sweeps (workspace, project, created_ms);
CREATE TABLE sweep_trials (
    sweep      TEXT NOT NULL,
    number     INTEGER NOT NULL,
    run_name   TEXT NOT NULL,
    agent      TEXT,
    params     TEXT NOT NULL,
    state      TEXT NOT NULL,
    objective  REAL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    PRIMARY KEY (sweep, number)
) WITHOUT ROWID;
CREATE UNIQUE INDEX sweep_trials_by_run ON sweep_trials (sweep, run_name);
-- What a trial reported of the metric that the sweep optimizes, for early stopping.
CREATE TABLE sweep_points (
    sweep TEXT NOT NULL,
    trial INTEGER NOT NULL,
    step  INTEGER NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (sweep, trial, step)
) WITHOUT ROWID;
CREATE TABLE sweep_agents (
    agent_id     TEXT PRIMARY KEY,
    sweep        TEXT NOT NULL,
    host         TEXT NOT NULL,
    heartbeat_ms INTEGER NOT NULL
);
