//! `…/search` of experiments, runs, registered models, model versions and logged models.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value, json};
use tidemill_control::tracking;
use tidemill_control::tracking::search::{ModelOrder, Search};
use tidemill_store::search::{DatasetScope, View, Visible};

use super::logged_models::model_json;
use super::request::wrong;
use super::{Called, Fields, as_integer, messages, model_message, version_message};
use crate::auth;
use crate::control_plane::App;
use crate::error::ApiError;

/// The fields that all searches have.
pub(super) fn search(fields: &Fields, view: &str, visible: Visible) -> tracking::Result<Search> {
    Ok(Search {
        filter: fields.text("filter")?.unwrap_or_default(),
        order_by: fields.texts("order_by")?,
        max_results: fields.integer("max_results")?,
        page_token: fields.text("page_token")?,
        view: self::view(fields, view)?,
        visible,
    })
}

/// The experiments that the sender of a request may look at.
pub(super) fn experiments_of(app: &App, known: &auth::Caller, workspace: &str) -> Visible {
    let limited = known
        .0
        .as_deref()
        .map(|known| app.tracking().visible_experiments(known, workspace));
    limited.unwrap_or_default()
}

/// The registered models that the sender of a request may look at.
async fn models_of(app: &App, known: &auth::Caller, workspace: &str) -> tracking::Result<Visible> {
    match known.0.as_deref() {
        Some(known) => app.tracking().visible_models(known, workspace).await,
        None => Ok(Visible::default()),
    }
}

/// An enum of protocol buffers: its name or its number.
fn view(fields: &Fields, name: &str) -> tracking::Result<View> {
    let Some(value) = fields.value(name) else {
        return Ok(View::Active);
    };
    match (value.as_str(), as_integer(value)) {
        (Some("ACTIVE_ONLY"), _) | (_, Some(1)) => Ok(View::Active),
        (Some("DELETED_ONLY"), _) | (_, Some(2)) => Ok(View::Deleted),
        (Some("ALL"), _) | (_, Some(3)) => Ok(View::All),
        _ => Err(wrong(name, value)),
    }
}

/// The answer to a search; what is empty is left out.
pub(super) fn answer<T: serde::Serialize>(name: &str, items: Vec<T>, token: Option<String>) -> Response {
    let mut body = Map::new();
    if !items.is_empty() {
        body.insert(name.to_owned(), json!(items));
    }
    if let Some(token) = token {
        body.insert("next_page_token".to_owned(), Value::String(token));
    }
    Json(Value::Object(body)).into_response()
}

/// `GET` and `POST /api/2.0/mlflow/experiments/search`
pub(crate) async fn experiments(
    State(app): State<App>,
    Called(caller): Called,
    known: auth::Caller,
    fields: Fields,
) -> Result<Response, ApiError> {
    let visible = experiments_of(&app, &known, &caller.workspace);
    let search = search(&fields, "view_type", visible)?;
    let found = app.tracking().search_experiments(&caller, search).await?;
    let items: Vec<_> = found.items.iter().map(messages::experiment).collect();
    Ok(answer("experiments", items, found.next_page_token))
}

/// `POST /api/2.0/mlflow/runs/search`. Beyond MLflow, `fields` names what shall be part of the runs, and `["ALL"]` stands for all
/// experiments.
pub(crate) async fn runs(
    State(app): State<App>,
    Called(caller): Called,
    known: auth::Caller,
    fields: Fields,
) -> Result<Response, ApiError> {
    let visible = experiments_of(&app, &known, &caller.workspace);
    let search = search(&fields, "run_view_type", visible)?;
    let (experiments, wanted) = (fields.texts("experiment_ids")?, fields.texts("fields")?);
    let found = app
        .tracking()
        .search_runs(&caller, &experiments, search, &wanted)
        .await?;
    let runs: Vec<_> = found.items.iter().map(messages::run).collect();
    Ok(Json(RunsAnswer {
        runs,
        next_page_token: found.next_page_token,
    })
    .into_response())
}

/// Written without a tree of values between: a page can hold 50,000 runs.
#[derive(serde::Serialize)]
struct RunsAnswer<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    runs: Vec<messages::RunMessage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

/// `GET /api/2.0/mlflow/registered-models/search`
pub(crate) async fn registered_models(
    State(app): State<App>,
    Called(caller): Called,
    known: auth::Caller,
    fields: Fields,
) -> Result<Response, ApiError> {
    let visible = models_of(&app, &known, &caller.workspace).await?;
    let search = search(&fields, "view_type", visible)?;
    let found = app.tracking().search_registered_models(&caller, search).await?;
    let items: Vec<_> = found.items.iter().map(model_message).collect();
    Ok(answer("registered_models", items, found.next_page_token))
}

/// `GET /api/2.0/mlflow/model-versions/search`
pub(crate) async fn model_versions(
    State(app): State<App>,
    Called(caller): Called,
    known: auth::Caller,
    fields: Fields,
) -> Result<Response, ApiError> {
    let visible = models_of(&app, &known, &caller.workspace).await?;
    let search = search(&fields, "view_type", visible)?;
    let found = app.tracking().search_model_versions(&caller, search).await?;
    let items: Vec<_> = found.items.iter().map(version_message).collect();
    Ok(answer("model_versions", items, found.next_page_token))
}

/// A text that counts as absent when it is empty.
fn some_text(fields: &Fields, name: &str) -> tracking::Result<Option<String>> {
    Ok(fields.text(name)?.filter(|text| !text.is_empty()))
}

/// `POST /api/2.0/mlflow/logged-models/search`
pub(crate) async fn logged_models(
    State(app): State<App>,
    Called(caller): Called,
    known: auth::Caller,
    mut fields: Fields,
) -> Result<Response, ApiError> {
    let mut datasets = Vec::new();
    for dataset in fields.list("datasets")? {
        let dataset = Fields::of(dataset);
        datasets.push(DatasetScope {
            name: dataset.text("dataset_name")?.unwrap_or_default(),
            digest: some_text(&dataset, "dataset_digest")?,
        });
    }
    let mut order_by = Vec::new();
    for order in fields.list("order_by")? {
        let order = Fields::of(order);
        order_by.push(ModelOrder {
            field_name: some_text(&order, "field_name")?,
            ascending: order.boolean("ascending")?,
            dataset_name: some_text(&order, "dataset_name")?,
            dataset_digest: some_text(&order, "dataset_digest")?,
        });
    }
    // It is a list of objects here.
    fields.take("order_by");
    let experiments = fields.texts("experiment_ids")?;
    if experiments.is_empty() {
        return Err(super::request::missing("experiment_ids").into());
    }
    let visible = experiments_of(&app, &known, &caller.workspace);
    let mut search = search(&fields, "view_type", visible)?;
    search.max_results = search.max_results.filter(|count| *count != 0);
    let found = app
        .tracking()
        .search_logged_models(&caller, &experiments, datasets, &order_by, search)
        .await?;
    let items: Vec<_> = found.items.iter().map(model_json).collect();
    Ok(answer("models", items, found.next_page_token))
}
