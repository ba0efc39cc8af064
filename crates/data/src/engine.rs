//! The port of `core` that this crate stands behind.

use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use tidemill_core::clock::Timestamp;
use tidemill_core::digest::Digest;
use tidemill_core::frame::{Frame, Task};
use tidemill_core::ports::{
    DataEngine, LabelledRows, PortError, ReplayChunk, SnapshotRequest, SourceSummary,
};
use tidemill_core::snapshot::SnapshotManifest;
use tidemill_core::spec::Spec;
use tidemill_store::objects::{ObjectKey, Objects};

use crate::error::{DataError, Result};
use crate::expectations::check_expectations;
use crate::query::{SpecSource, Wanted};
use crate::rows::read_rows;
use crate::sources::{SchemaCache, Source, resolve};
use crate::{inspect, replay, snapshots};

/// [`DataEngine`] on DataFusion, Arrow and Parquet, with snapshots in the object store. Cheap to clone.
#[derive(Clone)]
pub struct DataFusionEngine {
    objects: Objects,
    schemas: SchemaCache,
}

impl DataFusionEngine {
    /// An engine that keeps its snapshots in `objects`.
    pub fn new(objects: Objects) -> Self {
        Self {
            objects,
            schemas: SchemaCache::default(),
        }
    }

    async fn open(&self, root: &Path, spec: &Spec) -> Result<SpecSource> {
        SpecSource::open(&self.schemas, root, spec).await
    }
}

/// Runs work that keeps a core busy on a thread that may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| DataError::Upstream(format!("work on data was interrupted: {e}")))?
}

#[async_trait]
impl DataEngine for DataFusionEngine {
    async fn inspect(&self, root: &Path, source: &str) -> Result<SourceSummary, PortError> {
        let opened = Source::open(&self.schemas, root, source, None).await?;
        Ok(inspect::inspect(&opened).await?)
    }

    async fn check_spec(&self, root: &Path, spec: &Spec) -> Result<(), PortError> {
        let opened = self.open(root, spec).await?;
        opened.check(spec).await?;
        Ok(check_expectations(root, spec, &opened)?)
    }

    async fn build_snapshot(&self, request: SnapshotRequest) -> Result<SnapshotManifest, PortError> {
        let built = snapshots::build(&self.schemas, &request).await?;
        let manifest = built.manifest;
        for file in &manifest.files {
            self.objects
                .put(&ObjectKey::Snapshot(file.digest), built.parquet.clone())
                .await?;
        }
        let json = serde_json::to_vec(&manifest).map_err(DataError::from)?;
        self.objects
            .put(&ObjectKey::SnapshotManifest(manifest.digest), Bytes::from(json))
            .await?;
        tracing::info!(
            snapshot = %manifest.digest.short(),
            rows = manifest.rows,
            quarantined = manifest.quarantined,
            "snapshot stored"
        );
        Ok(manifest)
    }

    async fn load_snapshot(&self, manifest: &SnapshotManifest) -> Result<LabelledRows, PortError> {
        let [file] = manifest.files.as_slice() else {
            return Err(DataError::Stored(format!(
                "snapshot `{}` has {} files, expected one; rebuild it",
                manifest.digest.short(),
                manifest.files.len()
            ))
            .into());
        };
        let parquet = self.objects.get(&ObjectKey::Snapshot(file.digest)).await?;
        let manifest = manifest.clone();
        Ok(blocking(move || snapshots::load(&manifest, parquet)).await?)
    }

    async fn export_rows(
        &self,
        manifest: &SnapshotManifest,
        rows: &LabelledRows,
    ) -> Result<Vec<u8>, PortError> {
        let (manifest, rows) = (manifest.clone(), rows.clone());
        Ok(blocking(move || snapshots::export(&manifest, &rows)).await?)
    }

    async fn read_replay(
        &self,
        root: &Path,
        spec: &Spec,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<ReplayChunk, PortError> {
        let opened = self.open(root, spec).await?;
        Ok(replay::read_replay(&opened, spec, from, until).await?)
    }

    async fn read_features(&self, file: &Path, spec: &Spec) -> Result<Frame, PortError> {
        let file = std::path::absolute(file).map_err(|e| DataError::Upstream(e.to_string()))?;
        let mut unlabelled = spec.clone();
        unlabelled.data.source = file.display().to_string();
        unlabelled.data.format = None;
        unlabelled.data.time = None;
        unlabelled.data.key = None;
        let nothing = match spec.label.task {
            Task::Binary => "CAST(NULL AS BOOLEAN)",
            Task::Regression => "CAST(NULL AS DOUBLE)",
            Task::Multiclass => "CAST(NULL AS VARCHAR)",
        };
        unlabelled.label.expression = Some(nothing.to_owned());
        unlabelled.label.known_at = None;
        let opened = self.open(Path::new("/"), &unlabelled).await?;
        Ok(read_rows(&opened, &unlabelled, Wanted::default()).await?.features)
    }

    async fn time_range(
        &self,
        root: &Path,
        spec: &Spec,
    ) -> Result<Option<(Timestamp, Timestamp)>, PortError> {
        let opened = self.open(root, spec).await?;
        Ok(opened.time_range(spec).await?)
    }

    async fn source_digest(&self, root: &Path, spec: &Spec) -> Result<Digest, PortError> {
        let (root, source, format) = (root.to_owned(), spec.data.source.clone(), spec.data.format);
        Ok(blocking(move || resolve(&root, &source, format)?.digest(&root)).await?)
    }
}
