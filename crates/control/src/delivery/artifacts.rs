//! The files of a version in the registry, on their way into a bundle.

use std::path::Path;

use tidemill_core::deployments::{MAX_BUNDLE_BYTES, MAX_BUNDLE_FILES};
use tidemill_core::digest::Digest;
use tidemill_core::ids::{ModelName, VersionNumber};
use tidemill_core::ports::PortError;
use tidemill_store::tracking::logged_models::LoggedModel;
use tidemill_store::{StoreError, models};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::deployments::BundleUpload;
use crate::error::{ControlError, Result};
use crate::tracking::{Caller, DEFAULT_WORKSPACE, Tracking, TrackingError};

/// A model that was found.
#[derive(Debug)]
pub(super) struct Located {
    /// The model's name.
    pub model: String,
    /// `models:/name/version`, with the number that an alias stood for; or as it was named.
    pub uri: String,
    /// Where its files are.
    pub files: Files,
}

/// Where a model's files are.
#[derive(Debug)]
pub(super) enum Files {
    /// Below an artifact root.
    Artifacts(String),
    /// In a bundle that the loop wrote.
    Bundle(Digest),
}

fn refused(message: String) -> ControlError {
    ControlError::Refused {
        code: "bad_model_source",
        message,
    }
}

fn of_tracking(error: TrackingError) -> ControlError {
    match error {
        TrackingError::Store(error) => error.into(),
        other => refused(other.to_string()),
    }
}

/// Finds `models:/name/version`, `models:/name@alias`, `models:/name/latest`, `models:/m-ID` or `runs:/ID/path`.
pub(super) async fn locate(tracking: &Tracking, caller: &Caller, source: &str) -> Result<Located> {
    let wrong = || {
        refused(format!(
            "`{source}` names no model: expected `models:/NAME/VERSION`, `models:/NAME@ALIAS`, `models:/m-ID` or `runs:/RUN/PATH`"
        ))
    };
    if let Some(rest) = source.strip_prefix("runs:/") {
        let (run, path) = rest.trim_matches('/').split_once('/').ok_or_else(wrong)?;
        return of_run(tracking, caller, source, run, path).await;
    }
    let rest = source
        .strip_prefix("models:/")
        .ok_or_else(wrong)?
        .trim_matches('/');
    if rest.starts_with("m-") && !rest.contains(['/', '@']) {
        let found = tracking
            .logged_model(caller, rest, false)
            .await
            .map_err(of_tracking)?;
        return Ok(of_logged(&found, source));
    }
    let (model, version) = if let Some((model, alias)) = rest.rsplit_once('@') {
        let found = tracking
            .get_model_version_by_alias(caller, model.to_owned(), alias.to_owned())
            .await;
        (model, found.map_err(of_tracking)?.version.to_string())
    } else {
        let (model, version) = rest.rsplit_once('/').ok_or_else(wrong)?;
        if version.eq_ignore_ascii_case("latest") {
            let found = tracking
                .get_model_version_by_alias(caller, model.to_owned(), "latest".to_owned())
                .await
                .map_err(of_tracking)?;
            (model, found.version.to_string())
        } else {
            (model, version.to_owned())
        }
    };
    let files = match of_the_loop(tracking, caller, model, &version).await? {
        Some(bundle) => Files::Bundle(bundle),
        None => {
            let root = tracking.artifact_root_of_version(caller, model, &version).await;
            Files::Artifacts(root.map_err(of_tracking)?)
        }
    };
    Ok(Located {
        model: model.to_owned(),
        uri: format!("models:/{model}/{version}"),
        files,
    })
}

fn of_logged(model: &LoggedModel, source: &str) -> Located {
    Located {
        model: model.name.clone(),
        uri: source.to_owned(),
        files: Files::Artifacts(format!("models:/{}", model.model_id)),
    }
}

/// The model that a run logged under a name, or wrote among its artifacts.
async fn of_run(
    tracking: &Tracking,
    caller: &Caller,
    source: &str,
    run: &str,
    path: &str,
) -> Result<Located> {
    let outputs = tracking
        .run(caller, run)
        .await
        .map_err(of_tracking)?
        .model_outputs;
    for output in outputs.iter().rev() {
        let found = tracking.logged_model(caller, &output.model_id, false).await;
        if let Some(model) = found.ok().filter(|model| model.name == path) {
            return Ok(of_logged(&model, source));
        }
    }
    let root = tracking
        .artifact_root_of_run(caller, run)
        .await
        .map_err(of_tracking)?;
    Ok(Located {
        model: path.rsplit('/').next().unwrap_or(path).to_owned(),
        uri: source.to_owned(),
        files: Files::Artifacts(format!("{}/{path}", root.trim_end_matches('/'))),
    })
}

/// The bundle of a version that the loop trained. It works in the default workspace.
async fn of_the_loop(
    tracking: &Tracking,
    caller: &Caller,
    model: &str,
    version: &str,
) -> Result<Option<Digest>> {
    let Ok(number) = version.parse() else {
        return Ok(None);
    };
    if caller.workspace != DEFAULT_WORKSPACE {
        return Ok(None);
    }
    let (model, number) = (ModelName::new(model), VersionNumber(number));
    let found = tracking
        .store()
        .read(move |tx| models::get_version(tx, &model, number))
        .await;
    match found {
        Ok(version) => Ok(Some(version.bundle)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Copies all files of a model into a folder.
pub(super) async fn fetch(tracking: &Tracking, caller: &Caller, files: &Files, folder: &Path) -> Result<()> {
    let bundle = match files {
        Files::Artifacts(root) => return fetch_artifacts(tracking, caller, root, folder).await,
        Files::Bundle(digest) => tracking.store().objects().get_bundle(digest).await?,
    };
    for (name, bytes) in bundle {
        let path = folder.join(&name);
        std::fs::write(&path, bytes).map_err(|error| -> ControlError {
            PortError::upstream("bundle_io", format!("cannot write `{}`: {error}", path.display())).into()
        })?;
    }
    Ok(())
}

/// Copies all files below an artifact root into a folder.
async fn fetch_artifacts(tracking: &Tracking, caller: &Caller, root: &str, folder: &Path) -> Result<()> {
    let (mut files, mut bytes) = (0_usize, 0_u64);
    let mut folders = vec![String::new()];
    while let Some(below) = folders.pop() {
        for entry in tracking
            .artifacts_of(caller, root, &below)
            .await
            .map_err(of_tracking)?
        {
            let path = if below.is_empty() {
                entry.name
            } else {
                format!("{below}/{}", entry.name)
            };
            let Some(size) = entry.size else {
                folders.push(path);
                continue;
            };
            files += 1;
            bytes = bytes.saturating_add(size);
            if files > MAX_BUNDLE_FILES || bytes > MAX_BUNDLE_BYTES {
                return Err(ControlError::Refused {
                    code: "bundle_too_large",
                    message: format!(
                        "the version has more than {MAX_BUNDLE_FILES} files or {} MiB, which no deployment takes",
                        MAX_BUNDLE_BYTES >> 20
                    ),
                });
            }
            let mut artifact = tracking
                .artifact_of(caller, root, &path)
                .await
                .map_err(of_tracking)?;
            let target = folder.join(&path);
            let failed = |error: std::io::Error| -> ControlError {
                PortError::upstream(
                    "bundle_io",
                    format!("cannot write `{}`: {error}", target.display()),
                )
                .into()
            };
            if let Some(parent) = target.parent() {
                std::fs::create_dir_all(parent).map_err(failed)?;
            }
            let mut file = tokio::fs::File::create(&target).await.map_err(failed)?;
            while let Some(piece) = artifact.bytes.next().await? {
                file.write_all(&piece).await.map_err(failed)?;
            }
            file.flush().await.map_err(failed)?;
        }
    }
    if files == 0 {
        return Err(refused(
            "the version has no files that this server can read; its artifacts may be where only clients reach them".to_owned(),
        ));
    }
    Ok(())
}

/// Hands a file on as if it had been sent.
pub(super) async fn read_into(path: &Path, upload: &mut BundleUpload) -> Result<()> {
    let failed = |error: std::io::Error| -> ControlError {
        PortError::upstream("bundle_io", format!("cannot read `{}`: {error}", path.display())).into()
    };
    let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
    loop {
        let mut piece = bytes::BytesMut::with_capacity(1 << 20);
        if file.read_buf(&mut piece).await.map_err(failed)? == 0 {
            return Ok(());
        }
        upload.write(piece.freeze()).await?;
    }
}
