//! A request's tensors: shape, datatype and values are checked, and each becomes a column.

use serde::Deserialize;
use tidemill_core::frame::FeatureSchema;

use crate::error::ApiError;
use crate::infer::{Call, Cell, CellColumn, Findings, FlatCells, all_numeric};

/// An inference request. What is not named here (`parameters`) is read past.
#[derive(Deserialize)]
pub(super) struct Request {
    pub id: Option<String>,
    inputs: Vec<Tensor>,
    outputs: Option<Vec<RequestedOutput>>,
}

#[derive(Deserialize)]
struct RequestedOutput {
    name: String,
}

#[derive(Deserialize)]
struct Tensor {
    name: String,
    shape: Vec<i64>,
    datatype: String,
    data: FlatCells,
}

const DATATYPES: &str =
    "BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, FP32, FP64 or BYTES";

impl Request {
    /// The outputs asked for; empty for all.
    pub(super) fn requested_outputs(&self) -> Vec<String> {
        let outputs = self.outputs.as_deref().unwrap_or_default();
        outputs.iter().map(|output| output.name.clone()).collect()
    }

    /// One column a feature: from one tensor each, or from a single matrix.
    pub(super) fn into_columns(self, call: &Call) -> Result<Vec<CellColumn>, ApiError> {
        let schema = &call.route.schema;
        let mut findings = Findings::default();
        if self.inputs.is_empty() {
            findings.field("inputs", "no tensor came", "one tensor a feature".to_owned());
        }
        let feature_tensors = self.inputs.iter().filter(|t| !call.is_key_only(&t.name)).count();
        let mut columns = Vec::with_capacity(schema.features.len() + 1);
        for tensor in self.inputs {
            tensor.check(&mut findings);
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
                cells: tensor.data.0,
            });
        }
        findings.finish()?;
        Ok(columns)
    }
}

impl Tensor {
    fn is_matrix(&self) -> bool {
        matches!(self.shape.as_slice(), [_, width] if *width > 1)
    }

    fn check(&self, findings: &mut Findings) {
        let Some(datatype) = Datatype::named(&self.datatype) else {
            let got = format!("datatype `{}`", self.datatype);
            findings.field(&self.name, &got, DATATYPES.to_owned());
            return;
        };
        let size = self
            .shape
            .iter()
            .try_fold(1_usize, |size, &n| usize::try_from(n).ok()?.checked_mul(size));
        let got = self.data.0.len();
        if size != Some(got) || self.shape.is_empty() {
            let shape = format!("shape {:?} with {got} values in `data`", self.shape);
            let expected = size.map_or_else(
                || "sizes of 0 or more".to_owned(),
                |size| format!("{size} values for that shape"),
            );
            findings.field(&self.name, &shape, expected);
            return;
        }
        let width = match self.shape.as_slice() {
            [_, width] => usize::try_from(*width).unwrap_or(1).max(1),
            _ => 1,
        };
        for (i, cell) in self.data.0.iter().enumerate() {
            if !datatype.takes(cell) {
                findings.value(
                    &self.name,
                    i / width,
                    &cell.to_string(),
                    &datatype.expected(&self.datatype),
                );
            }
        }
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
        let rows = self.data.0.len() / width.max(1);
        let mut columns: Vec<CellColumn> = features
            .iter()
            .map(|feature| CellColumn {
                name: feature.name.clone(),
                cells: Vec::with_capacity(rows),
            })
            .collect();
        for (i, cell) in self.data.0.into_iter().enumerate() {
            columns[i % width].cells.push(cell);
        }
        columns
    }
}

/// What a datatype takes.
#[derive(Clone, Copy)]
enum Datatype {
    Bool,
    Integer { min: i64, max: u64 },
    Float,
    Bytes,
}

impl Datatype {
    fn named(name: &str) -> Option<Self> {
        let signed = |bits: u32| Self::Integer {
            min: i64::MIN >> (64 - bits),
            max: (i64::MAX >> (64 - bits)).unsigned_abs(),
        };
        let unsigned = |bits: u32| Self::Integer {
            min: 0,
            max: u64::MAX >> (64 - bits),
        };
        Some(match name {
            "BOOL" => Self::Bool,
            "INT8" => signed(8),
            "INT16" => signed(16),
            "INT32" => signed(32),
            "INT64" => signed(64),
            "UINT8" => unsigned(8),
            "UINT16" => unsigned(16),
            "UINT32" => unsigned(32),
            "UINT64" => unsigned(64),
            "FP16" | "FP32" | "FP64" => Self::Float,
            "BYTES" => Self::Bytes,
            _ => return None,
        })
    }

    /// Null is missing in every datatype.
    fn takes(self, cell: &Cell) -> bool {
        match (self, cell) {
            (_, Cell::Null) | (Self::Bool, Cell::Bool(_)) | (Self::Bytes, Cell::Text(_)) => true,
            (Self::Integer { min, max }, Cell::Int(value)) => {
                *value >= min && u64::try_from(*value).map_or(true, |value| value <= max)
            }
            (Self::Integer { max, .. }, Cell::UInt(value)) => *value <= max,
            (Self::Float, Cell::Int(_) | Cell::UInt(_)) => true,
            (Self::Float, Cell::Float(value)) => value.is_finite(),
            _ => false,
        }
    }

    fn expected(self, name: &str) -> String {
        let what = match self {
            Self::Bool => "true, false or null",
            Self::Integer { .. } => "an integer in its range, or null",
            Self::Float => "a number, or null for a missing value",
            Self::Bytes => "a text or null",
        };
        format!("{name}: {what}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datatype_takes_exactly_its_range_and_null() {
        let takes = |name: &str, cell| Datatype::named(name).is_some_and(|d| d.takes(&cell));
        for name in ["BOOL", "INT8", "UINT64", "FP32", "BYTES"] {
            assert!(takes(name, Cell::Null));
            assert!(!takes(name, Cell::Nested));
        }
        assert!(takes("INT8", Cell::Int(-128)) && !takes("INT8", Cell::Int(-129)));
        assert!(takes("INT8", Cell::Int(127)) && !takes("INT8", Cell::Int(128)));
        assert!(takes("UINT8", Cell::Int(255)) && !takes("UINT8", Cell::Int(256)));
        assert!(!takes("UINT8", Cell::Int(-1)));
        assert!(takes("UINT64", Cell::UInt(u64::MAX)) && !takes("INT64", Cell::UInt(u64::MAX)));
        assert!(takes("INT64", Cell::Int(i64::MIN)));
        assert!(takes("FP64", Cell::Int(3)) && !takes("INT64", Cell::Float(3.0)));
        assert!(!takes("FP64", Cell::Text("NaN".into())));
        assert!(!takes("BOOL", Cell::Int(1)));
    }
}
