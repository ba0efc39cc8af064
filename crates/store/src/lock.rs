//! The lock that keeps a second server out of a data folder. The system frees it when the process ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::error::StoreError;

const FILE_NAME: &str = "lock";

pub(crate) struct FolderLock {
    _file: File,
}

impl FolderLock {
    pub fn take(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE_NAME);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| StoreError::io("open", &path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // The holder may not have written it yet; the message does without.
                let _ = file.read_to_string(&mut pid);
                return Err(StoreError::Locked {
                    path: folder.to_owned(),
                    pid: pid.trim().parse().ok(),
                });
            }
            Err(TryLockError::Error(e)) => return Err(StoreError::io("lock", &path, e)),
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        // Only for the message of the one that comes too late: a full disk must not keep the server from starting.
        if let Err(error) = written {
            tracing::warn!(%error, path = %path.display(), "cannot write the process id into the lock file");
        }
        Ok(Self { _file: file })
    }
}
