-- Experiments and runs, in MLflow's terms. Columns named `_ms` hold milliseconds since the epoch: most are a client's own and kept as told.

CREATE TABLE workspaces (
    name                  TEXT PRIMARY KEY,
    description           TEXT,
    default_artifact_root TEXT,
    created_ms            INTEGER NOT NULL
);
INSERT INTO workspaces (name, description, created_ms) VALUES ('default', 'What belongs to no other workspace', 0);

-- AUTOINCREMENT: the id of a purged experiment must not come back, clients keep it in their scripts.
CREATE TABLE experiments (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    workspace         TEXT NOT NULL REFERENCES workspaces (name),
    name              TEXT NOT NULL,
    artifact_location TEXT NOT NULL,
    lifecycle         TEXT NOT NULL,
    created_ms        INTEGER NOT NULL,
    updated_ms        INTEGER NOT NULL
);
CREATE UNIQUE INDEX experiments_by_name ON experiments (workspace, name);
CREATE INDEX experiments_by_time ON experiments (workspace, lifecycle, created_ms DESC, id);
CREATE TABLE experiment_tags (
    experiment INTEGER NOT NULL REFERENCES experiments (id) ON DELETE CASCADE,
    key        TEXT NOT NULL,
    value      TEXT NOT NULL,
    PRIMARY KEY (experiment, key)
) WITHOUT ROWID;

-- `number` stands for a run in the tables with many rows: 8 bytes where `run_id` has 32.
CREATE TABLE tracked_runs (
    number       INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id       TEXT NOT NULL UNIQUE,
    experiment   INTEGER NOT NULL REFERENCES experiments (id),
    name         TEXT NOT NULL,
    user_id      TEXT NOT NULL,
    status       TEXT NOT NULL,
    lifecycle    TEXT NOT NULL,
    start_ms     INTEGER NOT NULL,
    end_ms       INTEGER,
    deleted_ms   INTEGER,
    artifact_uri TEXT NOT NULL
);
CREATE INDEX tracked_runs_by_start ON tracked_runs (experiment, lifecycle, start_ms DESC, run_id);

CREATE TABLE metric_keys (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name   TEXT NOT NULL UNIQUE
);
-- NaN is value 0 with `is_nan`, infinities are the largest finite numbers, as MLflow stores them. The key holds every column, in the
-- order in which histories are read: what is told twice is kept once, and a page of a history is a range of the table.
CREATE TABLE metrics (
    run    INTEGER NOT NULL,
    key    INTEGER NOT NULL,
    at_ms  INTEGER NOT NULL,
    step   INTEGER NOT NULL,
    value  REAL NOT NULL,
    is_nan BOOLEAN NOT NULL,
    PRIMARY KEY (run, key, at_ms, step, value, is_nan)
) WITHOUT ROWID;
-- The point with the largest (step, at_ms, value) of each metric of each run.
CREATE TABLE latest_metrics (
    run    INTEGER NOT NULL,
    key    INTEGER NOT NULL,
    step   INTEGER NOT NULL,
    at_ms  INTEGER NOT NULL,
    value  REAL NOT NULL,
    is_nan BOOLEAN NOT NULL,
    PRIMARY KEY (run, key)
) WITHOUT ROWID;
-- A search by value or order of a metric reads this alone, NaN apart from the numbers.
CREATE INDEX latest_metrics_by_value ON latest_metrics (key, is_nan, value, run);

CREATE TABLE run_params (
    run   INTEGER NOT NULL,
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (run, key)
) WITHOUT ROWID;
-- Values can be long: the index holds their beginning.
CREATE INDEX run_params_by_value ON run_params (key, substr(value, 1, 64), run);
CREATE TABLE run_tags (
    run   INTEGER NOT NULL,
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (run, key)
) WITHOUT ROWID;
CREATE INDEX run_tags_by_value ON run_tags (key, substr(value, 1, 64), run);

CREATE TABLE datasets (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    experiment  INTEGER NOT NULL REFERENCES experiments (id),
    name        TEXT NOT NULL,
    digest      TEXT NOT NULL,
    source_type TEXT NOT NULL,
    source      TEXT NOT NULL,
    schema      TEXT,
    profile     TEXT,
    UNIQUE (experiment, name, digest)
);
-- `tags` is a JSON list of `{"key", "value"}`; `context` is the one of them that searches ask for.
CREATE TABLE run_datasets (
    run      INTEGER NOT NULL,
    dataset  INTEGER NOT NULL REFERENCES datasets (number),
    position INTEGER NOT NULL,
    context  TEXT,
    tags     TEXT NOT NULL,
    PRIMARY KEY (run, dataset)
) WITHOUT ROWID;
CREATE INDEX run_datasets_by_dataset ON run_datasets (dataset, run);

CREATE TABLE logged_models (
    number            INTEGER PRIMARY KEY AUTOINCREMENT,
    model_id          TEXT NOT NULL UNIQUE,
    experiment        INTEGER NOT NULL REFERENCES experiments (id),
    name              TEXT NOT NULL,
    model_type        TEXT NOT NULL,
    source_run_id     TEXT NOT NULL,
    artifact_location TEXT NOT NULL,
    status            TEXT NOT NULL,
    status_message    TEXT,
    lifecycle         TEXT NOT NULL,
    created_ms        INTEGER NOT NULL,
    updated_ms        INTEGER NOT NULL,
    deleted_ms        INTEGER
);
CREATE INDEX logged_models_by_time ON logged_models (experiment, lifecycle, created_ms DESC, model_id);
CREATE INDEX logged_models_by_run ON logged_models (source_run_id);
CREATE TABLE logged_model_params (
    model INTEGER NOT NULL,
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (model, key)
) WITHOUT ROWID;
CREATE TABLE logged_model_tags (
    model INTEGER NOT NULL,
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (model, key)
) WITHOUT ROWID;
-- A metric that a run logged of a model, on a dataset if it said so (else both texts are empty).
CREATE TABLE logged_model_metrics (
    model          INTEGER NOT NULL,
    key            INTEGER NOT NULL,
    dataset_name   TEXT NOT NULL,
    dataset_digest TEXT NOT NULL,
    run            INTEGER NOT NULL,
    at_ms          INTEGER NOT NULL,
    step           INTEGER NOT NULL,
    value          REAL NOT NULL,
    is_nan         BOOLEAN NOT NULL,
    PRIMARY KEY (model, key, dataset_name, dataset_digest, run, at_ms, step)
) WITHOUT ROWID;
-- No index by value: an experiment has few models, and a search asks each for the key, which the primary key answers.

-- Models that a run read or wrote.
CREATE TABLE run_models (
    run       INTEGER NOT NULL,
    model_id  TEXT NOT NULL,
    direction TEXT NOT NULL,
    step      INTEGER NOT NULL,
    position  INTEGER NOT NULL,
    PRIMARY KEY (run, direction, model_id)
) WITHOUT ROWID;
CREATE INDEX run_models_by_model ON run_models (model_id, direction);

-- What the artifact proxy holds: a tree of names over bytes that are stored once by their digest. A folder has no digest.
CREATE TABLE artifacts (
    parent      TEXT NOT NULL,
    name        TEXT NOT NULL,
    digest      TEXT,
    size        INTEGER NOT NULL,
    modified_at INTEGER NOT NULL,
    PRIMARY KEY (parent, name)
) WITHOUT ROWID;
CREATE INDEX artifacts_by_digest ON artifacts (digest) WHERE digest IS NOT NULL;

-- What was deleted for good and is still being cleared away, in pieces: neither the thing nor its name is there any more, but rows and
-- artifacts may be. A server that was stopped half-way goes on from here.
CREATE TABLE purges (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    kind         TEXT NOT NULL,
    number       INTEGER NOT NULL,
    id           TEXT NOT NULL,
    workspace    TEXT NOT NULL,
    artifact_uri TEXT NOT NULL
);
