//! Permissions that travel in a URL: what they allow, until when, and a code that only this server can make.

use serde::{Deserialize, Serialize};
use tidemill_core::digest::Digest;
use tidemill_core::ids;
use tidemill_store::meta;

use crate::tracking::{Result, Tracking, TrackingError};

/// How long a permission lasts. Synchronizing a long offline run may take hours.
const LASTS_MS: i64 = 24 * 60 * 60 * 1000;
const SECRET: &str = "wandb.secret";

/// What a URL allows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Grant {
    /// To send a file of a run.
    RunFile {
        /// The workspace of the run.
        workspace: String,
        /// The tracked run.
        run_id: String,
        /// The file's name.
        name: String,
    },
    /// To send the bytes of an artifact's file, which have this MD5.
    Blob {
        /// The workspace of the artifact.
        workspace: String,
        /// In base64.
        md5: String,
    },
    /// To send an artifact's manifest.
    Manifest {
        /// The workspace of the artifact.
        workspace: String,
        /// The artifact's number.
        artifact: i64,
    },
    /// To fetch these bytes.
    Read {
        /// Their name in the object store.
        digest: Digest,
    },
}

#[derive(Serialize, Deserialize)]
struct Signed {
    grant: Grant,
    until_ms: i64,
}

/// Makes and checks permissions.
#[derive(Clone, Debug)]
pub(super) struct Signer {
    secret: String,
    now_ms: i64,
}

impl Signer {
    fn code(&self, payload: &[u8]) -> String {
        // BLAKE3 lets nobody extend what was hashed, so a secret in front makes a code.
        Digest::of_parts([self.secret.as_bytes(), payload]).to_string()
    }

    pub fn sign(&self, grant: Grant) -> String {
        let until_ms = self.now_ms + LASTS_MS;
        let payload = serde_json::to_vec(&Signed { grant, until_ms }).unwrap_or_default();
        let code = self.code(&payload);
        let mut token = String::with_capacity(payload.len() * 2 + code.len() + 1);
        for byte in &payload {
            for digit in [byte >> 4, byte & 15] {
                token.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
            }
        }
        token + "." + &code
    }

    pub fn read(&self, token: &str) -> Option<Grant> {
        let (payload, code) = token.split_once('.')?;
        let digits: Option<Vec<u8>> = payload.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
        let payload: Vec<u8> = digits?
            .chunks_exact(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect();
        // Both are digests of digests: how long the comparison takes tells nothing.
        if Digest::of(self.code(&payload).as_bytes()) != Digest::of(code.as_bytes()) {
            return None;
        }
        let signed: Signed = serde_json::from_slice(&payload).ok()?;
        (signed.until_ms >= self.now_ms).then_some(signed.grant)
    }
}

impl Tracking {
    pub(super) async fn signer(&self) -> Result<Signer> {
        let now_ms = self.now_ms();
        let known: Option<String> = self.store().read(|tx| meta::get(tx, SECRET)).await?;
        if let Some(secret) = known {
            return Ok(Signer { secret, now_ms });
        }
        // Each has 74 random bits.
        let fresh = [ids::fresh(self.now()), ids::fresh(self.now())].concat();
        let secret = self
            .store()
            .write(move |tx| {
                if let Some(secret) = meta::get(tx, SECRET)? {
                    return Ok(secret);
                }
                meta::set(tx, SECRET, &fresh)?;
                Ok(fresh)
            })
            .await?;
        Ok(Signer { secret, now_ms })
    }

    /// What a URL allows, if this server made it and it still holds.
    pub async fn wandb_grant(&self, token: &str) -> Result<Grant> {
        let signer = self.signer().await?;
        signer.read(token).ok_or_else(|| {
            TrackingError::Denied("this URL allows nothing any more: ask for a new one".to_owned())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_read_back_until_it_expires_or_is_changed() {
        let signer = Signer {
            secret: "s".to_owned(),
            now_ms: 1_000,
        };
        let grant = Grant::Blob {
            workspace: "default".to_owned(),
            md5: "ä+/=".to_owned(),
        };
        let token = signer.sign(grant.clone());
        assert_eq!(signer.read(&token), Some(grant));
        let later = Signer {
            now_ms: 1_001 + LASTS_MS,
            ..signer.clone()
        };
        assert_eq!(later.read(&token), None);
        let other = Signer {
            secret: "t".to_owned(),
            ..signer.clone()
        };
        assert_eq!(other.read(&token), None);
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(signer.read(std::str::from_utf8(&changed).unwrap()), None);
        }
    }
}
