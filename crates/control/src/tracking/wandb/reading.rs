//! What W&B's `Api` reads: runs of a project, their histories and files.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};
use tidemill_store::ReadTx;
use tidemill_store::tracking::{artifacts as proxy, history, runs as tracked};
use tidemill_store::wandb::runs::{self, Project, WandbName, WandbRun};

use super::artifacts::Stored;
use super::filters::{self, order_of, ordered, value_of};
use super::grants::Grant;
use crate::tracking::artifacts::Place;
use crate::tracking::{Caller, Result, Tracking, TrackingError};

/// So many files of a run are listed.
const MOST_FILES: usize = 10_000;
/// So many rows of a history are read at once.
pub const MOST_ROWS: usize = 10_000;

/// Which runs of a project are wanted.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RunsQuery {
    /// In MongoDB's words; null for all.
    pub filters: Value,
    /// A field, with `-` before it for downwards.
    pub order: String,
    /// How many to pass over.
    pub offset: usize,
    /// How many at most.
    pub limit: usize,
}

/// A page of runs.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RunsPage {
    /// The number that stands for the project.
    pub experiment: i64,
    /// How many match in all.
    pub total: usize,
    /// In order.
    pub runs: Vec<WandbRun>,
}

/// Which rows of a history are wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistoryQuery {
    /// From which step.
    pub from: i64,
    /// Up to which step, which is not among them.
    pub until: i64,
    /// System metrics instead of the others.
    pub system: bool,
    /// Rows that have all these numbers, and only these; if there are none, all rows with all numbers.
    pub keys: Vec<String>,
    /// How many rows at most: more than [`MOST_ROWS`] are never read at once.
    pub most: usize,
    /// Whether they are spread over the whole, or else the first ones.
    pub sample: bool,
}

/// A row of a history: step, time, numbers by name.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct HistoryRow {
    /// The run's own count.
    pub step: i64,
    /// Milliseconds since the epoch.
    pub at_ms: i64,
    /// Numbers by name.
    pub numbers: BTreeMap<Arc<str>, f64>,
}

/// A file of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunFile {
    /// Its path.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// The permission to read it; none for what lies out of the object store.
    pub token: Option<String>,
}

impl HistoryRow {
    /// As the client's own lines are.
    pub fn to_map(&self) -> Map<String, Value> {
        let mut map = Map::new();
        for (name, number) in &self.numbers {
            let value = serde_json::Number::from_f64(*number).map_or_else(
                || {
                    Value::String(
                        if number.is_nan() {
                            "NaN"
                        } else if *number > 0.0 {
                            "Infinity"
                        } else {
                            "-Infinity"
                        }
                        .to_owned(),
                    )
                },
                Value::Number,
            );
            map.insert(name.to_string(), value);
        }
        map.insert("_step".to_owned(), Value::from(self.step));
        map.insert("_timestamp".to_owned(), Value::from(self.at_ms as f64 / 1e3));
        map
    }
}

/// Every n-th of the rows, the first and the last among them, so that there are at most `most`.
fn sampled<T>(rows: Vec<T>, most: usize) -> Vec<T> {
    let count = rows.len();
    if count <= most || most < 2 {
        return rows.into_iter().take(most).collect();
    }
    let mut next = 0;
    let mut kept = Vec::with_capacity(most);
    for (i, row) in rows.into_iter().enumerate() {
        if i == next * (count - 1) / (most - 1) {
            kept.push(row);
            next += 1;
        }
    }
    kept
}

/// The steps of the rows that are wanted: numbers only, of which a long run has some megabytes.
fn steps_of(tx: &ReadTx<'_>, run: i64, keys: &[(i64, Arc<str>)], query: &HistoryQuery) -> Stored<Vec<i64>> {
    let most = query.most.min(MOST_ROWS);
    let every = !query.keys.is_empty();
    // Of each metric's steps the first ones are enough for the first ones of all.
    let limit = (!query.sample && !every).then_some(most);
    let mut steps: Option<Vec<i64>> = None;
    for (key, _) in keys {
        let own = history::steps_between(tx, run, *key, (query.from, query.until), limit)?;
        steps = Some(match steps {
            None => own,
            Some(mut held) if every => {
                held.retain(|step| own.binary_search(step).is_ok());
                held
            }
            // Mostly metrics have their points at the same steps.
            Some(held) if held == own => held,
            Some(mut held) => {
                held.extend(own);
                held.sort_unstable();
                held.dedup();
                held.truncate(limit.unwrap_or(usize::MAX));
                held
            }
        });
    }
    let mut steps = steps.unwrap_or_default();
    if query.sample {
        return Ok(sampled(steps, most));
    }
    steps.truncate(most);
    Ok(steps)
}

fn rows_of(tx: &ReadTx<'_>, run: i64, query: &HistoryQuery) -> Stored<Vec<HistoryRow>> {
    let mut keys: Vec<(i64, Arc<str>)> = history::keys(tx, run, query.system)?
        .into_iter()
        .map(|(key, name)| (key, Arc::from(name)))
        .collect();
    if !query.keys.is_empty() {
        keys.retain(|(_, name)| query.keys.iter().any(|key| **key == **name));
        if !query
            .keys
            .iter()
            .all(|key| keys.iter().any(|(_, name)| **key == **name))
        {
            return Ok(Vec::new());
        }
    }
    let steps = steps_of(tx, run, &keys, query)?;
    let mut rows: Vec<HistoryRow> = steps
        .iter()
        .map(|step| HistoryRow {
            step: *step,
            at_ms: i64::MIN,
            numbers: BTreeMap::new(),
        })
        .collect();
    for (key, name) in &keys {
        history::each_at(tx, run, *key, &steps, |point| {
            if let Ok(at) = steps.binary_search(&point.step) {
                let row = &mut rows[at];
                row.at_ms = row.at_ms.max(point.at_ms);
                row.numbers.insert(Arc::clone(name), point.told());
            }
        })?;
    }
    Ok(rows)
}

impl Tracking {
    /// Runs of a project; none if there is no such project.
    pub async fn wandb_runs(&self, at: WandbName, query: RunsQuery) -> Result<Option<RunsPage>> {
        let filter = match &query.filters {
            Value::Null => None,
            filters => Some(filters::read(filters).map_err(TrackingError::invalid)?),
        };
        let page = self
            .store()
            .read(move |tx| {
                let Some(experiment) =
                    tidemill_store::tracking::experiments::id_by_name(tx, &at.workspace, &at.project)?
                else {
                    return Ok(None);
                };
                let (upwards, by) = order_of(&query.order);
                let by = if by.is_empty() { "created_at" } else { by };
                // Of each run only what it is sorted by is held.
                let mut found: Vec<(Value, i64, String)> = Vec::new();
                runs::each_of_project(tx, &at, |run| {
                    if filter.as_ref().is_none_or(|filter| filter.holds(&run)) {
                        found.push((value_of(&run, by), run.created_ms, run.run_id));
                    }
                })?;
                found.sort_by(|a, b| {
                    ordered(&a.0, &b.0, upwards)
                        .then_with(|| a.1.cmp(&b.1))
                        .then_with(|| a.2.cmp(&b.2))
                });
                let mut page = RunsPage {
                    experiment,
                    total: found.len(),
                    runs: Vec::new(),
                };
                for (_, _, run_id) in found.iter().skip(query.offset).take(query.limit) {
                    page.runs.extend(runs::get(tx, run_id)?);
                }
                Ok(Some(page))
            })
            .await?;
        Ok(page)
    }

    /// A run that is not deleted, and the number of its experiment.
    pub async fn wandb_live_run(&self, at: WandbName) -> Result<Option<(WandbRun, i64)>> {
        let found = self
            .store()
            .read(move |tx| {
                let Some(run) = runs::find(tx, &at)? else {
                    return Ok(None);
                };
                let key = tracked::find(tx, &at.workspace, &run.run_id)?;
                let live = key.filter(|key| key.lifecycle == tidemill_store::tracking::Lifecycle::Active);
                Ok(live.map(|key| (run, key.experiment)))
            })
            .await?;
        Ok(found)
    }

    /// Projects of an entity that have runs.
    pub async fn wandb_projects(&self, caller: &Caller, entity: &str) -> Result<Vec<Project>> {
        let (workspace, entity) = (caller.workspace.clone(), entity.to_owned());
        Ok(self
            .store()
            .read(move |tx| runs::projects(tx, &workspace, &entity))
            .await?)
    }

    /// Rows of a run's history, by step. However long that is, only the rows that are wanted are held.
    pub async fn wandb_history(
        &self,
        caller: &Caller,
        run_id: &str,
        query: HistoryQuery,
    ) -> Result<Vec<HistoryRow>> {
        let (workspace, wanted) = (caller.workspace.clone(), run_id.to_owned());
        let rows = self
            .store()
            .read(move |tx| match tracked::find(tx, &workspace, &wanted)? {
                Some(key) => rows_of(tx, key.number, &query),
                None => Ok(Vec::new()),
            })
            .await?;
        Ok(rows)
    }

    /// The last step of a run's history; none if it has none.
    pub async fn wandb_last_step(&self, caller: &Caller, run_id: &str) -> Result<Option<i64>> {
        let (workspace, wanted) = (caller.workspace.clone(), run_id.to_owned());
        let last = self
            .store()
            .read(move |tx| match tracked::find(tx, &workspace, &wanted)? {
                Some(key) => history::last_step(tx, key.number),
                None => Ok(None),
            })
            .await?;
        Ok(last)
    }

    /// Files of a run, by name, each with the permission to read it.
    pub async fn wandb_files(&self, caller: &Caller, run_id: &str) -> Result<Vec<RunFile>> {
        let root = self.artifact_root_of_run(caller, run_id).await?;
        let signer = self.signer().await?;
        let mut files = Vec::new();
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            for entry in self.artifacts_of(caller, &root, &folder).await? {
                let name = if folder.is_empty() {
                    entry.name
                } else {
                    format!("{folder}/{}", entry.name)
                };
                match entry.size {
                    None => folders.push(name),
                    Some(size) if files.len() < MOST_FILES => files.push((name, size)),
                    Some(_) => {}
                }
            }
        }
        files.sort();
        let mut listed = Vec::with_capacity(files.len());
        for (name, size) in files {
            let place = self.place_of(caller, &root, &name).await?;
            let token = if let Place::Object(path) = place {
                let read = move |tx: &ReadTx<'_>| proxy::get(tx, &path);
                let row = self.store().read(read).await?;
                row.map(|row| signer.sign(Grant::Read { digest: row.digest }))
            } else {
                None
            };
            listed.push(RunFile { name, size, token });
        }
        Ok(listed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_keeps_the_ends() {
        let rows: Vec<usize> = (0..100).collect();
        assert_eq!(sampled(rows.clone(), 5), [0, 24, 49, 74, 99]);
        assert_eq!(sampled(rows.clone(), 100), rows);
        assert_eq!(sampled(rows.clone(), 7).len(), 7);
    }
}
