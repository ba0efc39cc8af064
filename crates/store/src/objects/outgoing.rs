//! Bytes that leave piece by piece: read ahead by one piece, on threads that may block but are held only while they read.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::blocking;
use crate::error::StoreError;

/// How much is read at once.
const PIECE: u64 = 1 << 20;

/// Buffers that were read into and sent, to be read into again: a fresh megabyte costs as many page faults as it has pages.
type Spare = Arc<Mutex<Vec<Vec<u8>>>>;

/// A piece on its way out; its buffer comes back once it was sent.
struct Lent {
    piece: Vec<u8>,
    spare: Spare,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.piece);
        self.spare
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(buffer);
    }
}

/// An open file, or a part of it.
#[derive(Debug)]
pub struct Outgoing {
    file: Arc<File>,
    size: u64,
    modified_ms: i64,
    at: u64,
    end: u64,
    ahead: Option<JoinHandle<std::io::Result<Vec<u8>>>>,
    spare: Spare,
}

impl Outgoing {
    /// Opens a file; `None` if there is none or it is a folder.
    pub(super) async fn open(path: &Path) -> Result<Option<Self>, StoreError> {
        let path = path.to_owned();
        blocking(move || {
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(e) if is_absence(&e) => return Ok(None),
                Err(e) => return Err(StoreError::io("open", &path, e)),
            };
            let meta = file.metadata().map_err(|e| StoreError::io("open", &path, e))?;
            if !meta.is_file() {
                return Ok(None);
            }
            Ok(Some(Self {
                file: Arc::new(file),
                size: meta.len(),
                modified_ms: modified_ms(&meta),
                at: 0,
                end: meta.len(),
                ahead: None,
                spare: Spare::default(),
            }))
        })
        .await
    }

    /// Bytes of the whole file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// When it was last written, in milliseconds since the epoch.
    pub fn modified_ms(&self) -> i64 {
        self.modified_ms
    }

    /// Leaves out all but these bytes; `end` is not among them.
    pub fn only(&mut self, start: u64, end: u64) {
        self.at = start.min(self.size);
        self.end = end.clamp(self.at, self.size);
        self.ahead = None;
    }

    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let Some(reading) = self.ahead.take().or_else(|| self.read()) else {
            return Ok(None);
        };
        self.ahead = self.read();
        let piece = reading.await.map_err(|e| StoreError::Panicked {
            message: e.to_string(),
        })?;
        match piece {
            Ok(piece) => Ok(Some(Bytes::from_owner(Lent {
                piece,
                spare: Arc::clone(&self.spare),
            }))),
            Err(e) => Err(StoreError::io("read", Path::new("an artifact"), e)),
        }
    }

    /// All that is left of it, if that is at most `limit` bytes.
    pub async fn rest(mut self, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        if self.end - self.at > limit {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        while let Some(piece) = self.next().await? {
            bytes.extend_from_slice(&piece);
        }
        Ok(Some(bytes))
    }

    fn read(&mut self) -> Option<JoinHandle<std::io::Result<Vec<u8>>>> {
        if self.at >= self.end {
            return None;
        }
        let (file, at) = (Arc::clone(&self.file), self.at);
        let length = (self.end - at).min(PIECE);
        self.at += length;
        let spare = Arc::clone(&self.spare);
        Some(tokio::task::spawn_blocking(move || {
            let mut piece = spare
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop()
                .unwrap_or_default();
            piece.resize(length as usize, 0);
            file.read_exact_at(&mut piece, at)?;
            Ok(piece)
        }))
    }
}

/// Whether a file is not there: a part of its path may be a file, too, or the name longer than names can be.
pub(super) fn is_absence(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory | ErrorKind::InvalidFilename
    )
}

/// When a file was last written, in milliseconds since the epoch.
pub(super) fn modified_ms(meta: &std::fs::Metadata) -> i64 {
    let since = meta
        .modified()
        .ok()
        .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
