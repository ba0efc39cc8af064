//! Parts of files that wait on the disk until all have come: a folder for each upload, in it a note of what it is, and the parts, each
//! named by its number and its digest. All that is known of an upload is there, so it outlives the server.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tidemill_core::digest::Digest;

use super::incoming::Incoming;
use super::outgoing::Outgoing;
use super::{blocking, local};
use crate::error::StoreError;

const NOTE: &str = "upload.json";

/// Held while a part takes the place of another of its number: of two at once the later one stays.
static KEEPING: Mutex<()> = Mutex::new(());

/// What an upload in parts is for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shelved {
    /// What it will be, in the words of whoever opened it.
    pub target: String,
    /// How many parts it has.
    pub parts: u32,
    /// When it was opened.
    pub opened_ms: i64,
}

/// Where parts wait.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shelf {
    root: PathBuf,
}

impl Shelf {
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// The folder of an upload; `None` for what was never the name of one.
    fn folder(&self, upload: &str) -> Option<PathBuf> {
        let named = !upload.is_empty() && upload.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        named.then(|| self.root.join(upload))
    }

    /// Remembers an upload, durably.
    pub async fn open(&self, upload: &str, what: Shelved) -> Result<(), StoreError> {
        let Some(folder) = self.folder(upload) else {
            return Err(StoreError::conflict("upload", "this cannot be its name"));
        };
        let root = self.root.clone();
        blocking(move || {
            let text = serde_json::to_vec(&what).map_err(|error| StoreError::Unreadable {
                what: "the note of an upload".to_owned(),
                message: error.to_string(),
            })?;
            fs::create_dir_all(&root).map_err(|e| StoreError::io("create the folder", &root, e))?;
            local::write(&root, &folder.join(NOTE), &text)
        })
        .await
    }

    /// What an upload is for; `None` if there is none of this name.
    pub async fn find(&self, upload: &str) -> Result<Option<Shelved>, StoreError> {
        let Some(folder) = self.folder(upload) else {
            return Ok(None);
        };
        blocking(move || Ok(note(&folder))).await
    }

    /// Starts the arrival of a part.
    pub async fn incoming(&self) -> Result<Incoming, StoreError> {
        Incoming::start(self.root.clone()).await
    }

    /// Keeps a part that has arrived, in place of one of its number; whether the upload is still there.
    pub async fn keep(&self, upload: &str, number: u32, arrived: super::Arrived) -> Result<bool, StoreError> {
        let Some(folder) = self.folder(upload) else {
            return Ok(false);
        };
        blocking(move || {
            if note(&folder).is_none() {
                return Ok(false);
            }
            let name = format!("{number}.{}", arrived.digest);
            let _keeping = KEEPING.lock().unwrap_or_else(PoisonError::into_inner);
            arrived.rename(&folder.join(&name))?;
            let begin = format!("{number}.");
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let other = entry.file_name().to_string_lossy().into_owned();
                if other.starts_with(&begin) && other != name {
                    // What counts is told by the digest that the client names.
                    let _ = fs::remove_file(entry.path());
                }
            }
            Ok(true)
        })
        .await
    }

    /// The digests of the parts that are there, by number.
    pub async fn parts(&self, upload: &str) -> Result<BTreeMap<u32, Digest>, StoreError> {
        let Some(folder) = self.folder(upload) else {
            return Ok(BTreeMap::new());
        };
        blocking(move || {
            let names = fs::read_dir(&folder).into_iter().flatten().flatten();
            let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
            let part = |name: String| {
                let (number, digest) = name.split_once('.')?;
                Some((number.parse().ok()?, Digest::from_str(digest).ok()?))
            };
            Ok(names.filter_map(part).collect())
        })
        .await
    }

    /// Opens a part.
    pub async fn part(
        &self,
        upload: &str,
        number: u32,
        digest: Digest,
    ) -> Result<Option<Outgoing>, StoreError> {
        match self.folder(upload) {
            Some(folder) => Outgoing::open(&folder.join(format!("{number}.{digest}"))).await,
            None => Ok(None),
        }
    }

    /// Takes an upload away with all its parts.
    pub async fn remove(&self, upload: &str) -> Result<(), StoreError> {
        let Some(folder) = self.folder(upload) else {
            return Ok(());
        };
        blocking(move || match fs::remove_dir_all(&folder) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(StoreError::io("remove", &folder, e)),
        })
        .await
    }

    /// Removes what arrivals and removals that were killed left behind. Only while nothing arrives.
    pub(crate) fn discard_unfinished(&self) -> Result<(), StoreError> {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let folder = entry.path();
            // A folder whose note went first. One whose note cannot be read is let be.
            if folder.is_dir() && !folder.join(NOTE).exists() {
                fs::remove_dir_all(&folder).map_err(|e| StoreError::io("remove", &folder, e))?;
            }
        }
        local::discard_unfinished(&self.root)
    }

    /// Takes away what was opened before `before_ms`; says how many uploads stay.
    pub async fn tidy(&self, before_ms: i64) -> Result<usize, StoreError> {
        let root = self.root.clone();
        blocking(move || {
            let mut open = 0;
            for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
                match note(&entry.path()) {
                    Some(what) if what.opened_ms >= before_ms => open += 1,
                    // It is tried again the next time.
                    Some(_) => drop(fs::remove_dir_all(entry.path())),
                    None => {}
                }
            }
            Ok(open)
        })
        .await
    }
}

fn note(folder: &std::path::Path) -> Option<Shelved> {
    serde_json::from_slice(&fs::read(folder.join(NOTE)).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn keep(shelf: &Shelf, upload: &str, number: u32, text: &'static str) -> bool {
        let mut incoming = shelf.incoming().await.unwrap();
        incoming.write(text.into()).await.unwrap();
        let arrived = incoming.finish().await.unwrap();
        shelf.keep(upload, number, arrived).await.unwrap()
    }

    #[tokio::test]
    async fn an_upload_is_what_its_folder_says() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::at(dir.path().join("shelf"));
        let what = Shelved {
            target: "a/b".to_owned(),
            parts: 2,
            opened_ms: 1_000,
        };
        assert_eq!(shelf.find("0-1").await.unwrap(), None);
        shelf.open("0-1", what.clone()).await.unwrap();
        shelf
            .open(
                "0-2",
                Shelved {
                    opened_ms: 5_000,
                    ..what.clone()
                },
            )
            .await
            .unwrap();
        assert!(keep(&shelf, "0-1", 1, "first").await);
        assert!(keep(&shelf, "0-1", 1, "again").await);
        assert!(keep(&shelf, "0-1", 11, "eleven").await);
        assert!(!keep(&shelf, "0-3", 1, "nobody's").await);
        // As after a restart, one in the middle of a removal.
        let torn = dir.path().join("shelf/0-4");
        fs::create_dir(&torn).unwrap();
        fs::write(torn.join("1.part"), "of an upload whose note is gone").unwrap();
        let shelf = Shelf::at(dir.path().join("shelf"));
        shelf.discard_unfinished().unwrap();
        assert!(!torn.exists());
        assert_eq!(shelf.find("0-1").await.unwrap(), Some(what));
        let parts = shelf.parts("0-1").await.unwrap();
        assert_eq!(parts.keys().copied().collect::<Vec<_>>(), [1, 11]);
        let part = shelf.part("0-1", 1, parts[&1]).await.unwrap().unwrap();
        assert_eq!(part.rest(100).await.unwrap().unwrap(), b"again");
        for name in ["..", "../objects", "", "a/b"] {
            assert_eq!(shelf.find(name).await.unwrap(), None, "{name}");
        }
        assert_eq!(shelf.tidy(2_000).await.unwrap(), 1);
        assert_eq!(shelf.find("0-1").await.unwrap(), None);
        shelf.remove("0-2").await.unwrap();
        assert_eq!(shelf.tidy(2_000).await.unwrap(), 0);
    }
}
