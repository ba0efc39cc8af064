//! Which place a path stands for: an object under a name, or a file in a folder or a bucket.

use std::path::{Path, PathBuf};

use tidemill_store::objects::{Bucket, Folder};
use tidemill_store::tracking::logged_models;

use super::super::{Caller, DEFAULT_WORKSPACE, Result, Tracking, TrackingError};
use super::Root;

/// Where the proxy keeps artifacts under their own names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Destination {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A bucket of an object store.
    Bucket(Bucket),
}

/// A place for a file, or a folder of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// A name of the proxy over content-addressed objects.
    Object(String),
    /// A path in a folder.
    File(Folder, String),
    /// A path in a bucket.
    Bucket(Bucket, String),
}

fn joined(base: &str, path: &str) -> String {
    match (base.is_empty(), path.is_empty()) {
        (true, _) => path.to_owned(),
        (false, true) => base.to_owned(),
        (false, false) => format!("{base}/{path}"),
    }
}

/// The path of the proxy that a caller means: each workspace has its own folder, which is not written for the default one.
fn in_workspace(caller: &Caller, path: &str) -> Result<String> {
    let workspace = caller.workspace.as_str();
    let mut names = path.split('/');
    if names.next() == Some("workspaces") {
        return match names.next() {
            None | Some("") => Err(TrackingError::invalid(
                "Artifact paths prefixed with 'workspaces/' must include a workspace name.",
            )),
            Some(named) if named == workspace => Ok(path.to_owned()),
            Some(named) => Err(TrackingError::invalid(format!(
                "Artifact path targets workspace '{named}' but the workspace specified in the request is '{workspace}'."
            ))),
        };
    }
    if workspace == DEFAULT_WORKSPACE {
        return Ok(path.to_owned());
    }
    Ok(joined(&format!("workspaces/{workspace}"), path))
}

impl Tracking {
    /// The place of a path of the proxy, as the caller writes it.
    pub(super) fn proxy_place(&self, caller: &Caller, path: &str) -> Result<Place> {
        let path = in_workspace(caller, path)?;
        // Where arrivals wait is nobody's.
        if path.split('/').next() == Some(".unfinished") {
            return Err(TrackingError::invalid("Invalid path"));
        }
        Ok(match &self.options().artifacts_destination {
            Some(Destination::Folder(folder)) => Place::File(Folder::at(folder), path),
            Some(Destination::Bucket(bucket)) => Place::Bucket(bucket.clone(), path),
            None => Place::Object(path),
        })
    }

    /// The place of a path below an artifact root.
    pub(crate) async fn place_of(&self, caller: &Caller, root: &str, path: &str) -> Result<Place> {
        let mut root = Root::of(root)?;
        let mut path = path.to_owned();
        // A version's source may name a run or a model, whose root is told in full.
        if let Root::Run(run_id, inner) = &root {
            path = joined(inner, &path);
            root = Root::of(&self.artifact_root_of_run(caller, run_id).await?)?;
        } else if let Root::Model(model_id, inner) = &root {
            path = joined(inner, &path);
            root = Root::of(&self.artifact_root_of_model(caller, model_id).await?)?;
        }
        self.placed(caller, root, &path)
    }

    /// The place of a path below a root that stands for itself.
    pub(super) fn placed(&self, caller: &Caller, root: Root, path: &str) -> Result<Place> {
        match root {
            Root::Proxy(base) => self.proxy_place(caller, &joined(&base, path)),
            Root::Folder(folder) => {
                self.check_readable(&folder)?;
                Ok(Place::File(Folder::at(folder), path.to_owned()))
            }
            Root::Bucket(uri) => {
                let (bucket, base) = self.bucket_of(&uri).ok_or_else(|| not_named(&uri))?;
                Ok(Place::Bucket(bucket.clone(), joined(&base, path)))
            }
            Root::Run(..) | Root::Model(..) => Err(TrackingError::invalid("Invalid path")),
            Root::Elsewhere(scheme) => Err(TrackingError::NotImplemented(format!(
                "this server does not read artifacts behind `{scheme}:`; clients reach them by themselves"
            ))),
        }
    }

    pub(crate) async fn artifact_root_of_model(&self, caller: &Caller, model_id: &str) -> Result<String> {
        let (workspace, id) = (caller.workspace.clone(), model_id.to_owned());
        let location = self
            .store()
            .read(move |tx| logged_models::location(tx, &workspace, &id))
            .await?;
        location
            .ok_or_else(|| TrackingError::not_found(format!("Logged model with ID '{model_id}' not found.")))
    }

    /// The bucket that a URI leads to, of those that this server may touch, and the path in it.
    fn bucket_of(&self, uri: &str) -> Option<(&Bucket, String)> {
        let destination = match &self.options().artifacts_destination {
            Some(Destination::Bucket(bucket)) => Some(bucket),
            _ => None,
        };
        let buckets = destination.into_iter().chain(&self.options().buckets);
        let found = buckets.filter_map(|bucket| Some((bucket, bucket.path_of(uri)?)));
        // Of several that hold it the closest.
        found.min_by_key(|(_, path)| path.len())
    }

    /// Every bucket that this server touches.
    pub(super) fn all_buckets(&self) -> Vec<Bucket> {
        let mut buckets = self.options().buckets.clone();
        if let Some(Destination::Bucket(bucket)) = &self.options().artifacts_destination {
            buckets.push(bucket.clone());
        }
        buckets
    }

    /// Whether this server reads and writes artifacts in a folder of this machine.
    pub(crate) fn is_readable_folder(&self, folder: &Path) -> bool {
        self.check_readable(folder).is_ok()
    }

    /// The server touches folders only below those that whoever started it named: an experiment's artifact location is a client's
    /// own word, and could as well be `/etc`.
    fn check_readable(&self, folder: &Path) -> Result<()> {
        let options = self.options();
        let root = match Root::of(&options.default_artifact_root) {
            Ok(Root::Folder(root)) => Some(root),
            _ => None,
        };
        let destination = match &options.artifacts_destination {
            Some(Destination::Folder(folder)) => std::path::absolute(folder).ok(),
            Some(Destination::Bucket(_)) | None => None,
        };
        let allowed = [root, destination]
            .into_iter()
            .flatten()
            .any(|allowed| folder.starts_with(&allowed) || settled(folder).starts_with(settled(&allowed)));
        if allowed {
            return Ok(());
        }
        Err(not_named(&folder.display().to_string()))
    }
}

fn not_named(place: &str) -> TrackingError {
    TrackingError::Denied(format!(
        "this server does not read artifacts in `{place}`: it was not started with that as `--default-artifact-root`, \
         `--artifacts-destination` or one of `--artifact-roots`"
    ))
}

/// A path with the links in it followed, as far as it is there.
pub(super) fn settled(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (ancestor.canonicalize(), path.strip_prefix(ancestor)) {
            return real.join(rest);
        }
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_keeps_to_its_own_folder() {
        let of = |workspace: &str| Caller {
            user: String::new(),
            workspace: workspace.to_owned(),
        };
        let default = of(DEFAULT_WORKSPACE);
        assert_eq!(in_workspace(&default, "1/a").unwrap(), "1/a");
        assert_eq!(in_workspace(&of("team"), "1/a").unwrap(), "workspaces/team/1/a");
        assert_eq!(in_workspace(&of("team"), "").unwrap(), "workspaces/team");
        assert_eq!(
            in_workspace(&of("team"), "workspaces/team/1").unwrap(),
            "workspaces/team/1"
        );
        assert!(in_workspace(&of("team"), "workspaces/other/1").is_err());
        assert!(in_workspace(&default, "workspaces/team/1").is_err());
        assert!(in_workspace(&default, "workspaces").is_err());
    }
}
