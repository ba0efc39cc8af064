//! Versions of artifacts in lists; their tags; and how they go, by hand or when their time is over.

use serde_json::json;
use tidemill_core::digest::Digest;
use tidemill_store::Tx;
use tidemill_store::wandb::artifacts::{self, Artifact, Collection, Direction};
use tidemill_store::wandb::runs::{self, WandbName, WandbRun};
use tidemill_store::wandb::{links, retired};

use super::artifacts::{ArtifactView, Stored, unknown, view};
use crate::tracking::{Caller, Result, Tracking, TrackingError};

/// So many versions end at once.
const SOME: u32 = 100;

impl Tracking {
    /// Collections of a project; of one type, if it is given.
    pub async fn wandb_collections(&self, at: WandbName, kind: Option<String>) -> Result<Vec<Collection>> {
        Ok(self
            .store()
            .read(move |tx| retired::collections(tx, &at.workspace, &at.entity, &at.project, kind.as_deref()))
            .await?)
    }

    /// The versions of a collection with their numbers there, the newest first.
    pub async fn wandb_versions(&self, collection: Collection) -> Result<Vec<(i64, ArtifactView)>> {
        Ok(self
            .store()
            .read(move |tx| {
                let mut found = Vec::new();
                if collection.is_portfolio {
                    for link in links::versions(tx, collection.number)? {
                        if let Some(artifact) = artifacts::get(tx, link.artifact)? {
                            found.push((link.version, view(tx, artifact)?));
                        }
                    }
                    return Ok(found);
                }
                for artifact in retired::versions(tx, collection.number)? {
                    found.push((artifact.version.unwrap_or_default(), view(tx, artifact)?));
                }
                Ok(found)
            })
            .await?)
    }

    /// The runs that wrote or read a version.
    pub async fn wandb_runs_of(
        &self,
        caller: &Caller,
        number: i64,
        direction: Direction,
    ) -> Result<Vec<WandbRun>> {
        let number = self.wandb_artifact(caller, number).await?.artifact.number;
        Ok(self
            .store()
            .read(move |tx| {
                let mut found = Vec::new();
                for run_id in artifacts::runs_of(tx, number, direction)? {
                    found.extend(runs::get(tx, &run_id)?);
                }
                Ok(found)
            })
            .await?)
    }

    /// Gives a version tags and takes others from it, and says after how many seconds it goes (`Some(None)` for never).
    pub async fn wandb_mark_artifact(
        &self,
        caller: &Caller,
        number: i64,
        (add, remove): (Vec<String>, Vec<String>),
        ttl: Option<Option<i64>>,
    ) -> Result<ArtifactView> {
        let number = self.wandb_artifact(caller, number).await?.artifact.number;
        if let Some(Some(seconds)) = ttl
            && seconds <= 0
        {
            return Err(TrackingError::invalid(format!(
                "an artifact lasts for a positive number of seconds, and not for {seconds}"
            )));
        }
        let marked = self
            .store()
            .write(move |tx| {
                let Some(artifact) = artifacts::get(tx, number)? else {
                    return Ok(None);
                };
                for tag in &add {
                    retired::add_tag(tx, number, tag)?;
                }
                for tag in &remove {
                    retired::remove_tag(tx, number, tag)?;
                }
                if let Some(seconds) = ttl {
                    retired::set_ttl(tx, &artifact, seconds)?;
                }
                view(tx, artifact).map(Some)
            })
            .await?;
        marked.ok_or_else(|| unknown(&number.to_string()))
    }

    /// Deletes a version for good. One that has aliases besides `latest`, here or in portfolios, goes only with them.
    pub async fn wandb_delete_artifact(
        &self,
        caller: &Caller,
        number: i64,
        with_aliases: bool,
    ) -> Result<()> {
        let found = self.wandb_artifact(caller, number).await?;
        let (number, now, now_ms) = (found.artifact.number, self.now(), self.now_ms());
        let freed = self
            .store()
            .write(move |tx| {
                let Some(artifact) = artifacts::get(tx, number)? else {
                    return Ok(Err(unknown(&number.to_string())));
                };
                let held = retired::held(tx, &artifact)?;
                if !with_aliases && !held.is_empty() {
                    return Ok(Err(TrackingError::Conflict(format!(
                        "artifact `{}:v{}` has the aliases {held:?}: delete it together with them, by `delete_aliases`",
                        found.collection.name,
                        artifact.version.unwrap_or_default()
                    ))));
                }
                let digests = remove(tx, &artifact, now_ms)?;
                let payload = json!({
                    "name": found.collection.name, "type": found.collection.kind, "version": artifact.version,
                    "project": found.collection.project,
                });
                tx.event(now, "artifact.deleted", "artifact", &found.collection.name, payload)?;
                Ok(Ok(digests))
            })
            .await??;
        self.free(freed).await
    }

    /// Deletes versions whose time is over, but for those that an alias or a portfolio holds; how many.
    pub async fn wandb_end_artifacts(&self) -> Result<usize> {
        let (now, now_ms) = (self.now(), self.now_ms());
        let any = self.store().read(move |tx| retired::ended(tx, now_ms, 1)).await?;
        if any.is_empty() {
            return Ok(0);
        }
        let (count, freed) = self
            .store()
            .write(move |tx| {
                let mut freed = Vec::new();
                let ended = retired::ended(tx, now_ms, SOME)?;
                for number in &ended {
                    let Some(artifact) = artifacts::get(tx, *number)? else {
                        continue;
                    };
                    let collection = artifacts::collection(tx, artifact.collection)?;
                    freed.extend(remove(tx, &artifact, now_ms)?);
                    let payload = json!({ "name": collection.name, "version": artifact.version, "why": "its time is over" });
                    tx.event(now, "artifact.deleted", "artifact", &collection.name, payload)?;
                }
                Ok((ended.len(), freed))
            })
            .await?;
        self.free(freed).await?;
        Ok(count)
    }

    /// Forgets bytes of artifacts that no version keeps.
    pub(crate) async fn wandb_forget_blobs(&self) -> Result<()> {
        let now_ms = self.now_ms();
        let freed = self
            .store()
            .write(move |tx| retired::forget_blobs(tx, now_ms))
            .await?;
        self.free(freed).await
    }
}

/// Removes a version; the objects that may be free then.
fn remove(tx: &mut Tx<'_>, artifact: &Artifact, now_ms: i64) -> Stored<Vec<Digest>> {
    retired::remove(tx, artifact)?;
    let mut digests = retired::forget_blobs(tx, now_ms)?;
    digests.extend(artifact.manifest);
    Ok(digests)
}
