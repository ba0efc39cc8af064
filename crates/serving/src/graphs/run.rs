//! One request on its way through a graph. What the outputs need is asked for, so a branch that nobody takes never runs; what several need
//! runs once; what does not depend on each other runs at the same time.

use std::sync::atomic::Ordering;

use futures_util::future::{BoxFuture, join_all, try_join_all};
use tidemill_core::clock::Stopwatch;
use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_core::ports::PortError;
use tidemill_core::servable::{CallContext, Interface, Payload};
use tidemill_core::spec::{Combine, EnsembleNode, ModelNode, NodeSpec, Reference};
use tidemill_core::tensors::Tensor;
use tokio::sync::OnceCell;

use super::combine::combine;
use super::endpoint;
use super::explain;
use super::select::Choices;
use super::servable::{Plan, failed};
use super::transform::transform;
use crate::error::ServeError;
use crate::hosting::Call;
use crate::hosting::routing::{conditions, sticky};
use crate::server::Server;

type Answer = Result<Payload, PortError>;

/// A request under way.
pub(super) struct Run<'a> {
    plan: &'a Plan,
    server: &'a Server,
    request: &'a Payload,
    context: &'a CallContext,
    answers: Vec<OnceCell<Answer>>,
}

impl<'a> Run<'a> {
    pub fn new(plan: &'a Plan, server: &'a Server, request: &'a Payload, context: &'a CallContext) -> Self {
        Self {
            plan,
            server,
            request,
            context,
            answers: plan.nodes.iter().map(|_| OnceCell::new()).collect(),
        }
    }

    /// The graph's answer.
    pub async fn answer(&self) -> Answer {
        let spec = &self.plan.spec;
        if let Some(node) = &spec.output {
            return self.node(node).await.cloned();
        }
        let outputs = spec
            .outputs
            .iter()
            .filter(|(name, _)| self.context.outputs.is_empty() || self.context.outputs.contains(name));
        let tensors = outputs.map(|(name, text)| async move {
            let found = self.tensor(text).await?;
            Ok::<_, PortError>(found.map(|found| named(found, name)))
        });
        let tensors = try_join_all(tensors).await?;
        Ok(Payload::Tensors(tensors.into_iter().flatten().collect()))
    }

    /// A node's answer; it runs when it is first asked for.
    fn node<'s>(&'s self, name: &'s str) -> BoxFuture<'s, Result<&'s Payload, PortError>> {
        Box::pin(async move {
            let place = self.plan.spec.nodes.get_index_of(name);
            let place = place.ok_or_else(|| failed(format!("there is no node `{name}`")))?;
            let answer = self.answers[place].get_or_init(|| self.run(place)).await;
            answer.as_ref().map_err(Clone::clone)
        })
    }

    async fn run(&self, place: usize) -> Answer {
        let Some((name, node)) = self.plan.spec.nodes.get_index(place) else {
            return Err(failed(format!("there is no node {place}")));
        };
        let answer = self.run_kind(name, place, node).await?;
        if node.outputs.is_empty() {
            return Ok(answer);
        }
        let Payload::Tensors(tensors) = answer else {
            return Err(failed(format!(
                "node `{name}` answered a body, which has no outputs to rename"
            )));
        };
        let renamed = node.outputs.iter().map(|(from, to)| {
            let found = tensors.iter().find(|tensor| tensor.name == *from);
            found
                .map(|found| named(found.clone(), to))
                .ok_or_else(|| no_output(name, from, &tensors))
        });
        renamed.collect::<Result<_, _>>().map(Payload::Tensors)
    }

    async fn run_kind(&self, name: &str, place: usize, node: &NodeSpec) -> Answer {
        if let Some(ensemble) = &node.ensemble {
            return self.ensemble(name, place, ensemble).await;
        }
        if let Some(switch) = &node.switch {
            let own = self.timed(name, place, async {
                let mut choices = Choices::default();
                for (case, spec) in switch.cases.iter().enumerate() {
                    let when = &spec.when;
                    let column = match (&when.output, &when.input) {
                        (Some(text), _) => self.tensor(text).await?,
                        (None, Some(input)) => self.input_column(input),
                        _ => None,
                    };
                    let whole = match (&column, when.output.is_some()) {
                        (None, false) => conditions::holds(when, self.context, self.request),
                        _ => false,
                    };
                    choices.take(case, when, column.as_ref(), whole)?;
                    if choices.all_taken() {
                        break;
                    }
                }
                Ok(choices)
            });
            let choices = own.await?;
            let node_of = |choice: Option<usize>| {
                let to = choice.map_or(switch.default.as_ref(), |case| Some(&switch.cases[case].to));
                to.ok_or_else(|| {
                    failed(format!(
                        "node `{name}`: no case of the switch holds, and it has no `default`"
                    ))
                })
            };
            let wanted = choices
                .distinct()
                .into_iter()
                .map(|choice| Ok((choice, node_of(choice)?)));
            let wanted: Vec<(Option<usize>, &String)> = wanted.collect::<Result<_, PortError>>()?;
            let answers = wanted
                .iter()
                .map(|(choice, to)| async { Ok((*choice, self.node(to).await?)) });
            let answers: Vec<(Option<usize>, &Payload)> = try_join_all(answers).await?;
            return choices.merge(&answers).map_err(|error| of_node(name, error));
        }
        if node.splitter.is_some() {
            let key = conditions::key(None, self.context, self.request);
            let way = sticky::choose(&self.plan.nodes[place].ways, &key);
            let to = way.and_then(|way| self.plan.spec.nodes.get_index(way.to));
            let (to, _) = to.ok_or_else(|| failed(format!("node `{name}`: no way has a weight")))?;
            let to = self.timed(name, place, async { Ok(to) }).await?;
            return self.node(to).await.cloned();
        }
        let input = self.input(node).await?;
        if let Some(outlier) = &node.outlier {
            return self.outlier(name, place, outlier, input).await;
        }
        self.timed(name, place, async {
            if let Some(model) = &node.model {
                let input = self.fitting(model, input, node.inputs.is_empty()).await?;
                return self.ask(model, input).await;
            }
            if let Some(explain) = &node.explain {
                return explain::explain(self, explain, input).await;
            }
            if !node.chain.is_empty() {
                let mut payload = input;
                for (step, model) in node.chain.iter().enumerate() {
                    let last = self
                        .fitting(model, payload, step > 0 || node.inputs.is_empty())
                        .await?;
                    payload = self.ask(model, last).await?;
                }
                return Ok(payload);
            }
            transform(&node.transform, input)
        })
        .await
    }

    async fn outlier(
        &self,
        name: &str,
        place: usize,
        outlier: &tidemill_core::spec::OutlierNode,
        input: Payload,
    ) -> Answer {
        let Some(detector) = &self.plan.nodes[place].detector else {
            return Err(failed(format!("node `{name}` was not prepared")));
        };
        let scores = self.timed(name, place, async {
            match &outlier.detector {
                Some(asked) => {
                    let model = ModelNode {
                        deployment: asked.deployment.clone(),
                        version: asked.version,
                    };
                    let input = self.fitting(&model, input, true).await?;
                    let answer = self.ask(&model, input).await?;
                    detector.of_answer(&answer)
                }
                None => detector.score(&input),
            }
        });
        // What is annotated does not wait for the scores.
        let answer = async {
            match &outlier.answer {
                Some(node) => self.node(node).await.cloned(),
                None => Ok(Payload::Tensors(Vec::new())),
            }
        };
        let (scores, answer) = futures_util::future::try_join(scores, answer).await?;
        let flags = detector.flags(&scores);
        let other = match &outlier.route {
            Some(node) if flags.contains(&true) => Some(self.node(node).await?),
            _ => None,
        };
        detector
            .annotate(answer, &scores, &flags, other)
            .map_err(|error| of_node(name, error))
    }

    async fn ensemble(&self, name: &str, place: usize, ensemble: &EnsembleNode) -> Answer {
        let mut reasons = Vec::new();
        if ensemble.combine == Combine::FirstSuccess {
            for member in &ensemble.of {
                match self.node(member).await {
                    Ok(answer) => {
                        let answer = answer.clone();
                        return self.timed(name, place, async { Ok(answer) }).await;
                    }
                    Err(error) => reasons.push(error.message),
                }
            }
            let error = failed(format!("no member answered: {}", reasons.join("; ")));
            return self.timed(name, place, async { Err(error) }).await;
        }
        let members = ensemble.of.iter().map(|text| async move {
            let found = self.tensor(text).await?;
            found.ok_or_else(|| failed(format!("`{text}` did not come")))
        });
        let members = join_all(members).await;
        let quorum = ensemble
            .quorum
            .map_or(ensemble.of.len(), |quorum| quorum as usize);
        self.timed(name, place, async {
            let mut answered = Vec::with_capacity(members.len());
            for (place, member) in members.into_iter().enumerate() {
                let weight = ensemble.weights.get(place).copied().unwrap_or(1.0);
                match member {
                    Ok(tensor) => answered.push((tensor, weight)),
                    Err(error) if quorum == ensemble.of.len() => return Err(error),
                    Err(error) => reasons.push(error.message),
                }
            }
            if answered.len() < quorum {
                let (got, why) = (answered.len(), reasons.join("; "));
                return Err(failed(format!("{got} members answered, {quorum} have to: {why}")));
            }
            combine(ensemble, &answered)
        })
        .await
    }

    /// Runs a node's own work, and counts it.
    async fn timed<T>(
        &self,
        name: &str,
        place: usize,
        work: impl Future<Output = Result<T, PortError>>,
    ) -> Result<T, PortError> {
        let watch = Stopwatch::start();
        let result = work.await;
        let counts = &self.plan.nodes[place].counts;
        counts.count.fetch_add(1, Ordering::Relaxed);
        counts.ns.fetch_add(watch.nanos(), Ordering::Relaxed);
        if result.is_err() {
            counts.errors.fetch_add(1, Ordering::Relaxed);
        }
        result.map_err(|error| of_node(name, error))
    }

    /// What a node is given.
    async fn input(&self, node: &NodeSpec) -> Answer {
        if let Some(other) = &node.input {
            return self.node(other).await.cloned();
        }
        if node.inputs.is_empty() {
            return Ok(self.request.clone());
        }
        let tensors = node.inputs.iter().map(|(name, text)| async move {
            let found = self.tensor(text).await?;
            Ok::<_, PortError>(found.map(|found| named(found, name)))
        });
        let tensors = try_join_all(tensors).await?;
        Ok(Payload::Tensors(tensors.into_iter().flatten().collect()))
    }

    /// The column of the request; `None` if it did not come, or a body did.
    fn input_column(&self, name: &str) -> Option<Tensor> {
        match self.request {
            Payload::Tensors(tensors) => tensors.iter().find(|tensor| tensor.name == name).cloned(),
            Payload::Body { .. } => None,
        }
    }

    /// What a reference points at; `None` for an input that was left out.
    async fn tensor(&self, text: &str) -> Result<Option<Tensor>, PortError> {
        match self.plan.spec.reference(text) {
            Some(Reference::Input(name)) => Ok(self.input_column(name)),
            Some(Reference::Output { node, output }) => {
                let Payload::Tensors(tensors) = self.node(node).await? else {
                    return Err(failed(format!(
                        "node `{node}` answered a body, which has no output `{output}`"
                    )));
                };
                let found = tensors.iter().find(|tensor| tensor.name == output);
                found
                    .cloned()
                    .map(Some)
                    .ok_or_else(|| no_output(node, output, tensors))
            }
            None => Err(failed(format!("`{text}` is no reference"))),
        }
    }

    /// What of a payload a deployment takes: by name, or, where no name fits and the number does, by position. Payloads that were put
    /// together for it go as they are.
    async fn fitting(&self, model: &ModelNode, payload: Payload, whole: bool) -> Answer {
        let Payload::Tensors(tensors) = payload else {
            return Ok(payload);
        };
        if !whole {
            return Ok(Payload::Tensors(tensors));
        }
        let Some(interface) = self.interface(model).await? else {
            return Ok(Payload::Tensors(tensors));
        };
        let inputs = &interface.inputs;
        if inputs.is_empty() {
            return Ok(Payload::Tensors(tensors));
        }
        let named_so = |tensor: &Tensor| inputs.iter().any(|spec| spec.name == tensor.name);
        let required = inputs.iter().filter(|spec| !spec.optional).count();
        if !tensors.iter().any(named_so) && tensors.len() == required {
            let specs = inputs.iter().filter(|spec| !spec.optional);
            let renamed = tensors
                .into_iter()
                .zip(specs)
                .map(|(tensor, spec)| named(tensor, &spec.name));
            return Ok(Payload::Tensors(renamed.collect()));
        }
        Ok(Payload::Tensors(tensors.into_iter().filter(named_so).collect()))
    }

    /// What a deployment takes and gives; `None` for an endpoint of the loop, which takes what it knows.
    pub async fn interface(&self, model: &ModelNode) -> Result<Option<std::sync::Arc<Interface>>, PortError> {
        let name = EndpointName::new(&model.deployment);
        let hosting = self.server.hosting();
        if !hosting.contains(&name) && self.server.router().route(&name).is_some() {
            return Ok(None);
        }
        let found = hosting.interface(&name, model.version.map(VersionNumber)).await;
        found.map(|(_, interface)| Some(interface)).map_err(of_serving)
    }

    /// A call of a deployment on behalf of this request: what is left of its time, its caller and its key go along.
    pub fn call_of(&self, model: &ModelNode, payload: Payload) -> Call {
        let mut call = Call::new(EndpointName::new(&model.deployment), payload, Stopwatch::start());
        call.version = model.version.map(VersionNumber);
        call.timeout = self.context.deadline.map(|deadline| deadline.left());
        call.context = CallContext {
            deadline: None,
            outputs: Vec::new(),
            depth: self.context.depth + 1,
            ..self.context.clone()
        };
        call
    }

    pub fn server(&self) -> &Server {
        self.server
    }

    /// A deployment's answer.
    pub async fn ask(&self, model: &ModelNode, payload: Payload) -> Answer {
        let hosting = self.server.hosting();
        let call = self.call_of(model, payload);
        if !hosting.contains(&call.endpoint)
            && let Some(route) = self.server.router().route(&call.endpoint)
        {
            return endpoint::ask(self.server, &route, call).await.map_err(of_serving);
        }
        let answer = hosting.call_boxed(call).await.map_err(of_serving)?;
        if let Some(reason) = &answer.degraded {
            tracing::debug!(graph = %self.plan.name, deployment = %model.deployment, %reason, "a node's answer is degraded");
        }
        Ok(answer.payload)
    }
}

fn named(mut tensor: Tensor, name: &str) -> Tensor {
    if tensor.name != name {
        name.clone_into(&mut tensor.name);
    }
    tensor
}

fn no_output(node: &str, output: &str, tensors: &[Tensor]) -> PortError {
    let known: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    failed(format!(
        "node `{node}` gave no output `{output}`, but `{}`",
        known.join("`, `")
    ))
}

/// Says which node an error comes from, once.
fn of_node(name: &str, mut error: PortError) -> PortError {
    if !error.message.starts_with("node `") {
        error.message = format!("node `{name}`: {}", error.message);
    }
    error
}

pub(crate) fn of_serving(error: ServeError) -> PortError {
    PortError {
        blame: error.blame(),
        code: error.code(),
        message: error.to_string(),
        trace: None,
    }
}
