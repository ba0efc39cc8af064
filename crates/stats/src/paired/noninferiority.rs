//! Pass, fail, or not enough data: one verdict from a difference and its standard error.

use crate::error::{Result, StatsError, open_unit};
use crate::special::normal_quantile;
use serde::{Deserialize, Serialize};

/// The answer of a gate that compares a challenger with the champion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The challenger is shown to be no worse than the margin allows.
    Pass,
    /// The challenger is shown to be worse.
    Fail,
    /// The data decide neither: more rows are needed.
    Inconclusive,
}

/// A verdict with the numbers it rests on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Noninferiority {
    /// The verdict.
    pub verdict: Verdict,
    /// Challenger minus champion; higher is better for the challenger.
    pub difference: f64,
    /// One-sided lower bound of the difference.
    pub lower: f64,
    /// One-sided upper bound of the difference.
    pub upper: f64,
    /// The loss that is tolerated, 0 or more.
    pub margin: f64,
    /// Confidence of each bound.
    pub confidence: f64,
}

/// Judges `difference` (challenger − champion, higher is better) against a tolerated loss of `margin`.
///
/// With one-sided bounds at `confidence`: pass when the lower bound lies above −margin; otherwise fail when the
/// upper bound lies below 0 (significantly worse than the champion, hence also when it lies below −margin);
/// otherwise inconclusive. A difference that is significantly worse, but by less than the margin, passes: that is
/// what the margin says.
pub fn noninferiority(
    difference: f64,
    std_error: f64,
    margin: f64,
    confidence: f64,
) -> Result<Noninferiority> {
    open_unit("confidence", confidence)?;
    if !difference.is_finite() {
        return Err(StatsError::NotFinite {
            index: 0,
            value: difference,
        });
    }
    if !(std_error >= 0.0 && std_error.is_finite()) {
        return Err(StatsError::ParameterOutOfRange {
            name: "std_error",
            value: std_error,
            expected: "a finite number, 0 or more",
        });
    }
    let z = normal_quantile(confidence);
    judge(
        difference,
        difference - z * std_error,
        difference + z * std_error,
        margin,
        confidence,
    )
}

/// The same verdict from bounds found in another way (bootstrap, Tango, confidence sequence).
pub fn judge(
    difference: f64,
    lower: f64,
    upper: f64,
    margin: f64,
    confidence: f64,
) -> Result<Noninferiority> {
    if !(margin >= 0.0 && margin.is_finite()) {
        return Err(StatsError::ParameterOutOfRange {
            name: "margin",
            value: margin,
            expected: "a finite number, 0 or more",
        });
    }
    let verdict = if lower > -margin {
        Verdict::Pass
    } else if upper < 0.0 {
        Verdict::Fail
    } else {
        Verdict::Inconclusive
    };
    Ok(Noninferiority {
        verdict,
        difference,
        lower,
        upper,
        margin,
        confidence,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(difference: f64, std_error: f64) -> Verdict {
        noninferiority(difference, std_error, 0.01, 0.95).unwrap().verdict
    }

    #[test]
    fn clearly_better_passes_clearly_worse_fails_and_few_data_hold() {
        assert_eq!(verdict(0.02, 0.005), Verdict::Pass);
        assert_eq!(verdict(-0.03, 0.005), Verdict::Fail);
        assert_eq!(verdict(-0.015, 0.005), Verdict::Fail);
        assert_eq!(verdict(0.0, 0.02), Verdict::Inconclusive);
    }

    #[test]
    fn equal_models_without_variance_pass_with_a_margin_and_hold_without() {
        assert_eq!(verdict(0.0, 0.0), Verdict::Pass);
        assert_eq!(
            noninferiority(0.0, 0.0, 0.0, 0.95).unwrap().verdict,
            Verdict::Inconclusive
        );
    }

    #[test]
    fn verdicts_are_written_in_snake_case() {
        assert_eq!(
            serde_json::to_string(&Verdict::Inconclusive).unwrap(),
            "\"inconclusive\""
        );
    }
}
