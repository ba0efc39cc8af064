//! Which uploads in parts are open in buckets. A bucket keeps (and charges for) the parts of an upload that nobody ended; a server
//! that was killed ends them when it runs again.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tidemill_core::digest::Digest;

use super::Bucket;
use crate::error::StoreError;
use crate::objects::{blocking, local};

/// How long a client may take to send the parts of its upload.
const CLIENTS_MS: i64 = 24 * 3_600 * 1_000;

/// An upload in parts that is open.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Note {
    /// The bucket's URI.
    pub bucket: String,
    /// The whole key.
    pub key: String,
    /// What the bucket calls the upload.
    pub upload: String,
    /// When a client opened it that sends the parts by itself; `None` for one whose bytes pass through this server.
    pub by_client_ms: Option<i64>,
}

/// The notes, a file each.
#[derive(Debug)]
pub(crate) struct Ledger {
    folder: PathBuf,
    /// Those whose bytes pass through this process.
    under_way: Mutex<HashSet<PathBuf>>,
}

impl Ledger {
    pub fn at(folder: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            folder,
            under_way: Mutex::default(),
        })
    }

    fn under_way(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, bucket: &str, upload: &str) -> PathBuf {
        let digest = Digest::of_parts([bucket.as_bytes(), upload.as_bytes()]);
        self.folder.join(format!("{digest}.json"))
    }

    /// Remembers an upload, durably.
    pub(super) async fn open(self: &Arc<Self>, note: Note) -> Result<(), StoreError> {
        let ledger = Arc::clone(self);
        blocking(move || {
            let file = ledger.file(&note.bucket, &note.upload);
            if note.by_client_ms.is_none() {
                ledger.under_way().insert(file.clone());
            }
            let text = serde_json::to_vec(&note).map_err(|error| StoreError::Unreadable {
                what: "the note of an upload".to_owned(),
                message: error.to_string(),
            })?;
            fs::create_dir_all(&ledger.folder)
                .map_err(|e| StoreError::io("create the folder", &ledger.folder, e))?;
            local::write(&ledger.folder, &file, &text)
        })
        .await
    }

    /// Whether an upload that is noted is one of this key.
    pub(super) async fn is_of(&self, bucket: &str, upload: &str, key: &str) -> bool {
        let file = self.file(bucket, upload);
        let noted = blocking(move || Ok(read(&file))).await;
        noted.is_ok_and(|note| note.is_some_and(|note| note.key == key))
    }

    /// Forgets an upload that was ended; one that was not is left for the next sweep.
    pub(super) async fn close(self: &Arc<Self>, bucket: &str, upload: &str, ended: bool) {
        let file = self.file(bucket, upload);
        let ledger = Arc::clone(self);
        let closed = blocking(move || {
            if ended {
                // At worst it is ended once more.
                let _ = fs::remove_file(&file);
            }
            ledger.under_way().remove(&file);
            Ok(())
        });
        let _ = closed.await;
    }

    async fn forgotten(self: &Arc<Self>, now_ms: i64) -> Result<Vec<Note>, StoreError> {
        let ledger = Arc::clone(self);
        blocking(move || {
            let Ok(entries) = fs::read_dir(&ledger.folder) else {
                return Ok(Vec::new());
            };
            let files = entries.flatten().map(|entry| entry.path());
            let notes = files.filter(|file| file.extension().is_some_and(|kind| kind == "json"));
            let open = notes.filter(|file| !ledger.under_way().contains(file));
            let read = open.filter_map(|file| read(&file));
            let old = |note: &Note| note.by_client_ms.is_none_or(|since| now_ms - since >= CLIENTS_MS);
            Ok(read.filter(old).collect())
        })
        .await
    }

    /// Ends the uploads to these buckets that nobody will end any more; says how many.
    pub(crate) async fn sweep(self: &Arc<Self>, buckets: &[Bucket], now_ms: i64) -> Result<u64, StoreError> {
        let (mut swept, mut failed) = (0, None);
        for note in self.forgotten(now_ms).await? {
            let Some(bucket) = buckets.iter().find(|bucket| bucket.uri() == note.bucket) else {
                continue;
            };
            // One that fails keeps nobody else's parts.
            match bucket.end_upload(&note.key, &note.upload).await {
                Ok(()) => {
                    self.close(&note.bucket, &note.upload, true).await;
                    swept += 1;
                }
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(swept), Err)
    }
}

fn read(file: &Path) -> Option<Note> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}
