//! The input of drift methods, and its cleaning.

use crate::error::{Result, StatsError, not_empty};
use crate::ranks::sorted;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The values of a column over a period.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sample<'a> {
    /// Floating-point numbers; NaN and ±∞ count as missing.
    Numeric(&'a [f64]),
    /// Numbers of an integer-typed column without nulls (pandas turns one with nulls into floats). Some binning rules
    /// keep their bins at least 1 wide when both samples are of this kind.
    Integer(&'a [f64]),
    /// Categories; `None` is missing.
    Categorical(&'a [Option<&'a str>]),
}

/// The kind of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Numbers with an order and distances.
    Numeric,
    /// Names without order.
    Categorical,
}

impl Kind {
    /// The kind in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Numeric => "numeric",
            Self::Categorical => "categorical",
        }
    }
}

impl Sample<'_> {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Numeric(_) | Self::Integer(_) => Kind::Numeric,
            Self::Categorical(_) => Kind::Categorical,
        }
    }

    /// Rows, missing ones included.
    pub fn rows(&self) -> usize {
        match self {
            Self::Numeric(values) | Self::Integer(values) => values.len(),
            Self::Categorical(values) => values.len(),
        }
    }
}

/// Two samples of a kind after cleaning: nothing missing, neither side empty, numbers ascending.
#[derive(Debug)]
pub struct Pair<'a> {
    data: Data<'a>,
}

#[derive(Debug)]
enum Data<'a> {
    Numeric {
        reference: Vec<f64>,
        current: Vec<f64>,
        integer: bool,
    },
    Categorical {
        reference: Vec<&'a str>,
        current: Vec<&'a str>,
    },
}

impl<'a> Pair<'a> {
    /// Drops missing values. Fails when a side is empty then, or when the kinds differ.
    pub fn clean(method: &'static str, reference: &Sample<'a>, current: &Sample<'a>) -> Result<Self> {
        let data = match (reference, current) {
            (Sample::Categorical(reference), Sample::Categorical(current)) => Data::Categorical {
                reference: reference.iter().copied().flatten().collect(),
                current: current.iter().copied().flatten().collect(),
            },
            (
                Sample::Numeric(before) | Sample::Integer(before),
                Sample::Numeric(after) | Sample::Integer(after),
            ) => Data::Numeric {
                reference: clean_numbers(before),
                current: clean_numbers(after),
                integer: matches!((reference, current), (Sample::Integer(_), Sample::Integer(_))),
            },
            _ => {
                let why = format!(
                    "the reference is {} and the current sample is {}",
                    reference.kind().name(),
                    current.kind().name()
                );
                return Err(StatsError::not_applicable(method, why));
            }
        };
        let pair = Self { data };
        not_empty("reference", pair.reference_rows())?;
        not_empty("current", pair.current_rows())?;
        Ok(pair)
    }

    /// The kind of both samples.
    pub fn kind(&self) -> Kind {
        match self.data {
            Data::Numeric { .. } => Kind::Numeric,
            Data::Categorical { .. } => Kind::Categorical,
        }
    }

    /// Reference rows that are not missing.
    pub fn reference_rows(&self) -> usize {
        match &self.data {
            Data::Numeric { reference, .. } => reference.len(),
            Data::Categorical { reference, .. } => reference.len(),
        }
    }

    /// Current rows that are not missing.
    pub fn current_rows(&self) -> usize {
        match &self.data {
            Data::Numeric { current, .. } => current.len(),
            Data::Categorical { current, .. } => current.len(),
        }
    }

    /// Are both samples integer-typed?
    pub(super) fn is_integer(&self) -> bool {
        matches!(self.data, Data::Numeric { integer: true, .. })
    }

    /// Reference and current numbers, each ascending.
    pub(super) fn numbers(&self, method: &'static str) -> Result<(&[f64], &[f64])> {
        match &self.data {
            Data::Numeric {
                reference, current, ..
            } => Ok((reference, current)),
            Data::Categorical { .. } => Err(StatsError::not_applicable(
                method,
                "it takes numeric columns only",
            )),
        }
    }

    /// How often each value of the union occurs, `(reference, current)`, in ascending order of value. Categories
    /// are in numeric order when all of them are numbers, so that integer-coded labels sort as their numbers do.
    pub(super) fn value_counts(&self) -> Vec<(u64, u64)> {
        match &self.data {
            Data::Numeric {
                reference, current, ..
            } => number_counts(reference, current),
            Data::Categorical { reference, current } => category_counts(reference, current),
        }
    }

    /// Distinct values of both samples together.
    pub(super) fn distinct(&self) -> usize {
        self.value_counts().len()
    }

    /// Distinct values of the reference, and of the current sample.
    pub(super) fn distinct_each(&self) -> (usize, usize) {
        let counts = self.value_counts();
        (
            counts.iter().filter(|(r, _)| *r > 0).count(),
            counts.iter().filter(|(_, c)| *c > 0).count(),
        )
    }
}

fn clean_numbers(values: &[f64]) -> Vec<f64> {
    let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    sorted(&finite)
}

fn number_counts(reference: &[f64], current: &[f64]) -> Vec<(u64, u64)> {
    let mut counts = Vec::new();
    let (mut i, mut j) = (0, 0);
    loop {
        let value = match (reference.get(i), current.get(j)) {
            (Some(a), Some(b)) => a.min(*b),
            (Some(only), None) | (None, Some(only)) => *only,
            (None, None) => return counts,
        };
        let (start_i, start_j) = (i, j);
        while reference.get(i) == Some(&value) {
            i += 1;
        }
        while current.get(j) == Some(&value) {
            j += 1;
        }
        counts.push(((i - start_i) as u64, (j - start_j) as u64));
    }
}

fn category_counts(reference: &[&str], current: &[&str]) -> Vec<(u64, u64)> {
    let mut counts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for value in reference {
        counts.entry(value).or_default().0 += 1;
    }
    for value in current {
        counts.entry(value).or_default().1 += 1;
    }
    let numbers: Option<Vec<f64>> = counts
        .keys()
        .map(|key| key.parse().ok().filter(|n: &f64| n.is_finite()))
        .collect();
    let counts: Vec<(u64, u64)> = counts.into_values().collect();
    match numbers {
        None => counts,
        Some(numbers) => crate::ranks::argsort(&numbers)
            .into_iter()
            .map(|i| counts[i as usize])
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_in_order_of_value() {
        let (a, b) = ([3.0, f64::NAN, -0.0, 3.0], [0.0, 5.0, f64::INFINITY]);
        let pair = Pair::clean("test", &Sample::Numeric(&a), &Sample::Numeric(&b)).unwrap();
        assert_eq!(pair.value_counts(), [(1, 1), (2, 0), (0, 1)]);
        assert_eq!(pair.distinct_each(), (2, 2));
        let (a, b) = ([Some("10"), Some("9"), None], [Some("10")]);
        let pair = Pair::clean("test", &Sample::Categorical(&a), &Sample::Categorical(&b)).unwrap();
        assert_eq!(pair.value_counts(), [(1, 0), (1, 1)]);
    }
}
