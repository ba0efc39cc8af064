//! Weights & Biases' client as another way to track: its runs are tracked runs, its projects experiments, its artifacts versions
//! of named collections.
//!
//! [`lines`], [`values`] and [`system`] read what the client writes, as pure functions; [`runs`] and [`stream`] keep it; [`grants`] lets the
//! client send and fetch bytes by URLs that carry their own permission, as presigned URLs do.

mod alerts;
mod artifacts;
mod commit;
mod files;
mod filters;
mod grants;
mod lines;
mod links;
mod places;
mod reading;
mod retire;
mod runs;
mod stream;
mod system;
pub mod values;

use tidemill_core::digest::Digest;
use tidemill_store::wandb::runs::WandbName;

use crate::tracking::Caller;

pub use alerts::NewAlert;
pub use artifacts::{ArtifactView, Lineage, NewArtifact, NewFile};
pub use files::Upload;
pub use grants::Grant;
pub use links::{Membership, NewLink};
pub use places::WandbPlace;
pub use reading::{HistoryQuery, HistoryRow, MOST_ROWS, RunFile, RunsPage, RunsQuery};
pub use runs::{RunChange, Upserted};
pub use stream::{Answer, Chunk, FileStream};

/// The entity of a caller who names none and has no name.
const NOBODY: &str = "tidemill";
/// The project of a run that names none, as W&B calls it.
pub const NO_PROJECT: &str = "uncategorized";
/// A run that says nothing for so long has crashed. The client says something every 30 seconds.
pub const SILENCE_MS: i64 = 5 * 60 * 1000;

/// The entity that a caller's runs belong to if they name none.
pub fn default_entity(caller: &Caller) -> String {
    if caller.user.is_empty() {
        NOBODY.to_owned()
    } else {
        caller.user.clone()
    }
}

/// The names of a run, with defaults for what the client left out.
pub fn name_of(caller: &Caller, entity: Option<&str>, project: Option<&str>, run: &str) -> WandbName {
    let given = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    WandbName {
        workspace: caller.workspace.clone(),
        entity: given(entity).unwrap_or_else(|| default_entity(caller)),
        project: given(project).unwrap_or_else(|| NO_PROJECT.to_owned()),
        name: run.to_owned(),
    }
}

/// The id of the tracked run behind a W&B run. MLflow's clients want 32 hexadecimal digits.
pub fn run_id(at: &WandbName) -> String {
    let parts = [&at.workspace, &at.entity, &at.project, &at.name];
    let digest = Digest::of_parts(parts.into_iter().map(String::as_bytes));
    digest.to_string().chars().take(32).collect()
}
