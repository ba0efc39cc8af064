//! Where a batch job may read and write: below folders that the operator named, in the artifacts of runs and models, and in the buckets
//! that this server knows. A caller's word alone opens nothing: it could as well be `/etc`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use tidemill_store::objects::{Bucket, Entry, Folder, Incoming, Obstacle, Outgoing};
use tokio::io::AsyncReadExt as _;

use super::error::{BatchError, Result};
use crate::tracking::{ArtifactUpload, Caller, Tracking, TrackingError};

/// How much of a file is read at once.
const PIECE: usize = 1 << 20;
/// The most files that one job reads.
const MAX_FILES: usize = 100_000;

/// What the operator named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlaceOptions {
    /// Folders below which jobs may read and write. Relative locations start at the first.
    pub roots: Vec<PathBuf>,
    /// For buckets of Google Cloud Storage by name: the folder or the `s3://bucket/prefix` that stands for each.
    pub gs: BTreeMap<String, String>,
}

/// A place that a job may use: a file or a folder, there or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A path below a folder of this machine.
    Local {
        /// The folder that the operator named.
        root: PathBuf,
        /// The path below it.
        path: String,
    },
    /// Among artifacts, or in a bucket.
    Artifacts {
        /// The whole location, without a `/` at its end.
        uri: String,
    },
}

/// A file below a place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Its path below the place; empty if the place is the file.
    pub path: String,
    /// Bytes.
    pub size: u64,
}

/// The places of jobs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Places {
    pub(super) tracking: Tracking,
    roots: Vec<PathBuf>,
    gs: BTreeMap<String, String>,
}

fn joined(base: &str, path: &str) -> String {
    match (base.is_empty(), path.is_empty()) {
        (true, _) => path.to_owned(),
        (_, true) => base.to_owned(),
        (false, false) => format!("{base}/{path}"),
    }
}

/// The folder of a location, and its last name.
pub(super) fn parted(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The names of a path below a root, with `/` between them; `None` if it leads elsewhere.
fn plain(path: &Path) -> Option<String> {
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => names.push(name.to_str()?),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(names.join("/"))
}

/// A path with the links in it followed, as far as it is there.
fn settled(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (ancestor.canonicalize(), path.strip_prefix(ancestor)) {
            return real.join(rest);
        }
    }
    path.to_owned()
}

impl Place {
    /// A path below it.
    #[must_use]
    pub fn below(&self, path: &str) -> Self {
        match self {
            Self::Local { root, path: base } => Self::Local {
                root: root.clone(),
                path: joined(base, path),
            },
            Self::Artifacts { uri } => Self::Artifacts {
                uri: joined(uri, path),
            },
        }
    }

    /// The folder that it lies in, and its last name.
    pub(super) fn parted(&self) -> (Self, String) {
        match self {
            Self::Local { root, path } => {
                let (folder, name) = parted(path);
                let folder = Self::Local {
                    root: root.clone(),
                    path: folder.to_owned(),
                };
                (folder, name.to_owned())
            }
            Self::Artifacts { uri } => {
                let (folder, name) = parted(uri);
                let folder = Self::Artifacts {
                    uri: folder.to_owned(),
                };
                (folder, name.to_owned())
            }
        }
    }

    /// What people call it.
    pub fn shown(&self) -> String {
        match self {
            Self::Local { root, path } => root.join(path).display().to_string(),
            Self::Artifacts { uri } => uri.clone(),
        }
    }
}

/// Where a local place is on this machine: below its root, also where links lead. `None` for another place.
pub(super) fn local_path(place: &Place) -> Result<Option<PathBuf>> {
    let Place::Local { root, path } = place else {
        return Ok(None);
    };
    let whole = if path.is_empty() {
        root.clone()
    } else {
        root.join(path)
    };
    if !settled(&whole).starts_with(settled(root)) {
        return Err(BatchError::denied(format!(
            "`{}` leads out of `{}`",
            whole.display(),
            root.display()
        )));
    }
    Ok(Some(whole))
}

/// A file on its way to its place.
pub(super) enum PlaceUpload {
    Local(Box<Incoming>, Folder, String),
    Artifact(Box<ArtifactUpload>),
}

impl PlaceUpload {
    /// Takes the next piece.
    pub async fn write(&mut self, piece: Bytes) -> Result<()> {
        match self {
            Self::Local(incoming, ..) => Ok(incoming.write(piece).await?),
            Self::Artifact(upload) => Ok(upload.write(piece).await?),
        }
    }

    /// Takes the bytes of a file of this machine, piece by piece.
    pub async fn pour(&mut self, file: &Path) -> Result<()> {
        let failed = |error: std::io::Error| {
            BatchError::internal(format!("cannot read `{}`: {error}", file.display()))
        };
        let mut reading = tokio::fs::File::open(file).await.map_err(failed)?;
        loop {
            let mut piece = bytes::BytesMut::with_capacity(PIECE);
            if reading.read_buf(&mut piece).await.map_err(failed)? == 0 {
                return Ok(());
            }
            self.write(piece.freeze()).await?;
        }
    }

    /// Makes the file visible; durable on return.
    pub async fn finish(self) -> Result<()> {
        match self {
            Self::Local(incoming, folder, path) => {
                let arrived = incoming.finish().await?;
                let shown = || folder.root().join(&path).display().to_string();
                folder.keep(arrived, &path).await?.map_err(|obstacle| match obstacle {
                    Obstacle::Outside => {
                        BatchError::denied(format!("`{}` leads out of its folder", shown()))
                    }
                    Obstacle::Occupied => BatchError::refused(format!(
                        "`{}` cannot be a file: a folder has that name, or a file has the name of its folder",
                        shown()
                    )),
                })
            }
            Self::Artifact(upload) => Ok(upload.finish().await?),
        }
    }
}

impl Places {
    /// The places that the operator named, and those that tracking knows. Makes the first root, from which relative locations start.
    pub fn new(tracking: Tracking, options: PlaceOptions) -> Self {
        if let Some(first) = options.roots.first()
            && let Err(error) = std::fs::create_dir_all(first)
        {
            tracing::warn!(%error, folder = %first.display(), "the folder of batch jobs cannot be made");
        }
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        Self {
            tracking,
            roots: options.roots.iter().map(absolute).collect(),
            gs: options.gs,
        }
    }

    /// The place that a location names, if jobs may go there. It need not be there.
    pub fn find(&self, location: &str) -> Result<Place> {
        let trimmed = location.trim_end_matches('/');
        if trimmed.is_empty() || location.contains('\0') {
            return Err(BatchError::refused(
                "a location is empty: name a file, a folder or a URI",
            ));
        }
        if let Some(rest) = location.strip_prefix("gs://") {
            return self.of_gs(location, rest);
        }
        let scheme = location.split_once(':').map_or("", |(scheme, _)| scheme);
        if scheme.eq_ignore_ascii_case("file") {
            let parsed = url::Url::parse(trimmed)
                .ok()
                .and_then(|url| url.to_file_path().ok());
            let path = parsed.ok_or_else(|| {
                BatchError::refused(format!(
                    "`{location}` is no file of this machine: expected `file:///folder/name`"
                ))
            })?;
            return self.of_path(location, &path);
        }
        let is_uri = scheme.len() > 1
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        if is_uri && location.len() > scheme.len() + 1 && location[scheme.len() + 1..].starts_with('/') {
            if matches!(
                scheme.to_ascii_lowercase().as_str(),
                "s3" | "s3a" | "runs" | "models" | "mlflow-artifacts"
            ) {
                return Ok(Place::Artifacts {
                    uri: trimmed.to_owned(),
                });
            }
            return Err(BatchError::refused(format!(
                "`{location}`: `{scheme}:` is not read here; expected a path, `file:`, `s3:`, `mlflow-artifacts:`, `runs:`, `models:` or `gs:`"
            )));
        }
        self.of_path(location, Path::new(trimmed))
    }

    fn of_path(&self, location: &str, path: &Path) -> Result<Place> {
        let whole = match self.roots.first() {
            Some(first) if path.is_relative() => first.join(path),
            _ => path.to_owned(),
        };
        let named = |root: &PathBuf| {
            let below = whole.strip_prefix(root).ok().map(Path::to_owned);
            let below = below.or_else(|| {
                // The root or the location may have been written through a link.
                let (root, whole) = (settled(root), settled(&whole));
                whole.strip_prefix(root).ok().map(Path::to_owned)
            });
            Some((root.clone(), plain(&below?)?))
        };
        if let Some((root, path)) = self.roots.iter().find_map(named) {
            let place = Place::Local { root, path };
            local_path(&place)?;
            return Ok(place);
        }
        if plain(whole.strip_prefix("/").unwrap_or(&whole)).is_some()
            && self.tracking.is_readable_folder(&whole)
            && let Some(text) = whole.to_str()
        {
            return Ok(Place::Artifacts { uri: text.to_owned() });
        }
        let roots: Vec<String> = self.roots.iter().map(|root| root.display().to_string()).collect();
        Err(BatchError::denied(format!(
            "batch jobs do not read or write `{location}`: they do below `{}`, which `--batch-root` says when the server is started",
            roots.join("`, `")
        )))
    }

    fn of_gs(&self, location: &str, rest: &str) -> Result<Place> {
        let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
        let Some(target) = self.gs.get(bucket) else {
            return Err(BatchError::denied(format!(
                "`{location}`: this server has no place for the bucket `{bucket}`; start it with `--gs-bucket {bucket}=FOLDER` or \
                 `--gs-bucket {bucket}=s3://BUCKET/PREFIX`"
            )));
        };
        if Bucket::is_uri(target) {
            return self.find(&joined(target.trim_end_matches('/'), path));
        }
        let root = std::path::absolute(target).unwrap_or_else(|_| PathBuf::from(target));
        let path = plain(Path::new(path.trim_end_matches('/')));
        let place = path
            .map(|path| Place::Local { root, path })
            .ok_or_else(|| BatchError::denied(format!("`{location}` leads out of its bucket")))?;
        local_path(&place)?;
        Ok(place)
    }

    async fn entries(&self, caller: &Caller, place: &Place) -> Result<Vec<Entry>> {
        Ok(match place {
            Place::Local { root, path } => Folder::at(root).list(path).await?,
            Place::Artifacts { uri } => self.tracking.artifacts_of(caller, uri, "").await?,
        })
    }

    /// The names in a folder.
    pub(super) async fn names(&self, caller: &Caller, place: &Place) -> Result<BTreeSet<String>> {
        let entries = self.entries(caller, place).await?;
        Ok(entries.into_iter().map(|entry| entry.name).collect())
    }

    /// The file at a place, if one is there.
    pub async fn open(&self, caller: &Caller, place: &Place) -> Result<Option<Outgoing>> {
        match place {
            Place::Local { root, path } => Ok(Folder::at(root).open(path).await?),
            Place::Artifacts { uri } => {
                let (folder, name) = parted(uri);
                // What names a whole bucket, or all that a run keeps, is no file.
                if name.is_empty() || folder.is_empty() || folder.ends_with('/') {
                    return Ok(None);
                }
                match self.tracking.artifact_of(caller, folder, name).await {
                    Ok(artifact) => Ok(Some(artifact.bytes)),
                    Err(TrackingError::NotFound(_)) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    /// The files at and below a place, sorted by path. What begins with `_` or `.` is no data.
    pub async fn files(&self, caller: &Caller, place: &Place) -> Result<Vec<Found>> {
        // Some object stores fail when what they take for a folder is opened.
        let below = self.walk(caller, place, |_| true).await?;
        if !below.is_empty() {
            return Ok(below);
        }
        let file = self.open(caller, place).await?;
        Ok(file
            .map(|file| Found {
                path: String::new(),
                size: file.size(),
            })
            .into_iter()
            .collect())
    }

    /// The files whose whole path begins with a place's, as object stores mean a prefix; their paths are those below the place's folder.
    pub async fn prefixed(&self, caller: &Caller, place: &Place) -> Result<Vec<Found>> {
        let (folder, name) = place.parted();
        self.walk(caller, &folder, |first| first.starts_with(&name)).await
    }

    async fn walk(
        &self,
        caller: &Caller,
        place: &Place,
        wanted: impl Fn(&str) -> bool + Send,
    ) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            for entry in self.entries(caller, &place.below(&folder)).await? {
                if entry.name.starts_with(['_', '.']) || (folder.is_empty() && !wanted(&entry.name)) {
                    continue;
                }
                let path = joined(&folder, &entry.name);
                match entry.size {
                    None => folders.push(path),
                    Some(size) => found.push(Found { path, size }),
                }
                if found.len() > MAX_FILES {
                    return Err(BatchError::refused(format!(
                        "`{}` has more than {MAX_FILES} files; name a part of it",
                        place.shown()
                    )));
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// Writes a file, whole or not at all; durable on return.
    pub async fn write(&self, caller: &Caller, place: &Place, bytes: Bytes) -> Result<()> {
        let mut upload = self.upload(caller, place).await?;
        upload.write(bytes).await?;
        upload.finish().await
    }

    /// The same with the bytes of a file of this machine.
    pub(super) async fn write_file(&self, caller: &Caller, place: &Place, file: &Path) -> Result<()> {
        let mut upload = self.upload(caller, place).await?;
        upload.pour(file).await?;
        upload.finish().await
    }

    /// Starts to write a file. What is dropped before its end leaves nothing.
    pub(super) async fn upload(&self, caller: &Caller, place: &Place) -> Result<PlaceUpload> {
        Ok(match place {
            Place::Local { root, path } => {
                let folder = Folder::at(root);
                PlaceUpload::Local(Box::new(folder.incoming().await?), folder, path.clone())
            }
            Place::Artifacts { uri } => {
                let (folder, name) = parted(uri);
                PlaceUpload::Artifact(Box::new(
                    self.tracking.upload_artifact_of(caller, folder, name).await?,
                ))
            }
        })
    }

    /// Copies what is at and below a place into a folder of this machine; what is there already is not copied again. The names that
    /// the files have there.
    pub(super) async fn fetch(&self, caller: &Caller, place: &Place, into: &Path) -> Result<Vec<PathBuf>> {
        let found = self.files(caller, place).await?;
        let mut names = Vec::with_capacity(found.len());
        for file in found {
            let (from, name) = if file.path.is_empty() {
                (place.clone(), place.parted().1)
            } else {
                (place.below(&file.path), file.path.clone())
            };
            let target = into.join(&name);
            if !std::fs::metadata(&target).is_ok_and(|meta| meta.len() == file.size) {
                self.fetch_one(caller, &from, &target).await?;
            }
            names.push(target);
        }
        Ok(names)
    }

    async fn fetch_one(&self, caller: &Caller, from: &Place, target: &Path) -> Result<()> {
        use tokio::io::AsyncWriteExt as _;
        let failed = |error: std::io::Error| {
            BatchError::internal(format!("cannot write `{}`: {error}", target.display()))
        };
        let Some(mut file) = self.open(caller, from).await? else {
            return Err(BatchError::missing(format!("`{}` is gone", from.shown())));
        };
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        let partial = target.with_extension("arriving");
        let mut writing = tokio::fs::File::create(&partial).await.map_err(failed)?;
        while let Some(piece) = file.next().await? {
            writing.write_all(&piece).await.map_err(failed)?;
        }
        writing.flush().await.map_err(failed)?;
        writing.sync_all().await.map_err(failed)?;
        std::fs::rename(&partial, target).map_err(failed)
    }
}

#[cfg(test)]
#[path = "places_tests.rs"]
mod tests;
