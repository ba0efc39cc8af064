-- Files of rows that were turned into Parquet, so that they can be asked.

CREATE TABLE tracking_tables (
    -- The digest of the file's bytes; or, of a file that is not kept by its digest, one of its place and its mark.
    source      TEXT NOT NULL,
    -- How its rows were read: the same bytes are one table with commas and another with tabs.
    format      TEXT NOT NULL,
    -- Whether it is the latter. Nothing tells when such a file goes: its Parquet goes when it was not asked for long.
    by_place    BOOLEAN NOT NULL,
    -- Null if the file is no table.
    parquet     TEXT,
    row_count   INTEGER NOT NULL,
    column_list TEXT NOT NULL,
    problem     TEXT NOT NULL,
    used_ms     INTEGER NOT NULL,
    PRIMARY KEY (source, format)
);
CREATE INDEX tracking_tables_by_parquet ON tracking_tables (parquet);

-- Words that people give to versions of W&B's artifacts.
CREATE TABLE wandb_artifact_tags (
    artifact INTEGER NOT NULL,
    tag      TEXT NOT NULL,
    PRIMARY KEY (artifact, tag)
) WITHOUT ROWID;
-- Versions that end by themselves.
CREATE TABLE wandb_artifact_ends (
    artifact INTEGER PRIMARY KEY,
    ttl_s    INTEGER NOT NULL,
    ends_ms  INTEGER NOT NULL
);
CREATE INDEX wandb_artifact_ends_by_time ON wandb_artifact_ends (ends_ms);
-- Whether any artifact keeps some bytes.
CREATE INDEX wandb_artifact_files_by_md5 ON wandb_artifact_files (md5);

-- Collections whose versions are links to versions of others, as W&B's registries are.
CREATE TABLE wandb_portfolios (
    collection INTEGER PRIMARY KEY
);
CREATE TABLE wandb_links (
    collection INTEGER NOT NULL,
    version    INTEGER NOT NULL,
    artifact   INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (collection, version)
) WITHOUT ROWID;
CREATE UNIQUE INDEX wandb_links_by_artifact ON wandb_links (artifact, collection);
-- Versions to be that add files to another version.
CREATE TABLE wandb_incremental (
    artifact INTEGER PRIMARY KEY,
    base     INTEGER
);
