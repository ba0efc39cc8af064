//! Metrics of runs: every point that was logged, and the latest of each. Reading histories is in [`crate::tracking::history`].

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::RwLock;

use crate::column::{Fields, bind};
use crate::error::StoreError;
use crate::tracking::runs::RunKey;
use crate::tx::{ReadTx, Tx};

/// A point of a metric. NaN has the value 0 and `is_nan`; infinities are the largest finite numbers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Point {
    /// At which step of the training.
    pub step: i64,
    /// When, in milliseconds, as the client told.
    pub at_ms: i64,
    /// The value; 0 for NaN.
    pub value: f64,
    /// Whether it is NaN.
    pub is_nan: bool,
}

impl Point {
    /// A point with any value.
    pub fn new(step: i64, at_ms: i64, value: f64) -> Self {
        let is_nan = value.is_nan();
        let value = if is_nan {
            0.0
        } else {
            // Adding 0 makes -0 the same point as 0.
            value.clamp(f64::MIN, f64::MAX) + 0.0
        };
        Self {
            step,
            at_ms,
            value,
            is_nan,
        }
    }

    /// The value as it was told.
    pub fn told(&self) -> f64 {
        if self.is_nan { f64::NAN } else { self.value }
    }

    /// Which of two points of a metric is the later: by step, then time, then value.
    pub fn order(&self, other: &Self) -> Ordering {
        (self.step, self.at_ms)
            .cmp(&(other.step, other.at_ms))
            .then(self.value.total_cmp(&other.value))
            .then(self.is_nan.cmp(&other.is_nan))
    }
}

/// A point with its metric's name.
#[derive(Clone, PartialEq, Debug)]
pub struct Metric {
    /// The metric's name.
    pub key: String,
    /// The point.
    pub point: Point,
}

/// A point that is logged, and the model and data it was measured on.
#[derive(Clone, PartialEq, Debug)]
pub struct NewMetric {
    /// The metric's name.
    pub key: String,
    /// The point.
    pub point: Point,
    /// The logged model it was measured of.
    pub model_id: Option<String>,
    /// The dataset it was measured on.
    pub dataset_name: Option<String>,
    /// The digest of that dataset.
    pub dataset_digest: Option<String>,
}

/// The numbers of metrics' names that this process has seen stored. Names are never deleted, so what is in here stays true.
#[derive(Debug, Default)]
pub struct KnownKeys {
    numbers: RwLock<HashMap<String, i64>>,
}

/// Some servers see names without end: what is beyond this is looked up each time.
const MAX_KNOWN_KEYS: usize = 100_000;

impl KnownKeys {
    fn get(&self, key: &str) -> Option<i64> {
        self.numbers.read().ok()?.get(key).copied()
    }

    /// Remembers names whose numbers are durable.
    pub fn remember(&self, found: impl IntoIterator<Item = (String, i64)>) {
        let mut found = found.into_iter().peekable();
        if found.peek().is_none() {
            return;
        }
        if let Ok(mut numbers) = self.numbers.write()
            && numbers.len() < MAX_KNOWN_KEYS
        {
            numbers.extend(found);
        }
    }
}

/// The number of a metric's name, if any run has logged it.
pub fn key_number(tx: &ReadTx<'_>, key: &str) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT number FROM metric_keys WHERE name = ?1";
    tx.first(sql, bind![key], |row| Fields::of(row).next())
}

/// The number of a metric's name, which is given one if it has none.
fn number_of(tx: &mut Tx<'_>, key: &str) -> Result<i64, StoreError> {
    if let Some(number) = key_number(tx, key)? {
        return Ok(number);
    }
    let sql = "INSERT INTO metric_keys (name) VALUES (?1) RETURNING number";
    tx.one(sql, bind![key], |row| Fields::of(row).next())
}

struct Row {
    key: i64,
    point: Point,
}

/// Logs points of a run. Returns the names whose numbers were not known, for [`KnownKeys::remember`] once this is durable.
pub fn log(
    tx: &mut Tx<'_>,
    run: RunKey,
    metrics: &[NewMetric],
    known: &KnownKeys,
) -> Result<Vec<(String, i64)>, StoreError> {
    let mut numbers: HashMap<&str, i64> = HashMap::new();
    let mut looked_up = Vec::new();
    let mut rows = Vec::with_capacity(metrics.len());
    for metric in metrics {
        let key = match numbers.get(metric.key.as_str()) {
            Some(number) => *number,
            None => {
                let number = match known.get(&metric.key) {
                    Some(number) => number,
                    None => {
                        let number = number_of(tx, &metric.key)?;
                        looked_up.push((metric.key.clone(), number));
                        number
                    }
                };
                numbers.insert(&metric.key, number);
                number
            }
        };
        let point = metric.point;
        rows.push(Row { key, point });
    }
    // In the order of the table: neighbours fall on the same page.
    rows.sort_by(|a, b| {
        (a.key, a.point.at_ms)
            .cmp(&(b.key, b.point.at_ms))
            .then(a.point.order(&b.point))
    });
    rows.dedup_by(|a, b| a.key == b.key && a.point == b.point);
    insert(tx, run.number, &rows)?;
    log_of_models(tx, run.number, metrics, &numbers)?;
    Ok(looked_up)
}

fn insert(tx: &mut Tx<'_>, run: i64, rows: &[Row]) -> Result<(), StoreError> {
    let tail = " ON CONFLICT DO NOTHING";
    let columns = "run, key, at_ms, step, value, is_nan";
    let bound: Vec<(i64, &Row)> = rows.iter().map(|row| (run, row)).collect();
    tx.insert_rows("metrics", columns, tail, &bound, |(run, row), out| {
        let point = &row.point;
        out.extend_from_slice(&[
            run,
            &row.key,
            &point.at_ms,
            &point.step,
            &point.value,
            &point.is_nan,
        ]);
    })?;

    let mut latest: BTreeMap<i64, (i64, &Row)> = BTreeMap::new();
    for row in rows {
        let held = latest.entry(row.key).or_insert((run, row));
        if row.point.order(&held.1.point) == Ordering::Greater {
            *held = (run, row);
        }
    }
    let bound: Vec<(i64, &Row)> = latest.into_values().collect();
    let columns = "run, key, step, at_ms, value, is_nan";
    let tail = " ON CONFLICT (run, key) DO UPDATE SET step = excluded.step, at_ms = excluded.at_ms, \
                value = excluded.value, is_nan = excluded.is_nan \
                WHERE (excluded.step, excluded.at_ms, excluded.value, excluded.is_nan) \
                > (latest_metrics.step, latest_metrics.at_ms, latest_metrics.value, latest_metrics.is_nan)";
    tx.insert_rows("latest_metrics", columns, tail, &bound, |(run, row), out| {
        let point = &row.point;
        out.extend_from_slice(&[
            run,
            &row.key,
            &point.step,
            &point.at_ms,
            &point.value,
            &point.is_nan,
        ]);
    })
}

/// Keeps the points that name a logged model with the model too. A model that is not there has none.
fn log_of_models(
    tx: &mut Tx<'_>,
    run: i64,
    metrics: &[NewMetric],
    numbers: &HashMap<&str, i64>,
) -> Result<(), StoreError> {
    let mut models: HashMap<&str, Option<i64>> = HashMap::new();
    for metric in metrics {
        let Some(model_id) = metric.model_id.as_deref() else {
            continue;
        };
        let model = match models.get(model_id) {
            Some(model) => *model,
            None => {
                let sql = "SELECT number FROM logged_models WHERE model_id = ?1";
                let model = tx.first(sql, bind![model_id], |row| Fields::of(row).next())?;
                models.insert(model_id, model);
                model
            }
        };
        let (Some(model), Some(key)) = (model, numbers.get(metric.key.as_str())) else {
            continue;
        };
        let Point {
            step,
            at_ms,
            value,
            is_nan,
        } = metric.point;
        let name = metric.dataset_name.as_deref().unwrap_or_default();
        let digest = metric.dataset_digest.as_deref().unwrap_or_default();
        tx.insert_new(
            "logged_model_metrics",
            "model, key, dataset_name, dataset_digest, run, at_ms, step, value, is_nan",
            bind![model, *key, name, digest, run, at_ms, step, value, is_nan],
        )?;
    }
    Ok(())
}

/// The latest point of a metric of a run.
pub fn latest(tx: &ReadTx<'_>, run: i64, key: &str) -> Result<Option<Point>, StoreError> {
    let sql = "SELECT m.step, m.at_ms, m.value, m.is_nan FROM latest_metrics m JOIN metric_keys k ON k.number = m.key
               WHERE m.run = ?1 AND k.name = ?2";
    tx.first(sql, bind![run, key], |row| {
        let mut fields = Fields::of(row);
        Ok(Point {
            step: fields.next()?,
            at_ms: fields.next()?,
            value: fields.next()?,
            is_nan: fields.next()?,
        })
    })
}

/// The latest point of each metric of these runs.
pub(super) fn each_latest(
    tx: &ReadTx<'_>,
    runs: &[i64],
    mut take: impl FnMut(i64, Metric),
) -> Result<(), StoreError> {
    let sql = "SELECT m.run, k.name, m.step, m.at_ms, m.value, m.is_nan
               FROM latest_metrics m JOIN metric_keys k ON k.number = m.key WHERE m.run IN";
    tx.each_in(sql, runs, "ORDER BY m.run, m.key", |row| {
        let mut fields = Fields::of(row);
        let run = fields.next()?;
        let key = fields.next()?;
        let point = Point {
            step: fields.next()?,
            at_ms: fields.next()?,
            value: fields.next()?,
            is_nan: fields.next()?,
        };
        take(run, Metric { key, point });
        Ok(())
    })
}
