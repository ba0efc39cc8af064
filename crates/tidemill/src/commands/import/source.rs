//! What every source of an import can do: list what it has, page by page, and give the bytes of its artifacts.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use tidemill_control::tracking::import::{
    Experiment, LoggedModel, Metric, RegisteredModelWithVersions, Run, stays_where_it_is,
};
use tidemill_core::digest::Digest;
use tokio::sync::mpsc::Sender;

use super::mlflow_server::Server;

/// So many points travel together.
pub const METRICS_PAGE: usize = 5_000;

/// A thing that could not be read, and why not.
#[derive(Debug, Clone)]
pub struct Broken {
    /// Such as `runs`; a row of the table.
    pub kind: &'static str,
    /// Its id, or where it lies.
    pub id: String,
    /// With file and line where there are such.
    pub reason: String,
}

/// A part of a list.
#[derive(Debug)]
pub struct Page<T> {
    /// What could be read.
    pub items: Vec<T>,
    /// What could not.
    pub broken: Vec<Broken>,
    /// Where the next part begins; `None` at the end.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// A list that ends here.
    pub fn last(items: Vec<T>) -> Self {
        Self {
            items,
            broken: Vec::new(),
            next: None,
        }
    }
}

/// A run, and where its files are.
#[derive(Debug, Clone)]
pub struct SourceRun {
    /// The run. `artifact_uri` is the source's.
    pub run: Run,
    /// Changes when the run does.
    pub fingerprint: String,
    /// The names of its metrics, where the source knows them beforehand.
    pub metric_keys: Vec<String>,
    /// Its folder, where it has one.
    pub folder: Option<PathBuf>,
    /// Where its artifacts are.
    pub files: Place,
}

/// A logged model, and where its files are.
#[derive(Debug, Clone)]
pub struct SourceModel {
    /// The model. `artifact_location` is the source's.
    pub model: LoggedModel,
    /// Where its artifacts are.
    pub files: Place,
}

/// Where artifacts are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// There are none.
    Nowhere,
    /// In a folder of this machine.
    Folder(PathBuf),
    /// Behind the source server's proxy.
    Proxy(String),
    /// In a store that clients reach by themselves; they stay there.
    Remote(String),
    /// Where they cannot be fetched from.
    Unreachable(String),
}

/// Where `uri` leads: `server` is the source's, if it is one, `proxied` the folder that its proxy keeps its files in, if that is known.
pub fn place_of(uri: &str, server: bool, proxied: Option<&Path>) -> Place {
    if uri.is_empty() {
        return Place::Nowhere;
    }
    if let Some(rest) = uri.strip_prefix("mlflow-artifacts:") {
        // `mlflow-artifacts://host:port/path` names another door to the same server.
        let path = match rest.strip_prefix("//") {
            Some(authority) => authority.split_once('/').map_or("", |(_, path)| path),
            None => rest,
        };
        let path = path.trim_start_matches('/').to_owned();
        return match (server, proxied) {
            (_, Some(folder)) => Place::Folder(folder.join(path)),
            (true, None) => Place::Proxy(path),
            (false, None) => Place::Unreachable(
                "folders lie behind a server's proxy: name its folder with `--artifacts-destination`, or import from the server"
                    .to_owned(),
            ),
        };
    }
    if stays_where_it_is(uri) {
        return Place::Remote(uri.to_owned());
    }
    let Some(path) = local_path(uri) else {
        return Place::Unreachable(format!(
            "folders lie in `{}:`, which is not read",
            uri.split(':').next().unwrap_or(uri)
        ));
    };
    if path.is_dir() {
        return Place::Folder(path);
    }
    // Folder of the experiment or model, of the experiments, above that: MLflow makes them with the first artifact.
    let above = |level| {
        path.ancestors()
            .nth(level)
            .filter(|folder| folder.parent().is_some())
    };
    if (1..=3).filter_map(above).any(Path::is_dir) {
        return Place::Nowhere;
    }
    let root = above(3).unwrap_or(&path).display().to_string();
    Place::Unreachable(if server {
        format!("folders lie in `{root}` on the server's own disk")
    } else {
        format!("folders lie in `{root}`, which is not on this machine")
    })
}

/// The path that a `file:` URI or a plain path means.
pub fn local_path(uri: &str) -> Option<PathBuf> {
    if let Some(rest) = uri.strip_prefix("file:") {
        let path = match rest.strip_prefix("//") {
            Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
            None => rest,
        };
        return path.starts_with('/').then(|| PathBuf::from(decoded(path)));
    }
    let scheme = uri.split_once("://").is_some();
    (!scheme).then(|| PathBuf::from(uri))
}

/// Undoes percent-encoding.
pub fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%')
            .then(|| {
                text.get(at + 1..at + 3)
                    .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            })
            .flatten();
        match code {
            Some(code) => {
                out.push(code);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A file among artifacts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Below the place, with `/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
}

/// The files of a place.
pub async fn files_of(place: &Place, server: Option<&Server>) -> Result<Vec<File>> {
    match (place, server) {
        (Place::Folder(folder), _) => tokio::task::block_in_place(|| walk(folder)),
        (Place::Proxy(path), Some(server)) => server.artifacts(path).await,
        _ => Ok(Vec::new()),
    }
}

/// A file's bytes, as they come.
pub async fn open(place: &Place, path: &str, server: Option<&Server>) -> Result<reqwest::Body> {
    match (place, server) {
        (Place::Folder(folder), _) => {
            let path = folder.join(path);
            let file = tokio::fs::File::open(&path)
                .await
                .with_context(|| format!("cannot read {}", path.display()))?;
            Ok(reqwest::Body::from(file))
        }
        (Place::Proxy(root), Some(server)) => server.artifact(&format!("{root}/{path}")).await,
        _ => bail!("there is no such file"),
    }
}

fn walk(root: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries =
            std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry
                .with_context(|| format!("cannot read {}", folder.display()))?
                .path();
            // Through links to files, as W&B makes them, but not through links to folders, which may lead in a circle.
            let is_link = std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_symlink());
            let Ok(meta) = std::fs::metadata(&path) else {
                bail!("{} leads nowhere", path.display());
            };
            if meta.is_dir() && !is_link {
                folders.push(path);
            } else if meta.is_file() {
                let relative = path.strip_prefix(root).unwrap_or(&path);
                let parts: Vec<String> = relative
                    .components()
                    .map(|part| part.as_os_str().to_string_lossy().into_owned())
                    .collect();
                files.push(File {
                    path: parts.join("/"),
                    size: meta.len(),
                });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// A digest of anything that can be written as JSON.
pub fn fingerprint(of: &impl serde::Serialize) -> String {
    Digest::of(serde_json::to_string(of).unwrap_or_default().as_bytes()).to_string()
}

/// Where things come from.
#[async_trait]
pub trait Source: Send + Sync {
    /// What the destination knows it by: the same for every run of the same import.
    fn name(&self) -> String;
    /// Something that a user ought to know before, if there is.
    fn remark(&self) -> Option<String> {
        None
    }
    /// The server, if it is one.
    fn server(&self) -> Option<&Server> {
        None
    }
    /// How many runs there are, if that is known beforehand.
    async fn run_count(&self) -> Option<u64> {
        None
    }
    /// What is not read at all: what, how much, why.
    async fn left_out(&self) -> Result<Vec<(String, u64, String)>> {
        Ok(Vec::new())
    }
    /// All experiments.
    async fn experiments(&self) -> Result<Page<Experiment>>;
    /// Runs of an experiment, by its id in the source.
    async fn runs(&self, experiment: &str, from: Option<String>) -> Result<Page<SourceRun>>;
    /// Sends every point of a run's metrics. An error means that the run is broken, and comes before anything was sent if it can.
    async fn history(&self, run: &SourceRun, pages: Sender<Vec<Metric>>) -> Result<()>;
    /// Logged models of an experiment.
    async fn logged_models(&self, experiment: &str, from: Option<String>) -> Result<Page<SourceModel>>;
    /// Registered models with their versions, whose places are the source's.
    async fn registered_models(&self) -> Result<Page<RegisteredModelWithVersions>>;
}

/// A point with any value: NaN and infinities are written as the store writes them.
pub fn metric(key: &str, value: f64, at_ms: i64, step: i64) -> Metric {
    Metric {
        key: key.to_owned(),
        step,
        at_ms,
        value: if value.is_nan() {
            0.0
        } else {
            // Adding 0 makes -0 the same point as 0.
            value.clamp(f64::MIN, f64::MAX) + 0.0
        },
        is_nan: value.is_nan(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_tells_where_artifacts_are() {
        let proxy = |uri| place_of(uri, true, None);
        assert_eq!(proxy("mlflow-artifacts:/1/a"), Place::Proxy("1/a".into()));
        assert_eq!(
            proxy("mlflow-artifacts://host:5000/1/a"),
            Place::Proxy("1/a".into())
        );
        assert_eq!(proxy("s3://b/1"), Place::Remote("s3://b/1".into()));
        assert_eq!(proxy(""), Place::Nowhere);
        assert!(matches!(proxy("weird://x"), Place::Unreachable(_)));
        assert!(matches!(proxy("/not/here/at/all"), Place::Unreachable(_)));
        assert_eq!(
            place_of("mlflow-artifacts:/1/a", false, Some(Path::new("/srv"))),
            Place::Folder("/srv/1/a".into())
        );
    }

    #[test]
    fn a_file_uri_is_a_path() {
        assert_eq!(local_path("file:///a/b%20c"), Some("/a/b c".into()));
        assert_eq!(local_path("file:/a"), Some("/a".into()));
        assert_eq!(local_path("file://localhost/a"), Some("/a".into()));
        assert_eq!(local_path("file://elsewhere/a"), None);
        assert_eq!(local_path("./mlruns/0"), Some("./mlruns/0".into()));
        assert_eq!(local_path("s3://a"), None);
    }

    #[test]
    fn nan_and_infinity_are_written_as_the_store_writes_them() {
        assert_eq!(metric("m", f64::NAN, 1, 2).value, 0.0);
        assert!(metric("m", f64::NAN, 1, 2).is_nan);
        assert_eq!(metric("m", f64::NEG_INFINITY, 1, 2).value, f64::MIN);
    }
}
