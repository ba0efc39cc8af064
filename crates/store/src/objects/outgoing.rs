//! Bytes that leave piece by piece: read ahead by one piece, on threads that may block but are held only while they read.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::blocking;
use super::bucket::BucketFile;
use crate::error::StoreError;

/// How much is read at once.
const PIECE: u64 = 1 << 20;

/// An open file, or a part of it.
#[derive(Debug)]
pub struct Outgoing {
    size: u64,
    modified_ms: i64,
    at: u64,
    end: u64,
    source: Source,
}

/// Where the bytes come from.
#[derive(Debug)]
enum Source {
    File {
        file: Arc<File>,
        ahead: Option<JoinHandle<std::io::Result<Vec<u8>>>>,
    },
    Bucket(Box<BucketFile>),
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
                size: meta.len(),
                modified_ms: modified_ms(&meta),
                at: 0,
                end: meta.len(),
                source: Source::File {
                    file: Arc::new(file),
                    ahead: None,
                },
            }))
        })
        .await
    }

    /// A file of a bucket.
    pub(super) fn of_bucket(file: BucketFile, size: u64, modified_ms: i64) -> Self {
        Self {
            size,
            modified_ms,
            at: 0,
            end: size,
            source: Source::Bucket(Box::new(file)),
        }
    }

    /// What changes when the bytes do, where the store says.
    pub fn etag(&self) -> Option<&str> {
        match &self.source {
            Source::File { .. } => None,
            Source::Bucket(file) => file.etag.as_deref().map(|etag| etag.trim_matches('"')),
        }
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
        match &mut self.source {
            Source::File { ahead, .. } => *ahead = None,
            Source::Bucket(file) if (self.at, self.end) != (0, self.size) => file.only(self.at, self.end),
            Source::Bucket(_) => {}
        }
    }

    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let (file, ahead) = match &mut self.source {
            Source::File { file, ahead } => (file, ahead),
            Source::Bucket(file) => return file.next().await,
        };
        let first = ahead.take().or_else(|| read(file, &mut self.at, self.end));
        let Some(reading) = first else {
            return Ok(None);
        };
        *ahead = read(file, &mut self.at, self.end);
        let piece = reading.await.map_err(|e| StoreError::Panicked {
            message: e.to_string(),
        })?;
        match piece {
            Ok(piece) => Ok(Some(piece.into())),
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
}

/// Begins to read the next piece, unless the end is reached.
fn read(file: &Arc<File>, at: &mut u64, end: u64) -> Option<JoinHandle<std::io::Result<Vec<u8>>>> {
    if *at >= end {
        return None;
    }
    let (file, from) = (Arc::clone(file), *at);
    let length = (end - from).min(PIECE);
    *at += length;
    Some(tokio::task::spawn_blocking(move || {
        let mut piece = vec![0; length as usize];
        file.read_exact_at(&mut piece, from)?;
        Ok(piece)
    }))
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
