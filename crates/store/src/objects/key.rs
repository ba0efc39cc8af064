//! The names of objects: an enum that knows path and content type of each kind, so that no path is spelt anywhere else.

use object_store::path::Path;
use tidemill_core::digest::Digest;
use tidemill_core::ids::{EndpointName, RunId};

/// An object.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ObjectKey {
    /// A data file of snapshots, Parquet.
    Snapshot(Digest),
    /// A snapshot's manifest, JSON, under the snapshot's digest (which leaves the validation result out, so it is not the digest
    /// of these bytes).
    SnapshotManifest(Digest),
    /// A file of models.
    ModelFile(Digest),
    /// Which files make up a model, JSON.
    ModelBundle(Digest),
    /// A file of the prediction log, Parquet.
    Predictions {
        /// Which endpoint.
        endpoint: EndpointName,
        /// Which UTC day, `2013-05-17`.
        day: String,
        /// Of its bytes.
        digest: Digest,
    },
    /// The ids that a file of the prediction log holds. May be written again.
    PredictionIds {
        /// Which endpoint.
        endpoint: EndpointName,
        /// Of the file's bytes.
        digest: Digest,
    },
    /// An entry of the log of the Delta table that the files of an endpoint's predictions make up. Written once.
    PredictionTableEntry {
        /// Which endpoint.
        endpoint: EndpointName,
        /// Which entry.
        version: u64,
    },
    /// What an attempt at a run printed. May be written again.
    RunLog {
        /// Which run.
        run: RunId,
        /// Which attempt.
        attempt: u32,
    },
    /// A file that a run or a client keeps.
    Artifact(Digest),
}

/// The kinds of objects that are named by nothing but the digest of their bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContentKind {
    /// [`ObjectKey::Snapshot`].
    Snapshot,
    /// [`ObjectKey::ModelFile`].
    ModelFile,
    /// [`ObjectKey::ModelBundle`].
    ModelBundle,
    /// [`ObjectKey::Artifact`].
    Artifact,
}

impl ContentKind {
    /// The key of these bytes' digest.
    pub const fn key(self, digest: Digest) -> ObjectKey {
        match self {
            Self::Snapshot => ObjectKey::Snapshot(digest),
            Self::ModelFile => ObjectKey::ModelFile(digest),
            Self::ModelBundle => ObjectKey::ModelBundle(digest),
            Self::Artifact => ObjectKey::Artifact(digest),
        }
    }
}

impl ObjectKey {
    /// Where it is, from the root of the object store.
    pub fn path(&self) -> Path {
        match self {
            Self::Snapshot(digest) => spread("snapshots/data", digest, ".parquet"),
            Self::SnapshotManifest(digest) => spread("snapshots/manifests", digest, ".json"),
            Self::ModelFile(digest) => spread("models/files", digest, ""),
            Self::ModelBundle(digest) => spread("models/bundles", digest, ".json"),
            // From parts: names are users' own, and each must stay one part of the path.
            Self::Predictions {
                endpoint,
                day,
                digest,
            } => Path::from_iter([
                "predictions",
                endpoint.as_str(),
                day.as_str(),
                format!("{digest}.parquet").as_str(),
            ]),
            // Readers of Delta tables pass over what begins with `_`.
            Self::PredictionIds { endpoint, digest } => Path::from_iter([
                "predictions",
                endpoint.as_str(),
                "_ids",
                format!("{digest}.ids").as_str(),
            ]),
            Self::PredictionTableEntry { endpoint, version } => Path::from_iter([
                "predictions",
                endpoint.as_str(),
                "_delta_log",
                format!("{version:020}.json").as_str(),
            ]),
            Self::RunLog { run, attempt } => {
                Path::from_iter(["runs", run.as_str(), format!("attempt-{attempt}.log").as_str()])
            }
            Self::Artifact(digest) => spread("artifacts", digest, ""),
        }
    }

    /// Its MIME type.
    pub const fn content_type(&self) -> &'static str {
        match self {
            Self::Snapshot(_) | Self::Predictions { .. } => "application/vnd.apache.parquet",
            Self::SnapshotManifest(_) | Self::ModelBundle(_) | Self::PredictionTableEntry { .. } => {
                "application/json"
            }
            Self::RunLog { .. } => "text/plain; charset=utf-8",
            Self::ModelFile(_) | Self::Artifact(_) | Self::PredictionIds { .. } => "application/octet-stream",
        }
    }

    /// The digest of its bytes, if its name says so.
    pub const fn content_digest(&self) -> Option<Digest> {
        match self {
            Self::Snapshot(digest)
            | Self::ModelFile(digest)
            | Self::ModelBundle(digest)
            | Self::Predictions { digest, .. }
            | Self::Artifact(digest) => Some(*digest),
            Self::SnapshotManifest(_)
            | Self::RunLog { .. }
            | Self::PredictionIds { .. }
            | Self::PredictionTableEntry { .. } => None,
        }
    }
}

/// The first two digits make a folder, so that none grows very large.
fn spread(folder: &str, digest: &Digest, extension: &str) -> Path {
    let digest = digest.to_string();
    let first: String = digest.chars().take(2).collect();
    Path::from(format!("{folder}/{first}/{digest}{extension}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_chosen_by_a_user_stays_one_part_of_the_path() {
        let key = ObjectKey::Predictions {
            endpoint: "../../etc/pass wd".into(),
            day: "2013-05-17".to_owned(),
            digest: Digest::of(b""),
        };
        let path = key.path();
        assert_eq!(path.parts().count(), 4);
        assert!(path.to_string().starts_with("predictions/..%2F"), "{path}");
        let dots = ObjectKey::RunLog {
            run: "..".into(),
            attempt: 1,
        };
        assert_eq!(dots.path().to_string(), "runs/%2E%2E/attempt-1.log");
    }
}
