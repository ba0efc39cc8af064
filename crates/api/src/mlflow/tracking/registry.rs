//! Registered models and model versions.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use tidemill_control::tracking::registry::CreateVersion;

use super::{Called, Fields, model_message, version_message};
use crate::control_plane::App;
use crate::error::ApiError;

type Answer = Result<Json<Value>, ApiError>;

fn empty() -> Json<Value> {
    Json(json!({}))
}

/// `POST registered-models/create`
pub(crate) async fn create_model(State(app): State<App>, Called(caller): Called, fields: Fields) -> Answer {
    let (name, tags) = (fields.required_text("name")?, fields.pairs("tags")?);
    let description = fields.text("description")?.unwrap_or_default();
    let created = app
        .tracking()
        .create_registered_model(&caller, name, tags, description)
        .await?;
    Ok(Json(json!({ "registered_model": model_message(&created) })))
}

/// `GET registered-models/get`
pub(crate) async fn get_model(State(app): State<App>, Called(caller): Called, fields: Fields) -> Answer {
    let name = fields.required_text("name")?;
    let found = app.tracking().get_registered_model(&caller, name).await?;
    Ok(Json(json!({ "registered_model": model_message(&found) })))
}

/// `POST registered-models/rename`
pub(crate) async fn rename_model(State(app): State<App>, Called(caller): Called, fields: Fields) -> Answer {
    let (name, new_name) = (fields.required_text("name")?, fields.required_text("new_name")?);
    let renamed = app
        .tracking()
        .rename_registered_model(&caller, name, new_name)
        .await?;
    Ok(Json(json!({ "registered_model": model_message(&renamed) })))
}

/// `PATCH registered-models/update`
pub(crate) async fn update_model(State(app): State<App>, Called(caller): Called, fields: Fields) -> Answer {
    let name = fields.required_text("name")?;
    let description = fields.text("description")?.unwrap_or_default();
    let updated = app
        .tracking()
        .update_registered_model(&caller, name, description)
        .await?;
    Ok(Json(json!({ "registered_model": model_message(&updated) })))
}

/// `DELETE registered-models/delete`
pub(crate) async fn delete_model(State(app): State<App>, Called(caller): Called, fields: Fields) -> Answer {
    let name = fields.required_text("name")?;
    app.tracking().delete_registered_model(&caller, name).await?;
    Ok(empty())
}

/// `GET` and `POST registered-models/get-latest-versions`
pub(crate) async fn latest_versions(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Answer {
    let (name, stages) = (fields.required_text("name")?, fields.texts("stages")?);
    let found = app.tracking().get_latest_versions(&caller, name, stages).await?;
    let versions: Vec<Value> = found.iter().map(version_message).collect();
    if versions.is_empty() {
        return Ok(empty());
    }
    Ok(Json(json!({ "model_versions": versions })))
}

/// `POST registered-models/set-tag`
pub(crate) async fn set_model_tag(State(app): State<App>, Called(caller): Called, fields: Fields) -> Answer {
    let (name, key) = (fields.required_text("name")?, fields.required_text("key")?);
    let value = fields.text("value")?.unwrap_or_default();
    app.tracking()
        .set_registered_model_tag(&caller, name, key, value)
        .await?;
    Ok(empty())
}

/// `DELETE registered-models/delete-tag`
pub(crate) async fn delete_model_tag(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Answer {
    let (name, key) = (fields.required_text("name")?, fields.required_text("key")?);
    app.tracking()
        .delete_registered_model_tag(&caller, name, key)
        .await?;
    Ok(empty())
}

/// `POST registered-models/alias`
pub(crate) async fn set_alias(State(app): State<App>, Called(caller): Called, fields: Fields) -> Answer {
    let (name, alias) = (fields.required_text("name")?, fields.required_text("alias")?);
    let version = fields.required_text("version")?;
    app.tracking()
        .set_registered_model_alias(&caller, name, alias, version)
        .await?;
    Ok(empty())
}

/// `DELETE registered-models/alias`
pub(crate) async fn delete_alias(State(app): State<App>, Called(caller): Called, fields: Fields) -> Answer {
    let (name, alias) = (fields.required_text("name")?, fields.required_text("alias")?);
    app.tracking()
        .delete_registered_model_alias(&caller, name, alias)
        .await?;
    Ok(empty())
}

/// `GET registered-models/alias`
pub(crate) async fn get_by_alias(State(app): State<App>, Called(caller): Called, fields: Fields) -> Answer {
    let (name, alias) = (fields.required_text("name")?, fields.required_text("alias")?);
    let found = app
        .tracking()
        .get_model_version_by_alias(&caller, name, alias)
        .await?;
    Ok(Json(json!({ "model_version": version_message(&found) })))
}

/// `POST model-versions/create`
pub(crate) async fn create_version(State(app): State<App>, Called(caller): Called, fields: Fields) -> Answer {
    let text = |name| fields.text(name).map(Option::unwrap_or_default);
    let new = CreateVersion {
        name: fields.required_text("name")?,
        source: fields.required_text("source")?,
        run_id: text("run_id")?,
        run_link: text("run_link")?,
        model_id: text("model_id")?,
        description: text("description")?,
        tags: fields.pairs("tags")?,
    };
    let created = app.tracking().create_model_version(&caller, new).await?;
    Ok(Json(json!({ "model_version": version_message(&created) })))
}

/// The model and the version that a request names.
fn named(fields: &Fields) -> Result<(String, String), ApiError> {
    Ok((fields.required_text("name")?, fields.required_text("version")?))
}

/// `GET model-versions/get`
pub(crate) async fn get_version(State(app): State<App>, Called(caller): Called, fields: Fields) -> Answer {
    let (name, version) = named(&fields)?;
    let found = app.tracking().get_model_version(&caller, name, version).await?;
    Ok(Json(json!({ "model_version": version_message(&found) })))
}

/// `PATCH model-versions/update`
pub(crate) async fn update_version(State(app): State<App>, Called(caller): Called, fields: Fields) -> Answer {
    let (name, version) = named(&fields)?;
    let description = fields.text("description")?.unwrap_or_default();
    let updated = app
        .tracking()
        .update_model_version(&caller, name, version, description)
        .await?;
    Ok(Json(json!({ "model_version": version_message(&updated) })))
}

/// `POST model-versions/transition-stage`
pub(crate) async fn transition_stage(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Answer {
    let version = named(&fields)?;
    let stage = fields.required_text("stage")?;
    let archive = fields.boolean("archive_existing_versions")?.unwrap_or(false);
    let moved = app
        .tracking()
        .transition_model_version_stage(&caller, version, stage, archive)
        .await?;
    Ok(Json(json!({ "model_version": version_message(&moved) })))
}

/// `DELETE model-versions/delete`
pub(crate) async fn delete_version(State(app): State<App>, Called(caller): Called, fields: Fields) -> Answer {
    let (name, version) = named(&fields)?;
    app.tracking()
        .delete_model_version(&caller, name, version)
        .await?;
    Ok(empty())
}

/// `GET model-versions/get-download-uri`
pub(crate) async fn download_uri(State(app): State<App>, Called(caller): Called, fields: Fields) -> Answer {
    let (name, version) = named(&fields)?;
    let uri = app
        .tracking()
        .get_model_version_download_uri(&caller, name, version)
        .await?;
    Ok(Json(json!({ "artifact_uri": uri })))
}

/// `POST model-versions/set-tag`
pub(crate) async fn set_version_tag(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Answer {
    let version = named(&fields)?;
    let key = fields.required_text("key")?;
    let value = fields.text("value")?.unwrap_or_default();
    app.tracking()
        .set_model_version_tag(&caller, version, key, value)
        .await?;
    Ok(empty())
}

/// `DELETE model-versions/delete-tag`
pub(crate) async fn delete_version_tag(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Answer {
    let version = named(&fields)?;
    let key = fields.required_text("key")?;
    app.tracking()
        .delete_model_version_tag(&caller, version, key)
        .await?;
    Ok(empty())
}
