//! Which files go into a bundle: what is asked for, and never by accident what is secret.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tidemill_core::ports::PortError;

use super::has_extension;

/// Something to be packed.
#[derive(Debug, Clone)]
pub struct Include {
    /// A file or a folder.
    pub path: PathBuf,
    /// Below a folder, only files that end so.
    pub extension: Option<&'static str>,
    /// Whether it was named itself: then it is taken though its name is that of a secret.
    pub named: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Collected {
    /// Names in the bundle, and where each file is.
    pub files: BTreeMap<String, PathBuf>,
    /// Files that were left out because their names are those of secrets.
    pub secrets: Vec<PathBuf>,
}

/// Folders that are never code.
const NEVER: [&str; 9] = [
    "__pycache__",
    "node_modules",
    "venv",
    "env",
    "site-packages",
    "tidemill-data",
    "mlruns",
    "mlartifacts",
    "wandb",
];

/// Beginnings and ends of the names of secrets.
const SECRET_STARTS: [&str; 14] = [
    ".env",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "credentials",
    "secrets.",
    "service-account",
    "service_account",
    "kubeconfig",
    ".netrc",
    ".pypirc",
    ".pgpass",
    ".git-credentials",
];
const SECRET_ENDS: [&str; 10] = [
    ".pem",
    ".key",
    ".p12",
    ".pfx",
    ".keystore",
    ".kdbx",
    ".jks",
    ".ppk",
    ".env",
    ".tfstate",
];

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_STARTS.iter().any(|start| name.starts_with(start))
        || SECRET_ENDS.iter().any(|end| name.ends_with(end))
}

/// Finds the files to be packed; their names start at `root`.
///
/// # Errors
/// If something is not there, or lies outside `root`.
pub fn collect(root: &Path, includes: &[Include]) -> Result<Collected, PortError> {
    let mut collected = Collected::default();
    let root = canonical(root)?;
    for include in includes {
        let path = canonical(&include.path)?;
        if path.is_file() {
            add(&mut collected, &root, &path, include.named)?;
        } else {
            walk(&mut collected, &root, &path, include.extension)?;
        }
    }
    Ok(collected)
}

fn canonical(path: &Path) -> Result<PathBuf, PortError> {
    path.canonicalize().map_err(|error| {
        PortError::caller(
            "bundle_io",
            format!("cannot include `{}`: {error}", path.display()),
        )
    })
}

fn add(collected: &mut Collected, root: &Path, path: &Path, named: bool) -> Result<(), PortError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if is_secret(&name) && !named {
        collected.secrets.push(path.to_owned());
        return Ok(());
    }
    let below = path.strip_prefix(root).map_err(|_| {
        PortError::caller(
            "bundle_io",
            format!(
                "`{}` lies outside `{}`, from which the bundle's names start; move it there",
                path.display(),
                root.display()
            ),
        )
    })?;
    let parts: Option<Vec<&str>> = below.components().map(|part| part.as_os_str().to_str()).collect();
    let Some(parts) = parts else {
        return Err(PortError::caller(
            "bundle_io",
            format!("the name of `{}` is not UTF-8; rename it", path.display()),
        ));
    };
    collected.files.insert(parts.join("/"), path.to_owned());
    Ok(())
}

fn walk(
    collected: &mut Collected,
    root: &Path,
    folder: &Path,
    extension: Option<&str>,
) -> Result<(), PortError> {
    let failed = |error: std::io::Error| {
        PortError::caller(
            "bundle_io",
            format!("cannot list `{}`: {error}", folder.display()),
        )
    };
    // An environment, whatever it is called.
    if folder.join("pyvenv.cfg").is_file() {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().map_err(failed)?;
        if name.starts_with('.') || NEVER.contains(&name.as_str()) || kind.is_symlink() {
            if is_secret(&name) && extension.is_none() {
                collected.secrets.push(entry.path());
            }
        } else if kind.is_dir() {
            walk(collected, root, &entry.path(), extension)?;
        } else if extension.is_none_or(|wanted| name.ends_with(wanted)) && !has_extension(&name, "pyc") {
            add(collected, root, &entry.path(), false)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_environments_stay_out_unless_they_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for (name, text) in [
            ("app.py", ""),
            ("lib/a.py", ""),
            ("lib/data.csv", ""),
            (".env", "SECRET=1"),
            ("server.key", "k"),
            ("own/pyvenv.cfg", ""),
            ("own/b.py", ""),
            ("__pycache__/c.py", ""),
            (".git/d.py", ""),
        ] {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let names = |includes: &[Include]| {
            let collected = collect(root, includes).unwrap();
            let secrets = collected.secrets.len();
            (collected.files.into_keys().collect::<Vec<_>>(), secrets)
        };
        let folder = |extension| Include {
            path: root.to_owned(),
            extension,
            named: false,
        };
        assert_eq!(names(&[folder(Some(".py"))]).0, ["app.py", "lib/a.py"]);
        assert_eq!(
            names(&[folder(None)]),
            (vec!["app.py".into(), "lib/a.py".into(), "lib/data.csv".into()], 2)
        );
        let key = Include {
            path: root.join("server.key"),
            extension: None,
            named: true,
        };
        assert_eq!(names(std::slice::from_ref(&key)).0, ["server.key"]);
        let outside = collect(&root.join("lib"), &[key]).unwrap_err();
        assert!(outside.message.contains("lies outside"), "{outside}");
    }
}
