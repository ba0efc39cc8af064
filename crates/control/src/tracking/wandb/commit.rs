//! The moment at which an artifact becomes whole: its manifest is read, and all that it lists must be here.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use md5::{Digest as _, Md5};
use serde::Deserialize;
use serde_json::{Value, json};
use tidemill_core::clock::Timestamp;
use tidemill_core::digest::Digest;
use tidemill_store::objects::Kept;
use tidemill_store::wandb::artifacts::{self, Artifact, ArtifactFile, ArtifactState, Direction};
use tidemill_store::wandb::retired;
use tidemill_store::{ContentKind, ReadTx, Tx};

use super::artifacts::{ArtifactView, Stored, name, of_workspace, unknown, view};
use crate::tracking::{Caller, Result, Tracking, TrackingError};

/// The largest manifest that is read.
const MANIFEST_LIMIT: u64 = 512 * 1024 * 1024;
/// So often a version is put together anew because what it adds to has changed meanwhile.
const TRIES: usize = 50;

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

    /// An object for the manifest that an incremental version has with its base's files.
    async fn merged(&self, base: Option<Digest>, added: &[u8]) -> Result<(Kept, Vec<u8>)> {
        let whole = match base {
            Some(base) => merge(&self.manifest_bytes(base).await?, added)?,
            None => added.to_vec(),
        };
        let mut incoming = self.store().objects().incoming().await?;
        incoming.write(whole.clone().into()).await?;
        let arrived = incoming.finish().await?;
        // While it lives the collection of garbage waits for the row that refers to the object.
        let kept = self
            .store()
            .objects()
            .keep(arrived, ContentKind::Artifact)
            .await?;
        Ok((kept, whole))
    }

    /// Says that a version to be adds files to another one. The client names what was the newest version when it began; what it adds
    /// to is the newest one in the end, or versions that are made at the same time would lose each other's files.
    pub async fn wandb_add_to(&self, caller: &Caller, number: i64, base: Option<i64>) -> Result<()> {
        let begun = self.wandb_artifact(caller, number).await?.artifact;
        Ok(self
            .store()
            .write(move |tx| {
                let mut base = base.map_or(Ok(None), |base| artifacts::get(tx, base))?;
                if let Some(named) = &base
                    && artifacts::was_newest(tx, named, begun.created_ms)?
                {
                    base = None;
                }
                artifacts::set_incremental(tx, begun.number, base.map(|base| base.number))
            })
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
        let bytes = self.manifest_bytes(digest).await?;
        for _ in 0..TRIES {
            let pending = found.artifact.clone();
            let base = self.store().read(move |tx| base_of(tx, &pending)).await?;
            let (kept, manifest) = match base {
                Base::None => (None, read_manifest(&bytes)?),
                Base::Of(base) => {
                    let manifest = base.and_then(|(_, manifest)| manifest);
                    let (kept, whole) = self.merged(manifest, &bytes).await?;
                    (Some(kept), read_manifest(&whole)?)
                }
            };
            let new = Commit {
                workspace: caller.workspace.clone(),
                number,
                base,
                merged: kept.as_ref().map(|kept| kept.digest),
                manifest,
                now: self.now(),
                now_ms: self.now_ms(),
            };
            let committed = self.store().write(move |tx| new.make(tx)).await??;
            drop(kept);
            if let Some(committed) = committed {
                self.tables_written(caller, committed.artifact.number).await?;
                return Ok(committed);
            }
        }
        Err(TrackingError::Conflict(format!(
            "others add to artifact `{}` all the time: try again",
            found.collection.name
        )))
    }
}

/// What a version to be adds its files to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Base {
    /// It is whole by itself.
    None,
    /// A version, if there is one: its number and its manifest.
    Of(Option<(i64, Option<Digest>)>),
}

fn base_of(tx: &ReadTx<'_>, pending: &Artifact) -> Stored<Base> {
    let collection = pending.collection;
    let base = match artifacts::incremental(tx, pending.number)? {
        None => return Ok(Base::None),
        Some(None) => artifacts::newest(tx, collection)?,
        Some(Some(base)) => artifacts::get(tx, base)?.filter(|base| base.collection == collection),
    };
    Ok(Base::Of(base.map(|base| (base.number, base.manifest))))
}

/// What is written in one transaction.
struct Commit {
    workspace: String,
    number: i64,
    base: Base,
    merged: Option<Digest>,
    manifest: Manifest,
    now: Timestamp,
    now_ms: i64,
}

impl Commit {
    /// The version; none if it would add to something else by now.
    fn make(self, tx: &mut Tx<'_>) -> Stored<Result<Option<ArtifactView>>> {
        let (number, now_ms) = (self.number, self.now_ms);
        let Some(mut artifact) = artifacts::get(tx, number)? else {
            return Ok(Err(unknown(&number.to_string())));
        };
        if artifact.state != ArtifactState::Pending {
            let same = of_workspace(tx, &self.workspace, number)?;
            return Ok(same.map(Some).ok_or_else(|| unknown(&number.to_string())));
        }
        if base_of(tx, &artifact)? != self.base {
            return Ok(Ok(None));
        }
        let files = match files_of(tx, &self.workspace, self.manifest)? {
            Ok(files) => files,
            Err(error) => return Ok(Err(error)),
        };
        if self.merged.is_some() {
            artifact.manifest = self.merged;
            artifact.digest = digest_of(&files);
        }
        let aliases: Vec<String> = serde_json::from_value(artifact.aliases.clone()).unwrap_or_default();
        artifact.updated_ms = now_ms;
        if let Some(same) = artifacts::by_digest(tx, artifact.collection, &artifact.digest)? {
            if let Some(seconds) = retired::ttl(tx, number)? {
                retired::set_ttl(tx, &artifact, None)?;
                retired::set_ttl(tx, &same, Some(seconds))?;
            }
            // Its number goes on to stand for that version.
            artifact.state = ArtifactState::Deleted;
            artifact.manifest = None;
            artifacts::update(tx, &artifact)?;
            name(tx, &same, &aliases)?;
            if let Some(run_id) = &artifact.run_id {
                artifacts::link(tx, run_id, Direction::Output, same.number, now_ms)?;
            }
            return view(tx, same).map(|same| Ok(Some(same)));
        }
        artifact.version = Some(artifacts::take_version(tx, artifact.collection)?);
        artifact.state = ArtifactState::Committed;
        artifact.size = files.iter().map(|file| file.size).sum();
        artifact.file_count = files.len() as i64;
        artifacts::put_files(tx, number, &files)?;
        artifacts::update(tx, &artifact)?;
        name(tx, &artifact, &aliases)?;
        if let Some(run_id) = &artifact.run_id {
            artifacts::link(tx, run_id, Direction::Output, number, now_ms)?;
        }
        let whole = view(tx, artifact)?;
        let payload = json!({
            "name": whole.collection.name, "type": whole.collection.kind, "version": whole.artifact.version,
            "project": whole.collection.project, "run": whole.artifact.run_id,
        });
        tx.event(
            self.now,
            "artifact.committed",
            "artifact",
            &whole.collection.name,
            payload,
        )?;
        Ok(Ok(Some(whole)))
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
