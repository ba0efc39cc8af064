//! Answers that are remembered, and how many calls are taken a second.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidemill_core::clock::Stopwatch;
use tidemill_core::ids::VersionNumber;
use tidemill_core::servable::{CallContext, Payload};
use tidemill_core::spec::{CacheSpec, RateLimitSpec};
use tidemill_core::tensors::{Tensor, TensorData};

use super::version::duration;

type Key = [u8; 32];

#[derive(Debug)]
struct Kept {
    payload: Payload,
    bytes: usize,
    since: Stopwatch,
    used: u64,
}

#[derive(Debug, Default)]
struct Shelf {
    kept: HashMap<Key, Kept>,
    by_use: BTreeMap<u64, Key>,
    bytes: usize,
    uses: u64,
}

impl Shelf {
    fn remove(&mut self, key: &Key) {
        if let Some(kept) = self.kept.remove(key) {
            self.by_use.remove(&kept.used);
            self.bytes -= kept.bytes;
        }
    }
}

/// Answers by what was asked; the least recently used go first when there is no room.
#[derive(Debug)]
pub(super) struct Cache {
    shelf: Mutex<Shelf>,
    room: usize,
    ttl: Option<Duration>,
}

impl Cache {
    pub fn new(spec: &CacheSpec) -> Self {
        Self {
            shelf: Mutex::default(),
            room: spec.mib as usize * (1 << 20),
            ttl: spec.ttl.map(duration),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to the same call, if it is remembered.
    pub fn get(&self, key: &Key) -> Option<Payload> {
        let mut shelf = self.lock();
        let shelf = &mut *shelf;
        let kept = shelf.kept.get(key)?;
        if self.ttl.is_some_and(|ttl| kept.since.elapsed() > ttl) {
            shelf.remove(key);
            return None;
        }
        shelf.uses += 1;
        let now = shelf.uses;
        let kept = shelf.kept.get_mut(key)?;
        shelf.by_use.remove(&kept.used);
        kept.used = now;
        shelf.by_use.insert(now, *key);
        Some(kept.payload.clone())
    }

    /// Remembers an answer.
    pub fn put(&self, key: Key, payload: &Payload) {
        let bytes = payload.bytes() + 256;
        if bytes > self.room {
            return;
        }
        let mut shelf = self.lock();
        shelf.remove(&key);
        shelf.uses += 1;
        let used = shelf.uses;
        let kept = Kept {
            payload: payload.clone(),
            bytes,
            since: Stopwatch::start(),
            used,
        };
        shelf.kept.insert(key, kept);
        shelf.by_use.insert(used, key);
        shelf.bytes += bytes;
        while shelf.bytes > self.room {
            let Some((_, oldest)) = shelf.by_use.pop_first() else {
                break;
            };
            if let Some(kept) = shelf.kept.remove(&oldest) {
                shelf.bytes -= kept.bytes;
            }
        }
    }
}

/// What makes two calls the same: version, inputs, outputs asked for and parameters.
pub(super) fn key(version: VersionNumber, payload: &Payload, context: &CallContext) -> Key {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&version.0.to_le_bytes());
    let text = |hasher: &mut blake3::Hasher, bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    match payload {
        Payload::Tensors(tensors) => {
            hasher.update(&[1]);
            for tensor in tensors {
                text(&mut hasher, tensor.name.as_bytes());
                text(&mut hasher, tensor.datatype.name().as_bytes());
                for extent in &tensor.shape {
                    hasher.update(&(*extent as u64).to_le_bytes());
                }
                data(&mut hasher, tensor, text);
            }
        }
        Payload::Body { content_type, bytes } => {
            hasher.update(&[2]);
            text(&mut hasher, content_type.as_bytes());
            text(&mut hasher, bytes);
        }
    }
    for output in &context.outputs {
        text(&mut hasher, output.as_bytes());
    }
    for (name, value) in &context.parameters {
        text(&mut hasher, name.as_bytes());
        text(&mut hasher, value.to_string().as_bytes());
    }
    // A graph may choose by these.
    for (name, value) in context.attributes.iter() {
        text(&mut hasher, name.as_bytes());
        text(&mut hasher, value.as_bytes());
    }
    text(&mut hasher, context.key.as_deref().unwrap_or_default().as_bytes());
    *hasher.finalize().as_bytes()
}

fn data(hasher: &mut blake3::Hasher, tensor: &Tensor, text: impl Fn(&mut blake3::Hasher, &[u8])) {
    match &tensor.data {
        TensorData::Fixed(bytes) => text(hasher, bytes),
        TensorData::Strings(strings) => {
            for string in strings {
                match string {
                    Some(bytes) => text(hasher, bytes),
                    None => {
                        hasher.update(&u64::MAX.to_le_bytes());
                    }
                }
            }
        }
    }
}

/// A bucket of tokens that fills as time goes by; each call takes one.
#[derive(Debug)]
pub(super) struct RateLimit {
    per_second: f64,
    burst: f64,
    bucket: Mutex<(f64, Stopwatch)>,
}

impl RateLimit {
    pub fn new(spec: &RateLimitSpec) -> Self {
        let burst = spec
            .burst
            .map_or(spec.per_second.max(1.0), |burst| f64::from(burst.max(1)));
        Self {
            per_second: spec.per_second.max(0.0),
            burst,
            bucket: Mutex::new((burst, Stopwatch::start())),
        }
    }

    /// Whether a call is taken now.
    pub fn admits(&self) -> bool {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, since) = *bucket;
        let tokens = (tokens + since.elapsed().as_secs_f64() * self.per_second).min(self.burst);
        let admitted = tokens >= 1.0;
        *bucket = (if admitted { tokens - 1.0 } else { tokens }, Stopwatch::start());
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(byte: u8, bytes: usize) -> Payload {
        Payload::Body {
            content_type: String::new(),
            bytes: vec![byte; bytes].into(),
        }
    }

    #[test]
    fn the_least_recently_used_answer_is_forgotten_when_there_is_no_room() {
        let cache = Cache::new(&CacheSpec { mib: 1, ttl: None });
        let key = |byte| [byte; 32];
        for byte in 0..3 {
            cache.put(key(byte), &payload(byte, 340_000));
        }
        assert!(cache.get(&key(0)).is_some());
        cache.put(key(3), &payload(3, 340_000));
        assert!(cache.get(&key(1)).is_none(), "the one not used since");
        assert!(cache.get(&key(0)).is_some() && cache.get(&key(2)).is_some());
        cache.put(key(4), &payload(4, 2 << 20));
        assert!(cache.get(&key(4)).is_none(), "larger than all the room");
    }

    #[test]
    fn other_inputs_outputs_or_parameters_are_another_call() {
        let context = CallContext::default();
        let mut other = CallContext::default();
        other.outputs.push("y".to_owned());
        let strings = |values: Vec<Option<bytes::Bytes>>| {
            Payload::Tensors(vec![Tensor::strings("s", vec![values.len()], values).unwrap()])
        };
        let (empty, missing) = (strings(vec![Some(bytes::Bytes::new())]), strings(vec![None]));
        let first = |payload: &Payload, context: &CallContext| key(VersionNumber(1), payload, context);
        assert_ne!(first(&empty, &context), first(&missing, &context));
        assert_ne!(first(&empty, &context), first(&empty, &other));
        assert_ne!(first(&empty, &context), key(VersionNumber(2), &empty, &context));
        assert_eq!(first(&empty, &context), first(&empty.clone(), &context));
    }

    #[test]
    fn a_burst_is_taken_and_then_as_many_as_the_rate_says() {
        let limit = RateLimit::new(&RateLimitSpec {
            per_second: 0.001,
            burst: Some(3),
        });
        let taken = (0..10).filter(|_| limit.admits()).count();
        assert_eq!(taken, 3);
    }
}
