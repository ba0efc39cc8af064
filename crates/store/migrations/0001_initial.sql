-- Times are microseconds since the epoch; digests, ids and enums are text; nested values are JSON text.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE events (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    at           INTEGER NOT NULL,
    kind         TEXT NOT NULL,
    subject_kind TEXT NOT NULL,
    subject      TEXT NOT NULL,
    payload      TEXT NOT NULL
);
CREATE INDEX events_by_kind ON events (kind, seq);
CREATE INDEX events_by_subject ON events (subject_kind, subject, seq);

CREATE TABLE specs (
    digest     TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    text       TEXT NOT NULL,
    created_at INTEGER NOT NULL
);
CREATE TABLE current_specs (
    name   TEXT PRIMARY KEY,
    digest TEXT NOT NULL REFERENCES specs (digest)
);

CREATE TABLE snapshots (
    digest      TEXT PRIMARY KEY,
    dataset     TEXT NOT NULL,
    rows        INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    quarantined BOOLEAN NOT NULL,
    manifest    TEXT NOT NULL
);
CREATE INDEX snapshots_by_dataset ON snapshots (dataset, created_at);

CREATE TABLE runs (
    id             TEXT PRIMARY KEY,
    pipeline       TEXT NOT NULL,
    trigger_kind   TEXT NOT NULL,
    trigger_reason TEXT NOT NULL,
    trigger_ref    TEXT,
    state          TEXT NOT NULL,
    key            TEXT,
    lease          INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    started_at     INTEGER,
    ended_at       INTEGER,
    snapshot       TEXT,
    params         TEXT NOT NULL,
    metrics        TEXT NOT NULL,
    code           TEXT NOT NULL,
    bundle         TEXT,
    model_version  INTEGER,
    error          TEXT,
    decision       TEXT,
    leased_at      INTEGER
);
CREATE INDEX runs_by_pipeline ON runs (pipeline, created_at);
CREATE INDEX runs_by_time ON runs (created_at);
CREATE INDEX runs_by_key ON runs (key, state) WHERE key IS NOT NULL;
CREATE INDEX runs_open ON runs (state) WHERE state IN ('queued', 'running');

CREATE TABLE steps (
    run        TEXT NOT NULL REFERENCES runs (id),
    name       TEXT NOT NULL,
    attempt    INTEGER NOT NULL,
    lease      INTEGER NOT NULL,
    state      TEXT NOT NULL,
    started_at INTEGER,
    ended_at   INTEGER,
    output     TEXT NOT NULL,
    error      TEXT,
    PRIMARY KEY (run, name, attempt)
);

CREATE TABLE models (
    name        TEXT PRIMARY KEY,
    created_at  INTEGER NOT NULL,
    description TEXT NOT NULL
);
CREATE TABLE model_versions (
    model       TEXT NOT NULL REFERENCES models (name),
    version     INTEGER NOT NULL,
    run         TEXT NOT NULL,
    bundle      TEXT NOT NULL,
    snapshot    TEXT NOT NULL,
    signature   TEXT NOT NULL,
    metrics     TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    description TEXT NOT NULL,
    PRIMARY KEY (model, version)
);
CREATE UNIQUE INDEX model_versions_by_run ON model_versions (model, run);
CREATE INDEX model_versions_of_run ON model_versions (run);
CREATE TABLE aliases (
    model   TEXT NOT NULL,
    alias   TEXT NOT NULL,
    version INTEGER NOT NULL,
    set_at  INTEGER NOT NULL,
    PRIMARY KEY (model, alias),
    FOREIGN KEY (model, version) REFERENCES model_versions (model, version)
);
-- Only ever appended to.
CREATE TABLE alias_history (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    model    TEXT NOT NULL,
    alias    TEXT NOT NULL,
    version  INTEGER,
    at       INTEGER NOT NULL,
    changed_by TEXT NOT NULL,
    why      TEXT NOT NULL,
    decision TEXT
);
CREATE INDEX alias_history_by_model ON alias_history (model, seq);

CREATE TABLE decisions (
    id            TEXT PRIMARY KEY,
    kind          TEXT NOT NULL,
    subject       TEXT NOT NULL,
    verdict       TEXT NOT NULL,
    at            INTEGER NOT NULL,
    inputs        TEXT NOT NULL,
    result        TEXT NOT NULL,
    config_digest TEXT NOT NULL,
    actor         TEXT NOT NULL
);
CREATE INDEX decisions_by_kind ON decisions (kind, at);
CREATE INDEX decisions_by_time ON decisions (at);
CREATE INDEX decisions_by_subject ON decisions (subject, at);

CREATE TABLE rollouts (
    id           TEXT PRIMARY KEY,
    endpoint     TEXT NOT NULL,
    model        TEXT NOT NULL,
    from_version INTEGER NOT NULL,
    to_version   INTEGER NOT NULL,
    state        TEXT NOT NULL,
    step         INTEGER NOT NULL,
    salt         TEXT NOT NULL,
    started_at   INTEGER NOT NULL,
    entered_at   INTEGER NOT NULL,
    ended_at     INTEGER,
    statistics   TEXT NOT NULL,
    decision     TEXT,
    reason       TEXT NOT NULL,
    run          TEXT
);
CREATE INDEX rollouts_by_endpoint ON rollouts (endpoint, started_at);
-- An endpoint moves in one direction at a time.
CREATE UNIQUE INDEX rollouts_active ON rollouts (endpoint) WHERE state IN ('shadow', 'canary', 'holding');

CREATE TABLE endpoints (
    name            TEXT PRIMARY KEY,
    model           TEXT NOT NULL,
    champion        INTEGER,
    previous        INTEGER,
    baseline        INTEGER,
    canary          INTEGER,
    canary_share    REAL NOT NULL,
    salt            TEXT NOT NULL,
    shadows         TEXT NOT NULL,
    generation      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    first_served_at INTEGER,
    default_answer  TEXT NOT NULL
);

CREATE TABLE prediction_files (
    id         INTEGER PRIMARY KEY,
    endpoint   TEXT NOT NULL,
    day        TEXT NOT NULL,
    segment    TEXT NOT NULL UNIQUE,
    digest     TEXT NOT NULL,
    size       INTEGER NOT NULL,
    rows       INTEGER NOT NULL,
    from_at    INTEGER NOT NULL,
    until_at   INTEGER NOT NULL,
    created_at INTEGER NOT NULL
);
CREATE INDEX prediction_files_by_time ON prediction_files (endpoint, from_at, until_at);
-- A small number for each endpoint: its name need not stand in millions of rows.
CREATE TABLE prediction_endpoints (
    number   INTEGER PRIMARY KEY,
    endpoint TEXT NOT NULL UNIQUE
);
CREATE TABLE predictions (
    prediction_id TEXT PRIMARY KEY,
    endpoint      INTEGER NOT NULL,
    at            INTEGER NOT NULL,
    file          INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX predictions_by_time ON predictions (endpoint, at);

-- Only ever appended to: a correction or a retraction is a further row, and the latest that was known counts.
CREATE TABLE labels (
    seq             INTEGER PRIMARY KEY,
    id              TEXT NOT NULL UNIQUE,
    prediction_id   TEXT NOT NULL,
    label           TEXT NOT NULL,
    value           TEXT NOT NULL,
    kind            TEXT NOT NULL,
    source          TEXT NOT NULL,
    idempotency_key TEXT,
    event_time      INTEGER NOT NULL,
    ingest_time     INTEGER NOT NULL,
    retracted       BOOLEAN NOT NULL
);
CREATE INDEX labels_by_prediction ON labels (prediction_id, label, ingest_time);
CREATE INDEX labels_by_ingest ON labels (label, ingest_time);
CREATE UNIQUE INDEX labels_by_key ON labels (source, idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TABLE windows (
    endpoint    TEXT NOT NULL,
    monitor     TEXT NOT NULL,
    from_at     INTEGER NOT NULL,
    until_at    INTEGER NOT NULL,
    computed_at INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    reference   TEXT,
    signals     TEXT NOT NULL,
    state       TEXT NOT NULL,
    PRIMARY KEY (endpoint, monitor, until_at)
);

CREATE TABLE alerts (
    id           TEXT PRIMARY KEY,
    endpoint     TEXT NOT NULL,
    monitor      TEXT NOT NULL,
    at           INTEGER NOT NULL,
    window_until INTEGER NOT NULL,
    summary      TEXT NOT NULL,
    signals      TEXT NOT NULL,
    state        TEXT NOT NULL,
    run          TEXT
);
CREATE INDEX alerts_by_endpoint ON alerts (endpoint, monitor, at);
CREATE INDEX alerts_by_time ON alerts (at);
