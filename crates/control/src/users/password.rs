//! Passwords: Argon2id with the parameters that OWASP names first (19 MiB, two passes, one lane).

use std::sync::OnceLock;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};

use crate::tracking::{Result, TrackingError};

/// The shortest password, in characters.
const SHORTEST: usize = 12;
/// The longest: nobody types more, and hashing it costs.
const LONGEST: usize = 4096;

/// Refuses what is no password.
pub(super) fn check_new(password: &str) -> Result<()> {
    if password.chars().count() < SHORTEST {
        return Err(TrackingError::invalid(
            "Password must be a string longer than 12 characters.",
        ));
    }
    if password.len() > LONGEST {
        return Err(TrackingError::invalid(format!(
            "the password is longer than {LONGEST} bytes"
        )));
    }
    Ok(())
}

/// What a password is checked against from now on. Takes 20 ms.
pub(super) fn hash(password: &str) -> Result<String> {
    let hashed = Argon2::default().hash_password(password.as_bytes());
    hashed
        .map(|hash: PasswordHash| hash.to_string())
        .map_err(|error| TrackingError::InvalidState(format!("the password cannot be hashed: {error}")))
}

/// Whether it is the password. Takes 20 ms.
pub(super) fn verify(password: &str, hash: &str) -> bool {
    password.len() <= LONGEST
        && PasswordHash::new(hash).is_ok_and(|hash| {
            Argon2::default()
                .verify_password(password.as_bytes(), &hash)
                .is_ok()
        })
}

/// Takes as long as [`verify`], for users that are not there: the time must not tell who is.
pub(super) fn pretend(password: &str) {
    static NOBODY: OnceLock<String> = OnceLock::new();
    let nobody = NOBODY.get_or_init(|| hash("nobody has this one").unwrap_or_default());
    verify(password, nobody);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_checked_against_its_hash() {
        let hashed = hash("correct horse battery").unwrap();
        assert!(hashed.starts_with("$argon2id$"), "{hashed}");
        assert!(verify("correct horse battery", &hashed));
        assert!(!verify("correct horse battery ", &hashed));
        assert!(!verify("anything", "no hash"));
        assert_ne!(
            hashed,
            hash("correct horse battery").unwrap(),
            "each has its salt"
        );
        assert!(check_new("eleven char").is_err() && check_new("twelve chars").is_ok());
    }
}
