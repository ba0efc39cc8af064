//! A deployment's answer as the JSON value that scoring protocols call predictions.

use serde_json::{Map, Value, json};
use tidemill_core::frame::Scores;
use tidemill_core::servable::Payload;
use tidemill_core::tensors::{DataType, Tensor, TensorData};
use tidemill_serving::InferResponse;

use crate::error::ApiError;
use crate::infer::score::Scored;
use crate::infer::{any_degraded, labels};

/// As [`predictions`], but several outputs with as many rows are a row each, whatever their shapes: what protocols take that want a
/// prediction an instance.
pub(crate) fn rows(payload: &Payload) -> Result<Value, ApiError> {
    if let Payload::Tensors(tensors) = payload
        && let [first, _, ..] = &tensors[..]
        && tensors
            .iter()
            .all(|tensor| !tensor.shape.is_empty() && tensor.rows() == first.rows())
    {
        return Ok(row_by_row(tensors, first.rows()));
    }
    predictions(payload)
}

/// The predictions of an answer: what a model's own JSON holds under `predictions`, or else all of it; the values of the only tensor;
/// a row each of several columns; several tensors by name.
pub(crate) fn predictions(payload: &Payload) -> Result<Value, ApiError> {
    match payload {
        Payload::Tensors(tensors) => Ok(of_tensors(tensors)),
        Payload::Body { content_type, bytes } => {
            let json = content_type.contains("json");
            if !json && let Ok(text) = str::from_utf8(bytes) {
                return Ok(json!(text));
            }
            let value: Value = serde_json::from_slice(bytes).map_err(|error| {
                ApiError::internal(
                    "model_broken",
                    format!("the model's answer of type `{content_type}` is not JSON: {error}"),
                )
            })?;
            Ok(match value {
                Value::Object(mut object) if object.contains_key("predictions") => {
                    object.shift_remove("predictions").unwrap_or_default()
                }
                other => other,
            })
        }
    }
}

/// The same as the whole of an answer: `{"predictions": …}`.
pub(crate) fn whole(payload: &Payload) -> Result<Value, ApiError> {
    let mut answer = Map::new();
    answer.insert("predictions".to_owned(), predictions(payload)?);
    Ok(Value::Object(answer))
}

/// What pyfunc would give for a table: probabilities, numbers, or the classes with their probabilities beside them; and by which each
/// row can be told again.
pub(crate) fn of_table(response: &InferResponse) -> Map<String, Value> {
    let scores = &response.scores;
    let mut answer = Map::new();
    match labels(scores) {
        None => {
            answer.insert("predictions".to_owned(), json!(scores.values()));
        }
        Some(labels) => {
            let rows: Vec<&[f64]> = (0..scores.rows()).map(|row| scores.row(row)).collect();
            answer.insert("predictions".to_owned(), json!(labels));
            answer.insert("probabilities".to_owned(), json!(rows));
            if let Scores::Multiclass { classes, .. } = scores {
                answer.insert("classes".to_owned(), json!(classes));
            }
        }
    }
    answer.insert("prediction_ids".to_owned(), json!(response.ids));
    answer.insert("model_versions".to_owned(), json!(response.versions));
    if any_degraded(response) {
        answer.insert("degraded".to_owned(), json!(response.degraded));
    }
    answer
}

/// A prediction for each instance, as Vertex AI answers: classes with their scores, or what the model said.
pub(crate) fn by_instance(scored: &Scored) -> Result<Value, ApiError> {
    match scored {
        Scored::Table { response } => {
            let scores = &response.scores;
            Ok(match (labels(scores), scores) {
                (Some(_), Scores::Multiclass { classes, .. }) => (0..scores.rows())
                    .map(|row| json!({ "classes": classes, "scores": scores.row(row) }))
                    .collect(),
                _ => json!(scores.values()),
            })
        }
        Scored::Hosted { answer, .. } => Ok(match rows(&answer.payload)? {
            list @ Value::Array(_) => list,
            one => Value::Array(vec![one]),
        }),
    }
}

/// Predictions as lines of CSV: a row each, its values separated by commas.
pub(crate) fn csv_lines(predictions: &Value) -> String {
    let one = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) if text.contains([',', '"', '\n', '\r']) => {
            format!("\"{}\"", text.replace('"', "\"\""))
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    lines(predictions, |row| {
        let mut fields = Vec::new();
        single(row, &mut fields);
        fields.into_iter().map(one).collect::<Vec<_>>().join(",")
    })
}

/// Every single value of a row, in order.
fn single<'v>(value: &'v Value, into: &mut Vec<&'v Value>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| single(value, into)),
        Value::Object(fields) => fields.values().for_each(|value| single(value, into)),
        value => into.push(value),
    }
}

/// Predictions as lines of JSON, a row each.
pub(crate) fn json_lines(predictions: &Value) -> String {
    lines(predictions, Value::to_string)
}

fn lines(predictions: &Value, line: impl Fn(&Value) -> String) -> String {
    let rows = match predictions {
        Value::Array(rows) => &rows[..],
        one => std::slice::from_ref(one),
    };
    let mut text = String::new();
    for row in rows {
        text.push_str(&line(row));
        text.push('\n');
    }
    text
}

fn of_tensors(tensors: &[Tensor]) -> Value {
    if let [tensor] = tensors {
        return nested(tensor);
    }
    let rows = tensors.first().map_or(0, Tensor::rows);
    let columns = tensors
        .iter()
        .all(|tensor| tensor.shape.len() == 1 && tensor.rows() == rows);
    if !columns || tensors.is_empty() {
        let named = tensors.iter().map(|tensor| (tensor.name.clone(), nested(tensor)));
        return Value::Object(named.collect());
    }
    row_by_row(tensors, rows)
}

/// An object a row, with its values by the names of the outputs.
fn row_by_row(tensors: &[Tensor], rows: usize) -> Value {
    let mut values: Vec<(&str, Value)> = tensors
        .iter()
        .map(|tensor| (tensor.name.as_str(), nested(tensor)))
        .collect();
    let row = |row: usize| {
        let fields = values.iter_mut().map(|(name, value)| {
            let value = value.get_mut(row).map(Value::take).unwrap_or_default();
            ((*name).to_owned(), value)
        });
        Value::Object(fields.collect::<Map<_, _>>())
    };
    (0..rows).map(row).collect()
}

/// A tensor as nested arrays.
pub(crate) fn nested(tensor: &Tensor) -> Value {
    let mut values = flat(tensor);
    for &extent in tensor.shape.iter().skip(1).rev() {
        if extent == 0 {
            return Value::Array(vec![Value::Array(Vec::new()); tensor.rows()]);
        }
        values = values
            .chunks(extent)
            .map(|chunk| Value::Array(chunk.to_vec()))
            .collect();
    }
    if tensor.shape.is_empty() {
        return values.into_iter().next().unwrap_or_default();
    }
    Value::Array(values)
}

/// Its elements, row-major. Byte strings that are no text lose what is not.
pub(crate) fn flat(tensor: &Tensor) -> Vec<Value> {
    let TensorData::Fixed(bytes) = &tensor.data else {
        let TensorData::Strings(strings) = &tensor.data else {
            return Vec::new();
        };
        let text = |bytes: &Option<bytes::Bytes>| match bytes {
            Some(bytes) => json!(String::from_utf8_lossy(bytes)),
            None => Value::Null,
        };
        return strings.iter().map(text).collect();
    };
    macro_rules! read {
        ($type:ty) => {
            bytes
                .as_chunks::<{ size_of::<$type>() }>()
                .0
                .iter()
                .map(|chunk| json!(<$type>::from_le_bytes(*chunk)))
                .collect()
        };
    }
    match tensor.datatype {
        DataType::Bool => bytes.iter().map(|&byte| json!(byte != 0)).collect(),
        DataType::Uint64 => read!(u64),
        DataType::Int64 => read!(i64),
        DataType::Fp32 => read!(f32),
        DataType::Uint8 => read!(u8),
        DataType::Uint16 => read!(u16),
        DataType::Uint32 => read!(u32),
        DataType::Int8 => read!(i8),
        DataType::Int16 => read!(i16),
        DataType::Int32 => read!(i32),
        DataType::Fp64 | DataType::Fp16 | DataType::Bf16 | DataType::Bytes => tensor
            .to_f64()
            .unwrap_or_default()
            .into_iter()
            .map(|value| json!(value))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tensor_is_its_values_and_columns_are_rows() {
        let matrix = Tensor::of_f32("p", vec![2, 2], &[0.5, 1.0, f32::NAN, 2.0]).unwrap();
        let payload = Payload::Tensors(vec![matrix.clone()]);
        assert_eq!(predictions(&payload).unwrap(), json!([[0.5, 1.0], [null, 2.0]]));
        let a = Tensor::of_f64("a", vec![2], &[1.0, 2.0]).unwrap();
        let b = Tensor::strings("b", vec![2], vec![Some("x".into()), None]).unwrap();
        let payload = Payload::Tensors(vec![a.clone(), b]);
        let table = json!([{"a": 1.0, "b": "x"}, {"a": 2.0, "b": null}]);
        assert_eq!(predictions(&payload).unwrap(), table);
        let payload = Payload::Tensors(vec![a, matrix]);
        let named = json!({"a": [1.0, 2.0], "p": [[0.5, 1.0], [null, 2.0]]});
        assert_eq!(predictions(&payload).unwrap(), named);
        let by_row = rows(&payload).unwrap();
        assert_eq!(
            by_row,
            json!([{"a": 1.0, "p": [0.5, 1.0]}, {"a": 2.0, "p": [null, 2.0]}])
        );
        assert_eq!(csv_lines(&by_row), "1.0,0.5,1.0\n2.0,,2.0\n");
    }

    #[test]
    fn predictions_are_lines_of_csv_or_json() {
        let rows = json!([[0.5, null], {"a": "x,y"}, 3]);
        assert_eq!(csv_lines(&rows), "0.5,\n\"x,y\"\n3\n");
        assert_eq!(json_lines(&rows), "[0.5,null]\n{\"a\":\"x,y\"}\n3\n");
    }

    #[test]
    fn a_body_gives_its_predictions_or_itself() {
        let body = |text: &str| Payload::Body {
            content_type: "application/json".to_owned(),
            bytes: text.to_owned().into(),
        };
        assert_eq!(predictions(&body(r#"{"predictions": [1]}"#)).unwrap(), json!([1]));
        assert_eq!(predictions(&body(r#"{"x": 1}"#)).unwrap(), json!({"x": 1}));
        assert!(predictions(&body("{")).is_err());
    }
}
