//! Environments: made from a bundle's lock once, named after it, and shared by all deployments that have the same one.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidemill_core::digest::Digest;
use tidemill_core::ports::PortError;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::fork_server;
use crate::bundle::has_extension;

/// Downloading and building what a lock names may take this long.
const LIMIT: Duration = Duration::from_mins(30);
/// Lines of output that an error shows.
const TAIL: usize = 30;

/// Variables that say where packages come from.
const INDEXES: [&str; 5] = ["PIP_", "UV_", "HTTP", "NO_PROXY", "https_proxy"];

/// The environments of this server.
#[derive(Debug)]
pub(crate) struct Environments {
    folder: PathBuf,
    /// Held while one is made, so that it is made once.
    making: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Environments {
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            making: Mutex::default(),
        }
    }

    /// The interpreter of the environment that the file `lock` in `folder` describes, made if it is not there. `base` is the interpreter
    /// that it is made of.
    pub async fn ensure(&self, base: &Path, folder: &Path, lock: &str) -> Result<PathBuf, PortError> {
        let (name, place) = self.place(base, folder, lock)?;
        let python = place.join("bin/python");
        if place.join("complete").is_file() {
            return Ok(python);
        }
        let making = {
            let mut all = self.making.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(name.clone()).or_default())
        };
        let _once = making.lock().await;
        if place.join("complete").is_file() {
            return Ok(python);
        }
        tracing::info!(environment = %name, %lock, "making an environment");
        let made = make(base, folder, lock, &place).await;
        if let Err(error) = made {
            // The next try begins anew.
            let _ = std::fs::remove_dir_all(&place);
            return Err(error);
        }
        let noted = std::fs::write(place.join("complete"), lock);
        noted.map_err(|error| failed(format!("cannot write into `{}`: {error}", place.display())))?;
        Ok(python)
    }

    /// The interpreter of an environment that was made.
    pub fn find(&self, base: &Path, folder: &Path, lock: &str) -> Result<PathBuf, PortError> {
        let (_, place) = self.place(base, folder, lock)?;
        Ok(place.join("bin/python"))
    }

    fn place(&self, base: &Path, folder: &Path, lock: &str) -> Result<(String, PathBuf), PortError> {
        let path = folder.join(lock);
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| {
                PortError::caller(
                    "bundle_broken",
                    format!("cannot read the lock `{}`: {error}", path.display()),
                )
            })
        };
        let text = read(&path)?;
        let local = names_files(&String::from_utf8_lossy(&text));
        let mut parts = vec![lock.as_bytes().to_vec(), text];
        if local {
            // What these hold is not in the lock: another bundle's may be others.
            // The folder that a bundle is unpacked into is named after its digest.
            let bundle = folder
                .parent()
                .and_then(Path::file_name)
                .unwrap_or(folder.as_os_str());
            parts.push(bundle.as_encoded_bytes().to_vec());
        }
        if is_uv_lock(lock) {
            parts.push(read(&path.with_file_name("pyproject.toml"))?);
        }
        parts.push(base.to_string_lossy().into_owned().into_bytes());
        let name = Digest::of_parts(parts.iter().map(Vec::as_slice)).short();
        Ok((name.clone(), self.folder.join(name)))
    }
}

/// Whether a lock may name other files of its bundle: further lists (`-r`, `-c`), projects (`-e`), paths.
fn names_files(lock: &str) -> bool {
    lock.lines().any(|line| {
        // What lies at an address is no file of the bundle, and hashes and comments name none.
        let words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
        let line: Vec<&str> = words
            .filter(|word| !word.contains("://") || word.contains("file:"))
            .filter(|word| {
                !word.starts_with("--hash") && !["--index-url", "--extra-index-url", "-i"].contains(word)
            })
            .collect();
        let line = line.join(" ");
        let path = line.trim_end_matches('\\').contains(['/', '\\']);
        let archive = [".whl", ".zip", ".tar"].iter().any(|end| line.contains(end));
        // Of `uv.lock` and `pylock.toml`. A project's own entry is not installed.
        let source = ["path =", "directory =", "editable ="]
            .iter()
            .any(|key| line.contains(key));
        let own = line.contains("editable = \".\"");
        line.starts_with('-') || line.contains("file:") || path || archive || source && !own
    })
}

fn failed(message: String) -> PortError {
    PortError::upstream("environment_failed", message)
}

fn is_uv_lock(lock: &str) -> bool {
    lock.ends_with("uv.lock")
}

fn uv() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("TIDEMILL_UV") {
        return Some(path.into()).filter(|path: &PathBuf| path.is_file());
    }
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join("uv"))
        .find(|path| path.is_file())
}

async fn make(base: &Path, folder: &Path, lock: &str, place: &Path) -> Result<(), PortError> {
    let arguments = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let lock_path = folder.join(lock);
    // The interpreter of an environment stands in it; a folder of that name must not be there.
    let _ = std::fs::remove_dir_all(place);
    if let Some(parent) = place.parent() {
        std::fs::create_dir_all(parent)
            .map_err(|error| failed(format!("cannot create `{}`: {error}", parent.display())))?;
    }
    let python = place.join("bin/python");
    let Some(uv) = uv() else {
        if !has_extension(lock, "txt") {
            return Err(failed(format!(
                "`{lock}` needs `uv`, which is not on this machine: install it, or deploy with a requirements file \
                 (`uv export --format requirements-txt`)"
            )));
        }
        let mut create = arguments(&["-m", "venv"]);
        create.push(place.into());
        run(base, &create, folder, &[]).await?;
        let mut install = arguments(&[
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--no-input",
        ]);
        if has_hashes(&lock_path) {
            install.push("--require-hashes".into());
        }
        install.extend(["--requirement".into(), lock_path.into()]);
        return run(&python, &install, folder, &[]).await;
    };
    let mut create = arguments(&["venv", "--quiet", "--python"]);
    create.extend([base.into(), place.into()]);
    run(&uv, &create, folder, &[]).await?;
    if is_uv_lock(lock) {
        let mut sync = arguments(&[
            "sync",
            "--frozen",
            "--no-install-project",
            "--no-dev",
            "--project",
        ]);
        sync.push(lock_path.parent().unwrap_or(folder).into());
        let environment = [("UV_PROJECT_ENVIRONMENT", place.as_os_str())];
        return run(&uv, &sync, folder, &environment).await;
    }
    let mut install = arguments(&["pip", "install", "--python"]);
    install.push(python.into());
    if has_extension(lock, "txt") && has_hashes(&lock_path) {
        install.push("--require-hashes".into());
    }
    install.extend(["--requirement".into(), lock_path.into()]);
    run(&uv, &install, folder, &[]).await
}

fn has_hashes(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.contains("--hash="))
}

async fn run(
    program: &Path,
    arguments: &[OsString],
    folder: &Path,
    environment: &[(&str, &std::ffi::OsStr)],
) -> Result<(), PortError> {
    let shown = || {
        let words: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
        format!("{} {}", program.display(), words.join(" "))
    };
    let mut command = Command::new(program);
    fork_server::clean(&mut command, 1);
    for (name, value) in std::env::vars_os() {
        let says_where = name
            .to_str()
            .is_some_and(|name| INDEXES.iter().any(|start| name.starts_with(start)));
        if says_where {
            command.env(name, value);
        }
    }
    let mut child = command
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(format!("cannot start `{}`: {error}", shown())))?;
    let mut said = std::collections::VecDeque::new();
    let stderr = child.stderr.take();
    let read = async {
        if let Some(stderr) = stderr {
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                tracing::debug!(%line, "environment");
                if said.len() == TAIL {
                    said.pop_front();
                }
                said.push_back(line);
            }
        }
    };
    let done = tokio::time::timeout(LIMIT, async { tokio::join!(read, child.wait()).1 }).await;
    let status = match done {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => return Err(failed(format!("`{}`: {error}", shown()))),
        Err(_) => {
            return Err(failed(format!(
                "`{}` did not end within {} min",
                shown(),
                LIMIT.as_secs() / 60
            )));
        }
    };
    if status.success() {
        return Ok(());
    }
    Err(failed(format!(
        "`{}` ended with {status}; its last lines were:\n{}",
        shown(),
        Vec::from(said).join("\n")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_that_name_files_of_their_bundle_do_not_share_an_environment() {
        let plain = "# a/b\n--index-url https://pypi.org/simple\nnumpy==2.4.6 \\\n    --hash=sha256:aa/b\nx @ https://a.b/x.whl\n";
        let uv = "source = { registry = \"https://pypi.org/simple\" }\nsource = { editable = \".\" }\n";
        for lock in [plain, uv] {
            assert!(!names_files(lock), "{lock}");
        }
        for line in [
            "-r more.txt",
            "-cmore.txt",
            "-r more.txt # of https://a.b",
            "-e .",
            "--requirement more.txt",
            "./wheels/own.whl",
            "own.whl",
            "own @ file:///own",
            "vendored/own",
            "source = { directory = \"own\" }",
            "source = { editable = \"own\" }",
        ] {
            assert!(names_files(&format!("numpy==2.4.6\n{line}\n")), "{line}");
        }
    }

    #[test]
    fn the_key_of_an_environment_has_the_bundle_in_it_only_where_the_lock_names_its_files() {
        let place = tempfile::tempdir().unwrap();
        let environments = Environments::new(place.path().join("environments"));
        let of = |bundle: &str, lock: &str| {
            let folder = place.path().join(bundle).join("files");
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("requirements.txt"), lock).unwrap();
            environments
                .find(Path::new("python3"), &folder, "requirements.txt")
                .unwrap()
        };
        assert_eq!(of("a", "numpy==2.4.6\n"), of("b", "numpy==2.4.6\n"));
        assert_ne!(of("a", "-r more.txt\n"), of("b", "-r more.txt\n"));
        assert_eq!(of("a", "-r more.txt\n"), of("a", "-r more.txt\n"));
    }
}
