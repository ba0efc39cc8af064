//! How MLflow's file store keeps things: a text in a file named after its key, and `meta.yaml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The folders in a folder, by name; none if it is not there.
pub fn folders(parent: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.is_dir())
        .collect();
    found.sort();
    found
}

/// The last part of a path.
pub fn name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The files below a folder with the keys that they stand for, by key: a key with `/` lies in folders.
pub fn keyed_files(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![(folder.to_owned(), String::new())];
    while let Some((folder, prefix)) = waiting.pop() {
        if !folder.exists() {
            continue;
        }
        let entries =
            std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry
                .with_context(|| format!("cannot read {}", folder.display()))?
                .path();
            let key = format!("{prefix}{}", name(&path));
            if path.is_dir() {
                waiting.push((path, format!("{key}/")));
            } else {
                found.insert(key, path);
            }
        }
    }
    Ok(found)
}

/// Keys and values of a folder of small files.
pub fn pairs(folder: &Path) -> Result<Vec<(String, String)>> {
    keyed_files(folder)?
        .into_iter()
        .map(|(key, path)| Ok((key, text(&path)?)))
        .collect()
}

/// A file's text.
pub fn text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    String::from_utf8(bytes).map_err(|_| anyhow!("{} is not UTF-8", path.display()))
}

/// A `meta.yaml`. The error says where it is wrong.
pub fn meta<T: DeserializeOwned>(folder: &Path) -> Result<T> {
    let path = folder.join("meta.yaml");
    let text = text(&path)?;
    serde_saphyr::from_str(&text).map_err(|error| {
        let said = error.to_string();
        let reason = said.lines().next().unwrap_or_default().trim();
        let reason = reason.strip_prefix("error: ").unwrap_or(reason).to_owned();
        match error.location() {
            Some(place) => anyhow!("{}:{}: {reason}", path.display(), place.line()),
            None => anyhow!("{}: {reason}", path.display()),
        }
    })
}

/// Numbers that MLflow writes as numbers, texts or not at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Integer(pub Option<i64>);

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        match text.as_deref() {
            None | Some("" | "null" | "~") => Ok(Self(None)),
            Some(text) => match text.parse() {
                Ok(number) => Ok(Self(Some(number))),
                Err(_) => Err(serde::de::Error::custom(format!("`{text}` is no whole number"))),
            },
        }
    }
}
