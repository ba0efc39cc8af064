//! Which predictions a file of the log holds: an object beside it with the lower half of each id, sorted, eight bytes a prediction.
//!
//! The upper half of an id begins with the millisecond at which it was served, which leads to the few files of that time; the lower half
//! is random (or a digest), so two ids of one file share it once in 10^9 files of a million predictions. Who needs the prediction itself
//! compares whole ids.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tidemill_core::clock::Timestamp;
use tidemill_core::ids::PredictionId;

const MARK: &[u8; 8] = b"tmids\0\0\x01";
/// Ids kept in memory, 8 bytes each.
const MAX_CACHED: usize = 4_000_000;

/// When an id was given out, to the millisecond, and its lower half; `None` for a text that was never given out.
pub(crate) fn parts(id: &PredictionId) -> Option<(Timestamp, u64)> {
    let text = id.as_str();
    let ours = text.len() == 32
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let number = ours.then(|| u128::from_str_radix(text, 16).ok()).flatten()?;
    let micros = (number >> 80) as i64 * 1_000;
    Some((Timestamp::from_micros(micros), number as u64))
}

/// The ids of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ids(Vec<u64>);

impl Ids {
    /// Of these lower halves.
    pub(crate) fn of(mut halves: Vec<u64>) -> Self {
        halves.sort_unstable();
        Self(halves)
    }

    pub(crate) fn holds(&self, half: u64) -> bool {
        self.0.binary_search(&half).is_ok()
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + 8 * self.0.len());
        bytes.extend_from_slice(MARK);
        bytes.extend_from_slice(&(self.0.len() as u64).to_le_bytes());
        for half in &self.0 {
            bytes.extend_from_slice(&half.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Ids::to_bytes`] wrote; `None` for anything else, which is made again from the file itself.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(MARK)?;
        let (count, rest) = rest.split_first_chunk::<8>()?;
        let (halves, left) = rest.as_chunks::<8>();
        let whole = left.is_empty() && halves.len() as u64 == u64::from_le_bytes(*count);
        let halves: Vec<u64> = halves.iter().map(|half| u64::from_le_bytes(*half)).collect();
        (whole && halves.is_sorted()).then_some(Self(halves))
    }
}

/// Ids of the files that were looked into last.
#[derive(Default)]
pub(crate) struct IdCache(Mutex<VecDeque<(i64, Arc<Ids>)>>);

impl IdCache {
    pub(crate) fn get(&self, file: i64) -> Option<Arc<Ids>> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let position = files.iter().position(|(known, _)| *known == file)?;
        let entry = files.remove(position)?;
        let ids = Arc::clone(&entry.1);
        files.push_back(entry);
        Some(ids)
    }

    pub(crate) fn put(&self, file: i64, ids: Arc<Ids>) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|(known, _)| *known != file);
        files.push_back((file, ids));
        let mut total: usize = files.iter().map(|(_, ids)| ids.0.len()).sum();
        while total > MAX_CACHED && files.len() > 1 {
            if let Some((_, ids)) = files.pop_front() {
                total -= ids.0.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tidemill_core::ids;

    use super::*;

    #[test]
    fn an_id_tells_its_millisecond_and_no_other_text_does() {
        let at = Timestamp::from_micros(1_600_000_000_123_456);
        for id in [ids::fresh(at), ids::derived(at, [b"x".as_slice()])] {
            let (told, half) = parts(&PredictionId::new(&id)).unwrap();
            assert_eq!(told, Timestamp::from_micros(1_600_000_000_123_000));
            assert_eq!(format!("{half:016x}"), id[16..]);
            assert_eq!(parts(&PredictionId::new(id.to_uppercase())), None);
        }
        for text in ["", "x", "+0000000000000000000000000000001"] {
            assert_eq!(parts(&text.into()), None);
        }
    }

    #[test]
    fn ids_come_back_from_their_bytes_and_damage_is_seen() {
        let ids = Ids::of(vec![3, 1, 2, u64::MAX]);
        let mut bytes = ids.to_bytes();
        assert_eq!(Ids::from_bytes(&bytes).unwrap(), ids);
        assert!(ids.holds(2) && ids.holds(u64::MAX) && !ids.holds(4));
        assert_eq!(Ids::from_bytes(&bytes[..bytes.len() - 1]), None);
        bytes[16] = 9;
        assert_eq!(Ids::from_bytes(&bytes), None);
        assert_eq!(Ids::from_bytes(b""), None);
    }
}
