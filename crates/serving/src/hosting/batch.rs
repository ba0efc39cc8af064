//! Several calls answered by one: their tensors joined along the first dimension, and the answer cut up again. And how long it pays to
//! wait for more.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidemill_core::clock::Stopwatch;
use tidemill_core::ports::PortError;
use tidemill_core::servable::{CallContext, Payload};
use tidemill_core::tensors::Tensor;

use super::queue::Pending;

/// Joins the payloads of calls that are alike.
pub(super) fn join(batch: &[Pending]) -> Result<Payload, PortError> {
    let broken = |message: String| {
        PortError::internal("model_broken", format!("requests could not be joined: {message}"))
    };
    let mut parts: Vec<&[Tensor]> = Vec::with_capacity(batch.len());
    for pending in batch {
        let Payload::Tensors(tensors) = &pending.payload else {
            return Err(broken("a body came".to_owned()));
        };
        parts.push(tensors);
    }
    let inputs = parts.first().map_or(0, |tensors| tensors.len());
    let mut joined = Vec::with_capacity(inputs);
    for input in 0..inputs {
        let tensors: Vec<&Tensor> = parts.iter().filter_map(|tensors| tensors.get(input)).collect();
        joined.push(Tensor::concat_rows(&tensors).map_err(|error| broken(error.to_string()))?);
    }
    Ok(Payload::Tensors(joined))
}

/// Cuts an answer up: one part for each of `rows`.
pub(super) fn cut(answer: Payload, rows: &[usize]) -> Result<Vec<Payload>, PortError> {
    let total: usize = rows.iter().sum();
    let Payload::Tensors(tensors) = answer else {
        return Err(PortError::internal(
            "model_broken",
            "the model answered tensors with a body; it can answer only one request at a time",
        ));
    };
    if let Some(odd) = tensors.iter().find(|tensor| tensor.shape.first() != Some(&total)) {
        return Err(PortError::internal(
            "model_broken",
            format!(
                "output `{}` has shape {:?} for {total} rows; a model whose requests are gathered answers each row",
                odd.name, odd.shape
            ),
        ));
    }
    let mut parts = Vec::with_capacity(rows.len());
    let mut from = 0;
    for count in rows {
        let slices = tensors.iter().map(|tensor| tensor.slice_rows(from, from + count));
        let slices: Result<Vec<Tensor>, _> = slices.collect();
        parts.push(Payload::Tensors(slices.map_err(|error| {
            PortError::internal("model_broken", error.to_string())
        })?));
        from += count;
    }
    Ok(parts)
}

/// What a batch is asked under: the latest deadline of its calls, and what they have in common.
pub(super) fn context(batch: &[Pending]) -> CallContext {
    let mut context = batch
        .first()
        .map(|pending| pending.context.clone())
        .unwrap_or_default();
    let latest = batch
        .iter()
        .filter_map(|pending| pending.context.deadline)
        .max_by_key(tidemill_core::servable::Deadline::left);
    context.deadline = latest;
    // These differ from call to call.
    context.attributes = Arc::default();
    context.key = None;
    context
}

/// How much of what was seen before counts beside what is seen now.
const KEEP: f64 = 0.95;

/// What has been learnt of a model's time and of its callers.
#[derive(Debug, Default, Clone, Copy)]
struct Learnt {
    /// Means of rows, seconds, rows², rows · seconds, over batches, each weighted less the older it is.
    rows: f64,
    seconds: f64,
    rows_squared: f64,
    product: f64,
    seen: bool,
    /// Seconds between arrivals.
    gap: f64,
    last: Option<Stopwatch>,
}

/// Learns how long it pays to wait.
///
/// A batch of `n` rows takes about `a + b·n` seconds (least squares over recent batches). If calls come every `g` seconds, answering each
/// alone would keep the model busy for the share `(a + b)/g` of the time. While that is below a half, a call that finds the model free is
/// answered at once: waiting would only make it late. Above it, waiting `a` at most lets one fixed cost answer several; the wait grows
/// with the share, up to `a` or the limit that was set. This is a rule of our own, not taken from a paper.
#[derive(Debug, Default)]
pub(super) struct Patience(Mutex<Learnt>);

impl Patience {
    fn learnt(&self) -> std::sync::MutexGuard<'_, Learnt> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call came.
    pub fn arrived(&self) {
        let mut learnt = self.learnt();
        if let Some(last) = learnt.last {
            // A long silence says nothing about how quickly calls come once they come.
            let gap = last.elapsed().as_secs_f64().min(1.0);
            learnt.gap = if learnt.gap == 0.0 {
                gap
            } else {
                KEEP * learnt.gap + (1.0 - KEEP) * gap
            };
        }
        learnt.last = Some(Stopwatch::start());
    }

    /// A batch was answered.
    pub fn answered(&self, rows: usize, took: Duration) {
        let mut learnt = self.learnt();
        let (rows, seconds) = (rows as f64, took.as_secs_f64());
        let keep = if learnt.seen { KEEP } else { 0.0 };
        let mix = |old: f64, new: f64| keep * old + (1.0 - keep) * new;
        learnt.rows = mix(learnt.rows, rows);
        learnt.seconds = mix(learnt.seconds, seconds);
        learnt.rows_squared = mix(learnt.rows_squared, rows * rows);
        learnt.product = mix(learnt.product, rows * seconds);
        learnt.seen = true;
    }

    /// What a batch costs whatever its size, and each row of it, seconds.
    pub fn costs(&self) -> (f64, f64) {
        let learnt = *self.learnt();
        let variance = learnt.rows_squared - learnt.rows * learnt.rows;
        let slope = if variance > 0.25 {
            ((learnt.product - learnt.rows * learnt.seconds) / variance).max(0.0)
        } else {
            // All batches were of one size: nothing tells the parts apart, so all of it counts as fixed.
            0.0
        };
        ((learnt.seconds - slope * learnt.rows).max(0.0), slope)
    }

    /// How long to wait for more, at most `limit`.
    pub fn wait(&self, limit: Duration) -> Duration {
        let (fixed, a_row) = self.costs();
        let gap = self.learnt().gap;
        if gap <= 0.0 || fixed <= 0.0 {
            return Duration::ZERO;
        }
        let share = (fixed + a_row) / gap;
        let eagerness = (share - 0.5).clamp(0.0, 1.0);
        Duration::from_secs_f64(fixed * eagerness).min(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_cost_and_the_cost_of_a_row_are_told_apart() {
        let patience = Patience::default();
        for round in 0..200 {
            let rows = 1 + round % 16;
            patience.answered(rows, Duration::from_micros(800 + 6 * rows as u64));
        }
        let (fixed, a_row) = patience.costs();
        assert!((fixed - 800e-6).abs() < 20e-6, "{fixed}");
        assert!((a_row - 6e-6).abs() < 1e-6, "{a_row}");
    }

    #[test]
    fn nobody_waits_before_anything_is_known_or_while_the_model_is_mostly_idle() {
        let patience = Patience::default();
        assert_eq!(patience.wait(Duration::from_secs(1)), Duration::ZERO);
        patience.answered(1, Duration::from_micros(800));
        patience.learnt().gap = 0.1;
        assert_eq!(patience.wait(Duration::from_secs(1)), Duration::ZERO);
        patience.learnt().gap = 0.0001;
        assert_eq!(patience.wait(Duration::from_secs(1)), Duration::from_micros(800));
        assert_eq!(
            patience.wait(Duration::from_micros(50)),
            Duration::from_micros(50)
        );
    }
}
