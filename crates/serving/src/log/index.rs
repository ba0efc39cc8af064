//! What the log holds, in memory: where each prediction and each named request is on disk. Batches themselves stay in their files, so
//! what is kept here is a few bytes a prediction, and only of the open segment; a sealed one is looked through when it is asked.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use tidemill_core::clock::Timestamp;
use tidemill_core::ids::{EndpointName, PredictionId};
use tokio::sync::watch;

use super::LiveStats;
use super::record::{Kind, NoteRef, RequestKey};
use super::segment::SegmentId;
use crate::server::InferResponse;

/// Answers of removed segments that are remembered: so many requests, and so many bytes.
const RECENT_REQUESTS: usize = 20_000;
const RECENT_BYTES: usize = 20 << 20;
/// Sealed segments whose predictions are kept at hand once one was looked for.
const LOOKED_THROUGH: usize = 4;

/// Where a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub segment: SegmentId,
    pub offset: u64,
}

/// Where a named request stands.
#[derive(Debug)]
pub(super) enum Slot {
    /// Somebody is answering it; the receiver ends when that is over.
    InFlight(watch::Receiver<()>),
    /// Answered, in a live segment.
    Live(Place),
    /// Answered, in a segment that is removed.
    Recent(Box<InferResponse>),
}

/// Numbers that are sorted together.
const RUN: usize = 512;

/// The predictions of a segment by their numbers, in runs that are sorted as they fill, so that nobody who looks, and nobody who appends,
/// waits for more than one run to be sorted. Numbers begin with a time, so a look passes over most runs.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    // The number in two halves: without the alignment of u128 an entry takes 24 bytes in place of 32.
    entries: Vec<(u64, u64, u64)>,
}

impl Numbers {
    pub fn add(&mut self, number: u128, offset: u64) {
        self.entries.push(((number >> 64) as u64, number as u64, offset));
        let length = self.entries.len();
        if length.is_multiple_of(RUN) {
            self.entries[length - RUN..].sort_unstable();
        }
    }

    pub fn find(&self, number: u128) -> Option<u64> {
        let wanted = ((number >> 64) as u64, number as u64);
        let key = |entry: &(u64, u64, u64)| (entry.0, entry.1);
        let (runs, rest) = self.entries.as_chunks::<RUN>();
        for run in runs {
            if wanted < key(&run[0]) || key(&run[RUN - 1]) < wanted {
                continue;
            }
            let place = run.partition_point(|entry| key(entry) < wanted);
            if key(&run[place]) == wanted {
                return Some(run[place].2);
            }
        }
        rest.iter()
            .filter(|entry| key(entry) == wanted)
            .map(|entry| entry.2)
            .min()
    }
}

/// Of one endpoint in one segment.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    kind: Kind,
    first: Timestamp,
    last: Timestamp,
}

#[derive(Debug)]
struct Segment {
    batches: usize,
    rows: usize,
    /// Of the rows, calls of deployments.
    calls: usize,
    endpoints: Vec<(EndpointName, Stretch)>,
    /// The smallest and the largest number of a prediction in it.
    range: Option<(u128, u128)>,
    /// Only of the open segment.
    numbers: Option<Numbers>,
    requests: Vec<RequestKey>,
}

impl Segment {
    fn new() -> Self {
        Self {
            batches: 0,
            rows: 0,
            calls: 0,
            endpoints: Vec::new(),
            range: None,
            numbers: Some(Numbers::default()),
            requests: Vec::new(),
        }
    }

    fn may_hold(&self, number: u128) -> bool {
        self.range
            .is_some_and(|(least, most)| (least..=most).contains(&number))
    }
}

#[derive(Debug, Default)]
pub(super) struct Index {
    segments: BTreeMap<SegmentId, Segment>,
    open: Option<SegmentId>,
    /// Not open any more, and not yet forced to disk.
    settling: HashSet<SegmentId>,
    requests: HashMap<RequestKey, Slot>,
    recent: VecDeque<(RequestKey, usize)>,
    recent_bytes: usize,
    looked_through: VecDeque<(SegmentId, Numbers)>,
}

/// Where a prediction may be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trace {
    /// There.
    At(Place),
    /// In one of these, which have to be looked through; in none if there are none.
    Among(Vec<SegmentId>),
}

impl Index {
    /// Appends go to `id` from now on. The one before is sealed once it is settled.
    pub fn open(&mut self, id: SegmentId) {
        if let Some(before) = self.open.replace(id)
            && let Some(segment) = self.segments.get_mut(&before)
        {
            segment.numbers = None;
            self.settling.insert(before);
        }
    }

    /// A segment that was open is on disk as a whole.
    pub fn settled(&mut self, id: SegmentId) {
        self.settling.remove(&id);
    }

    pub fn is_open(&self, id: SegmentId) -> bool {
        self.open == Some(id) || self.settling.contains(&id)
    }

    pub fn add_segment(&mut self, id: SegmentId) {
        self.segments.entry(id).or_insert_with(Segment::new);
    }

    pub fn insert(&mut self, place: Place, note: NoteRef<'_>, request: Option<RequestKey>) {
        let segment = self.segments.entry(place.segment).or_insert_with(Segment::new);
        for prediction in note.ids {
            let number = number(prediction);
            let (least, most) = segment.range.unwrap_or((number, number));
            segment.range = Some((least.min(number), most.max(number)));
            if let Some(numbers) = &mut segment.numbers {
                numbers.add(number, place.offset);
            }
        }
        segment.batches += 1;
        segment.rows += note.ids.len();
        if note.kind == Kind::Call {
            segment.calls += note.ids.len();
        }
        match segment
            .endpoints
            .iter_mut()
            .find(|(name, stretch)| name == note.endpoint && stretch.kind == note.kind)
        {
            Some((_, stretch)) => {
                stretch.first = stretch.first.min(note.at);
                stretch.last = stretch.last.max(note.at);
            }
            None => {
                let stretch = Stretch {
                    kind: note.kind,
                    first: note.at,
                    last: note.at,
                };
                segment.endpoints.push((note.endpoint.clone(), stretch));
            }
        }
        if let Some(key) = request {
            segment.requests.push(key);
            self.requests.insert(key, Slot::Live(place));
        }
    }

    /// A recovered segment: its predictions are looked for on disk.
    pub fn close(&mut self, id: SegmentId) {
        if let Some(segment) = self.segments.get_mut(&id) {
            segment.numbers = None;
        }
    }

    pub fn sealed(&self) -> Vec<SegmentId> {
        self.segments
            .keys()
            .filter(|id| !self.is_open(**id))
            .copied()
            .collect()
    }

    /// The segments that may hold batches of an endpoint served in `[from, until)`, oldest first.
    pub fn segments_between(
        &self,
        endpoint: &EndpointName,
        kind: Kind,
        from: Timestamp,
        until: Timestamp,
    ) -> Vec<SegmentId> {
        let holds = |segment: &Segment| {
            let mut stretches = segment.endpoints.iter();
            stretches.any(|(name, s)| name == endpoint && s.kind == kind && s.last >= from && s.first < until)
        };
        let segments = self.segments.iter().filter(|(_, segment)| holds(segment));
        segments.map(|(id, _)| *id).collect()
    }

    /// When an endpoint's oldest live batch was served.
    pub fn oldest_of(&self, endpoint: &EndpointName) -> Option<Timestamp> {
        let stretches = self.segments.values().flat_map(|segment| &segment.endpoints);
        stretches
            .filter(|(name, _)| name == endpoint)
            .map(|(_, stretch)| stretch.first)
            .min()
    }

    /// Where a prediction is, or may be.
    pub fn trace(&self, prediction: &PredictionId) -> Trace {
        let number = number(prediction);
        let mut among = Vec::new();
        for (id, segment) in &self.segments {
            if !segment.may_hold(number) {
                continue;
            }
            let looked = self.looked_through.iter().find(|(known, _)| known == id);
            let known = segment.numbers.as_ref().or(looked.map(|(_, numbers)| numbers));
            match known.map(|numbers| numbers.find(number)) {
                Some(Some(offset)) => return Trace::At(Place { segment: *id, offset }),
                Some(None) => {}
                None => among.push(*id),
            }
        }
        Trace::Among(among)
    }

    /// Remembers what was found when a sealed segment was looked through.
    pub fn remember(&mut self, id: SegmentId, numbers: Numbers) {
        if !self.segments.contains_key(&id) {
            return;
        }
        self.looked_through.push_back((id, numbers));
        if self.looked_through.len() > LOOKED_THROUGH {
            self.looked_through.pop_front();
        }
    }

    pub fn stats(&self) -> LiveStats {
        let open = self.open.and_then(|id| self.segments.get(&id));
        let stretches = self.segments.values().flat_map(|segment| &segment.endpoints);
        LiveStats {
            segments: self.segments.len(),
            batches: self.segments.values().map(|segment| segment.batches).sum(),
            rows: self.segments.values().map(|segment| segment.rows).sum(),
            calls: self.segments.values().map(|segment| segment.calls).sum(),
            open_batches: open.map_or(0, |segment| segment.batches),
            oldest: stretches.map(|(_, stretch)| stretch.first).min(),
        }
    }

    /// Whether a segment holds answers to named requests, which are remembered beyond it.
    pub fn has_requests(&self, id: SegmentId) -> bool {
        self.segments
            .get(&id)
            .is_some_and(|segment| !segment.requests.is_empty())
    }

    /// Forgets a segment; the answers to named requests are remembered a while longer.
    pub fn remove(&mut self, id: SegmentId, answers: Vec<(RequestKey, InferResponse)>) {
        let Some(segment) = self.segments.remove(&id) else {
            return;
        };
        self.settling.remove(&id);
        self.looked_through.retain(|(known, _)| *known != id);
        for key in segment.requests {
            if matches!(self.requests.get(&key), Some(Slot::Live(place)) if place.segment == id) {
                self.requests.remove(&key);
            }
        }
        for (key, response) in answers {
            if self.requests.contains_key(&key) {
                continue;
            }
            let bytes = size(&response);
            self.requests.insert(key, Slot::Recent(Box::new(response)));
            self.recent.push_back((key, bytes));
            self.recent_bytes += bytes;
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
pub(super) fn number(prediction: &PredictionId) -> u128 {
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
