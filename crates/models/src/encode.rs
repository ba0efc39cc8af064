//! From typed columns to the numbers that trees compare.

use std::collections::HashMap;

use tidemill_core::frame::{Column, FeatureKind, FeatureSchema, Frame};
use tidemill_core::ports::PortError;

use crate::manifest::ManifestFeature;

/// `LightGBM` reads numbers of at most this size as zero (`kZeroThreshold`, a C++ `float`).
pub(crate) const LIGHTGBM_ZERO: f64 = 1e-35_f32 as f64;

/// How a format wants its inputs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Coding {
    /// The code of the first level; the others follow.
    pub first_code: u32,
    /// What happens to numbers.
    pub rounding: Rounding,
    /// The trainer kept so many levels of a column at most: where there are as many, others may have been seen too.
    pub most_levels: Option<usize>,
}

/// How numbers are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// As they are.
    None,
    /// Tiny ones are zero (`LightGBM`).
    TinyIsZero,
    /// As `float` (`XGBoost`, scikit-learn's trees, ONNX).
    F32,
}

/// The codes of a categorical column's levels.
pub(crate) type Codes = HashMap<Box<str>, f64>;

/// How a value of a column is read.
#[derive(Debug)]
pub(crate) enum Read {
    /// A number as it is.
    Number,
    /// A text as the code of its level,
    Texts {
        /// which are these,
        codes: Codes,
        /// or as this if it is missing,
        missing: f64,
        /// or as this if training never saw it.
        unknown: f64,
    },
    /// A number as the position of its level.
    Levels {
        /// The levels.
        levels: Vec<f64>,
        /// What a missing number is read as.
        missing: f64,
        /// What another number is read as.
        unknown: f64,
    },
}

impl Read {
    /// Texts as the positions of these levels.
    pub fn texts(levels: &[String], missing: f64, unknown: f64) -> Self {
        Self::Texts {
            codes: codes(levels, 0),
            missing,
            unknown,
        }
    }
}

/// What is done with a number before trees compare it, as scikit-learn's transformers do it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Step {
    /// This instead of a missing value.
    Impute(f64),
    /// Less this.
    Subtract(f64),
    /// Divided by this.
    Divide(f64),
    /// Times this.
    Multiply(f64),
    /// Plus this.
    Add(f64),
    /// Between these.
    Clip(f64, f64),
    /// 1 if it is this, else 0.
    Equals(f64),
    /// Less the first, times the second, in `float` (ONNX's `Scaler`).
    Scaler(f32, f32),
}

impl Step {
    /// Does it to all of these.
    pub fn apply(self, cells: &mut [f64]) {
        let each = cells.iter_mut();
        match self {
            Self::Impute(value) => each.filter(|cell| cell.is_nan()).for_each(|cell| *cell = value),
            Self::Subtract(value) => each.for_each(|cell| *cell -= value),
            Self::Divide(value) => each.for_each(|cell| *cell /= value),
            Self::Multiply(value) => each.for_each(|cell| *cell *= value),
            Self::Add(value) => each.for_each(|cell| *cell += value),
            Self::Clip(low, high) => each.for_each(|cell| {
                if !cell.is_nan() {
                    *cell = cell.max(low).min(high);
                }
            }),
            Self::Scaler(offset, scale) => {
                each.for_each(|cell| *cell = f64::from((*cell as f32 - offset) * scale));
            }
            Self::Equals(value) => each.for_each(|cell| *cell = f64::from(u8::from(*cell == value))),
        }
    }
}

/// A number that trees compare.
#[derive(Debug)]
pub(crate) struct Input {
    /// The column that it comes from.
    pub column: usize,
    /// How that is read.
    pub read: Read,
    /// What is done with it.
    pub steps: Vec<Step>,
}

/// How a row becomes numbers, in the order in which the model reads them.
#[derive(Debug)]
pub(crate) struct RowEncoder {
    inputs: Vec<Input>,
    rounding: Rounding,
    most_levels: Option<usize>,
}

impl RowEncoder {
    /// From a manifest's features, one number each.
    pub fn new(features: &[ManifestFeature], coding: Coding) -> Self {
        let inputs = features.iter().enumerate().map(|(column, feature)| Input {
            column,
            read: match feature.kind {
                FeatureKind::Numeric => Read::Number,
                FeatureKind::Categorical => Read::Texts {
                    codes: if coding.most_levels.is_none() {
                        spelt(&feature.categories, coding.first_code)
                    } else {
                        codes(&feature.categories, coding.first_code)
                    },
                    missing: f64::NAN,
                    unknown: f64::NAN,
                },
            },
            steps: Vec::new(),
        });
        Self {
            most_levels: coding.most_levels,
            ..Self::of(inputs.collect(), coding.rounding)
        }
    }

    /// From inputs of columns that are there.
    pub fn of(inputs: Vec<Input>, rounding: Rounding) -> Self {
        Self {
            inputs,
            rounding,
            most_levels: None,
        }
    }

    /// Numbers a row.
    pub fn width(&self) -> usize {
        self.inputs.len()
    }

    /// The column that a number comes from.
    pub fn column(&self, input: usize) -> usize {
        self.inputs[input].column
    }

    /// Whether training saw this text in a column; `None` where it is not read by levels.
    pub fn knows(&self, column: usize, value: &str) -> Option<bool> {
        let mut reads = self.inputs.iter().filter(|input| input.column == column);
        reads.find_map(|input| match &input.read {
            Read::Texts { codes, .. } if codes.contains_key(value) => Some(true),
            Read::Texts { codes, .. } => {
                let cut = self.most_levels.is_some_and(|most| codes.len() >= most);
                (!cut).then_some(false)
            }
            Read::Number | Read::Levels { .. } => None,
        })
    }

    /// Writes `rows` rows from `first` on into `out`, input by input.
    pub fn encode(&self, columns: &[&Column], first: usize, rows: usize, out: &mut [f64]) {
        for (input, cells) in self.inputs.iter().zip(out.chunks_exact_mut(rows.max(1))) {
            read(&input.read, columns[input.column], first, cells);
            for step in &input.steps {
                step.apply(cells);
            }
            match self.rounding {
                Rounding::None => {}
                Rounding::TinyIsZero => {
                    for cell in cells.iter_mut().filter(|cell| cell.abs() <= LIGHTGBM_ZERO) {
                        *cell = 0.0;
                    }
                }
                Rounding::F32 => {
                    for cell in cells {
                        *cell = f64::from(*cell as f32);
                    }
                }
            }
        }
    }
}

fn read(read: &Read, column: &Column, first: usize, cells: &mut [f64]) {
    match (read, column) {
        (Read::Number, Column::Numeric(values)) => cells.copy_from_slice(&values[first..][..cells.len()]),
        (
            Read::Texts {
                codes,
                missing,
                unknown,
            },
            Column::Categorical(levels),
        ) => {
            for (cell, level) in cells.iter_mut().zip(&levels[first..]) {
                *cell = match level {
                    None => *missing,
                    Some(level) => codes.get(level.as_ref()).copied().unwrap_or(*unknown),
                };
            }
        }
        (
            Read::Levels {
                levels,
                missing,
                unknown,
            },
            Column::Numeric(values),
        ) => {
            for (cell, value) in cells.iter_mut().zip(&values[first..]) {
                let place = levels.iter().position(|level| level == value);
                *cell = match place {
                    Some(place) => place as f64,
                    None if value.is_nan() => *missing,
                    None => *unknown,
                };
            }
        }
        // `columns_for` lets no other pair through.
        (Read::Number | Read::Levels { .. }, Column::Categorical(_))
        | (Read::Texts { .. }, Column::Numeric(_)) => {
            debug_assert!(false, "a column of another kind came past `columns_for`");
            cells.fill(f64::NAN);
        }
    }
}

/// The code of each level: its position, counted from `first`.
pub(crate) fn codes(levels: &[String], first: u32) -> Codes {
    let numbered = levels.iter().zip(first..);
    numbered
        .map(|(level, code)| (level.as_str().into(), f64::from(code)))
        .collect()
}

/// As [`codes`], and where all levels are numbers or truth values of pandas, in the other ways that these are written: `3` for `3.0`,
/// `True` for `true`.
fn spelt(levels: &[String], first: u32) -> Codes {
    let mut codes = codes(levels, first);
    let truths = levels
        .iter()
        .all(|level| matches!(level.as_str(), "true" | "false"));
    let numbers = levels
        .iter()
        .all(|level| level.parse::<f64>().is_ok_and(f64::is_finite));
    for (level, code) in levels.iter().zip(first..) {
        let mut add = |text: String| {
            codes.entry(text.into()).or_insert(f64::from(code));
        };
        if truths {
            add(if level == "true" {
                "True".to_owned()
            } else {
                "False".to_owned()
            });
        } else if numbers && let Ok(number) = level.parse::<f64>() {
            add(format!("{number}"));
            add(format!("{number:?}"));
        }
    }
    codes
}

/// A level's code; NaN if it is missing or unknown.
pub(crate) fn code_of(codes: &Codes, level: Option<&str>) -> f64 {
    level
        .and_then(|level| codes.get(level))
        .copied()
        .unwrap_or(f64::NAN)
}

/// The columns of a frame in the order of `wanted`. Columns may come in another order, and more may come.
pub(crate) fn columns_for<'a>(wanted: &FeatureSchema, rows: &'a Frame) -> Result<Vec<&'a Column>, PortError> {
    let got = rows.schema().features.as_slice();
    let in_order = std::ptr::eq(wanted, rows.schema().as_ref()) || wanted.features.as_slice() == got;
    if in_order {
        return Ok(rows.columns().iter().collect());
    }
    let mut columns = Vec::with_capacity(wanted.features.len());
    let mut problems = Vec::new();
    for feature in &wanted.features {
        match rows.column(&feature.name) {
            None => problems.push(format!("`{}` is not there", feature.name)),
            Some(column) if column.kind() != feature.kind => problems.push(format!(
                "`{}` is {}, expected {}",
                feature.name,
                kind_name(column.kind()),
                kind_name(feature.kind)
            )),
            Some(column) => columns.push(column),
        }
    }
    if problems.is_empty() {
        return Ok(columns);
    }
    Err(PortError::caller(
        "features_mismatch",
        format!(
            "the rows do not have the columns that the model reads: {}; send every feature of the model's signature with its \
             kind",
            problems.join(", ")
        ),
    ))
}

/// A kind as users write it.
pub(crate) fn kind_name(kind: FeatureKind) -> &'static str {
    match kind {
        FeatureKind::Numeric => "numeric",
        FeatureKind::Categorical => "categorical",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_truth_values_among_levels_are_known_however_they_are_written() {
        let levels = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let codes = spelt(&levels(&["1.5", "3.0"]), 0);
        assert_eq!([codes["3"], codes["3.0"], codes["1.5"]], [1.0, 1.0, 0.0]);
        assert_eq!(spelt(&levels(&["4", "7"]), 0)["7.0"], 1.0);
        assert_eq!(spelt(&levels(&["false", "true"]), 0)["True"], 1.0);
        assert!(!spelt(&levels(&["3", "x"]), 0).contains_key("3.0"));
    }
}
