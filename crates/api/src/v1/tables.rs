//! Tables that clients keep as files: which there are, pages of their rows, and SQL that only reads.

use std::fmt::Write as _;

use axum::Json as Written;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tidemill_control::tracking::tables::{TableFile, TableHome, TableState};
use tidemill_control::tracking::{Caller, Tracking, TrackingError};
use tidemill_core::ports::{RowsFormat, TablePage, TableRows};

use super::Answer;
use crate::control_plane::App;
use crate::error::ApiError;
use crate::mlflow::tracking::{Called, Fields};
use crate::wandb::Tracks;

/// How many rows a page has where nothing is said.
const PAGE: i64 = 100;
/// How many rows the answer to a query has where nothing is said.
const ANSWER: i64 = 1_000;

/// The run that a request names, or an artifact that it read or wrote.
fn of_run(fields: &Fields) -> Result<TableHome, ApiError> {
    let artifact = fields.text("artifact")?.filter(|text| !text.is_empty());
    Ok(TableHome::Run(fields.required_text("run_id")?, artifact))
}

/// The artifact that a request names. As all that W&B's client asks by its own names it is for who may track in the workspace.
fn of_artifact(caller: &Caller, fields: &Fields) -> Result<TableHome, ApiError> {
    Ok(Tracking::artifact_home(
        caller,
        &fields.required_text("artifact")?,
    )?)
}

fn shown(table: &TableFile) -> Value {
    let mut shown = json!({
        "name": table.name, "path": table.path, "artifact": table.artifact, "size": table.size,
    });
    match &table.state {
        TableState::Ready(rows, columns) => {
            shown["state"] = json!("ready");
            shown["rows"] = json!(rows);
            shown["columns"] = json!(columns);
        }
        TableState::Waiting => shown["state"] = json!("waiting"),
        TableState::Failed(problem) => {
            shown["state"] = json!("failed");
            shown["problem"] = json!(problem);
        }
    }
    shown
}

/// `GET /api/v1/tracking/tables`
pub(crate) async fn list(State(app): State<App>, Called(caller): Called, fields: Fields) -> Answer {
    listed(&app, &caller, &of_run(&fields)?).await
}

/// `GET /api/v1/tracking/artifact-tables`
pub(crate) async fn list_of_artifact(
    State(app): State<App>,
    Tracks(caller): Tracks,
    fields: Fields,
) -> Answer {
    listed(&app, &caller, &of_artifact(&caller, &fields)?).await
}

async fn listed(app: &App, caller: &Caller, home: &TableHome) -> Answer {
    let tables = app.tracking().tables_of(caller, home).await?;
    let items: Vec<Value> = tables.iter().map(shown).collect();
    Ok(Written(json!({ "items": items })))
}

/// `GET /api/v1/tracking/tables/rows`
pub(crate) async fn rows(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Response, ApiError> {
    page(&app, &caller, &of_run(&fields)?, &fields).await
}

/// `GET /api/v1/tracking/artifact-tables/rows`
pub(crate) async fn rows_of_artifact(
    State(app): State<App>,
    Tracks(caller): Tracks,
    fields: Fields,
) -> Result<Response, ApiError> {
    page(&app, &caller, &of_artifact(&caller, &fields)?, &fields).await
}

/// `GET /api/v1/tracking/version-tables/rows`
pub(crate) async fn rows_of_version(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Response, ApiError> {
    let home = TableHome::Version(fields.required_text("name")?, fields.required_text("version")?);
    page(&app, &caller, &home, &fields).await
}

/// `GET /api/v1/tracking/model-tables/rows`
pub(crate) async fn rows_of_model(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Response, ApiError> {
    let home = TableHome::LoggedModel(fields.required_text("model_id")?);
    page(&app, &caller, &home, &fields).await
}

async fn page(app: &App, caller: &Caller, home: &TableHome, fields: &Fields) -> Result<Response, ApiError> {
    let offset = fields.integer("offset")?.unwrap_or(0);
    let offset = u64::try_from(offset)
        .map_err(|_| TrackingError::invalid(format!("`offset` is {offset}, and must not be negative")))?;
    let page = TablePage {
        columns: fields.texts("columns")?,
        filter: fields.text("filter")?.filter(|text| !text.trim().is_empty()),
        order: fields.texts("order_by")?.iter().map(|text| order(text)).collect(),
        offset,
        limit: limit(fields, PAGE)?,
    };
    let format = format(fields)?;
    let path = fields.required_text("path")?;
    let found = app
        .tracking()
        .table_rows(caller, home, &path, page, format)
        .await?;
    Ok(answer(found, format, Some(offset)))
}

/// `POST /api/v1/tracking/tables/query`
pub(crate) async fn query(
    State(app): State<App>,
    Called(caller): Called,
    fields: Fields,
) -> Result<Response, ApiError> {
    asked(&app, &caller, &of_run(&fields)?, &fields).await
}

/// `POST /api/v1/tracking/artifact-tables/query`
pub(crate) async fn query_of_artifact(
    State(app): State<App>,
    Tracks(caller): Tracks,
    fields: Fields,
) -> Result<Response, ApiError> {
    asked(&app, &caller, &of_artifact(&caller, &fields)?, &fields).await
}

async fn asked(app: &App, caller: &Caller, home: &TableHome, fields: &Fields) -> Result<Response, ApiError> {
    let format = format(fields)?;
    let (sql, limit) = (fields.required_text("sql")?, limit(fields, ANSWER)?);
    let found = app
        .tracking()
        .query_tables(caller, home, &sql, limit, format)
        .await?;
    Ok(answer(found, format, None))
}

/// `name`, `name ASC` or `name DESC`; a name may hold blanks.
fn order(text: &str) -> (String, bool) {
    match text.rsplit_once(' ') {
        Some((name, way)) if way.eq_ignore_ascii_case("desc") => (name.trim().to_owned(), true),
        Some((name, way)) if way.eq_ignore_ascii_case("asc") => (name.trim().to_owned(), false),
        _ => (text.to_owned(), false),
    }
}

fn limit(fields: &Fields, default: i64) -> Result<u32, ApiError> {
    let limit = fields.integer("limit")?.unwrap_or(default);
    u32::try_from(limit).map_err(|_| {
        TrackingError::invalid(format!("`limit` is {limit}, and must be a positive number")).into()
    })
}

fn format(fields: &Fields) -> Result<RowsFormat, ApiError> {
    match fields.text("format")?.as_deref() {
        None | Some("json") => Ok(RowsFormat::Json),
        Some("arrow") => Ok(RowsFormat::Arrow),
        Some("parquet") => Ok(RowsFormat::Parquet),
        Some(other) => Err(TrackingError::invalid(format!(
            "`format` is `{other}`, and must be json, arrow or parquet"
        ))
        .into()),
    }
}

fn answer(rows: TableRows, format: RowsFormat, offset: Option<u64>) -> Response {
    let (kind, name) = match format {
        RowsFormat::Json => return as_json(rows, offset),
        RowsFormat::Arrow => ("application/vnd.apache.arrow.stream", "rows.arrow"),
        RowsFormat::Parquet => ("application/vnd.apache.parquet", "rows.parquet"),
    };
    let more = HeaderValue::from_static(if rows.more { "true" } else { "false" });
    let mut response = rows.body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert("x-tidemill-more", more);
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename={name}")) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    response
}

/// The rows are JSON already, and may be long: they are put into the answer as they are.
fn as_json(rows: TableRows, offset: Option<u64>) -> Response {
    let mut text = format!("{{\"columns\":{}", json!(rows.columns));
    // Writing to a string cannot fail.
    if let Some(offset) = offset {
        let next = rows.more.then(|| offset + rows.rows);
        let _ = write!(text, ",\"offset\":{offset},\"next_offset\":{}", json!(next));
    }
    if let Some(total) = rows.total {
        let _ = write!(text, ",\"total\":{total}");
    }
    let _ = write!(text, ",\"more\":{},\"rows\":", rows.more);
    let mut body = text.into_bytes();
    body.extend_from_slice(&rows.body);
    body.push(b'}');
    let mut response = body.into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The schemas of this noun's bodies.
pub(crate) fn schemas() -> Vec<(&'static str, Value)> {
    let (text, whole) = (json!({ "type": "string" }), json!({ "type": "integer" }));
    let format = json!({ "type": "string", "enum": ["json", "arrow", "parquet"] });
    let asked = json!({ "run_id": text, "artifact": text, "sql": text, "limit": whole, "format": format });
    let of_artifact = json!({ "artifact": text, "sql": text, "limit": whole, "format": format });
    vec![
        (
            "TableQuery",
            json!({ "type": "object", "required": ["run_id", "sql"], "properties": asked }),
        ),
        (
            "ArtifactTableQuery",
            json!({ "type": "object", "required": ["artifact", "sql"], "properties": of_artifact }),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_name_and_a_way() {
        assert_eq!(order("loss"), ("loss".to_owned(), false));
        assert_eq!(order("my loss DESC"), ("my loss".to_owned(), true));
        assert_eq!(order("loss asc"), ("loss".to_owned(), false));
        assert_eq!(order("two words"), ("two words".to_owned(), false));
    }
}
