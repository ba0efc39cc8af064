//! Histories of metrics.

use std::collections::BTreeSet;

use tidemill_store::tracking::history::{self, Bucket};
use tidemill_store::tracking::metrics::{self, Point};
use tidemill_store::tracking::runs;

use super::{Caller, Result, Tracking, TrackingError};

/// The most points of a page.
pub const MAX_PAGE: u32 = 25_000;
/// The most runs whose histories are asked for at once.
pub const MAX_RUNS: usize = 100;
/// The most steps of each run that are sampled.
pub const MAX_SAMPLED_STEPS: i64 = 2_500;
/// The most stretches of a chart.
pub const MAX_BUCKETS: i64 = 10_000;

/// The points of one run.
#[derive(Clone, PartialEq, Debug)]
pub struct RunPoints {
    /// The run.
    pub run_id: String,
    /// Its points.
    pub points: Vec<Point>,
}

impl Tracking {
    /// A page of a metric's points by time, step and value, and whether there are more. A run that is not there has none, as in
    /// MLflow.
    pub async fn metric_history(
        &self,
        caller: &Caller,
        run_id: &str,
        key: &str,
        after: Option<Point>,
        limit: u32,
    ) -> Result<(Vec<Point>, bool)> {
        let (workspace, run_id, key) = (caller.workspace.clone(), run_id.to_owned(), key.to_owned());
        let mut points = self
            .store()
            .read(move |tx| {
                let run = runs::find(tx, &workspace, &run_id)?;
                match (run, metrics::key_number(tx, &key)?) {
                    (Some(run), Some(key)) => {
                        history::page(tx, run.number, key, after.as_ref(), limit.saturating_add(1))
                    }
                    _ => Ok(Vec::new()),
                }
            })
            .await?;
        let more = points.len() > limit as usize;
        points.truncate(limit as usize);
        Ok((points, more))
    }

    /// The histories of a metric in several runs, by run, time, step and value; at most `limit` points in all.
    pub async fn metric_history_bulk(
        &self,
        caller: &Caller,
        run_ids: Vec<String>,
        key: &str,
        limit: u32,
    ) -> Result<Vec<RunPoints>> {
        let (workspace, key) = (caller.workspace.clone(), key.to_owned());
        let run_ids: BTreeSet<String> = run_ids.into_iter().collect();
        let run_ids: Vec<String> = run_ids.into_iter().collect();
        let found = self
            .store()
            .read(move |tx| {
                let Some(key) = metrics::key_number(tx, &key)? else {
                    return Ok(Vec::new());
                };
                let mut left = limit;
                let mut found = Vec::new();
                for (run_id, number) in runs::numbers(tx, &workspace, &run_ids)? {
                    if left == 0 {
                        break;
                    }
                    let points = history::page(tx, number, key, None, left)?;
                    left -= points.len() as u32;
                    found.push(RunPoints { run_id, points });
                }
                Ok(found)
            })
            .await?;
        Ok(found)
    }

    /// The points of a metric in several runs at steps that are sampled evenly from those that any of them has, in `range` if one is
    /// given. The first and the last step of each run are among them.
    pub async fn metric_history_sampled(
        &self,
        caller: &Caller,
        run_ids: Vec<String>,
        key: &str,
        range: Option<(i64, i64)>,
        max_steps: usize,
    ) -> Result<Vec<RunPoints>> {
        if let Some((start, end)) = range
            && start > end
        {
            return Err(TrackingError::invalid(format!(
                "end_step must be greater than start_step. Found start_step={start} and end_step={end}."
            )));
        }
        let (workspace, key) = (caller.workspace.clone(), key.to_owned());
        let found = self
            .store()
            .read(move |tx| {
                let Some(key) = metrics::key_number(tx, &key)? else {
                    return Ok(Vec::new());
                };
                let numbers = runs::numbers(tx, &workspace, &run_ids)?;
                let mut all: Vec<i64> = Vec::new();
                let mut ends = Vec::new();
                for (_, number) in &numbers {
                    let steps = history::steps(tx, *number, key)?;
                    ends.extend(steps.first().copied());
                    ends.extend(steps.last().copied());
                    // Merged at once, so that runs with the same steps cost no more than one.
                    all.extend(steps);
                    all.sort_unstable();
                    all.dedup();
                }
                let sampled = sample(&all, &ends, range, max_steps);
                let mut found = Vec::new();
                for (run_id, number) in numbers {
                    let points = history::at_steps(tx, number, key, &sampled, MAX_PAGE as usize)?;
                    found.push(RunPoints { run_id, points });
                }
                Ok(found)
            })
            .await?;
        Ok(found)
    }

    /// A metric's history, or a range of its steps, as at most `buckets` stretches, each with its first, last, smallest and largest
    /// point.
    pub async fn metric_history_downsampled(
        &self,
        caller: &Caller,
        run_id: &str,
        key: &str,
        range: Option<(i64, i64)>,
        buckets: usize,
    ) -> Result<Vec<Bucket>> {
        let key = key.to_owned();
        self.read_run(caller, run_id, move |tx, run| {
            let Some(key) = metrics::key_number(tx, &key)? else {
                return Ok(Ok(Vec::new()));
            };
            history::downsample(tx, run.number, key, range, buckets).map(Ok)
        })
        .await
    }
}

/// Of `steps` (ascending) those in range, or so many evenly spaced ones of them and the last; and those `ends` that are in range.
fn sample(steps: &[i64], ends: &[i64], range: Option<(i64, i64)>, count: usize) -> Vec<i64> {
    let (low, high) = range.unwrap_or_else(|| (0, steps.last().copied().unwrap_or(0)));
    let from = steps.partition_point(|step| *step < low);
    let to = steps.partition_point(|step| *step <= high);
    let inside = &steps[from..to.max(from)];
    let mut sampled: Vec<i64> = if inside.len() <= count {
        inside.to_vec()
    } else {
        let interval = inside.len() as f64 / count as f64;
        (0..count)
            .map(|i| (i as f64 * interval) as usize)
            .filter_map(|index| inside.get(index).copied())
            .chain(inside.last().copied())
            .collect()
    };
    sampled.extend(ends.iter().copied().filter(|step| (low..=high).contains(step)));
    sampled.sort_unstable();
    sampled.dedup();
    sampled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_sampled_evenly_and_the_ends_of_each_run_are_kept() {
        let steps: Vec<i64> = (0..10).collect();
        assert_eq!(sample(&steps, &[0, 9], None, 100), steps);
        assert_eq!(sample(&steps, &[0, 9], None, 5), [0, 2, 4, 6, 8, 9]);
        assert_eq!(sample(&steps, &[0, 3, 9], None, 2), [0, 3, 5, 9]);
        assert_eq!(sample(&steps, &[0, 9], Some((2, 5)), 2), [2, 4, 5]);
        assert_eq!(sample(&[], &[], None, 5), [0_i64; 0]);
        // MLflow begins at step 0 where nothing is said.
        assert_eq!(sample(&[-2, 0, 1], &[-2, 1], None, 5), [0, 1]);
    }
}
