-- Evaluation datasets, as MLflow's clients keep them: records of inputs and of what is expected of them. Not to be taken for
-- `datasets`, which say what a run read. `schema` and `profile` are JSON.
CREATE TABLE eval_datasets (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    dataset_id TEXT NOT NULL UNIQUE,
    workspace  TEXT NOT NULL REFERENCES workspaces (name),
    name       TEXT NOT NULL,
    digest     TEXT NOT NULL,
    schema     TEXT,
    profile    TEXT,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    created_by TEXT,
    updated_by TEXT
);
CREATE INDEX eval_datasets_by_time ON eval_datasets (workspace, created_ms DESC, dataset_id DESC);
CREATE TABLE eval_dataset_tags (
    dataset INTEGER NOT NULL REFERENCES eval_datasets (number) ON DELETE CASCADE,
    key     TEXT NOT NULL,
    value   TEXT NOT NULL,
    PRIMARY KEY (dataset, key)
) WITHOUT ROWID;
-- Who may look at a dataset is who may look at its experiments.
CREATE TABLE eval_dataset_experiments (
    dataset    INTEGER NOT NULL REFERENCES eval_datasets (number) ON DELETE CASCADE,
    experiment INTEGER NOT NULL REFERENCES experiments (id) ON DELETE CASCADE,
    PRIMARY KEY (dataset, experiment)
) WITHOUT ROWID;
CREATE INDEX eval_dataset_experiments_by_experiment ON eval_dataset_experiments (experiment);
-- A record is known by what it asks: the digest is of its inputs. What is nested is JSON.
CREATE TABLE eval_dataset_records (
    number       INTEGER PRIMARY KEY AUTOINCREMENT,
    record_id    TEXT NOT NULL UNIQUE,
    dataset      INTEGER NOT NULL REFERENCES eval_datasets (number) ON DELETE CASCADE,
    input_digest TEXT NOT NULL,
    inputs       TEXT NOT NULL,
    outputs      TEXT,
    expectations TEXT,
    tags         TEXT,
    source       TEXT,
    source_id    TEXT,
    source_type  TEXT,
    created_ms   INTEGER NOT NULL,
    updated_ms   INTEGER NOT NULL,
    created_by   TEXT,
    updated_by   TEXT
);
CREATE UNIQUE INDEX eval_dataset_records_by_input ON eval_dataset_records (dataset, input_digest);
CREATE INDEX eval_dataset_records_in_order ON eval_dataset_records (dataset, number);
