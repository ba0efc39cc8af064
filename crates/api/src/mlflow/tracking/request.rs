//! What a request of MLflow's API says, by field. MLflow parses requests as protocol buffers in JSON; this reads the same, and
//! refuses in the same words, which clients and their tests match.

use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::Method;
use serde_json::{Map, Value};
use tidemill_control::tracking::{self, TrackingError};

use crate::error::ApiError;
use crate::extract::{Body, media_type};

const SEE_DOCS: &str = " See the API docs for more information about request parameters.";

/// The fields of a request: the query of a GET, the JSON body of anything else, and in both cases what the path names. Names are
/// in snake_case; camelCase is understood as well.
pub(crate) struct Fields {
    map: Map<String, Value>,
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let path = RawPathParams::from_request_parts(&mut parts, state).await;
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let method = parts.method.clone();
        let mut map = if method == Method::GET || method == Method::HEAD {
            from_query(&query)
        } else {
            let media = media_type(&parts.headers);
            let Body(bytes) = Body::from_request(Request::from_parts(parts, body), state).await?;
            if bytes.is_empty() && method == Method::DELETE {
                from_query(&query)
            } else {
                require_json(media.as_deref())?;
                from_body(&bytes)?
            }
        };
        if let Ok(path) = path {
            for (name, value) in &path {
                map.insert(name.to_owned(), Value::String(value.to_owned()));
            }
        }
        Ok(Self { map })
    }
}

/// A browser sends other content types to foreign pages' servers without asking; JSON it asks for first.
pub(crate) fn require_json(media: Option<&str>) -> Result<(), ApiError> {
    if media == Some("application/json") {
        return Ok(());
    }
    Err(ApiError::from(TrackingError::invalid(format!(
        "Bad Request. Content-Type must be one of ['application/json']{}",
        media.map(|media| format!(", got `{media}`")).unwrap_or_default()
    ))))
}

fn from_query(query: &str) -> Map<String, Value> {
    let mut map = Map::new();
    for (name, value) in form_pairs(query) {
        let value = Value::String(value);
        match map.get_mut(&name) {
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
            None => {
                map.insert(name, value);
            }
        }
    }
    map
}

/// The pairs of a query string, decoded.
pub(crate) fn form_pairs(query: &str) -> Vec<(String, String)> {
    serde_urlencoded::from_str(query).unwrap_or_default()
}

fn from_body(bytes: &[u8]) -> Result<Map<String, Value>, ApiError> {
    // What is no JSON counts as empty, as MLflow reads it: the fields that are required then say what is missing.
    let parsed = match serde_json::from_slice(bytes) {
        Ok(Value::String(inner)) => serde_json::from_str(&inner).unwrap_or(Value::Null),
        Ok(parsed) => parsed,
        Err(_) => Value::Null,
    };
    let map = match parsed {
        Value::Object(map) => map,
        Value::Null => Map::new(),
        other => {
            return Err(ApiError::from(TrackingError::invalid(format!(
                "the body is {}: expected a JSON object",
                python_type(&other)
            ))));
        }
    };
    if !map.keys().any(|name| name.contains(char::is_uppercase)) {
        return Ok(map);
    }
    let mut snake = Map::new();
    let mut twice = None;
    for (written, value) in map {
        let name = snake_case(&written);
        if snake.contains_key(&name) {
            twice = Some((name.clone(), written));
        }
        snake.insert(name, value);
    }
    if let Some((name, written)) = twice {
        return Err(ApiError::from(TrackingError::invalid(format!(
            "Request specifies both '{name}' and '{}'; provide only one of them.",
            camel_case(if written == name { &name } else { &written })
        ))));
    }
    Ok(snake)
}

fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for character in name.chars() {
        if character.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}

fn camel_case(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut upper = false;
    for character in name.chars() {
        if character == '_' {
            upper = true;
        } else if upper {
            camel.push(character.to_ascii_uppercase());
            upper = false;
        } else {
            camel.push(character);
        }
    }
    camel
}

/// What Python calls the type of a value; MLflow's messages do.
fn python_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

/// A field that must be given and is not.
pub(crate) fn missing(name: &str) -> TrackingError {
    TrackingError::invalid(format!(
        "Missing value for required parameter '{name}'.{SEE_DOCS}"
    ))
}

/// A value of a field that cannot be.
pub(crate) fn wrong(name: &str, value: &Value) -> TrackingError {
    TrackingError::invalid(format!(
        "Invalid value {value} for parameter '{name}' supplied. Hint: Value was of type '{}'.{SEE_DOCS}",
        python_type(value)
    ))
}

/// A value of a field that cannot be, with the reason.
pub(crate) fn wrong_because(name: &str, value: &Value, why: &str) -> TrackingError {
    TrackingError::invalid(format!(
        "Invalid value {value} for parameter '{name}' supplied: {why}"
    ))
}

impl Fields {
    /// Over a body that is JSON.
    pub fn of_body(bytes: &[u8]) -> Result<Self, ApiError> {
        Ok(Self {
            map: from_body(bytes)?,
        })
    }

    /// Over an object that is part of a request.
    pub fn of(value: Value) -> Self {
        match value {
            Value::Object(map) => Self { map },
            _ => Self { map: Map::new() },
        }
    }

    /// A field as it came; `None` where it is absent or null.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// Takes a field out.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// A text, if it is given.
    pub fn text(&self, name: &str) -> tracking::Result<Option<String>> {
        self.text_at(name, name)
    }

    /// [`Fields::text`] of an object that is part of a request, in which the field is at `path`.
    pub fn text_at(&self, name: &str, path: &str) -> tracking::Result<Option<String>> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(wrong(path, other)),
        }
    }

    /// A text that must be given and must not be empty.
    pub fn required_text(&self, name: &str) -> tracking::Result<String> {
        match self.text(name)? {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(missing(name)),
        }
    }

    /// A whole number, if it is given. Digits in a text count, as in protocol buffers' JSON.
    pub fn integer(&self, name: &str) -> tracking::Result<Option<i64>> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        as_integer(value).map(Some).ok_or_else(|| wrong(name, value))
    }

    /// A whole number that must be given.
    pub fn required_integer(&self, name: &str) -> tracking::Result<i64> {
        self.integer(name)?.ok_or_else(|| missing(name))
    }

    /// A number, if it is given. `"NaN"`, `"Infinity"` and `"-Infinity"` are numbers.
    pub fn number(&self, name: &str) -> tracking::Result<Option<f64>> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        as_number(value).map(Some).ok_or_else(|| wrong(name, value))
    }

    /// True or false, if it is given.
    pub fn boolean(&self, name: &str) -> tracking::Result<Option<bool>> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(Value::String(text)) => Err(TrackingError::invalid(format!(
                "Invalid boolean value: {text}, must be 'true' or 'false'."
            ))),
            Some(other) => Err(wrong(name, other)),
        }
    }

    /// A list; empty where it is absent. In a query one value stands for a list of one.
    pub fn list(&self, name: &str) -> tracking::Result<Vec<Value>> {
        match self.value(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => Ok(items.clone()),
            Some(text @ Value::String(_)) => Ok(vec![text.clone()]),
            Some(other) => Err(wrong(name, other)),
        }
    }

    /// A list of texts; numbers in it count as their digits (experiment ids once were numbers).
    pub fn texts(&self, name: &str) -> tracking::Result<Vec<String>> {
        let whole = self.value(name).cloned().unwrap_or_default();
        self.list(name)?
            .into_iter()
            .map(|item| match item {
                Value::String(text) => Ok(text),
                Value::Number(number) => Ok(number.to_string()),
                _ => Err(wrong(name, &whole)),
            })
            .collect()
    }

    /// A list of objects with `key` and `value`, such as tags.
    pub fn pairs(&self, name: &str) -> tracking::Result<Vec<(String, String)>> {
        let whole = self.value(name).cloned().unwrap_or_default();
        self.list(name)?
            .into_iter()
            .map(|item| {
                let fields = Self::of(item);
                let key = fields.text("key")?.filter(|key| !key.is_empty());
                let key = key.ok_or_else(|| wrong(name, &whole))?;
                Ok((key, fields.text("value")?.unwrap_or_default()))
            })
            .collect()
    }
}

/// A whole number as protocol buffers' JSON writes it.
pub(crate) fn as_integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            let float = number.as_f64()?;
            (float.fract() == 0.0 && float.abs() < 9.2e18).then_some(float as i64)
        }),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// A number as protocol buffers' JSON writes it.
pub(crate) fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            text => text.parse().ok().filter(|number: &f64| number.is_finite()),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(value: Value) -> Fields {
        Fields::of(value)
    }

    #[test]
    fn fields_are_read_as_protocol_buffers_read_them() {
        let f = fields(json!({"a": "1", "b": 2.0, "c": "NaN", "d": "true", "e": [1, "2"], "n": null}));
        assert_eq!(f.integer("a").unwrap(), Some(1));
        assert_eq!(f.integer("b").unwrap(), Some(2));
        assert!(f.number("c").unwrap().unwrap().is_nan());
        assert_eq!(f.boolean("d").unwrap(), Some(true));
        assert_eq!(f.texts("e").unwrap(), ["1", "2"]);
        assert_eq!(f.text("n").unwrap(), None);
        assert_eq!(f.integer("absent").unwrap(), None);
    }

    #[test]
    fn what_is_wrong_is_said_in_mlflows_words() {
        let f = fields(json!({"name": 12, "empty": ""}));
        assert_eq!(
            f.required_text("name").unwrap_err().to_string(),
            "Invalid value 12 for parameter 'name' supplied. Hint: Value was of type 'int'. \
             See the API docs for more information about request parameters."
        );
        assert_eq!(
            f.required_text("empty").unwrap_err().to_string(),
            "Missing value for required parameter 'empty'. \
             See the API docs for more information about request parameters."
        );
    }

    #[test]
    fn both_spellings_of_a_name_are_read_and_both_at_once_are_refused() {
        let map = from_body(br#"{"runId": "a"}"#).unwrap();
        assert_eq!(map["run_id"], "a");
        assert!(from_body(br#"{"runId": "a", "run_id": "b"}"#).is_err());
        assert_eq!(from_body(br#""{\"run_id\": \"a\"}""#).unwrap()["run_id"], "a");
    }
}
