//! Secrets that stand in the database encrypted: with ChaCha20-Poly1305, each under a nonce of its own and bound to what it belongs
//! to, so that nobody who can write rows puts one secret in another's place. The key is the administrator's, or lies in a file of
//! the data folder that only its owner can read.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use tidemill_core::digest::Digest;

use crate::error::StoreError;

/// The key's file in the data folder, if the administrator gives none.
const FILE: &str = "secrets.key";
/// Begins what is encrypted; the number is the way it is.
const MARK: &str = "sealed:1:";
/// Held while the file is read or made: of two that made it at once, one would seal with a key that nobody has afterwards.
static FOLDER_KEY: Mutex<()> = Mutex::new(());

/// Makes keys of this purpose differ from others made of the same text.
const PURPOSE: &[u8] = b"tidemill: secrets of webhooks";

/// A secret in the clear. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A secret as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(pub(crate) String);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(…)")
    }
}

impl Sealed {
    /// Whether this is encrypted; what older versions stored is not.
    pub(crate) fn is_sealed(text: &str) -> bool {
        text.starts_with(MARK)
    }
}

/// Encrypts secrets and opens them.
pub struct SealingKey {
    key: LessSafeKey,
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(…)")
    }
}

fn unreadable(message: impl Into<String>) -> StoreError {
    StoreError::Unreadable {
        what: "a secret".to_owned(),
        message: message.into(),
    }
}

impl SealingKey {
    /// The key that a text of many random signs stands for, such as a Fernet key.
    pub fn of_text(text: &str) -> Result<Self, StoreError> {
        let bytes = Digest::of_parts([PURPOSE, text.trim().as_bytes()]);
        let key = UnboundKey::new(&CHACHA20_POLY1305, bytes.as_bytes());
        let key = key.map_err(|_| unreadable("the key has the wrong length"))?;
        Ok(Self {
            key: LessSafeKey::new(key),
        })
    }

    /// The key of a data folder, which is made the first time.
    pub fn of_folder(folder: &Path) -> Result<Self, StoreError> {
        let _only = FOLDER_KEY.lock().unwrap_or_else(PoisonError::into_inner);
        let path = folder.join(FILE);
        match fs::read_to_string(&path) {
            Ok(text) if text.trim().len() >= 32 => return Self::of_text(&text),
            Ok(_) => {
                return Err(unreadable(format!(
                    "`{}` holds no key: restore it from a backup, or delete it and give webhooks their secrets again",
                    path.display()
                )));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("read", &path, error)),
        }
        let text = random_text()?;
        let unfinished = folder.join(format!("{FILE}.new"));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options
            .open(&unfinished)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .map_err(|error| StoreError::io("write", &unfinished, error))?;
        fs::rename(&unfinished, &path).map_err(|error| StoreError::io("write", &path, error))?;
        crate::objects::sync_folder(folder)?;
        Self::of_text(&text)
    }

    /// Encrypts the secret of what has this id.
    pub fn seal(&self, secret: &Secret, id: &str) -> Result<Sealed, StoreError> {
        let mut nonce = [0; NONCE_LEN];
        fill(&mut nonce)?;
        let mut bytes = secret.0.as_bytes().to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(id.as_bytes()),
                &mut bytes,
            )
            .map_err(|_| unreadable("it could not be encrypted"))?;
        Ok(Sealed(format!("{MARK}{}{}", hex(&nonce), hex(&bytes))))
    }

    /// The secret of what has this id.
    pub fn open(&self, sealed: &Sealed, id: &str) -> Result<Secret, StoreError> {
        let wrong = || {
            unreadable(
                "it was stored under another key: start the server with the `MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY` or the file \
                 `secrets.key` that it was stored with, or give the webhook its secret again",
            )
        };
        let text = sealed.0.strip_prefix(MARK).ok_or_else(wrong)?;
        let mut bytes = unhex(text).ok_or_else(wrong)?;
        if bytes.len() < NONCE_LEN {
            return Err(wrong());
        }
        let mut rest = bytes.split_off(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&bytes).map_err(|_| wrong())?;
        let opened = self
            .key
            .open_in_place(nonce, Aad::from(id.as_bytes()), &mut rest)
            .map_err(|_| wrong())?;
        let text = std::str::from_utf8(opened).map_err(|_| wrong())?;
        Ok(Secret(text.to_owned()))
    }
}

fn fill(bytes: &mut [u8]) -> Result<(), StoreError> {
    let filled = SystemRandom::new().fill(bytes);
    filled.map_err(|_| unreadable("the system gives no random bytes"))
}

fn random_text() -> Result<String, StoreError> {
    let mut bytes = [0; 32];
    fill(&mut bytes)?;
    Ok(hex(&bytes))
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let value = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    digits
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(value(*high)? << 4 | value(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_with_its_key_for_what_it_belongs_to_alone() {
        let (key, other) = (
            SealingKey::of_text("k1").unwrap(),
            SealingKey::of_text("k2").unwrap(),
        );
        for text in ["s3cret", "", "ключ"] {
            let sealed = key.seal(&Secret(text.to_owned()), "w1").unwrap();
            assert!(Sealed::is_sealed(&sealed.0));
            assert!(text.is_empty() || !sealed.0.contains(text));
            assert_eq!(key.open(&sealed, "w1").unwrap().0, text);
            assert!(key.open(&sealed, "w2").is_err());
            assert!(other.open(&sealed, "w1").is_err());
            assert_ne!(sealed, key.seal(&Secret(text.to_owned()), "w1").unwrap());
        }
        for bad in ["", "s3cret", MARK, "sealed:1:zz", "sealed:1:00"] {
            assert!(key.open(&Sealed(bad.to_owned()), "w1").is_err(), "{bad}");
        }
    }

    #[test]
    fn the_key_of_a_folder_is_one_however_many_make_it() {
        let dir = tempfile::tempdir().unwrap();
        let sealed: Vec<Sealed> = std::thread::scope(|scope| {
            let made = || {
                let key = SealingKey::of_folder(dir.path()).unwrap();
                key.seal(&Secret("s".to_owned()), "w").unwrap()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(made)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let key = SealingKey::of_folder(dir.path()).unwrap();
        for sealed in sealed {
            assert_eq!(key.open(&sealed, "w").unwrap(), Secret("s".to_owned()));
        }
    }

    #[test]
    fn the_key_of_a_folder_stays_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let sealed = SealingKey::of_folder(dir.path())
            .unwrap()
            .seal(&Secret("s".to_owned()), "w")
            .unwrap();
        let again = SealingKey::of_folder(dir.path()).unwrap();
        assert_eq!(again.open(&sealed, "w").unwrap(), Secret("s".to_owned()));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        fs::write(dir.path().join(FILE), "").unwrap();
        assert!(SealingKey::of_folder(dir.path()).is_err());
    }
}
