//! URLs of a bucket for artifacts that clients reach by themselves: `artifacts/presigned-{upload,download}-url`.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use tidemill_control::tracking::{Caller, TrackingError};

use super::{Called, Fields};
use crate::control_plane::App;
use crate::error::ApiError;

/// As MLflow has it where nothing is said.
const LASTS_S: i64 = 900;
/// S3 signs for no longer.
const LONGEST_S: i64 = 7 * 24 * 3_600;

fn lasts(fields: &Fields) -> Result<u64, ApiError> {
    let given = fields.integer("expiration")?.unwrap_or(LASTS_S);
    if (1..=LONGEST_S).contains(&given) {
        return Ok(given.unsigned_abs());
    }
    Err(TrackingError::invalid(format!(
        "expiration must be between 1 and {LONGEST_S} seconds (got {given})."
    ))
    .into())
}

/// Where the run or the logged model that is named keeps its artifacts.
async fn root_of(app: &App, caller: &Caller, fields: &Fields) -> Result<String, ApiError> {
    let given = |name: &str| -> Result<Option<String>, ApiError> {
        Ok(fields.text(name)?.filter(|text| !text.is_empty()))
    };
    match (given("run_id")?, given("model_id")?) {
        (Some(run_id), None) => Ok(app.tracking().artifact_root_of_run(caller, &run_id).await?),
        (None, Some(model_id)) => {
            let model = app.tracking().logged_model(caller, &model_id, false).await?;
            Ok(model.artifact_location)
        }
        _ => Err(TrackingError::invalid("Exactly one of run_id and model_id must be provided.").into()),
    }
}

/// `POST artifacts/presigned-upload-url`
pub(crate) async fn upload(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let (path, lasts) = (fields.required_text("path")?, lasts(&fields)?);
    let root = root_of(&app, &caller, &fields).await?;
    let url = app.tracking().url_to_put(&caller, &root, &path, lasts).await?;
    Ok(Json(json!({ "presigned_url": url, "headers": {} })))
}

/// `POST artifacts/presigned-download-url`
pub(crate) async fn download(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let (path, lasts) = (fields.required_text("path")?, lasts(&fields)?);
    let root = root_of(&app, &caller, &fields).await?;
    let (url, size) = app.tracking().url_to_get(&caller, &root, &path, lasts).await?;
    Ok(Json(
        json!({ "presigned_url": url, "headers": {}, "file_size": size }),
    ))
}
