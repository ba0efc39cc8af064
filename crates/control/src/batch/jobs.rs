//! Batch jobs: asked for, looked at, stopped, and done a few at a time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tidemill_core::batches::BatchEngine;
use tidemill_core::clock::{Timestamp, real_sleep};
use tidemill_core::ids;
use tidemill_core::ports::PortError;
use tidemill_store::StoreError;
use tidemill_store::batch_jobs::{self, BatchEnd, BatchJob, BatchKind, BatchState};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::ask::{Asks, Patient, Patients};
use super::attempts::check_attempts;
use super::error::{BatchError, Result};
use super::invoke::said_cancelled;
use super::places::Places;
use super::shape::{JobView, NewJob, Spec};
use super::worker::{Told, Worker, remove};
use crate::tracking::{Caller, Tracking};

/// So many jobs are worked on at once; the others wait for their turn. Single bodies do not wait for long jobs.
const AT_ONCE: usize = 2;
const INVOKED_AT_ONCE: usize = 4;
/// So many single bodies wait at most.
const INVOKED_WAIT: u64 = 1_000;
/// How often the progress of a job is stored.
const NOTE_EVERY: Duration = Duration::from_millis(500);
/// How often is looked for jobs that nobody told of.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// The longest name of a job.
const MAX_NAME: usize = 200;

/// A job that is worked on here.
struct Live {
    /// Whether it is a single body.
    invoked: bool,
    stop: watch::Sender<bool>,
    told: Arc<Told>,
}

struct Inner {
    tracking: Tracking,
    places: Places,
    files: Arc<dyn BatchEngine>,
    /// Where jobs keep what they need while they are worked on.
    work: PathBuf,
    nudge: Notify,
    live: Mutex<BTreeMap<String, Live>>,
}

/// The batch jobs of a server. Cheap to clone.
#[derive(Clone)]
pub struct Jobs {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs")
            .field("places", &self.inner.places)
            .finish_non_exhaustive()
    }
}

impl Jobs {
    /// Over the store behind tracking, the places that jobs may use and whoever knows files.
    pub fn new(tracking: Tracking, places: Places, files: Arc<dyn BatchEngine>) -> Self {
        let data = tracking.store().data_dir();
        let data = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
        Self {
            inner: Arc::new(Inner {
                tracking,
                places,
                files,
                work: data.join("batch-work"),
                nudge: Notify::new(),
                live: Mutex::default(),
            }),
        }
    }

    /// Where jobs may read and write.
    pub fn places(&self) -> &Places {
        &self.inner.places
    }

    fn now(&self) -> Timestamp {
        self.inner.tracking.now()
    }

    /// Takes a job; it is stored on return, and done also if the server ends before.
    pub async fn submit(&self, caller: &Caller, new: NewJob) -> Result<JobView> {
        if let Some(name) = &new.name
            && (name.is_empty() || name.len() > MAX_NAME || name.contains(char::is_control))
        {
            return Err(BatchError::refused(format!(
                "`name` has {} bytes, expected 1 to {MAX_NAME} and no control characters",
                name.len()
            ))
            .at("field", "name"));
        }
        new.shape.check(&self.inner.places)?;
        if new.shape.kind() == BatchKind::Invoke {
            let waiting = self.inner.tracking.store().read(batch_jobs::count_invoked);
            if waiting.await? >= INVOKED_WAIT {
                let busy = PortError::internal("overloaded", "too many asynchronous requests wait");
                return Err(BatchError {
                    passing: true,
                    ..busy.into()
                });
            }
        }
        let now = self.now();
        let id = ids::fresh(now);
        let spec = Spec {
            shape: new.shape,
            said: new.said,
        };
        let job = BatchJob {
            name: new.name.unwrap_or_else(|| id.clone()),
            id,
            kind: spec.shape.kind(),
            endpoint: new.endpoint,
            version: new.version,
            state: BatchState::Queued,
            attempt: 0,
            stop_at: None,
            spec: serde_json::to_value(&spec).map_err(|error| BatchError::internal(error.to_string()))?,
            progress: json!({}),
            error: Value::Null,
            workspace: caller.workspace.clone(),
            created_at: now,
            created_by: caller.user.clone(),
            started_at: None,
            ended_at: None,
            updated_at: now,
        };
        let job = self
            .inner
            .tracking
            .store()
            .write(move |tx| {
                batch_jobs::add(tx, &job)?;
                Ok(job)
            })
            .await?;
        self.inner.nudge.notify_one();
        self.view(job)
    }

    fn view(&self, mut job: BatchJob) -> Result<JobView> {
        let spec: Spec = serde_json::from_value(job.spec.clone())
            .map_err(|error| BatchError::internal(format!("job `{}` cannot be read: {error}", job.id)))?;
        let live = self.inner.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(live) = live.get(&job.id).filter(|_| !job.state.is_final()) {
            job.progress = live.told.latest();
        }
        Ok(JobView {
            job,
            shape: spec.shape,
            said: spec.said,
        })
    }

    /// The job with this id.
    pub async fn get(&self, id: &str) -> Result<JobView> {
        let key = id.to_owned();
        let found = self
            .inner
            .tracking
            .store()
            .read(move |tx| batch_jobs::get(tx, &key))
            .await?;
        self.view(found.ok_or_else(|| StoreError::not_found("batch job", id))?)
    }

    /// The job of this kind and name.
    pub async fn by_name(&self, kind: BatchKind, name: &str) -> Result<Option<JobView>> {
        let key = name.to_owned();
        let found = self
            .inner
            .tracking
            .store()
            .read(move |tx| batch_jobs::by_name(tx, kind, &key))
            .await?;
        found.map(|job| self.view(job)).transpose()
    }

    /// The latest jobs, newest first; of one kind or of all, and only those before the id `before`.
    pub async fn list(
        &self,
        kind: Option<BatchKind>,
        before: Option<String>,
        limit: u32,
    ) -> Result<Vec<JobView>> {
        let found = self
            .inner
            .tracking
            .store()
            .read(move |tx| batch_jobs::list(tx, kind, before.as_deref(), limit))
            .await?;
        found.into_iter().map(|job| self.view(job)).collect()
    }

    /// Asks a job to stop; one that has ended stays as it is.
    pub async fn stop(&self, id: &str) -> Result<JobView> {
        let before = self.get(id).await?;
        let (key, now) = (id.to_owned(), self.now());
        self.inner
            .tracking
            .store()
            .write(move |tx| batch_jobs::stop(tx, &key, now))
            .await?;
        if let Some(live) = self
            .inner
            .live
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
        {
            live.stop.send_replace(true);
        }
        if before.job.kind != BatchKind::Invoke {
            return self.get(id).await;
        }
        let key = id.to_owned();
        let store = self.inner.tracking.store();
        let Some(job) = store.read(move |tx| batch_jobs::get(tx, &key)).await? else {
            // It has ended, and is forgotten.
            return Ok(before);
        };
        if job.state == BatchState::Cancelled && said_cancelled(&job, &self.inner.places).await {
            let key = id.to_owned();
            store.write(move |tx| batch_jobs::delete(tx, &key)).await?;
        }
        self.view(job)
    }

    /// Forgets a job that has ended.
    pub async fn delete(&self, id: &str) -> Result<()> {
        let view = self.get(id).await?;
        let key = view.job.id.clone();
        let gone = self
            .inner
            .tracking
            .store()
            .write(move |tx| batch_jobs::delete(tx, &key))
            .await?;
        if gone {
            return Ok(());
        }
        Err(StoreError::conflict("batch job", format!("job `{id}` has not ended; stop it first")).into())
    }

    /// Works on what was asked for, until it is dropped. What is under way then is begun again by the next who works.
    pub async fn work(&self, asks: Arc<dyn Asks>) {
        self.clean().await;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        // Half of the machine at most is asked for work that nobody waits for; a single body does not wait behind long jobs.
        let patients = Patients {
            invoked: Patient::new(Arc::clone(&asks), INVOKED_AT_ONCE),
            others: Patient::new(asks, (cores / 2).max(2)),
        };
        let mut working: JoinSet<String> = JoinSet::new();
        loop {
            if let Err(error) = self.begin_next(&patients, &mut working).await {
                tracing::warn!(%error, "batch jobs cannot be looked for");
            }
            tokio::select! {
                () = self.inner.nudge.notified() => {}
                () = real_sleep(LOOK_EVERY) => {}
                Some(ended) = working.join_next(), if !working.is_empty() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a batch job's task failed");
                    }
                }
            }
        }
    }

    /// Removes what jobs needed that have ended since: the server may have been killed in between.
    async fn clean(&self) {
        let Ok(folders) = std::fs::read_dir(&self.inner.work) else {
            return;
        };
        for folder in folders.flatten() {
            let id = folder.file_name().to_string_lossy().into_owned();
            let found = self.inner.tracking.store();
            match found.read(move |tx| batch_jobs::get(tx, &id)).await {
                Ok(Some(job)) if !job.state.is_final() => {}
                Ok(_) => remove(&folder.path()),
                Err(error) => tracing::warn!(%error, "batch jobs cannot be looked for"),
            }
        }
    }

    async fn begin_next(&self, patients: &Patients, working: &mut JoinSet<String>) -> Result<()> {
        for (invoked, at_once) in [(true, INVOKED_AT_ONCE), (false, AT_ONCE)] {
            let known: Vec<String> = {
                let live = self.inner.live.lock().unwrap_or_else(PoisonError::into_inner);
                let lane = live.iter().filter(|(_, live)| live.invoked == invoked);
                lane.map(|(id, _)| id.clone()).collect()
            };
            let wanted = (at_once + known.len()) as u32;
            let open = self.inner.tracking.store();
            let open = open.read(move |tx| batch_jobs::open(tx, invoked, wanted)).await?;
            let new = open.into_iter().filter(|job| !known.contains(&job.id));
            for job in new.take(at_once.saturating_sub(known.len())) {
                let patient = if invoked {
                    &patients.invoked
                } else {
                    &patients.others
                };
                self.begin(job, patient, working).await?;
            }
        }
        Ok(())
    }

    async fn begin(&self, job: BatchJob, patient: &Patient, working: &mut JoinSet<String>) -> Result<()> {
        let (stop, stopped) = watch::channel(false);
        let told = Arc::new(Told::new(job.progress.clone()));
        let live = Live {
            invoked: job.kind == BatchKind::Invoke,
            stop: stop.clone(),
            told: Arc::clone(&told),
        };
        // It is known here before it begins, so that who stops it from now on is heard.
        self.inner
            .live
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(job.id.clone(), live);
        let leaving = Leaving(self.clone(), job.id.clone());
        let (id, now) = (job.id, self.now());
        let store = self.inner.tracking.store();
        let begun = store.write(move |tx| batch_jobs::begin(tx, &id, now)).await?;
        let Some(job) = begun else { return Ok(()) };
        if job.stop_at.is_some() {
            stop.send_replace(true);
        }
        let (jobs, patient) = (self.clone(), patient.clone());
        working.spawn(async move {
            let leaving = leaving;
            Box::pin(jobs.attend(job, patient, told, stopped)).await;
            leaving.1.clone()
        });
        Ok(())
    }

    /// One attempt at a job, from its beginning to what is stored of its end.
    async fn attend(
        &self,
        job: BatchJob,
        patient: Patient,
        told: Arc<Told>,
        mut stopped: watch::Receiver<bool>,
    ) {
        let (id, attempt) = (job.id.clone(), job.attempt);
        let invoked = job.kind == BatchKind::Invoke;
        tracing::debug!(job = id, attempt, endpoint = %job.endpoint, "a batch job begins");
        let folder = self.inner.work.join(&id);
        let asked = job.clone();
        let worker = self.worker(job, patient, Arc::clone(&told), folder.clone());
        let work = async {
            let worker = worker?;
            check_attempts(&asked, &folder)?;
            worker.run().await
        };
        let ended = tokio::select! {
            done = work => match done {
                Ok(()) => (BatchState::Succeeded, Value::Null),
                Err(error) => {
                    tracing::warn!(job = id, %error, "a batch job failed");
                    (BatchState::Failed, error.shown())
                }
            },
            () = asked_to_stop(&mut stopped) => (BatchState::Cancelled, Value::Null),
            () = self.noting(&id, attempt, &told) => {
                tracing::warn!(job = id, attempt, "a batch job is somebody else's now");
                return;
            }
        };
        let end = BatchEnd {
            state: ended.0,
            progress: told.latest(),
            error: ended.1,
        };
        // A single body is forgotten once its files say what came of it: there are many.
        let forget = invoked
            && match end.state {
                BatchState::Succeeded => true,
                BatchState::Cancelled => said_cancelled(&asked, &self.inner.places).await,
                _ => false,
            };
        self.ended(&id, attempt, end, forget).await;
        remove(&folder);
    }

    /// Stores the end, however long the store takes to come back.
    async fn ended(&self, id: &str, attempt: u32, end: BatchEnd, forget: bool) {
        loop {
            let (key, end, now) = (id.to_owned(), end.clone(), self.now());
            let state = end.state;
            let store = self.inner.tracking.store();
            let stored = store.write(move |tx| {
                let ours = batch_jobs::end(tx, &key, attempt, &end, now)?;
                if ours && forget {
                    batch_jobs::delete(tx, &key)?;
                }
                Ok(())
            });
            match stored.await {
                Ok(()) => {
                    tracing::debug!(job = id, state = %state.as_str(), "a batch job has ended");
                    return;
                }
                Err(error) => {
                    tracing::warn!(job = id, %error, "how a batch job ended cannot be stored; trying again");
                    real_sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    fn worker(&self, job: BatchJob, ask: Patient, told: Arc<Told>, folder: PathBuf) -> Result<Worker> {
        let spec: Spec = serde_json::from_value(job.spec)
            .map_err(|error| BatchError::internal(format!("job `{}` cannot be read: {error}", job.id)))?;
        Ok(Worker {
            id: job.id,
            endpoint: job.endpoint,
            version: job.version,
            shape: spec.shape,
            caller: Caller {
                user: job.created_by,
                workspace: job.workspace,
            },
            places: self.inner.places.clone(),
            files: Arc::clone(&self.inner.files),
            ask,
            told,
            begun: self.now(),
            folder,
        })
    }

    /// Stores progress now and then; ends once another attempt has begun.
    async fn noting(&self, id: &str, attempt: u32, told: &Told) {
        let mut before = told.latest();
        loop {
            real_sleep(NOTE_EVERY).await;
            let latest = told.latest();
            if latest == before {
                continue;
            }
            let (key, progress, now) = (id.to_owned(), latest.clone(), self.now());
            let noted = self.inner.tracking.store();
            match noted
                .write(move |tx| batch_jobs::note(tx, &key, attempt, &progress, now))
                .await
            {
                Ok(true) => before = latest,
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(job = id, %error, "the progress of a batch job cannot be stored");
                }
            }
        }
    }
}

/// Takes a job off those that are worked on, however its work ends.
struct Leaving(Jobs, String);

impl Drop for Leaving {
    fn drop(&mut self) {
        let mut live = self.0.inner.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.remove(&self.1);
    }
}

async fn asked_to_stop(stopped: &mut watch::Receiver<bool>) {
    if stopped.wait_for(|stopped| *stopped).await.is_err() {
        // Nobody can ask any more.
        std::future::pending::<()>().await;
    }
}
