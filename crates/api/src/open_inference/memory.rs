//! The shared memory extensions: the system's where the operator allows it; there is none of a GPU.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::{Inflated, parse_json};
use crate::infer::shared::{self, Region};

#[derive(Deserialize)]
pub(crate) struct RegionPath {
    #[serde(default)]
    region: Option<String>,
}

#[derive(Deserialize)]
struct Register {
    key: String,
    #[serde(default)]
    offset: u64,
    byte_size: u64,
}

/// `GET /v2/systemsharedmemory[/region/{region}]/status`
pub(crate) async fn status(
    State(app): State<App>,
    Path(path): Path<RegionPath>,
) -> Result<Json<Value>, ApiError> {
    let Some(memory) = app.shared_memory() else {
        // Nothing is registered where nothing can be.
        return Ok(Json(json!([])));
    };
    let regions = memory.list(path.region.as_deref())?;
    let region = |region: &Region| {
        json!({
            "name": region.name,
            "key": region.key,
            "offset": region.offset,
            "byte_size": region.byte_size,
        })
    };
    Ok(Json(regions.iter().map(|one| region(one)).collect()))
}

/// `POST /v2/systemsharedmemory/region/{region}/register`
pub(crate) async fn register(
    State(app): State<App>,
    Path(region): Path<String>,
    Inflated(body): Inflated,
) -> Result<StatusCode, ApiError> {
    let memory = shared::of(&app)?;
    let asked: Register = parse_json(&body)?;
    memory.register(&region, &asked.key, asked.offset, asked.byte_size)?;
    Ok(StatusCode::OK)
}

/// `POST /v2/systemsharedmemory[/region/{region}]/unregister`
pub(crate) async fn unregister(
    State(app): State<App>,
    Path(path): Path<RegionPath>,
) -> Result<StatusCode, ApiError> {
    if let Some(memory) = app.shared_memory() {
        memory.unregister(path.region.as_deref());
    }
    Ok(StatusCode::OK)
}

/// `GET /v2/cudasharedmemory[/region/{region}]/status`
pub(crate) async fn cuda_status() -> Json<Value> {
    Json(json!([]))
}

/// `POST /v2/cudasharedmemory/region/{region}/register`
pub(crate) async fn cuda_register() -> Result<StatusCode, ApiError> {
    Err(shared::no_cuda())
}

/// `POST /v2/cudasharedmemory[/region/{region}]/unregister`
pub(crate) async fn cuda_unregister() -> StatusCode {
    StatusCode::OK
}
