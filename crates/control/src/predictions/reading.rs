//! Finding predictions again: by time, and by id.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tidemill_core::clock::Timestamp;
use tidemill_core::ids::{EndpointName, PredictionId};
use tidemill_core::predictions::PredictionBatch;
use tidemill_store::labels::{self, WaitingLabel};
use tidemill_store::objects::ObjectKey;
use tidemill_store::predictions::{self as index, FileKind, PredictionFile};

use super::Predictions;
use super::cache::Batches;
use super::ids::{self, Ids};
use crate::error::{ControlError, Result};

/// Waiting labels that are looked for at a time.
const PAGE: u32 = 5_000;

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

    /// The batch that holds a prediction, and its row there.
    pub(crate) async fn find(&self, id: &PredictionId) -> Result<(Arc<PredictionBatch>, usize)> {
        if let Some(found) = self.log().find(id).await? {
            return Ok(found);
        }
        for file in self.files_of(id).await? {
            let batches = self.file_batches(&file).await?;
            let mut rows = batches
                .iter()
                .filter_map(|b| b.ids.iter().position(|i| i == id).map(|row| (b, row)));
            if let Some((batch, row)) = rows.next() {
                return Ok((Arc::clone(batch), row));
            }
        }
        let hint = "; the id stands in the answer of the predicting request";
        Err(ControlError::not_found("prediction", id, hint))
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
    async fn ids_of(&self, file: &PredictionFile) -> Result<Arc<Ids>> {
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
                let batches = self.file_batches(file).await?;
                let all = batches.iter().flat_map(|batch| &batch.ids);
                let ids = Ids::of(all.filter_map(ids::parts).map(|(_, half)| half).collect());
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
                    if !at_once.contains_key(&(at, after)) {
                        at_once.insert((at, after), index::files_at(tx, at, after)?);
                    }
                    for file in at_once.get(&(at, after)).into_iter().flatten() {
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

fn key_of(file: &PredictionFile) -> ObjectKey {
    ObjectKey::Predictions {
        endpoint: file.endpoint.clone(),
        day: file.day.clone(),
        digest: file.digest,
    }
}
