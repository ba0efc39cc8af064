-- A run that is deleted for good takes its points of logged models with it.
CREATE INDEX logged_model_metrics_by_run ON logged_model_metrics (run);
