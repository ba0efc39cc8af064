//! W&B's artifacts: begun, filled, committed, found again by name and alias, and who read and wrote them.

use serde_json::{Map, Value, json};
use tidemill_store::tracking::runs as tracked;
use tidemill_store::wandb::artifacts::{self, Artifact, ArtifactFile, ArtifactState, Collection, Direction};
use tidemill_store::wandb::runs::{self, WandbName};
use tidemill_store::wandb::{links, retired};
use tidemill_store::{ReadTx, StoreError, Tx};

use super::grants::Grant;
use crate::tracking::{Caller, Result, Tracking, TrackingError};

pub(super) type Stored<T> = std::result::Result<T, StoreError>;

/// The alias of the newest version.
const LATEST: &str = "latest";
/// An artifact to be.
#[derive(Clone, PartialEq, Debug)]
pub struct NewArtifact {
    /// Entity and project, and the run that writes it, if any.
    pub at: WandbName,
    /// The collection.
    pub collection: String,
    /// The collection's type.
    pub kind: String,
    /// Of the manifest.
    pub digest: String,
    /// What the client calls it.
    pub client_id: String,
    /// For people.
    pub description: String,
    /// The client's own.
    pub metadata: Value,
    /// What to call the version.
    pub aliases: Vec<String>,
    /// After how many seconds it goes by itself (`Some(None)` for never), if that is said.
    pub ttl_s: Option<Option<i64>>,
}

/// A file that a client is about to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewFile {
    /// The artifact's number.
    pub artifact: i64,
    /// In base64.
    pub md5: String,
}

/// An artifact with its names.
#[derive(Clone, PartialEq, Debug)]
pub struct ArtifactView {
    /// The version.
    pub artifact: Artifact,
    /// Where it belongs.
    pub collection: Collection,
    /// What it is called.
    pub aliases: Vec<String>,
    /// Words that people gave it.
    pub tags: Vec<String>,
    /// After how many seconds it goes, if it does by itself.
    pub ttl_s: Option<i64>,
}

/// What a run read and wrote.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Lineage {
    /// What it read, with the runs that wrote it.
    pub inputs: Vec<(ArtifactView, Vec<String>)>,
    /// What it wrote, with the runs that read it.
    pub outputs: Vec<(ArtifactView, Vec<String>)>,
}

pub(super) fn unknown(what: &str) -> TrackingError {
    TrackingError::not_found(format!("artifact `{what}` not found"))
}

pub(super) fn view(tx: &ReadTx<'_>, artifact: Artifact) -> Stored<ArtifactView> {
    Ok(ArtifactView {
        collection: artifacts::collection(tx, artifact.collection)?,
        aliases: artifacts::aliases(tx, &artifact)?,
        tags: retired::tags(tx, artifact.number)?,
        ttl_s: retired::ttl(tx, artifact.number)?,
        artifact,
    })
}

/// An artifact by its number, if it belongs to the workspace. Where its contents turned out to be those of another version, it is that.
pub(super) fn of_workspace(tx: &ReadTx<'_>, workspace: &str, number: i64) -> Stored<Option<ArtifactView>> {
    let Some(mut artifact) = artifacts::get(tx, number)? else {
        return Ok(None);
    };
    if artifact.state == ArtifactState::Deleted {
        let Some(same) = artifacts::by_digest(tx, artifact.collection, &artifact.digest)? else {
            return Ok(None);
        };
        artifact = same;
    }
    let found = view(tx, artifact)?;
    Ok((found.collection.workspace == workspace).then_some(found))
}

/// Gives a version its aliases; `v3` and the like name versions by themselves.
pub(super) fn name(tx: &mut Tx<'_>, artifact: &Artifact, aliases: &[String]) -> Stored<()> {
    for alias in aliases {
        artifacts::set_alias(tx, artifact.collection, alias, artifact.number)?;
    }
    let newest = artifacts::newest(tx, artifact.collection)?;
    if newest.is_some_and(|newest| newest.number == artifact.number) {
        artifacts::set_alias(tx, artifact.collection, LATEST, artifact.number)?;
    }
    Ok(())
}

/// Finds `name:alias`, `name:v3`, or the newest version of `name`.
pub(super) fn find(tx: &ReadTx<'_>, at: &WandbName, full: &str) -> Stored<Option<ArtifactView>> {
    let (name, alias) = full.split_once(':').unwrap_or((full, LATEST));
    let Some(collection) = artifacts::find_collection(tx, &at.workspace, &at.entity, &at.project, name)?
    else {
        return Ok(None);
    };
    let number = alias
        .strip_prefix('v')
        .and_then(|digits| digits.parse::<i64>().ok());
    if collection.is_portfolio {
        let linked = match number {
            Some(version) => links::by_version(tx, collection.number, version)?
                .map_or(Ok(None), |link| artifacts::get(tx, link.artifact))?,
            None => artifacts::by_alias(tx, collection.number, alias)?,
        };
        return linked.map(|artifact| view(tx, artifact)).transpose();
    }
    let mut found = match number {
        Some(version) => artifacts::by_version(tx, collection.number, version)?,
        None => artifacts::by_alias(tx, collection.number, alias)?,
    };
    if found.is_none() {
        // By the digest of its contents, as W&B allows.
        found = artifacts::by_digest(tx, collection.number, alias)?;
    }
    match found.filter(|artifact| artifact.state == ArtifactState::Committed) {
        Some(artifact) => view(tx, artifact).map(Some),
        None => Ok(None),
    }
}

impl Tracking {
    /// Begins an artifact. If the collection's newest version has the same contents, that one is given its aliases, and nothing is to
    /// be sent. With the contents of an older version that is seen only at the end: the client does not say yet whether it adds them
    /// to the newest one.
    pub async fn wandb_create_artifact(&self, new: NewArtifact) -> Result<ArtifactView> {
        let now_ms = self.now_ms();
        self.store()
            .write(move |tx| {
                let at = &new.at;
                let run = if at.name.is_empty() {
                    None
                } else {
                    runs::find(tx, at)?
                };
                let run_id = run.map(|run| run.run_id);
                let wanted = Collection {
                    number: 0,
                    workspace: at.workspace.clone(),
                    entity: at.entity.clone(),
                    project: at.project.clone(),
                    name: new.collection.clone(),
                    kind: new.kind.clone(),
                    created_ms: now_ms,
                    is_portfolio: false,
                };
                let collection = artifacts::ensure_collection(tx, &wanted)?;
                if collection.is_portfolio {
                    return Ok(Err(TrackingError::Conflict(format!(
                        "`{}` holds links: log the artifact under another name",
                        new.collection
                    ))));
                }
                if collection.kind != new.kind {
                    return Ok(Err(TrackingError::Conflict(format!(
                        "artifact `{}` has the type `{}`, not `{}`",
                        new.collection, collection.kind, new.kind
                    ))));
                }
                let newest = artifacts::newest(tx, collection.number)?;
                if let Some(same) = newest.filter(|newest| newest.digest == new.digest) {
                    name(tx, &same, &new.aliases)?;
                    if let Some(run_id) = &run_id {
                        artifacts::link(tx, run_id, Direction::Output, same.number, now_ms)?;
                    }
                    if let Some(seconds) = new.ttl_s {
                        retired::set_ttl(tx, &same, seconds)?;
                    }
                    return view(tx, same).map(Ok);
                }
                let mut artifact = Artifact {
                    number: 0,
                    collection: collection.number,
                    version: None,
                    state: ArtifactState::Pending,
                    digest: new.digest,
                    client_id: new.client_id,
                    description: new.description,
                    metadata: new.metadata,
                    aliases: json!(new.aliases),
                    run_id,
                    manifest: None,
                    size: 0,
                    file_count: 0,
                    created_ms: now_ms,
                    updated_ms: now_ms,
                };
                artifact.number = artifacts::insert(tx, &artifact)?;
                if let Some(seconds) = new.ttl_s {
                    retired::set_ttl(tx, &artifact, seconds)?;
                }
                view(tx, artifact).map(Ok)
            })
            .await?
    }

    /// The newest version of a collection.
    pub async fn wandb_newest(&self, collection: i64) -> Result<Option<i64>> {
        let newest = self
            .store()
            .read(move |tx| artifacts::newest(tx, collection))
            .await?;
        Ok(newest.map(|newest| newest.number))
    }

    /// Permissions to send files, in order; none for a file whose bytes are here already.
    pub async fn wandb_artifact_uploads(
        &self,
        caller: &Caller,
        files: Vec<NewFile>,
    ) -> Result<Vec<Option<String>>> {
        let signer = self.signer().await?;
        let workspace = caller.workspace.clone();
        let uploads = self
            .store()
            .read(move |tx| {
                let mut tokens = Vec::with_capacity(files.len());
                for file in files {
                    let there = artifacts::blob(tx, &workspace, &file.md5)?.is_some();
                    let grant = Grant::Blob {
                        workspace: workspace.clone(),
                        md5: file.md5,
                    };
                    tokens.push((!there).then(|| signer.sign(grant)));
                }
                Ok(tokens)
            })
            .await?;
        Ok(uploads)
    }

    /// The permission to send an artifact's manifest; `None` where it is committed already.
    pub async fn wandb_manifest_upload(&self, caller: &Caller, artifact: i64) -> Result<Option<String>> {
        let found = self.wandb_artifact(caller, artifact).await?;
        if found.artifact.state != ArtifactState::Pending {
            return Ok(None);
        }
        let workspace = caller.workspace.clone();
        Ok(Some(
            self.signer().await?.sign(Grant::Manifest { workspace, artifact }),
        ))
    }

    /// An artifact by its number.
    pub async fn wandb_artifact(&self, caller: &Caller, number: i64) -> Result<ArtifactView> {
        let workspace = caller.workspace.clone();
        let found = self
            .store()
            .read(move |tx| of_workspace(tx, &workspace, number))
            .await?;
        found.ok_or_else(|| unknown(&number.to_string()))
    }

    /// An artifact by what its client called it before it had a number.
    pub async fn wandb_artifact_of_client(
        &self,
        caller: &Caller,
        client_id: &str,
    ) -> Result<Option<ArtifactView>> {
        let (workspace, wanted) = (caller.workspace.clone(), client_id.to_owned());
        let found = self
            .store()
            .read(move |tx| match artifacts::by_client_id(tx, &wanted)? {
                Some(artifact) => of_workspace(tx, &workspace, artifact.number),
                None => Ok(None),
            })
            .await?;
        Ok(found)
    }

    /// An artifact by name and alias.
    pub async fn wandb_find_artifact(&self, at: WandbName, full: &str) -> Result<Option<ArtifactView>> {
        let full = full.to_owned();
        Ok(self.store().read(move |tx| find(tx, &at, &full)).await?)
    }

    /// A collection by name.
    pub async fn wandb_collection(&self, at: WandbName, name: &str) -> Result<Option<Collection>> {
        let name = name.to_owned();
        let read = move |tx: &ReadTx<'_>| {
            artifacts::find_collection(tx, &at.workspace, &at.entity, &at.project, &name)
        };
        Ok(self.store().read(read).await?)
    }

    /// Says that a run reads an artifact.
    pub async fn wandb_use_artifact(
        &self,
        caller: &Caller,
        number: i64,
        at: WandbName,
    ) -> Result<ArtifactView> {
        let found = self.wandb_artifact(caller, number).await?;
        let (number, now_ms) = (found.artifact.number, self.now_ms());
        self.store()
            .write(move |tx| {
                if let Some(run) = runs::find(tx, &at)? {
                    artifacts::link(tx, &run.run_id, Direction::Input, number, now_ms)?;
                }
                Ok(())
            })
            .await?;
        Ok(found)
    }

    /// Files of an artifact after a path, each with the permission to read it; none for what lies elsewhere.
    pub async fn wandb_artifact_downloads(
        &self,
        caller: &Caller,
        number: i64,
        after: String,
        limit: u32,
    ) -> Result<Vec<(ArtifactFile, Option<String>)>> {
        let number = self.wandb_artifact(caller, number).await?.artifact.number;
        let signer = self.signer().await?;
        let workspace = caller.workspace.clone();
        let files = self
            .store()
            .read(move |tx| {
                let mut files = Vec::new();
                for file in artifacts::files(tx, number, &after, limit)? {
                    let blob = match file.reference {
                        None => artifacts::blob(tx, &workspace, &file.md5)?,
                        Some(_) => None,
                    };
                    let token = blob.map(|blob| signer.sign(Grant::Read { digest: blob.digest }));
                    files.push((file, token));
                }
                Ok(files)
            })
            .await?;
        Ok(files)
    }

    /// The permission to read an artifact's manifest.
    pub async fn wandb_manifest_download(&self, caller: &Caller, number: i64) -> Result<Option<String>> {
        let found = self.wandb_artifact(caller, number).await?;
        let Some(digest) = found.artifact.manifest else {
            return Ok(None);
        };
        Ok(Some(self.signer().await?.sign(Grant::Read { digest })))
    }

    /// Changes what people may change of a version.
    pub async fn wandb_update_artifact(
        &self,
        caller: &Caller,
        number: i64,
        description: Option<String>,
        metadata: Option<Value>,
        aliases: Option<(Vec<String>, bool)>,
    ) -> Result<ArtifactView> {
        let number = self.wandb_artifact(caller, number).await?.artifact.number;
        let now_ms = self.now_ms();
        let changed = self
            .store()
            .write(move |tx| {
                let Some(mut artifact) = artifacts::get(tx, number)? else {
                    return Ok(None);
                };
                artifact.description = description.unwrap_or(artifact.description);
                artifact.metadata = metadata.unwrap_or(artifact.metadata);
                artifact.updated_ms = now_ms;
                artifacts::update(tx, &artifact)?;
                for alias in aliases.iter().flat_map(|(aliases, _)| aliases) {
                    match &aliases {
                        Some((_, false)) => artifacts::remove_alias(tx, artifact.collection, alias, number)?,
                        _ => artifacts::set_alias(tx, artifact.collection, alias, number)?,
                    }
                }
                view(tx, artifact).map(Some)
            })
            .await?;
        changed.ok_or_else(|| unknown(&number.to_string()))
    }

    /// What a run read and wrote, and who stands on the other side.
    pub async fn artifact_lineage(&self, caller: &Caller, run_id: &str) -> Result<Lineage> {
        let (workspace, wanted) = (caller.workspace.clone(), run_id.to_owned());
        let lineage = self
            .store()
            .read(move |tx| {
                if tracked::find(tx, &workspace, &wanted)?.is_none() {
                    return Ok(None);
                }
                let side = |direction, other| -> Stored<Vec<(ArtifactView, Vec<String>)>> {
                    let mut sides = Vec::new();
                    for artifact in artifacts::of_run(tx, &wanted, direction)? {
                        let runs = artifacts::runs_of(tx, artifact.number, other)?;
                        sides.push((view(tx, artifact)?, runs));
                    }
                    Ok(sides)
                };
                Ok(Some(Lineage {
                    inputs: side(Direction::Input, Direction::Output)?,
                    outputs: side(Direction::Output, Direction::Input)?,
                }))
            })
            .await?;
        lineage.ok_or_else(|| TrackingError::not_found(format!("Run with id={run_id} not found")))
    }

    /// What a run of W&B's client read or wrote.
    pub async fn wandb_run_artifacts(&self, run_id: &str, direction: Direction) -> Result<Vec<ArtifactView>> {
        let wanted = run_id.to_owned();
        let views = self
            .store()
            .read(move |tx| {
                let found = artifacts::of_run(tx, &wanted, direction)?;
                found.into_iter().map(|artifact| view(tx, artifact)).collect()
            })
            .await?;
        Ok(views)
    }
}

impl ArtifactView {
    /// For our own API.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        let version = self.artifact.version.map(|version| format!("v{version}"));
        map.insert("name".to_owned(), json!(self.collection.name));
        map.insert("type".to_owned(), json!(self.collection.kind));
        map.insert("version".to_owned(), json!(version));
        map.insert("project".to_owned(), json!(self.collection.project));
        map.insert("digest".to_owned(), json!(self.artifact.digest));
        map.insert("size".to_owned(), json!(self.artifact.size));
        map.insert("files".to_owned(), json!(self.artifact.file_count));
        map.insert("aliases".to_owned(), json!(self.aliases));
        map.insert("tags".to_owned(), json!(self.tags));
        map.insert("metadata".to_owned(), self.artifact.metadata.clone());
        map.insert("created_ms".to_owned(), json!(self.artifact.created_ms));
        map.insert("run_id".to_owned(), json!(self.artifact.run_id));
        Value::Object(map)
    }
}
