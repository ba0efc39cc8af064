-- A run that is deleted for good takes its points of logged models with it.
CREATE INDEX logged_model_metrics_by_run ON logged_model_metrics (run);

-- Whom to tell of what happens, beyond MLflow's webhooks. Where to send is a row of `webhooks` with the same id and the status
-- AUTOMATION, which MLflow's clients do not see. `filter` is JSON.
CREATE TABLE automations (
    id     TEXT PRIMARY KEY REFERENCES webhooks (id) ON DELETE CASCADE,
    event  TEXT NOT NULL,
    filter TEXT NOT NULL
);
CREATE INDEX automations_by_event ON automations (event);
