//! From a table's columns to the tensors that a graph takes.

use bytes::Bytes;
use tidemill_core::frame::{Column, FeatureKind};
use tidemill_core::ports::PortError;
use tidemill_core::tensors::{DataType, Tensor};

use super::proto::{Graph, ValueInfo};
use super::servable::required;
use super::{OnnxError, tensors};
use crate::manifest::ManifestFeature;

/// A tensor that columns go into.
#[derive(Debug)]
pub(super) struct Input {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub datatype: DataType,
    /// How many columns it takes, side by side.
    pub width: usize,
    /// Whether it has a dimension for them.
    pub flat: bool,
}

/// What the graph takes. A width of 0 is not said.
pub(super) fn inputs(graph: &Graph<'_>) -> Result<Vec<Input>, OnnxError> {
    required(graph)
        .map(|info: &ValueInfo<'_>| {
            let unsupported = |what: &str| {
                OnnxError::Unsupported(format!(
                    "input `{}` {what}; serve the model as tensors, without a table",
                    info.name
                ))
            };
            let datatype = tensors::datatype(info.element)
                .filter(|_| info.is_tensor)
                .ok_or_else(|| unsupported("is no tensor"))?;
            let shape = info.shape.as_deref().unwrap_or(&[-1, -1]);
            let (width, flat) = match shape {
                [_] => (1, true),
                [_, width] => (usize::try_from(*width).unwrap_or(0), false),
                _ => return Err(unsupported("has more than two dimensions")),
            };
            Ok(Input {
                name: info.name.to_owned(),
                datatype,
                width,
                flat,
            })
        })
        .collect()
}

/// Names for the columns: an input of one column gives it its own.
pub(super) fn default_features(inputs: &[Input]) -> Vec<ManifestFeature> {
    let names = inputs.iter().flat_map(|input| {
        (0..input.width).map(|position| match input.width {
            1 => (input.name.clone(), input.datatype),
            _ => (format!("{}_{position}", input.name), input.datatype),
        })
    });
    names
        .map(|(name, datatype)| ManifestFeature {
            name,
            kind: kind(datatype),
            categories: Vec::new(),
        })
        .collect()
}

fn kind(datatype: DataType) -> FeatureKind {
    if datatype == DataType::Bytes {
        FeatureKind::Categorical
    } else {
        FeatureKind::Numeric
    }
}

/// Gives each input its columns, in order; one whose width is not said takes what the others leave.
pub(super) fn fit(mut inputs: Vec<Input>, features: &[ManifestFeature]) -> Result<Vec<Input>, String> {
    let said: usize = inputs.iter().map(|input| input.width).sum();
    let open: Vec<usize> = (0..inputs.len())
        .filter(|&input| inputs[input].width == 0)
        .collect();
    if let (&[open], Some(left)) = (open.as_slice(), features.len().checked_sub(said)) {
        inputs[open].width = left;
    }
    let total: usize = inputs.iter().map(|input| input.width).sum();
    if total != features.len() || inputs.iter().any(|input| input.width == 0) {
        return Err(format!(
            "it takes {total} columns in {} tensors, `features` lists {}; list one feature a column, in the order of the tensors",
            inputs.len(),
            features.len()
        ));
    }
    let mut columns = features.iter();
    for input in &inputs {
        for feature in columns.by_ref().take(input.width) {
            if feature.kind != kind(input.datatype) {
                return Err(format!(
                    "feature `{}` goes into tensor `{}`, which is {}; change its kind",
                    feature.name,
                    input.name,
                    input.datatype.name()
                ));
            }
        }
    }
    Ok(inputs)
}

/// Columns side by side, row by row.
pub(super) fn tensor(input: &Input, columns: &[&Column], rows: usize) -> Result<Tensor, PortError> {
    let shape = if input.flat {
        vec![rows]
    } else {
        vec![rows, input.width]
    };
    let wrong =
        |error: tidemill_core::tensors::TensorError| PortError::internal("internal", error.to_string());
    if input.datatype == DataType::Bytes {
        let mut texts = vec![Some(Bytes::new()); rows * input.width];
        for (position, column) in columns.iter().enumerate() {
            if let Column::Categorical(levels) = column {
                let cells = texts.iter_mut().skip(position).step_by(input.width);
                for (cell, level) in cells.zip(levels) {
                    // ONNX has no missing text; the empty one stands for it.
                    *cell = Some(
                        level
                            .as_deref()
                            .map_or_else(Bytes::new, |level| Bytes::copy_from_slice(level.as_bytes())),
                    );
                }
            }
        }
        return Tensor::strings(input.name.as_str(), shape, texts).map_err(wrong);
    }
    let mut numbers = vec![0.0; rows * input.width];
    for (position, column) in columns.iter().enumerate() {
        if let Column::Numeric(values) = column {
            let cells = numbers.iter_mut().skip(position).step_by(input.width);
            cells.zip(values).for_each(|(cell, &value)| *cell = value);
        }
    }
    let floating = matches!(input.datatype, DataType::Fp32 | DataType::Fp64);
    if !floating
        && let Some(odd) = numbers
            .iter()
            .find(|value| value.fract() != 0.0 || value.is_nan())
    {
        return Err(PortError::caller(
            "features_mismatch",
            format!(
                "tensor `{}` of the model takes whole numbers, and `{odd}` came; send a whole number",
                input.name
            ),
        ));
    }
    if matches!(input.datatype, DataType::Fp16 | DataType::Bf16 | DataType::Bytes) {
        return Err(PortError::caller(
            "features_mismatch",
            format!(
                "tensor `{}` of the model is {}, which no column fits",
                input.name,
                input.datatype.name()
            ),
        ));
    }
    Tensor::of_numbers(input.name.as_str(), input.datatype, shape, &numbers).map_err(wrong)
}
