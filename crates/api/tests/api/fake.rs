//! A house with nothing in it but a real serving path on tiny models.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill_api::{ApiError, ControlPlane, ListQuery, Noun, SharedMemory};
use tidemill_control::batch::{Jobs, PlaceOptions, Places};
use tidemill_control::delivery::deployments::Deployments;
use tidemill_control::predictions::Replay;
use tidemill_control::tracking::{Tracking, TrackingOptions};
use tidemill_control::users::AuthOptions;
use tidemill_control::view;
use tidemill_core::clock::{Timestamp, VirtualClock};
use tidemill_core::frame::{Column, Feature, FeatureKind, FeatureSchema, Frame, Scores, Task};
use tidemill_core::ids::{EndpointName, PredictionId, RunId, VersionNumber};
use tidemill_core::ports::{Model, ModelSignature, PortError};
use tidemill_serving::{Deployment, LogOptions, PredictionLog, Route, Server};
use tidemill_store::Store;
use tidemill_store::events::Event;
use tidemill_store::objects::Bucket;
use tokio::sync::broadcast;
use tower::ServiceExt as _;

use crate::deployments::Unpacker;
use crate::models;

/// Answers with a function of the first column.
#[derive(Debug)]
struct Tiny {
    signature: ModelSignature,
    broken: bool,
}

impl Model for Tiny {
    fn signature(&self) -> &ModelSignature {
        &self.signature
    }
    fn predict(&self, rows: &Frame) -> Result<Scores, PortError> {
        if self.broken {
            return Err(PortError::internal("model_broken", "the model is broken"));
        }
        let Column::Numeric(first) = &rows.columns()[0] else {
            panic!("the first column is numeric")
        };
        let first = first.iter().map(|v| if v.is_nan() { 0.0 } else { *v });
        Ok(match self.signature.task {
            Task::Binary => Scores::Binary(first.map(|v| (v / 1000.0).clamp(0.0, 1.0)).collect()),
            Task::Regression => Scores::Regression(first.map(|v| v * 2.0).collect()),
            Task::Multiclass => Scores::Multiclass {
                classes: Arc::clone(&self.signature.classes),
                probabilities: first
                    .flat_map(|v| if v > 0.0 { [0.25, 0.75] } else { [0.75, 0.25] })
                    .collect(),
            },
        })
    }
}

pub struct Fake {
    serving: Arc<Server>,
    clock: VirtualClock,
    events: Mutex<Vec<Event>>,
    sender: broadcast::Sender<Event>,
    pub seen: Mutex<Vec<String>>,
    pub ready: AtomicBool,
    pub only: Mutex<Option<EndpointName>>,
    tracking: Tracking,
    deployments: Deployments,
    batch_jobs: Jobs,
    pub shared: Option<SharedMemory>,
    dir: TempDir,
}

fn schema(features: &[(&str, FeatureKind)]) -> Arc<FeatureSchema> {
    let features = features
        .iter()
        .map(|(name, kind)| Feature {
            name: (*name).to_owned(),
            kind: *kind,
        })
        .collect();
    Arc::new(FeatureSchema { features })
}

fn endpoint(name: &str, task: Task, schema: &Arc<FeatureSchema>, broken: bool) -> Route {
    let classes: Arc<[String]> = match task {
        Task::Multiclass => Arc::from(["low".to_owned(), "high".to_owned()]),
        Task::Binary | Task::Regression => Arc::from([]),
    };
    let model = Arc::new(Tiny {
        signature: ModelSignature {
            features: Arc::clone(schema),
            task,
            classes: Arc::clone(&classes),
        },
        broken,
    });
    let mut route = Route::new(name.into(), name.into(), Arc::clone(schema), task, classes);
    route.champion = Some(Deployment::new(VersionNumber(3), model));
    route
}

pub const ADMIN_PASSWORD: &str = "password1234";
pub const NOW: &str = "2013-05-17T10:00:00Z";

impl Fake {
    pub fn new() -> Arc<Self> {
        Self::with(TrackingOptions::default())
    }

    pub fn with(tracking: TrackingOptions) -> Arc<Self> {
        use FeatureKind::{Categorical, Numeric};
        let dir = TempDir::new().unwrap();
        let clock = VirtualClock::new(NOW.parse().unwrap());
        let options = LogOptions {
            durability: tidemill_serving::Durability::default(),
            ..LogOptions::default()
        };
        let (log, _) = PredictionLog::open(dir.path(), options).unwrap();
        let routes = Arc::new(tidemill_serving::Router::new());
        let flights = schema(&[("distance", Numeric), ("carrier", Categorical)]);
        let numbers = schema(&[("a", Numeric), ("b", Numeric)]);
        routes.put(endpoint("flights", Task::Binary, &flights, false));
        routes.put(endpoint("grades", Task::Multiclass, &numbers, false));
        routes.put(endpoint("prices", Task::Regression, &numbers, false));
        routes.put(Route {
            default: Some(vec![0.5]),
            ..endpoint("shaky", Task::Binary, &flights, true)
        });
        routes.put(Route {
            champion: None,
            ..endpoint("empty", Task::Binary, &flights, false)
        });
        let store = Store::open(&dir.path().join("store")).unwrap();
        let serving = Arc::new(Server::new(routes, log, Arc::new(clock.clone())));
        models::host(serving.hosting());
        let clocks = Arc::new(clock.clone());
        let deployments = Deployments::new(store.clone(), Arc::clone(&serving), Arc::new(Unpacker), clocks);
        let tracking = Tracking::new(store, Arc::new(clock.clone()), tracking);
        let places = PlaceOptions {
            roots: vec![dir.path().join("batches")],
            ..PlaceOptions::default()
        };
        let places = Places::new(tracking.clone(), places);
        let batch_jobs = Jobs::new(tracking.clone(), places, Arc::new(crate::batch_jobs::Lines));
        Arc::new(Self {
            serving,
            deployments,
            batch_jobs,
            clock,
            events: Mutex::default(),
            sender: broadcast::channel(4).0,
            seen: Mutex::default(),
            ready: AtomicBool::new(true),
            only: Mutex::new(Some("flights".into())),
            tracking,
            shared: None,
            dir,
        })
    }

    /// Stores an event without telling anybody.
    pub fn store(&self, kind: &str) -> Event {
        let mut events = self.events.lock().unwrap();
        let event = Event {
            seq: events.len() as i64 + 1,
            at: self.clock_now(),
            kind: kind.to_owned(),
            subject_kind: "run".to_owned(),
            subject: "r1".to_owned(),
            payload: json!({ "text": "line 1\nline 2" }),
        };
        events.push(event.clone());
        event
    }

    /// Stores an event and tells everybody.
    pub fn happen(&self, kind: &str) {
        let event = self.store(kind);
        let _ = self.sender.send(event);
    }

    fn clock_now(&self) -> Timestamp {
        use tidemill_core::clock::Clock as _;
        self.clock.now()
    }

    /// The folder of batch jobs.
    pub fn batches(&self) -> std::path::PathBuf {
        self.dir.path().join("batches")
    }

    /// Works on batch jobs until it is dropped.
    pub fn work(self: &Arc<Self>) -> tokio::task::JoinHandle<()> {
        let (jobs, asks) = (
            self.batch_jobs.clone(),
            tidemill_api::asks(Arc::clone(self) as Arc<dyn ControlPlane>),
        );
        tokio::spawn(async move { jobs.work(asks).await })
    }

    /// Unloads a deployment.
    pub fn served(&self) -> &Server {
        &self.serving
    }

    pub fn serving_unload(&self, name: &str) {
        self.serving.hosting().unload(&name.into()).unwrap();
    }

    fn note(&self, what: String) {
        self.seen.lock().unwrap().push(what);
    }

    pub fn last_seen(&self) -> String {
        self.seen.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

#[async_trait]
impl ControlPlane for Fake {
    async fn status(&self) -> Result<view::Status, ApiError> {
        Ok(view::Status {
            version: "0".into(),
            project: "flights".into(),
            now: self.clock_now(),
            virtual_clock: true,
            predictions: 0,
            labels: 0,
            unmatched_labels: 0,
            rss_mb: 1.0,
            peak_rss_mb: 1.0,
            endpoints: Vec::new(),
            open_runs: 0,
            open_alerts: 0,
        })
    }
    async fn timeline(&self, endpoint: &EndpointName) -> Result<view::Timeline, ApiError> {
        Err(ApiError::not_found(
            "not_found",
            format!("there is no endpoint `{endpoint}`"),
        ))
    }
    async fn prediction(&self, id: &PredictionId) -> Result<Value, ApiError> {
        Ok(json!({ "prediction_id": id }))
    }

    async fn predictions(
        &self,
        endpoint: &EndpointName,
        since: Option<Timestamp>,
        limit: u32,
    ) -> Result<Value, ApiError> {
        Ok(json!([{ "endpoint": endpoint, "since": since, "limit": limit }]))
    }

    async fn replay(&self, id: &PredictionId) -> Result<Replay, ApiError> {
        Ok(Replay {
            prediction_id: id.clone(),
            endpoint: "flights".into(),
            version: VersionNumber(1),
            same: true,
            differences: Vec::new(),
            notes: Vec::new(),
            recorded: json!({ "scores": [0.5] }),
            again: json!({ "scores": [0.5] }),
        })
    }

    async fn lineage(&self, id: &PredictionId) -> Result<view::Lineage, ApiError> {
        Ok(view::Lineage {
            prediction_id: id.clone(),
            prediction: json!({}),
            version: None,
            run: None,
            code: None,
            snapshot: None,
            validation: None,
            labels: Vec::new(),
            decisions: Vec::new(),
            used_by: Vec::new(),
        })
    }
    /// The outcome is what the idempotency key says.
    async fn record_feedback(
        &self,
        inputs: Vec<view::FeedbackInput>,
    ) -> Result<Vec<view::FeedbackOutcome>, ApiError> {
        let outcome = |input: view::FeedbackInput| view::FeedbackOutcome {
            prediction_id: input.prediction_id,
            feedback_id: "f".into(),
            outcome: input.idempotency_key.unwrap_or_else(|| "created".into()),
            joined: true,
        };
        Ok(inputs.into_iter().map(outcome).collect())
    }
    async fn start_run(&self, reason: String) -> Result<RunId, ApiError> {
        self.note(format!("run {reason}"));
        Ok(RunId::new("r1"))
    }
    async fn promote(
        &self,
        endpoint: &EndpointName,
        version: VersionNumber,
        why: String,
        by: String,
    ) -> Result<Value, ApiError> {
        self.note(format!("promote {endpoint} {version} {why} {by}"));
        Ok(json!({ "champion": version }))
    }
    async fn rollback(&self, endpoint: &EndpointName, why: String, by: String) -> Result<Value, ApiError> {
        self.note(format!("rollback {endpoint} {why} {by}"));
        Ok(json!({}))
    }
    async fn advance(&self, to: Timestamp) -> Result<Timestamp, ApiError> {
        Ok(self.clock.advance_to(to))
    }
    fn now(&self) -> Timestamp {
        self.clock_now()
    }
    async fn list(&self, noun: Noun, query: ListQuery) -> Result<Value, ApiError> {
        self.note(format!(
            "list {noun:?} {}",
            serde_json::to_string(&query).unwrap()
        ));
        Ok(json!([]))
    }
    async fn get(&self, noun: Noun, id: &str) -> Result<Value, ApiError> {
        self.note(format!("get {noun:?} {id}"));
        Ok(json!({ "id": id }))
    }
    fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.sender.subscribe()
    }
    async fn events_after(&self, seq: i64, limit: u32) -> Result<Vec<Event>, ApiError> {
        let events = self.events.lock().unwrap();
        Ok(events
            .iter()
            .filter(|e| e.seq > seq)
            .take(limit as usize)
            .cloned()
            .collect())
    }
    fn ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }
    fn serving(&self) -> &Arc<Server> {
        &self.serving
    }
    fn deployments(&self) -> &Deployments {
        &self.deployments
    }
    fn batch_jobs(&self) -> &Jobs {
        &self.batch_jobs
    }
    fn tracking(&self) -> &Tracking {
        &self.tracking
    }
    fn shared_memory(&self) -> Option<&SharedMemory> {
        self.shared.as_ref()
    }
    fn default_endpoint(&self) -> Option<EndpointName> {
        self.only.lock().unwrap().clone()
    }
    fn key_column(&self, endpoint: &EndpointName) -> Option<String> {
        (endpoint.as_str() == "flights").then(|| "flight_id".to_owned())
    }
}

/// An answer, read to its end.
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// What of the body is UTF-8.
    pub text: String,
    pub bytes: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

pub struct App {
    pub fake: Arc<Fake>,
    pub router: Router,
}

/// A bucket that is never reached.
pub fn bucket(uri: &str) -> Bucket {
    let keys = |name: &str| {
        let key = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].contains(&name);
        key.then(|| "none".to_owned())
    };
    Bucket::open(uri, &keys).unwrap()
}

impl App {
    pub fn new() -> Self {
        Self::of(Fake::new())
    }

    /// One that requires users and has an administrator, `admin` with [`ADMIN_PASSWORD`].
    pub async fn with_users(default_permission: &str) -> Self {
        let options = TrackingOptions {
            // Nobody is asked until something is read there.
            buckets: vec![bucket("s3://shared/root")],
            ..TrackingOptions::default()
        };
        Self::with_users_and(default_permission, options).await
    }

    /// The same, with these settings.
    pub async fn with_users_and(default_permission: &str, options: TrackingOptions) -> Self {
        let auth = AuthOptions {
            default_permission: default_permission.parse().unwrap(),
            admin_password: Some(ADMIN_PASSWORD.to_owned()),
            ..AuthOptions::default()
        };
        let fake = Fake::with(TrackingOptions {
            auth: Some(auth),
            ..options
        });
        fake.tracking.prepare_users().await.unwrap();
        Self::of(fake)
    }

    pub fn of(fake: Arc<Fake>) -> Self {
        let router = tidemill_api::router(Arc::clone(&fake) as Arc<dyn ControlPlane>);
        Self { fake, router }
    }

    pub async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Reply {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8_lossy(&bytes).into_owned(),
            bytes: bytes.to_vec(),
        }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.post_as(path, "application/json", body.to_string()).await
    }

    pub async fn post_as(&self, path: &str, kind: &str, body: impl Into<Body>) -> Reply {
        let request = Request::post(path).header("content-type", kind);
        self.send(request.body(body.into()).unwrap()).await
    }
}
