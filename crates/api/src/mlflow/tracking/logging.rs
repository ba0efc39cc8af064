//! `/api/2.0/mlflow/runs/log-…` and `…-tag`: what runs log. Metrics come by the thousand, so their bodies are read straight into
//! their types; only what does not fit is read again, field by field, to say what is wrong in MLflow's words.

use std::fmt;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use serde_json::{Value, json};
use tidemill_control::tracking::{self, Batch, TrackingError};
use tidemill_store::tracking::metrics::{NewMetric, Point};

use super::runs::run_id;
use super::{Called, Fields, as_integer, as_number, request};
use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::{Body, media_type};

/// A number as protocol buffers' JSON writes it.
struct Number(f64);

/// A whole number as protocol buffers' JSON writes it.
struct Integer(i64);

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }
    fn visit_f64<E>(self, value: f64) -> Result<Number, E> {
        Ok(Number(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Number, E> {
        Ok(Number(value as f64))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Number, E> {
        Ok(Number(value as f64))
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Number, E> {
        as_number(&Value::from(text))
            .map(Number)
            .ok_or_else(|| E::custom("not a number"))
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct IntegerVisitor;

impl Visitor<'_> for IntegerVisitor {
    type Value = Integer;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }
    fn visit_i64<E>(self, value: i64) -> Result<Integer, E> {
        Ok(Integer(value))
    }
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Integer, E> {
        i64::try_from(value).map(Integer).map_err(E::custom)
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Integer, E> {
        as_integer(&json!(value))
            .map(Integer)
            .ok_or_else(|| E::custom("not a whole number"))
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Integer, E> {
        text.parse().map(Integer).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IntegerVisitor)
    }
}

#[derive(Deserialize)]
struct MetricBody {
    /// Only where the metric comes alone.
    run_id: Option<String>,
    key: String,
    value: Number,
    timestamp: Integer,
    step: Option<Integer>,
    model_id: Option<String>,
    dataset_name: Option<String>,
    dataset_digest: Option<String>,
}

impl MetricBody {
    fn metric(self) -> NewMetric {
        let step = self.step.map_or(0, |step| step.0);
        NewMetric {
            key: self.key,
            point: Point::new(step, self.timestamp.0, self.value.0),
            model_id: self.model_id.filter(|text| !text.is_empty()),
            dataset_name: self.dataset_name.filter(|text| !text.is_empty()),
            dataset_digest: self.dataset_digest.filter(|text| !text.is_empty()),
        }
    }
}

#[derive(Deserialize)]
struct PairBody {
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
struct LogBatchBody {
    run_id: String,
    #[serde(default)]
    metrics: Vec<MetricBody>,
    #[serde(default)]
    params: Vec<PairBody>,
    #[serde(default)]
    tags: Vec<PairBody>,
}

fn pairs(bodies: Vec<PairBody>) -> Vec<(String, String)> {
    bodies.into_iter().map(|pair| (pair.key, pair.value)).collect()
}

/// The run and the batch of a body that is as it should be.
fn batch_of(bytes: &[u8]) -> Option<(String, Batch)> {
    let body: LogBatchBody = serde_json::from_slice(bytes).ok()?;
    let complete = !body.run_id.is_empty()
        && body.metrics.iter().all(|metric| !metric.key.is_empty())
        && body.params.iter().all(|param| !param.key.is_empty())
        && body.tags.iter().all(|tag| !tag.key.is_empty());
    if !complete {
        return None;
    }
    let batch = Batch {
        metrics: body.metrics.into_iter().map(MetricBody::metric).collect(),
        params: pairs(body.params),
        tags: pairs(body.tags),
    };
    Some((body.run_id, batch))
}

/// `POST /api/2.0/mlflow/runs/log-batch`
pub(crate) async fn log_batch(
    State(app): State<App>,
    Called(caller): Called,
    headers: HeaderMap,
    Body(bytes): Body,
) -> Result<Json<Value>, ApiError> {
    request::require_json(media_type(&headers).as_deref())?;
    let (run_id, batch) = match batch_of(&bytes) {
        Some(read) => read,
        None => batch_by_field(&Fields::of_body(&bytes)?)?,
    };
    app.tracking().log_batch(&caller, &run_id, batch).await?;
    Ok(Json(json!({})))
}

fn batch_by_field(fields: &Fields) -> tracking::Result<(String, Batch)> {
    let run_id = run_id(fields)?;
    let mut batch = Batch::default();
    for (index, item) in objects(fields, "metrics")?.iter().enumerate() {
        let at = |name: &str| format!("metrics[{index}].{name}");
        for name in ["key", "value", "timestamp"] {
            if matches!(item.value(name), None | Some(Value::String(_)))
                && item
                    .value(name)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .is_empty()
            {
                return Err(request::missing(&at(name)));
            }
        }
        batch.metrics.push(metric_by_field(item, at)?);
    }
    batch.params = pairs_by_field(fields, "params")?;
    batch.tags = pairs_by_field(fields, "tags")?;
    Ok((run_id, batch))
}

/// The objects of a list.
pub(super) fn objects(fields: &Fields, name: &str) -> tracking::Result<Vec<Fields>> {
    let items = fields.list(name)?;
    let whole = fields.value(name);
    match whole {
        Some(whole) if !items.iter().all(Value::is_object) => Err(request::wrong(name, whole)),
        _ => Ok(items.into_iter().map(Fields::of).collect()),
    }
}

fn pairs_by_field(fields: &Fields, name: &str) -> tracking::Result<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    for (index, item) in objects(fields, name)?.iter().enumerate() {
        let at = |field: &str| format!("{name}[{index}].{field}");
        let key = item.text_at("key", &at("key"))?.filter(|key| !key.is_empty());
        let key = key.ok_or_else(|| request::missing(&at("key")))?;
        pairs.push((key, item.text_at("value", &at("value"))?.unwrap_or_default()));
    }
    Ok(pairs)
}

/// `at` gives the path of a field.
fn metric_by_field(fields: &Fields, at: impl Fn(&str) -> String) -> tracking::Result<NewMetric> {
    let text = |name: &str| fields.text_at(name, &at(name));
    let required = |name: &str| match fields.value(name) {
        Some(value) if value.as_str() != Some("") => Ok(value),
        _ => Err(request::missing(&at(name))),
    };
    let wrong = |name: &str, value: &Value| request::wrong(&at(name), value);
    required("key")?;
    let key = text("key")?.unwrap_or_default();
    let value = required("value")?;
    let value = as_number(value).ok_or_else(|| wrong("value", value))?;
    let timestamp = required("timestamp")?;
    let timestamp = as_integer(timestamp).ok_or_else(|| wrong("timestamp", timestamp))?;
    let step = match fields.value("step") {
        None => 0,
        Some(step) => as_integer(step).ok_or_else(|| wrong("step", step))?,
    };
    Ok(NewMetric {
        key,
        point: Point::new(step, timestamp, value),
        model_id: text("model_id")?.filter(|text| !text.is_empty()),
        dataset_name: text("dataset_name")?.filter(|text| !text.is_empty()),
        dataset_digest: text("dataset_digest")?.filter(|text| !text.is_empty()),
    })
}

/// The run and the metric of a body that is as it should be.
fn metric_of(bytes: &[u8]) -> Option<(String, NewMetric)> {
    let mut body: MetricBody = serde_json::from_slice(bytes).ok()?;
    let run_id = body.run_id.take().filter(|run_id| !run_id.is_empty())?;
    (!body.key.is_empty()).then(|| (run_id, body.metric()))
}

/// `POST /api/2.0/mlflow/runs/log-metric`
pub(crate) async fn log_metric(
    State(app): State<App>,
    Called(caller): Called,
    headers: HeaderMap,
    Body(bytes): Body,
) -> Result<Json<Value>, ApiError> {
    request::require_json(media_type(&headers).as_deref())?;
    let (run_id, metric) = match metric_of(&bytes) {
        Some(read) => read,
        None => {
            let fields = Fields::of_body(&bytes)?;
            (run_id(&fields)?, metric_by_field(&fields, str::to_owned)?)
        }
    };
    app.tracking().log_metric(&caller, &run_id, metric).await?;
    Ok(Json(json!({})))
}

/// `POST /api/2.0/mlflow/runs/log-parameter`
pub(crate) async fn log_param(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let (run_id, key, value) = run_key_value(&fields)?;
    app.tracking().log_param(&caller, &run_id, &key, &value).await?;
    Ok(Json(json!({})))
}

/// `POST /api/2.0/mlflow/runs/set-tag`
pub(crate) async fn set_tag(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let (run_id, key, value) = run_key_value(&fields)?;
    app.tracking().set_tag(&caller, &run_id, &key, &value).await?;
    Ok(Json(json!({})))
}

fn run_key_value(fields: &Fields) -> Result<(String, String, String), TrackingError> {
    let run_id = run_id(fields)?;
    let key = fields.required_text("key")?;
    Ok((run_id, key, fields.text("value")?.unwrap_or_default()))
}

/// `POST /api/2.0/mlflow/runs/delete-tag`
pub(crate) async fn delete_tag(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let run_id = run_id(&fields)?;
    let key = fields.required_text("key")?;
    app.tracking().delete_tag(&caller, &run_id, &key).await?;
    Ok(Json(json!({})))
}

/// `POST /api/2.0/mlflow/runs/log-model`
pub(crate) async fn log_model(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let run_id = run_id(&fields)?;
    let model = fields.required_text("model_json")?;
    app.tracking().log_model(&caller, &run_id, &model).await?;
    Ok(Json(json!({})))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_field(body: &Value) -> tracking::Result<(String, Batch)> {
        batch_by_field(&Fields::of_body(body.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn both_ways_of_reading_a_batch_read_the_same() {
        let body = json!({
            "run_id": "a", "unknown": 1,
            "metrics": [
                {"key": "x", "value": 1, "timestamp": 5, "step": "3"},
                {"key": "y", "value": "0.5", "timestamp": 2.0, "model_id": "m-1", "dataset_name": ""},
            ],
            "params": [{"key": "p", "value": "v"}],
            "tags": [{"key": "t"}],
        });
        let read = batch_of(body.to_string().as_bytes()).unwrap();
        assert_eq!(read, by_field(&body).unwrap());
        assert_eq!(read.1.metrics[0].point, Point::new(3, 5, 1.0));
        let nan = json!({"run_id": "a", "metrics": [{"key": "x", "value": "NaN", "timestamp": 5}]});
        assert!(
            batch_of(nan.to_string().as_bytes()).unwrap().1.metrics[0]
                .point
                .is_nan
        );
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_with_its_place() {
        for (body, says) in [
            (json!({}), "Missing value for required parameter 'run_id'"),
            (
                json!({"run_id": 31}),
                "Invalid value 31 for parameter 'run_id' supplied",
            ),
            (
                json!({"run_id": "a", "metrics": "foo"}),
                "Invalid value \"foo\" for parameter 'metrics' supplied",
            ),
            (
                json!({"run_id": "a", "metrics": [{"key": "x", "timestamp": 1}]}),
                "Missing value for required parameter 'metrics[0].value'",
            ),
            (
                json!({"run_id": "a", "metrics": [{"key": "x", "value": "foo", "timestamp": 1}]}),
                "Invalid value \"foo\" for parameter 'metrics[0].value' supplied",
            ),
            (
                json!({"run_id": "a", "params": [{"key": "x"}, {"value": "y"}]}),
                "Missing value for required parameter 'params[1].key'",
            ),
            (
                json!({"run_id": "a", "tags": [{"key": "x", "value": 41}]}),
                "Invalid value 41 for parameter 'tags[0].value' supplied",
            ),
        ] {
            assert!(batch_of(body.to_string().as_bytes()).is_none());
            let message = by_field(&body).unwrap_err().to_string();
            assert!(message.starts_with(says), "{message}");
        }
    }
}
