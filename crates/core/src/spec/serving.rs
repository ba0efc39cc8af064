//! How a deployment answers: how requests are gathered, how many replicas there are, what is refused, what is remembered. The same
//! settings stand in `tidemill.yaml`, in `tidemill deploy` and in the API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::endpoint::LogFailure;
use super::routing::{BreakerSpec, FallbackSpec, RoutingSpec};
use super::{Device, Span};

/// How a deployment answers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServingSpec {
    /// How requests are gathered before the model. Default: not at all for models that answer in microseconds, else as many as wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batching: Option<BatchingSpec>,
    /// How many replicas there are, and when.
    pub scaling: ScalingSpec,
    /// What happens to requests that have to wait.
    pub queue: QueueSpec,
    /// An answer has to be given within this time of the request's arrival. A client may ask for less.
    pub timeout: Span,
    /// Answers that are remembered and given again to the same inputs. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheSpec>,
    /// More requests than this are refused. Default: no limit but the machine's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitSpec>,
    /// Which versions are served.
    pub versions: VersionPolicy,
    /// Requests of zeros that a replica answers before its first caller's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warmup: Vec<WarmupSpec>,
    /// What a worker process may take: for models and functions in Python.
    pub worker: WorkerSpec,
    /// Where an ONNX model runs; of a Python worker, which GPUs it sees. Default: on a GPU where one can be used.
    #[serde(skip_serializing_if = "Device::is_auto")]
    pub device: Device,
    /// Make a native model of what Python would load, where that answers samples as the original does: tree ensembles. What cannot be
    /// converted stays in Python.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub convert: bool,
    /// Which version answers which request. Default: the newest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routing: Option<RoutingSpec>,
    /// When a version that fails is given a rest. Default: as soon as there is a `fallback`, with the defaults; else never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerSpec>,
    /// What is tried in turn when the version in charge cannot answer. Default: the caller gets the error.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fallback: Vec<FallbackSpec>,
    /// What is recorded of calls.
    #[serde(skip_serializing_if = "CallLogSpec::is_usual")]
    pub log: CallLogSpec,
}

impl Default for ServingSpec {
    fn default() -> Self {
        Self {
            batching: None,
            scaling: ScalingSpec::default(),
            queue: QueueSpec::default(),
            timeout: Span::from_micros(60_000_000),
            cache: None,
            rate_limit: None,
            versions: VersionPolicy::default(),
            warmup: Vec::new(),
            worker: WorkerSpec::default(),
            device: Device::Auto,
            convert: false,
            routing: None,
            breaker: None,
            fallback: Vec::new(),
            log: CallLogSpec::default(),
        }
    }
}

/// How requests are gathered.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchingSpec {
    /// At most so many rows are answered together; 1 gathers nothing.
    pub max_rows: u32,
    /// A request waits at most this long for others, where waiting has been worth it. Within it, how long is learnt from what comes in.
    pub max_delay: Span,
}

impl Default for BatchingSpec {
    fn default() -> Self {
        Self {
            max_rows: 64,
            max_delay: Span::from_micros(5_000),
        }
    }
}

/// How many replicas there are, and when.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScalingSpec {
    /// So many replicas stay, however idle they are; 0 lets the deployment go to sleep.
    pub min: u32,
    /// At most so many.
    pub max: u32,
    /// So many replicas are ready before the first request comes, and kept as `min` is, as a provisioned concurrency.
    pub provisioned: u32,
    /// So many requests at once a replica is meant to work on; more make another replica.
    pub target_concurrency: u32,
    /// A replica above `min` is taken away after this long without work.
    pub idle: Span,
}

impl Default for ScalingSpec {
    fn default() -> Self {
        Self {
            min: 0,
            max: 1,
            provisioned: 0,
            target_concurrency: 16,
            idle: Span::from_micros(600_000_000),
        }
    }
}

/// What happens to requests that have to wait.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueueSpec {
    /// So many requests wait at most; what comes on top is refused at once (429).
    pub max_requests: u32,
    /// A request waits at most this long before work on it begins (503). Default: the whole timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_wait: Option<Span>,
    /// Refuse what comes on top (429) once requests take much longer than on a quiet day, rather than let all of them wait.
    pub adaptive: bool,
    /// Priorities go from 1, the most urgent, to this; a request that names none has the middle one.
    pub priorities: u32,
}

impl Default for QueueSpec {
    fn default() -> Self {
        Self {
            max_requests: 4_096,
            max_wait: None,
            adaptive: true,
            priorities: 1,
        }
    }
}

/// Answers that are remembered.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CacheSpec {
    /// At most so many MiB of them.
    pub mib: u32,
    /// An answer is forgotten after this long. Default: when there is no room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Span>,
}

/// How many requests are taken.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimitSpec {
    /// So many a second in the long run.
    pub per_second: f64,
    /// So many at once after a quiet time. Default: as many as come in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

/// Requests that a replica answers before its first caller's: every input zeros, or empty texts; dimensions of any extent are 1.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WarmupSpec {
    /// Rows in each.
    pub rows: u32,
    /// How many.
    pub count: u32,
}

impl Default for WarmupSpec {
    fn default() -> Self {
        Self { rows: 1, count: 1 }
    }
}

/// Which versions of a deployment are served, in Triton's words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VersionPolicy {
    /// The newest so many.
    Latest(u32),
    /// All of them.
    All,
    /// These.
    Specific(Vec<u32>),
}

impl Default for VersionPolicy {
    fn default() -> Self {
        Self::Latest(1)
    }
}

/// What a worker process may take.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerSpec {
    /// CPU cores; threads of numeric libraries are set to it.
    pub cpu: f64,
    /// MiB of memory; a worker that takes more is ended and begun anew.
    pub memory_mib: u32,
    /// So many requests at once in one worker: above 1 the function has to be async or safe to call from several threads.
    pub concurrency: u32,
    /// A call that takes longer ends its worker. Default: the deployment's timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_limit: Option<Span>,
}

impl Default for WorkerSpec {
    fn default() -> Self {
        Self {
            cpu: 1.0,
            memory_mib: 2_048,
            concurrency: 1,
            time_limit: None,
        }
    }
}

/// What is recorded of calls in the prediction log.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CallLogSpec {
    /// Whether anything is.
    pub enabled: bool,
    /// The share of calls that are recorded, 0 to 1.
    pub sample: f64,
    /// Inputs, outputs, columns and fields of JSON whose values are not recorded. Such a call cannot be replayed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redact: Vec<String>,
    /// What becomes of a call that cannot be recorded. `drop` answers it, waits for nothing, and counts it.
    pub on_failure: LogFailure,
    /// Inputs, or an answer, of more bytes than this are recorded without their values.
    pub max_bytes: u64,
}

impl CallLogSpec {
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it contradicts itself.
    pub(super) fn check(&self, key: &str) -> Result<(), (String, String)> {
        if (0.0..=1.0).contains(&self.sample) {
            return Ok(());
        }
        let message = format!("`{}` is no share: between 0 and 1", self.sample);
        Err((format!("{key}.sample"), message))
    }
}

impl Default for CallLogSpec {
    fn default() -> Self {
        Self {
            enabled: true,
            sample: 1.0,
            redact: Vec::new(),
            on_failure: LogFailure::Drop,
            max_bytes: 1 << 20,
        }
    }
}
