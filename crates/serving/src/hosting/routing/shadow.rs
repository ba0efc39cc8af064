//! Copies of requests for versions that answer nobody. A copy is made after the caller's answer is there, waits behind everybody else's
//! requests, and is dropped when too many wait already.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tidemill_core::clock::Stopwatch;
use tidemill_core::digest::sticky_position;
use tidemill_core::ids::VersionNumber;
use tidemill_core::servable::{CallContext, Deadline, Payload};
use tidemill_core::spec::ShadowCopySpec;
use tidemill_core::tensors::{Tensor, TensorData};

use super::super::ask::ask;
use super::super::version::{Version, duration};

/// The lowest priority there is.
const LAST: u32 = u32::MAX;

/// What has been counted of a shadow.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShadowStatistics {
    /// Which version.
    pub version: VersionNumber,
    /// Copies made.
    pub copies: u64,
    /// Copies that were not made because too many waited, or because the machine was behind.
    pub dropped: u64,
    /// Copies that the version did not answer.
    pub failed: u64,
    /// Copies answered as the caller was.
    pub equal: u64,
    /// Copies answered otherwise.
    pub different: u64,
    /// The mean difference of numbers, over the answers that could be compared.
    pub mean_difference: f64,
    /// The largest.
    pub max_difference: f64,
    /// Nanoseconds in all that the version took, waiting included.
    pub ns: u64,
}

#[derive(Debug, Default)]
struct Differences {
    sum: f64,
    count: u64,
    max: f64,
}

/// The live counters of a shadow.
#[derive(Debug, Default)]
pub(crate) struct ShadowCounts {
    copies: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
    equal: AtomicU64,
    different: AtomicU64,
    ns: AtomicU64,
    differences: Mutex<Differences>,
}

/// A version that gets copies.
#[derive(Debug)]
pub(crate) struct Shadow {
    pub spec: ShadowCopySpec,
    salt: String,
    pub counts: Arc<ShadowCounts>,
    under_way: AtomicU32,
}

/// Counts a copy that waits or is worked on.
struct UnderWay(Arc<Shadow>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Shadow {
    pub fn new(spec: &ShadowCopySpec, salt: &str, counts: Option<Arc<ShadowCounts>>) -> Self {
        Self {
            spec: spec.clone(),
            salt: format!("{salt}/shadow/{}", spec.version),
            counts: counts.unwrap_or_default(),
            under_way: AtomicU32::new(0),
        }
    }

    pub fn version(&self) -> VersionNumber {
        VersionNumber(self.spec.version)
    }

    /// Whether this key is copied.
    pub fn wants(&self, key: &str) -> bool {
        self.spec.share >= 1.0 || sticky_position(&self.salt, key) < self.spec.share
    }

    /// A copy that was wanted and is not made.
    pub fn drop_copy(&self) {
        self.counts.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks the version what another has answered, and compares. Returns at once.
    pub fn copy(
        self: &Arc<Self>,
        version: &Arc<Version>,
        payload: Payload,
        context: &CallContext,
        answer: Payload,
    ) {
        let under_way = self.under_way.fetch_add(1, Ordering::AcqRel);
        let place = UnderWay(Arc::clone(self));
        if under_way >= self.spec.max_copies {
            self.drop_copy();
            return;
        }
        self.counts.copies.fetch_add(1, Ordering::Relaxed);
        let (shadow, version, mut context) = (Arc::clone(self), Arc::clone(version), context.clone());
        context.deadline = Some(Deadline::after(
            Stopwatch::start(),
            duration(version.spec.timeout),
        ));
        tokio::spawn(async move {
            let _place = place;
            let watch = Stopwatch::start();
            let result = ask(&version, payload, &context, LAST).await;
            let counts = &shadow.counts;
            match result {
                Ok(said) => {
                    counts.ns.fetch_add(watch.nanos(), Ordering::Relaxed);
                    counts.compared(compare(&said.payload, &answer, shadow.spec.tolerance));
                }
                Err(error) => {
                    tracing::debug!(endpoint = %version.endpoint, version = %version.number, %error, "a shadow did not answer");
                    counts.failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }

    pub fn statistics(&self) -> ShadowStatistics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.counts;
        let differences = counts.differences.lock().unwrap_or_else(PoisonError::into_inner);
        ShadowStatistics {
            version: self.version(),
            copies: get(&counts.copies),
            dropped: get(&counts.dropped),
            failed: get(&counts.failed),
            equal: get(&counts.equal),
            different: get(&counts.different),
            mean_difference: differences.sum / (differences.count.max(1) as f64),
            max_difference: differences.max,
            ns: get(&counts.ns),
        }
    }
}

impl ShadowCounts {
    fn compared(&self, comparison: Comparison) {
        let counter = if comparison.equal {
            &self.equal
        } else {
            &self.different
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if comparison.numbers > 0 {
            let mut differences = self.differences.lock().unwrap_or_else(PoisonError::into_inner);
            differences.sum += comparison.mean;
            differences.count += 1;
            differences.max = differences.max.max(comparison.max);
        }
    }
}

struct Comparison {
    equal: bool,
    numbers: usize,
    mean: f64,
    max: f64,
}

/// Compares two answers: numbers up to a tolerance relative to the larger, all else exactly.
fn compare(said: &Payload, answer: &Payload, tolerance: f64) -> Comparison {
    let mut comparison = Comparison {
        equal: said == answer,
        numbers: 0,
        mean: 0.0,
        max: 0.0,
    };
    let (Payload::Tensors(said), Payload::Tensors(answer)) = (said, answer) else {
        return comparison;
    };
    let mut equal = said.len() == answer.len();
    let mut sum = 0.0;
    for ours in answer {
        let theirs = said.iter().find(|tensor| tensor.name == ours.name);
        let Some(theirs) = theirs.filter(|theirs| theirs.shape == ours.shape) else {
            equal = false;
            continue;
        };
        let (Some(a), Some(b)) = (numbers(ours), numbers(theirs)) else {
            equal &= ours.data == theirs.data;
            continue;
        };
        for (a, b) in a.into_iter().zip(b) {
            if a.is_nan() || b.is_nan() {
                equal &= a.is_nan() && b.is_nan();
                continue;
            }
            let difference = if a == b { 0.0 } else { (a - b).abs() };
            equal &= difference <= tolerance * a.abs().max(b.abs());
            comparison.numbers += 1;
            comparison.max = comparison.max.max(difference);
            sum += difference;
        }
    }
    comparison.equal = equal;
    comparison.mean = sum / comparison.numbers.max(1) as f64;
    comparison
}

fn numbers(tensor: &Tensor) -> Option<Vec<f64>> {
    match tensor.data {
        TensorData::Fixed(_) => tensor.to_f64(),
        TensorData::Strings(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(values: &[f64], label: &str) -> Payload {
        Payload::Tensors(vec![
            Tensor::of_f64("y", vec![values.len()], values).unwrap(),
            Tensor::strings("label", vec![1], vec![Some(label.to_owned().into())]).unwrap(),
        ])
    }

    #[test]
    fn answers_are_equal_up_to_the_tolerance_and_their_difference_is_told() {
        let one = answer(&[1.0, 100.0, f64::NAN], "a");
        let close = compare(&answer(&[1.0, 100.000_01, f64::NAN], "a"), &one, 1e-6);
        assert!(close.equal && close.numbers == 2 && close.max > 0.0);
        let other = compare(&answer(&[1.5, 100.0, f64::NAN], "a"), &one, 1e-6);
        assert!(!other.equal && other.max == 0.5 && other.mean == 0.25);
        assert!(!compare(&answer(&[1.0, 100.0, f64::NAN], "b"), &one, 1e-6).equal);
        assert!(!compare(&answer(&[1.0], "a"), &one, 1e-6).equal, "another shape");
    }
}
