//! Portfolios: collections whose versions are links to versions of other collections, as W&B's registries are.

use super::artifacts::{LATEST, by_alias, set_alias, take_version};
use crate::column::{Fields, bind};
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

/// A version of a portfolio.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// The portfolio.
    pub collection: i64,
    /// Its version.
    pub version: i64,
    /// What it stands for.
    pub artifact: i64,
    /// When it was made.
    pub created_ms: i64,
}

const LINK: &str = "collection, version, artifact, created_ms";

fn read(row: &crate::db::Row<'_>) -> rusqlite::Result<Link> {
    let mut fields = Fields::of(row);
    Ok(Link {
        collection: fields.next()?,
        version: fields.next()?,
        artifact: fields.next()?,
        created_ms: fields.next()?,
    })
}

/// Says that a collection holds links.
pub fn make_portfolio(tx: &mut Tx<'_>, collection: i64) -> Result<(), StoreError> {
    tx.insert_new("wandb_portfolios", "collection", bind![collection])?;
    Ok(())
}

/// The link of a portfolio to an artifact; a new version of the portfolio if there is none.
pub fn link(tx: &mut Tx<'_>, collection: i64, artifact: i64, now_ms: i64) -> Result<Link, StoreError> {
    if let Some(link) = of(tx, collection, artifact)? {
        return Ok(link);
    }
    let link = Link {
        collection,
        version: take_version(tx, collection)?,
        artifact,
        created_ms: now_ms,
    };
    let values = bind![link.collection, link.version, link.artifact, link.created_ms];
    tx.insert("wandb_links", LINK, values)?;
    Ok(link)
}

/// The link of a portfolio to an artifact.
pub fn of(tx: &ReadTx<'_>, collection: i64, artifact: i64) -> Result<Option<Link>, StoreError> {
    let sql = format!("SELECT {LINK} FROM wandb_links WHERE artifact = ?2 AND collection = ?1");
    tx.first(&sql, bind![collection, artifact], read)
}

/// The version of a portfolio by its number.
pub fn by_version(tx: &ReadTx<'_>, collection: i64, version: i64) -> Result<Option<Link>, StoreError> {
    let sql = format!("SELECT {LINK} FROM wandb_links WHERE collection = ?1 AND version = ?2");
    tx.first(&sql, bind![collection, version], read)
}

/// The versions of a portfolio, the newest first.
pub fn versions(tx: &ReadTx<'_>, collection: i64) -> Result<Vec<Link>, StoreError> {
    let sql = format!("SELECT {LINK} FROM wandb_links WHERE collection = ?1 ORDER BY version DESC");
    tx.rows(&sql, bind![collection], read)
}

/// The links to an artifact.
pub fn to(tx: &ReadTx<'_>, artifact: i64) -> Result<Vec<Link>, StoreError> {
    let sql = format!("SELECT {LINK} FROM wandb_links WHERE artifact = ?1 ORDER BY collection");
    tx.rows(&sql, bind![artifact], read)
}

/// Where a portfolio has no `latest`, what was linked last is it.
pub(super) fn renew_latest(tx: &mut Tx<'_>, collection: i64) -> Result<(), StoreError> {
    if by_alias(tx, collection, LATEST)?.is_none()
        && let Some(newest) = versions(tx, collection)?.first()
    {
        set_alias(tx, collection, LATEST, newest.artifact)?;
    }
    Ok(())
}

/// Removes a link with its aliases; whether there was one.
pub fn unlink(tx: &mut Tx<'_>, collection: i64, artifact: i64) -> Result<bool, StoreError> {
    let sql = "DELETE FROM wandb_aliases WHERE collection = ?1 AND artifact = ?2";
    tx.execute(sql, bind![collection, artifact])?;
    let sql = "DELETE FROM wandb_links WHERE collection = ?1 AND artifact = ?2";
    let there = tx.execute(sql, bind![collection, artifact])? > 0;
    renew_latest(tx, collection)?;
    Ok(there)
}

/// What an artifact is called in a collection.
pub fn aliases(tx: &ReadTx<'_>, collection: i64, artifact: i64) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT alias FROM wandb_aliases WHERE collection = ?1 AND artifact = ?2 ORDER BY alias";
    tx.rows(sql, bind![collection, artifact], |row| Fields::of(row).next())
}
