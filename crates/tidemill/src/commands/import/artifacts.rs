//! Files on their way from a source to the server's artifact proxy.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::source::{File, Place, Source, files_of, open};
use crate::client::{ApiFailure, Client, encoded};

const PROXY: &str = "/api/2.0/mlflow-artifacts/artifacts";

/// What became of the files of one place.
#[derive(Debug, Default)]
pub struct Sent {
    /// How many there are.
    pub found: u64,
    /// How many were sent.
    pub uploaded: u64,
    /// How many were there.
    pub present: u64,
    /// Bytes that were sent.
    pub bytes: u64,
    /// Files that failed, and why.
    pub failed: Vec<(String, anyhow::Error)>,
}

/// Sends what is not there yet, byte for byte as it comes. `target` is `mlflow-artifacts:/…`; `fresh` says that nothing is there.
pub async fn send(
    source: &dyn Source,
    client: &Client,
    place: &Place,
    target: &str,
    fresh: bool,
) -> Result<Sent> {
    let root = target
        .strip_prefix("mlflow-artifacts:/")
        .with_context(|| format!("artifacts here are at `{target}`, not in the server's own store"))?;
    let files = files_of(place, source.server()).await?;
    let there = if fresh || files.is_empty() {
        BTreeMap::new()
    } else {
        listed(client, root).await?
    };
    let mut sent = Sent {
        found: files.len() as u64,
        ..Sent::default()
    };
    for file in files {
        if there.get(&file.path) == Some(&file.size) {
            sent.present += 1;
            continue;
        }
        match send_one(source, client, place, root, &file).await {
            Ok(()) => {
                sent.uploaded += 1;
                sent.bytes += file.size;
            }
            Err(error) if crate::client::is_unreachable(&error) => return Err(error),
            Err(error) => sent.failed.push((file.path, error)),
        }
    }
    Ok(sent)
}

async fn send_one(
    source: &dyn Source,
    client: &Client,
    place: &Place,
    root: &str,
    file: &File,
) -> Result<()> {
    let body = open(place, &file.path, source.server()).await?;
    let path = encoded(&format!("{root}/{}", file.path), true);
    client.put(&format!("{PROXY}/{path}"), body).await
}

/// The files that are there, with their sizes.
async fn listed(client: &Client, root: &str) -> Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let path = encoded(&format!("{root}/{folder}"), false);
        let answer: Value = match client.get(&format!("{PROXY}?path={path}")).await {
            Ok(answer) => answer,
            Err(error) if is_absent(&error) => continue,
            Err(error) => return Err(error),
        };
        for file in answer["files"].as_array().into_iter().flatten() {
            let name = file["path"].as_str().unwrap_or_default();
            let path = format!("{folder}{name}");
            if file["is_dir"].as_bool().unwrap_or(false) {
                folders.push(format!("{path}/"));
            } else {
                found.insert(path, file["file_size"].as_u64().unwrap_or(u64::MAX));
            }
        }
    }
    Ok(found)
}

fn is_absent(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|c| c.downcast_ref::<ApiFailure>().is_some_and(|f| f.status == 404))
}
