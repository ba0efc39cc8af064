-- Deployments: what was deployed under which name, and every version of it.

CREATE TABLE deployments (
    name TEXT PRIMARY KEY,
    current INTEGER NOT NULL,          -- the newest version's number
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE deployment_versions (
    name TEXT NOT NULL REFERENCES deployments (name) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    digest TEXT NOT NULL,              -- of the bundle's archive
    size INTEGER NOT NULL,             -- of the archive, in bytes
    manifest TEXT NOT NULL,            -- what the bundle says of itself, JSON
    serving TEXT NOT NULL,             -- how it is served, JSON
    source TEXT NOT NULL,              -- where it came from: `upload`, or `models:/name/version`
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,          -- empty where nobody has to say who they are
    PRIMARY KEY (name, version)
) WITHOUT ROWID;

CREATE INDEX deployment_versions_by_digest ON deployment_versions (digest);
