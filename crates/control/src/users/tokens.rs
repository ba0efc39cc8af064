//! API tokens.

use tidemill_core::digest::Digest;
use tidemill_store::users::{self as rows, Token};

use super::{Outcome, must, user_row};
use crate::tracking::{Caller, Result, Tracking, TrackingError};

/// Every token begins with this, so that it can be told from a password.
pub(super) const PREFIX: &str = "tm_";
/// 32 letters and digits that are not mistaken for one another.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// With the prefix 40 characters, which some clients insist on.
const LENGTH: usize = 37;

/// A token that was just made: the only time that it can be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewToken {
    /// Its number.
    pub id: i64,
    /// What to send.
    pub token: String,
    /// Until when it counts, in milliseconds since the epoch.
    pub expires_ms: Option<i64>,
}

fn random_token() -> Result<String> {
    let mut bytes = [0; LENGTH];
    getrandom::fill(&mut bytes)
        .map_err(|error| TrackingError::InvalidState(format!("the system gives no random bytes: {error}")))?;
    let letters = bytes
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]));
    Ok(PREFIX.chars().chain(letters).collect())
}

impl Tracking {
    /// Something that nobody guesses.
    pub fn random_id(&self) -> Result<String> {
        random_token()
    }

    /// Makes a token for the caller.
    pub async fn create_token(
        &self,
        caller: &Caller,
        name: &str,
        lifetime_ms: Option<i64>,
    ) -> Result<NewToken> {
        if lifetime_ms.is_some_and(|lifetime_ms| lifetime_ms <= 0) {
            return Err(TrackingError::invalid("a token must last for more than no time"));
        }
        if name.len() > 255 {
            return Err(TrackingError::invalid(
                "the token's name is longer than 255 bytes",
            ));
        }
        let token = random_token()?;
        let digest = Digest::of(token.as_bytes()).to_string();
        let (user, name, now_ms) = (caller.user.clone(), name.to_owned(), self.now_ms());
        let expires_ms = lifetime_ms.map(|lifetime_ms| now_ms.saturating_add(lifetime_ms));
        let id = self
            .store()
            .write(move |tx| -> Outcome<i64> {
                let user = must!(user_row(tx, &user)?);
                rows::create_token(tx, user.id, &name, &digest, now_ms, expires_ms).map(Ok)
            })
            .await??;
        Ok(NewToken {
            id,
            token,
            expires_ms,
        })
    }

    /// The caller's tokens.
    pub async fn list_tokens(&self, caller: &Caller) -> Result<Vec<Token>> {
        let user = caller.user.clone();
        let list = self.store().read(move |tx| -> Outcome<Vec<Token>> {
            let user = must!(user_row(tx, &user)?);
            rows::list_tokens(tx, user.id).map(Ok)
        });
        list.await?
    }

    /// Makes one of the caller's tokens worthless.
    pub async fn revoke_token(&self, caller: &Caller, id: i64) -> Result<()> {
        let user = caller.user.clone();
        self.change_users(move |tx| {
            let user = must!(user_row(tx, &user)?);
            if !rows::revoke_token(tx, user.id, id)? {
                return Ok(Err(TrackingError::not_found(format!(
                    "Token with id={id} not found"
                ))));
            }
            Ok(Ok(()))
        })
        .await
    }
}
