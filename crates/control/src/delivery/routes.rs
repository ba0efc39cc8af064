//! From an endpoint's stored state to the route that serves it. Rebuilt whole after each change and swapped in without a lock.

use std::collections::HashMap;
use std::sync::Arc;

use tidemill_core::frame::Task;
use tidemill_core::ids::VersionNumber;
use tidemill_core::spec::{LogFailure, LogSpec};
use tidemill_serving::{Canary, Deployment, Keep, Route, default_row};
use tidemill_store::endpoints::EndpointRow;

use crate::context::Context;
use crate::delivery::bundles;
use crate::error::Result;

/// What the spec wants recorded.
fn keep(log: &LogSpec, route: &Route) -> Keep {
    let position = |name: &String| route.schema.index_of(name);
    Keep {
        sample: log.sample,
        redact: log.redact.iter().filter_map(position).collect(),
        answer_unrecorded: log.on_failure == LogFailure::Drop,
    }
}

/// Brings the serving side in line with `row`. Versions that are loaded already are kept.
pub(crate) async fn apply(ctx: &Context, row: &EndpointRow) -> Result<()> {
    let current = ctx.serving.router().route(&row.name);
    let mut loaded: HashMap<VersionNumber, Arc<Deployment>> = HashMap::new();
    if let Some(route) = &current {
        let canary = route.canary.as_ref().map(|c| &c.deployment);
        for deployment in route
            .champion
            .iter()
            .chain(&route.previous)
            .chain(canary)
            .chain(&route.shadows)
        {
            loaded.insert(deployment.version, Arc::clone(deployment));
        }
    }
    let wanted = row
        .champion
        .iter()
        .chain(&row.previous)
        .chain(&row.canary)
        .chain(&row.shadows);
    for version in wanted {
        if !loaded.contains_key(version) {
            let model = bundles::load_version(ctx, &row.model, *version).await?;
            loaded.insert(*version, Deployment::new(*version, model));
        }
    }
    let get = |version: &Option<VersionNumber>| version.and_then(|v| loaded.get(&v).cloned());
    let champion = get(&row.champion);
    let any = champion.as_ref().or_else(|| loaded.values().next());
    let classes: Arc<[String]> = match (any, ctx.spec.label.task) {
        (Some(deployment), _) => Arc::clone(&deployment.model.signature().classes),
        (None, Task::Multiclass) => match &ctx.spec.endpoint.default {
            // Before any model is known the default class is the only class.
            Some(tidemill_core::spec::DefaultAnswer::Class(class)) => Arc::from([class.clone()]),
            _ => Arc::from([]),
        },
        (None, _) => Arc::from([]),
    };
    let mut route = Route::new(
        row.name.clone(),
        row.model.clone(),
        Arc::new(ctx.spec.feature_schema()),
        ctx.spec.label.task,
        Arc::clone(&classes),
    );
    route.champion = champion;
    route.previous = get(&row.previous);
    route.canary = get(&row.canary).map(|deployment| Canary {
        deployment,
        share: row.canary_share,
        salt: row.salt.clone(),
    });
    route.shadows = row
        .shadows
        .iter()
        .filter_map(|v| loaded.get(v).cloned())
        .collect();
    route.default = ctx
        .spec
        .endpoint
        .default
        .as_ref()
        .map(|answer| default_row(answer, ctx.spec.label.task, &classes))
        .transpose()?;
    route.inputs = ctx.spec.endpoint.inputs;
    route.keep = keep(&ctx.spec.endpoint.log, &route);
    route.generation = row.generation;
    ctx.serving.router().put(route);
    Ok(())
}
