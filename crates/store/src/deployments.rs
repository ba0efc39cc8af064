//! Deployments: what answers under a name, version after version.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemill_core::clock::Timestamp;
use tidemill_core::digest::Digest;
use tidemill_core::ids::{EndpointName, VersionNumber};

use crate::bandits;
use crate::column::{Fields, bind};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

/// A version of a deployment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DeploymentVersion {
    /// The deployment.
    pub name: EndpointName,
    /// From 1, rising.
    pub version: VersionNumber,
    /// Of the bundle's archive.
    pub digest: Digest,
    /// Bytes of the archive.
    pub size: u64,
    /// What the bundle says of itself.
    pub manifest: Value,
    /// How it is served.
    pub serving: Value,
    /// Where it came from: `upload`, or `models:/name/version`.
    pub source: String,
    /// When it was deployed.
    pub created_at: Timestamp,
    /// By whom; empty where nobody has to say who they are.
    pub created_by: String,
}

/// What a version has that the store does not give it.
#[derive(Clone, PartialEq, Debug)]
pub struct NewVersion {
    /// The deployment.
    pub name: EndpointName,
    /// Of the bundle's archive.
    pub digest: Digest,
    /// Bytes of the archive.
    pub size: u64,
    /// What the bundle says of itself.
    pub manifest: Value,
    /// How it is served.
    pub serving: Value,
    /// Where it came from.
    pub source: String,
    /// By whom.
    pub created_by: String,
}

const COLUMNS: &str = "name, version, digest, size, manifest, serving, source, created_at, created_by";

fn read(row: &Row<'_>) -> rusqlite::Result<DeploymentVersion> {
    let mut fields = Fields::of(row);
    Ok(DeploymentVersion {
        name: fields.next()?,
        version: fields.next()?,
        digest: fields.next()?,
        size: fields.next()?,
        manifest: fields.next()?,
        serving: fields.next()?,
        source: fields.next()?,
        created_at: fields.next()?,
        created_by: fields.next()?,
    })
}

/// Adds the next version of a deployment, which may be its first.
pub fn add(tx: &mut Tx<'_>, new: NewVersion, now: Timestamp) -> Result<DeploymentVersion, StoreError> {
    let sql = "INSERT INTO deployments (name, current, created_at, updated_at) VALUES (?1, 1, ?2, ?2)
         ON CONFLICT (name) DO UPDATE SET current = deployments.current + 1, updated_at = excluded.updated_at
         RETURNING current";
    let version = tx.one(sql, bind![new.name, now], |row| Fields::of(row).next())?;
    if version == VersionNumber(1) {
        // An outcome that was told while the one before was taken away.
        bandits::forget(tx, &new.name)?;
    }
    let added = DeploymentVersion {
        name: new.name,
        version,
        digest: new.digest,
        size: new.size,
        manifest: new.manifest,
        serving: new.serving,
        source: new.source,
        created_at: now,
        created_by: new.created_by,
    };
    let values = bind![
        added.name,
        added.version,
        added.digest,
        added.size,
        added.manifest,
        added.serving,
        added.source,
        added.created_at,
        added.created_by,
    ];
    tx.insert("deployment_versions", COLUMNS, values)?;
    Ok(added)
}

/// The versions of all deployments, by name and number.
pub fn list(tx: &ReadTx<'_>) -> Result<Vec<DeploymentVersion>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM deployment_versions ORDER BY name, version");
    tx.rows(&sql, bind![], read)
}

/// The versions of one deployment, oldest first; none if there is no such deployment.
pub fn versions(tx: &ReadTx<'_>, name: &EndpointName) -> Result<Vec<DeploymentVersion>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM deployment_versions WHERE name = ?1 ORDER BY version");
    tx.rows(&sql, bind![name], read)
}

/// Removes a deployment with its versions; whether it was there.
pub fn delete(tx: &mut Tx<'_>, name: &EndpointName) -> Result<bool, StoreError> {
    bandits::forget(tx, name)?;
    tx.execute("DELETE FROM deployment_versions WHERE name = ?1", bind![name])?;
    Ok(tx.execute("DELETE FROM deployments WHERE name = ?1", bind![name])? > 0)
}

/// The archives that some version needs.
pub fn digests(tx: &ReadTx<'_>) -> Result<Vec<Digest>, StoreError> {
    tx.rows(
        "SELECT DISTINCT digest FROM deployment_versions",
        bind![],
        |row| Fields::of(row).next(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{at, temp_store};

    fn new(name: &str, content: &[u8]) -> NewVersion {
        NewVersion {
            name: name.into(),
            digest: Digest::of(content),
            size: content.len() as u64,
            manifest: json!({ "format": 1 }),
            serving: json!({}),
            source: "upload".to_owned(),
            created_by: String::new(),
        }
    }

    #[test]
    fn each_deployment_counts_its_versions_and_is_removed_with_them() {
        let (_dir, store) = temp_store();
        store
            .write_blocking(|tx| {
                let first = add(tx, new("a", b"1"), at(1))?;
                let second = add(tx, new("a", b"2"), at(2))?;
                let other = add(tx, new("b", b"2"), at(3))?;
                assert_eq!(
                    (first.version, second.version),
                    (VersionNumber(1), VersionNumber(2))
                );
                assert_eq!(list(tx)?, [first.clone(), second.clone(), other.clone()]);
                assert_eq!(versions(tx, &"a".into())?, [first, second]);
                assert_eq!(digests(tx)?.len(), 2);
                assert!(delete(tx, &"a".into())?);
                assert!(!delete(tx, &"a".into())?);
                assert_eq!(list(tx)?, [other]);
                assert_eq!(add(tx, new("a", b"3"), at(4))?.version, VersionNumber(1));
                Ok(())
            })
            .unwrap();
    }
}
