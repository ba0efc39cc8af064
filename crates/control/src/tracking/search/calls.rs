//! The searches themselves: a request is checked, its page is found and loaded in one view of the store.

use tidemill_store::registry::{self, Model, Version};
use tidemill_store::search::{
    self, DatasetScope, Keys, ModelScope, OrderKey, Page, Projection, Query, RunScope, View, Visible,
};
use tidemill_store::tracking::eval_datasets::{self, EvalDataset};
use tidemill_store::tracking::experiments::{self, Experiment};
use tidemill_store::tracking::logged_models::{self, LoggedModel};
use tidemill_store::tracking::runs::{self, TrackedRun};
use tidemill_store::{ReadTx, StoreError};

use super::{ModelOrder, Searched, Target, parse_filter, parse_model_order, parse_order};
use crate::tracking::{Caller, Result, Tracking, TrackingError, validate};

/// In the place of experiment ids: all experiments that are not deleted.
const ALL_EXPERIMENTS: &str = "ALL";

/// What is searched for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Search {
    /// The filter; empty for all.
    pub filter: String,
    /// The keys of the order; empty for the natural one.
    pub order_by: Vec<String>,
    /// How many at most.
    pub max_results: Option<i64>,
    /// Where the page before ended.
    pub page_token: Option<String>,
    /// Whether deleted things are searched; for experiments and runs.
    pub view: View,
    /// What the caller may see.
    pub visible: Visible,
}

/// A page of things.
#[derive(Clone, PartialEq, Debug)]
pub struct Found<T> {
    /// In order.
    pub items: Vec<T>,
    /// Asks for the next page, if there is one.
    pub next_page_token: Option<String>,
}

/// How many results a search gives.
#[derive(Clone, Copy)]
struct Limits {
    default: u32,
    most: u32,
    /// The registry words its refusals in its own way.
    of_registry: bool,
}

const TRACKING: Limits = Limits {
    default: 1_000,
    most: 50_000,
    of_registry: false,
};
const LOGGED_MODELS: Limits = Limits {
    default: 100,
    ..TRACKING
};
const MODELS: Limits = Limits {
    default: 100,
    most: 1_000,
    of_registry: true,
};
const VERSIONS: Limits = Limits {
    default: 10_000,
    most: 200_000,
    of_registry: true,
};

fn limit(asked: Option<i64>, limits: Limits) -> Result<u32> {
    let Limits {
        default,
        most,
        of_registry,
    } = limits;
    let Some(asked) = asked else {
        return Ok(default);
    };
    let refused = match u32::try_from(asked) {
        Ok(count) if (1..=most).contains(&count) => return Ok(count),
        _ if asked < 1 && of_registry => {
            format!("Invalid value for max_results. It must be a positive integer, but got {asked}")
        }
        _ if asked < 1 => format!(
            "Invalid value {asked} for parameter 'max_results' supplied. It must be a positive integer"
        ),
        _ if of_registry => format!(
            "Invalid value for request parameter max_results. It must be at most {most}, but got value {asked}"
        ),
        _ => format!("Invalid value {asked} for parameter 'max_results' supplied. It must be at most {most}"),
    };
    Err(TrackingError::invalid(refused))
}

/// A search that is ready to run, and what its tokens say.
struct Ready {
    query: Query,
    searched: Searched,
}

impl Ready {
    fn of(target: Target, scope: &str, limits: Limits, search: Search) -> Result<Self> {
        let order = parse_order(target, &search.order_by)?;
        let order_text = search.order_by.join("\n");
        Self::ordered_by(target, scope, limits, search, (order, &order_text))
    }

    fn ordered_by(
        target: Target,
        scope: &str,
        limits: Limits,
        search: Search,
        (order, order_text): (Vec<OrderKey>, &str),
    ) -> Result<Self> {
        let limit = limit(search.max_results, limits)?;
        let filter = parse_filter(target, &search.filter)?;
        let filter_text = format!("{:?} {}", search.view, search.filter);
        let searched = Searched::of(scope, &filter_text, order_text);
        let after = searched.after(search.page_token.as_deref())?;
        let query = Query {
            filter,
            order,
            after,
            limit,
            visible: search.visible,
        };
        Ok(Self { query, searched })
    }
}

/// What the request can have caused is its fault: a token that was tampered with, more values than a statement takes.
fn refused(error: StoreError) -> TrackingError {
    match error {
        StoreError::Conflict {
            noun: "page token",
            message,
        } => TrackingError::invalid(format!("Invalid page token: {message}")),
        StoreError::Conflict {
            noun: "search",
            message,
        } => TrackingError::invalid(format!("Invalid search: {message}")),
        other => other.into(),
    }
}

/// Ids of experiments; `None` for all.
fn experiment_ids(texts: &[String]) -> Result<Option<Vec<i64>>> {
    if matches!(texts, [all] if all == ALL_EXPERIMENTS) {
        return Ok(None);
    }
    let ids = texts.iter().map(|text| validate::experiment_id(text));
    ids.collect::<Result<_>>().map(Some)
}

/// What is wanted of runs: `metrics`, `params.NAME`, … `None` for everything.
fn projection(fields: &[String]) -> Result<Option<Projection>> {
    if fields.is_empty() {
        return Ok(None);
    }
    let mut wanted = Projection::default();
    for field in fields {
        let (entity, key) = match field.split_once('.') {
            Some((entity, key)) if key != "*" => (entity, Some(key)),
            Some((entity, _)) => (entity, None),
            None => (field.as_str(), None),
        };
        let keys = match entity {
            "metrics" => &mut wanted.metrics,
            "params" => &mut wanted.params,
            "tags" => &mut wanted.tags,
            "attributes" => continue,
            _ => {
                return Err(TrackingError::invalid(format!(
                    "Invalid value '{field}' for parameter 'fields' supplied: \
                     expected `attributes`, or `metrics`, `params` or `tags`, alone or with a key as in `metrics.accuracy`"
                )));
            }
        };
        match key {
            Some(key) => keys.add(key),
            None => *keys = Keys::All,
        }
    }
    Ok(Some(wanted))
}

impl Tracking {
    async fn searched<K, T>(
        &self,
        ready: Ready,
        find: impl FnOnce(&ReadTx<'_>, &Query) -> std::result::Result<Page<K>, StoreError> + Send + 'static,
        load: impl FnOnce(&ReadTx<'_>, &[K]) -> std::result::Result<Vec<T>, StoreError> + Send + 'static,
    ) -> Result<Found<T>>
    where
        K: 'static,
        T: Send + 'static,
    {
        let Ready { query, searched } = ready;
        let found = self.store().read(move |tx| {
            let page = find(tx, &query)?;
            Ok((load(tx, &page.items)?, page.next))
        });
        let (items, next) = found.await.map_err(refused)?;
        Ok(Found {
            items,
            next_page_token: searched.token(next),
        })
    }

    /// Searches experiments.
    pub async fn search_experiments(&self, caller: &Caller, search: Search) -> Result<Found<Experiment>> {
        let (workspace, view) = (caller.workspace.clone(), search.view);
        let ready = Ready::of(Target::Experiments, &workspace, TRACKING, search)?;
        let find = move |tx: &ReadTx<'_>, query: &Query| search::experiments(tx, &workspace, view, query);
        self.searched(ready, find, experiments::load).await
    }

    /// Searches runs of experiments; with `fields`, only what they name is part of the runs.
    pub async fn search_runs(
        &self,
        caller: &Caller,
        experiments: &[String],
        search: Search,
        fields: &[String],
    ) -> Result<Found<TrackedRun>> {
        let (workspace, view) = (caller.workspace.clone(), search.view);
        let scope = format!("{workspace} {}", experiments.join(","));
        let ready = Ready::of(Target::Runs, &scope, TRACKING, search)?;
        let (ids, wanted) = (experiment_ids(experiments)?, projection(fields)?);
        let find = move |tx: &ReadTx<'_>, query: &Query| {
            let scope = RunScope {
                workspace: &workspace,
                experiments: ids.as_deref(),
                view,
            };
            search::runs(tx, &scope, query)
        };
        let load = move |tx: &ReadTx<'_>, numbers: &[i64]| match wanted {
            Some(wanted) => search::load_runs(tx, numbers, &wanted),
            None => runs::load(tx, numbers),
        };
        self.searched(ready, find, load).await
    }

    /// Searches registered models.
    pub async fn search_registered_models(&self, caller: &Caller, search: Search) -> Result<Found<Model>> {
        let workspace = caller.workspace.clone();
        let ready = Ready::of(Target::RegisteredModels, &workspace, MODELS, search)?;
        let find = move |tx: &ReadTx<'_>, query: &Query| search::registered_models(tx, &workspace, query);
        self.searched(ready, find, registry::load_models).await
    }

    /// Searches model versions.
    pub async fn search_model_versions(&self, caller: &Caller, search: Search) -> Result<Found<Version>> {
        let workspace = caller.workspace.clone();
        let ready = Ready::of(Target::ModelVersions, &workspace, VERSIONS, search)?;
        let find = move |tx: &ReadTx<'_>, query: &Query| search::model_versions(tx, &workspace, query);
        self.searched(ready, find, registry::load_versions).await
    }

    /// Searches logged models; metric clauses and orders look at metrics on `datasets` alone, if there are any.
    pub async fn search_logged_models(
        &self,
        caller: &Caller,
        experiments: &[String],
        datasets: Vec<DatasetScope>,
        order_by: &[ModelOrder],
        search: Search,
    ) -> Result<Found<LoggedModel>> {
        if datasets.iter().any(|dataset| dataset.name.is_empty()) {
            return Err(TrackingError::invalid(
                "`dataset_name` in the `datasets` clause must be specified.",
            ));
        }
        let workspace = caller.workspace.clone();
        let scope = format!("{workspace} {} {datasets:?}", experiments.join(","));
        let order_text = format!("{order_by:?}");
        let order = (parse_model_order(order_by)?, order_text.as_str());
        let ready = Ready::ordered_by(Target::LoggedModels, &scope, LOGGED_MODELS, search, order)?;
        let ids = experiment_ids(experiments)?;
        let find = move |tx: &ReadTx<'_>, query: &Query| {
            let scope = ModelScope {
                workspace: &workspace,
                experiments: ids.as_deref(),
                datasets: &datasets,
            };
            search::logged_models(tx, &scope, query)
        };
        self.searched(ready, find, logged_models::load).await
    }

    /// Searches evaluation datasets, those that belong to one of `experiments` if any are named.
    /// Those that belong to none are among them with `lone` only.
    pub async fn search_eval_datasets(
        &self,
        caller: &Caller,
        experiments: &[String],
        lone: bool,
        search: Search,
    ) -> Result<Found<EvalDataset>> {
        let workspace = caller.workspace.clone();
        let scope = format!("{workspace} {}", experiments.join(","));
        let ready = Ready::of(Target::EvalDatasets, &scope, TRACKING, search)?;
        let ids = if experiments.is_empty() {
            None
        } else {
            experiment_ids(experiments)?
        };
        let find = move |tx: &ReadTx<'_>, query: &Query| {
            search::eval_datasets(tx, &workspace, ids.as_deref(), lone, query)
        };
        self.searched(ready, find, eval_datasets::load).await
    }
}
