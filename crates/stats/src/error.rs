//! What can go wrong when a number is asked for.

/// Why no number could be given. Every variant says what was wrong with the input, so that the caller can tell
/// "not enough data" from "wrong method" from "a bug upstream".
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StatsError {
    /// Nothing is left to compute on (after missing values are dropped).
    #[error("`{what}` is empty: give at least one value that is not missing")]
    Empty {
        /// The name of the input that is empty.
        what: &'static str,
    },
    /// Two inputs that belong together have different lengths.
    #[error("`{what}` has {found} values where {expected} were expected: pass one value per row")]
    LengthMismatch {
        /// The name of the input with the wrong length.
        what: &'static str,
        /// The length of the input that it must match.
        expected: usize,
        /// The length that it has.
        found: usize,
    },
    /// A NaN or an infinity where a finite number is needed.
    #[error("value `{value}` at index {index} is not finite: drop or impute it first")]
    NotFinite {
        /// The position of the first such value.
        index: usize,
        /// The value.
        value: f64,
    },
    /// A metric that compares classes got rows of one class only.
    #[error("all {rows} rows are of one class: wait until labels of both classes are there")]
    OneClassOnly {
        /// How many rows there are.
        rows: usize,
    },
    /// The formula has no value on this input, for instance a division by a variance of zero.
    #[error("the statistic is undefined here: {why}")]
    Degenerate {
        /// What makes it undefined.
        why: String,
    },
    /// The method does not apply to this kind of input.
    #[error("method `{method}` is not applicable: {why}")]
    NotApplicable {
        /// The method.
        method: &'static str,
        /// Why not, and what would apply.
        why: String,
    },
    /// A parameter is outside the range for which the formula holds.
    #[error("parameter `{name}` is `{value}`, expected {expected}")]
    ParameterOutOfRange {
        /// The parameter.
        name: &'static str,
        /// The value that was given.
        value: f64,
        /// The range, in words.
        expected: &'static str,
    },
}

/// Shorthand for results of this crate.
pub type Result<T, E = StatsError> = std::result::Result<T, E>;

impl StatsError {
    pub(crate) fn degenerate(why: impl Into<String>) -> Self {
        Self::Degenerate { why: why.into() }
    }

    pub(crate) fn not_applicable(method: &'static str, why: impl Into<String>) -> Self {
        Self::NotApplicable {
            method,
            why: why.into(),
        }
    }
}

/// `LengthMismatch` unless both lengths agree.
pub(crate) fn same_length(what: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found {
        Ok(())
    } else {
        Err(StatsError::LengthMismatch {
            what,
            expected,
            found,
        })
    }
}

/// `NotFinite` at the first NaN or infinity.
pub(crate) fn all_finite(values: &[f64]) -> Result<()> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(index) => Err(StatsError::NotFinite {
            index,
            value: values[index],
        }),
    }
}

/// `Empty` when there is no value.
pub(crate) fn not_empty(what: &'static str, len: usize) -> Result<()> {
    if len == 0 {
        Err(StatsError::Empty { what })
    } else {
        Ok(())
    }
}

/// `ParameterOutOfRange` unless `0 < value < 1`.
pub(crate) fn open_unit(name: &'static str, value: f64) -> Result<()> {
    if value > 0.0 && value < 1.0 {
        Ok(())
    } else {
        Err(StatsError::ParameterOutOfRange {
            name,
            value,
            expected: "a number above 0 and below 1",
        })
    }
}

/// `ParameterOutOfRange` unless `value` is finite and above zero.
pub(crate) fn positive(name: &'static str, value: f64) -> Result<()> {
    if value > 0.0 && value.is_finite() {
        Ok(())
    } else {
        Err(StatsError::ParameterOutOfRange {
            name,
            value,
            expected: "a finite number above 0",
        })
    }
}

/// The number itself, or `Degenerate` when a formula ended in NaN or infinity.
pub(crate) fn finite(what: &str, value: f64) -> Result<f64> {
    if value.is_finite() {
        Ok(value)
    } else {
        Err(StatsError::degenerate(format!("{what} came out as `{value}`")))
    }
}
