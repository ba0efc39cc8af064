-- Batch jobs: rows of files that are predicted into files, in the background.

CREATE TABLE batch_jobs (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,                -- whose words the job is in: `rows`, `transform`, `vertex`, `invoke`
    name TEXT NOT NULL,                -- what its caller calls it; once in each kind
    endpoint TEXT NOT NULL,
    version INTEGER,                   -- of the endpoint, where one was asked for
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL,          -- raised each time the work begins; who writes with an older one writes nothing
    stop_at INTEGER,                   -- when it was asked to stop
    spec TEXT NOT NULL,                -- what was asked, JSON
    progress TEXT NOT NULL,            -- JSON
    error TEXT NOT NULL,               -- JSON; null while there is none
    workspace TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,          -- empty where nobody has to say who they are
    started_at INTEGER,
    ended_at INTEGER,
    updated_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE UNIQUE INDEX batch_jobs_by_name ON batch_jobs (kind, name);
CREATE INDEX batch_jobs_by_state ON batch_jobs (state, id);
