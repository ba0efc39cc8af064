//! What the server says of itself to MLflow's clients.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::control_plane::App;
use crate::error::ApiError;

/// The MLflow whose features this server has; clients choose their ways by it.
const MLFLOW_VERSION: &str = "3.10.1";

/// `GET /health`
pub(crate) async fn health(State(app): State<App>) -> Result<&'static str, ApiError> {
    crate::mlflow::ping(State(app)).await?;
    Ok("OK")
}

/// `GET /version`: the version of MLflow that clients may count on; Tidemill's own is in `/api/v1/status`.
pub(crate) async fn version() -> &'static str {
    MLFLOW_VERSION
}

/// `GET /api/3.0/mlflow/server-info`
pub(crate) async fn info() -> Json<Value> {
    Json(json!({
        "store_type": "SqlStore",
        "workspaces_enabled": false,
        "trace_archival_enabled": false,
        "multipart_uploads_enabled": true,
        "multipart_downloads_enabled": true,
        "features_enabled": { "gateway": false },
    }))
}

/// What a search for traces finds on a server that keeps none.
pub(crate) async fn no_traces() -> Json<Value> {
    Json(json!({}))
}
