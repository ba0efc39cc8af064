//! Runs with only some of what was logged of them, for pages of runs that have hundreds of metrics.

use std::collections::HashMap;

use crate::column::Fields;
use crate::error::StoreError;
use crate::search::Query;
use crate::search::build::Sql;
use crate::tracking::metrics::{Metric, Point};
use crate::tracking::runs::{self, TrackedRun};
use crate::tx::ReadTx;

/// Runs that one statement asks for.
const CHUNK: usize = 500;

/// Which keys are wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Keys {
    /// All.
    All,
    /// These.
    Some(Vec<String>),
}

impl Default for Keys {
    fn default() -> Self {
        Self::Some(Vec::new())
    }
}

impl Keys {
    /// Also wants this one.
    pub fn add(&mut self, key: &str) {
        if let Self::Some(keys) = self {
            keys.push(key.to_owned());
        }
    }

    fn are_none(&self) -> bool {
        matches!(self, Self::Some(keys) if keys.is_empty())
    }
}

/// What is wanted of runs, beside the runs themselves. Datasets and models are not part of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Projection {
    /// Of the latest metrics.
    pub metrics: Keys,
    /// Of the parameters.
    pub params: Keys,
    /// Of the tags.
    pub tags: Keys,
}

/// These runs, in the given order, with what is wanted of them. Unknown numbers are left out.
pub fn load_runs(
    tx: &ReadTx<'_>,
    numbers: &[i64],
    wanted: &Projection,
) -> Result<Vec<TrackedRun>, StoreError> {
    let heads = runs::heads(tx, numbers)?;
    let mut found: Vec<TrackedRun> = heads.into_iter().map(TrackedRun::of).collect();
    let places: HashMap<i64, usize> = (0..)
        .zip(&found)
        .map(|(place, run)| (run.head.number, place))
        .collect();
    let template = Sql::for_query(tx, &Query::default())?;
    for chunk in numbers.chunks(CHUNK) {
        let narrowed = |run: &str, name: &str, keys: &Keys| {
            let mut sql = template.fresh();
            let mut condition = sql.one_of(run, chunk.iter().copied());
            if let Keys::Some(keys) = keys {
                let of_key = sql.one_of(name, keys.iter().map(String::as_str));
                condition = format!("{condition} AND {of_key}");
            }
            (sql, condition)
        };
        if !wanted.metrics.are_none() {
            let (sql, condition) = narrowed("m.run", "k.name", &wanted.metrics);
            let text = format!(
                "SELECT m.run, k.name, m.step, m.at_ms, m.value, m.is_nan
                 FROM metric_keys k JOIN latest_metrics m ON m.key = k.number WHERE {condition} ORDER BY m.run, m.key"
            );
            let rows = tx.rows(&text, &sql.params()?, |row| {
                let mut fields = Fields::of(row);
                let run: i64 = fields.next()?;
                let key = fields.next()?;
                let point = Point {
                    step: fields.next()?,
                    at_ms: fields.next()?,
                    value: fields.next()?,
                    is_nan: fields.next()?,
                };
                Ok((run, Metric { key, point }))
            })?;
            for (run, metric) in rows {
                if let Some(place) = places.get(&run) {
                    found[*place].metrics.push(metric);
                }
            }
        }
        for (table, keys) in [("run_params", &wanted.params), ("run_tags", &wanted.tags)] {
            if keys.are_none() {
                continue;
            }
            let (sql, condition) = narrowed("run", "key", keys);
            let text = format!("SELECT run, key, value FROM {table} WHERE {condition} ORDER BY run, key");
            let rows = tx.rows(&text, &sql.params()?, |row| {
                let mut fields = Fields::of(row);
                Ok((fields.next::<i64>()?, (fields.next()?, fields.next()?)))
            })?;
            for (run, pair) in rows {
                let Some(place) = places.get(&run) else { continue };
                match table {
                    "run_params" => found[*place].params.push(pair),
                    _ => found[*place].tags.push(pair),
                }
            }
        }
    }
    Ok(found)
}
