//! Puts the crates together: store, data engine, models, serving, control and API, for one project.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tidemill_api::{ControlPlane as _, Security};
use tidemill_control::batch::{Jobs, PlaceOptions, Places};
use tidemill_control::delivery::deployments::Deployments;
use tidemill_control::predictions::Predictions;
use tidemill_control::tracking::{Tracking, TrackingOptions};
use tidemill_control::{Control, Parts};
use tidemill_core::clock::{Clock, Timestamp, VirtualClock, WallClock};
use tidemill_core::spec::{self, LogDurability, Spec};
use tidemill_data::{Batches, DataFusionEngine, PredictionFiles, Tables};
use tidemill_models::{BuiltinTrainer, Deployer, Runtime};
use tidemill_serving::{Durability, LogOptions, PredictionLog, Router, Server};
use tidemill_store::{Database, Store};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::plane::Plane;
use crate::webhooks::HttpSender;

/// The file in the data folder that says where its server listens.
pub const ADDRESS_FILE: &str = "server.json";

/// The settings that a server has whether or not it has a project.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where the metadata is.
    pub database: Database,
    /// Tracking, registry and artifacts.
    pub tracking: TrackingOptions,
    /// Under which names the server is reached, and which pages may use it.
    pub security: Security,
    /// Another port to listen on, for gRPC.
    pub grpc_port: Option<u16>,
    /// Whether clients may hand tensors over by shared memory.
    pub shared_memory: bool,
    /// Where batch jobs may read and write.
    pub batches: PlaceOptions,
    /// Bytes that loaded models of deployments may take together.
    pub model_memory: Option<u64>,
}

/// A project on disk.
#[derive(Debug, Clone)]
pub struct ProjectFiles {
    /// The folder that relative paths start from.
    pub root: PathBuf,
    /// The spec.
    pub spec: Arc<Spec>,
    /// The data folder.
    pub data: PathBuf,
    /// The server's settings.
    pub settings: Settings,
}

/// Whether there is a spec where `path` says.
pub fn has_project(path: &Path) -> bool {
    spec_file(path).exists()
}

fn spec_file(path: &Path) -> PathBuf {
    if path.is_dir() || path.extension().is_none() {
        path.join("tidemill.yaml")
    } else {
        path.to_owned()
    }
}

/// Finds and reads a project's spec. `path` is the folder or the file.
pub fn read_project(path: &Path, data: Option<&Path>) -> Result<ProjectFiles> {
    let file = spec_file(path);
    let spec = Arc::new(spec::load(&file)?);
    let root = file
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
        .to_owned();
    let data = data.map_or_else(|| root.join("tidemill-data"), Path::to_owned);
    Ok(ProjectFiles {
        root,
        spec,
        data,
        settings: Settings::default(),
    })
}

/// Which clock a server runs on.
#[derive(Debug, Clone, Copy)]
pub enum ClockChoice {
    /// The machine's, or a virtual one if the data folder has been used with one.
    AsStored,
    /// The machine's, also where the data folder has been used with a virtual one.
    Wall,
    /// A virtual one that begins here, or goes on where it stood.
    Virtual(Timestamp),
}

/// A data folder that is open.
pub struct App {
    /// The loop, if there is a project.
    pub control: Option<Control>,
    /// What the project declares, if there is one.
    pub spec: Option<Arc<Spec>>,
    /// The API's view of it.
    pub plane: Arc<Plane>,
    /// The data folder.
    pub data: PathBuf,
    /// Under which names it is reached, and which pages may use it.
    pub security: Security,
    /// Another port to listen on, for gRPC.
    pub grpc_port: Option<u16>,
}

/// Opens the data folder and puts everything together.
pub async fn open(project: &ProjectFiles, choice: ClockChoice) -> Result<App> {
    let settings = &project.settings;
    let store = Store::open_on(&project.data, settings.database.clone())?;
    if matches!(choice, ClockChoice::Wall) {
        Control::forget_virtual_time(&store).await?;
    }
    let stood = Control::stored_virtual_time(&store).await?;
    let clock: Arc<dyn Clock> = match (choice, stood) {
        (ClockChoice::Virtual(start), stood) => Arc::new(VirtualClock::new(stood.unwrap_or(start))),
        (ClockChoice::AsStored, Some(stood)) => Arc::new(VirtualClock::new(stood)),
        (ClockChoice::AsStored, None) | (ClockChoice::Wall, _) => Arc::new(WallClock),
    };
    let serving = open_serving(&project.data, &clock, project.spec.endpoint.log.durability).await?;
    let engine = Arc::new(DataFusionEngine::new(store.objects().clone()));
    let control = Control::open(Parts {
        spec: Arc::clone(&project.spec),
        root: project.root.clone(),
        store: store.clone(),
        data: engine,
        trainer: Arc::new(BuiltinTrainer::new()),
        runtime: Arc::new(Runtime),
        predictions: open_predictions(&store, &serving, &clock),
        serving,
        clock: Arc::clone(&clock),
    })
    .await?;
    let deployments = open_deployments(&store, control.serving(), &clock, settings.model_memory);
    let tracking = Tracking::new(store, clock, settings.tracking.clone());
    tracking.answer_tables(Arc::new(Tables::default()));
    tracking.prepare_users().await?;
    let batch_jobs = open_batch_jobs(&tracking, settings);
    let plane = Plane::new(control.clone(), tracking, deployments, batch_jobs);
    let plane = Arc::new(plane.sharing_memory(settings.shared_memory));
    Ok(App {
        control: Some(control),
        spec: Some(Arc::clone(&project.spec)),
        plane,
        data: project.data.clone(),
        security: settings.security.clone(),
        grpc_port: settings.grpc_port,
    })
}

/// Opens a data folder for tracking and registry alone.
pub async fn open_without_project(data: &Path, settings: &Settings) -> Result<App> {
    let store = Store::open_on(data, settings.database.clone())?;
    let clock: Arc<dyn Clock> = Arc::new(WallClock);
    let serving = open_serving(data, &clock, LogDurability::default()).await?;
    let deployments = open_deployments(&store, &serving, &clock, settings.model_memory);
    let predictions = open_predictions(&store, &serving, &clock);
    let tracking = Tracking::new(store, Arc::clone(&clock), settings.tracking.clone());
    tracking.answer_tables(Arc::new(Tables::default()));
    tracking.prepare_users().await?;
    let batch_jobs = open_batch_jobs(&tracking, settings);
    Ok(App {
        control: None,
        spec: None,
        plane: Arc::new(
            Plane::without_project(tracking, deployments, predictions, batch_jobs, serving, clock)
                .sharing_memory(settings.shared_memory),
        ),
        data: data.to_owned(),
        security: settings.security.clone(),
        grpc_port: settings.grpc_port,
    })
}

async fn open_serving(data: &Path, clock: &Arc<dyn Clock>, durability: LogDurability) -> Result<Arc<Server>> {
    let wal = data.join("wal");
    let options = LogOptions {
        durability: match durability {
            LogDurability::Written => Durability::default(),
            LogDurability::Synced => Durability::Synced,
        },
        ..LogOptions::default()
    };
    let (log, recovery) = tokio::task::spawn_blocking(move || PredictionLog::open(&wal, options)).await??;
    if recovery.batches > 0 || recovery.truncated_bytes > 0 {
        tracing::info!(
            batches = recovery.batches,
            cut = recovery.truncated_bytes,
            "prediction log recovered"
        );
    }
    let routes = Arc::new(Router::new());
    Ok(Arc::new(Server::new(routes, log, Arc::clone(clock))))
}

fn open_predictions(store: &Store, serving: &Arc<Server>, clock: &Arc<dyn Clock>) -> Predictions {
    let log = serving.log().clone();
    Predictions::new(store.clone(), log, Arc::new(PredictionFiles), Arc::clone(clock))
}

/// The Python of deployments that name none: `TIDEMILL_PYTHON`, or `python3`.
pub fn default_python() -> PathBuf {
    let named = std::env::var_os("TIDEMILL_PYTHON").filter(|named| !named.is_empty());
    let python = named.map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    // A bare name is looked up in `PATH`; a path means the same wherever a worker is started.
    if python.components().count() > 1 {
        std::path::absolute(&python).unwrap_or(python)
    } else {
        python
    }
}

fn open_deployments(
    store: &Store,
    serving: &Arc<Server>,
    clock: &Arc<dyn Clock>,
    model_memory: Option<u64>,
) -> Deployments {
    serving.hosting().set_memory_budget(model_memory);
    let engine = Arc::new(Deployer::new(store.data_dir(), default_python()));
    Deployments::new(store.clone(), Arc::clone(serving), engine, Arc::clone(clock))
}

fn open_batch_jobs(tracking: &Tracking, settings: &Settings) -> Jobs {
    let mut options = settings.batches.clone();
    if options.roots.is_empty() {
        options.roots.push(tracking.store().data_dir().join("batches"));
    }
    let places = Places::new(tracking.clone(), options);
    Jobs::new(tracking.clone(), places, Arc::new(Batches))
}

/// A server that listens, until it is stopped.
pub struct Running {
    /// Where.
    pub address: SocketAddr,
    /// Where gRPC is: there too, or on its own port.
    pub grpc: SocketAddr,
    /// The loop behind it, if there is a project.
    pub control: Option<Control>,
    address_file: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
    grpc_server: Option<(oneshot::Sender<()>, tokio::task::JoinHandle<std::io::Result<()>>)>,
    looping: Option<tokio::task::JoinHandle<()>>,
    webhooks: tokio::task::JoinHandle<()>,
    housekeeping: tokio::task::JoinHandle<()>,
    hosting: tokio::task::JoinHandle<()>,
    gauge: tokio::task::JoinHandle<()>,
    /// Where no loop compacts the prediction log.
    log: Option<(Predictions, tokio::task::JoinHandle<()>)>,
    batches: tokio::task::JoinHandle<()>,
}

impl Running {
    /// `http://127.0.0.1:7878`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops taking requests, lets open ones end, and moves the log into Parquet.
    pub async fn stop(mut self) -> Result<()> {
        if let Some(stop) = self.stop.take() {
            // The server may have ended by itself.
            let _ = stop.send(());
        }
        if let Some((stop, server)) = self.grpc_server.take() {
            let _ = stop.send(());
            if let Ok(Err(error)) = server.await {
                tracing::warn!(%error, "the port of gRPC failed");
            }
        }
        let served = (&mut self.server).await;
        // What is under way and was not noted as received is sent again by the next start.
        self.webhooks.abort();
        self.housekeeping.abort();
        self.hosting.abort();
        self.gauge.abort();
        // A job that is under way goes on at the next start.
        self.batches.abort();
        if let Some(looping) = &self.looping {
            looping.abort();
        }
        // Only says where to find a server that is gone.
        let _ = std::fs::remove_file(&self.address_file);
        if let Some(control) = &self.control
            && let Err(error) = control.settle().await
        {
            // Nothing is lost: the write-ahead log keeps what could not be moved, and the next start moves it.
            tracing::warn!(%error, "the prediction log could not be moved into Parquet");
        }
        if let Some((log, compaction)) = &self.log {
            compaction.abort();
            if let Err(error) = log.compact().await {
                tracing::warn!(%error, "the prediction log could not be moved into Parquet");
            }
        }
        served
            .context("the server's task failed")?
            .context("the server failed")
    }
}

/// Starts to serve `app`; `with_loop` wakes the loop by timer (a virtual clock is moved by the replay instead).
pub async fn serve(app: App, address: SocketAddr, with_loop: bool) -> Result<Running> {
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; choose another with `--port`, or `--port 0` for any free one")
    })?;
    let address = listener.local_addr()?;
    let address_file = app.data.join(ADDRESS_FILE);
    let text = serde_json::json!({ "url": format!("http://{address}"), "pid": std::process::id() });
    if let Err(error) = std::fs::write(&address_file, text.to_string()) {
        // Only other commands look there, and they can be given `--url`.
        tracing::warn!(path = %address_file.display(), %error, "cannot write where this server listens");
    }
    let (stop, stopped) = oneshot::channel::<()>();
    app.plane.deployments().start().await?;
    if let Some(spec) = &app.spec {
        app.plane.deployments().serve_graphs(spec).await?;
    }
    let tracking = app.plane.tracking().clone();
    tracking.send_webhooks_by(Arc::new(HttpSender));
    let keeper = tracking.clone();
    let webhooks = tokio::spawn(async move { tracking.deliver_webhooks().await });
    let housekeeping = tokio::spawn(async move { keeper.keep_house().await });
    let hosting = app.plane.serving().hosting().clone();
    let hosting = tokio::spawn(async move { hosting.keep_house().await });
    let log = app.control.is_none().then(|| {
        let (log, own) = (app.plane.log().clone(), app.plane.log().clone());
        (log, tokio::spawn(async move { own.keep_house().await }))
    });
    let gauge = app.plane.serving().pressure().clone();
    let replaying = app
        .control
        .as_ref()
        .is_some_and(|control| control.clock().as_virtual().is_some());
    let gauge = tokio::spawn(async move {
        // A replay is the same on any machine, so nothing is left undone on a slow one.
        if !replaying {
            gauge.watch().await;
        }
    });
    let batch_jobs = app.plane.batch_jobs().clone();
    let asks = tidemill_api::asks(Arc::clone(&app.plane) as Arc<dyn tidemill_api::ControlPlane>);
    let batches = tokio::spawn(async move { batch_jobs.work(asks).await });
    let router = tidemill_api::router_with(app.plane, app.security);
    let (grpc, grpc_server) = match app.grpc_port {
        None => (address, None),
        Some(port) => {
            let wanted = SocketAddr::new(address.ip(), port);
            let listener = TcpListener::bind(wanted).await.with_context(|| {
                format!("cannot listen on {wanted}; choose another with `--grpc-port`, or leave it out: `--port` speaks gRPC too")
            })?;
            let address = listener.local_addr()?;
            let (stop, stopped) = oneshot::channel::<()>();
            let serving = tidemill_api::serve(listener, router.clone(), async move {
                // A dropped sender stops the server too.
                let _ = stopped.await;
            });
            (address, Some((stop, tokio::spawn(serving))))
        }
    };
    let server = tokio::spawn(tidemill_api::serve(listener, router, async move {
        // A dropped sender stops the server too.
        let _ = stopped.await;
    }));
    let looping = app
        .control
        .clone()
        .filter(|_| with_loop)
        .map(|control| tokio::spawn(async move { control.run().await }));
    Ok(Running {
        address,
        grpc,
        grpc_server,
        control: app.control,
        address_file,
        stop: Some(stop),
        server,
        looping,
        webhooks,
        housekeeping,
        hosting,
        gauge,
        log,
        batches,
    })
}
