//! A plain folder of files under their own names, such as one that another program reads too. Nothing outside it is touched, also
//! where a symbolic link in it points away.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::incoming::{Arrived, Incoming};
use super::outgoing::{Outgoing, is_absence};
use super::{blocking, local};
use crate::error::StoreError;

/// A folder of files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Folder {
    root: PathBuf,
}

/// A file or a folder in a listing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Entry {
    /// Its last name.
    pub name: String,
    /// Bytes; `None` for a folder.
    pub size: Option<u64>,
}

/// Why a file cannot have a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Obstacle {
    /// It leads out of the folder.
    Outside,
    /// A folder has the name, or a file has the name of its folder.
    Occupied,
}

impl Folder {
    /// The folder `root`, which need not be there.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Starts an arrival.
    pub async fn incoming(&self) -> Result<Incoming, StoreError> {
        let root = self.root.clone();
        let root = blocking(move || {
            fs::create_dir_all(&root).map_err(|e| StoreError::io("create the folder", &root, e))?;
            canonical(&root)
        })
        .await?;
        Incoming::start(root).await
    }

    /// Gives what has arrived its name, durably.
    pub async fn keep(&self, arrived: Arrived, path: &str) -> Result<Result<(), Obstacle>, StoreError> {
        let (root, path) = (self.root.clone(), path.to_owned());
        blocking(move || {
            let root = canonical(&root)?;
            let Some(target) = below(&root, &path)? else {
                return Ok(Err(Obstacle::Outside));
            };
            if target.is_dir() || occupied(&root, &target) {
                return Ok(Err(Obstacle::Occupied));
            }
            arrived.rename(&target).map(Ok)
        })
        .await
    }

    /// Opens a file; `None` if there is none, or it leads out of the folder.
    pub async fn open(&self, path: &str) -> Result<Option<Outgoing>, StoreError> {
        let (root, path) = (self.root.clone(), path.to_owned());
        let file = blocking(move || inside(&root, &path)).await?;
        match file {
            Some(file) => Outgoing::open(&file).await,
            None => Ok(None),
        }
    }

    /// What is in the folder `path`, by name; nothing if that is no folder.
    pub async fn list(&self, path: &str) -> Result<Vec<Entry>, StoreError> {
        let (root, path) = (self.root.clone(), path.to_owned());
        blocking(move || {
            let Some(folder) = inside(&root, &path)? else {
                return Ok(Vec::new());
            };
            let read = match fs::read_dir(&folder) {
                Ok(read) => read,
                Err(e) if is_absence(&e) => return Ok(Vec::new()),
                Err(e) => return Err(StoreError::io("list the folder", &folder, e)),
            };
            let mut entries = Vec::new();
            for entry in read {
                let entry = entry.map_err(|e| StoreError::io("list the folder", &folder, e))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                // A link counts as what it points to; one that points nowhere is left out.
                let Ok(meta) = fs::metadata(entry.path()) else {
                    continue;
                };
                if name != local::UNFINISHED {
                    let size = meta.is_file().then_some(meta.len());
                    entries.push(Entry { name, size });
                }
            }
            entries.sort();
            Ok(entries)
        })
        .await
    }

    /// Removes the file or the folder `path`; whether there was one. The folder itself, for an empty path, is emptied.
    pub async fn remove(&self, path: &str) -> Result<bool, StoreError> {
        let (root, path) = (self.root.clone(), path.to_owned());
        blocking(move || {
            let Ok(root) = root.canonicalize() else {
                return Ok(false);
            };
            let Some(target) = below(&root, &path)? else {
                return Ok(false);
            };
            // A link is removed, not what it points to.
            let meta = match fs::symlink_metadata(&target) {
                Ok(meta) => meta,
                Err(e) if is_absence(&e) => return Ok(false),
                Err(e) => return Err(StoreError::io("remove", &target, e)),
            };
            let removed = if meta.is_dir() {
                fs::remove_dir_all(&target)
            } else {
                fs::remove_file(&target)
            };
            removed.map_err(|e| StoreError::io("remove", &target, e))?;
            if let Some(parent) = target.parent().filter(|parent| parent.is_dir()) {
                local::sync_folder(parent)?;
            }
            Ok(true)
        })
        .await
    }

    /// How many bytes lie below `path`.
    pub async fn size(&self, path: &str) -> Result<u64, StoreError> {
        let (root, path) = (self.root.clone(), path.to_owned());
        blocking(move || Ok(inside(&root, &path)?.map_or(0, |found| size_of(&found)))).await
    }
}

fn size_of(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return 0;
    };
    if !meta.is_dir() {
        return meta.len();
    }
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries.flatten().map(|entry| size_of(&entry.path())).sum()
}

fn canonical(root: &Path) -> Result<PathBuf, StoreError> {
    root.canonicalize().map_err(|e| StoreError::io("open", root, e))
}

/// `path` below `root`, unless one of its folders leads out: every folder that is there is resolved, the last name is not.
fn below(root: &Path, path: &str) -> Result<Option<PathBuf>, StoreError> {
    let relative = Path::new(path);
    if !relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
    {
        return Ok(None);
    }
    let target = root.join(relative);
    let mut folder = target.parent().unwrap_or(root);
    if path.is_empty() {
        folder = root;
    }
    loop {
        match folder.canonicalize() {
            Ok(resolved) => return Ok(resolved.starts_with(root).then_some(target)),
            Err(e) if is_absence(&e) && folder != root => {
                // A link that points nowhere would be followed on writing.
                if folder.is_symlink() {
                    return Ok(None);
                }
                folder = folder.parent().unwrap_or(root);
            }
            Err(e) => return Err(StoreError::io("open", folder, e)),
        }
    }
}

/// `path` below `root` with every link resolved; `None` if it is not there or leads out.
fn inside(root: &Path, path: &str) -> Result<Option<PathBuf>, StoreError> {
    let Ok(root) = root.canonicalize() else {
        return Ok(None);
    };
    let Some(target) = below(&root, path)? else {
        return Ok(None);
    };
    match target.canonicalize() {
        Ok(resolved) => Ok(resolved.starts_with(&root).then_some(resolved)),
        Err(e) if is_absence(&e) => Ok(None),
        Err(e) => Err(StoreError::io("open", &target, e)),
    }
}

/// Whether a file stands where `target` needs a folder.
fn occupied(root: &Path, target: &Path) -> bool {
    target
        .ancestors()
        .skip(1)
        .take_while(|ancestor| *ancestor != root)
        .any(Path::is_file)
}

impl Folder {
    /// Removes what arrivals that were killed left behind. Those of processes that still run are theirs.
    pub fn discard_unfinished(&self) {
        let Ok(entries) = fs::read_dir(self.root.join(local::UNFINISHED)) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let process = name.split('#').next().unwrap_or_default();
            let other = process != std::process::id().to_string();
            if other && Path::new("/proc").join(process).exists() {
                continue;
            }
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    async fn put(folder: &Folder, path: &str, text: &'static str) -> Result<(), Obstacle> {
        let mut incoming = folder.incoming().await.unwrap();
        incoming.write(text.into()).await.unwrap();
        let arrived = incoming.finish().await.unwrap();
        folder.keep(arrived, path).await.unwrap()
    }

    async fn read(folder: &Folder, path: &str) -> Option<String> {
        let file = folder.open(path).await.unwrap()?;
        let bytes = file.rest(1_000).await.unwrap().unwrap();
        Some(String::from_utf8(bytes).unwrap())
    }

    #[tokio::test]
    async fn files_keep_their_names_and_nothing_leads_out_of_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "secret").unwrap();
        let root = dir.path().join("root");
        let folder = Folder::at(&root);
        assert!(folder.list("").await.unwrap().is_empty());
        put(&folder, "a/b.txt", "hello").await.unwrap();
        assert_eq!(fs::read_to_string(root.join("a/b.txt")).unwrap(), "hello");
        assert_eq!(read(&folder, "a/b.txt").await.as_deref(), Some("hello"));
        assert_eq!(read(&folder, "a").await, None);
        assert_eq!(read(&folder, "a/b.txt/c").await, None);
        assert_eq!(folder.size("a").await.unwrap(), 5);
        let listed = folder.list("").await.unwrap();
        assert_eq!(
            listed,
            [Entry {
                name: "a".to_owned(),
                size: None
            }]
        );
        assert_eq!(put(&folder, "a", "x").await, Err(Obstacle::Occupied));
        assert_eq!(put(&folder, "a/b.txt/c", "x").await, Err(Obstacle::Occupied));

        symlink(&outside, root.join("link")).unwrap();
        symlink(outside.join("secret"), root.join("file-link")).unwrap();
        symlink(outside.join("none"), root.join("dangling")).unwrap();
        for path in [
            "link/secret",
            "file-link",
            "../outside/secret",
            "/etc/passwd",
            "./a/../../outside/secret",
        ] {
            assert_eq!(read(&folder, path).await, None, "{path}");
        }
        for path in ["link/new", "dangling/new", "../new", "/tmp/new-artifact"] {
            assert_eq!(put(&folder, path, "x").await, Err(Obstacle::Outside), "{path}");
        }
        assert!(folder.list("link").await.unwrap().is_empty());
        assert!(!folder.remove("link/secret").await.unwrap());
        assert!(folder.remove("link").await.unwrap());
        assert!(outside.join("secret").exists() && !outside.join("new").exists());
        assert!(folder.remove("a").await.unwrap());
        assert!(!folder.remove("a").await.unwrap());
    }

    #[tokio::test]
    async fn an_arrival_that_is_given_up_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::at(dir.path());
        let mut incoming = folder.incoming().await.unwrap();
        for _ in 0..5 {
            incoming.write(vec![1; 1 << 20].into()).await.unwrap();
        }
        let unfinished = dir.path().join(local::UNFINISHED);
        assert_eq!(fs::read_dir(&unfinished).unwrap().count(), 1);
        drop(incoming);
        for _ in 0..500 {
            if fs::read_dir(&unfinished).unwrap().count() == 0 {
                return;
            }
            tidemill_core::clock::real_sleep(std::time::Duration::from_millis(2)).await;
        }
        panic!("the temporary file is still there");
    }
}
