//! An MLflow server as a source, by its REST API: also a Tidemill.

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use serde_json::{Value, json};
use tidemill_control::tracking::import::{
    Experiment, LoggedModel, Metric, ModelMetric, RegisteredModel, RegisteredModelWithVersions, Run,
    RunDataset, RunModel, Version,
};
use tokio::sync::mpsc::Sender;

use super::source::{
    Broken, File, METRICS_PAGE, Page, Source, SourceModel, SourceRun, fingerprint, metric, place_of,
};
use crate::client::{Credentials, encoded};

const API: &str = "/api/2.0/mlflow";
/// Runs in a page: each comes with all its latest metrics.
const RUNS_PAGE: u32 = 200;

/// A client of the source.
pub struct Server {
    base: String,
    http: reqwest::Client,
    credentials: Credentials,
}

/// An answer of the source other than yes.
#[derive(Debug, thiserror::Error)]
#[error("{url} says {status}: {message}")]
struct Refusal {
    url: String,
    status: u16,
    message: String,
}

impl Server {
    /// A client of the server at `base`. Who calls stands in the environment, as for MLflow's own client.
    pub fn new(base: &str) -> Result<Self> {
        Ok(Self {
            base: base.trim_end_matches('/').to_owned(),
            http: crate::client::http()?,
            credentials: Credentials::of_mlflow(),
        })
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response> {
        let response = self
            .credentials
            .authorise(request)
            .send()
            .await
            .with_context(|| format!("no answer from the source {}", self.base))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let url = response.url().to_string();
        let text = response.text().await.unwrap_or_default();
        let said: Value = serde_json::from_str(&text).unwrap_or_default();
        let message = said["message"]
            .as_str()
            .map_or_else(|| text.chars().take(200).collect(), str::to_owned);
        Err(Refusal {
            url,
            status: status.as_u16(),
            message,
        }
        .into())
    }

    async fn read(&self, request: reqwest::RequestBuilder) -> Result<Value> {
        let response = self.send(request).await?;
        let url = response.url().to_string();
        let text = response
            .text()
            .await
            .with_context(|| format!("the answer of {url} broke off"))?;
        // Python writes `NaN` and `Infinity` bare where a server was started with other settings.
        serde_json::from_str(&text)
            .with_context(|| format!("the answer of {url} is no JSON: is it an MLflow server?"))
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value> {
        let query: Vec<String> = query
            .iter()
            .map(|(key, value)| format!("{key}={}", encoded(value, false)))
            .collect();
        let url = format!("{}{API}{path}?{}", self.base, query.join("&"));
        self.read(self.http.get(url)).await
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.read(self.http.post(format!("{}{API}{path}", self.base)).json(body))
            .await
    }

    fn artifact_url(&self, path: &str) -> String {
        let path = encoded(path, true);
        format!("{}/api/2.0/mlflow-artifacts/artifacts/{path}", self.base)
    }

    /// All files below a path of the proxy.
    pub async fn artifacts(&self, root: &str) -> Result<Vec<File>> {
        let mut files = Vec::new();
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            let path = if folder.is_empty() {
                root.to_owned()
            } else {
                format!("{root}/{folder}")
            };
            let url = format!(
                "{}/api/2.0/mlflow-artifacts/artifacts?path={}",
                self.base,
                encoded(&path, false)
            );
            let listed = self.read(self.http.get(url)).await?;
            for file in listed["files"].as_array().into_iter().flatten() {
                let name = file["path"].as_str().unwrap_or_default();
                let path = if folder.is_empty() {
                    name.to_owned()
                } else {
                    format!("{folder}/{name}")
                };
                if file["is_dir"].as_bool().unwrap_or(false) {
                    folders.push(path);
                } else {
                    let size = u64::try_from(integer(&file["file_size"]).unwrap_or(0)).unwrap_or(0);
                    files.push(File { path, size });
                }
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    /// A file's bytes, as they come.
    pub async fn artifact(&self, path: &str) -> Result<reqwest::Body> {
        let response = self.send(self.http.get(self.artifact_url(path))).await?;
        Ok(reqwest::Body::wrap_stream(response.bytes_stream()))
    }
}

/// Whether the server says that it knows no such route or thing.
fn is_absent(error: &anyhow::Error) -> bool {
    error.chain().any(|c| {
        c.downcast_ref::<Refusal>()
            .is_some_and(|r| matches!(r.status, 404 | 405 | 501))
    })
}

/// The source.
pub struct MlflowServer {
    server: Server,
}

impl MlflowServer {
    /// Finds out whether there is a server.
    pub async fn open(uri: &str) -> Result<Self> {
        let server = Server::new(uri)?;
        let body = json!({ "max_results": 1, "view_type": "ALL" });
        server.post("/experiments/search", &body).await?;
        Ok(Self { server })
    }
}

#[async_trait]
impl Source for MlflowServer {
    fn name(&self) -> String {
        // Without a password.
        match self.server.base.split_once("://") {
            Some((scheme, rest)) => format!(
                "{scheme}://{}",
                rest.rsplit_once('@').map_or(rest, |(_, host)| host)
            ),
            None => self.server.base.clone(),
        }
    }

    fn server(&self) -> Option<&Server> {
        Some(&self.server)
    }

    async fn experiments(&self) -> Result<Page<Experiment>> {
        let mut found = Vec::new();
        let mut token = String::new();
        loop {
            let body = json!({ "max_results": 1000, "view_type": "ALL", "page_token": token });
            let answer = self.server.post("/experiments/search", &body).await?;
            found.extend(items(&answer, "experiments").map(|e| Experiment {
                id: text(&e["experiment_id"]),
                name: text(&e["name"]),
                lifecycle: text_or(&e["lifecycle_stage"], "active"),
                created_ms: integer(&e["creation_time"]).unwrap_or(0),
                updated_ms: integer(&e["last_update_time"]).unwrap_or(0),
                tags: pairs(&e["tags"]),
            }));
            match next(&answer) {
                Some(after) => token = after,
                None => return Ok(Page::last(found)),
            }
        }
    }

    async fn runs(&self, experiment: &str, from: Option<String>) -> Result<Page<SourceRun>> {
        let body = json!({
            "experiment_ids": [experiment],
            "run_view_type": "ALL",
            "max_results": RUNS_PAGE,
            // What is started meanwhile comes at the end.
            "order_by": ["attributes.start_time ASC"],
            "page_token": from.unwrap_or_default(),
        });
        let answer = self.server.post("/runs/search", &body).await?;
        let next = next(&answer);
        let mut page = Page::last(Vec::new());
        page.next = next;
        for run in items(&answer, "runs") {
            match read_run(run) {
                Ok(run) => page.items.push(run),
                Err(error) => page.broken.push(Broken {
                    kind: "runs",
                    id: text(&run["info"]["run_id"]),
                    reason: format!("{error:#}"),
                }),
            }
        }
        Ok(page)
    }

    async fn history(&self, run: &SourceRun, pages: Sender<Vec<Metric>>) -> Result<()> {
        let mut held = Vec::new();
        for key in &run.metric_keys {
            let mut token = String::new();
            loop {
                let mut query = vec![
                    ("run_id", run.run.run_id.as_str()),
                    ("metric_key", key.as_str()),
                    ("max_results", "25000"),
                ];
                if !token.is_empty() {
                    query.push(("page_token", token.as_str()));
                }
                let answer = self.server.get("/metrics/get-history", &query).await?;
                for point in items(&answer, "metrics") {
                    held.push(read_metric(point)?);
                    if held.len() >= METRICS_PAGE && pages.send(std::mem::take(&mut held)).await.is_err() {
                        return Ok(());
                    }
                }
                match next(&answer) {
                    Some(after) if after != token => token = after,
                    _ => break,
                }
            }
        }
        if !held.is_empty() {
            // Nobody listens only where the run was refused.
            let _ = pages.send(held).await;
        }
        Ok(())
    }

    async fn logged_models(&self, experiment: &str, from: Option<String>) -> Result<Page<SourceModel>> {
        let body = json!({
            "experiment_ids": [experiment],
            "max_results": 50,
            "page_token": from.unwrap_or_default(),
        });
        let answer = match self.server.post("/logged-models/search", &body).await {
            Ok(answer) => answer,
            // MLflow 2 has none.
            Err(error) if is_absent(&error) => return Ok(Page::last(Vec::new())),
            Err(error) => return Err(error),
        };
        let mut page = Page::last(Vec::new());
        page.next = next(&answer);
        for model in items(&answer, "models") {
            match read_logged_model(model) {
                Ok(model) => page.items.push(model),
                Err(error) => page.broken.push(Broken {
                    kind: "logged models",
                    id: text(&model["info"]["model_id"]),
                    reason: format!("{error:#}"),
                }),
            }
        }
        Ok(page)
    }

    async fn registered_models(&self) -> Result<Page<RegisteredModelWithVersions>> {
        let mut page = Page::last(Vec::new());
        let mut token = String::new();
        loop {
            let mut query = vec![("max_results", "100")];
            if !token.is_empty() {
                query.push(("page_token", token.as_str()));
            }
            let answer = match self.server.get("/registered-models/search", &query).await {
                Ok(answer) => answer,
                Err(error) if is_absent(&error) => return Ok(page),
                Err(error) => return Err(error),
            };
            for model in items(&answer, "registered_models") {
                let mut found = read_registered(model);
                match self.versions(&found.model.name).await {
                    Ok(versions) => {
                        found.versions = versions;
                        page.items.push(found);
                    }
                    Err(error) => page.broken.push(Broken {
                        kind: "registered models",
                        id: found.model.name,
                        reason: format!("{error:#}"),
                    }),
                }
            }
            match next(&answer) {
                Some(after) => token = after,
                None => return Ok(page),
            }
        }
    }
}

impl MlflowServer {
    async fn versions(&self, name: &str) -> Result<Vec<Version>> {
        let quote = if name.contains('\'') { '"' } else { '\'' };
        let filter = format!("name={quote}{name}{quote}");
        let mut versions = Vec::new();
        let mut token = String::new();
        loop {
            let mut query = vec![("filter", filter.as_str()), ("max_results", "1000")];
            if !token.is_empty() {
                query.push(("page_token", token.as_str()));
            }
            let answer = self.server.get("/model-versions/search", &query).await?;
            for each in items(&answer, "model_versions") {
                let mut version = read_version(each)?;
                let number = version.version.to_string();
                let query = [("name", name), ("version", number.as_str())];
                if let Ok(place) = self.server.get("/model-versions/get-download-uri", &query).await {
                    version.storage_location = some_text(&place["artifact_uri"]);
                }
                versions.push(version);
            }
            match next(&answer) {
                Some(after) => token = after,
                None => break,
            }
        }
        versions.sort_by_key(|version| version.version);
        Ok(versions)
    }
}

fn read_run(run: &Value) -> Result<SourceRun> {
    let (info, data) = (&run["info"], &run["data"]);
    let run_id = some_text(&info["run_id"])
        .or_else(|| some_text(&info["run_uuid"]))
        .context("a run has no id")?;
    let artifact_uri = text(&info["artifact_uri"]);
    let mut tags = pairs(&data["tags"]);
    let name = some_text(&info["run_name"]).unwrap_or_else(|| {
        let named = tags.iter().find(|(key, _)| key == "mlflow.runName");
        named.map(|(_, value)| value.clone()).unwrap_or_default()
    });
    tags.sort();
    let datasets = items(&run["inputs"], "dataset_inputs").map(|input| {
        let dataset = &input["dataset"];
        RunDataset {
            name: text(&dataset["name"]),
            digest: text(&dataset["digest"]),
            source_type: text(&dataset["source_type"]),
            source: text(&dataset["source"]),
            schema: some_text(&dataset["schema"]),
            profile: some_text(&dataset["profile"]),
            tags: pairs(&input["tags"]),
        }
    });
    let outputs = items(&run["outputs"], "model_outputs").map(|output| RunModel {
        model_id: text(&output["model_id"]),
        step: integer(&output["step"]).unwrap_or(0),
    });
    let metric_keys = items(data, "metrics")
        .map(|metric| text(&metric["key"]))
        .collect();
    Ok(SourceRun {
        fingerprint: fingerprint(run),
        metric_keys,
        folder: None,
        files: place_of(&artifact_uri, true, None),
        run: Run {
            run_id,
            experiment: 0,
            name,
            user_id: text(&info["user_id"]),
            status: status(&info["status"]),
            lifecycle: text_or(&info["lifecycle_stage"], "active"),
            start_ms: integer(&info["start_time"]).unwrap_or(0),
            end_ms: integer(&info["end_time"]).filter(|at| *at > 0),
            deleted_ms: None,
            artifact_uri,
            params: pairs(&data["params"]),
            tags,
            datasets: datasets.collect(),
            model_inputs: items(&run["inputs"], "model_inputs")
                .map(|input| text(&input["model_id"]))
                .collect(),
            model_outputs: outputs.collect(),
        },
    })
}

fn read_metric(point: &Value) -> Result<Metric> {
    let key = some_text(&point["key"]).context("a point has no name")?;
    let value =
        number(&point["value"]).with_context(|| format!("the value of metric `{key}` is no number"))?;
    let step = integer(&point["step"]).unwrap_or(0);
    Ok(metric(
        &key,
        value,
        integer(&point["timestamp"]).unwrap_or(0),
        step,
    ))
}

fn read_logged_model(model: &Value) -> Result<SourceModel> {
    let (info, data) = (&model["info"], &model["data"]);
    let model_id = some_text(&info["model_id"]).context("a logged model has no id")?;
    let artifact_location = text(&info["artifact_uri"]);
    let status = match info["status"].as_str().unwrap_or_default() {
        "LOGGED_MODEL_PENDING" => "PENDING",
        "LOGGED_MODEL_READY" => "READY",
        "LOGGED_MODEL_UPLOAD_FAILED" => "FAILED",
        _ => "UNSPECIFIED",
    };
    let mut metrics = Vec::new();
    for point in items(data, "metrics") {
        metrics.push(ModelMetric {
            metric: read_metric(point)?,
            run_id: text(&point["run_id"]),
            dataset_name: text(&point["dataset_name"]),
            dataset_digest: text(&point["dataset_digest"]),
        });
    }
    Ok(SourceModel {
        files: place_of(&artifact_location, true, None),
        model: LoggedModel {
            model_id,
            experiment: 0,
            name: text(&info["name"]),
            model_type: text(&info["model_type"]),
            source_run_id: text(&info["source_run_id"]),
            artifact_location,
            status: status.to_owned(),
            status_message: some_text(&info["status_message"]),
            lifecycle: "active".to_owned(),
            created_ms: integer(&info["creation_timestamp_ms"]).unwrap_or(0),
            updated_ms: integer(&info["last_updated_timestamp_ms"]).unwrap_or(0),
            params: pairs(&data["params"]),
            tags: pairs(&info["tags"]),
            metrics,
        },
    })
}

fn read_registered(model: &Value) -> RegisteredModelWithVersions {
    let aliases = items(model, "aliases")
        .filter_map(|alias| Some((some_text(&alias["alias"])?, integer(&alias["version"])?)));
    RegisteredModelWithVersions {
        model: RegisteredModel {
            name: text(&model["name"]),
            description: text(&model["description"]),
            created_ms: integer(&model["creation_timestamp"]).unwrap_or(0),
            updated_ms: integer(&model["last_updated_timestamp"]).unwrap_or(0),
            last_version: 0,
            tags: pairs(&model["tags"]),
        },
        versions: Vec::new(),
        aliases: aliases.collect(),
    }
}

fn read_version(version: &Value) -> Result<Version> {
    let Some(number) = integer(&version["version"]) else {
        bail!("a version has no number");
    };
    let source = text(&version["source"]);
    Ok(Version {
        version: number,
        description: text(&version["description"]),
        created_ms: integer(&version["creation_timestamp"]).unwrap_or(0),
        updated_ms: integer(&version["last_updated_timestamp"]).unwrap_or(0),
        user_id: text(&version["user_id"]),
        storage_location: None,
        run_id: some_text(&version["run_id"]),
        run_link: some_text(&version["run_link"]),
        model_id: some_text(&version["model_id"]).or_else(|| logged_model_in(&source)),
        stage: text_or(&version["current_stage"], "None"),
        status: text_or(&version["status"], "READY"),
        status_message: some_text(&version["status_message"]),
        tags: pairs(&version["tags"]),
        source,
    })
}

/// The logged model that a `models:/m-…` names.
pub fn logged_model_in(source: &str) -> Option<String> {
    source
        .strip_prefix("models:/")
        .filter(|rest| rest.starts_with("m-") && !rest.contains('/'))
        .map(str::to_owned)
}

fn items<'v>(value: &'v Value, name: &str) -> impl Iterator<Item = &'v Value> {
    value[name].as_array().into_iter().flatten()
}

fn next(answer: &Value) -> Option<String> {
    some_text(&answer["next_page_token"])
}

fn some_text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn text(value: &Value) -> String {
    text_or(value, "")
}

fn text_or(value: &Value, otherwise: &str) -> String {
    some_text(value).unwrap_or_else(|| otherwise.to_owned())
}

/// Servers write int64 as numbers or as texts.
fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// NaN and infinities are texts.
fn number(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some("NaN") => Some(f64::NAN),
        Some("Infinity") => Some(f64::INFINITY),
        Some("-Infinity") => Some(f64::NEG_INFINITY),
        Some(text) => text.parse().ok(),
        // Zero is left out as the default.
        None if value.is_null() => Some(0.0),
        None => value.as_f64(),
    }
}

fn status(value: &Value) -> String {
    text_or(value, "RUNNING")
}

fn pairs(value: &Value) -> Vec<(String, String)> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|pair| Some((some_text(&pair["key"])?, text(&pair["value"]))))
        .collect()
}
