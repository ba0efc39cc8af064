-- What was brought here from elsewhere: an import that was interrupted goes on where it stood, and one that is run again finds what
-- it has brought. `target` is what the thing is called here. `fingerprint` is that of what has come whole; null while parts are
-- missing.
CREATE TABLE imports (
    workspace   TEXT NOT NULL,
    source      TEXT NOT NULL,
    kind        TEXT NOT NULL,
    id          TEXT NOT NULL,
    target      TEXT NOT NULL,
    fingerprint TEXT,
    counts      TEXT NOT NULL,
    at_ms       INTEGER NOT NULL,
    PRIMARY KEY (workspace, source, kind, id)
) WITHOUT ROWID;
