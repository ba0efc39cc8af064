-- The registry takes versions that clients register, beside those the loop makes: what only the loop knows may be absent. A model
-- is known by a number, because its name belongs to a workspace and can change.

CREATE TABLE kept_models AS SELECT * FROM models;
CREATE TABLE kept_versions AS SELECT * FROM model_versions;
CREATE TABLE kept_aliases AS SELECT * FROM aliases;
CREATE TABLE kept_history AS SELECT * FROM alias_history;
DROP TABLE alias_history;
DROP TABLE aliases;
DROP TABLE model_versions;
DROP TABLE models;

CREATE TABLE models (
    number       INTEGER PRIMARY KEY AUTOINCREMENT,
    workspace    TEXT NOT NULL REFERENCES workspaces (name),
    name         TEXT NOT NULL,
    description  TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    -- The number that the next version gets: a deleted version's number does not come back.
    next_version INTEGER NOT NULL
);
CREATE UNIQUE INDEX models_by_name ON models (workspace, name);
CREATE TABLE model_tags (
    model INTEGER NOT NULL REFERENCES models (number) ON DELETE CASCADE,
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (model, key)
) WITHOUT ROWID;

-- `run` is a pipeline's run, `tracked_run` an MLflow run. Where the loop made the version they are the same id.
CREATE TABLE model_versions (
    model            INTEGER NOT NULL REFERENCES models (number) ON DELETE CASCADE,
    version          INTEGER NOT NULL,
    run              TEXT,
    bundle           TEXT,
    snapshot         TEXT,
    signature        TEXT NOT NULL,
    metrics          TEXT NOT NULL,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    description      TEXT NOT NULL,
    user_id          TEXT NOT NULL,
    source           TEXT NOT NULL,
    storage_location TEXT,
    tracked_run      TEXT,
    run_link         TEXT,
    model_id         TEXT,
    stage            TEXT NOT NULL,
    status           TEXT NOT NULL,
    status_message   TEXT,
    PRIMARY KEY (model, version)
);
CREATE UNIQUE INDEX model_versions_by_run ON model_versions (model, run) WHERE run IS NOT NULL;
CREATE INDEX model_versions_of_run ON model_versions (run) WHERE run IS NOT NULL;
CREATE INDEX model_versions_of_tracked_run ON model_versions (tracked_run) WHERE tracked_run IS NOT NULL;
CREATE INDEX model_versions_by_source ON model_versions (source);
CREATE TABLE model_version_tags (
    model   INTEGER NOT NULL,
    version INTEGER NOT NULL,
    key     TEXT NOT NULL,
    value   TEXT NOT NULL,
    PRIMARY KEY (model, version, key),
    FOREIGN KEY (model, version) REFERENCES model_versions (model, version) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE aliases (
    model   INTEGER NOT NULL,
    alias   TEXT NOT NULL,
    version INTEGER NOT NULL,
    set_at  INTEGER NOT NULL,
    PRIMARY KEY (model, alias),
    FOREIGN KEY (model, version) REFERENCES model_versions (model, version) ON DELETE CASCADE
);
-- Only ever appended to. By name: the history outlives the model. `number` is the model's, by which its history is found under the
-- names that it had.
CREATE TABLE alias_history (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    workspace  TEXT NOT NULL,
    model      TEXT NOT NULL,
    number     INTEGER,
    alias      TEXT NOT NULL,
    version    INTEGER,
    at         INTEGER NOT NULL,
    changed_by TEXT NOT NULL,
    why        TEXT NOT NULL,
    decision   TEXT
);
CREATE INDEX alias_history_by_model ON alias_history (workspace, model, seq);
CREATE INDEX alias_history_by_number ON alias_history (number, seq);
-- Only ever appended to.
CREATE TABLE stage_history (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    workspace  TEXT NOT NULL,
    model      TEXT NOT NULL,
    number     INTEGER NOT NULL,
    version    INTEGER NOT NULL,
    from_stage TEXT NOT NULL,
    to_stage   TEXT NOT NULL,
    at         INTEGER NOT NULL,
    changed_by TEXT NOT NULL,
    why        TEXT NOT NULL,
    decision   TEXT
);
CREATE INDEX stage_history_by_model ON stage_history (workspace, model, seq);
CREATE INDEX stage_history_by_number ON stage_history (number, seq);
-- What else befell a model: created, renamed, deleted, asked for, approved, rejected. Only ever appended to. `detail` is JSON.
CREATE TABLE registry_history (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    workspace  TEXT NOT NULL,
    model      TEXT NOT NULL,
    number     INTEGER NOT NULL,
    version    INTEGER,
    kind       TEXT NOT NULL,
    detail     TEXT NOT NULL,
    at         INTEGER NOT NULL,
    changed_by TEXT NOT NULL,
    why        TEXT NOT NULL
);
CREATE INDEX registry_history_by_model ON registry_history (workspace, model, seq);
CREATE INDEX registry_history_by_number ON registry_history (number, seq);
-- Someone asks that a version gets an alias or a stage (`target`); somebody decides.
CREATE TABLE approval_requests (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    model        INTEGER NOT NULL,
    version      INTEGER NOT NULL,
    kind         TEXT NOT NULL,
    target       TEXT NOT NULL,
    why          TEXT NOT NULL,
    requested_by TEXT NOT NULL,
    requested_at INTEGER NOT NULL,
    state        TEXT NOT NULL,
    decided_by   TEXT,
    decided_at   INTEGER,
    comment      TEXT,
    FOREIGN KEY (model, version) REFERENCES model_versions (model, version) ON DELETE CASCADE
);
CREATE INDEX approval_requests_by_version ON approval_requests (model, version, id);

CREATE TABLE webhooks (
    id          TEXT PRIMARY KEY,
    workspace   TEXT NOT NULL REFERENCES workspaces (name),
    name        TEXT NOT NULL,
    description TEXT,
    url         TEXT NOT NULL,
    secret      TEXT,
    status      TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
);
CREATE INDEX webhooks_by_time ON webhooks (workspace, created_at DESC, id);
CREATE TABLE webhook_events (
    webhook  TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    event    TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (webhook, event)
) WITHOUT ROWID;
-- What is to be sent, written with the change that it tells of. A row goes when it was delivered; one that was given up stays a
-- while, with what the receiver said last.
CREATE TABLE webhook_outbox (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    delivery_id TEXT NOT NULL,
    webhook     TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    event       TEXT NOT NULL,
    body        TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    attempts    INTEGER NOT NULL,
    due_at      INTEGER NOT NULL,
    state       TEXT NOT NULL,
    error       TEXT
);
CREATE INDEX webhook_outbox_by_due ON webhook_outbox (state, due_at);

INSERT INTO models (workspace, name, description, created_at, updated_at, next_version)
    SELECT 'default', name, description, created_at, created_at,
        1 + coalesce((SELECT max(version) FROM kept_versions WHERE kept_versions.model = kept_models.name), 0)
    FROM kept_models;
INSERT INTO model_versions (model, version, run, bundle, snapshot, signature, metrics, created_at, updated_at, description,
        user_id, source, tracked_run, stage, status)
    SELECT (SELECT number FROM models WHERE name = kept_versions.model), version, run, bundle, snapshot, signature, metrics,
        created_at, created_at, description, 'tidemill', 'runs:/' || run || '/model', run, 'None', 'READY'
    FROM kept_versions;
INSERT INTO aliases (model, alias, version, set_at)
    SELECT (SELECT number FROM models WHERE name = kept_aliases.model), alias, version, set_at FROM kept_aliases;
INSERT INTO alias_history (seq, workspace, model, number, alias, version, at, changed_by, why, decision)
    SELECT seq, 'default', model, (SELECT number FROM models WHERE name = kept_history.model), alias, version, at, changed_by, why, decision
    FROM kept_history;
DROP TABLE kept_models;
DROP TABLE kept_versions;
DROP TABLE kept_aliases;
DROP TABLE kept_history;
