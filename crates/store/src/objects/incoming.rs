//! Bytes that arrive piece by piece: written to a temporary file and hashed while they come, in constant memory; then given a
//! name, durably. An arrival that is dropped half-way leaves nothing.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tidemill_core::digest::{Digest, Hasher};
use tokio::task::JoinHandle;

use super::{Outgoing, blocking, local};
use crate::error::StoreError;

/// So many bytes are gathered before they are handed to a thread that may block.
const BATCH: usize = 1 << 20;
/// After so many bytes the file is synced while more arrive, so that the last sync is short.
const SYNC_EVERY: u64 = 64 << 20;

/// A temporary file that goes unless it was given a name.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // It may have been renamed; and if it stays, the next start discards it.
        let _ = fs::remove_file(&self.0);
    }
}

/// What the writing thread works on.
#[derive(Debug)]
struct Sink {
    file: File,
    hasher: Hasher,
    size: u64,
    synced: u64,
    temporary: Temporary,
}

impl Sink {
    fn create(root: &Path) -> Result<Self, StoreError> {
        let path = local::temporary(root)?;
        let file = File::create_new(&path).map_err(|e| StoreError::io("create", &path, e))?;
        Ok(Self {
            file,
            hasher: Hasher::default(),
            size: 0,
            synced: 0,
            temporary: Temporary(path),
        })
    }

    fn write(&mut self, pieces: &[Bytes]) -> Result<(), StoreError> {
        for piece in pieces {
            self.file
                .write_all(piece)
                .map_err(|e| StoreError::io("write", &self.temporary.0, e))?;
            self.hasher.update(piece);
            self.size += piece.len() as u64;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.file
            .sync_all()
            .map_err(|e| StoreError::io("sync", &self.temporary.0, e))
    }

    /// A handle with which another thread may sync, once that is worth it.
    fn due_for_sync(&mut self) -> Option<File> {
        if self.size - self.synced < SYNC_EVERY {
            return None;
        }
        self.synced = self.size;
        self.file.try_clone().ok()
    }
}

/// A file on its way.
#[derive(Debug)]
pub struct Incoming {
    root: PathBuf,
    sink: Option<Sink>,
    gathered: Vec<Bytes>,
    gathered_size: usize,
    writing: Option<JoinHandle<Result<Sink, StoreError>>>,
    syncing: Option<JoinHandle<()>>,
}

impl Incoming {
    /// Starts an arrival below `root`.
    pub(super) async fn start(root: PathBuf) -> Result<Self, StoreError> {
        let below = root.clone();
        let sink = blocking(move || Sink::create(&below)).await?;
        Ok(Self {
            root,
            sink: Some(sink),
            gathered: Vec::new(),
            gathered_size: 0,
            writing: None,
            syncing: None,
        })
    }

    /// Takes the next piece. Returns at once unless the disk is slower than the sender.
    pub async fn write(&mut self, piece: Bytes) -> Result<(), StoreError> {
        self.gathered_size += piece.len();
        self.gathered.push(piece);
        if self.gathered_size >= BATCH {
            self.hand_over().await?;
        }
        Ok(())
    }

    async fn hand_over(&mut self) -> Result<(), StoreError> {
        let mut sink = self.take_sink().await?;
        if let Some(file) = sink.due_for_sync() {
            if let Some(syncing) = self.syncing.take() {
                let _ = syncing.await;
            }
            // What goes wrong here goes wrong again, and is told, in the last sync.
            self.syncing = Some(tokio::task::spawn_blocking(move || {
                let _ = file.sync_data();
            }));
        }
        let pieces = std::mem::take(&mut self.gathered);
        self.gathered_size = 0;
        self.writing = Some(tokio::task::spawn_blocking(move || {
            sink.write(&pieces)?;
            Ok(sink)
        }));
        Ok(())
    }

    async fn take_sink(&mut self) -> Result<Sink, StoreError> {
        if let Some(writing) = self.writing.take() {
            return writing.await.map_err(|e| StoreError::Panicked {
                message: e.to_string(),
            })?;
        }
        self.sink.take().ok_or(StoreError::Closed)
    }

    /// Ends the arrival: all of it is on the disk, still without a name.
    pub async fn finish(mut self) -> Result<Arrived, StoreError> {
        let mut sink = self.take_sink().await?;
        let pieces = std::mem::take(&mut self.gathered);
        let root = self.root;
        blocking(move || {
            sink.write(&pieces)?;
            sink.sync()?;
            Ok(Arrived {
                digest: sink.hasher.finish(),
                size: sink.size,
                root,
                temporary: sink.temporary,
            })
        })
        .await
    }
}

/// A file that has arrived, and has no name yet.
#[derive(Debug)]
pub struct Arrived {
    /// Of its bytes.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    root: PathBuf,
    temporary: Temporary,
}

impl Arrived {
    /// Opens it for reading.
    pub async fn open(&self) -> Result<Outgoing, StoreError> {
        let opened = Outgoing::open(&self.temporary.0).await?;
        opened.ok_or_else(|| StoreError::not_found("arrived file", self.digest))
    }

    /// Gives it the name `target`, replacing what had it. Blocks.
    pub(super) fn rename(self, target: &Path) -> Result<(), StoreError> {
        let folder = target.parent().unwrap_or(&self.root);
        local::create_folders(&self.root, folder)?;
        fs::rename(&self.temporary.0, target).map_err(|e| StoreError::io("write", target, e))?;
        local::sync_folder(folder)
    }
}
