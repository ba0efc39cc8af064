-- Compaction without a row a prediction: the ids of a file stand in an object beside it. Rows of `predictions` are those of older files;
-- none is added.

ALTER TABLE prediction_files ADD COLUMN kind TEXT NOT NULL DEFAULT 'rows';     -- `rows` of the loop, `calls` of a deployment
ALTER TABLE prediction_files ADD COLUMN indexed INTEGER NOT NULL DEFAULT 0;    -- 1: its ids stand beside it
ALTER TABLE prediction_files ADD COLUMN delta INTEGER NOT NULL DEFAULT 0;      -- 1: in the Delta table of its endpoint; 2: does not fit there
CREATE INDEX prediction_files_by_day ON prediction_files (day, from_at, until_at);
CREATE INDEX prediction_files_outside_tables ON prediction_files (id) WHERE delta = 0;
DROP INDEX predictions_by_time;

-- Labels whose prediction was not known when they were told.
CREATE TABLE labels_waiting (
    label_id TEXT PRIMARY KEY,
    prediction_id TEXT NOT NULL,
    ingest_time INTEGER NOT NULL,
    checked INTEGER NOT NULL           -- the newest file that was looked into
) WITHOUT ROWID;
CREATE INDEX labels_waiting_by_time ON labels_waiting (ingest_time);

INSERT INTO labels_waiting (label_id, prediction_id, ingest_time, checked)
    SELECT l.id, l.prediction_id, l.ingest_time, 0 FROM labels l
    WHERE NOT EXISTS (SELECT 1 FROM predictions p WHERE p.prediction_id = l.prediction_id);

-- The Delta tables of the prediction log, one an endpoint: the newest entry of each table's log, and the columns so far.
CREATE TABLE prediction_tables (
    endpoint TEXT PRIMARY KEY,
    id TEXT NOT NULL,
    version INTEGER NOT NULL,          -- -1 before the first entry
    columns TEXT NOT NULL              -- JSON: [[name, type], …]
) WITHOUT ROWID;
