//! Histories of metrics: pages of points, points at chosen steps, and charts of any length from one pass over the points.

use crate::column::{Fields, bind};
use crate::db::Row;
use crate::error::StoreError;
use crate::tracking::metrics::Point;
use crate::tx::ReadTx;

fn read(row: &Row<'_>) -> rusqlite::Result<Point> {
    let mut fields = Fields::of(row);
    Ok(Point {
        at_ms: fields.next()?,
        step: fields.next()?,
        value: fields.next()?,
        is_nan: fields.next()?,
    })
}

/// Points of a metric of a run by time, step and value: those after `after`, at most `limit`.
pub fn page(
    tx: &ReadTx<'_>,
    run: i64,
    key: i64,
    after: Option<&Point>,
    limit: u32,
) -> Result<Vec<Point>, StoreError> {
    let order = "ORDER BY at_ms, step, value, is_nan LIMIT";
    let from = "SELECT at_ms, step, value, is_nan FROM metrics WHERE run = ?1 AND key = ?2";
    match after {
        None => tx.rows(&format!("{from} {order} ?3"), bind![run, key, limit], read),
        Some(point) => {
            let sql = format!("{from} AND (at_ms, step, value, is_nan) > (?3, ?4, ?5, ?6) {order} ?7");
            let params = bind![
                run,
                key,
                point.at_ms,
                point.step,
                point.value,
                point.is_nan,
                limit
            ];
            tx.rows(&sql, params, read)
        }
    }
}

/// The metrics of a run by name, each with its number; `system` for system metrics instead of the others.
pub fn keys(tx: &ReadTx<'_>, run: i64, system: bool) -> Result<Vec<(i64, String)>, StoreError> {
    let sql = "SELECT k.number, k.name FROM latest_metrics l JOIN metric_keys k ON k.number = l.key WHERE l.run = ?1 ORDER BY k.name";
    let mut keys = tx.rows(sql, bind![run], |row| {
        let mut fields = Fields::of(row);
        Ok((fields.next::<i64>()?, fields.next::<String>()?))
    })?;
    keys.retain(|(_, name)| name.starts_with("system/") == system);
    Ok(keys)
}

/// The steps in `[from, until)` at which a metric of a run has points, ascending; the first `limit` of them.
pub fn steps_between(
    tx: &ReadTx<'_>,
    run: i64,
    key: i64,
    (from, until): (i64, i64),
    limit: Option<usize>,
) -> Result<Vec<i64>, StoreError> {
    let sql = "SELECT DISTINCT step FROM metrics WHERE run = ?1 AND key = ?2 AND step >= ?3 AND step < ?4 ORDER BY step LIMIT ?5";
    let limit = limit.map_or(i64::MAX, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
    tx.rows(sql, bind![run, key, from, until, limit], |row| {
        Fields::of(row).next()
    })
}

/// Gives each point of a metric at these steps (ascending) to `take`, by time.
pub fn each_at(
    tx: &ReadTx<'_>,
    run: i64,
    key: i64,
    steps: &[i64],
    mut take: impl FnMut(Point),
) -> Result<(), StoreError> {
    let (Some(first), Some(last)) = (steps.first(), steps.last()) else {
        return Ok(());
    };
    let sql = "SELECT at_ms, step, value, is_nan FROM metrics WHERE run = ?1 AND key = ?2 AND step BETWEEN ?3 AND ?4 ORDER BY at_ms";
    tx.each(sql, bind![run, key, *first, *last], |row| {
        let point = read(row)?;
        if steps.binary_search(&point.step).is_ok() {
            take(point);
        }
        Ok(())
    })
}

/// The last step of a run's metrics, but for system metrics.
pub fn last_step(tx: &ReadTx<'_>, run: i64) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT max(l.step) FROM latest_metrics l JOIN metric_keys k ON k.number = l.key \
         WHERE l.run = ?1 AND k.name NOT LIKE 'system/%'";
    tx.one(sql, bind![run], |row| Fields::of(row).next())
}

/// The steps at which a metric of a run has points, ascending.
pub fn steps(tx: &ReadTx<'_>, run: i64, key: i64) -> Result<Vec<i64>, StoreError> {
    let mut steps: Vec<i64> = Vec::new();
    let sql = "SELECT step FROM metrics WHERE run = ?1 AND key = ?2";
    tx.each(sql, bind![run, key], |row| {
        let step = Fields::of(row).next()?;
        if steps.last() != Some(&step) {
            steps.push(step);
        }
        Ok(())
    })?;
    steps.sort_unstable();
    steps.dedup();
    Ok(steps)
}

/// The points at these steps (ascending), by step, time and value; at most `limit`.
pub fn at_steps(
    tx: &ReadTx<'_>,
    run: i64,
    key: i64,
    steps: &[i64],
    limit: usize,
) -> Result<Vec<Point>, StoreError> {
    let (Some(first), Some(last)) = (steps.first(), steps.last()) else {
        return Ok(Vec::new());
    };
    let mut points = Vec::new();
    let sql = "SELECT at_ms, step, value, is_nan FROM metrics WHERE run = ?1 AND key = ?2 AND step BETWEEN ?3 AND ?4";
    tx.each(sql, bind![run, key, *first, *last], |row| {
        let point = read(row)?;
        if steps.binary_search(&point.step).is_ok() {
            points.push(point);
        }
        Ok(())
    })?;
    points.sort_by(Point::order);
    points.truncate(limit);
    Ok(points)
}

/// The points of a stretch of steps, put together. NaN is counted, and counts for nothing else.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bucket {
    /// How many points.
    pub count: u64,
    /// How many of them are NaN.
    pub nans: u64,
    /// The earliest point, by step, time and value.
    pub first: Point,
    /// The latest point.
    pub last: Point,
    /// The point with the smallest value; of several the earliest.
    pub min: Point,
    /// The point with the largest value; of several the earliest.
    pub max: Point,
    /// The sum of the values.
    pub sum: f64,
}

impl Bucket {
    fn of(point: Point) -> Self {
        Self {
            count: 1,
            nans: u64::from(point.is_nan),
            first: point,
            last: point,
            min: point,
            max: point,
            sum: if point.is_nan { 0.0 } else { point.value },
        }
    }

    /// The mean of the values; `None` where all are NaN.
    pub fn mean(&self) -> Option<f64> {
        let values = self.count - self.nans;
        // Infinities are the largest finite numbers: their sum may be infinite, their mean is not.
        (values > 0).then(|| (self.sum / values as f64).clamp(f64::MIN, f64::MAX))
    }

    fn add(&mut self, point: Point) {
        let none_so_far = self.nans == self.count;
        self.count += 1;
        if point.order(&self.first).is_lt() {
            self.first = point;
        }
        if point.order(&self.last).is_gt() {
            self.last = point;
        }
        if point.is_nan {
            self.nans += 1;
            return;
        }
        self.sum += point.value;
        let earlier = |held: &Point| (point.step, point.at_ms) < (held.step, held.at_ms);
        if none_so_far
            || point.value < self.min.value
            || (point.value == self.min.value && earlier(&self.min))
        {
            self.min = point;
        }
        if none_so_far
            || point.value > self.max.value
            || (point.value == self.max.value && earlier(&self.max))
        {
            self.max = point;
        }
    }
}

/// A metric's whole history, or the steps `range` of it (inclusive), as at most `buckets` stretches of equal length, those without
/// points left out. However long the history is, memory grows with `buckets` alone, and no extreme is lost.
pub fn downsample(
    tx: &ReadTx<'_>,
    run: i64,
    key: i64,
    range: Option<(i64, i64)>,
    buckets: usize,
) -> Result<Vec<Bucket>, StoreError> {
    let (from, to) = range.unwrap_or((i64::MIN, i64::MAX));
    let sql =
        "SELECT min(step), max(step) FROM metrics WHERE run = ?1 AND key = ?2 AND step BETWEEN ?3 AND ?4";
    let ends = tx.one(sql, bind![run, key, from, to], |row| {
        let mut fields = Fields::of(row);
        Ok((fields.next::<Option<i64>>()?, fields.next::<Option<i64>>()?))
    })?;
    let (Some(low), Some(high)) = ends else {
        return Ok(Vec::new());
    };
    let width = i128::from(high) - i128::from(low) + 1;
    let count = (buckets.max(1) as i128).min(width);
    let mut found: Vec<Option<Bucket>> = vec![None; count as usize];
    let sql = "SELECT at_ms, step, value, is_nan FROM metrics WHERE run = ?1 AND key = ?2 AND step BETWEEN ?3 AND ?4";
    tx.each(sql, bind![run, key, low, high], |row| {
        let point = read(row)?;
        let place = (i128::from(point.step) - i128::from(low)) * count / width;
        match &mut found[place as usize] {
            Some(bucket) => bucket.add(point),
            empty => *empty = Some(Bucket::of(point)),
        }
        Ok(())
    })?;
    Ok(found.into_iter().flatten().collect())
}
