//! The Python files of fork servers and workers, written where an interpreter can read them.

use std::io;
use std::path::{Path, PathBuf};

use tidemill_core::digest::Digest;

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../../python/", $name)))),*]
    };
}

const FILES: [(&str, &str); 14] = files![
    "tidemill/__init__.py",
    "tidemill_worker/__init__.py",
    "tidemill_worker/convert.py",
    "tidemill_worker/convert_model.py",
    "tidemill_worker/inspect_source.py",
    "tidemill_worker/limits.py",
    "tidemill_worker/loading.py",
    "tidemill_worker/mlflow_model.py",
    "tidemill_worker/scoring.py",
    "tidemill_worker/server.py",
    "tidemill_worker/serving.py",
    "tidemill_worker/sklearn_trees.py",
    "tidemill_worker/values.py",
    "tidemill_worker/wire.py",
];

/// Writes the files below `parent` where they are not there yet, and says in which folder. The folder is named after their content, so
/// servers of different versions share a parent.
pub(super) fn write(parent: &Path) -> io::Result<PathBuf> {
    let parts = FILES
        .iter()
        .flat_map(|(name, text)| [name.as_bytes(), text.as_bytes()]);
    let folder = parent.join(Digest::of_parts(parts).short());
    if folder.join("complete").is_file() {
        return Ok(folder);
    }
    for (name, text) in FILES {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        // Another server may be doing the same: each file appears whole.
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        std::fs::write(&temporary, text)?;
        std::fs::rename(&temporary, &path)?;
    }
    std::fs::write(folder.join("complete"), "")?;
    Ok(folder)
}
