//! API tokens: what a client sends in place of a password.

use super::{User, find_by_id};
use crate::column::{Fields, bind};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

/// A token, without what it is checked against.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    /// Its number.
    pub id: i64,
    /// The user it stands for.
    pub owner: i64,
    /// What it is for.
    pub name: String,
    /// Since when, in milliseconds since the epoch.
    pub created_ms: i64,
    /// Until when; `None` for as long as it is not revoked.
    pub expires_ms: Option<i64>,
}

fn read(row: &Row<'_>) -> rusqlite::Result<Token> {
    let mut fields = Fields::of(row);
    Ok(Token {
        id: fields.next()?,
        owner: fields.next()?,
        name: fields.next()?,
        created_ms: fields.next()?,
        expires_ms: fields.next()?,
    })
}

/// Adds a token; returns its number.
pub fn create_token(
    tx: &mut Tx<'_>,
    owner: i64,
    name: &str,
    digest: &str,
    now_ms: i64,
    expires_ms: Option<i64>,
) -> Result<i64, StoreError> {
    let sql = "INSERT INTO api_tokens (owner, name, digest, created_ms, expires_ms) VALUES (?1, ?2, ?3, ?4, ?5) RETURNING id";
    tx.one(sql, bind![owner, name, digest, now_ms, expires_ms], |row| {
        Fields::of(row).next()
    })
}

/// A user's tokens, oldest first.
pub fn list_tokens(tx: &ReadTx<'_>, owner: i64) -> Result<Vec<Token>, StoreError> {
    let sql = "SELECT id, owner, name, created_ms, expires_ms FROM api_tokens WHERE owner = ?1 ORDER BY id";
    tx.rows(sql, bind![owner], read)
}

/// Removes a token; whether the user had it.
pub fn revoke_token(tx: &mut Tx<'_>, owner: i64, id: i64) -> Result<bool, StoreError> {
    let sql = "DELETE FROM api_tokens WHERE id = ?1 AND owner = ?2";
    Ok(tx.execute(sql, bind![id, owner])? == 1)
}

/// The user whose token has this digest and when it expires, if it has not.
pub fn token_owner(
    tx: &ReadTx<'_>,
    digest: &str,
    now_ms: i64,
) -> Result<Option<(User, Option<i64>)>, StoreError> {
    let sql = "SELECT owner, expires_ms FROM api_tokens WHERE digest = ?1 AND (expires_ms > ?2 OR expires_ms IS NULL)";
    let found = tx.first(sql, bind![digest, now_ms], |row| {
        let mut fields = Fields::of(row);
        Ok((fields.next::<i64>()?, fields.next::<Option<i64>>()?))
    })?;
    let Some((owner, expires_ms)) = found else {
        return Ok(None);
    };
    Ok(find_by_id(tx, owner)?.map(|user| (user, expires_ms)))
}
