//! Great Expectations' validation result as JSON.

use serde_json::{Map, Value, json};
use tidemill_core::clock::Timestamp;
use tidemill_core::spec::{ExpectationSpec, Severity};

use super::check::{Refused, Verdict};

/// What became of one expectation.
pub enum Outcome {
    /// It was checked.
    Checked(Verdict),
    /// It could not be checked: it fails, and says why.
    Refused(Refused),
    /// It does not apply to these rows: neither success nor failure.
    Skipped(String),
}

impl Outcome {
    /// Success, failure, or not counted.
    pub fn success(&self) -> Option<bool> {
        match self {
            Self::Checked(verdict) => Some(verdict.success),
            Self::Refused(_) => Some(false),
            Self::Skipped(_) => None,
        }
    }
}

/// The result of one expectation.
fn one(spec: &ExpectationSpec, outcome: &Outcome) -> Value {
    let (result, refused, meta) = match outcome {
        Outcome::Checked(verdict) => (verdict.result.clone(), None, json!({})),
        Outcome::Refused(refused) => (Map::new(), Some(refused.0.as_str()), json!({})),
        Outcome::Skipped(why) => (Map::new(), None, json!({ "skipped": why })),
    };
    json!({
        "success": outcome.success(),
        "expectation_config": {
            "type": spec.kind,
            "kwargs": spec.kwargs,
            "meta": spec.meta,
            "severity": spec.severity,
        },
        "result": result,
        "meta": meta,
        "exception_info": {
            "raised_exception": refused.is_some(),
            "exception_message": refused,
            "exception_traceback": null,
        },
    })
}

/// The result of a suite, and whether a critical expectation failed.
pub fn whole(
    suite: &str,
    run_time: Timestamp,
    specs: &[ExpectationSpec],
    outcomes: &[Outcome],
) -> (Value, bool) {
    let evaluated = outcomes.iter().filter_map(Outcome::success).count();
    let successful = outcomes.iter().filter(|o| o.success() == Some(true)).count();
    let critical = specs
        .iter()
        .zip(outcomes)
        .any(|(spec, outcome)| outcome.success() == Some(false) && spec.severity == Severity::Critical);
    let per_cent = if evaluated == 0 {
        Value::Null
    } else {
        json!(successful as f64 / evaluated as f64 * 100.0)
    };
    let results: Vec<Value> = specs.iter().zip(outcomes).map(|(s, o)| one(s, o)).collect();
    let value = json!({
        "success": successful == evaluated,
        "suite_name": suite,
        "suite_parameters": {},
        "statistics": {
            "evaluated_expectations": evaluated,
            "successful_expectations": successful,
            "unsuccessful_expectations": evaluated - successful,
            "success_percent": per_cent,
        },
        "meta": {
            "run_id": { "run_name": null, "run_time": run_time },
            "skipped_expectations": outcomes.len() - evaluated,
        },
        "results": results,
    });
    (value, critical)
}
