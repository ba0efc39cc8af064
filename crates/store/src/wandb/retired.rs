//! Versions of W&B's artifacts in lists, with their tags and their ends; and how one goes.

use tidemill_core::digest::Digest;

use super::artifacts::{
    ARTIFACT, Artifact, COLLECTION, Collection, LATEST, artifact_row, by_alias, collection, newest,
    read_collection, set_alias,
};
use super::links;
use crate::column::{Fields, bind};
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

/// An artifact whose files are still being sent keeps all bytes for so long: its client was told that they are here.
const SENT_WITHIN_MS: i64 = 24 * 60 * 60 * 1000;

/// Collections of a project, by name; of one type, if it is given.
pub fn collections(
    tx: &ReadTx<'_>,
    workspace: &str,
    entity: &str,
    project: &str,
    kind: Option<&str>,
) -> Result<Vec<Collection>, StoreError> {
    let sql = format!(
        "SELECT {COLLECTION} FROM wandb_collections WHERE workspace = ?1 AND entity = ?2 AND project = ?3 \
         AND (type = ?4 OR ?4 IS NULL) ORDER BY name"
    );
    tx.rows(&sql, bind![workspace, entity, project, kind], read_collection)
}

/// Committed versions of a collection, the newest first.
pub fn versions(tx: &ReadTx<'_>, collection: i64) -> Result<Vec<Artifact>, StoreError> {
    let sql = format!(
        "SELECT {ARTIFACT} FROM wandb_artifacts WHERE collection = ?1 AND state = 'COMMITTED' ORDER BY version DESC"
    );
    tx.rows(&sql, bind![collection], artifact_row)
}

/// The tags of a version, by name.
pub fn tags(tx: &ReadTx<'_>, artifact: i64) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT tag FROM wandb_artifact_tags WHERE artifact = ?1 ORDER BY tag";
    tx.rows(sql, bind![artifact], |row| Fields::of(row).next())
}

/// Gives a version a tag.
pub fn add_tag(tx: &mut Tx<'_>, artifact: i64, tag: &str) -> Result<(), StoreError> {
    tx.insert_new("wandb_artifact_tags", "artifact, tag", bind![artifact, tag])?;
    Ok(())
}

/// Takes a tag from a version.
pub fn remove_tag(tx: &mut Tx<'_>, artifact: i64, tag: &str) -> Result<(), StoreError> {
    let sql = "DELETE FROM wandb_artifact_tags WHERE artifact = ?1 AND tag = ?2";
    tx.execute(sql, bind![artifact, tag])?;
    Ok(())
}

/// After how many seconds from its making a version goes, if it does by itself.
pub fn ttl(tx: &ReadTx<'_>, artifact: i64) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT ttl_s FROM wandb_artifact_ends WHERE artifact = ?1";
    tx.first(sql, bind![artifact], |row| Fields::of(row).next())
}

/// Says when a version goes by itself; `None` for never.
pub fn set_ttl(tx: &mut Tx<'_>, artifact: &Artifact, seconds: Option<i64>) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM wandb_artifact_ends WHERE artifact = ?1",
        bind![artifact.number],
    )?;
    if let Some(seconds) = seconds {
        let ends_ms = artifact.created_ms.saturating_add(seconds.saturating_mul(1_000));
        let values = bind![artifact.number, seconds, ends_ms];
        tx.insert("wandb_artifact_ends", "artifact, ttl_s, ends_ms", values)?;
    }
    Ok(())
}

/// Whole versions whose time is over. One that people hold by an alias, or that stands in a portfolio, is none until it is let go.
pub fn ended(tx: &ReadTx<'_>, now_ms: i64, limit: u32) -> Result<Vec<i64>, StoreError> {
    let sql = "SELECT e.artifact FROM wandb_artifact_ends e JOIN wandb_artifacts w ON w.number = e.artifact \
         WHERE e.ends_ms <= ?1 AND w.state = 'COMMITTED' \
         AND NOT EXISTS (SELECT 1 FROM wandb_links l WHERE l.artifact = e.artifact) \
         AND NOT EXISTS (SELECT 1 FROM wandb_aliases a WHERE a.collection = w.collection AND a.artifact = e.artifact AND a.alias <> 'latest') \
         ORDER BY e.ends_ms LIMIT ?2";
    tx.rows(sql, bind![now_ms, limit], |row| Fields::of(row).next())
}

/// The aliases that hold a version, here and in portfolios, as `collection:alias`: all but `latest`, which every newest one has.
pub fn held(tx: &ReadTx<'_>, artifact: &Artifact) -> Result<Vec<String>, StoreError> {
    let mut held = Vec::new();
    let linked = links::to(tx, artifact.number)?;
    let portfolios = linked.iter().map(|link| link.collection);
    for number in std::iter::once(artifact.collection).chain(portfolios) {
        let name = collection(tx, number)?.name;
        for alias in links::aliases(tx, number, artifact.number)? {
            if alias != LATEST {
                held.push(format!("{name}:{alias}"));
            }
        }
    }
    Ok(held)
}

/// Removes a version with its names, files and links. Its number in the collection is never given again.
pub fn remove(tx: &mut Tx<'_>, artifact: &Artifact) -> Result<(), StoreError> {
    let linked = links::to(tx, artifact.number)?;
    for table in [
        "wandb_artifact_files",
        "wandb_artifact_tags",
        "wandb_artifact_ends",
        "wandb_run_artifacts",
        "wandb_aliases",
        "wandb_links",
        "wandb_incremental",
    ] {
        let sql = format!("DELETE FROM {table} WHERE artifact = ?1");
        tx.execute(&sql, bind![artifact.number])?;
    }
    tx.execute(
        "DELETE FROM wandb_artifacts WHERE number = ?1",
        bind![artifact.number],
    )?;
    // Where it was the latest, what is newest now is.
    if by_alias(tx, artifact.collection, LATEST)?.is_none()
        && let Some(newest) = newest(tx, artifact.collection)?
    {
        set_alias(tx, artifact.collection, LATEST, newest.number)?;
    }
    for link in linked {
        links::renew_latest(tx, link.collection)?;
    }
    Ok(())
}

/// Forgets bytes that no artifact keeps, unless one is being sent; their digests.
pub fn forget_blobs(tx: &mut Tx<'_>, now_ms: i64) -> Result<Vec<Digest>, StoreError> {
    let sent = "SELECT 1 FROM wandb_artifacts WHERE state = 'PENDING' AND created_ms > ?1 LIMIT 1";
    if tx.exists(sent, bind![now_ms - SENT_WITHIN_MS])? {
        return Ok(Vec::new());
    }
    let unkept = "NOT EXISTS (SELECT 1 FROM wandb_artifact_files f WHERE f.md5 = wandb_blobs.md5)";
    let digests = tx.rows(
        &format!("SELECT digest FROM wandb_blobs WHERE {unkept}"),
        bind![],
        |row| Fields::of(row).next(),
    )?;
    tx.execute(&format!("DELETE FROM wandb_blobs WHERE {unkept}"), bind![])?;
    Ok(digests)
}
