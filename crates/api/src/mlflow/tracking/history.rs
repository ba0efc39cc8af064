//! `/api/2.0/mlflow/metrics/…`: histories of metrics.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::stream;
use serde::Serialize;
use serde_json::Value;
use tidemill_control::tracking::{
    self, Caller, MAX_BUCKETS, MAX_PAGE, MAX_RUNS, MAX_SAMPLED_STEPS, RunPoints, TrackingError,
};
use tidemill_store::tracking::history::Bucket;
use tidemill_store::tracking::metrics::Point;

use super::messages::{self, MetricMessage, told};
use super::runs::run_id;
use super::{Called, Fields, request};
use crate::control_plane::App;
use crate::error::ApiError;

#[derive(Serialize)]
struct Metrics<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    metrics: Vec<MetricMessage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

/// `GET /api/2.0/mlflow/metrics/get-history`
pub(crate) async fn page(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Response, ApiError> {
    let run_id = run_id(&fields)?;
    let key = fields.required_text("metric_key")?;
    let limit = fields.integer("max_results")?;
    if let Some(limit) = limit.filter(|limit| *limit < 1) {
        return Err(TrackingError::invalid(format!(
            "Invalid value {limit} for parameter 'max_results' supplied. It must be a positive integer."
        ))
        .into());
    }
    let after = match fields.text("page_token")?.filter(|token| !token.is_empty()) {
        Some(token) => Some(parse_token(&token)?),
        None => None,
    };
    let page = limit.map_or(MAX_PAGE, |limit| {
        u32::try_from(limit).unwrap_or(MAX_PAGE).min(MAX_PAGE)
    });
    let (points, more) = app
        .tracking()
        .metric_history(&caller, &run_id, &key, after, page)
        .await?;
    let next = points.last().filter(|_| more).copied();
    if let (Some(last), None) = (next, limit) {
        return Ok(whole(app, caller, run_id, key, points, last));
    }
    let metrics = points
        .iter()
        .map(|point| messages::point(&key, point, None))
        .collect();
    let next_page_token = next.map(|point| token(&point));
    Ok(Json(Metrics {
        metrics,
        next_page_token,
    })
    .into_response())
}

/// The answer to a request without a limit, which means all of it: page after page on one response, so that memory stays small.
fn whole(app: App, caller: Caller, run_id: String, key: String, first: Vec<Point>, last: Point) -> Response {
    struct State {
        app: App,
        caller: Caller,
        run_id: String,
        key: String,
        last: Option<Point>,
        begun: bool,
    }
    let begin = written(&key, &first, false);
    let state = State {
        app,
        caller,
        run_id,
        key,
        last: Some(last),
        begun: false,
    };
    let pages = stream::unfold((state, begin), |(mut state, begin)| async move {
        if !state.begun {
            state.begun = true;
            return Some((Ok(begin), (state, Bytes::new())));
        }
        let last = state.last.take()?;
        let tracking = state.app.tracking().clone();
        let next = tracking
            .metric_history(&state.caller, &state.run_id, &state.key, Some(last), MAX_PAGE)
            .await;
        match next {
            Ok((points, more)) => {
                let mut bytes = written(&state.key, &points, true).to_vec();
                match points.last().filter(|_| more) {
                    Some(last) => state.last = Some(*last),
                    None => bytes.extend_from_slice(b"]}"),
                }
                Some((Ok(Bytes::from(bytes)), (state, Bytes::new())))
            }
            Err(error) => Some((Err(error), (state, Bytes::new()))),
        }
    });
    let mut response = Response::new(Body::from_stream(pages));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Points as they stand within the list, which they open unless it is open.
fn written(key: &str, points: &[Point], open: bool) -> Bytes {
    let mut bytes = Vec::with_capacity(points.len() * 80);
    if !open {
        bytes.extend_from_slice(b"{\"metrics\":[");
    }
    for (index, point) in points.iter().enumerate() {
        if open || index > 0 {
            bytes.push(b',');
        }
        let message = messages::point(key, point, None);
        // Writing to memory cannot fail.
        let _ = serde_json::to_writer(&mut bytes, &message);
    }
    Bytes::from(bytes)
}

/// Where a page ended. Pages stay what they are while the run goes on logging.
fn token(point: &Point) -> String {
    format!(
        "{:x}.{:x}.{:x}.{}",
        point.at_ms,
        point.step,
        point.value.to_bits(),
        u8::from(point.is_nan)
    )
}

fn parse_token(token: &str) -> tracking::Result<Point> {
    let parse = || {
        let mut parts = token.split('.');
        let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
        let (at_ms, step, value, is_nan) = (number()?, number()?, number()?, number()?);
        Some(Point {
            at_ms: at_ms as i64,
            step: step as i64,
            value: f64::from_bits(value),
            is_nan: is_nan != 0,
        })
    };
    parse().ok_or_else(|| TrackingError::invalid("Invalid page token, could not base64-decode"))
}

/// `GET /api/2.0/mlflow/metrics/get-history-bulk`
pub(crate) async fn bulk(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Response, ApiError> {
    let run_ids = fields.texts("run_id")?;
    if run_ids.is_empty() {
        return Err(
            TrackingError::invalid("GetMetricHistoryBulk request must specify at least one run_id.").into(),
        );
    }
    if run_ids.len() > MAX_RUNS {
        return Err(TrackingError::invalid(format!(
            "GetMetricHistoryBulk request cannot specify more than {MAX_RUNS} run_ids. Received {} run_ids.",
            run_ids.len()
        ))
        .into());
    }
    let Some(key) = fields.text("metric_key")? else {
        return Err(TrackingError::invalid("GetMetricHistoryBulk request must specify a metric_key.").into());
    };
    let limit = fields.integer("max_results")?.unwrap_or(i64::from(MAX_PAGE));
    let limit = u32::try_from(limit).unwrap_or(0).min(MAX_PAGE);
    let found = app
        .tracking()
        .metric_history_bulk(&caller, run_ids, &key, limit)
        .await?;
    // Unlike the others this answer has its list also where it is empty.
    Ok(Json(serde_json::json!({ "metrics": of_runs(&key, &found) })).into_response())
}

fn of_runs<'a>(key: &'a str, runs: &'a [RunPoints]) -> Vec<MetricMessage<'a>> {
    let of_run = |run: &'a RunPoints| {
        run.points
            .iter()
            .map(move |point| messages::point(key, point, Some(&run.run_id)))
    };
    runs.iter().flat_map(of_run).collect()
}

/// A stretch of steps; both ends or none.
fn range(fields: &Fields) -> tracking::Result<Option<(i64, i64)>> {
    match (fields.integer("start_step")?, fields.integer("end_step")?) {
        (None, None) => Ok(None),
        (Some(start), Some(end)) => Ok(Some((start, end))),
        _ => Err(TrackingError::invalid(
            "If either start step or end step are specified, both must be specified.",
        )),
    }
}

/// `GET /api/2.0/mlflow/metrics/get-history-bulk-interval`
pub(crate) async fn sampled(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Response, ApiError> {
    let key = fields.text("metric_key")?.unwrap_or_default();
    let found = sampled_points(&app, &caller, &fields).await?;
    let metrics = of_runs(&key, &found);
    Ok(Json(Metrics {
        metrics,
        next_page_token: None,
    })
    .into_response())
}

/// The points that such a request asks for.
pub(super) async fn sampled_points(
    app: &App,
    caller: &Caller,
    fields: &Fields,
) -> tracking::Result<Vec<RunPoints>> {
    let run_ids = fields.texts("run_ids")?;
    if run_ids.is_empty() {
        return Err(request::missing("run_ids"));
    }
    if run_ids.len() > MAX_RUNS {
        return Err(TrackingError::invalid(format!(
            "GetMetricHistoryBulkInterval request must specify at most {MAX_RUNS} run_ids. Received {} run_ids.",
            run_ids.len()
        )));
    }
    let key = fields.required_text("metric_key")?;
    let limit = fields.integer("max_results")?.unwrap_or(MAX_SAMPLED_STEPS);
    if !(1..=MAX_SAMPLED_STEPS).contains(&limit) {
        return Err(TrackingError::invalid(format!(
            "max_results must be between 1 and {MAX_SAMPLED_STEPS}."
        )));
    }
    let range = range(fields)?;
    app.tracking()
        .metric_history_sampled(caller, run_ids, &key, range, limit as usize)
        .await
}

#[derive(Serialize)]
struct Buckets {
    buckets: Vec<BucketMessage>,
}

#[derive(Serialize)]
struct BucketMessage {
    count: u64,
    nan_count: u64,
    first: PointMessage,
    last: PointMessage,
    min: PointMessage,
    max: PointMessage,
    #[serde(skip_serializing_if = "Option::is_none")]
    mean: Option<f64>,
}

#[derive(Serialize)]
struct PointMessage {
    #[serde(serialize_with = "told")]
    value: f64,
    timestamp: i64,
    step: i64,
}

fn bucket(bucket: &Bucket) -> BucketMessage {
    let point = |point: &Point| PointMessage {
        value: point.told(),
        timestamp: point.at_ms,
        step: point.step,
    };
    BucketMessage {
        count: bucket.count,
        nan_count: bucket.nans,
        first: point(&bucket.first),
        last: point(&bucket.last),
        min: point(&bucket.min),
        max: point(&bucket.max),
        mean: bucket.mean(),
    }
}

/// How many stretches a chart has where nothing is said.
const BUCKETS: i64 = 500;

/// `GET /api/2.0/mlflow/metrics/get-history-downsampled?run_id=&metric_key=&points=&start_step=&end_step=`
///
/// Beyond MLflow, for charts: the steps from the first to the last (or from `start_step` to `end_step`) in at most `points` stretches
/// of equal length. Each that has points says how many, and its first, last, smallest and largest one, so that no spike
/// is lost, and the mean of its values, unless all are NaN.
pub(crate) async fn downsampled(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Response, ApiError> {
    let run_id = run_id(&fields)?;
    let key = fields.required_text("metric_key")?;
    let count = fields.integer("points")?.unwrap_or(BUCKETS);
    if !(1..=MAX_BUCKETS).contains(&count) {
        let points = Value::from(count);
        return Err(
            request::wrong_because("points", &points, &format!("must be from 1 to {MAX_BUCKETS}")).into(),
        );
    }
    let range = range(&fields)?;
    let found = app
        .tracking()
        .metric_history_downsampled(&caller, &run_id, &key, range, count as usize)
        .await?;
    let buckets = found.iter().map(bucket).collect();
    Ok(Json(Buckets { buckets }).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_as_the_point_it_was_made_of() {
        for point in [Point::new(-3, 5, -0.25), Point::new(0, -1, f64::NAN)] {
            assert_eq!(parse_token(&token(&point)).unwrap(), point);
        }
        assert!(parse_token("invalid_token").is_err());
        assert!(parse_token("1.2.3").is_err());
    }
}
