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

/// How one input becomes a number.
#[derive(Debug)]
enum Encoder {
    Number,
    Code(Codes),
}

/// How a row becomes numbers, in the order in which the model reads them.
#[derive(Debug)]
pub(crate) struct RowEncoder {
    encoders: Vec<Encoder>,
    rounding: Rounding,
}

impl RowEncoder {
    /// From a manifest's features.
    pub fn new(features: &[ManifestFeature], coding: Coding) -> Self {
        let encoders = features
            .iter()
            .map(|feature| match feature.kind {
                FeatureKind::Numeric => Encoder::Number,
                FeatureKind::Categorical => Encoder::Code(codes(&feature.categories, coding.first_code)),
            })
            .collect();
        Self {
            encoders,
            rounding: coding.rounding,
        }
    }

    /// Numbers a row.
    pub fn width(&self) -> usize {
        self.encoders.len()
    }

    /// Writes `rows` rows from `first` on into `out`, input by input. A level that training never saw is missing.
    pub fn encode(&self, columns: &[&Column], first: usize, rows: usize, out: &mut [f64]) {
        let inputs = out.chunks_exact_mut(rows.max(1));
        for ((encoder, column), cells) in self.encoders.iter().zip(columns).zip(inputs) {
            let cells = cells.iter_mut();
            match (encoder, column) {
                (Encoder::Number, Column::Numeric(values)) => {
                    let values = cells.zip(&values[first..]);
                    match self.rounding {
                        Rounding::None => values.for_each(|(cell, &value)| *cell = value),
                        Rounding::TinyIsZero => values.for_each(|(cell, &value)| {
                            *cell = if value.abs() <= LIGHTGBM_ZERO { 0.0 } else { value };
                        }),
                        Rounding::F32 => values.for_each(|(cell, &value)| *cell = f64::from(value as f32)),
                    }
                }
                (Encoder::Code(codes), Column::Categorical(levels)) => {
                    for (cell, level) in cells.zip(&levels[first..]) {
                        *cell = code_of(codes, level.as_deref());
                    }
                }
                // `columns_for` lets no other pair through.
                (Encoder::Number, Column::Categorical(_)) | (Encoder::Code(_), Column::Numeric(_)) => {
                    debug_assert!(false, "a column of another kind came past `columns_for`");
                    cells.for_each(|cell| *cell = f64::NAN);
                }
            }
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
