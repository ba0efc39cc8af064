//! What the log holds, in memory: batches by segment, predictions by id, answers by request.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use tidemill_core::ids::PredictionId;
use tidemill_core::predictions::PredictionBatch;
use tokio::sync::watch;

use super::LiveStats;
use super::record::RequestKey;
use super::segment::SegmentId;
use crate::server::InferResponse;

/// Answers of removed segments that are remembered: so many requests, and so many bytes.
const RECENT_REQUESTS: usize = 20_000;
const RECENT_BYTES: usize = 20 << 20;

/// Where a named request stands.
#[derive(Debug)]
pub(super) enum Slot {
    /// Somebody is answering it; the receiver ends when that is over.
    InFlight(watch::Receiver<()>),
    /// Answered, in a live segment.
    Live(Arc<PredictionBatch>),
    /// Answered, in a segment that is removed.
    Recent(Box<InferResponse>),
}

type Entry = (Arc<PredictionBatch>, Option<RequestKey>);

#[derive(Debug, Default)]
pub(super) struct Index {
    segments: BTreeMap<SegmentId, Vec<Entry>>,
    open: Option<SegmentId>,
    predictions: HashMap<u128, (Arc<PredictionBatch>, u32)>,
    requests: HashMap<RequestKey, Slot>,
    recent: VecDeque<(RequestKey, usize)>,
    recent_bytes: usize,
}

impl Index {
    /// Appends go to `id` from now on; the one before is sealed.
    pub fn open(&mut self, id: SegmentId) {
        self.open = Some(id);
    }

    pub fn is_open(&self, id: SegmentId) -> bool {
        self.open == Some(id)
    }

    pub fn add_segment(&mut self, id: SegmentId) {
        self.segments.entry(id).or_default();
    }

    pub fn insert(&mut self, id: SegmentId, batch: Arc<PredictionBatch>, request: Option<RequestKey>) {
        for (row, prediction) in batch.ids.iter().enumerate() {
            self.predictions
                .insert(short(prediction), (Arc::clone(&batch), row as u32));
        }
        if let Some(key) = request {
            self.requests.insert(key, Slot::Live(Arc::clone(&batch)));
        }
        self.segments.entry(id).or_default().push((batch, request));
    }

    pub fn sealed(&self) -> Vec<SegmentId> {
        self.segments
            .keys()
            .filter(|id| !self.is_open(**id))
            .copied()
            .collect()
    }

    pub fn batches(&self) -> impl Iterator<Item = &Arc<PredictionBatch>> {
        self.segments.values().flatten().map(|(batch, _)| batch)
    }

    pub fn find(&self, prediction: &PredictionId) -> Option<(Arc<PredictionBatch>, usize)> {
        let (batch, row) = self.predictions.get(&short(prediction))?;
        let row = *row as usize;
        (batch.ids.get(row) == Some(prediction)).then(|| (Arc::clone(batch), row))
    }

    pub fn stats(&self) -> LiveStats {
        let open = self.open.and_then(|id| self.segments.get(&id));
        LiveStats {
            segments: self.segments.len(),
            batches: self.segments.values().map(Vec::len).sum(),
            rows: self.batches().map(|batch| batch.rows()).sum(),
            open_batches: open.map_or(0, Vec::len),
            oldest: self.batches().map(|batch| batch.at).min(),
        }
    }

    /// Forgets a segment's batches; the answers to named requests are remembered a while longer.
    pub fn remove(&mut self, id: SegmentId) {
        for (batch, request) in self.segments.remove(&id).unwrap_or_default() {
            for prediction in &batch.ids {
                self.predictions.remove(&short(prediction));
            }
            if let Some(key) = request {
                let response = Box::new(InferResponse::from(&*batch));
                let bytes = size(&response);
                self.requests.insert(key, Slot::Recent(response));
                self.recent.push_back((key, bytes));
                self.recent_bytes += bytes;
            }
        }
        while self.recent.len() > RECENT_REQUESTS || self.recent_bytes > RECENT_BYTES {
            let Some((key, bytes)) = self.recent.pop_front() else {
                break;
            };
            self.recent_bytes -= bytes;
            if matches!(self.requests.get(&key), Some(Slot::Recent(_))) {
                self.requests.remove(&key);
            }
        }
    }

    pub fn request(&self, key: RequestKey) -> Option<&Slot> {
        self.requests.get(&key)
    }

    pub fn claim(&mut self, key: RequestKey, waiter: watch::Receiver<()>) {
        self.requests.insert(key, Slot::InFlight(waiter));
    }

    /// Ends a claim: without an answer by now, the request is free again.
    pub fn release(&mut self, key: RequestKey) {
        if matches!(self.requests.get(&key), Some(Slot::InFlight(_))) {
            self.requests.remove(&key);
        }
    }
}

/// A prediction id as a number: ids made here are 32 hexadecimal digits; any other is hashed.
fn short(prediction: &PredictionId) -> u128 {
    let text = prediction.as_str();
    if text.len() == 32
        && let Ok(number) = u128::from_str_radix(text, 16)
    {
        return number;
    }
    let mut first = [0; 16];
    first.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
    u128::from_le_bytes(first)
}

/// About how many bytes a remembered answer takes.
fn size(response: &InferResponse) -> usize {
    let a_row = 24 + 32 + 4 + 1 + 16 + 8 * response.scores.width();
    400 + response.request_id.len() + response.ids.len() * a_row
}
