//! Where things belong: the experiment of a run, of a logged model, of a name.

use std::sync::PoisonError;

use tidemill_store::search::Visible;
use tidemill_store::users as rows;

use super::{EXPERIMENT, Principal, REGISTERED_MODEL, REMEMBERED, Readable};
use crate::tracking::{Result, Tracking};

/// An experiment and its workspace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The experiment's number, as text.
    pub experiment: String,
    /// The experiment's workspace.
    pub workspace: String,
}

impl Place {
    fn of((experiment, workspace): (i64, String)) -> Self {
        Self {
            experiment: experiment.to_string(),
            workspace,
        }
    }
}

impl Tracking {
    /// Where a run belongs.
    pub async fn place_of_run(&self, run_id: &str) -> Result<Option<Place>> {
        if let Some(place) = self.recalled_place(run_id) {
            return Ok(Some(place));
        }
        let id = run_id.to_owned();
        let found = self
            .store()
            .read(move |tx| rows::experiment_of_run(tx, &id))
            .await?;
        Ok(self.remembered_place(run_id, found.map(Place::of)))
    }

    /// Where a logged model belongs.
    pub async fn place_of_logged_model(&self, model_id: &str) -> Result<Option<Place>> {
        if let Some(place) = self.recalled_place(model_id) {
            return Ok(Some(place));
        }
        let id = model_id.to_owned();
        let found = self
            .store()
            .read(move |tx| rows::experiment_of_model(tx, &id))
            .await?;
        Ok(self.remembered_place(model_id, found.map(Place::of)))
    }

    /// Where an experiment is, by its number.
    pub async fn place_of_experiment(&self, experiment_id: &str) -> Result<Option<Place>> {
        let Ok(number) = experiment_id.trim().parse::<i64>() else {
            return Ok(None);
        };
        let key = number.to_string();
        if let Some(place) = self.recalled_place(&key) {
            return Ok(Some(place));
        }
        let workspace = self
            .store()
            .read(move |tx| rows::workspace_of_experiment(tx, number))
            .await?;
        let place = workspace.map(|workspace| Place::of((number, workspace)));
        Ok(self.remembered_place(&key, place))
    }

    /// Where an experiment is, by its name.
    pub async fn place_of_experiment_name(&self, workspace: &str, name: &str) -> Result<Option<Place>> {
        let (inside, name) = (workspace.to_owned(), name.to_owned());
        let found = self
            .store()
            .read(move |tx| rows::experiment_by_name(tx, &inside, &name))
            .await?;
        Ok(found.map(|number| Place::of((number, workspace.to_owned()))))
    }

    /// The experiments that a user may look at.
    pub fn visible_experiments(&self, known: &Principal, workspace: &str) -> Visible {
        // Other ids than numbers name nothing.
        let number = |id: &String| id.parse().ok().filter(|number: &i64| number.to_string() == *id);
        let numbers = |ids: Vec<String>| ids.iter().filter_map(number).collect();
        match known.readable(EXPERIMENT, workspace) {
            Readable::Only(ids) => Visible::Only(numbers(ids)),
            Readable::Except(ids) => Visible::Except(numbers(ids)),
        }
    }

    /// The registered models that a user may look at.
    pub async fn visible_models(&self, known: &Principal, workspace: &str) -> Result<Visible> {
        let (names, only) = match known.readable(REGISTERED_MODEL, workspace) {
            Readable::Only(names) => (names, true),
            Readable::Except(names) => (names, false),
        };
        let numbers = if names.is_empty() {
            Vec::new()
        } else {
            let workspace = workspace.to_owned();
            self.store()
                .read(move |tx| rows::models_by_name(tx, &workspace, &names))
                .await?
        };
        Ok(if only {
            Visible::Only(numbers)
        } else {
            Visible::Except(numbers)
        })
    }

    fn recalled_place(&self, id: &str) -> Option<Place> {
        let places = self.users().places.lock().unwrap_or_else(PoisonError::into_inner);
        places.get(id).cloned()
    }

    fn remembered_place(&self, id: &str, place: Option<Place>) -> Option<Place> {
        if let Some(place) = &place {
            let mut places = self.users().places.lock().unwrap_or_else(PoisonError::into_inner);
            if places.len() >= REMEMBERED {
                places.clear();
            }
            places.insert(id.to_owned(), place.clone());
        }
        place
    }

    /// To be called when what is in a workspace has moved.
    pub(crate) fn forget_places(&self) {
        let mut places = self.users().places.lock().unwrap_or_else(PoisonError::into_inner);
        places.clear();
        let mut grounds = self
            .users()
            .grounds
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *grounds = None;
    }
}
