//! Registered models, their versions, aliases and the history of these.

use axum::Json;
use axum::extract::{Path, State};
use tidemill_core::ids::ModelName;

use super::{Answer, lists};
use crate::control_plane::{App, ListQuery, Noun};
use crate::extract::{Params, version_number};

/// `GET /api/v1/models`
pub(crate) async fn list(State(app): State<App>, Params(query): Params<ListQuery>) -> Answer {
    lists::list(&app, Noun::Models, query).await
}

/// `GET /api/v1/models/{model}`
pub(crate) async fn show(State(app): State<App>, Path(model): Path<String>) -> Answer {
    app.get(Noun::Models, &model).await.map(Json)
}

/// `GET /api/v1/models/{model}/versions`
pub(crate) async fn versions(
    State(app): State<App>,
    Path(model): Path<ModelName>,
    Params(query): Params<ListQuery>,
) -> Answer {
    of_model(&app, Noun::Versions, model, query).await
}

/// `GET /api/v1/models/{model}/versions/{version}`
pub(crate) async fn version(
    State(app): State<App>,
    Path((model, version)): Path<(ModelName, String)>,
) -> Answer {
    let version = version_number(&version)?;
    app.get(Noun::Versions, &format!("{model}/{version}"))
        .await
        .map(Json)
}

/// `GET /api/v1/models/{model}/aliases`
pub(crate) async fn aliases(
    State(app): State<App>,
    Path(model): Path<ModelName>,
    Params(query): Params<ListQuery>,
) -> Answer {
    of_model(&app, Noun::Aliases, model, query).await
}

/// `GET /api/v1/models/{model}/history`
pub(crate) async fn history(
    State(app): State<App>,
    Path(model): Path<ModelName>,
    Params(query): Params<ListQuery>,
) -> Answer {
    of_model(&app, Noun::History, model, query).await
}

async fn of_model(app: &App, noun: Noun, model: ModelName, mut query: ListQuery) -> Answer {
    query.model = Some(model);
    lists::list(app, noun, query).await
}
