//! `/api/3.0/mlflow/datasets/…`: evaluation datasets, as `mlflow.genai.datasets` asks for them. What is nested travels as text.

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};
use tidemill_control::tracking::CreateEvalDataset;
use tidemill_control::users::Principal;
use tidemill_store::tracking::eval_datasets::{EvalDataset, EvalRecord};

use super::{Called, Fields};
use crate::auth;
use crate::control_plane::App;
use crate::error::ApiError;

/// MLflow's message of an evaluation dataset. Clients ask for its experiments by themselves.
fn dataset_json(dataset: &EvalDataset) -> Value {
    let tags: Map<String, Value> = dataset
        .tags
        .iter()
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect();
    let mut message = json!({
        "dataset_id": dataset.dataset_id,
        "name": dataset.name,
        "tags": Value::Object(tags).to_string(),
        "digest": dataset.digest,
        "created_time": dataset.created_ms,
        "last_update_time": dataset.updated_ms,
    });
    let texts = [
        ("schema", &dataset.schema),
        ("profile", &dataset.profile),
        ("created_by", &dataset.created_by),
        ("last_updated_by", &dataset.updated_by),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            message[name] = json!(text);
        }
    }
    message
}

fn experiment_ids(dataset: &EvalDataset) -> Value {
    dataset.experiments.iter().map(ToString::to_string).collect()
}

fn record_json(dataset_id: &str, record: &EvalRecord) -> Value {
    let nested = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let mut message = json!({
        "dataset_record_id": record.record_id,
        "dataset_id": dataset_id,
        "inputs": nested(&record.inputs),
        "tags": nested(record.tags.as_deref().unwrap_or("{}")),
        "created_time": record.created_ms,
        "last_update_time": record.updated_ms,
    });
    let parts = [
        ("outputs", &record.outputs),
        ("expectations", &record.expectations),
        ("source", &record.source),
    ];
    for (name, text) in parts {
        if let Some(text) = text {
            message[name] = nested(text);
        }
    }
    let texts = [
        ("source_id", &record.source_id),
        ("source_type", &record.source_type),
        ("created_by", &record.created_by),
        ("last_updated_by", &record.updated_by),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            message[name] = json!(text);
        }
    }
    message
}

fn answer(dataset: &EvalDataset) -> Json<Value> {
    Json(json!({ "dataset": dataset_json(dataset) }))
}

/// Where the answer is about its experiments, a client is spared asking for them.
fn answer_with_experiments(dataset: &EvalDataset) -> Json<Value> {
    let mut message = dataset_json(dataset);
    if !dataset.experiments.is_empty() {
        message["experiment_ids"] = experiment_ids(dataset);
    }
    Json(json!({ "dataset": message }))
}

/// `POST /api/3.0/mlflow/datasets/create`
pub(crate) async fn create(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let request = CreateEvalDataset {
        name: fields.required_text("name")?,
        experiments: fields.texts("experiment_ids")?,
        tags: fields.text("tags")?.unwrap_or_default(),
    };
    let dataset = app.tracking().create_eval_dataset(&caller, request).await?;
    Ok(answer_with_experiments(&dataset))
}

/// `GET /api/3.0/mlflow/datasets/{dataset_id}`
pub(crate) async fn get(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let id = fields.required_text("dataset_id")?;
    Ok(answer(&app.tracking().eval_dataset(&caller, &id).await?))
}

/// `DELETE /api/3.0/mlflow/datasets/{dataset_id}`
pub(crate) async fn delete(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let id = fields.required_text("dataset_id")?;
    app.tracking().delete_eval_dataset(&caller, &id).await?;
    Ok(Json(json!({})))
}

/// `GET` and `POST /api/3.0/mlflow/datasets/search`
pub(crate) async fn search(
    State(app): State<App>,
    Called(caller): Called,
    known: auth::Caller,
    fields: Fields,
) -> Result<axum::response::Response, ApiError> {
    let visible = super::search::experiments_of(&app, &known, &caller.workspace);
    let mut search = super::search::search(&fields, "view_type", visible)?;
    search.filter = fields.text("filter_string")?.unwrap_or_default();
    search.max_results = search.max_results.filter(|count| *count != 0);
    let experiments = fields.texts("experiment_ids")?;
    // One without experiments is for administrators.
    let lone = known.0.as_deref().is_none_or(Principal::is_admin);
    let found = app
        .tracking()
        .search_eval_datasets(&caller, &experiments, lone, search)
        .await?;
    let items = found.items.iter().map(dataset_json).collect();
    Ok(super::search::answer("datasets", items, found.next_page_token))
}

/// `PATCH /api/3.0/mlflow/datasets/{dataset_id}/tags`
pub(crate) async fn set_tags(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let id = fields.required_text("dataset_id")?;
    let tags = fields.required_text("tags")?;
    app.tracking().set_eval_dataset_tags(&caller, &id, &tags).await?;
    Ok(Json(json!({})))
}

/// `DELETE /api/3.0/mlflow/datasets/{dataset_id}/tags/{key}`
pub(crate) async fn delete_tag(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let (id, key) = (fields.required_text("dataset_id")?, fields.required_text("key")?);
    app.tracking().delete_eval_dataset_tag(&caller, &id, &key).await?;
    Ok(Json(json!({})))
}

/// `POST /api/3.0/mlflow/datasets/{dataset_id}/records`
pub(crate) async fn upsert_records(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let id = fields.required_text("dataset_id")?;
    let records = fields.required_text("records")?;
    let counts = app.tracking().upsert_eval_records(&caller, &id, &records).await?;
    Ok(Json(json!({
        "inserted_count": counts.inserted,
        "updated_count": counts.updated,
    })))
}

/// `GET /api/3.0/mlflow/datasets/{dataset_id}/records`
pub(crate) async fn records(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let id = fields.required_text("dataset_id")?;
    let (count, token) = (fields.integer("max_results")?, fields.text("page_token")?);
    let page = app
        .tracking()
        .eval_records(&caller, &id, count, token.as_deref())
        .await?;
    let records: Value = page
        .records
        .iter()
        .map(|record| record_json(&id, record))
        .collect();
    let mut message = json!({ "records": records.to_string() });
    if let Some(token) = page.next_page_token {
        message["next_page_token"] = json!(token);
    }
    Ok(Json(message))
}

/// `DELETE /api/3.0/mlflow/datasets/{dataset_id}/records`
pub(crate) async fn delete_records(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let id = fields.required_text("dataset_id")?;
    let record_ids = fields.texts("dataset_record_ids")?;
    let count = app
        .tracking()
        .delete_eval_records(&caller, &id, record_ids)
        .await?;
    Ok(Json(json!({ "deleted_count": count })))
}

/// `GET /api/3.0/mlflow/datasets/{dataset_id}/experiment-ids`
pub(crate) async fn experiments(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let id = fields.required_text("dataset_id")?;
    let dataset = app.tracking().eval_dataset(&caller, &id).await?;
    if dataset.experiments.is_empty() {
        return Ok(Json(json!({})));
    }
    Ok(Json(json!({ "experiment_ids": experiment_ids(&dataset) })))
}

/// `POST /api/3.0/mlflow/datasets/{dataset_id}/add-experiments`
pub(crate) async fn add_experiments(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let (id, ids) = (
        fields.required_text("dataset_id")?,
        fields.texts("experiment_ids")?,
    );
    let dataset = app.tracking().move_eval_dataset(&caller, &id, &ids, true).await?;
    Ok(answer_with_experiments(&dataset))
}

/// `POST /api/3.0/mlflow/datasets/{dataset_id}/remove-experiments`
pub(crate) async fn remove_experiments(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let (id, ids) = (
        fields.required_text("dataset_id")?,
        fields.texts("experiment_ids")?,
    );
    let dataset = app
        .tracking()
        .move_eval_dataset(&caller, &id, &ids, false)
        .await?;
    Ok(answer_with_experiments(&dataset))
}
