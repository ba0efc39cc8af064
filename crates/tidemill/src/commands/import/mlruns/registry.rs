//! Registered models of a folder.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use tidemill_control::tracking::import::{RegisteredModel, RegisteredModelWithVersions, Version};

use super::files::{self, Integer};
use super::{MODELS, Mlruns};
use crate::commands::import::mlflow_server::logged_model_in;
use crate::commands::import::source::{Broken, Page};

#[derive(Deserialize)]
struct ModelMeta {
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    creation_timestamp: Integer,
    #[serde(default)]
    last_updated_timestamp: Integer,
}

#[derive(Deserialize)]
struct VersionMeta {
    version: Integer,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    creation_timestamp: Integer,
    #[serde(default)]
    last_updated_timestamp: Integer,
    #[serde(default)]
    user_id: Option<String>,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    storage_location: Option<String>,
    #[serde(default)]
    run_id: Option<String>,
    #[serde(default)]
    run_link: Option<String>,
    #[serde(default)]
    model_id: Option<String>,
    #[serde(default)]
    current_stage: Option<String>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    status_message: Option<String>,
}

/// The stage in which MLflow keeps the folders of deleted versions.
const DELETED: &str = "Deleted_Internal";

impl Mlruns {
    pub(super) fn read_registered_models(&self) -> Page<RegisteredModelWithVersions> {
        let mut page = Page::last(Vec::new());
        for folder in files::folders(&self.root.join(MODELS)) {
            if !folder.join("meta.yaml").exists() && files::name(&folder).starts_with('.') {
                continue;
            }
            match read_model(&folder, &mut page.broken) {
                Ok(model) => page.items.push(model),
                Err(error) => page.broken.push(Broken {
                    kind: "registered models",
                    id: files::name(&folder),
                    reason: format!("{error:#}"),
                }),
            }
        }
        page
    }
}

fn read_model(folder: &Path, broken: &mut Vec<Broken>) -> Result<RegisteredModelWithVersions> {
    let meta: ModelMeta = files::meta(folder)?;
    let mut found = RegisteredModelWithVersions {
        model: RegisteredModel {
            name: meta.name,
            description: meta.description.unwrap_or_default(),
            created_ms: meta.creation_timestamp.0.unwrap_or(0),
            updated_ms: meta.last_updated_timestamp.0.unwrap_or(0),
            last_version: 0,
            tags: files::pairs(&folder.join("tags"))?,
        },
        ..RegisteredModelWithVersions::default()
    };
    for (alias, version) in files::pairs(&folder.join("aliases"))? {
        let number = version.trim().parse().with_context(|| {
            format!(
                "{}: `{version}` is no version",
                folder.join("aliases").join(&alias).display()
            )
        })?;
        found.aliases.push((alias, number));
    }
    for version in files::folders(folder) {
        if !files::name(&version).starts_with("version-") {
            continue;
        }
        match read_version(&version) {
            Ok(version) => {
                found.model.last_version = found.model.last_version.max(version.version);
                if version.stage != DELETED {
                    found.versions.push(version);
                }
            }
            Err(error) => broken.push(Broken {
                kind: "model versions",
                id: format!("{}/{}", found.model.name, files::name(&version)),
                reason: format!("{error:#}"),
            }),
        }
    }
    found.versions.sort_by_key(|version| version.version);
    Ok(found)
}

fn read_version(folder: &Path) -> Result<Version> {
    let meta: VersionMeta = files::meta(folder)?;
    let some = |text: Option<String>| text.filter(|text| !text.is_empty());
    let source = meta.source.unwrap_or_default();
    Ok(Version {
        version: meta.version.0.context("a version has no number")?,
        description: meta.description.unwrap_or_default(),
        created_ms: meta.creation_timestamp.0.unwrap_or(0),
        updated_ms: meta.last_updated_timestamp.0.unwrap_or(0),
        user_id: meta.user_id.unwrap_or_default(),
        storage_location: some(meta.storage_location),
        run_id: some(meta.run_id),
        run_link: some(meta.run_link),
        model_id: some(meta.model_id).or_else(|| logged_model_in(&source)),
        stage: some(meta.current_stage).unwrap_or_else(|| "None".to_owned()),
        status: some(meta.status).unwrap_or_else(|| "READY".to_owned()),
        status_message: some(meta.status_message),
        tags: files::pairs(&folder.join("tags"))?,
        source,
    })
}
