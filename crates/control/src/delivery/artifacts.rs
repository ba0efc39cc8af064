//! The files of a version in the registry, on their way into a bundle.

use std::path::Path;

use tidemill_core::deployments::{MAX_BUNDLE_BYTES, MAX_BUNDLE_FILES};
use tidemill_core::ports::PortError;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::deployments::BundleUpload;
use crate::error::{ControlError, Result};
use crate::tracking::{Caller, Tracking, TrackingError};

/// A version that was found.
#[derive(Debug)]
pub(super) struct Located {
    /// The model's name.
    pub model: String,
    /// `models:/name/version`, with the number that an alias stood for.
    pub uri: String,
    /// Where its files are.
    pub root: String,
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

/// Finds `models:/name/version`, `models:/name@alias` or `models:/name/latest`.
pub(super) async fn locate(tracking: &Tracking, caller: &Caller, source: &str) -> Result<Located> {
    let wrong = || {
        refused(format!(
            "`{source}` names no version: expected `models:/NAME/VERSION` or `models:/NAME@ALIAS`"
        ))
    };
    let rest = source
        .strip_prefix("models:/")
        .ok_or_else(wrong)?
        .trim_matches('/');
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
    let root = tracking.artifact_root_of_version(caller, model, &version).await;
    Ok(Located {
        model: model.to_owned(),
        uri: format!("models:/{model}/{version}"),
        root: root.map_err(of_tracking)?,
    })
}

/// Copies all files below an artifact root into a folder.
pub(super) async fn fetch(tracking: &Tracking, caller: &Caller, root: &str, folder: &Path) -> Result<()> {
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
