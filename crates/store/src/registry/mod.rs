//! The registry as clients know it: models by name in a workspace, versions from anywhere, tags, stages, and who moved what.
//! The loop's view of the same tables is [`crate::models`].

mod history;
mod models;
mod requests;
mod sources;
mod versions;

use rusqlite::types::ToSql;
use serde::Serialize;
use serde_json::Value;
use tidemill_core::clock::Timestamp;

pub use history::{Entry, Happened, Move, audit, move_alias, move_stage, note};
pub use models::{create, delete, delete_tag, describe, find, load_models, rename, set_tag};
pub use requests::{Request, RequestState, ask, decide, find_request, list_requests};
pub use sources::{LoggedModel, add_version_to_logged_model, logged_model, run_artifacts, run_facts};
pub use versions::{
    NewVersion, alias_target, create_version, delete_version, delete_version_tag, describe_version,
    find_version, latest_versions, load_versions, set_version_tag, versions_in_stage,
};

/// A registered model with what belongs to it.
#[derive(Clone, PartialEq, Debug)]
pub struct Model {
    /// Stands for it in other tables.
    pub number: i64,
    /// Where its name is looked up.
    pub workspace: String,
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it or one of its versions last changed.
    pub updated_at: Timestamp,
    /// By key.
    pub tags: Vec<(String, String)>,
    /// Alias and version, by alias.
    pub aliases: Vec<(String, i64)>,
    /// The highest version of each stage.
    pub latest: Vec<Version>,
}

/// A version of a registered model with what belongs to it.
#[derive(Clone, PartialEq, Debug)]
pub struct Version {
    /// The model's number.
    pub model: i64,
    /// The model's name.
    pub name: String,
    /// Its own number, from 1.
    pub version: i64,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// For people.
    pub description: String,
    /// Who registered it.
    pub user_id: String,
    /// Where its files came from, as the client said.
    pub source: String,
    /// Where they are, if that is elsewhere than `source`.
    pub storage_location: Option<String>,
    /// The MLflow run behind it.
    pub run_id: Option<String>,
    /// Where that run can be seen.
    pub run_link: Option<String>,
    /// The logged model behind it.
    pub model_id: Option<String>,
    /// `None`, `Staging`, `Production` or `Archived`.
    pub stage: String,
    /// `READY`.
    pub status: String,
    /// More about the status.
    pub status_message: Option<String>,
    /// The loop's own: the digest of its files, its signature and what its run measured.
    pub bundle: Option<String>,
    /// The loop's snapshot that it was trained on.
    pub snapshot: Option<String>,
    /// `ModelSignature` as JSON, or null.
    pub signature: Value,
    /// What its run measured, or null.
    pub metrics: Value,
    /// By key.
    pub tags: Vec<(String, String)>,
    /// The aliases that name it.
    pub aliases: Vec<String>,
}

/// Who changed something, when and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Who {
    /// When.
    pub at: Timestamp,
    /// A user, or the part of the loop.
    pub by: String,
    /// For people.
    pub why: String,
}

/// As parameters.
fn refs(values: &[i64]) -> Vec<&dyn ToSql> {
    values.iter().map(|value| value as &dyn ToSql).collect()
}

/// Fills up a chunk with its last value, so that a statement exists for few lengths only and stays prepared.
fn padded(chunk: &[i64]) -> Vec<i64> {
    let mut values = chunk.to_vec();
    if let Some(last) = chunk.last() {
        values.resize(chunk.len().next_power_of_two(), *last);
    }
    values
}

/// `?1, ?2, …`
fn marks(count: usize) -> String {
    let marks: Vec<String> = (1..=count).map(|i| format!("?{i}")).collect();
    marks.join(", ")
}

#[cfg(test)]
mod registry_tests;
