//! How often a job is begun again.

use std::path::Path;

use serde_json::{Value, json};
use tidemill_store::batch_jobs::{BatchJob, BatchKind};

use super::error::{BatchError, Result};

/// A job that was begun so often without coming further is not begun again.
const ATTEMPTS: u32 = 5;

/// Refuses a job that was begun again and again and never came further: what ends the server each time would end it once more.
pub(super) fn check_attempts(job: &BatchJob, folder: &Path) -> Result<()> {
    let failed = |error: std::io::Error| {
        BatchError::internal(format!("cannot write in `{}`: {error}", folder.display()))
    };
    let mut vain = job.attempt.saturating_sub(1);
    // A single body comes no further than to its end.
    if job.kind != BatchKind::Invoke {
        // What an attempt leaves to the next.
        let done = json!([job.progress["files_done"], job.progress["parts"]]);
        let path = folder.join("attempts.json");
        let before = std::fs::read(&path).ok();
        let before = before.and_then(|bytes| serde_json::from_slice::<(u32, Value)>(&bytes).ok());
        match before {
            Some((since, last)) if last == done => vain = job.attempt.saturating_sub(since),
            _ => {
                vain = 0;
                std::fs::create_dir_all(folder).map_err(failed)?;
                std::fs::write(&path, json!([job.attempt, done]).to_string()).map_err(failed)?;
            }
        }
    }
    if vain < ATTEMPTS {
        return Ok(());
    }
    Err(BatchError::internal(format!(
        "it was begun {ATTEMPTS} times and the server ended each time before it came further: look into the server's log, or ask for less at \
         once"
    )))
}

#[cfg(test)]
mod tests {
    use tidemill_core::clock::Timestamp;
    use tidemill_store::batch_jobs::BatchState;

    use super::*;

    #[test]
    fn a_job_is_begun_again_as_long_as_it_comes_further() {
        let dir = tempfile::tempdir().unwrap();
        let at = Timestamp::from_micros(1);
        let mut job = BatchJob {
            id: "1".to_owned(),
            kind: BatchKind::Vertex,
            name: "1".to_owned(),
            endpoint: "flights".into(),
            version: None,
            state: BatchState::Running,
            attempt: 0,
            stop_at: None,
            spec: Value::Null,
            progress: json!({}),
            error: Value::Null,
            workspace: "default".to_owned(),
            created_at: at,
            created_by: String::new(),
            started_at: None,
            ended_at: None,
            updated_at: at,
        };
        let begin = |job: &mut BatchJob, progress: Value| {
            job.attempt += 1;
            job.progress = progress;
            check_attempts(job, dir.path())
        };
        for files_done in 0..9 {
            begin(&mut job, json!({ "files_done": files_done, "rows": 1 })).unwrap();
        }
        // Rows of a file that is begun again are no progress.
        for rows in 2..6 {
            begin(&mut job, json!({ "files_done": 8, "rows": rows })).unwrap();
        }
        let error = begin(&mut job, json!({ "files_done": 8, "rows": 7 })).unwrap_err();
        assert!(error.message.contains("begun 5 times"), "{error}");
        job.kind = BatchKind::Invoke;
        job.attempt = 0;
        for _ in 0..5 {
            begin(&mut job, json!({})).unwrap();
        }
        assert!(begin(&mut job, json!({})).is_err());
    }
}
