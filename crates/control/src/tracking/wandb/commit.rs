//! The moment at which an artifact becomes whole: its manifest is read, and all that it lists must be here.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use md5::{Digest as _, Md5};
use serde::Deserialize;
use serde_json::{Value, json};
use tidemill_core::digest::Digest;
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
    async fn manifest_bytes(&self, digest: Digest) -> Result<Vec<u8>> {
        let stored = self.store().objects().open(ContentKind::Artifact, digest).await?;
        let bytes = match stored {
            Some(stored) => stored.rest(MANIFEST_LIMIT).await?,
            None => None,
        };
        Ok(bytes.unwrap_or_default())
    }

    /// The manifest that an incremental version adds to, if there is one; none if it is not incremental.
    async fn base_of(&self, found: &ArtifactView) -> Result<Option<Option<Digest>>> {
        let (number, collection) = (found.artifact.number, found.collection.number);
        let base = self
            .store()
            .read(move |tx| {
                let Some(base) = artifacts::incremental(tx, number)? else {
                    return Ok(None);
                };
                let base = match base {
                    Some(base) => artifacts::get(tx, base)?.filter(|base| base.collection == collection),
                    None => artifacts::newest(tx, collection)?,
                };
                Ok(Some(base.and_then(|base| base.manifest)))
            })
            .await?;
        Ok(base)
    }

    /// Says that a version to be adds files to another one.
    pub async fn wandb_add_to(&self, caller: &Caller, number: i64, base: Option<i64>) -> Result<()> {
        self.wandb_artifact(caller, number).await?;
        Ok(self
            .store()
            .write(move |tx| artifacts::set_incremental(tx, number, base))
            .await?)
    }

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
        let mut bytes = self.manifest_bytes(digest).await?;
        let mut merged = None;
        if let Some(base) = self.base_of(&found).await? {
            let whole = match base {
                Some(base) => merge(&self.manifest_bytes(base).await?, &bytes)?,
                None => bytes,
            };
            let mut incoming = self.store().objects().incoming().await?;
            incoming.write(whole.clone().into()).await?;
            let arrived = incoming.finish().await?;
            // While it lives the collection of garbage waits for the row that refers to the object.
            merged = Some(
                self.store()
                    .objects()
                    .keep(arrived, ContentKind::Artifact)
                    .await?,
            );
            bytes = whole;
        }
        let manifest = read_manifest(&bytes)?;
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
                if let Some(kept) = &merged {
                    artifact.manifest = Some(kept.digest);
                    artifact.digest = digest_of(&files);
                }
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

fn read_manifest(bytes: &[u8]) -> Result<Manifest> {
    serde_json::from_slice(bytes)
        .map_err(|e| TrackingError::invalid(format!("the manifest cannot be read: {e}")))
}

/// A manifest with what another adds to it.
fn merge(base: &[u8], added: &[u8]) -> Result<Vec<u8>> {
    let read = |bytes: &[u8]| -> Result<Value> {
        serde_json::from_slice(bytes)
            .map_err(|e| TrackingError::invalid(format!("the manifest cannot be read: {e}")))
    };
    let (base, mut whole) = (read(base)?, read(added)?);
    let mut contents = base["contents"].as_object().cloned().unwrap_or_default();
    contents.extend(whole["contents"].as_object().cloned().unwrap_or_default());
    whole["contents"] = Value::Object(contents);
    Ok(whole.to_string().into_bytes())
}

/// What the client would compute of a whole manifest.
fn digest_of(files: &[ArtifactFile]) -> String {
    let mut md5 = Md5::new();
    md5.update(b"wandb-artifact-manifest-v1\n");
    for file in files {
        md5.update(format!("{}:{}\n", file.path, file.md5));
    }
    let mut text = String::new();
    for byte in md5.finalize() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
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
