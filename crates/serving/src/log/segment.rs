//! One file of the log: appended to by the writer alone, cut back to its last whole record whenever a write fails.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::LogOptions;
use super::forcing::{Forcing, fsync};
use crate::error::ServeError;

/// A segment of the log. Numbers grow and are never used again, so an id names the same batches for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SegmentId(pub u64);

impl SegmentId {
    /// The file of this segment in the log's folder.
    pub fn path(&self, dir: &Path) -> PathBuf {
        dir.join(self.to_string())
    }

    pub(super) fn of_file(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let digits = name.strip_suffix(".wal")?;
        let id = Self(digits.parse().ok()?);
        (id.to_string() == name).then_some(id)
    }
}

/// The file's name, such as `00000000000000000007.wal`.
impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}.wal", self.0)
    }
}

/// The open segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub id: SegmentId,
    path: PathBuf,
    file: File,
    /// Up to here all is acknowledged.
    length: u64,
    /// A write failed and the file may be longer than `length`.
    dirty: bool,
    /// Up to here the disk has it.
    forced: u64,
    /// Forcing it to disk failed, and has not succeeded since.
    suspect: bool,
    options: LogOptions,
    #[cfg(test)]
    disk: Option<std::sync::Arc<std::sync::atomic::AtomicU64>>,
}

impl Segment {
    /// Makes the file, or takes over an empty one.
    pub fn create(dir: &Path, id: SegmentId, options: &LogOptions) -> Result<Self, ServeError> {
        let path = id.path(dir);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(|source| ServeError::log("create", &path, source))?;
        sync_dir(dir)?;
        Ok(Self {
            id,
            path,
            file,
            length: 0,
            dirty: false,
            forced: 0,
            suspect: false,
            options: options.clone(),
            #[cfg(test)]
            disk: options.disk.clone(),
        })
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    /// Appends whole records. After an error the file is as before.
    pub fn append(&mut self, records: &[u8]) -> Result<(), ServeError> {
        self.heal()?;
        self.dirty = true;
        match self.write_at_end(records) {
            Ok(()) => {
                self.length += records.len() as u64;
                self.dirty = false;
                Ok(())
            }
            Err(source) => {
                let error = ServeError::log("append to", &self.path, source);
                self.try_to_heal();
                Err(error)
            }
        }
    }

    /// Forces what was appended to disk. After an error all behind `before` is cut off again.
    pub fn sync(&mut self, before: u64) -> Result<(), ServeError> {
        match fsync(&self.file, false, &self.options) {
            Ok(()) => {
                self.forced = self.length;
                Ok(())
            }
            Err(source) => {
                self.length = before;
                self.dirty = true;
                self.try_to_heal();
                Err(ServeError::log("force to disk", &self.path, source))
            }
        }
    }

    /// What is not on disk yet, for one who forces it there beside the lock.
    pub fn unforced(&self) -> io::Result<Forcing> {
        Ok(Forcing {
            id: self.id,
            path: self.path.clone(),
            file: self.file.try_clone()?,
            from: self.forced,
            until: self.length,
            suspect: self.suspect,
            whole: false,
        })
    }

    /// What could not be done with its file.
    pub fn error(&self, action: &'static str, source: io::Error) -> ServeError {
        ServeError::log(action, &self.path, source)
    }

    /// How forcing ended.
    pub fn note_forced(&mut self, until: u64, succeeded: bool) {
        self.suspect = !succeeded;
        if succeeded {
            self.forced = self.forced.max(until);
        }
    }

    fn try_to_heal(&mut self) {
        if let Err(again) = self.heal() {
            tracing::warn!(path = %self.path.display(), error = %again, "a failed write could not be cut off yet");
        }
    }

    /// Forces all to disk before the segment is left for good.
    pub fn finish(&mut self) -> Result<(), ServeError> {
        self.heal()?;
        let forcing = self
            .unforced()
            .map(|forcing| Forcing {
                whole: true,
                ..forcing
            })
            .map_err(|source| ServeError::log("force to disk", &self.path, source))?;
        let forced = forcing.run(&self.options);
        self.note_forced(forcing.until, forced.is_ok());
        forced?;
        // Says that damage found later is damage, and no write that did not end. Without it the segment is only read more leniently.
        if let Err(error) = File::create(sealed_mark(&self.path)) {
            tracing::warn!(path = %self.path.display(), %error, "a sealed segment could not be marked");
        }
        Ok(())
    }

    /// Cuts off what a failed write left; nothing is appended before that has worked.
    fn heal(&mut self) -> Result<(), ServeError> {
        if !self.dirty {
            return Ok(());
        }
        self.file
            .set_len(self.length)
            .and_then(|()| fsync(&self.file, true, &self.options))
            .map_err(|source| {
                self.suspect = true;
                ServeError::log("cut back", &self.path, source)
            })?;
        self.dirty = false;
        Ok(())
    }

    fn write_at_end(&mut self, records: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        return self.write_within_budget(records);
        #[cfg(not(test))]
        self.file.write_all_at(records, self.length)
    }

    /// A disk that fills up in the middle of a write.
    #[cfg(test)]
    fn write_within_budget(&self, records: &[u8]) -> io::Result<()> {
        use std::sync::atomic::Ordering;
        let Some(disk) = &self.disk else {
            return self.file.write_all_at(records, self.length);
        };
        let left = disk.load(Ordering::SeqCst);
        let fits = records.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.file.write_all_at(&records[..fits], self.length)?;
        if fits < records.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.store(left - fits as u64, Ordering::SeqCst);
        Ok(())
    }
}

/// The file beside a segment that says that all of it was forced to disk.
pub(super) fn sealed_mark(segment: &Path) -> PathBuf {
    segment.with_extension("sealed")
}

/// Deletes a segment's file, if it is there.
pub(super) fn delete(dir: &Path, id: SegmentId) -> Result<(), ServeError> {
    let path = id.path(dir);
    // The mark means nothing without its segment.
    let _ = fs::remove_file(sealed_mark(&path));
    match fs::remove_file(&path) {
        Ok(()) => sync_dir(dir),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(ServeError::log("delete", &path, source)),
    }
}

/// Renames a segment's file so that it is none any more.
pub(super) fn set_aside(dir: &Path, id: SegmentId) -> Result<PathBuf, ServeError> {
    let path = id.path(dir);
    let kept = path.with_extension("damaged");
    fs::rename(&path, &kept).map_err(|source| ServeError::log("rename", &path, source))?;
    let _ = fs::remove_file(sealed_mark(&path));
    sync_dir(dir)?;
    Ok(kept)
}

/// Makes the folder's list of files survive a power cut.
pub(super) fn sync_dir(dir: &Path) -> Result<(), ServeError> {
    File::open(dir)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| ServeError::log("force to disk", dir, source))
}
