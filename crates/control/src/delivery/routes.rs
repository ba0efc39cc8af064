//! From an endpoint's stored state to the route that serves it. Rebuilt whole after each change and swapped in without a lock.

use std::collections::HashMap;
use std::sync::Arc;

use tidemill_core::frame::{FeatureKind, Task};
use tidemill_core::ids::VersionNumber;
use tidemill_core::spec::{DefaultAnswer, EndpointSpec, FallbackStep, LogFailure, LogSpec, UnseenPolicy};
use tidemill_serving::{Canary, Deployment, Keep, Route, Rule, Step, default_row};
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

/// Before any model is known, the classes are those that the spec's fixed answers name.
fn named_classes(endpoint: &EndpointSpec) -> Arc<[String]> {
    let rules = endpoint.fallback.iter().filter_map(|step| step.rule.as_ref());
    let answers = rules.map(|rule| &rule.answer).chain(&endpoint.default);
    let mut classes = Vec::new();
    for answer in answers {
        if let DefaultAnswer::Class(class) = answer
            && !classes.contains(class)
        {
            classes.push(class.clone());
        }
    }
    classes.into()
}

/// The spec's fallback chain, as far as its versions are there.
fn chain(
    steps: &[FallbackStep],
    route: &Route,
    loaded: &HashMap<VersionNumber, Arc<Deployment>>,
) -> Vec<Step> {
    let mut chain = Vec::new();
    for step in steps {
        if let Some(version) = step.version {
            chain.extend(loaded.get(&VersionNumber(version)).cloned().map(Step::Version));
        } else if let Some(rule) = &step.rule {
            let input = rule.when.input.as_deref().unwrap_or_default();
            if let Some(feature) = route.schema.index_of(input) {
                let answer = fixed(&rule.answer, route, "endpoint.fallback");
                chain.extend(answer.map(|answer| {
                    Step::Rule(Box::new(Rule {
                        feature,
                        when: rule.when.clone(),
                        answer,
                    }))
                }));
            }
        } else {
            chain.push(Step::Abstain);
        }
    }
    chain
}

/// A fixed answer as a row of scores; `None` for a class that the champion does not know: an endpoint that lacks a fixed answer is better
/// than none.
fn fixed(answer: &DefaultAnswer, route: &Route, key: &str) -> Option<Vec<f64>> {
    let row = default_row(answer, route.task, &route.classes);
    row.inspect_err(
        |error| tracing::warn!(endpoint = %route.endpoint, key, %error, "a fixed answer is left out"),
    )
    .ok()
}

/// Says where the spec's rule for values that training never saw cannot hold.
fn warn_of_unseen(route: &Route) {
    let Some(champion) = route
        .champion
        .as_ref()
        .filter(|_| route.inputs.unseen != UnseenPolicy::Take)
    else {
        return;
    };
    let model = &champion.model;
    let features = model.signature().features.features.iter().enumerate();
    // No column has a text like this.
    let unknown = features
        .filter(|(_, feature)| feature.kind == FeatureKind::Categorical)
        .filter(|(place, _)| model.knows(*place, "\u{0}").is_none());
    let names: Vec<&str> = unknown.map(|(_, feature)| feature.name.as_str()).collect();
    if !names.is_empty() {
        tracing::warn!(
            endpoint = %route.endpoint, version = %champion.version, features = names.join(", "),
            "`endpoint.inputs.unseen` does not hold for these features: the model cannot say which of their values it has seen"
        );
    }
}

/// Brings the serving side in line with `row`. Versions that are loaded already are kept.
pub(crate) async fn apply(ctx: &Context, row: &EndpointRow) -> Result<()> {
    let current = ctx.serving.router().route(&row.name);
    let mut loaded: HashMap<VersionNumber, Arc<Deployment>> = HashMap::new();
    if let Some(route) = &current {
        for deployment in route.deployments() {
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
    for step in &ctx.spec.endpoint.fallback {
        if let Some(version) = step.version.map(VersionNumber)
            && !loaded.contains_key(&version)
        {
            // The chain is written before its version need exist, and a chain that lacks a link is better than none.
            match bundles::load_version(ctx, &row.model, version).await {
                Ok(model) => {
                    loaded.insert(version, Deployment::new(version, model));
                }
                Err(error) => {
                    tracing::warn!(endpoint = %row.name, %version, %error, "a version of the fallback chain cannot be loaded");
                }
            }
        }
    }
    let get = |version: &Option<VersionNumber>| version.and_then(|v| loaded.get(&v).cloned());
    let champion = get(&row.champion);
    let any = champion.as_ref().or_else(|| loaded.values().next());
    let classes: Arc<[String]> = match (any, ctx.spec.label.task) {
        (Some(deployment), _) => Arc::clone(&deployment.model.signature().classes),
        (None, Task::Multiclass) => named_classes(&ctx.spec.endpoint),
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
    let default = ctx.spec.endpoint.default.as_ref();
    route.default = default.and_then(|answer| fixed(answer, &route, "endpoint.default"));
    route.fallback = chain(&ctx.spec.endpoint.fallback, &route, &loaded);
    route.inputs = ctx.spec.endpoint.inputs;
    route.keep = keep(&ctx.spec.endpoint.log, &route);
    route.generation = row.generation;
    warn_of_unseen(&route);
    ctx.serving.router().put(route);
    Ok(())
}
