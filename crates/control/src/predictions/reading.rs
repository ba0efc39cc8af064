//! Finding predictions again: by time, and by id.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tidemill_core::calls::CallRecord;
use tidemill_core::clock::Timestamp;
use tidemill_core::ids::{EndpointName, PredictionId};
use tidemill_core::predictions::PredictionBatch;
use tidemill_core::spec::Span;
use tidemill_serving::LogEntry;
use tidemill_store::labels::{self, WaitingLabel};
use tidemill_store::objects::ObjectKey;
use tidemill_store::predictions::{self as index, FileKind, PredictionFile};

use super::Predictions;
use super::cache::Batches;
use super::ids::{self, Ids};
use crate::error::{ControlError, Result};

/// Waiting labels that are looked for at a time.
const PAGE: u32 = 5_000;

/// What is recorded under an id.
#[derive(Clone, Debug)]
pub enum Prediction {
    /// A row that an endpoint of the loop answered.
    Row(Arc<PredictionBatch>, usize),
    /// A call of a deployment.
    Call(Box<CallRecord>),
}

/// What is known of some ids.
pub(crate) struct Known {
    /// Those that stand in a file.
    pub(crate) ids: HashSet<PredictionId>,
    /// The newest file that was there.
    pub(crate) newest: i64,
}

impl Predictions {
    /// The batches of an endpoint served in `[from, until)`, in the order in which they were served.
    pub(crate) async fn between(
        &self,
        endpoint: &EndpointName,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<Arc<PredictionBatch>>> {
        // The log first: what is compacted in between then shows in both places, and never in neither.
        let live = self.log().live_batches(endpoint, from, until).await?;
        let name = endpoint.clone();
        let files = self
            .store()
            .read(move |tx| index::files_between(tx, &name, FileKind::Rows, from, until))
            .await?;
        let mut found = Vec::new();
        for file in files {
            let batches = self.file_batches(&file).await?;
            found.extend(batches.iter().filter(|b| b.at >= from && b.at < until).cloned());
        }
        // A segment that is being compacted right now may show in both places; a batch is known by its first prediction.
        let stored: HashSet<PredictionId> = found.iter().filter_map(|b| b.ids.first().cloned()).collect();
        found.extend(
            live.into_iter()
                .filter(|b| b.ids.first().is_none_or(|id| !stored.contains(id))),
        );
        found.sort_by_key(|b| b.at);
        Ok(found)
    }

    async fn file_batches(&self, file: &PredictionFile) -> Result<Batches> {
        if let Some(batches) = self.inner.batches.get(file.id) {
            return Ok(batches);
        }
        let bytes = self.store().objects().get(&key_of(file)).await?;
        let codec = Arc::clone(&self.inner.codec);
        let decoded = tokio::task::spawn_blocking(move || codec.decode_batches(&bytes))
            .await
            .map_err(ControlError::internal)??;
        let batches: Batches = Arc::new(decoded.into_iter().map(Arc::new).collect());
        self.inner.batches.put(file.id, Arc::clone(&batches));
        Ok(batches)
    }

    /// What is recorded under an id.
    ///
    /// # Errors
    /// If nothing is, or it cannot be read.
    pub async fn find(&self, id: &PredictionId) -> Result<Prediction> {
        let in_batch = |batch: Arc<PredictionBatch>| {
            let row = batch.ids.iter().position(|found| found == id)?;
            Some(Prediction::Row(batch, row))
        };
        match self.log().find(id).await? {
            Some(LogEntry::Call(call)) => return Ok(Prediction::Call(call)),
            Some(LogEntry::Batch(batch)) => {
                if let Some(found) = in_batch(Arc::from(batch)) {
                    return Ok(found);
                }
            }
            None => {}
        }
        for file in self.files_of(id).await? {
            let found = match file.kind {
                FileKind::Rows => {
                    let batches = self.file_batches(&file).await?;
                    batches.iter().cloned().find_map(in_batch)
                }
                FileKind::Calls => {
                    let mut calls = self.file_calls(&file).await?.into_iter();
                    let found = calls.find(|call| call.facts.id == *id);
                    found.map(|call| Prediction::Call(Box::new(call)))
                }
            };
            if let Some(found) = found {
                return Ok(found);
            }
        }
        let hint = "; the id stands in the answer of the predicting request";
        Err(ControlError::not_found("prediction", id, hint))
    }

    async fn file_calls(&self, file: &PredictionFile) -> Result<Vec<CallRecord>> {
        let bytes = self.store().objects().get(&key_of(file)).await?;
        let codec = Arc::clone(&self.inner.codec);
        let decoded = tokio::task::spawn_blocking(move || codec.decode_calls(&bytes));
        Ok(decoded.await.map_err(ControlError::internal)??)
    }

    /// The latest calls of a deployment in `[from, until)`, the newest first, at most `limit` of them.
    ///
    /// # Errors
    /// If the log or a file cannot be read.
    pub async fn calls(
        &self,
        endpoint: &EndpointName,
        from: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<CallRecord>> {
        // The log first: what is compacted in between then shows in both places, and never in neither.
        let mut calls = self.log().live_calls(endpoint, from, until).await?;
        let name = endpoint.clone();
        let mut files = self
            .store()
            .read(move |tx| index::files_between(tx, &name, FileKind::Calls, from, until))
            .await?;
        files.sort_by_key(|file| std::cmp::Reverse(file.until_at));
        let mut seen: HashSet<PredictionId> = calls.iter().map(|call| call.facts.id.clone()).collect();
        calls.sort_by_key(|call| std::cmp::Reverse(call.facts.at));
        calls.truncate(limit);
        for file in files {
            let oldest = calls.last().map(|call| call.facts.at);
            if calls.len() >= limit && oldest.is_some_and(|oldest| file.until_at < oldest) {
                break;
            }
            let wanted =
                self.file_calls(&file).await?.into_iter().filter(|call| {
                    (from..until).contains(&call.facts.at) && seen.insert(call.facts.id.clone())
                });
            calls.extend(wanted);
            calls.sort_by_key(|call| std::cmp::Reverse(call.facts.at));
            calls.truncate(limit);
        }
        Ok(calls)
    }

    /// The latest of what an endpoint or deployment answered since then (default: a day ago), the newest first.
    ///
    /// # Errors
    /// If the log or a file cannot be read.
    pub async fn latest(
        &self,
        endpoint: &EndpointName,
        since: Option<Timestamp>,
        limit: usize,
    ) -> Result<Vec<Prediction>> {
        let now = self.inner.clock.now();
        let (since, until) = (since.unwrap_or(now - Span::DAY), now + Span::from_micros(1));
        let calls = self.calls(endpoint, since, until, limit).await?;
        if !calls.is_empty() {
            return Ok(calls.into_iter().map(Box::new).map(Prediction::Call).collect());
        }
        let batches = self.batches(endpoint, since, until, limit).await?;
        let rows = batches.into_iter().flat_map(|batch| {
            let rows = 0..batch.rows();
            rows.map(move |row| Prediction::Row(Arc::clone(&batch), row))
        });
        Ok(rows.take(limit).collect())
    }

    /// The latest batches of an endpoint in `[from, until)`, the newest first, as many as `limit` rows need. Files that are older than all
    /// of them are not read.
    async fn batches(
        &self,
        endpoint: &EndpointName,
        from: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Arc<PredictionBatch>>> {
        // The log first, as above.
        let mut batches = self.log().live_batches(endpoint, from, until).await?;
        let name = endpoint.clone();
        let mut files = self
            .store()
            .read(move |tx| index::files_between(tx, &name, FileKind::Rows, from, until))
            .await?;
        files.sort_by_key(|file| std::cmp::Reverse(file.until_at));
        let first = |batch: &PredictionBatch| batch.ids.first().cloned();
        let mut seen: HashSet<PredictionId> = batches.iter().filter_map(|batch| first(batch)).collect();
        let mut enough = keep_newest(&mut batches, limit);
        for file in files {
            let oldest = batches.last().map(|batch| batch.at);
            if enough && oldest.is_none_or(|oldest| file.until_at < oldest) {
                break;
            }
            let held = self.file_batches(&file).await?;
            let wanted = held.iter().filter(|batch| {
                (from..until).contains(&batch.at) && first(batch).is_none_or(|id| seen.insert(id))
            });
            batches.extend(wanted.cloned());
            enough = keep_newest(&mut batches, limit);
        }
        Ok(batches)
    }

    /// The files that hold an id, the one in which it was recorded first before all others.
    async fn files_of(&self, id: &PredictionId) -> Result<Vec<PredictionFile>> {
        let wanted = id.clone();
        let parts = ids::parts(id);
        let (mut files, dated) = self
            .store()
            .read(move |tx| {
                let old: Vec<PredictionFile> = index::file_by_row(tx, &wanted)?.into_iter().collect();
                let dated = match parts {
                    Some((at, _)) => index::files_at(tx, at, 0)?,
                    None => Vec::new(),
                };
                Ok((old, dated))
            })
            .await?;
        for file in dated {
            let holds = match parts {
                Some((_, half)) => self.ids_of(&file).await?.holds(half),
                None => false,
            };
            if holds {
                files.push(file);
            }
        }
        Ok(files)
    }

    /// The ids of a file: remembered, or as they stand beside it, or from the file itself.
    pub(super) async fn ids_of(&self, file: &PredictionFile) -> Result<Arc<Ids>> {
        if let Some(ids) = self.inner.ids.get(file.id) {
            return Ok(ids);
        }
        let objects = self.store().objects();
        let key = ObjectKey::PredictionIds {
            endpoint: file.endpoint.clone(),
            digest: file.digest,
        };
        let stored = match objects.head(&key).await? {
            Some(_) => Ids::from_bytes(&objects.get(&key).await?),
            None => None,
        };
        let ids = match stored {
            Some(ids) => Arc::new(ids),
            None => {
                tracing::warn!(file = %file.digest, "the ids of a file of the prediction log are gone or damaged; they are made again");
                let held: Vec<PredictionId> = match file.kind {
                    FileKind::Rows => {
                        let batches = self.file_batches(file).await?;
                        batches
                            .iter()
                            .flat_map(|batch| batch.ids.iter().cloned())
                            .collect()
                    }
                    FileKind::Calls => {
                        let calls = self.file_calls(file).await?.into_iter();
                        calls.map(|call| call.facts.id).collect()
                    }
                };
                let halves = held.iter().filter_map(ids::parts);
                let ids = Ids::of(halves.map(|(_, half)| half).collect());
                objects.put(&key, ids.to_bytes().into()).await?;
                Arc::new(ids)
            }
        };
        self.inner.ids.put(file.id, Arc::clone(&ids));
        Ok(ids)
    }

    /// Which of these stand in files.
    pub(crate) async fn known(&self, wanted: Vec<PredictionId>) -> Result<Known> {
        let asked = wanted.into_iter().map(|id| (id, 0)).collect();
        self.known_after(asked).await
    }

    /// The same, each looked for in the files that were recorded after the one named beside it.
    async fn known_after(&self, wanted: Vec<(PredictionId, i64)>) -> Result<Known> {
        let (mut found, by_file, newest) = self
            .store()
            .read(move |tx| {
                let newest = index::newest(tx)?;
                let mut found = HashSet::new();
                let mut by_file: BTreeMap<i64, (PredictionFile, Vec<(PredictionId, u64)>)> = BTreeMap::new();
                // Ids of one request have one time.
                let mut at_once: HashMap<(Timestamp, i64), Vec<PredictionFile>> = HashMap::new();
                for (id, after) in wanted {
                    if after == 0 && index::file_by_row(tx, &id)?.is_some() {
                        found.insert(id);
                        continue;
                    }
                    let Some((at, half)) = ids::parts(&id) else {
                        continue;
                    };
                    let files = match at_once.entry((at, after)) {
                        Entry::Occupied(files) => files.into_mut(),
                        Entry::Vacant(place) => place.insert(index::files_at(tx, at, after)?),
                    };
                    for file in files {
                        let entry = by_file
                            .entry(file.id)
                            .or_insert_with(|| (file.clone(), Vec::new()));
                        entry.1.push((id.clone(), half));
                    }
                }
                Ok((found, by_file, newest))
            })
            .await?;
        for (file, asked) in by_file.into_values() {
            let ids = self.ids_of(&file).await?;
            let held = asked.into_iter().filter(|(_, half)| ids.holds(*half));
            found.extend(held.map(|(id, _)| id));
        }
        Ok(Known { ids: found, newest })
    }

    /// Looks for the predictions of the labels that came before them, in the files that are new since they were looked for last.
    pub(crate) async fn match_waiting_labels(&self) -> Result<()> {
        let newest = self.store().read(index::newest).await?;
        loop {
            let waiting = self
                .store()
                .read(move |tx| labels::waiting(tx, newest, PAGE))
                .await?;
            if waiting.is_empty() {
                return Ok(());
            }
            let asked = waiting
                .iter()
                .map(|label| (label.prediction_id.clone(), label.checked))
                .collect();
            let known = self.known_after(asked).await?;
            let (found, left): (Vec<_>, Vec<_>) = waiting
                .into_iter()
                .partition(|label| known.ids.contains(&label.prediction_id));
            let found: Vec<String> = found.into_iter().map(|label| label.label_id).collect();
            let checked = known.newest;
            let left: Vec<WaitingLabel> = left
                .into_iter()
                .map(|label| WaitingLabel { checked, ..label })
                .collect();
            self.store()
                .write(move |tx| {
                    labels::found(tx, &found)?;
                    labels::wait(tx, &left)
                })
                .await?;
        }
    }
}

/// Leaves the newest batches, the newest first, as many as `limit` rows need. Returns whether there are so many rows.
fn keep_newest(batches: &mut Vec<Arc<PredictionBatch>>, limit: usize) -> bool {
    batches.sort_by_key(|batch| std::cmp::Reverse(batch.at));
    let mut rows = 0;
    let needed = batches.iter().take_while(|batch| {
        let needed = rows < limit;
        rows += batch.rows();
        needed
    });
    let needed = needed.count();
    batches.truncate(needed);
    rows >= limit
}

pub(super) fn key_of(file: &PredictionFile) -> ObjectKey {
    ObjectKey::Predictions {
        endpoint: file.endpoint.clone(),
        day: file.day.clone(),
        digest: file.digest,
    }
}
