//! Tensors of a request: those written as JSON and those that came as bytes, as columns for a table's model and as typed tensors for
//! any other.

use std::sync::Arc;

use bytes::Bytes;
use tidemill_core::frame::{Column, FeatureKind, FeatureSchema, Frame};
use tidemill_core::tensors::{DataType, Tensor, TensorData};

use super::values::{Takes, fixed_cells, is_float, push};
use super::{Call, Cell, CellColumn, Findings, Rows, all_numeric};
use crate::error::ApiError;

/// A tensor of a request.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// Its values came as JSON.
    Json(JsonTensor),
    /// Its values came as bytes.
    Typed(Tensor),
}

/// A tensor whose values came as JSON, not yet checked.
#[derive(Debug, Clone)]
pub(crate) struct JsonTensor {
    pub name: String,
    pub shape: Vec<i64>,
    pub datatype: String,
    /// Row-major.
    pub data: Vec<Cell>,
}

const DATATYPES: &str =
    "BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, BF16, FP32, FP64 or BYTES";

/// The typed tensors of a request.
pub(crate) fn typed(inputs: Vec<Input>) -> Result<Vec<Tensor>, ApiError> {
    let mut findings = Findings::default();
    let mut tensors = Vec::with_capacity(inputs.len());
    for input in inputs {
        match input {
            Input::Typed(tensor) => tensors.push(tensor),
            Input::Json(json) => tensors.extend(json.typed(&mut findings)),
        }
    }
    findings.finish()?;
    Ok(tensors)
}

/// One column a feature: from one tensor each, or from a single matrix.
fn columns(inputs: Vec<Input>, call: &Call) -> Result<Vec<CellColumn>, ApiError> {
    let schema = &call.route.schema;
    let mut findings = Findings::default();
    if inputs.is_empty() {
        findings.field("inputs", "no tensor came", "one tensor a feature".to_owned());
    }
    let mut tensors = Vec::with_capacity(inputs.len());
    for input in inputs {
        match input {
            Input::Json(json) => {
                json.check(&mut findings);
                tensors.push(json);
            }
            Input::Typed(tensor) => tensors.push(as_cells(&tensor, &mut findings)),
        }
    }
    let feature_tensors = tensors.iter().filter(|t| !call.is_key_only(&t.name)).count();
    let mut columns = Vec::with_capacity(schema.features.len() + 1);
    for tensor in tensors {
        if feature_tensors == 1 && tensor.is_matrix() && !call.is_key_only(&tensor.name) {
            columns.extend(tensor.split(schema, &mut findings));
            continue;
        }
        if !matches!(tensor.shape.as_slice(), [_] | [_, 1]) {
            findings.field(
                &tensor.name,
                &format!("shape {:?}", tensor.shape),
                "[rows] or [rows, 1]: one tensor a feature".to_owned(),
            );
        }
        columns.push(CellColumn {
            name: tensor.name,
            cells: tensor.data,
        });
    }
    findings.finish()?;
    Ok(columns)
}

/// The rows of a table that tensors hold.
pub(crate) fn rows(inputs: Vec<Input>, call: &Call) -> Result<Rows, ApiError> {
    match numeric_frame(&inputs, call) {
        Some(frame) => Ok(Rows::Frame(frame)),
        None => Ok(Rows::Columns(columns(inputs, call)?)),
    }
}

/// The rows of a model that takes only numbers, straight from the bytes of the tensors. `None` where anything is out of the ordinary:
/// [`columns`] then says what.
fn numeric_frame(inputs: &[Input], call: &Call) -> Option<Frame> {
    let schema = &call.route.schema;
    if !all_numeric(schema) || call.key.is_some() {
        return None;
    }
    let numbers = |tensor: &Tensor| {
        let values = tensor.to_f64()?;
        // NaN is a missing value; infinity is none, and told apart where errors are made.
        values.iter().all(|value| !value.is_infinite()).then_some(values)
    };
    let features = &schema.features;
    if let [Input::Typed(tensor)] = inputs
        && let [rows, width] = tensor.shape[..]
        && width > 1
    {
        if width != features.len() || rows == 0 {
            return None;
        }
        return frame_of_matrix(schema, &numbers(tensor)?);
    }
    if inputs.len() != features.len() {
        return None;
    }
    let mut columns = Vec::with_capacity(features.len());
    for (i, feature) in features.iter().enumerate() {
        // Most clients send the tensors in the schema's order.
        let place = inputs.get(i).filter(|input| input.name() == feature.name);
        let input = place.or_else(|| inputs.iter().find(|input| input.name() == feature.name))?;
        let Input::Typed(tensor) = input else {
            return None;
        };
        if !matches!(tensor.shape[..], [_] | [_, 1]) || tensor.rows() == 0 {
            return None;
        }
        columns.push(Column::Numeric(numbers(tensor)?));
    }
    Frame::new(Arc::clone(schema), columns).ok()
}

/// Rows from a matrix in the schema's order.
pub(super) fn frame_of_matrix(schema: &Arc<FeatureSchema>, values: &[f64]) -> Option<Frame> {
    let width = schema.features.len();
    let column = |i: usize| Column::Numeric(values.iter().skip(i).step_by(width).copied().collect());
    Frame::new(Arc::clone(schema), (0..width).map(column).collect()).ok()
}

impl Input {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Json(tensor) => &tensor.name,
            Self::Typed(tensor) => &tensor.name,
        }
    }
}

impl JsonTensor {
    fn is_matrix(&self) -> bool {
        matches!(self.shape.as_slice(), [_, width] if *width > 1)
    }

    /// Looks whether datatype, shape and values fit each other.
    fn check(&self, findings: &mut Findings) -> Option<DataType> {
        let Some(datatype) = DataType::named(&self.datatype) else {
            let got = format!("datatype `{}`", self.datatype);
            findings.field(&self.name, &got, DATATYPES.to_owned());
            return None;
        };
        let takes = Takes::of(datatype);
        let size = self
            .shape
            .iter()
            .try_fold(1_usize, |size, &n| usize::try_from(n).ok()?.checked_mul(size));
        let got = self.data.len();
        // A shape of no dimensions holds one value.
        if size != Some(got) {
            let shape = format!("shape {:?} with {got} values in `data`", self.shape);
            let expected = size.map_or_else(
                || "sizes of 0 or more".to_owned(),
                |size| format!("{size} values for that shape"),
            );
            findings.field(&self.name, &shape, expected);
            return None;
        }
        let width = match self.shape.as_slice() {
            [_, width] => usize::try_from(*width).unwrap_or(1).max(1),
            _ => 1,
        };
        let mut fits = true;
        for (i, cell) in self.data.iter().enumerate() {
            if !takes.fits(cell) {
                fits = false;
                let expected = takes.expected(datatype);
                let shown = match cell {
                    // With its point, which is what does not fit.
                    Cell::Float(value) => format!("{value:?}"),
                    cell => cell.to_string(),
                };
                findings.value(&self.name, i / width, &shown, &expected);
            }
        }
        fits.then_some(datatype)
    }

    /// The columns of a matrix, in the schema's order.
    fn split(self, schema: &FeatureSchema, findings: &mut Findings) -> Vec<CellColumn> {
        let features = &schema.features;
        let width = self.shape.get(1).map_or(0, |&w| usize::try_from(w).unwrap_or(0));
        if width != features.len() {
            findings.field(
                &self.name,
                &format!("shape {:?}", self.shape),
                format!("[rows, {}]: the features in the schema's order", features.len()),
            );
            return Vec::new();
        }
        if !all_numeric(schema) {
            findings.field(
                &self.name,
                "a matrix for a model with categories",
                "one tensor a feature: only an all-numeric model takes a matrix".to_owned(),
            );
            return Vec::new();
        }
        let rows = self.data.len() / width.max(1);
        let mut columns: Vec<CellColumn> = features
            .iter()
            .map(|feature| CellColumn {
                name: feature.name.clone(),
                cells: Vec::with_capacity(rows),
            })
            .collect();
        for (i, cell) in self.data.into_iter().enumerate() {
            columns[i % width].cells.push(cell);
        }
        columns
    }

    /// The tensor with its values as bytes.
    fn typed(self, findings: &mut Findings) -> Option<Tensor> {
        let datatype = self.check(findings)?;
        let shape = self
            .shape
            .iter()
            .map(|&n| usize::try_from(n).unwrap_or(0))
            .collect();
        let data = if datatype == DataType::Bytes {
            let text = |cell| match cell {
                Cell::Text(text) => Some(Bytes::copy_from_slice(text.as_bytes())),
                _ => None,
            };
            TensorData::Strings(self.data.into_iter().map(text).collect())
        } else {
            let mut bytes = Vec::with_capacity(self.data.len() * datatype.size().unwrap_or(8));
            for (i, cell) in self.data.iter().enumerate() {
                if *cell == Cell::Null && !is_float(datatype) {
                    let expected = format!("{}: only floats and texts can be missing", datatype.name());
                    findings.value(&self.name, i, "null", &expected);
                    return None;
                }
                push(cell, datatype, &mut bytes);
            }
            TensorData::Fixed(bytes.into())
        };
        Some(Tensor {
            name: self.name,
            datatype,
            shape,
            data,
        })
    }
}

/// A tensor's values as JSON would have given them: a NaN is missing.
fn as_cells(tensor: &Tensor, findings: &mut Findings) -> JsonTensor {
    let data = match &tensor.data {
        TensorData::Strings(strings) => {
            let mut cells = Vec::with_capacity(strings.len());
            for (row, string) in strings.iter().enumerate() {
                cells.push(match string.as_ref().map(|bytes| str::from_utf8(bytes)) {
                    None => Cell::Null,
                    Some(Ok(text)) => Cell::Text(Arc::from(text)),
                    Some(Err(_)) => {
                        findings.value(&tensor.name, row, "bytes that are no text", "a text in UTF-8");
                        Cell::Null
                    }
                });
            }
            cells
        }
        TensorData::Fixed(bytes) => fixed_cells(tensor, bytes),
    };
    JsonTensor {
        name: tensor.name.clone(),
        shape: tensor
            .shape
            .iter()
            .map(|&n| i64::try_from(n).unwrap_or(i64::MAX))
            .collect(),
        datatype: tensor.datatype.name().to_owned(),
        data,
    }
}

/// Reads byte strings that each come after their length, as a tensor of BYTES travels.
pub(crate) fn split_strings(name: &str, mut raw: Bytes) -> Result<Vec<Option<Bytes>>, ApiError> {
    let mut strings = Vec::new();
    while !raw.is_empty() {
        let Some(length) = raw.first_chunk::<4>().map(|l| u32::from_le_bytes(*l) as usize) else {
            return Err(cut(name, "ends within a length"));
        };
        if raw.len() - 4 < length {
            return Err(cut(name, "ends within an element"));
        }
        let mut element = raw.split_to(4 + length);
        strings.push(Some(element.split_off(4)));
    }
    Ok(strings)
}

fn cut(name: &str, how: &str) -> ApiError {
    ApiError::bad_request(
        "bad_tensor",
        format!(
            "input `{name}`: its binary data {how}; each element of BYTES is its length in 4 bytes, little-endian, and then so many bytes"
        ),
    )
}

/// A tensor whose elements came as bytes.
pub(crate) fn from_raw(name: &str, datatype: &str, shape: &[i64], raw: Bytes) -> Result<Tensor, ApiError> {
    let Some(known) = DataType::named(datatype) else {
        return Err(ApiError::bad_request(
            "bad_tensor",
            format!("input `{name}`: datatype `{datatype}`, expected {DATATYPES}"),
        ));
    };
    let extents: Option<Vec<usize>> = shape.iter().map(|&n| usize::try_from(n).ok()).collect();
    let Some(extents) = extents else {
        return Err(ApiError::bad_request(
            "bad_tensor",
            format!("input `{name}`: shape {shape:?}, expected sizes of 0 or more"),
        ));
    };
    let data = match known {
        DataType::Bytes => TensorData::Strings(split_strings(name, raw)?),
        _ => TensorData::Fixed(raw),
    };
    let tensor = Tensor {
        name: name.to_owned(),
        datatype: known,
        shape: extents,
        data,
    };
    tensor
        .check()
        .map_err(|error| ApiError::bad_request("bad_tensor", error.to_string()))?;
    Ok(tensor)
}

/// The kind of feature that a datatype makes.
pub(crate) fn datatype_of(kind: FeatureKind) -> DataType {
    match kind {
        FeatureKind::Numeric => DataType::Fp64,
        FeatureKind::Categorical => DataType::Bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_strings_are_read_and_a_cut_one_is_refused() {
        let raw = Bytes::from_static(b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c");
        let strings = split_strings("x", raw.clone()).unwrap();
        let texts: Vec<_> = strings.iter().flatten().map(|b| &b[..]).collect();
        assert_eq!(texts, [&b"ab"[..], b"", b"c"]);
        for end in [1, 5, 13] {
            assert!(split_strings("x", raw.slice(..end)).is_err(), "{end}");
        }
    }
}
