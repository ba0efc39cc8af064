//! Which places a model version may come from. A source is a URI that servers and clients later read: it must not lead to other
//! people's files.

use std::path::{Component, Path, PathBuf};

use tidemill_store::{ReadTx, registry};

use crate::tracking::{Result, TrackingError};

/// What a request says a version comes from.
pub(super) struct Origin<'a> {
    pub workspace: &'a str,
    pub run_id: &'a str,
    pub model_id: &'a str,
    /// Whether the source must belong to the run or logged model that is named.
    pub strict: bool,
}

/// A URI's parts, as Python's `urlparse` cuts it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Uri {
    scheme: String,
    authority: String,
    path: String,
}

impl Uri {
    fn parse(text: &str) -> Self {
        let (scheme, rest) = match text.split_once(':') {
            Some((scheme, rest)) if is_scheme(scheme) => (scheme.to_ascii_lowercase(), rest),
            _ => (String::new(), text),
        };
        let (authority, rest) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
            None => ("", rest),
        };
        let path = rest.split(['?', '#']).next().unwrap_or_default();
        Self {
            scheme,
            authority: authority.to_owned(),
            path: path.to_owned(),
        }
    }

    fn host(&self) -> &str {
        let host = self.authority.rsplit('@').next().unwrap_or_default();
        host.split(':').next().unwrap_or_default()
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

/// Decodes `%41`; what is no such code stays as it is.
fn unquote(text: &str) -> String {
    let bytes = text.as_bytes();
    let hex = |at: usize| {
        let digits = bytes.get(at + 1..at + 3)?;
        u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match hex(at) {
            Some(code) if *byte == b'%' => {
                decoded.push(code);
                at += 3;
            }
            _ => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Decodes until nothing is left to decode: `%252e` hides a dot as well.
fn unquote_all(text: &str) -> String {
    let mut text = text.to_owned();
    loop {
        let next = unquote(&text);
        if next == text {
            return text;
        }
        text = next;
    }
}

/// Whether a URI means a path on the machine of whoever reads it.
fn is_local(uri: &Uri, text: &str) -> Result<bool> {
    if uri.scheme.is_empty() {
        return Ok(true);
    }
    if uri.scheme != "file" {
        return Ok(false);
    }
    let host = uri.host();
    if host.is_empty() || host == "." || host == "localhost" || host == "127.0.0.1" {
        return Ok(true);
    }
    // MLflow's code for it too: an internal error.
    Err(TrackingError::Internal(format!(
        "{text} is not a valid remote uri. For remote access on windows, please consider using a different scheme such as SMB (e.g. \
         smb://<hostname>/<path>)."
    )))
}

/// A local path without `.`, `..` and links, as far as it exists. Reads the file system: links lead elsewhere.
fn resolve(path: &str) -> PathBuf {
    let mut resolved = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    for component in Path::new(path).components() {
        match component {
            Component::RootDir | Component::Prefix(_) => resolved = PathBuf::from("/"),
            Component::CurDir => {}
            Component::ParentDir => {
                resolved.pop();
            }
            Component::Normal(name) => {
                resolved.push(name);
                if let Ok(real) = resolved.canonicalize() {
                    resolved = real;
                }
            }
        }
    }
    resolved
}

fn local_path(text: &str) -> String {
    let uri = Uri::parse(text);
    if uri.scheme == "file" {
        uri.path
    } else {
        text.to_owned()
    }
}

/// Whether a local source lies in a folder, however it is decoded.
fn is_within(source: &str, folder: &str) -> bool {
    let uri = Uri::parse(folder);
    if !matches!(is_local(&uri, folder), Ok(true)) {
        return false;
    }
    let root = resolve(&unquote(&local_path(folder)));
    let path = local_path(source);
    [unquote(&path), unquote_all(&path)]
        .iter()
        .all(|path| resolve(path).starts_with(&root))
}

/// Refuses control characters anywhere: a URI has none, and parsers differ in what they make of them.
fn refuse_controls(source: &str) -> Result<()> {
    if source.trim() == source && !source.chars().any(char::is_control) {
        return Ok(());
    }
    Err(invalid_path(source))
}

fn invalid_path(source: &str) -> TrackingError {
    TrackingError::invalid(format!(
        "Invalid model version source: '{source}'. If supplying a source as an http, https, local file path, ftp, objectstore, or \
         mlflow-artifacts uri, an absolute path must be provided without relative path references present. Please provide an absolute path."
    ))
}

/// A remote source must have an absolute path without `..`, however it is encoded.
fn check_remote(source: &str) -> Result<()> {
    let decoded = unquote_all(source);
    if decoded.contains('\0') || decoded.split(['/', '\\']).any(|part| part == "..") {
        return Err(invalid_path(source));
    }
    let uri = Uri::parse(&decoded);
    let trimmed = uri.path.trim_end_matches('/');
    let relative = !trimmed.starts_with('/') || trimmed.split('/').any(|part| part == ".");
    // What a query would change, the one who checks does not see.
    let queried = uri.scheme != "http" && uri.scheme != "https" && source.contains('?');
    if relative || queried {
        return Err(invalid_path(source));
    }
    Ok(())
}

fn not_of(source: &str, parameter: &str) -> TrackingError {
    TrackingError::invalid(format!(
        "Invalid model version source: '{source}'. The {parameter} request parameter must identify the resource that contains the source."
    ))
}

/// A prompt has no files: its source must not look like one.
pub(super) fn check_prompt(source: &str) -> Result<()> {
    refuse_controls(source)?;
    let uri = Uri::parse(source);
    if uri.scheme == "file" || source.starts_with('/') {
        return Err(TrackingError::invalid(format!(
            "Invalid prompt source: '{source}'. Local source paths are not allowed for prompts."
        )));
    }
    if uri.scheme.is_empty() {
        Ok(())
    } else {
        check_remote(source)
    }
}

/// Whether a version may come from `source`.
pub(super) fn check(tx: &ReadTx<'_>, origin: &Origin<'_>, source: &str) -> Result<()> {
    refuse_controls(source)?;
    let uri = Uri::parse(source);
    let by_model = !origin.model_id.is_empty();
    let parameter = if by_model { "model_id" } else { "run_id" };
    if is_local(&uri, source)? {
        let folder = folder_of(tx, origin)?;
        if folder.is_some_and(|folder| is_within(source, &folder)) {
            return Ok(());
        }
        return Err(TrackingError::invalid(format!(
            "Invalid model version source: '{source}'. To use a local path as a model version source, the {parameter} request parameter has \
             to be specified and the local path has to be contained within the artifact directory of the run specified by the {parameter}."
        )));
    }
    check_remote(source)?;
    if uri.scheme == "runs" && !by_model && !origin.run_id.is_empty() {
        let decoded = unquote_all(&uri.path);
        let run = decoded
            .trim_start_matches('/')
            .split('/')
            .next()
            .unwrap_or_default();
        let foreign = run != origin.run_id || !uri.authority.is_empty();
        // A run that is not there has no files that could be somebody else's; MLflow 3.10 takes any.
        let there = || registry::run_artifacts(tx, origin.workspace, run);
        if foreign && (origin.strict || there()?.is_some()) {
            return Err(not_of(source, parameter));
        }
    }
    if origin.strict {
        check_strict(tx, origin, source, &uri)?;
    }
    Ok(())
}

fn folder_of(tx: &ReadTx<'_>, origin: &Origin<'_>) -> Result<Option<String>> {
    if !origin.model_id.is_empty() {
        let found = registry::logged_model(tx, origin.workspace, origin.model_id)?;
        let missing =
            || TrackingError::not_found(format!("Logged model with ID '{}' not found.", origin.model_id));
        return found
            .map(|model| Some(model.artifact_location))
            .ok_or_else(missing);
    }
    if origin.run_id.is_empty() {
        return Ok(None);
    }
    let found = registry::run_artifacts(tx, origin.workspace, origin.run_id)?;
    let missing = || TrackingError::not_found(format!("Run with id={} not found", origin.run_id));
    found.map(Some).ok_or_else(missing)
}

/// MLflow 3.17's rule: what lies in this server's care must belong to the run or logged model that is named.
fn check_strict(tx: &ReadTx<'_>, origin: &Origin<'_>, source: &str, uri: &Uri) -> Result<()> {
    let by_model = !origin.model_id.is_empty();
    let parameter = if by_model { "model_id" } else { "run_id" };
    match uri.scheme.as_str() {
        "runs" if by_model || origin.run_id.is_empty() => Err(not_of(source, parameter)),
        "models" => {
            if !uri.authority.is_empty() {
                return Err(not_of(source, "model_id"));
            }
            match models_uri(source)? {
                Some(ModelsUri::Id(id)) if id != origin.model_id => Err(not_of(source, "model_id")),
                _ => Ok(()),
            }
        }
        _ if is_proxied(uri) => {
            let folder = folder_of(tx, origin).map_err(|error| match error {
                TrackingError::NotFound(_) => not_of(source, parameter),
                error => error,
            })?;
            match folder {
                Some(folder) if begins_with(uri, &Uri::parse(&folder)) => Ok(()),
                _ => Err(not_of(source, parameter)),
            }
        }
        _ => Ok(()),
    }
}

fn parts(uri: &Uri) -> Vec<String> {
    uri.path
        .split('/')
        .filter(|part| !part.is_empty())
        .map(unquote_all)
        .collect()
}

/// Whether a URI is one of the artifact proxy.
fn is_proxied(uri: &Uri) -> bool {
    if uri.scheme == "mlflow-artifacts" {
        return true;
    }
    let route = ["api", "2.0", "mlflow-artifacts", "artifacts"];
    (uri.scheme == "http" || uri.scheme == "https") && parts(uri).windows(route.len()).any(|w| w == route)
}

fn begins_with(source: &Uri, root: &Uri) -> bool {
    let root_parts = parts(root);
    source.scheme == root.scheme
        && source.authority.eq_ignore_ascii_case(&root.authority)
        && !root_parts.is_empty()
        && parts(source).starts_with(&root_parts)
}

/// What a `models:/…` URI names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ModelsUri {
    /// `models:/m-…`: a logged model.
    Id(String),
    /// `models:/name/3`
    Version(String, i64),
    /// `models:/name@alias`
    Alias(String, String),
    /// `models:/name/Production`; `models:/name/latest` without a stage.
    Stage(String, Option<String>),
}

/// Reads a `models:/…` URI; `None` if the source is another kind.
pub(crate) fn models_uri(source: &str) -> Result<Option<ModelsUri>> {
    let uri = Uri::parse(source);
    if uri.scheme != "models" {
        return Ok(None);
    }
    let improper = || {
        TrackingError::invalid(format!(
            "Not a proper models URI: {source}. Models URIs must be of the form 'models:/model_name/suffix' or \
             'models:/model_name@alias' where suffix is a model version, stage, or the string 'latest' and where alias is a registered \
             model alias. Only one of suffix or alias can be defined at a time."
        ))
    };
    let path = uri.path.strip_prefix('/').ok_or_else(improper)?;
    let pieces: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let found = match pieces.as_slice() {
        [name, suffix] if !name.trim().is_empty() && !suffix.trim().is_empty() => {
            if let Ok(version) = suffix.parse() {
                ModelsUri::Version((*name).to_owned(), version)
            } else if suffix.eq_ignore_ascii_case("latest") {
                ModelsUri::Stage((*name).to_owned(), None)
            } else {
                ModelsUri::Stage((*name).to_owned(), Some((*suffix).to_owned()))
            }
        }
        [one] if !one.trim().is_empty() => match one.rsplit_once('@') {
            Some((name, alias)) if !alias.trim().is_empty() => {
                ModelsUri::Alias(name.to_owned(), alias.to_owned())
            }
            Some(_) => return Err(improper()),
            None => ModelsUri::Id((*one).to_owned()),
        },
        _ => return Err(improper()),
    };
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_sources_have_absolute_paths_however_they_are_encoded() {
        for good in [
            "mlflow-artifacts:/models",
            "mlflow-artifacts:/models///",
            "mlflow-artifacts:/models/foo///bar",
            "mlflow-artifacts://host:9000/models/artifact/..../",
            "s3://bucket/path",
            "models:/m-123",
            "runs:/abc/model",
            "https://host/model?signature=x",
        ] {
            assert!(check_remote(good).is_ok(), "{good}");
        }
        for bad in [
            "mlflow-artifacts://host:9000/models/../../../",
            "http://host:9000/models/../../../",
            "s3a://bucket/a/../../",
            "mlflow-artifacts://host:9000/models/..%2f..%2fartifacts",
            "mlflow-artifacts:/models/%252e%252e/%252e%252e/etc",
            "mlflow-artifacts://host:9000/models/artifact%00",
            "dbfs:/run/artifacts/a%3f/../../../../../",
            "mlflow-artifacts:/a?x=/../../etc",
            "mlflow-artifacts:/a?path=b",
            "mlflow-artifacts:/a/./b",
            "s3:relative",
            "mlflow-artifacts:/a\\..\\b",
        ] {
            assert!(check_remote(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_local_source_lies_in_its_runs_folder() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let run = root.join("run");
        std::fs::create_dir_all(run.join("model")).unwrap();
        std::fs::create_dir_all(root.join("secret")).unwrap();
        std::os::unix::fs::symlink(root.join("secret"), run.join("link")).unwrap();
        let folder = format!("file://{}", run.display());
        let at = |tail: &str| format!("{folder}/{tail}");
        for good in ["", "model", ".", "model/..", "not-there-yet"] {
            assert!(is_within(&at(good), &folder), "{good}");
            assert!(is_within(&at(good)["file://".len()..], &folder), "{good}");
        }
        for bad in [
            "..",
            "%2e%2e/secret",
            "%252e%252e/secret",
            "model/../../secret",
            "link",
            "link/x",
        ] {
            assert!(!is_within(&at(bad), &folder), "{bad}");
        }
        assert!(!is_within(
            &format!("{}x", at("")[..at("").len() - 1].to_owned()),
            &folder
        ));
        assert!(!is_within("/etc/passwd", &folder));
        assert!(!is_within("/etc/passwd", "mlflow-artifacts:/1/run/artifacts"));
    }

    #[test]
    fn files_of_another_host_are_refused() {
        let remote = "file://123.456.789.123/path";
        assert!(is_local(&Uri::parse(remote), remote).is_err());
        let tricky = "file://localhost.evil.com/path";
        assert!(is_local(&Uri::parse(tricky), tricky).is_err());
        let local = "file://localhost/path";
        assert!(is_local(&Uri::parse(local), local).unwrap());
        assert!(refuse_controls(" /etc/passwd").is_err());
        assert!(refuse_controls("fi\nle:///etc/passwd").is_err());
    }

    #[test]
    fn models_uris_name_versions_aliases_stages_and_logged_models() {
        let read = |text| models_uri(text).unwrap().unwrap();
        assert_eq!(read("models:/m-1"), ModelsUri::Id("m-1".to_owned()));
        assert_eq!(read("models:/a/3"), ModelsUri::Version("a".to_owned(), 3));
        assert_eq!(
            read("models:/a@b"),
            ModelsUri::Alias("a".to_owned(), "b".to_owned())
        );
        assert_eq!(read("models:/a/latest"), ModelsUri::Stage("a".to_owned(), None));
        assert_eq!(
            read("models:/a/Staging"),
            ModelsUri::Stage("a".to_owned(), Some("Staging".to_owned()))
        );
        assert_eq!(models_uri("s3://a/b").unwrap(), None);
        for bad in ["models:", "models:/", "models:/a/b/c", "models:/a@", "models:a"] {
            assert!(models_uri(bad).is_err(), "{bad}");
        }
    }
}
