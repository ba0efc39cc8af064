//! What W&B's `Api` reads: runs of a project, their histories and files.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tidemill_store::ReadTx;
use tidemill_store::tracking::{artifacts as proxy, history, runs as tracked};
use tidemill_store::wandb::runs::{self, Project, WandbName, WandbRun};

use super::filters::{self, order_of, ordered, value_of};
use super::grants::Grant;
use crate::tracking::artifacts::Place;
use crate::tracking::{Caller, Result, Tracking, TrackingError};

/// So many files of a run are listed.
const MOST_FILES: usize = 10_000;

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

/// A row of a history: step, time, numbers by name.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct HistoryRow {
    /// The run's own count.
    pub step: i64,
    /// Milliseconds since the epoch.
    pub at_ms: i64,
    /// Numbers by name.
    pub numbers: BTreeMap<String, f64>,
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
            map.insert(name.clone(), value);
        }
        map.insert("_step".to_owned(), Value::from(self.step));
        map.insert("_timestamp".to_owned(), Value::from(self.at_ms as f64 / 1e3));
        map
    }
}

/// Every n-th of the rows, the first and the last among them, so that there are at most `most`.
pub fn sampled<T>(rows: Vec<T>, most: usize) -> Vec<T> {
    let count = rows.len();
    if count <= most || most < 2 {
        return rows;
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

    /// Rows of a run's history with a step in `[from, until)`; `system` for system metrics instead.
    pub async fn wandb_history(
        &self,
        caller: &Caller,
        run_id: &str,
        from: i64,
        until: i64,
        system: bool,
    ) -> Result<Vec<HistoryRow>> {
        let (workspace, wanted) = (caller.workspace.clone(), run_id.to_owned());
        let rows = self
            .store()
            .read(move |tx| {
                let Some(key) = tracked::find(tx, &workspace, &wanted)? else {
                    return Ok(BTreeMap::new());
                };
                let mut rows: BTreeMap<i64, HistoryRow> = BTreeMap::new();
                history::each(tx, key.number, from, until, |name, point| {
                    if name.starts_with("system/") != system {
                        return;
                    }
                    let row = rows.entry(point.step).or_default();
                    row.step = point.step;
                    row.at_ms = row.at_ms.max(point.at_ms);
                    row.numbers.insert(name.to_owned(), point.told());
                })?;
                Ok(rows)
            })
            .await?;
        Ok(rows.into_values().collect())
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
