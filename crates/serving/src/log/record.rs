//! The bytes of one record: `[u32 length][u32 crc32 of the payload][payload]`, little-endian; the payload is a format byte and postcard.

use serde::{Deserialize, Serialize};
use tidemill_core::calls::{CallFacts, CallRecord, Recorded};
use tidemill_core::clock::Timestamp;
use tidemill_core::digest::Digest;
use tidemill_core::ids::{EndpointName, PredictionId};
use tidemill_core::predictions::PredictionBatch;

use crate::error::ServeError;

/// Length and checksum.
pub(super) const HEADER: usize = 8;
/// A batch that an endpoint of the loop answered.
const BATCH: u8 = 1;
/// A call of a deployment.
const CALL: u8 = 2;
/// More than a request can hold; a larger length is garbage.
const MAX_PAYLOAD: usize = 1 << 30;

/// What makes two requests the same: a digest of endpoint, the caller's id and the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct RequestKey([u8; 32]);

impl RequestKey {
    pub fn new(digest: Digest) -> Self {
        Self(*digest.as_bytes())
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

#[derive(Serialize)]
struct RecordRef<'a> {
    request: Option<RequestKey>,
    batch: &'a PredictionBatch,
}

#[derive(Deserialize)]
struct BatchRecord {
    request: Option<RequestKey>,
    batch: PredictionBatch,
}

/// What the log holds.
#[derive(Debug, Clone, PartialEq)]
pub enum LogEntry {
    /// What an endpoint of the loop answered.
    Batch(Box<PredictionBatch>),
    /// A call of a deployment.
    Call(Box<CallRecord>),
}

impl LogEntry {
    /// What the index notes of it.
    pub(super) fn note(&self) -> NoteRef<'_> {
        match self {
            Self::Batch(batch) => NoteRef::of(batch),
            Self::Call(call) => NoteRef {
                endpoint: &call.facts.endpoint,
                at: call.facts.at,
                ids: std::slice::from_ref(&call.facts.id),
                kind: Kind::Call,
            },
        }
    }

    /// The batch, if it is one.
    pub(super) fn into_batch(self) -> Option<PredictionBatch> {
        match self {
            Self::Batch(batch) => Some(*batch),
            Self::Call(_) => None,
        }
    }
}

/// What a record is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Batch,
    Call,
}

/// What the index notes of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoteRef<'a> {
    pub endpoint: &'a EndpointName,
    pub at: Timestamp,
    pub ids: &'a [PredictionId],
    pub kind: Kind,
}

impl<'a> NoteRef<'a> {
    pub fn of(batch: &'a PredictionBatch) -> Self {
        Self {
            endpoint: &batch.endpoint,
            at: batch.at,
            ids: &batch.ids,
            kind: Kind::Batch,
        }
    }
}

/// The same, for a record that waits to be written.
#[derive(Debug)]
pub(super) struct Note {
    pub endpoint: EndpointName,
    pub at: Timestamp,
    pub ids: Vec<PredictionId>,
    pub kind: Kind,
}

impl Note {
    pub fn lent(&self) -> NoteRef<'_> {
        NoteRef {
            endpoint: &self.endpoint,
            at: self.at,
            ids: &self.ids,
            kind: self.kind,
        }
    }
}

/// One record of the log.
#[derive(Debug)]
pub(super) struct Record {
    /// Set if the caller named the request.
    pub request: Option<RequestKey>,
    pub entry: LogEntry,
}

/// The record of a call of which there is no answer yet: its inputs are written down before the model is asked, so that nothing has to be
/// kept for it.
#[derive(Debug)]
pub(crate) struct CallDraft(Vec<u8>);

impl CallDraft {
    pub fn begin(inputs: &Recorded) -> Result<Self, ServeError> {
        let mut bytes = Vec::with_capacity(512);
        bytes.resize(HEADER, 0);
        bytes.push(CALL);
        postcard::to_extend(inputs, bytes)
            .map(Self)
            .map_err(|error| unwritable(&error))
    }

    /// The whole record.
    pub fn finish(self, answers: &[Recorded], facts: &CallFacts) -> Result<Vec<u8>, ServeError> {
        // Fields stand one after the other: this is a [`CallRecord`].
        let bytes = postcard::to_extend(&(answers, facts), self.0).map_err(|error| unwritable(&error))?;
        sealed(bytes)
    }
}

fn unwritable(why: &dyn std::fmt::Display) -> ServeError {
    ServeError::Internal(format!("an answer cannot be recorded: {why}"))
}

/// Fills in length and checksum.
fn sealed(mut bytes: Vec<u8>) -> Result<Vec<u8>, ServeError> {
    let payload = bytes.len() - HEADER;
    if payload > MAX_PAYLOAD {
        return Err(unwritable(&format!(
            "{payload} bytes, at most {MAX_PAYLOAD}; send fewer rows a request"
        )));
    }
    let crc = crc32fast::hash(&bytes[HEADER..]);
    bytes[..4].copy_from_slice(&(payload as u32).to_le_bytes());
    bytes[4..HEADER].copy_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

pub(super) fn encode(request: Option<RequestKey>, batch: &PredictionBatch) -> Result<Vec<u8>, ServeError> {
    let mut bytes = vec![0; HEADER];
    bytes.push(BATCH);
    let bytes =
        postcard::to_extend(&RecordRef { request, batch }, bytes).map_err(|error| unwritable(&error))?;
    sealed(bytes)
}

/// Why no record could be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// Cut short or garbled, as a write that did not finish leaves it.
    Torn(String),
    /// The bytes are those that were written, but this program cannot read them.
    Unreadable(String),
}

/// Reads the record at the start of `bytes` and returns its length too.
pub(super) fn decode(bytes: &[u8]) -> Result<(Record, usize), Bad> {
    let (payload, length) = payload(bytes)?;
    let (format, body) = payload
        .split_first()
        .ok_or_else(|| Bad::Torn("an empty record".to_owned()))?;
    let unreadable = |error| Bad::Unreadable(format!("the record's content cannot be read: {error}"));
    let record = match *format {
        BATCH => {
            let BatchRecord { request, batch } = postcard::from_bytes(body).map_err(unreadable)?;
            let entry = LogEntry::Batch(Box::new(batch));
            Record { request, entry }
        }
        CALL => {
            let call: CallRecord = postcard::from_bytes(body).map_err(unreadable)?;
            Record {
                request: None,
                entry: LogEntry::Call(Box::new(call)),
            }
        }
        format => {
            return Err(Bad::Unreadable(format!(
                "record format {format}, expected {BATCH} or {CALL}: written by another version of tidemill"
            )));
        }
    };
    Ok((record, length))
}

fn payload(bytes: &[u8]) -> Result<(&[u8], usize), Bad> {
    let torn = |why: String| Err(Bad::Torn(why));
    let Some((header, rest)) = bytes.split_at_checked(HEADER) else {
        return torn(format!("{} bytes of a record's header", bytes.len()));
    };
    let word = |i: usize| u32::from_le_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
    let (length, crc) = (word(0) as usize, word(4));
    if length == 0 || length > MAX_PAYLOAD {
        return torn(format!("a record of {length} bytes"));
    }
    let Some(payload) = rest.get(..length) else {
        return torn(format!("{} of {length} bytes of a record", rest.len()));
    };
    let found = crc32fast::hash(payload);
    if found != crc {
        return torn(format!("checksum {found:08x}, expected {crc:08x}"));
    }
    Ok((payload, HEADER + length))
}

/// The whole length that a header tells, at most as long as a record can be.
pub(super) fn length(header: [u8; HEADER]) -> usize {
    let payload = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    HEADER + payload.min(MAX_PAYLOAD)
}

/// Whether a whole record stands anywhere behind the bad one at the start of `bytes`: the mark of damage rather than of a torn write.
pub(super) fn whole_record_follows(bytes: &[u8]) -> bool {
    let Some(header) = bytes.first_chunk::<4>() else {
        return false;
    };
    let next = HEADER.saturating_add(u32::from_le_bytes(*header) as usize);
    bytes.get(next..).is_some_and(|rest| payload(rest).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_survives_its_bytes_and_no_flipped_bit_goes_unseen(
            seed in any::<u64>(), rows in 0usize..20, key in any::<Option<[u8; 32]>>(), flip in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let batch = testing::any_batch(seed, rows);
            let mut bytes = encode(key.map(RequestKey), &batch).unwrap();
            bytes.extend_from_slice(b"the next record");
            let (record, length) = decode(&bytes).unwrap();
            prop_assert_eq!(length, bytes.len() - 15);
            prop_assert_eq!(record.request, key.map(RequestKey));
            // NaN is not equal to itself: compare the bytes.
            let request = record.request;
            let found = record.entry.into_batch().unwrap();
            prop_assert_eq!(encode(request, &found).unwrap(), &bytes[..length]);
            bytes[flip.index(length)] ^= 1 << bit;
            prop_assert!(decode(&bytes).is_err());
        }
    }
}
