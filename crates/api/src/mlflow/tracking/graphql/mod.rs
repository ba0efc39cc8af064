//! `/graphql`: what the pages of MLflow's own user interface ask. Each root field is one request of the REST API in other clothes:
//! its input becomes the request's fields, the same handler answers, and [`types`] gives the answer the shape that was selected.

mod types;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use graphql_parser::query::{
    self, Definition, FragmentDefinition, OperationDefinition, Selection, SelectionSet,
};
use serde_json::{Map, Value, json};
use tidemill_control::tracking::Caller;
use tidemill_control::users::Principal;

use super::{Called, Fields, artifacts, experiments, history, inputs, runs, search};
use crate::auth;
use crate::control_plane::App;
use crate::error::ApiError;
use types::{Type, fields, project, snake};

/// MLflow's limits, which its environment variables could raise.
const MAX_ROOT_FIELDS: usize = 10;
const MAX_ALIASES: usize = 10;
const MAX_DEPTH: usize = 10;
const MAX_SELECTIONS: usize = 1_000;
/// The longest query that is parsed.
const MAX_LENGTH: usize = 200_000;
/// The longest answer of a handler that is given another shape.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// A parsed query.
pub(super) struct Document<'d> {
    parsed: query::Document<'d, &'d str>,
}

/// An operation: whether it is a mutation, and what it selects.
struct Operation<'d> {
    mutation: bool,
    set: &'d SelectionSet<'d, &'d str>,
}

impl<'d> Document<'d> {
    fn fragment(&'d self, name: &str) -> Option<&'d FragmentDefinition<'d, &'d str>> {
        self.parsed
            .definitions
            .iter()
            .find_map(|definition| match definition {
                Definition::Fragment(fragment) if fragment.name == name => Some(fragment),
                _ => None,
            })
    }

    /// The operation of this name, or the only one.
    fn operation(&'d self, wanted: Option<&str>) -> Option<Operation<'d>> {
        let operations = self.parsed.definitions.iter().filter_map(|definition| {
            let Definition::Operation(operation) = definition else {
                return None;
            };
            let (name, mutation, set) = match operation {
                OperationDefinition::SelectionSet(set) => (None, false, set),
                OperationDefinition::Query(query) => (query.name, false, &query.selection_set),
                OperationDefinition::Mutation(mutation) => (mutation.name, true, &mutation.selection_set),
                OperationDefinition::Subscription(_) => return None,
            };
            Some((name, Operation { mutation, set }))
        });
        let mut fitting = operations.filter(|(name, _)| wanted.is_none() || *name == wanted);
        fitting.next().map(|(_, operation)| operation)
    }

    /// Why the query asks for too much, if it does.
    fn excess(&'d self) -> Option<String> {
        let mut seen = Seen::default();
        for definition in &self.parsed.definitions {
            let set = match definition {
                Definition::Fragment(fragment) => &fragment.selection_set,
                Definition::Operation(OperationDefinition::SelectionSet(set)) => set,
                Definition::Operation(OperationDefinition::Query(query)) => &query.selection_set,
                Definition::Operation(OperationDefinition::Mutation(mutation)) => &mutation.selection_set,
                Definition::Operation(OperationDefinition::Subscription(_)) => continue,
            };
            if let Err(excess) = seen.scan(set, 1) {
                return Some(excess);
            }
        }
        let too_many = |limit: usize, what: &str, got: usize| {
            (got > limit)
                .then(|| format!("GraphQL queries should have at most {limit} {what}, got {got} {what}."))
        };
        too_many(MAX_ROOT_FIELDS, "root fields", seen.root_fields)
            .or_else(|| too_many(MAX_ALIASES, "aliases", seen.aliases))
    }
}

/// What a query holds.
#[derive(Default)]
struct Seen {
    root_fields: usize,
    aliases: usize,
    selections: usize,
}

impl Seen {
    fn scan<'d>(&mut self, set: &'d SelectionSet<'d, &'d str>, depth: usize) -> Result<(), String> {
        if set.items.is_empty() {
            return Ok(());
        }
        if depth > MAX_DEPTH {
            return Err(format!("Query exceeds maximum depth of {MAX_DEPTH}"));
        }
        let mut aliases = 0;
        for selection in &set.items {
            self.selections += 1;
            if self.selections > MAX_SELECTIONS {
                return Err(format!(
                    "Query exceeds maximum total selections of {MAX_SELECTIONS}"
                ));
            }
            match selection {
                Selection::Field(field) => {
                    self.root_fields += usize::from(depth == 1);
                    aliases += usize::from(field.alias.is_some());
                    self.scan(&field.selection_set, depth + 1)?;
                }
                Selection::InlineFragment(fragment) => self.scan(&fragment.selection_set, depth + 1)?,
                Selection::FragmentSpread(_) => {}
            }
        }
        self.aliases = self.aliases.max(aliases);
        Ok(())
    }
}

/// `GET` and `POST /graphql`
pub(crate) async fn answer(
    State(app): State<App>,
    Called(caller): Called,
    auth::Caller(known): auth::Caller,
    request: Fields,
) -> Result<Json<Value>, ApiError> {
    let text = request.required_text("query")?;
    let name = request.text("operation_name")?.filter(|name| !name.is_empty());
    let variables = match request.value("variables") {
        Some(Value::String(text)) => serde_json::from_str(text).unwrap_or_default(),
        other => other.cloned().unwrap_or_default(),
    };
    if text.len() > MAX_LENGTH {
        return Ok(failed(&format!("Query exceeds maximum length of {MAX_LENGTH}")));
    }
    let plan = match plan(&text, name.as_deref(), &variables) {
        Ok(plan) => plan,
        Err(error) => return Ok(failed(&error)),
    };
    let mut answers = Vec::with_capacity(plan.len());
    for mut root in plan {
        if let Some(known) = &known {
            let asked = auth::may_ask(&app, known, &caller, &root.field, &mut root.input["input"]).await;
            if !matches!(asked, Ok(true)) {
                answers.push((root, asked.map(|_| Value::Null).map_err(|error| error.message)));
                continue;
            }
        }
        let answer = whole(&app, &caller, known.as_ref(), &root).await;
        answers.push((root, answer.map_err(|error| error.message)));
    }
    Ok(shaped(&text, name.as_deref(), answers))
}

fn failed(error: &str) -> Json<Value> {
    Json(json!({ "data": null, "errors": [error] }))
}

/// A root field that is to be answered.
struct Root {
    place: String,
    field: String,
    mutation: bool,
    input: Value,
    /// Of the runs that it gives, whether their experiment and their model versions are wanted.
    experiment: bool,
    model_versions: bool,
}

fn parse(text: &str) -> Result<Document<'_>, String> {
    graphql_parser::parse_query(text)
        .map(|parsed| Document { parsed })
        .map_err(|error| format!("Syntax Error: {error}"))
}

/// What has to be asked for a query. Parsed anew for the answer's shape: a parsed query cannot wait for the answers.
fn plan(text: &str, name: Option<&str>, variables: &Value) -> Result<Vec<Root>, String> {
    let document = parse(text)?;
    if let Some(excess) = document.excess() {
        return Err(excess);
    }
    let Some(operation) = document.operation(name) else {
        return Err(format!("Unknown operation named '{}'.", name.unwrap_or_default()));
    };
    let mut roots = Vec::new();
    for field in fields(&document, operation.set) {
        let mut input = Map::new();
        for (argument, value) in &field.arguments {
            input.insert(snake(argument), json_of(value, variables));
        }
        let wants = |wanted: &str| {
            fields(&document, &field.selection_set)
                .into_iter()
                .flat_map(|inner| fields(&document, &inner.selection_set))
                .any(|inner| inner.name == wanted)
        };
        roots.push(Root {
            place: field.alias.unwrap_or(field.name).to_owned(),
            field: field.name.to_owned(),
            mutation: operation.mutation,
            input: Value::Object(input),
            experiment: wants("experiment"),
            model_versions: wants("modelVersions"),
        });
    }
    Ok(roots)
}

/// A value of a query as the REST API has it.
fn json_of<'d>(value: &query::Value<'d, &'d str>, variables: &Value) -> Value {
    match value {
        query::Value::Variable(name) => snake_keys(variables.get(*name).unwrap_or(&Value::Null)),
        query::Value::Int(number) => json!(number.as_i64()),
        query::Value::Float(number) => json!(number),
        query::Value::String(text) => json!(text),
        query::Value::Boolean(value) => json!(value),
        query::Value::Null => Value::Null,
        query::Value::Enum(name) => json!(name),
        query::Value::List(items) => items.iter().map(|item| json_of(item, variables)).collect(),
        query::Value::Object(object) => object
            .iter()
            .map(|(name, value)| (snake(name), json_of(value, variables)))
            .collect(),
    }
}

fn snake_keys(value: &Value) -> Value {
    match value {
        Value::Object(object) => object
            .iter()
            .map(|(name, value)| (snake(name), snake_keys(value)))
            .collect(),
        Value::Array(items) => items.iter().map(snake_keys).collect(),
        other => other.clone(),
    }
}

/// The type of what a root field gives.
fn type_of(field: &str, mutation: bool) -> Option<&'static Type> {
    Some(match (field, mutation) {
        ("mlflowGetExperiment", false) => &types::GET_EXPERIMENT,
        ("mlflowGetRun", false) => &types::GET_RUN,
        ("mlflowGetMetricHistoryBulkInterval", false) => &types::METRIC_HISTORY,
        ("mlflowListArtifacts", false) => &types::LIST_ARTIFACTS,
        ("mlflowSearchModelVersions", false) => &types::SEARCH_MODEL_VERSIONS,
        ("mlflowSearchRuns", _) => &types::SEARCH_RUNS,
        ("mlflowSearchDatasets", true) => &types::SEARCH_DATASETS,
        ("test", false) | ("testMutation", true) => &types::ECHO,
        _ => return None,
    })
}

fn no_field(root: &Root) -> ApiError {
    let kind = if root.mutation { "Mutation" } else { "Query" };
    let message = format!("Cannot query field '{}' on type '{kind}'.", root.field);
    ApiError::bad_request("bad_query", message)
}

async fn resolve(
    app: &App,
    caller: &Caller,
    known: Option<&Arc<Principal>>,
    root: &Root,
) -> Result<Value, ApiError> {
    let input = || Fields::of(root.input.get("input").cloned().unwrap_or_default());
    let (state, called) = (State(app.clone()), Called(caller.clone()));
    let response = match root.field.as_str() {
        "test" | "testMutation" => return Ok(json!({ "output": root.input.get("input_string") })),
        "mlflowGetExperiment" => experiments::get(state, called, input()).await?,
        "mlflowGetRun" => runs::get(state, called, input()).await?,
        "mlflowGetMetricHistoryBulkInterval" => history::sampled(state, called, input()).await?,
        "mlflowSearchDatasets" => {
            inputs::search_datasets(state, called, axum::http::HeaderMap::new(), input()).await?
        }
        "mlflowListArtifacts" => artifacts::of_runs::list(state, called, input())
            .await?
            .into_response(),
        "mlflowSearchRuns" => search::runs(state, called, sender(known), input()).await?,
        "mlflowSearchModelVersions" => search::model_versions(state, called, sender(known), input()).await?,
        _ => return Err(no_field(root)),
    };
    read(response).await
}

fn sender(known: Option<&Arc<Principal>>) -> auth::Caller {
    auth::Caller(known.map(Arc::clone))
}

/// What a handler answered.
async fn read(response: Response) -> Result<Value, ApiError> {
    let body = axum::body::to_bytes(response.into_body(), MAX_ANSWER).await;
    let unreadable = || ApiError::internal("bad_answer", "an answer could not be read again");
    let bytes = body.map_err(|_| unreadable())?;
    serde_json::from_slice(&bytes).map_err(|_| unreadable())
}

fn runs_of(message: &mut Value) -> Vec<&mut Value> {
    match message {
        Value::Object(object) => object
            .iter_mut()
            .flat_map(|(name, value)| match (name.as_str(), value) {
                ("run", run) => vec![run],
                ("runs", Value::Array(runs)) => runs.iter_mut().collect(),
                _ => Vec::new(),
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// The answer to a root field, without what the caller may not look at.
async fn whole(
    app: &App,
    caller: &Caller,
    known: Option<&Arc<Principal>>,
    root: &Root,
) -> Result<Value, ApiError> {
    let mut message = resolve(app, caller, known, root).await?;
    for run in runs_of(&mut message) {
        if root.experiment {
            let fields = Fields::of(json!({ "experiment_id": run["info"]["experiment_id"] }));
            let response = experiments::get(State(app.clone()), Called(caller.clone()), fields).await?;
            run["experiment"] = read(response).await?["experiment"].take();
        }
        if root.model_versions {
            let run_id = run["info"]["run_id"].as_str().unwrap_or_default();
            let fields = Fields::of(json!({ "filter": format!("run_id='{run_id}'") }));
            let response =
                search::model_versions(State(app.clone()), Called(caller.clone()), sender(known), fields)
                    .await?;
            let mut found = read(response).await?;
            run["model_versions"] = found["model_versions"].take();
        }
    }
    Ok(message)
}

/// The answers in the shape of the query.
fn shaped(text: &str, name: Option<&str>, answers: Vec<(Root, Result<Value, String>)>) -> Json<Value> {
    let (mut data, mut errors) = (Map::new(), Vec::new());
    match parse(text) {
        Ok(document) => {
            let set = document.operation(name).map(|operation| operation.set);
            let selected = set.map(|set| fields(&document, set)).unwrap_or_default();
            for (field, (root, answer)) in selected.into_iter().zip(answers) {
                let ty = type_of(&root.field, root.mutation);
                let shaped = answer.and_then(|message| match ty {
                    // What the caller may not look at.
                    Some(_) if message.is_null() => Ok(Value::Null),
                    // What may not be looked at.
                    Some(_) if message.is_null() => Ok(Value::Null),
                    Some(ty) => project(&document, &field.selection_set, ty, &message),
                    None => Err(no_field(&root).message),
                });
                let value = shaped.unwrap_or_else(|error| {
                    errors.push(error);
                    Value::Null
                });
                data.insert(root.place, value);
            }
        }
        Err(error) => errors.push(error),
    }
    let errors = if errors.is_empty() {
        Value::Null
    } else {
        json!(errors)
    };
    Json(json!({ "data": data, "errors": errors }))
}
