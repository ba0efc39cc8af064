//! `/api/2.0/mlflow/runs/log-inputs`, `runs/outputs` and `experiments/search-datasets`: what runs read and wrote.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::{Value, json};
use tidemill_control::tracking;
use tidemill_store::tracking::datasets::{Dataset, DatasetInput, InputTag};
use tidemill_store::tracking::runs::ModelOutput;

use super::logging::objects;
use super::messages::{self, DatasetSummaryMessage};
use super::runs::run_id;
use super::{Called, Fields, request};
use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::media_type;

/// `POST /api/2.0/mlflow/runs/log-inputs`
pub(crate) async fn log_inputs(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let run_id = run_id(&fields)?;
    let inputs = objects(&fields, "datasets")?
        .iter()
        .map(dataset_input)
        .collect::<tracking::Result<_>>()?;
    let models = objects(&fields, "models")?
        .iter()
        .map(|model| model.required_text("model_id"))
        .collect::<tracking::Result<_>>()?;
    app.tracking()
        .log_inputs(&caller, &run_id, inputs, models)
        .await?;
    Ok(Json(json!({})))
}

fn dataset_input(fields: &Fields) -> tracking::Result<DatasetInput> {
    let dataset = Fields::of(fields.value("dataset").cloned().unwrap_or_default());
    let text = |name: &str| dataset.text(name).map(Option::unwrap_or_default);
    Ok(DatasetInput {
        dataset: Dataset {
            name: text("name")?,
            digest: text("digest")?,
            source_type: text("source_type")?,
            source: text("source")?,
            schema: dataset.text("schema")?,
            profile: dataset.text("profile")?,
        },
        tags: fields
            .pairs("tags")?
            .into_iter()
            .map(|(key, value)| InputTag { key, value })
            .collect(),
    })
}

/// `POST /api/2.0/mlflow/runs/outputs`
pub(crate) async fn log_outputs(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let run_id = run_id(&fields)?;
    if fields.value("models").is_none() {
        return Err(request::missing("models").into());
    }
    let models = objects(&fields, "models")?
        .iter()
        .map(|model| {
            Ok(ModelOutput {
                model_id: model.required_text("model_id")?,
                step: model.integer("step")?.unwrap_or(0),
            })
        })
        .collect::<tracking::Result<_>>()?;
    app.tracking().log_outputs(&caller, &run_id, models).await?;
    Ok(Json(json!({})))
}

#[derive(Serialize)]
struct Summaries<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dataset_summaries: Vec<DatasetSummaryMessage<'a>>,
}

/// `GET` and `POST /api/2.0/mlflow/experiments/search-datasets`
pub(crate) async fn search_datasets(
    State(app): State<App>,
    Called(caller): Called,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response, ApiError> {
    if headers.contains_key(axum::http::header::CONTENT_TYPE) {
        request::require_json(media_type(&headers).as_deref())?;
    }
    let ids = fields.texts("experiment_ids")?;
    let found = app.tracking().search_datasets(&caller, &ids).await?;
    let dataset_summaries = found.iter().map(messages::dataset_summary).collect();
    Ok(Json(Summaries { dataset_summaries }).into_response())
}
