//! Where ONNX Runtime's library is.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ort::environment::Environment;
use ort::logging::LogLevel;

use super::OnnxError;

/// ONNX Runtime, loaded when this is first called; what went wrong then stays wrong.
pub(super) fn environment() -> Result<&'static Environment, OnnxError> {
    static LOADED: OnceLock<Result<Environment, OnnxError>> = OnceLock::new();
    LOADED.get_or_init(load).as_ref().map_err(OnnxError::clone)
}

fn load() -> Result<Environment, OnnxError> {
    let path = find().map_err(OnnxError::NoRuntime)?;
    let missing = |error: &dyn std::fmt::Display| OnnxError::NoRuntime(error.to_string());
    let builder = ort::init_from(&path).map_err(|error| missing(&error))?;
    let environment = builder
        .with_name("tidemill")
        .with_telemetry(false)
        .build()
        .map_err(|error| missing(&error))?;
    // What it refuses comes back as an error; its warnings would only fill the log.
    environment.set_log_level(LogLevel::Error);
    tracing::debug!(library = %path.display(), "onnx runtime loaded");
    Ok(environment)
}

/// The first that is there of: `ORT_DYLIB_PATH`, `TIDEMILL_ONNXRUNTIME`, beside the binary, and the `onnxruntime` package of the
/// Python that is active.
fn find() -> Result<PathBuf, String> {
    for name in ["ORT_DYLIB_PATH", "TIDEMILL_ONNXRUNTIME"] {
        if let Some(path) = std::env::var_os(name).filter(|path| !path.is_empty()) {
            let path = PathBuf::from(path);
            return library_at(&path)
                .ok_or_else(|| format!("{name} is `{}`, where it is not", path.display()));
        }
    }
    let beside = std::env::current_exe()
        .ok()
        .and_then(|binary| library_at(binary.parent()?));
    if let Some(found) = beside {
        return Ok(found);
    }
    let packages = site_packages();
    packages
        .iter()
        .find_map(|folder| library_at(&folder.join("onnxruntime/capi")))
        .ok_or_else(|| {
            format!(
                "neither beside the binary nor among the packages of {} Python folders",
                packages.len()
            )
        })
}

/// A library, or the one in a folder.
fn library_at(path: &Path) -> Option<PathBuf> {
    if path.is_file() {
        return Some(path.to_owned());
    }
    let names = std::fs::read_dir(path).ok()?.flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = names.filter(|path| is_library(path)).collect();
    // The shortest name is the unversioned one, where there is one.
    found.sort_by_key(|path| path.as_os_str().len());
    found.into_iter().next()
}

fn is_library(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return false;
    };
    let plain = format!("{}onnxruntime", std::env::consts::DLL_PREFIX);
    let rest = name.strip_prefix(&plain);
    // `libonnxruntime.so.1.32.0` and `libonnxruntime.1.32.0.dylib`, and not `libonnxruntime_providers_shared.so`.
    rest.is_some_and(|rest| rest.starts_with('.') && rest.contains(std::env::consts::DLL_SUFFIX))
}

/// Folders of Python packages: of the virtual environment, of the user, of the system.
fn site_packages() -> Vec<PathBuf> {
    let mut roots = Vec::new();
    for name in ["VIRTUAL_ENV", "CONDA_PREFIX"] {
        roots.extend(std::env::var_os(name).map(|path| PathBuf::from(path).join("lib")));
    }
    roots.extend(std::env::home_dir().map(|home| home.join(".local/lib")));
    roots.extend(["/usr/local/lib", "/usr/lib", "/opt/homebrew/lib"].map(PathBuf::from));
    let pythons = roots.iter().flat_map(|root| {
        let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
    });
    pythons
        .flat_map(|python| ["site-packages", "dist-packages"].map(|folder| python.path().join(folder)))
        .filter(|folder| folder.is_dir())
        .collect()
}
