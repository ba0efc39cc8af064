//! The moment at which an artifact becomes whole: its manifest is read, and all that it lists must be here.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;
use tidemill_store::wandb::artifacts::{self, ArtifactFile, ArtifactState, Direction};
use tidemill_store::{ContentKind, ReadTx};

use super::artifacts::{ArtifactView, Stored, name, unknown, view};
use crate::tracking::{Caller, Result, Tracking, TrackingError};

/// The largest manifest that is read.
const MANIFEST_LIMIT: u64 = 512 * 1024 * 1024;

#[derive(Deserialize)]
struct Manifest {
    contents: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    digest: String,
    #[serde(default)]
    size: Option<i64>,
    #[serde(default, rename = "ref")]
    reference: Option<String>,
}

impl Tracking {
    /// Makes an artifact whole: it gets the collection's next version. All its files must be here.
    pub async fn wandb_commit_artifact(&self, caller: &Caller, number: i64) -> Result<ArtifactView> {
        let found = self.wandb_artifact(caller, number).await?;
        if found.artifact.state == ArtifactState::Committed {
            return Ok(found);
        }
        let Some(digest) = found.artifact.manifest else {
            return Err(TrackingError::InvalidState(format!(
                "artifact `{}` has no manifest yet",
                found.collection.name
            )));
        };
        let stored = self.store().objects().open(ContentKind::Artifact, digest).await?;
        let bytes = match stored {
            Some(stored) => stored.rest(MANIFEST_LIMIT).await?,
            None => None,
        };
        let manifest: Manifest = serde_json::from_slice(&bytes.unwrap_or_default())
            .map_err(|e| TrackingError::invalid(format!("the manifest cannot be read: {e}")))?;
        let (workspace, now, now_ms) = (caller.workspace.clone(), self.now(), self.now_ms());
        let committed = self
            .store()
            .write(move |tx| {
                let Some(mut artifact) = artifacts::get(tx, number)? else {
                    return Ok(Err(unknown(&number.to_string())));
                };
                if artifact.state == ArtifactState::Committed {
                    return view(tx, artifact).map(Ok);
                }
                let files = match files_of(tx, &workspace, manifest)? {
                    Ok(files) => files,
                    Err(error) => return Ok(Err(error)),
                };
                artifact.version = Some(artifacts::take_version(tx, artifact.collection)?);
                artifact.state = ArtifactState::Committed;
                artifact.size = files.iter().map(|file| file.size).sum();
                artifact.file_count = files.len() as i64;
                artifact.updated_ms = now_ms;
                artifacts::put_files(tx, number, &files)?;
                artifacts::update(tx, &artifact)?;
                let aliases: Vec<String> = serde_json::from_value(artifact.aliases.clone()).unwrap_or_default();
                name(tx, &artifact, &aliases)?;
                if let Some(run_id) = &artifact.run_id {
                    artifacts::link(tx, run_id, Direction::Output, number, now_ms)?;
                }
                let whole = view(tx, artifact)?;
                let payload = json!({
                    "name": whole.collection.name, "type": whole.collection.kind, "version": whole.artifact.version,
                    "project": whole.collection.project, "run": whole.artifact.run_id,
                });
                tx.event(now, "artifact.committed", "artifact", &whole.collection.name, payload)?;
                Ok(Ok(whole))
            })
            .await??;
        self.tables_written(caller, number).await?;
        Ok(committed)
    }
}

/// The files that a manifest lists, if the bytes of each are here or lie elsewhere.
fn files_of(tx: &ReadTx<'_>, workspace: &str, manifest: Manifest) -> Stored<Result<Vec<ArtifactFile>>> {
    let mut files = Vec::with_capacity(manifest.contents.len());
    for (path, entry) in manifest.contents {
        let blob = match entry.reference {
            Some(_) => None,
            None => artifacts::blob(tx, workspace, &entry.digest)?,
        };
        if entry.reference.is_none() && blob.is_none() {
            return Ok(Err(TrackingError::InvalidState(format!(
                "the bytes of `{path}` were not sent"
            ))));
        }
        files.push(ArtifactFile {
            path,
            md5: entry.digest,
            size: entry.size.or(blob.map(|blob| blob.size)).unwrap_or(0),
            reference: entry.reference,
        });
    }
    Ok(Ok(files))
}
