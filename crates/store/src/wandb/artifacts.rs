//! W&B's artifacts: typed collections of versions, each a list of files that are stored once by their content; who read and wrote them.

use serde_json::Value;
use tidemill_core::digest::Digest;

use crate::column::{Fields, bind, text_enum};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

text_enum!(
    /// How far an artifact has come, in W&B's words.
    ArtifactState {
        /// Its files are being sent.
        Pending = "PENDING",
        /// It is whole, and does not change.
        Committed = "COMMITTED",
        /// It is gone: it had the contents of another version, which stands for it.
        Deleted = "DELETED",
    }
);

text_enum!(
    /// What a run did with an artifact.
    Direction {
        /// It read it.
        Input = "input",
        /// It wrote it.
        Output = "output",
    }
);

/// A named sequence of versions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Collection {
    /// Stands for it in other tables.
    pub number: i64,
    /// Our workspace.
    pub workspace: String,
    /// User or team.
    pub entity: String,
    /// The project.
    pub project: String,
    /// Its name in the project.
    pub name: String,
    /// Such as `model` or `dataset`.
    pub kind: String,
    /// When it was made.
    pub created_ms: i64,
    /// Whether its versions are links.
    pub is_portfolio: bool,
}

/// A version of a collection, or one to be.
#[derive(Clone, PartialEq, Debug)]
pub struct Artifact {
    /// Stands for it in other tables.
    pub number: i64,
    /// Of which collection.
    pub collection: i64,
    /// From 0; none before it is committed.
    pub version: Option<i64>,
    /// How far it has come.
    pub state: ArtifactState,
    /// Of its manifest, as the client computes it.
    pub digest: String,
    /// What the client calls it before it has a number.
    pub client_id: String,
    /// For people.
    pub description: String,
    /// The client's own.
    pub metadata: Value,
    /// The aliases that it gets when it is committed.
    pub aliases: Value,
    /// The run that wrote it.
    pub run_id: Option<String>,
    /// The bytes of its manifest.
    pub manifest: Option<Digest>,
    /// Bytes of all files.
    pub size: i64,
    /// How many files.
    pub file_count: i64,
    /// When it was begun.
    pub created_ms: i64,
    /// When it was changed.
    pub updated_ms: i64,
}

/// A file of an artifact.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ArtifactFile {
    /// Its name in the artifact.
    pub path: String,
    /// MD5 in base64, as the manifest has it.
    pub md5: String,
    /// Bytes.
    pub size: i64,
    /// Where its bytes are, if they were never sent here.
    pub reference: Option<String>,
}

/// Stored bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Blob {
    /// Their name in the object store.
    pub digest: Digest,
    /// How many.
    pub size: i64,
}

/// The alias of a collection's newest version.
pub(super) const LATEST: &str = "latest";
pub(super) const COLLECTION: &str = "number, workspace, entity, project, name, type, created_ms, \
     EXISTS (SELECT 1 FROM wandb_portfolios p WHERE p.collection = wandb_collections.number)";
pub(super) const ARTIFACT: &str = "number, collection, version, state, digest, client_id, description, metadata, aliases, run_id, manifest, \
     size, file_count, created_ms, updated_ms";

pub(super) fn read_collection(row: &Row<'_>) -> rusqlite::Result<Collection> {
    let mut fields = Fields::of(row);
    Ok(Collection {
        number: fields.next()?,
        workspace: fields.next()?,
        entity: fields.next()?,
        project: fields.next()?,
        name: fields.next()?,
        kind: fields.next()?,
        created_ms: fields.next()?,
        is_portfolio: fields.next()?,
    })
}

fn read_artifact(fields: &mut Fields<'_>) -> rusqlite::Result<Artifact> {
    Ok(Artifact {
        number: fields.next()?,
        collection: fields.next()?,
        version: fields.next()?,
        state: fields.next()?,
        digest: fields.next()?,
        client_id: fields.next()?,
        description: fields.next()?,
        metadata: fields.next()?,
        aliases: fields.next()?,
        run_id: fields.next()?,
        manifest: fields.next()?,
        size: fields.next()?,
        file_count: fields.next()?,
        created_ms: fields.next()?,
        updated_ms: fields.next()?,
    })
}

pub(super) fn artifact_row(row: &Row<'_>) -> rusqlite::Result<Artifact> {
    read_artifact(&mut Fields::of(row))
}

/// Finds or makes a collection. `number` of the argument counts for nothing.
pub fn ensure_collection(tx: &mut Tx<'_>, new: &Collection) -> Result<Collection, StoreError> {
    let columns = "workspace, entity, project, name, type, next_version, created_ms";
    let values = bind![
        new.workspace,
        new.entity,
        new.project,
        new.name,
        new.kind,
        0_i64,
        new.created_ms
    ];
    tx.insert_new("wandb_collections", columns, values)?;
    find_collection(tx, &new.workspace, &new.entity, &new.project, &new.name)?
        .ok_or_else(|| StoreError::not_found("artifact collection", &new.name))
}

/// A collection by its names.
pub fn find_collection(
    tx: &ReadTx<'_>,
    workspace: &str,
    entity: &str,
    project: &str,
    name: &str,
) -> Result<Option<Collection>, StoreError> {
    let sql = format!(
        "SELECT {COLLECTION} FROM wandb_collections WHERE workspace = ?1 AND entity = ?2 AND project = ?3 AND name = ?4"
    );
    tx.first(&sql, bind![workspace, entity, project, name], read_collection)
}

/// A collection by its number.
pub fn collection(tx: &ReadTx<'_>, number: i64) -> Result<Collection, StoreError> {
    let sql = format!("SELECT {COLLECTION} FROM wandb_collections WHERE number = ?1");
    tx.first(&sql, bind![number], read_collection)?
        .ok_or_else(|| StoreError::not_found("artifact collection", number))
}

/// Adds an artifact and returns its number. `number` of the argument counts for nothing.
pub fn insert(tx: &mut Tx<'_>, new: &Artifact) -> Result<i64, StoreError> {
    let sql = "INSERT INTO wandb_artifacts (collection, version, state, digest, client_id, description, metadata, aliases, run_id, \
         manifest, size, file_count, created_ms, updated_ms) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) RETURNING number";
    let values = bind![
        new.collection,
        new.version,
        new.state,
        new.digest,
        new.client_id,
        new.description,
        new.metadata,
        new.aliases,
        new.run_id,
        new.manifest,
        new.size,
        new.file_count,
        new.created_ms,
        new.updated_ms
    ];
    tx.one(sql, values, |row| Fields::of(row).next())
}

/// Stores what changed of an artifact.
pub fn update(tx: &mut Tx<'_>, artifact: &Artifact) -> Result<(), StoreError> {
    let sql = "UPDATE wandb_artifacts SET version = ?2, state = ?3, digest = ?4, description = ?5, metadata = ?6, manifest = ?7, \
         size = ?8, file_count = ?9, updated_ms = ?10 WHERE number = ?1";
    let values = bind![
        artifact.number,
        artifact.version,
        artifact.state,
        artifact.digest,
        artifact.description,
        artifact.metadata,
        artifact.manifest,
        artifact.size,
        artifact.file_count,
        artifact.updated_ms
    ];
    tx.execute(sql, values)?;
    Ok(())
}

/// The number of the collection's next version; the one after it is next then.
pub fn take_version(tx: &mut Tx<'_>, collection: i64) -> Result<i64, StoreError> {
    let sql = "UPDATE wandb_collections SET next_version = next_version + 1 WHERE number = ?1 RETURNING next_version - 1";
    tx.one(sql, bind![collection], |row| Fields::of(row).next())
}

/// An artifact by its number.
pub fn get(tx: &ReadTx<'_>, number: i64) -> Result<Option<Artifact>, StoreError> {
    let sql = format!("SELECT {ARTIFACT} FROM wandb_artifacts WHERE number = ?1");
    tx.first(&sql, bind![number], artifact_row)
}

/// An artifact by what its client called it.
pub fn by_client_id(tx: &ReadTx<'_>, client_id: &str) -> Result<Option<Artifact>, StoreError> {
    let sql =
        format!("SELECT {ARTIFACT} FROM wandb_artifacts WHERE client_id = ?1 ORDER BY number DESC LIMIT 1");
    tx.first(&sql, bind![client_id], artifact_row)
}

/// The committed version of a collection that has these contents.
pub fn by_digest(tx: &ReadTx<'_>, collection: i64, digest: &str) -> Result<Option<Artifact>, StoreError> {
    let sql = format!(
        "SELECT {ARTIFACT} FROM wandb_artifacts WHERE collection = ?1 AND digest = ?2 AND state = 'COMMITTED' \
         ORDER BY version DESC LIMIT 1"
    );
    tx.first(&sql, bind![collection, digest], artifact_row)
}

/// The version of a collection by its number.
pub fn by_version(tx: &ReadTx<'_>, collection: i64, version: i64) -> Result<Option<Artifact>, StoreError> {
    let sql = format!("SELECT {ARTIFACT} FROM wandb_artifacts WHERE collection = ?1 AND version = ?2");
    tx.first(&sql, bind![collection, version], artifact_row)
}

/// The version of a collection that an alias names.
pub fn by_alias(tx: &ReadTx<'_>, collection: i64, alias: &str) -> Result<Option<Artifact>, StoreError> {
    let sql = "SELECT artifact FROM wandb_aliases WHERE collection = ?1 AND alias = ?2";
    let number = tx.first(sql, bind![collection, alias], |row| Fields::of(row).next::<i64>())?;
    number.map_or(Ok(None), |number| get(tx, number))
}

/// The newest committed version of a collection.
pub fn newest(tx: &ReadTx<'_>, collection: i64) -> Result<Option<Artifact>, StoreError> {
    let sql = format!(
        "SELECT {ARTIFACT} FROM wandb_artifacts WHERE collection = ?1 AND state = 'COMMITTED' ORDER BY version DESC LIMIT 1"
    );
    tx.first(&sql, bind![collection], artifact_row)
}

/// Whether a version was the newest of its collection at a time, as far as is known.
pub fn was_newest(tx: &ReadTx<'_>, version: &Artifact, at_ms: i64) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM wandb_artifacts WHERE collection = ?1 AND version > ?2 AND state = 'COMMITTED' AND updated_ms < ?3 LIMIT 1";
    Ok(!tx.exists(sql, bind![version.collection, version.version, at_ms])?)
}

/// Points an alias at a version.
pub fn set_alias(tx: &mut Tx<'_>, collection: i64, alias: &str, artifact: i64) -> Result<(), StoreError> {
    let values = bind![collection, alias, artifact];
    tx.upsert(
        "wandb_aliases",
        "collection, alias, artifact",
        "collection, alias",
        values,
    )
}

/// Removes an alias from a version.
pub fn remove_alias(tx: &mut Tx<'_>, collection: i64, alias: &str, artifact: i64) -> Result<(), StoreError> {
    let sql = "DELETE FROM wandb_aliases WHERE collection = ?1 AND alias = ?2 AND artifact = ?3";
    tx.execute(sql, bind![collection, alias, artifact])?;
    Ok(())
}

/// The aliases of a version, by name.
pub fn aliases(tx: &ReadTx<'_>, artifact: &Artifact) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT alias FROM wandb_aliases WHERE collection = ?1 AND artifact = ?2 ORDER BY alias";
    tx.rows(sql, bind![artifact.collection, artifact.number], |row| {
        Fields::of(row).next()
    })
}

/// Says that a version to be adds files to `base`, or where that is none to the newest version there is.
pub fn set_incremental(tx: &mut Tx<'_>, artifact: i64, base: Option<i64>) -> Result<(), StoreError> {
    tx.upsert(
        "wandb_incremental",
        "artifact, base",
        "artifact",
        bind![artifact, base],
    )
}

/// Whether a version to be adds files to another, and to which if that was said.
pub fn incremental(tx: &ReadTx<'_>, artifact: i64) -> Result<Option<Option<i64>>, StoreError> {
    let sql = "SELECT base FROM wandb_incremental WHERE artifact = ?1";
    tx.first(sql, bind![artifact], |row| Fields::of(row).next())
}

/// Replaces the files of an artifact.
pub fn put_files(tx: &mut Tx<'_>, artifact: i64, files: &[ArtifactFile]) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM wandb_artifact_files WHERE artifact = ?1",
        bind![artifact],
    )?;
    for file in files {
        let values = bind![artifact, file.path, file.md5, file.size, file.reference];
        tx.insert("wandb_artifact_files", "artifact, path, md5, size, ref", values)?;
    }
    Ok(())
}

/// The files of an artifact after a path, by path.
pub fn files(
    tx: &ReadTx<'_>,
    artifact: i64,
    after: &str,
    limit: u32,
) -> Result<Vec<ArtifactFile>, StoreError> {
    let sql = "SELECT path, md5, size, ref FROM wandb_artifact_files WHERE artifact = ?1 AND path > ?2 ORDER BY path LIMIT ?3";
    tx.rows(sql, bind![artifact, after, limit], |row| {
        let mut fields = Fields::of(row);
        Ok(ArtifactFile {
            path: fields.next()?,
            md5: fields.next()?,
            size: fields.next()?,
            reference: fields.next()?,
        })
    })
}

/// A file of an artifact.
pub fn file(tx: &ReadTx<'_>, artifact: i64, path: &str) -> Result<Option<ArtifactFile>, StoreError> {
    let sql = "SELECT path, md5, size, ref FROM wandb_artifact_files WHERE artifact = ?1 AND path = ?2";
    tx.first(sql, bind![artifact, path], |row| {
        let mut fields = Fields::of(row);
        Ok(ArtifactFile {
            path: fields.next()?,
            md5: fields.next()?,
            size: fields.next()?,
            reference: fields.next()?,
        })
    })
}

/// Says under which digest bytes are stored.
pub fn put_blob(tx: &mut Tx<'_>, workspace: &str, md5: &str, blob: Blob) -> Result<(), StoreError> {
    let values = bind![workspace, md5, blob.digest, blob.size];
    tx.insert_new("wandb_blobs", "workspace, md5, digest, size", values)?;
    Ok(())
}

/// Stored bytes by their MD5.
pub fn blob(tx: &ReadTx<'_>, workspace: &str, md5: &str) -> Result<Option<Blob>, StoreError> {
    let sql = "SELECT digest, size FROM wandb_blobs WHERE workspace = ?1 AND md5 = ?2";
    tx.first(sql, bind![workspace, md5], |row| {
        let mut fields = Fields::of(row);
        Ok(Blob {
            digest: fields.next()?,
            size: fields.next()?,
        })
    })
}

/// Says that a run read or wrote an artifact.
pub fn link(
    tx: &mut Tx<'_>,
    run_id: &str,
    direction: Direction,
    artifact: i64,
    at_ms: i64,
) -> Result<(), StoreError> {
    let values = bind![run_id, direction, artifact, at_ms];
    tx.insert_new(
        "wandb_run_artifacts",
        "run_id, direction, artifact, at_ms",
        values,
    )?;
    Ok(())
}

/// What a run read or wrote, in that order of time.
pub fn of_run(tx: &ReadTx<'_>, run_id: &str, direction: Direction) -> Result<Vec<Artifact>, StoreError> {
    let columns = ARTIFACT
        .split(", ")
        .map(|column| format!("a.{}", column.trim()))
        .collect::<Vec<_>>()
        .join(", ");
    let sql = format!(
        "SELECT {columns} FROM wandb_run_artifacts l JOIN wandb_artifacts a ON a.number = l.artifact \
         WHERE l.run_id = ?1 AND l.direction = ?2 AND a.state = 'COMMITTED' ORDER BY l.at_ms, a.number"
    );
    tx.rows(&sql, bind![run_id, direction], artifact_row)
}

/// The runs that read or wrote an artifact.
pub fn runs_of(tx: &ReadTx<'_>, artifact: i64, direction: Direction) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT run_id FROM wandb_run_artifacts WHERE artifact = ?1 AND direction = ?2 ORDER BY at_ms, run_id";
    tx.rows(sql, bind![artifact, direction], |row| Fields::of(row).next())
}

/// Whether an artifact's files or manifests keep these bytes.
pub(crate) fn refers(tx: &ReadTx<'_>, digest: Digest) -> Result<bool, StoreError> {
    Ok(tx.exists(
        "SELECT 1 FROM wandb_blobs WHERE digest = ?1 LIMIT 1",
        bind![digest],
    )? || tx.exists(
        "SELECT 1 FROM wandb_artifacts WHERE manifest = ?1 LIMIT 1",
        bind![digest],
    )?)
}
