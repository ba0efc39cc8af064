//! Opening the log: read every segment, cut an unfinished write off the last one, start a new one.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::index::{Index, Numbers, Place, number};
use super::record::{self, Bad, Record, RequestKey};
use super::segment::{Segment, SegmentId, sealed_mark, sync_dir};
use super::{LogOptions, Recovery};
use crate::error::ServeError;

/// Makes the folder and takes its lock; two writers would destroy each other's segments.
pub(super) fn lock(dir: &Path) -> Result<File, ServeError> {
    fs::create_dir_all(dir).map_err(|source| ServeError::log("create", dir, source))?;
    let path = dir.join("lock");
    let failed = |source| ServeError::log("lock (does another process use it?)", &path, source);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed)?;
    file.try_lock().map_err(|error| failed(error.into()))?;
    Ok(file)
}

/// Fills the index from the folder and returns the segment to append to.
pub(super) fn recover(
    dir: &Path,
    options: &LogOptions,
    index: &mut Index,
) -> Result<(Segment, Recovery), ServeError> {
    let mut found = Recovery::default();
    let mut next = SegmentId(0);
    let segments = list(dir)?;
    for (place, id) in segments.iter().enumerate() {
        let is_last = place + 1 == segments.len();
        // The one before the last may have been left with an unfinished write too: appends go on there while the next is made, and go to
        // the next while it is forced to disk.
        let may_be_torn = place + 2 >= segments.len() && !sealed_mark(&id.path(dir)).exists();
        let records = if may_be_torn {
            let (records, cut) = read_last(&id.path(dir))?;
            found.truncated_bytes += cut;
            records
        } else {
            read_sealed(&id.path(dir))?
        };
        next = SegmentId(id.0 + 1);
        if records.is_empty() && is_last {
            // Never sealed, so its name is still free.
            next = *id;
            break;
        }
        found.segments += 1;
        found.batches += records.len();
        index.add_segment(*id);
        for Found { offset, record } in &records {
            let place = Place {
                segment: *id,
                offset: *offset,
            };
            index.insert(place, record.entry.note(), record.request);
        }
        index.close(*id);
    }
    // A recovered segment counts as sealed even if it never was: its batches may be recorded under its name already, so it must not grow.
    let segment = Segment::create(dir, next, options)?;
    index.open(segment.id);
    Ok((segment, found))
}

fn list(dir: &Path) -> Result<Vec<SegmentId>, ServeError> {
    let failed = |source| ServeError::log("list", dir, source);
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        segments.extend(SegmentId::of_file(&entry.map_err(failed)?.path()));
    }
    segments.sort_unstable();
    Ok(segments)
}

/// A record and where it begins.
pub(super) struct Found {
    pub offset: u64,
    pub record: Record,
}

/// The records up to the first bad one, their length, and what is wrong there.
struct Walk {
    records: Vec<Found>,
    good: usize,
    bad: Option<Bad>,
}

/// Goes through the records of a segment. A failed write that came back after a power cut may stand before its own repetition: a request
/// is taken once.
#[derive(Debug, Default)]
pub(super) struct Walker {
    /// Up to here all is good.
    pub good: usize,
    seen: HashSet<RequestKey>,
}

impl Walker {
    /// The next record; `None` at the end.
    pub fn next(&mut self, bytes: &[u8]) -> Option<Result<Found, Bad>> {
        while self.good < bytes.len() {
            match record::decode(&bytes[self.good..]) {
                Ok((record, length)) => {
                    let offset = self.good as u64;
                    self.good += length;
                    if record.request.is_none_or(|request| self.seen.insert(request)) {
                        return Some(Ok(Found { offset, record }));
                    }
                }
                Err(bad) => return Some(Err(bad)),
            }
        }
        None
    }
}

fn walk(bytes: &[u8]) -> Walk {
    let mut walker = Walker::default();
    let mut records = Vec::new();
    let mut bad = None;
    while let Some(next) = walker.next(bytes) {
        match next {
            Ok(found) => records.push(found),
            Err(found) => {
                bad = Some(found);
                break;
            }
        }
    }
    Walk {
        records,
        good: walker.good,
        bad,
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, ServeError> {
    fs::read(path).map_err(|source| ServeError::log("read", path, source))
}

pub(super) fn corrupt(path: &Path, offset: usize, reason: String) -> ServeError {
    ServeError::Corrupt {
        path: path.to_path_buf(),
        offset: offset as u64,
        reason,
    }
}

/// A segment that was forced to disk as a whole: every record must be good.
pub(super) fn read_sealed(path: &Path) -> Result<Vec<Found>, ServeError> {
    let walk = walk(&read(path)?);
    match walk.bad {
        Some(Bad::Torn(reason) | Bad::Unreadable(reason)) => Err(corrupt(path, walk.good, reason)),
        None => Ok(walk.records),
    }
}

/// The segment that was being written: an unfinished write at its end is cut off. Returns how many bytes that were.
fn read_last(path: &Path) -> Result<(Vec<Found>, u64), ServeError> {
    let bytes = read(path)?;
    let walk = walk(&bytes);
    match walk.bad {
        None => return Ok((walk.records, 0)),
        Some(Bad::Unreadable(reason)) => return Err(corrupt(path, walk.good, reason)),
        Some(Bad::Torn(_)) => {}
    }
    let tail = &bytes[walk.good..];
    if record::whole_record_follows(tail) {
        let kept = keep_aside(path, tail)?;
        tracing::error!(
            segment = %path.display(), offset = walk.good, bytes = tail.len(), kept = %kept.display(),
            "the prediction log's last segment is damaged before its end; what follows is cut off and kept aside"
        );
    }
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|file| file.set_len(walk.good as u64).and_then(|()| file.sync_all()))
        .map_err(|source| ServeError::log("cut back", path, source))?;
    Ok((walk.records, tail.len() as u64))
}

/// The batches of a segment that may still be written to: up to where a record is not whole yet.
pub(super) fn read_growing(path: &Path) -> Result<Vec<Found>, ServeError> {
    Ok(walk(&read(path)?).records)
}

/// The same; `None` where the segment is not there any more, because it has become Parquet since the index was asked.
pub(super) fn read_unless_moved(path: &Path) -> Result<Option<Vec<Found>>, ServeError> {
    match read_growing(path) {
        Ok(found) => Ok(Some(found)),
        Err(_) if !path.exists() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The record that begins at `offset`.
pub(super) fn read_at(path: &Path, offset: u64) -> Result<Record, ServeError> {
    let failed = |source| ServeError::log("read", path, source);
    let file = File::open(path).map_err(failed)?;
    let mut header = [0; record::HEADER];
    file.read_exact_at(&mut header, offset).map_err(failed)?;
    let mut bytes = vec![0; record::length(header)];
    file.read_exact_at(&mut bytes, offset).map_err(failed)?;
    match record::decode(&bytes) {
        Ok((record, _)) => Ok(record),
        Err(Bad::Torn(reason) | Bad::Unreadable(reason)) => Err(corrupt(path, offset as usize, reason)),
    }
}

/// The predictions of a segment.
pub(super) fn look_through(path: &Path) -> Result<Numbers, ServeError> {
    let mut numbers = Numbers::default();
    for Found { offset, record } in read_growing(path)? {
        for prediction in record.entry.note().ids {
            numbers.add(number(prediction), offset);
        }
    }
    Ok(numbers)
}

fn keep_aside(path: &Path, tail: &[u8]) -> Result<PathBuf, ServeError> {
    let kept = path.with_extension("cut");
    fs::write(&kept, tail)
        .and_then(|()| File::open(&kept)?.sync_all())
        .map_err(|source| ServeError::log("write", &kept, source))?;
    sync_dir(path.parent().unwrap_or(path))?;
    Ok(kept)
}
