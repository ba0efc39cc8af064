//! A record as a client sends it, and what becomes of it. Pure functions.

use serde_json::{Map, Value, json};
use tidemill_core::digest::Digest;
use tidemill_store::tracking::eval_datasets::EvalRecord;

use super::USER_TAG;
use crate::tracking::{Result, TrackingError};

/// Where records come from.
const SOURCES: [&str; 5] = ["UNSPECIFIED", "TRACE", "HUMAN", "DOCUMENT", "CODE"];

/// Reads a list of records. Python also writes numbers that JSON does not know, such as the gaps of a data frame: they are null.
pub(super) fn list(text: &str) -> Result<Vec<Value>> {
    let read = serde_json::from_str(text).or_else(|_| serde_json::from_str(&without_constants(text)));
    match read {
        Ok(Value::Array(items)) => Ok(items),
        _ => Err(TrackingError::invalid(
            "Invalid value for parameter 'records' supplied: expected a JSON list as text.",
        )),
    }
}

fn without_constants(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut in_text) = (text, false);
    while let Some(sign) = rest.chars().next() {
        let mut taken = sign.len_utf8();
        let constants = ["NaN", "Infinity", "-Infinity"];
        if in_text {
            if sign == '\\' {
                taken += rest[1..].chars().next().map_or(0, char::len_utf8);
            }
            in_text = sign != '"';
            out.push_str(&rest[..taken]);
        } else if let Some(word) = constants.into_iter().find(|word| rest.starts_with(word)) {
            out.push_str("null");
            taken = word.len();
        } else {
            in_text = sign == '"';
            out.push(sign);
        }
        rest = &rest[taken..];
    }
    out
}

/// JSON that is the same for the same inputs, in whatever order their fields are.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<(&String, &Value)> = map.iter().collect();
            pairs.sort_unstable_by_key(|(key, _)| *key);
            let sorted = pairs
                .into_iter()
                .map(|(key, value)| (key.clone(), canonical(value)));
            Value::Object(sorted.collect())
        }
        Value::Array(items) => items.iter().map(canonical).collect(),
        other => other.clone(),
    }
}

/// A record as a client sends it.
pub(super) struct NewRecord {
    inputs: Value,
    pub digest: String,
    /// `None` where nothing is said, which leaves what is there.
    outputs: Option<Value>,
    expectations: Option<Map<String, Value>>,
    tags: Option<Map<String, Value>>,
    source: Option<(Value, String, Option<String>)>,
    pub user: Option<String>,
}

impl NewRecord {
    pub fn read(value: Value) -> Result<Self> {
        let Value::Object(mut map) = value else {
            return Err(TrackingError::invalid("Each record must be a dictionary"));
        };
        let mut part = |name: &str| match map.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(part)) => Ok(Some(part)),
            Some(_) => Err(TrackingError::invalid(format!(
                "Invalid record: '{name}' must be a dictionary"
            ))),
        };
        let inputs = Value::Object(part("inputs")?.unwrap_or_default());
        let (expectations, tags, source) = (part("expectations")?, part("tags")?, part("source")?);
        let user = tags
            .as_ref()
            .and_then(|tags| tags.get(USER_TAG))
            .and_then(Value::as_str);
        Ok(Self {
            digest: Digest::of(canonical(&inputs).to_string().as_bytes()).to_string(),
            inputs,
            outputs: map.remove("outputs"),
            expectations,
            user: user.map(str::to_owned),
            tags,
            source: source
                .filter(|source| !source.is_empty())
                .map(read_source)
                .transpose()?,
        })
    }

    /// The record that this makes, where there is none of its inputs.
    pub fn into_record(self, record_id: String, now_ms: i64) -> EvalRecord {
        let (source, source_type, source_id) = match self.source {
            Some((source, kind, id)) => (Some(source.to_string()), Some(kind), id),
            None => (None, None, None),
        };
        EvalRecord {
            record_id,
            input_digest: self.digest,
            inputs: self.inputs.to_string(),
            outputs: match self.outputs {
                None => Some("{}".to_owned()),
                Some(outputs) => text_of(outputs),
            },
            expectations: self.expectations.map(|map| Value::Object(map).to_string()),
            tags: self.tags.map(|map| Value::Object(map).to_string()),
            source,
            source_id,
            source_type,
            created_ms: now_ms,
            updated_ms: now_ms,
            created_by: self.user.clone(),
            updated_by: self.user,
        }
    }

    /// Merges this into the record of the same inputs.
    pub fn merge_into(self, record: &mut EvalRecord, now_ms: i64) {
        if let Some(outputs) = self.outputs {
            record.outputs = text_of(outputs);
        }
        record.expectations = merged(record.expectations.take(), self.expectations);
        record.tags = merged(record.tags.take(), self.tags);
        record.updated_ms = now_ms;
        record.updated_by = self.user.or(record.updated_by.take());
    }
}

fn text_of(value: Value) -> Option<String> {
    (!value.is_null()).then(|| value.to_string())
}

/// What stands in `new` counts; the rest stays.
fn merged(old: Option<String>, new: Option<Map<String, Value>>) -> Option<String> {
    let Some(new) = new.filter(|new| !new.is_empty()) else {
        return old;
    };
    let mut map = match old.and_then(|old| serde_json::from_str(&old).ok()) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    map.extend(new);
    Some(Value::Object(map).to_string())
}

/// A source, its type and the id of what it is.
fn read_source(source: Map<String, Value>) -> Result<(Value, String, Option<String>)> {
    let named = source
        .get("source_type")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let kind = named.to_ascii_uppercase();
    if !SOURCES.contains(&kind.as_str()) {
        let valid: Vec<String> = SOURCES.iter().map(|name| format!("'{name}'")).collect();
        return Err(TrackingError::invalid(format!(
            "Invalid dataset record source type: {kind}. Valid source types: [{}]",
            valid.join(", ")
        )));
    }
    let data = match source.get("source_data") {
        None | Some(Value::Null) => json!({}),
        Some(data) => data.clone(),
    };
    let id = data.get(if kind == "TRACE" { "trace_id" } else { "source_id" });
    let id = id.and_then(Value::as_str).map(str::to_owned);
    Ok((json!({ "source_type": kind, "source_data": data }), kind, id))
}

/// What Python calls the type of a value in a schema.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The schema with the fields of new records; a field keeps the type that it had first.
pub(super) fn schema_with(old: Option<&str>, records: &[NewRecord]) -> Value {
    let mut schema = match old.and_then(|old| serde_json::from_str(old).ok()) {
        Some(schema @ Value::Object(_)) => schema,
        _ => json!({"inputs": {}, "outputs": {}, "expectations": {}, "version": "1.0"}),
    };
    for record in records {
        add_fields(&mut schema["inputs"], &record.inputs);
        if let Some(outputs) = record.outputs.as_ref().filter(|outputs| !outputs.is_null()) {
            match outputs {
                Value::Object(_) => add_fields(&mut schema["outputs"], outputs),
                other if schema["outputs"] == json!({}) => schema["outputs"] = json!(type_of(other)),
                _ => {}
            }
        }
        if let Some(expectations) = &record.expectations {
            for (key, value) in expectations {
                add_field(&mut schema["expectations"], key, value);
            }
        }
    }
    schema
}

fn add_fields(known: &mut Value, of: &Value) {
    for (key, value) in of.as_object().into_iter().flatten() {
        add_field(known, key, value);
    }
}

fn add_field(known: &mut Value, key: &str, value: &Value) {
    if let Value::Object(known) = known
        && !known.contains_key(key)
    {
        known.insert(key.to_owned(), json!(type_of(value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_the_same_inputs_have_the_same_digest_in_whatever_order() {
        let digest = |value| NewRecord::read(json!({ "inputs": value })).unwrap().digest;
        assert_eq!(
            digest(json!({"a": 1, "b": {"x": [1], "y": 2}})),
            digest(json!({"b": {"y": 2, "x": [1]}, "a": 1}))
        );
        assert_ne!(digest(json!({"a": 1})), digest(json!({"a": 1.0})));
    }

    #[test]
    fn numbers_that_json_does_not_know_are_null_and_texts_stay() {
        let text =
            r#"[{"inputs": {"a": NaN, "b": -Infinity, "c": "NaN \" Infinity", "d": [Infinity, 1.5]}}]"#;
        let inputs = json!({"a": null, "b": null, "c": "NaN \" Infinity", "d": [null, 1.5]});
        assert_eq!(list(text).unwrap(), [json!({ "inputs": inputs })]);
        for bad in ["", "{}", "[NaNa]", "[\"a", "[\"\\"] {
            assert!(list(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_record_says_again_is_merged_and_the_rest_stays() {
        let read = |value| NewRecord::read(value).unwrap();
        let first = json!({"inputs": {"q": 1}, "expectations": {"a": 1, "b": 2}, "source": {"source_type": "trace",
            "source_data": {"trace_id": "tr-1"}}});
        let mut record = read(first).into_record("dr-1".to_owned(), 5);
        assert_eq!(
            (record.source_type.as_deref(), record.source_id.as_deref()),
            (Some("TRACE"), Some("tr-1"))
        );
        assert_eq!(record.outputs.as_deref(), Some("{}"));
        let again = json!({"inputs": {"q": 1}, "outputs": "yes", "expectations": {"b": 3}, "tags": {"mlflow.user": "ada"}});
        read(again).merge_into(&mut record, 9);
        assert_eq!(record.expectations.as_deref(), Some(r#"{"a":1,"b":3}"#));
        assert_eq!(record.outputs.as_deref(), Some("\"yes\""));
        assert_eq!((record.created_ms, record.updated_ms), (5, 9));
        assert_eq!(record.updated_by.as_deref(), Some("ada"));
        assert!(NewRecord::read(json!({"inputs": [1]})).is_err());
        assert!(NewRecord::read(json!({"inputs": {}, "source": {"source_type": "ORACLE"}})).is_err());
    }

    #[test]
    fn a_schema_names_each_field_with_the_type_it_had_first() {
        let records = [
            json!({"inputs": {"q": "a", "n": 1}, "outputs": 1.5}),
            json!({"inputs": {"q": 1}, "outputs": {"x": null}}),
        ];
        let records: Vec<NewRecord> = records.into_iter().map(|r| NewRecord::read(r).unwrap()).collect();
        let schema = schema_with(None, &records);
        assert_eq!(
            schema,
            json!({"inputs": {"q": "string", "n": "integer"}, "outputs": "float", "expectations": {}, "version": "1.0"})
        );
        assert_eq!(schema_with(Some(&schema.to_string()), &[]), schema);
    }
}
