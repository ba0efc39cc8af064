//! Values of a request, and what may have to hold of them.

use std::borrow::Cow;

use serde_json::Value;
use tidemill_core::servable::{CallContext, Payload};
use tidemill_core::spec::{ConditionSpec, SourceSpec};
use tidemill_core::tensors::{DataType, Tensor, TensorData};

/// A value found in a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Found<'a> {
    Text(Cow<'a, str>),
    Number(f64),
    Bool(bool),
}

impl Found<'_> {
    /// As a key: a number without its point where it is whole.
    pub fn into_text(self) -> String {
        match self {
            Self::Text(text) => text.into_owned(),
            Self::Number(number) => number.to_string(),
            Self::Bool(value) => value.to_string(),
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Text(text) => text.trim().parse().ok(),
            Self::Number(number) => Some(*number),
            Self::Bool(_) => None,
        }
    }

    fn is(&self, wanted: &Value) -> bool {
        match (self, wanted) {
            (Self::Text(text), Value::String(wanted)) => text == wanted,
            (Self::Bool(value), Value::Bool(wanted)) => value == wanted,
            (Self::Text(text), Value::Bool(wanted)) => {
                text.as_ref() == if *wanted { "true" } else { "false" }
            }
            (found, Value::Number(wanted)) => found.number() == wanted.as_f64(),
            _ => false,
        }
    }

    /// Whether what the condition says is true of this value.
    pub fn fits(&self, condition: &ConditionSpec) -> bool {
        let prefixed =
            |prefix: &String| matches!(self, Self::Text(text) if text.starts_with(prefix.as_str()));
        condition.equals.as_ref().is_none_or(|wanted| self.is(wanted))
            && (condition.one_of.is_empty() || condition.one_of.iter().any(|wanted| self.is(wanted)))
            && condition.prefix.as_ref().is_none_or(prefixed)
            && condition
                .min
                .is_none_or(|min| self.number().is_some_and(|number| number >= min))
            && condition
                .below
                .is_none_or(|below| self.number().is_some_and(|number| number < below))
    }
}

fn of_json(value: &Value) -> Option<Found<'static>> {
    match value {
        Value::Bool(value) => Some(Found::Bool(*value)),
        Value::Number(number) => number.as_f64().map(Found::Number),
        Value::String(text) => Some(Found::Text(Cow::Owned(text.clone()))),
        // The first row of a column.
        Value::Array(rows) => rows.first().filter(|row| !row.is_array()).and_then(of_json),
        Value::Null | Value::Object(_) => None,
    }
}

/// The elements of a tensor; `None` where one is missing or is no text.
pub(crate) fn elements(tensor: &Tensor) -> Vec<Option<Found<'_>>> {
    match &tensor.data {
        TensorData::Strings(strings) => {
            let text = |bytes| std::str::from_utf8(bytes).ok();
            let found = |text| Found::Text(Cow::Borrowed(text));
            strings
                .iter()
                .map(|string| string.as_deref().and_then(text).map(found))
                .collect()
        }
        TensorData::Fixed(_) => {
            let numbers = tensor.to_f64().unwrap_or_default();
            let found = |number: f64| match tensor.datatype {
                DataType::Bool => Some(Found::Bool(number != 0.0)),
                _ if number.is_nan() => None,
                _ => Some(Found::Number(number)),
            };
            numbers.into_iter().map(found).collect()
        }
    }
}

fn first(tensor: &Tensor) -> Option<Found<'static>> {
    let head = if tensor.shape.is_empty() {
        tensor.clone()
    } else {
        tensor.slice_rows(0, 1).ok()?
    };
    let found = elements(&head).into_iter().next().flatten()?;
    Some(match found {
        Found::Text(text) => Found::Text(Cow::Owned(text.into_owned())),
        Found::Number(number) => Found::Number(number),
        Found::Bool(value) => Found::Bool(value),
    })
}

/// The first row of an input column, or a field of a JSON body.
pub(crate) fn input(payload: &Payload, name: &str) -> Option<Found<'static>> {
    match payload {
        Payload::Tensors(tensors) => first(tensors.iter().find(|tensor| tensor.name == name)?),
        Payload::Body { .. } => {
            let body = json(payload)?;
            of_json(body.get(name).or_else(|| of_form(&body, name))?)
        }
    }
}

fn json(payload: &Payload) -> Option<Value> {
    match payload {
        Payload::Body { content_type, bytes } if content_type.contains("json") => {
            serde_json::from_slice(bytes).ok()
        }
        _ => None,
    }
}

/// The first row's value of a column in a body of MLflow's scoring protocol.
fn of_form<'a>(body: &'a Value, name: &str) -> Option<&'a Value> {
    if let Some(split) = body.get("dataframe_split") {
        let column = split["columns"]
            .as_array()?
            .iter()
            .position(|column| column == name)?;
        return split["data"].get(0)?.get(column);
    }
    let rows = ["dataframe_records", "instances", "inputs"];
    let rows = rows.into_iter().find_map(|form| body.get(form))?;
    let value = rows.get(name).or_else(|| rows.get(0)?.get(name))?;
    Some(value.get(0).unwrap_or(value))
}

pub(crate) fn header<'a>(context: &'a CallContext, name: &str) -> Option<Found<'a>> {
    let text = context.attributes.get(name)?;
    Some(Found::Text(Cow::Borrowed(text)))
}

/// A parameter of the request, or of a body in MLflow's scoring protocol.
pub(crate) fn parameter(context: &CallContext, payload: &Payload, name: &str) -> Option<Found<'static>> {
    match context.parameters.get(name) {
        Some(value) => of_json(value),
        None => of_json(json(payload)?.get("params")?.get(name)?),
    }
}

/// The value at one of the places of a request.
fn at<'a>(context: &'a CallContext, payload: &Payload, places: [Option<&String>; 3]) -> Option<Found<'a>> {
    match places {
        [Some(name), _, _] => header(context, name),
        [_, Some(name), _] => parameter(context, payload, name),
        [_, _, Some(name)] => input(payload, name),
        _ => None,
    }
}

/// Whether a condition holds of a request.
pub(crate) fn holds(condition: &ConditionSpec, context: &CallContext, payload: &Payload) -> bool {
    let places = [&condition.header, &condition.parameter, &condition.input].map(Option::as_ref);
    at(context, payload, places).is_some_and(|found| found.fits(condition))
}

/// What a request sticks by; its id if it brings nothing.
pub(crate) fn key<'a>(
    source: Option<&SourceSpec>,
    context: &'a CallContext,
    payload: &Payload,
) -> Cow<'a, str> {
    if let Some(source) = source {
        let places = [&source.header, &source.parameter, &source.input].map(Option::as_ref);
        if let Some(found) = at(context, payload, places) {
            return Cow::Owned(found.into_text());
        }
    } else if let Some(key) = &context.key {
        return Cow::Borrowed(key);
    } else if let Some(key) = context.attributes.get("x-tidemill-key") {
        return Cow::Borrowed(key);
    } else if let Some(key) = context.parameters.get("key").and_then(of_json) {
        return Cow::Owned(key.into_text());
    }
    Cow::Borrowed(&context.request_id)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use std::sync::Arc;

    use super::*;

    fn condition(value: Value) -> ConditionSpec {
        serde_json::from_value(value).unwrap()
    }

    fn request() -> (CallContext, Payload) {
        let attributes = [
            ("x-plan".to_owned(), "gold-eu".to_owned()),
            ("x-age".to_owned(), "41".to_owned()),
        ];
        let mut context = CallContext {
            request_id: "r1".to_owned(),
            attributes: Arc::new(attributes.into()),
            ..CallContext::default()
        };
        context.parameters.insert("tier".to_owned(), json!(3));
        let city = Tensor::strings("city", vec![2], vec![Some("Rome".into()), None]).unwrap();
        let amount = Tensor::of_f64("amount", vec![2, 1], &[12.5, 99.0]).unwrap();
        (context, Payload::Tensors(vec![amount, city]))
    }

    #[test]
    fn conditions_look_at_headers_parameters_and_the_first_row_of_inputs() {
        let (context, payload) = request();
        let cases = [
            (json!({"header": "x-plan", "prefix": "gold"}), true),
            (json!({"header": "x-plan", "equals": "gold"}), false),
            (json!({"header": "x-age", "min": 40, "below": 42}), true),
            (json!({"header": "x-age", "equals": 41}), true),
            (json!({"header": "x-age", "min": 41.5}), false),
            (json!({"header": "x-none", "prefix": ""}), false),
            (json!({"parameter": "tier", "in": [1, 3]}), true),
            (json!({"parameter": "tier", "in": ["3"]}), false),
            (json!({"input": "amount", "below": 20}), true),
            (json!({"input": "amount", "equals": 99}), false),
            (json!({"input": "city", "equals": "Rome"}), true),
            (json!({"input": "city", "min": 0}), false),
        ];
        for (said, expected) in cases {
            assert_eq!(
                holds(&condition(said.clone()), &context, &payload),
                expected,
                "{said}"
            );
        }
    }

    #[test]
    fn columns_and_parameters_of_an_mlflow_body_are_inputs_and_parameters() {
        let bodies = [
            json!({"dataframe_split": {"columns": ["n", "c"], "data": [[3, "IT"], [4, "DE"]]}}),
            json!({"dataframe_records": [{"n": 3, "c": "IT"}, {"n": 4, "c": "DE"}]}),
            json!({"inputs": {"n": [3, 4], "c": ["IT", "DE"]}}),
            json!({"instances": [{"n": 3, "c": "IT"}]}),
        ];
        for body in bodies {
            let mut whole = body.clone();
            whole["params"] = json!({"tier": 2});
            let payload = Payload::Body {
                content_type: "application/json".to_owned(),
                bytes: whole.to_string().into(),
            };
            assert_eq!(input(&payload, "n"), Some(Found::Number(3.0)), "{body}");
            assert_eq!(input(&payload, "c"), Some(Found::Text("IT".into())), "{body}");
            assert_eq!(input(&payload, "x"), None, "{body}");
            let context = CallContext::default();
            assert_eq!(parameter(&context, &payload, "tier"), Some(Found::Number(2.0)));
        }
    }

    #[test]
    fn a_field_of_a_json_body_is_an_input_too() {
        let body = |content_type: &str| Payload::Body {
            content_type: content_type.to_owned(),
            bytes: br#"{"country": "IT", "rows": [7, 8], "deep": {"a": 1}}"#.as_slice().into(),
        };
        let json = body("application/json");
        assert_eq!(input(&json, "country"), Some(Found::Text("IT".into())));
        assert_eq!(input(&json, "rows"), Some(Found::Number(7.0)));
        assert_eq!(input(&json, "deep"), None);
        assert_eq!(input(&body("text/plain"), "country"), None);
    }

    #[test]
    fn a_request_sticks_by_what_the_spec_names_else_by_its_key_else_by_its_id() {
        let (mut context, payload) = request();
        let source = |value: Value| serde_json::from_value::<SourceSpec>(value).unwrap();
        assert_eq!(key(None, &context, &payload), "r1");
        context.parameters.insert("key".to_owned(), json!(17));
        assert_eq!(key(None, &context, &payload), "17");
        context.key = Some("unit".into());
        assert_eq!(key(None, &context, &payload), "unit");
        assert_eq!(
            key(Some(&source(json!({"input": "amount"}))), &context, &payload),
            "12.5"
        );
        assert_eq!(
            key(Some(&source(json!({"header": "x-none"}))), &context, &payload),
            "r1"
        );
    }
}
