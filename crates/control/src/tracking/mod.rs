//! Experiments, runs, models and artifacts as clients of MLflow know them: what is allowed, in which words it is refused, and one
//! transaction for each call.
//!
//! One file a noun, each with the methods of [`Tracking`] that are about it. Limits and texts are MLflow's, because clients and
//! their tests read them.

pub(crate) mod artifacts;
pub mod automations;
mod error;
mod eval_datasets;
mod experiments;
mod history;
mod housekeeping;
pub mod import;
mod inputs;
mod locations;
mod logged_models;
mod logging;
mod purge;
pub mod registry;
mod run_names;
mod runs;
pub mod search;
pub mod sweeps;
pub mod tables;
mod validate;
pub mod wandb;
pub mod webhooks;
mod workspaces;

use std::sync::Arc;

use tidemill_core::clock::{Clock, Timestamp};
use tidemill_store::Store;
use tidemill_store::objects::{Bucket, Folder};
use tidemill_store::sealing::SealingKey;
use tidemill_store::tracking::metrics::KnownKeys;

use crate::users::{AuthOptions, Memory};

pub use artifacts::{
    Artifact, ArtifactUpload, Destination, OpenedUpload, Origin, Owners, PartUpload, PartUrl, SignedDownload,
    Swept, safe_name, safe_path,
};
pub use error::{Result, TrackingError};
pub use eval_datasets::{CreateEvalDataset, EvalRecords, Upserted};
pub use experiments::CreateExperiment;
pub use history::{MAX_BUCKETS, MAX_PAGE, MAX_RUNS, MAX_SAMPLED_STEPS, RunPoints};
pub use logged_models::CreateLoggedModel;
pub use logging::Batch;
pub use purge::{PurgeRequest, Purged};
pub use runs::CreateRun;

/// What belongs to no other workspace belongs to this one.
pub const DEFAULT_WORKSPACE: &str = "default";

/// Who calls, and for which workspace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The user's name; empty where nobody has to say who they are.
    pub user: String,
    /// The workspace that names are looked up in.
    pub workspace: String,
}

impl Default for Caller {
    fn default() -> Self {
        Self {
            user: String::new(),
            workspace: DEFAULT_WORKSPACE.to_owned(),
        }
    }
}

/// Settings of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrackingOptions {
    /// Where the artifacts of new experiments go: `mlflow-artifacts:/` for the server's own proxy, or any URI that clients reach
    /// by themselves, such as `file:///srv/artifacts`.
    pub default_artifact_root: String,
    /// Where the proxy keeps artifacts under their own names; `None` for the content-addressed object store.
    pub artifacts_destination: Option<Destination>,
    /// Buckets in which the server itself reads and deletes artifacts that clients put there, such as that of the default root.
    pub buckets: Vec<Bucket>,
    /// Whether clients are given a bucket's own URLs for large files, or only this server's.
    pub bucket_urls: bool,
    /// Whether a model version's source must belong to the run that the request names, as MLflow 3.17 has it.
    pub strict_sources: bool,
    /// Where webhooks may go, and how hard to try.
    pub webhooks: webhooks::WebhookOptions,
    /// Whether requests have to say who sends them, and how.
    pub auth: Option<AuthOptions>,
    /// Whether there can be other workspaces than the default one.
    pub workspaces: bool,
}

impl Default for TrackingOptions {
    fn default() -> Self {
        Self {
            default_artifact_root: "mlflow-artifacts:/".to_owned(),
            artifacts_destination: None,
            buckets: Vec::new(),
            bucket_urls: true,
            strict_sources: false,
            webhooks: webhooks::WebhookOptions::default(),
            auth: None,
            workspaces: true,
        }
    }
}

/// Tracking and registry. Cheap to clone.
#[derive(Clone)]
pub struct Tracking {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    clock: Arc<dyn Clock>,
    options: TrackingOptions,
    users: Memory,
    uploads: artifacts::Uploads,
    /// Rung when the outbox of webhooks has something new.
    outbox: tokio::sync::Notify,
    sender: std::sync::OnceLock<Arc<dyn webhooks::Sender>>,
    metric_keys: Arc<KnownKeys>,
    sealing: std::sync::OnceLock<SealingKey>,
    awaited: automations::Awaited,
    tables: std::sync::OnceLock<Arc<dyn tidemill_core::ports::TableEngine>>,
    /// Held while a file is turned into Parquet.
    converting: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Tracking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracking")
            .field("options", &self.inner.options)
            .finish_non_exhaustive()
    }
}

impl Tracking {
    /// Over a store that is open. Makes sure of the default experiment.
    pub fn new(store: Store, clock: Arc<dyn Clock>, options: TrackingOptions) -> Self {
        let tracking = Self {
            inner: Arc::new(Inner {
                store,
                clock,
                options,
                users: Memory::new(),
                uploads: artifacts::Uploads::default(),
                outbox: tokio::sync::Notify::new(),
                sender: std::sync::OnceLock::new(),
                metric_keys: Arc::default(),
                sealing: std::sync::OnceLock::new(),
                awaited: automations::Awaited::default(),
                tables: std::sync::OnceLock::new(),
                converting: tokio::sync::Mutex::new(()),
            }),
        };
        if let Some(Destination::Folder(folder)) = &tracking.options().artifacts_destination {
            Folder::at(folder).discard_unfinished();
        }
        tracking.ensure_default_experiment();
        tracking.seal_old_secrets();
        tracking.read_automations();
        tracking
    }

    fn uploads(&self) -> &artifacts::Uploads {
        &self.inner.uploads
    }

    /// State.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// What is remembered of users.
    pub(crate) fn users(&self) -> &Memory {
        &self.inner.users
    }

    /// The names of metrics whose numbers are known.
    fn metric_keys(&self) -> &Arc<KnownKeys> {
        &self.inner.metric_keys
    }

    /// What automations wait for.
    fn awaited(&self) -> &automations::Awaited {
        &self.inner.awaited
    }

    /// Settings.
    pub fn options(&self) -> &TrackingOptions {
        &self.inner.options
    }

    /// What the server's clock shows.
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// What the server's clock shows, in milliseconds since the epoch, as MLflow counts.
    pub fn now_ms(&self) -> i64 {
        self.now().as_millis()
    }
}
