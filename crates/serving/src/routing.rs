//! The routing table: immutable, swapped whole, read without a lock.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tidemill_core::frame::{FeatureSchema, Scores, Task};
use tidemill_core::ids::{EndpointName, ModelName, VersionNumber};
use tidemill_core::ports::{Model, PortError};
use tidemill_core::spec::{ConditionSpec, DefaultAnswer, InputSpec};

use crate::breaker::Breaker;

/// A loaded model version behind an endpoint.
#[derive(Debug)]
pub struct Deployment {
    /// Which version.
    pub version: VersionNumber,
    /// The model itself.
    pub model: Arc<dyn Model>,
    pub(crate) breaker: Breaker,
}

impl Deployment {
    /// A deployment, ready to be shared.
    pub fn new(version: VersionNumber, model: Arc<dyn Model>) -> Arc<Self> {
        Arc::new(Self {
            version,
            model,
            breaker: Breaker::default(),
        })
    }
}

/// A version that answers a share of the traffic.
#[derive(Debug, Clone)]
pub struct Canary {
    /// The version.
    pub deployment: Arc<Deployment>,
    /// Its share, 0 to 1: a unit whose sticky position is below it belongs to the canary.
    pub share: f64,
    /// Mixes the units anew for each rollout; constant during one, so that raising the share keeps all earlier units.
    pub salt: String,
}

/// What is kept of a request in the prediction log.
#[derive(Debug, Clone, PartialEq)]
pub struct Keep {
    /// The share of requests that are recorded, 0 to 1.
    pub sample: f64,
    /// The positions of features that are recorded as missing.
    pub redact: Vec<usize>,
    /// Answer also what cannot be recorded, and count it.
    pub answer_unrecorded: bool,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            sample: 1.0,
            redact: Vec::new(),
            answer_unrecorded: false,
        }
    }
}

/// A step of the fallback chain.
#[derive(Debug, Clone)]
pub enum Step {
    /// Another version is asked.
    Version(Arc<Deployment>),
    /// Rows of which something is true get a fixed answer.
    Rule(Box<Rule>),
    /// The rest gets no answer.
    Abstain,
}

/// A fixed answer for rows of which something is true.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The position of the feature that is looked at.
    pub feature: usize,
    /// What has to hold of its value.
    pub when: ConditionSpec,
    /// One row of scores, see [`default_row`].
    pub answer: Vec<f64>,
}

/// What stands behind an endpoint.
#[derive(Debug, Clone)]
pub struct Route {
    /// The endpoint's name.
    pub endpoint: EndpointName,
    /// The registered model.
    pub model: ModelName,
    /// The inputs, in order.
    pub schema: Arc<FeatureSchema>,
    /// The question.
    pub task: Task,
    /// The classes (multiclass), in the order of the served probabilities; else empty.
    pub classes: Arc<[String]>,
    /// The version in charge.
    pub champion: Option<Arc<Deployment>>,
    /// The one before, which answers when the champion fails.
    pub previous: Option<Arc<Deployment>>,
    /// The version under canary.
    pub canary: Option<Canary>,
    /// Versions that answer nobody and are recorded.
    pub shadows: Vec<Arc<Deployment>>,
    /// What is tried in turn once the versions above could not answer, or may not.
    pub fallback: Vec<Step>,
    /// The answer while no model can give one: one row of scores, see [`default_row`].
    pub default: Option<Vec<f64>>,
    /// What is taken from a request.
    pub inputs: InputSpec,
    /// What is kept of a request.
    pub keep: Keep,
    /// Grows with each change; an older route never replaces a newer one.
    pub generation: i64,
}

impl Route {
    /// A route to nothing yet.
    pub fn new(
        endpoint: EndpointName,
        model: ModelName,
        schema: Arc<FeatureSchema>,
        task: Task,
        classes: Arc<[String]>,
    ) -> Self {
        Self {
            endpoint,
            model,
            schema,
            task,
            classes,
            champion: None,
            previous: None,
            canary: None,
            shadows: Vec::new(),
            fallback: Vec::new(),
            default: None,
            inputs: InputSpec::default(),
            keep: Keep::default(),
            generation: 0,
        }
    }

    /// All that is loaded: champion, canary, previous, shadows, then what the fallback chain names.
    pub fn deployments(&self) -> impl Iterator<Item = &Arc<Deployment>> {
        let canary = self.canary.as_ref().map(|canary| &canary.deployment);
        let chain = self.fallback.iter().filter_map(|step| match step {
            Step::Version(deployment) => Some(deployment),
            Step::Rule(_) | Step::Abstain => None,
        });
        self.champion
            .iter()
            .chain(canary)
            .chain(&self.previous)
            .chain(&self.shadows)
            .chain(chain)
    }

    /// All loaded versions, each once.
    pub fn versions(&self) -> Vec<VersionNumber> {
        let mut versions = Vec::new();
        for deployment in self.deployments() {
            if !versions.contains(&deployment.version) {
                versions.push(deployment.version);
            }
        }
        versions
    }

    /// Whether there is anything that could answer any row.
    pub fn can_answer(&self) -> bool {
        let model = self.champion.is_some() || self.previous.is_some();
        model || self.default.is_some() || !self.fallback.is_empty()
    }

    /// Numbers a row of scores: 1, or the number of classes.
    pub fn width(&self) -> usize {
        match self.task {
            Task::Multiclass => self.classes.len(),
            Task::Binary | Task::Regression => 1,
        }
    }

    /// `values`, row-major, as this route's scores.
    pub(crate) fn scores(&self, values: Vec<f64>) -> Scores {
        match self.task {
            Task::Binary => Scores::Binary(values),
            Task::Regression => Scores::Regression(values),
            Task::Multiclass => Scores::Multiclass {
                classes: Arc::clone(&self.classes),
                probabilities: values,
            },
        }
    }
}

/// The spec's default answer as one row of scores: a probability or number as it is, a class with all the probability.
///
/// # Errors
/// If the answer does not fit the task, or the class is unknown.
pub fn default_row(answer: &DefaultAnswer, task: Task, classes: &[String]) -> Result<Vec<f64>, PortError> {
    let refuse = |expected: String| {
        let given = match answer {
            DefaultAnswer::Number(number) => number.to_string(),
            DefaultAnswer::Class(class) => class.clone(),
        };
        Err(PortError::caller(
            "default_answer",
            format!("`endpoint.default` is `{given}`, expected {expected}"),
        ))
    };
    match (task, answer) {
        (Task::Binary, DefaultAnswer::Number(p)) if (0.0..=1.0).contains(p) => Ok(vec![*p]),
        (Task::Binary, _) => refuse("a probability between 0 and 1".to_owned()),
        (Task::Regression, DefaultAnswer::Number(number)) if number.is_finite() => Ok(vec![*number]),
        (Task::Regression, _) => refuse("a finite number".to_owned()),
        (Task::Multiclass, DefaultAnswer::Class(class)) if classes.contains(class) => {
            Ok(classes.iter().map(|c| f64::from(u8::from(c == class))).collect())
        }
        (Task::Multiclass, _) => refuse(format!("one of the classes `{}`", classes.join("`, `"))),
    }
}

/// All routes at one point in time.
#[derive(Debug, Clone, Default)]
pub struct RoutingTable {
    /// By endpoint.
    pub routes: HashMap<EndpointName, Arc<Route>>,
}

/// Holds the current [`RoutingTable`]. A request reads it once and keeps its route to the end, whatever is swapped meanwhile.
#[derive(Debug, Default)]
pub struct Router {
    table: ArcSwap<RoutingTable>,
}

impl Router {
    /// A router without routes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The route of an endpoint.
    pub fn route(&self, name: &EndpointName) -> Option<Arc<Route>> {
        self.table.load().routes.get(name).cloned()
    }

    /// The whole table.
    pub fn table(&self) -> Arc<RoutingTable> {
        self.table.load_full()
    }

    /// The names of all endpoints, sorted.
    pub fn names(&self) -> Vec<String> {
        let table = self.table.load();
        let mut names: Vec<String> = table.routes.keys().map(ToString::to_string).collect();
        names.sort();
        names
    }

    /// Replaces the whole table.
    pub fn swap(&self, table: RoutingTable) {
        self.table.store(Arc::new(table));
    }

    /// Sets one route, unless one with a larger generation stands there. Returns whether it was set.
    pub fn put(&self, route: Route) -> bool {
        let route = Arc::new(route);
        let mut set = true;
        self.table.rcu(|table| {
            let newer = |old: &Arc<Route>| old.generation > route.generation;
            set = !table.routes.get(&route.endpoint).is_some_and(newer);
            if !set {
                return Arc::clone(table);
            }
            let mut next = RoutingTable::clone(table);
            next.routes.insert(route.endpoint.clone(), Arc::clone(&route));
            Arc::new(next)
        });
        set
    }

    /// Takes an endpoint away.
    pub fn remove(&self, name: &EndpointName) {
        self.table.rcu(|table| {
            let mut next = RoutingTable::clone(table);
            next.routes.remove(name);
            next
        });
    }
}
