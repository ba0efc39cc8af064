//! Sessions of one model: each answers one call at a time, so there are as many as there are calls, up to a bound.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use tidemill_core::ports::ModelBundle;

use super::{OnnxError, library};

/// How sessions are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Threads that one call uses.
    pub threads: usize,
    /// Calls at a time.
    pub sessions: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            threads: 1,
            sessions: cores,
        }
    }
}

/// A model's bytes and its sessions.
pub(super) struct Sessions {
    model: Vec<u8>,
    /// Weights in files of their own, by name.
    external: Vec<(String, Arc<[u8]>)>,
    settings: Settings,
    pool: Mutex<Pool>,
    freed: Condvar,
}

struct Pool {
    idle: Vec<Session>,
    made: usize,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions")
            .field("settings", &self.settings)
            .field("bytes", &self.model.len())
            .finish_non_exhaustive()
    }
}

impl Sessions {
    /// Loads a checked model, with one session, so that what ONNX Runtime does not take is told now.
    pub fn open(
        model: Vec<u8>,
        external: &[String],
        bundle: &ModelBundle,
        settings: Settings,
    ) -> Result<Self, OnnxError> {
        let external = external
            .iter()
            .filter_map(|name| Some((name.clone(), Arc::from(bundle.get(name)?.as_slice()))));
        let sessions = Self {
            model,
            external: external.collect(),
            settings,
            pool: Mutex::new(Pool {
                idle: Vec::new(),
                made: 0,
            }),
            freed: Condvar::new(),
        };
        let first = sessions.make()?;
        let mut pool = sessions.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.idle.push(first);
        pool.made = 1;
        drop(pool);
        Ok(sessions)
    }

    fn make(&self) -> Result<Session, OnnxError> {
        let environment = library::environment()?;
        let refused = |error: &dyn std::fmt::Display| OnnxError::Refused(error.to_string());
        let set = |builder: SessionBuilder| -> ort::Result<SessionBuilder> {
            let mut builder = builder
                .with_intra_threads(self.settings.threads.max(1))?
                .with_inter_threads(1)?
                .with_intra_op_spinning(false)?
                .with_optimization_level(GraphOptimizationLevel::All)?;
            for (name, bytes) in &self.external {
                builder = builder.with_external_initializer_file_in_memory(name, Arc::clone(bytes))?;
            }
            Ok(builder)
        };
        let builder = Session::builder(environment).map_err(|error| refused(&error))?;
        let mut builder = set(builder).map_err(|error| refused(&error))?;
        builder
            .commit_from_memory(&self.model)
            .map_err(|error| refused(&error))
    }

    /// How many calls it answers at a time.
    pub fn limit(&self) -> usize {
        self.settings.sessions.max(1)
    }

    /// About how many bytes one session and the model take.
    pub fn bytes(&self) -> u64 {
        let weights: usize = self.external.iter().map(|(_, bytes)| bytes.len()).sum();
        2 * (self.model.len() + weights) as u64
    }

    /// Runs `work` with a session of its own; waits for one if all are at work.
    pub fn with<T>(&self, work: impl FnOnce(&mut Session) -> T) -> Result<T, OnnxError> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let mut session = loop {
            if let Some(session) = pool.idle.pop() {
                drop(pool);
                break session;
            }
            if pool.made < self.limit() {
                pool.made += 1;
                drop(pool);
                match self.make() {
                    Ok(session) => break session,
                    Err(error) => {
                        self.pool.lock().unwrap_or_else(PoisonError::into_inner).made -= 1;
                        self.freed.notify_one();
                        return Err(error);
                    }
                }
            }
            pool = self.freed.wait(pool).unwrap_or_else(PoisonError::into_inner);
        };
        let result = work(&mut session);
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.idle.push(session);
        drop(pool);
        self.freed.notify_one();
        Ok(result)
    }
}
