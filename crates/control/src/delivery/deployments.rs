//! Deployments: bundles arrive, are unpacked and loaded once, and only if that goes well become the version that answers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tidemill_core::clock::Clock;
use tidemill_core::deployments::{
    BUNDLE_FORMAT, BundleManifest, BundledModel, BundledPython, Deploying, DeploymentEngine, MANIFEST_FILE,
    MAX_BUNDLE_BYTES, merge_settings,
};
use tidemill_core::digest::Digest;
use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_core::ports::PortError;
use tidemill_core::servable::Loader;
use tidemill_core::spec::ServingSpec;
use tidemill_serving::{Hosted, HostedVersion, Hosting, IndexEntry, Server};
use tidemill_store::Store;
use tidemill_store::deployments::{self, DeploymentVersion, NewVersion};
use tidemill_store::objects::{Arrived, Incoming};

use super::artifacts;
use super::loaders::{Broken, Preparing, Primed};
use super::shelf::{Place, Underway, archive_name};
use crate::error::{ControlError, Result};
use crate::tracking::{Caller, Tracking};

/// The requirements that a request brings, among a model's files.
const REQUIREMENTS: &str = "deployment-requirements.txt";

/// What a client says of a bundle that it sends, or of a model that it names.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeployRequest {
    /// The deployment's name; the bundle's own if none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Parts of a [`ServingSpec`] that go before everything else.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub serving: Map<String, Value>,
    /// A model that is kept here: `models:/name/version`, `models:/name@alias`, `models:/m-id` or `runs:/id/path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// In which Python that is loaded. Its `lock` is not read: [`DeployRequest::requirements`] is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub python: Option<BundledPython>,
    /// The text of a requirements file from which an environment is made for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requirements: Option<String>,
    /// A graph, as it stands in `tidemill.yaml`, instead of a source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graph: Option<Value>,
}

/// The Python of a model that is kept here, as the request wants it.
fn python_of(
    needed: Option<BundledPython>,
    request: &DeployRequest,
    files: &Path,
) -> Result<Option<BundledPython>> {
    let asked = request.python.is_some() || request.requirements.is_some();
    let refused = |message: &str| ControlError::Refused {
        code: "bad_model_source",
        message: message.to_owned(),
    };
    match needed {
        None if asked => Err(refused(
            "the model needs no Python, so none can be chosen for it; leave out `python` and `requirements`",
        )),
        None => Ok(None),
        Some(own) => {
            let mut python = request.python.clone().unwrap_or(own);
            if python.lock.is_some() {
                return Err(refused("send `requirements` as text instead of `python.lock`"));
            }
            if let Some(text) = &request.requirements {
                // Not under the name that MLflow's own has: that one is kept as it was logged.
                let path = files.join(REQUIREMENTS);
                std::fs::write(&path, text).map_err(|error| io("write", &path, &error))?;
                python.lock = Some(REQUIREMENTS.to_owned());
            }
            Ok(Some(python))
        }
    }
}

/// A deployment as it is shown.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct DeploymentView {
    /// Its name.
    pub name: EndpointName,
    /// The version that answers.
    pub version: VersionNumber,
    /// Where that stands: `READY`, `LOADING`, `UNLOADING` or `UNAVAILABLE`.
    pub state: &'static str,
    /// Why, where it does not answer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// How many replicas are loaded; none while it sleeps.
    pub replicas: usize,
    /// Every version, oldest first.
    pub versions: Vec<DeploymentVersion>,
}

/// A bundle on its way.
pub struct BundleUpload {
    incoming: Incoming,
    size: u64,
}

impl BundleUpload {
    /// Takes the next piece.
    pub async fn write(&mut self, piece: Bytes) -> Result<()> {
        self.size += piece.len() as u64;
        if self.size > MAX_BUNDLE_BYTES {
            return Err(ControlError::Refused {
                code: "bundle_too_large",
                message: format!(
                    "a bundle has at most {} MiB; include less",
                    MAX_BUNDLE_BYTES >> 20
                ),
            });
        }
        Ok(self.incoming.write(piece).await?)
    }

    pub(super) async fn finish(self) -> Result<Arrived> {
        Ok(self.incoming.finish().await?)
    }
}

/// The deployments of a server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Deployments {
    pub(super) store: Store,
    pub(super) serving: Arc<Server>,
    pub(super) engine: Arc<dyn DeploymentEngine>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) place: Place,
    /// The graphs of the project, which are not stored.
    pub(super) graphs: Arc<Mutex<BTreeSet<EndpointName>>>,
    /// Held while what is stored and what is served are made the same.
    pub(super) changing: Arc<tokio::sync::Mutex<()>>,
    /// Held while an archive is unpacked, so that it is unpacked once.
    unpacking: Arc<tokio::sync::Mutex<()>>,
    /// Bundles that no version needs yet.
    underway: Underway,
}

impl Deployments {
    /// Over a store, a hot path and whoever loads bundles.
    pub fn new(
        store: Store,
        serving: Arc<Server>,
        engine: Arc<dyn DeploymentEngine>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let data = store.data_dir();
        // Workers work in folders of their own.
        let place = Place(
            std::path::absolute(data)
                .unwrap_or_else(|_| data.to_owned())
                .join("deployments"),
        );
        Self {
            store,
            serving,
            engine,
            clock,
            place,
            graphs: Arc::default(),
            changing: Arc::default(),
            unpacking: Arc::default(),
            underway: Underway::default(),
        }
    }

    pub(super) fn hosting(&self) -> &Hosting {
        self.serving.hosting()
    }

    /// Serves what is stored. Nothing is loaded here: whoever keeps the house of [`Hosting`] loads what is to be ready before it is asked.
    pub async fn start(&self) -> Result<()> {
        let _same = self.changing.lock().await;
        let mut by_name: BTreeMap<EndpointName, Vec<DeploymentVersion>> = BTreeMap::new();
        for version in self.store.read(deployments::list).await? {
            by_name.entry(version.name.clone()).or_default().push(version);
        }
        for (name, versions) in by_name {
            let hosted = self.hosted(&name, &versions, None).await?;
            self.hosting().put(hosted);
            self.restore_bandit(&name).await?;
        }
        Ok(())
    }

    /// Starts the arrival of a bundle.
    pub async fn upload(&self) -> Result<BundleUpload> {
        Ok(BundleUpload {
            incoming: self.place.archives().incoming().await?,
            size: 0,
        })
    }

    /// Deploys a bundle that has arrived: it is unpacked and loaded, and if that goes well it becomes the version that answers.
    pub async fn deploy(
        &self,
        upload: BundleUpload,
        request: DeployRequest,
        by: &str,
    ) -> Result<DeploymentView> {
        let arrived = upload.finish().await?;
        self.deploy_arrived(arrived, request, "upload", by).await
    }

    /// Deploys a version of the registry.
    pub async fn deploy_model(
        &self,
        tracking: &Tracking,
        caller: &Caller,
        request: DeployRequest,
    ) -> Result<DeploymentView> {
        let source = request.source.clone().unwrap_or_default();
        let found = artifacts::locate(tracking, caller, &source).await?;
        let work = self
            .place
            .0
            .join("work")
            .join(tidemill_core::ids::fresh(self.clock.now()));
        let packed = self.pack_model(tracking, caller, &found, &request, &work).await;
        // It only held copies.
        let _ = std::fs::remove_dir_all(&work);
        let (arrived, name) = packed?;
        let request = DeployRequest {
            name: request.name.or(Some(name)),
            ..request
        };
        self.deploy_arrived(arrived, request, &found.uri, &caller.user)
            .await
    }

    async fn pack_model(
        &self,
        tracking: &Tracking,
        caller: &Caller,
        found: &artifacts::Located,
        request: &DeployRequest,
        work: &Path,
    ) -> Result<(Arrived, String)> {
        let files = work.join("files");
        std::fs::create_dir_all(&files).map_err(|error| io("create", &files, &error))?;
        artifacts::fetch(tracking, caller, &found.files, &files).await?;
        let (model, python) = self.engine.recognise(&files)?;
        let python = python_of(python, request, &files)?;
        let name = fitting_name(&found.model);
        let manifest = BundleManifest {
            format: BUNDLE_FORMAT,
            name: name.clone(),
            model,
            python,
            serving: Map::new(),
        };
        let archive = work.join("archive");
        self.engine.pack(&files, &manifest, &archive).await?;
        let mut upload = self.upload().await?;
        artifacts::read_into(&archive, &mut upload).await?;
        Ok((upload.finish().await?, name))
    }

    pub(super) async fn deploy_arrived(
        &self,
        arrived: Arrived,
        request: DeployRequest,
        source: &str,
        by: &str,
    ) -> Result<DeploymentView> {
        let (digest, size) = (arrived.digest, arrived.size);
        let underway = self.underway.keep(digest);
        let kept = self.place.archives().keep(arrived, &archive_name(digest)).await?;
        kept.map_err(|_| ControlError::internal("the folder of bundles is not as it should be"))?;
        let deployed = self.deploy_kept(digest, size, request, source, by).await;
        drop(underway);
        if deployed.is_err() {
            let _same = self.changing.lock().await;
            if let Err(error) = self.forget_unused().await {
                tracing::debug!(%error, "a bundle that could not be deployed is still there");
            }
        }
        deployed
    }

    async fn deploy_kept(
        &self,
        digest: Digest,
        size: u64,
        request: DeployRequest,
        source: &str,
        by: &str,
    ) -> Result<DeploymentView> {
        let manifest = self.unpacked(digest).await?;
        let name = EndpointName::new(request.name.clone().unwrap_or_else(|| manifest.name.clone()));
        self.check_name(&name)?;
        let folder = self.place.unpacked(digest);
        let mut serving = self.engine.declared(&manifest, &folder).await?;
        merge_settings(&mut serving, &manifest.serving);
        merge_settings(&mut serving, &request.serving);
        let spec = spec_of(&Value::Object(serving))?;
        let deploying = Deploying {
            name: name.to_string(),
            manifest: manifest.clone(),
            folder,
            serving: spec.clone(),
        };
        self.engine.prepare(&deploying).await?;
        let loader = self.loading(digest, deploying)?;
        // What cannot be loaded never takes the place of what answers.
        let loaded = loader.load().await?;
        let new = NewVersion {
            name: name.clone(),
            digest,
            size,
            manifest: serde_json::to_value(&manifest).map_err(ControlError::internal)?,
            serving: serde_json::to_value(&spec).map_err(ControlError::internal)?,
            source: source.to_owned(),
            created_by: by.to_owned(),
        };
        let _same = self.changing.lock().await;
        let now = self.clock.now();
        let versions = self
            .store
            .write(move |tx| {
                let added = deployments::add(tx, new, now)?;
                let kind = if added.version.0 == 1 { "deployment.created" } else { "deployment.replaced" };
                let payload = json!({
                    "version": added.version, "digest": added.digest, "source": added.source, "by": added.created_by,
                });
                tx.event(now, kind, "deployment", added.name.as_str(), payload)?;
                deployments::versions(tx, &added.name)
            })
            .await?;
        let primed: Arc<dyn Loader> = Arc::new(Primed {
            loader,
            loaded: Mutex::new(Some(loaded)),
        });
        let hosted = self.hosted(&name, &versions, Some(primed)).await?;
        self.hosting().put(hosted);
        self.restore_bandit(&name).await?;
        // Takes what was loaded above.
        self.hosting().load(&name).await?;
        Self::view(&self.hosting().index(), &name, versions)
    }

    fn check_name(&self, name: &EndpointName) -> Result<()> {
        let text = name.as_str();
        let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if text.is_empty() || text.len() > 100 || !text.chars().all(fits) || text.starts_with(['.', '-']) {
            return Err(ControlError::Refused {
                code: "bad_deployment_name",
                message: format!(
                    "`{text}` is no name of a deployment: expected up to 100 letters, digits, `_`, `-` and `.`, beginning with \
                     neither `-` nor `.`"
                ),
            });
        }
        if self.serving.router().route(name).is_some() {
            return Err(ControlError::Conflict {
                code: "deployment_exists",
                message: format!("`{name}` is the endpoint of this server's project; choose another name"),
            });
        }
        if self.is_project_graph(name) {
            return Err(ControlError::Conflict {
                code: "deployment_exists",
                message: format!("`{name}` is a graph of this server's project; choose another name"),
            });
        }
        Ok(())
    }

    /// What an archive says of itself, after unpacking it if that has not been done.
    async fn unpacked(&self, digest: Digest) -> Result<BundleManifest> {
        let folder = self.place.unpacked(digest);
        let _once = self.unpacking.lock().await;
        if let Ok(text) = std::fs::read(folder.join(MANIFEST_FILE)) {
            return Ok(BundleManifest::parse(&text)?);
        }
        if let Some(parent) = folder.parent() {
            std::fs::create_dir_all(parent).map_err(|error| io("create", parent, &error))?;
        }
        let archive = self.place.archive(digest);
        Ok(self.engine.unpack(&archive, &folder).await?)
    }

    async fn hosted(
        &self,
        name: &EndpointName,
        versions: &[DeploymentVersion],
        newest: Option<Arc<dyn Loader>>,
    ) -> Result<Hosted> {
        let mut hosted = Vec::new();
        let mut spec = ServingSpec::default();
        for version in versions {
            spec = spec_of(&version.serving)?;
            let is_newest = version.version == versions.last().map_or(VersionNumber(0), |last| last.version);
            let loader = match newest.as_ref().filter(|_| is_newest) {
                Some(loader) => Arc::clone(loader),
                None => self.loader(version, &spec).await,
            };
            hosted.push(HostedVersion {
                number: version.version,
                loader,
                bundle: Some(version.digest),
            });
        }
        Ok(Hosted {
            name: name.clone(),
            spec: Arc::new(spec),
            versions: hosted,
        })
    }

    /// A loader of a bundle that sees to what it needs each time.
    fn loading(
        &self,
        digest: Digest,
        deploying: Deploying,
    ) -> std::result::Result<Arc<dyn Loader>, PortError> {
        if let BundledModel::Graph { file } = &deploying.manifest.model {
            return self.graph_loader(&deploying, file);
        }
        Ok(Arc::new(Preparing {
            identity: identity(digest, &deploying.serving),
            loader: self.engine.loader(&deploying)?,
            engine: Arc::clone(&self.engine),
            deploying,
        }))
    }

    /// A loader of a stored version. What is wrong with its files is told to whoever asks it, not to the whole server.
    async fn loader(&self, version: &DeploymentVersion, spec: &ServingSpec) -> Arc<dyn Loader> {
        let found = match self.unpacked(version.digest).await {
            Ok(manifest) => {
                let deploying = Deploying {
                    name: version.name.to_string(),
                    manifest,
                    folder: self.place.unpacked(version.digest),
                    serving: spec.clone(),
                };
                match self.loading(version.digest, deploying) {
                    Ok(loader) => return loader,
                    Err(error) => error,
                }
            }
            Err(error) => PortError {
                blame: error.blame(),
                code: "bundle_broken",
                message: error.to_string(),
                trace: None,
            },
        };
        tracing::error!(deployment = %version.name, version = %version.version, error = %found, "a deployment cannot be loaded");
        Arc::new(Broken(found))
    }

    fn view(
        index: &[IndexEntry],
        name: &EndpointName,
        versions: Vec<DeploymentVersion>,
    ) -> Result<DeploymentView> {
        let newest = versions.last().ok_or_else(|| no_such(name))?.version;
        let entry = index
            .iter()
            .find(|entry| entry.name == *name && entry.version == newest);
        Ok(DeploymentView {
            name: name.clone(),
            version: newest,
            state: entry.map_or("UNAVAILABLE", |entry| entry.state.name()),
            reason: entry.map(|entry| entry.reason.clone()).unwrap_or_default(),
            replicas: entry.map_or(0, |entry| entry.replicas),
            versions,
        })
    }

    /// All deployments, by name.
    pub async fn list(&self) -> Result<Vec<DeploymentView>> {
        let all = self.store.read(deployments::list).await?;
        let index = self.hosting().index();
        let mut views = Vec::new();
        for versions in all.chunk_by(|a, b| a.name == b.name) {
            if let Some(first) = versions.first() {
                views.push(Self::view(&index, &first.name, versions.to_vec())?);
            }
        }
        Ok(views)
    }

    /// One deployment.
    pub async fn get(&self, name: &EndpointName) -> Result<DeploymentView> {
        let wanted = name.clone();
        let versions = self
            .store
            .read(move |tx| deployments::versions(tx, &wanted))
            .await?;
        Self::view(&self.hosting().index(), name, versions)
    }

    /// Takes a deployment away, with its versions and their files. Calls under way end.
    pub async fn delete(&self, name: &EndpointName, by: &str) -> Result<()> {
        let _same = self.changing.lock().await;
        let (wanted, by, now) = (name.clone(), by.to_owned(), self.clock.now());
        let there = self
            .store
            .write(move |tx| {
                let there = deployments::delete(tx, &wanted)?;
                if there {
                    tx.event(
                        now,
                        "deployment.removed",
                        "deployment",
                        wanted.as_str(),
                        json!({ "by": by }),
                    )?;
                }
                Ok(there)
            })
            .await?;
        if !there {
            return Err(no_such(name));
        }
        self.hosting().remove(name);
        self.forget_unused().await
    }

    /// Removes archives that no version needs, and what was unpacked of them. Only while `changing` is held: no version is added meanwhile.
    async fn forget_unused(&self) -> Result<()> {
        let needed = self.store.read(deployments::digests).await?;
        let (place, underway) = (self.place.clone(), self.underway.clone());
        let forgotten = tokio::task::spawn_blocking(move || {
            for folder in ["archives", "unpacked"] {
                let Ok(entries) = std::fs::read_dir(place.0.join(folder)) else {
                    continue;
                };
                for entry in entries.flatten() {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    // What does not begin with a digest is on its way.
                    let Ok(digest) = name.chars().take(64).collect::<String>().parse() else {
                        continue;
                    };
                    // Held until it is removed: a bundle of that name that arrives meanwhile waits, and is written again.
                    let digests = underway.digests();
                    if needed.contains(&digest) || digests.contains(&digest) {
                        continue;
                    }
                    let removed = match entry.file_type() {
                        Ok(kind) if kind.is_dir() => std::fs::remove_dir_all(entry.path()),
                        _ => std::fs::remove_file(entry.path()),
                    };
                    if let Err(error) = removed {
                        tracing::debug!(path = %entry.path().display(), %error, "cannot remove what no deployment needs");
                    }
                }
            }
        });
        forgotten.await.map_err(ControlError::internal)
    }
}

pub(super) fn io(action: &str, path: &Path, error: &std::io::Error) -> ControlError {
    PortError::upstream(
        "bundle_io",
        format!("cannot {action} `{}`: {error}", path.display()),
    )
    .into()
}

fn no_such(name: &EndpointName) -> ControlError {
    ControlError::not_found("deployment", name, "; `tidemill deployments` lists them")
}

fn spec_of(serving: &Value) -> Result<ServingSpec> {
    serde_json::from_value(serving.clone())
        .map_err(|error| ControlError::Refused {
            code: "bad_serving",
            message: format!("the settings of serving do not fit: {error}"),
        })
        .and_then(|spec: ServingSpec| match spec.check("serving") {
            Ok(()) => Ok(spec),
            Err((key, message)) => Err(ControlError::Refused {
                code: "bad_serving",
                message: format!("the settings of serving do not fit: `{key}`: {message}"),
            }),
        })
}

/// A name that a deployment may have, from one of a registered model.
fn fitting_name(model: &str) -> String {
    let fits = |c: char| {
        if c.is_ascii_alphanumeric() || "_.-".contains(c) {
            c
        } else {
            '-'
        }
    };
    let name: String = model.chars().map(fits).take(100).collect();
    name.trim_start_matches(['.', '-']).to_owned()
}

/// The same for deployments that load the same: the bundle, and the settings that a worker is started under.
fn identity(bundle: Digest, spec: &ServingSpec) -> Option<Digest> {
    let settings = serde_json::to_vec(&(&spec.worker, spec.timeout, spec.convert, spec.device)).ok()?;
    Some(Digest::of_parts([bundle.as_bytes().as_slice(), &settings]))
}
