//! The way of a call: to the version in charge, and where that cannot answer, down the fallback chain.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::Value;
use tidemill_core::clock::Stopwatch;
use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_core::ports::Blame;
use tidemill_core::servable::{CallContext, Interface, Payload};
use tidemill_core::spec::FallbackSpec;
use tidemill_core::tensors::{DataType, Tensor};

use super::ask::{ask_ready, ready};
use super::cache;
use super::call::{CallTimes, Said};
use super::host::Host;
use super::recording::Recording;
use super::routing::{Kind, Pass};
use super::statistics::Counted;
use super::version::Version;
use super::{Call, CallAnswer, Hosting};
use crate::error::ServeError;
use crate::pressure::Pressure;

/// Marks of answers that the version in charge did not give.
const VERSION: &str = "fallback_version";
const ENDPOINT: &str = "fallback_endpoint";
const DEFAULT: &str = "fallback_default";
const ABSTAINED: &str = "abstained";

/// What is asked of each that is tried.
struct Asked {
    priority: u32,
    received: Stopwatch,
    /// The time that ran out was the deployment's own, not a shorter one of the caller's.
    own_time: bool,
}

/// Which version is asked first, and why.
struct Way<'a> {
    version: &'a Arc<Version>,
    route: &'a Arc<str>,
    /// Whether it may be given a rest, and others asked instead.
    guarded: bool,
}

impl Host {
    pub async fn call(&self, hosting: &Hosting, mut call: Call) -> Result<CallAnswer, ServeError> {
        self.check_on()?;
        let context = self.context(&mut call);
        let (kind, chosen, version) = self.choose(call.version, &context, &call.payload)?;
        if let Err(error) = self.check_rate(version) {
            version.counts.failed(&error, call.received.nanos());
            return Err(error);
        }
        let asked = Asked {
            priority: call.priority,
            received: call.received,
            own_time: call
                .timeout
                .is_none_or(|timeout| timeout >= super::version::duration(self.spec().timeout)),
        };
        self.routing.count(kind);
        let guarded = !matches!(kind, Kind::Explicit);
        let recording = Recording::begin(self, hosting, version, &call.payload, &context, call.received);
        let way = Way {
            version,
            route: &chosen.route,
            guarded,
        };
        let result = self.go(hosting, way, call.payload, context, &asked).await;
        match recording {
            Some(recording) => recording.finish(result).await,
            None => result,
        }
    }

    /// To the version in charge, and on from there.
    async fn go(
        &self,
        hosting: &Hosting,
        way: Way<'_>,
        payload: Payload,
        context: CallContext,
        asked: &Asked,
    ) -> Result<CallAnswer, ServeError> {
        let Way {
            version,
            route,
            guarded,
        } = way;
        let falls_back = guarded && !self.spec().fallback.is_empty();
        let copied = self.routing.has_shadows();
        let kept = (falls_back || copied).then(|| payload.clone());
        let result = self.attempt(version, payload, &context, asked, guarded).await;
        match (result, kept) {
            (Ok((said, cached)), kept) => {
                if let Some(kept) = kept.filter(|_| copied && !cached) {
                    self.copy(hosting, version.number, &kept, &context, &said.payload);
                }
                let answer = self.answer(version.number, route, said.payload, context.request_id, cached);
                Ok(CallAnswer {
                    times: said.times,
                    ..answer
                })
            }
            (Err(error), Some(kept)) if falls_back && may_fall_back(&error) => {
                let tried = version.number;
                self.fall_back(hosting, error, tried, kept, context, asked).await
            }
            (Err(error), _) => Err(error),
        }
    }

    fn copy(
        &self,
        hosting: &Hosting,
        by: VersionNumber,
        payload: &Payload,
        context: &CallContext,
        answer: &Payload,
    ) {
        let behind = hosting.pressure().now() >= Pressure::Shadows;
        for shadow in self.routing.shadows(by, context, payload) {
            if behind {
                shadow.drop_copy();
            } else if let Some(version) = self.get(shadow.version()) {
                shadow.copy(version, payload.clone(), context, answer.clone());
            }
        }
    }

    /// Asks a version, unless it is given a rest.
    async fn attempt(
        &self,
        version: &Arc<Version>,
        payload: Payload,
        context: &CallContext,
        asked: &Asked,
        guarded: bool,
    ) -> Result<(Said, bool), ServeError> {
        let breaker = self.routing.breaker(version.number).filter(|_| guarded);
        let pass: Option<Pass> = match breaker {
            Some(breaker) => {
                let pass = breaker.admit(self.now());
                Some(pass.ok_or_else(|| {
                    let (spec, number) = (breaker.spec(), version.number);
                    self.failed_all(format!(
                        "version {number} failed {} times within {} and is given a rest of {}",
                        spec.failures, spec.window, spec.open
                    ))
                })?)
            }
            None => None,
        };
        let result = self.remembered_or_asked(version, payload, context, asked).await;
        if let Some(pass) = pass {
            match &result {
                Ok(_) => pass.succeeded(),
                Err(error) if speaks_against(error, asked) => pass.failed(self.now()),
                Err(_) => {}
            }
        }
        result
    }

    async fn remembered_or_asked(
        &self,
        version: &Arc<Version>,
        mut payload: Payload,
        context: &CallContext,
        asked: &Asked,
    ) -> Result<(Said, bool), ServeError> {
        let used = self.now().as_micros().max(1) as u64;
        version.last_used.store(used, Ordering::Relaxed);
        let counts = &version.counts;
        let mut counted = Counted::new(counts, asked.received);
        let replica = counted.watch(ready(version, &mut payload, context).await)?;
        let key = self
            .cache
            .as_ref()
            .map(|_| cache::key(version.number, &payload, context));
        if let (Some(cache), Some(key)) = (&self.cache, &key) {
            let found = cache.get(key);
            let counter = if found.is_some() {
                &counts.cache_hit
            } else {
                &counts.cache_miss
            };
            counter.add(asked.received.nanos());
            if let Some(payload) = found {
                counts.queue.add(0);
                counted.answered(self.now().as_millis() as u64);
                let times = CallTimes::default();
                return Ok((Said { payload, times }, true));
            }
        }
        let answer = ask_ready(version, &replica, payload, context, asked.priority).await;
        let said = counted.watch(answer)?;
        counted.answered(self.now().as_millis() as u64);
        if let (Some(cache), Some(key)) = (&self.cache, key) {
            cache.put(key, &said.payload);
        }
        Ok((said, false))
    }

    fn failed_all(&self, reasons: String) -> ServeError {
        ServeError::AllFailed {
            endpoint: self.name().clone(),
            reasons,
        }
    }

    /// Tries what the chain names, one after the other.
    async fn fall_back(
        &self,
        hosting: &Hosting,
        first: ServeError,
        tried: VersionNumber,
        payload: Payload,
        context: CallContext,
        asked: &Asked,
    ) -> Result<CallAnswer, ServeError> {
        tracing::warn!(endpoint = %self.name(), version = %tried, error = %first, "the version in charge did not answer");
        let mut reasons = vec![first.to_string()];
        let late = || context.deadline.is_some_and(|deadline| deadline.passed());
        for step in &self.spec().fallback {
            let asks = step.version.is_some() || step.endpoint.is_some();
            if asks && late() {
                continue;
            }
            let result = match step {
                FallbackSpec {
                    version: Some(number),
                    ..
                } => {
                    let number = VersionNumber(*number);
                    let Some(version) = self.get(number).filter(|_| number != tried) else {
                        continue;
                    };
                    let answer = self
                        .attempt(version, payload.clone(), &context, asked, true)
                        .await;
                    answer.map(|(said, cached)| {
                        let route = format!("fallback version {number}").into();
                        self.routing.count(Kind::FallbackVersion);
                        let id = context.request_id.clone();
                        let answer = self.answer(number, &route, said.payload, id, cached);
                        let times = said.times;
                        CallAnswer { times, ..answer }.marked(VERSION)
                    })
                }
                FallbackSpec {
                    endpoint: Some(name), ..
                } => {
                    self.ask_other(hosting, name, payload.clone(), &context, asked)
                        .await
                }
                FallbackSpec {
                    default: Some(value), ..
                } => {
                    let interface = self.get(tried).and_then(|version| version.known_interface());
                    fixed_answer(value, &payload, interface.as_deref())
                        .map_err(|message| self.failed_all(message))
                        .map(|payload| {
                            self.routing.count(Kind::FallbackDefault);
                            self.answer(
                                VersionNumber::DEFAULT,
                                &"fallback default".into(),
                                payload,
                                context.request_id.clone(),
                                false,
                            )
                            .marked(DEFAULT)
                        })
                }
                _ => {
                    self.routing.count(Kind::Abstained);
                    let nothing = match &payload {
                        Payload::Tensors(_) => Payload::Tensors(Vec::new()),
                        Payload::Body { .. } => json_body(&Value::Null),
                    };
                    Ok(self
                        .answer(
                            VersionNumber::DEFAULT,
                            &"abstained".into(),
                            nothing,
                            context.request_id.clone(),
                            false,
                        )
                        .marked(ABSTAINED))
                }
            };
            match result {
                Ok(answer) => return Ok(answer),
                Err(error) => reasons.push(error.to_string()),
            }
        }
        if reasons.len() == 1 {
            return Err(first);
        }
        Err(self.failed_all(reasons.join("; ")))
    }

    async fn ask_other(
        &self,
        hosting: &Hosting,
        name: &str,
        payload: Payload,
        context: &CallContext,
        asked: &Asked,
    ) -> Result<CallAnswer, ServeError> {
        let mut call = Call::new(EndpointName::new(name), payload, asked.received);
        call.timeout = context
            .deadline
            .map(|deadline| deadline.left() + asked.received.elapsed());
        call.priority = asked.priority;
        call.context = CallContext {
            deadline: None,
            depth: context.depth + 1,
            ..context.clone()
        };
        let answer = hosting.call_boxed(call).await?;
        self.routing.count(Kind::FallbackEndpoint);
        let route = format!("fallback endpoint {name} version {}", answer.version).into();
        let by = answer.by.clone().or_else(|| Some(EndpointName::new(name)));
        Ok(CallAnswer { route, by, ..answer }.marked(ENDPOINT))
    }
}

impl CallAnswer {
    fn marked(mut self, mark: &'static str) -> Self {
        self.degraded = Some(mark.into());
        self
    }
}

/// Whether another could answer what failed so: not where the request itself is wrong.
fn may_fall_back(error: &ServeError) -> bool {
    match error {
        ServeError::Model { source, .. } | ServeError::Load { source, .. } => source.blame != Blame::Caller,
        ServeError::Overloaded { .. }
        | ServeError::DeadlinePassed { .. }
        | ServeError::AllFailed { .. }
        | ServeError::Internal(_) => true,
        _ => false,
    }
}

/// Whether a failure is the version's own.
fn speaks_against(error: &ServeError, asked: &Asked) -> bool {
    match error {
        ServeError::DeadlinePassed { .. } => asked.own_time,
        ServeError::Overloaded { .. } => false,
        error => may_fall_back(error),
    }
}

fn json_body(value: &Value) -> Payload {
    Payload::Body {
        content_type: "application/json".to_owned(),
        bytes: value.to_string().into(),
    }
}

/// The answer that the settings name: to a body the value itself, to tensors each output, the same for every row.
fn fixed_answer(value: &Value, asked: &Payload, interface: Option<&Interface>) -> Result<Payload, String> {
    let Payload::Tensors(inputs) = asked else {
        return Ok(json_body(value));
    };
    let Value::Object(outputs) = value else {
        return Err(format!(
            "the default answer `{value}` names no output, such as `{{y: 0.5}}`"
        ));
    };
    let rows = inputs.first().map_or(1, Tensor::rows);
    let tensor = |(name, value): (&String, &Value)| {
        let known = interface.and_then(|interface| interface.outputs.iter().find(|spec| spec.name == *name));
        let a_row = match value {
            Value::Array(values) => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        let flat = !value.is_array() && known.is_none_or(|spec| spec.shape.len() < 2);
        let shape = if flat { vec![rows] } else { vec![rows, a_row.len()] };
        let usual = match a_row.first() {
            Some(Value::String(_)) => DataType::Bytes,
            Some(Value::Bool(_)) => DataType::Bool,
            _ => DataType::Fp64,
        };
        let datatype = known.map_or(usual, |spec| spec.datatype);
        let broken = |what: &dyn std::fmt::Display| format!("the default answer of output `{name}`: {what}");
        if datatype == DataType::Bytes {
            let text = |value: &Value| match value {
                Value::Null => None,
                Value::String(text) => Some(text.clone().into()),
                other => Some(other.to_string().into()),
            };
            let strings = (0..rows).flat_map(|_| a_row.iter().map(text));
            return Tensor::strings(name, shape, strings.collect()).map_err(|error| broken(&error));
        }
        let number = |value: &Value| match value {
            Value::Bool(value) => Some(f64::from(u8::from(*value))),
            Value::Null => Some(f64::NAN),
            value => value.as_f64(),
        };
        let numbers: Option<Vec<f64>> = a_row.iter().map(number).collect();
        let numbers = numbers
            .ok_or_else(|| broken(&format!("`{value}` is no number, as {} needs", datatype.name())))?;
        Tensor::of_numbers(name, datatype, shape, &numbers.repeat(rows)).map_err(|error| broken(&error))
    };
    outputs
        .iter()
        .map(tensor)
        .collect::<Result<_, _>>()
        .map(Payload::Tensors)
}
