//! Durable writes to the local file system: temporary file, sync, rename, sync of the folder. `object_store` does all but the
//! syncs, and a file that a power cut empties was never stored.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::StoreError;

/// Files on their way. On the same file system as their targets, and named so that no listing shows them.
pub(super) const UNFINISHED: &str = ".unfinished";

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A name for a file on its way.
pub(super) fn temporary(root: &Path) -> Result<PathBuf, StoreError> {
    let unfinished = root.join(UNFINISHED);
    create_folders(root, &unfinished)?;
    // Digits after `#` are what `object_store` itself takes for a file on its way.
    let name = format!("{}#{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    Ok(unfinished.join(name))
}

/// Writes `bytes` to `target` below `root`: after a crash there is all of it or what was there before.
pub(super) fn write(root: &Path, target: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let temporary = temporary(root)?;
    let written = write_synced(&temporary, bytes)
        .map_err(|e| StoreError::io("write", target, e))
        .and_then(|()| {
            let folder = target.parent().unwrap_or(root);
            create_folders(root, folder)?;
            fs::rename(&temporary, target).map_err(|e| StoreError::io("write", target, e))?;
            sync_folder(folder)
        });
    if written.is_err() {
        // It may not be there; and if it stays, the next start discards it.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Writes `bytes` to `target` below `root` unless it is there; returns whether it was not. After a crash there is all of it or nothing.
pub(super) fn write_new(root: &Path, target: &Path, bytes: &[u8]) -> Result<bool, StoreError> {
    let temporary = temporary(root)?;
    let failed = |e| StoreError::io("write", target, e);
    let written = write_synced(&temporary, bytes).map_err(failed).and_then(|()| {
        let folder = target.parent().unwrap_or(root);
        create_folders(root, folder)?;
        // Unlike a rename, a link never takes the place of what is there.
        match fs::hard_link(&temporary, target) {
            Ok(()) => sync_folder(folder).map(|()| true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(failed(e)),
        }
    });
    // It may not be there; and if it stays, the next start discards it.
    let _ = fs::remove_file(&temporary);
    written
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Creates `folder` and what is missing above it up to `root`, each durably in its parent.
pub(super) fn create_folders(root: &Path, folder: &Path) -> Result<(), StoreError> {
    if folder.is_dir() {
        return Ok(());
    }
    let missing: Vec<PathBuf> = folder
        .ancestors()
        .take_while(|ancestor| *ancestor != root && !ancestor.is_dir())
        .map(Path::to_owned)
        .collect();
    for ancestor in missing.iter().rev() {
        match fs::create_dir(ancestor) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(StoreError::io("create the folder", ancestor, e)),
        }
        if let Some(parent) = ancestor.parent() {
            sync_folder(parent)?;
        }
    }
    Ok(())
}

/// Makes what was created in or renamed into a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder)
        .and_then(|opened| opened.sync_all())
        .map_err(|e| StoreError::io("sync the folder", folder, e))
}

/// Removes what writes that were killed left behind.
pub(super) fn discard_unfinished(root: &Path) -> Result<(), StoreError> {
    let unfinished = root.join(UNFINISHED);
    match fs::remove_dir_all(&unfinished) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(StoreError::io("remove", &unfinished, e)),
    }
}
