//! Forcing to disk, and what follows when that fails.
//!
//! After a failed attempt the kernel may count the pages as clean although the disk does not have them, so another attempt that succeeds
//! says nothing about them. What was written since the last success is therefore read back (its checksums say whether it is whole) and
//! written again before the next attempt. Until one succeeds the log takes nothing more, and says so.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::LogOptions;
use super::recovery::Walker;
use super::segment::SegmentId;
use crate::error::ServeError;

/// A part of a segment that is to be forced to disk.
#[derive(Debug)]
pub(super) struct Forcing {
    pub id: SegmentId,
    pub path: PathBuf,
    pub file: File,
    /// Up to here the disk has it.
    pub from: u64,
    /// Up to here it is acknowledged.
    pub until: u64,
    /// An attempt failed.
    pub suspect: bool,
    /// Also what belongs to the file beside its content.
    pub whole: bool,
}

impl Forcing {
    /// Returns how many bytes were written again first.
    pub fn run(&self, options: &LogOptions) -> Result<u64, ServeError> {
        let again = if self.suspect {
            write_again(&self.path, &self.file, self.from, self.until)
                .map_err(|source| ServeError::log("write again", &self.path, source))?
        } else {
            0
        };
        fsync(&self.file, self.whole, options)
            .map_err(|source| ServeError::log("force to disk", &self.path, source))?;
        Ok(again)
    }
}

fn write_again(path: &Path, file: &File, from: u64, until: u64) -> io::Result<u64> {
    let mut bytes = vec![0; until.saturating_sub(from) as usize];
    file.read_exact_at(&mut bytes, from)?;
    let mut walker = Walker::default();
    let damaged = std::iter::from_fn(|| walker.next(&bytes)).any(|record| record.is_err());
    if damaged {
        let lost = bytes.len() - walker.good;
        tracing::error!(
            segment = %path.display(), offset = from + walker.good as u64, bytes = lost,
            "the disk has lost acknowledged predictions: it failed to keep what it was given, and it cannot be read back"
        );
    }
    file.write_all_at(&bytes, from)?;
    Ok(bytes.len() as u64)
}

/// Forces a file to disk.
#[cfg_attr(
    not(test),
    expect(unused_variables, reason = "only tests have disks that fail")
)]
pub(super) fn fsync(file: &File, whole: bool, options: &LogOptions) -> io::Result<()> {
    #[cfg(test)]
    if let Some(failures) = &options.fsync_failures {
        use std::sync::atomic::Ordering::SeqCst;
        let left = failures.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        if left.is_ok() {
            return Err(io::Error::other("the disk says no"));
        }
    }
    if whole { file.sync_all() } else { file.sync_data() }
}
