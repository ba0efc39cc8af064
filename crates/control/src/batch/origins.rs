//! Whose the files are that a batch job names.

use std::path::PathBuf;

use super::error::Result;
use super::places::{Place, Places};
use crate::tracking::{Caller, Origin, Owners};

impl Places {
    /// Whose the files are that a location names, for whoever decides whether a user may read or write them. `begun`: also those whose paths
    /// only begin with it.
    pub async fn origins(&self, caller: &Caller, location: &str, begun: bool) -> Result<Vec<Origin>> {
        let place = self.find(location)?;
        let mut places = vec![place.clone()];
        let (folder, name) = place.parted();
        if begun || name.contains('*') {
            places.push(folder);
        }
        let bare = |owners: Owners| Origin {
            models: Vec::new(),
            logged_models: Vec::new(),
            runs: Vec::new(),
            owners,
        };
        let mut origins = Vec::new();
        for place in &places {
            match place {
                Place::Local { root, path } => {
                    let path = path
                        .split('/')
                        .take_while(|name| !name.contains(['*', '?', '[', '{']));
                    let path = root.join(path.collect::<PathBuf>());
                    origins.push(bare(self.tracking.owners_of_path(caller, &path).await?));
                }
                // All that a scheme names. Above a run, a model or a bucket no job looks for files.
                Place::Artifacts { uri } if uri.is_empty() || uri.ends_with([':', '/']) => {
                    if origins.is_empty() || uri.eq_ignore_ascii_case("mlflow-artifacts:") {
                        origins.push(bare(Owners::Nobody));
                    }
                }
                Place::Artifacts { uri } => {
                    let mut origin = self.tracking.origin_of(caller, uri).await?;
                    if origin.models.is_empty() && origin.logged_models.is_empty() && origin.runs.is_empty() {
                        origin.owners = self.tracking.owners_of_location(caller, uri).await?;
                    }
                    origins.push(origin);
                }
            }
        }
        Ok(origins)
    }
}
