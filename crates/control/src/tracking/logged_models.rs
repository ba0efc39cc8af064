//! Logged models: models that runs write, from `PENDING` to `READY`.

use tidemill_core::ids;
use tidemill_store::tracking::experiments;
use tidemill_store::tracking::logged_models::{self, LoggedModel, LoggedModelStatus, NewLoggedModel};
use tidemill_store::{ReadTx, StoreError, Tx};

use super::experiments::{Outcome, no_experiment, not_active};
use super::{Caller, Result, Tracking, TrackingError, locations, run_names, validate};

/// Signs that a model's name must not have, as Python shows them.
const BAD_SIGNS: (&[char], &str) = (
    &['/', ':', '.', '%', '"', '\''],
    r#"('/', ':', '.', '%', '"', "'")"#,
);
/// The longest key of a parameter or tag.
const MAX_KEY: usize = 255;

/// What a client says of a model that it is about to write.
#[derive(Clone, Debug, Default)]
pub struct CreateLoggedModel {
    /// Which experiment it belongs to.
    pub experiment_id: String,
    /// Its name; one is made up where none is given.
    pub name: Option<String>,
    /// The client's own word for what it is.
    pub model_type: String,
    /// The run that writes it, or empty.
    pub source_run_id: String,
    /// Parameters.
    pub params: Vec<(String, String)>,
    /// Tags.
    pub tags: Vec<(String, String)>,
}

pub(super) fn not_found(model_id: &str) -> TrackingError {
    TrackingError::not_found(format!("Logged model with ID '{model_id}' not found."))
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.contains(BAD_SIGNS.0) {
        return Err(TrackingError::invalid(format!(
            "Invalid model name ({}) provided. Model name must be a non-empty string and cannot contain \
             the following characters: {}",
            validate::python_repr(name),
            BAD_SIGNS.1
        )));
    }
    Ok(())
}

/// Each key once, the last value counts for tags; keys that cannot be are refused.
fn by_key(pairs: Vec<(String, String)>, what: &str, write_once: bool) -> Result<Vec<(String, String)>> {
    let mut unique: Vec<(String, String)> = Vec::with_capacity(pairs.len());
    let mut places = std::collections::HashMap::new();
    for (key, value) in pairs {
        if key.is_empty() || key.chars().count() > MAX_KEY {
            return Err(TrackingError::invalid(format!(
                "{what} key '{key}' has length {}, but it must be between 1 and {MAX_KEY}",
                key.chars().count()
            )));
        }
        match places.get(&key) {
            None => {
                places.insert(key.clone(), unique.len());
                unique.push((key, value));
            }
            Some(&place) if write_once && unique[place].1 != value => {
                return Err(TrackingError::invalid(format!(
                    "Duplicate parameter keys have been submitted: ['{key}']. Please ensure the request contains only one \
                     param value per param key."
                )));
            }
            Some(&place) => unique[place].1 = value,
        }
    }
    Ok(unique)
}

fn number_of(
    tx: &ReadTx<'_>,
    caller: &Caller,
    model_id: &str,
    deleted_too: bool,
) -> std::result::Result<Option<i64>, StoreError> {
    let found = logged_models::find(tx, &caller.workspace, model_id)?;
    Ok(found
        .filter(|(_, deleted)| deleted_too || !deleted)
        .map(|(number, _)| number))
}

impl Tracking {
    /// Announces a model whose files are about to be written.
    pub async fn create_logged_model(
        &self,
        caller: &Caller,
        request: CreateLoggedModel,
    ) -> Result<LoggedModel> {
        if let Some(name) = &request.name {
            check_name(name)?;
        }
        let params = by_key(request.params, "Param", true)?;
        let tags = by_key(request.tags, "Tag", false)?;
        let experiment = validate::experiment_id(&request.experiment_id)?;
        let model_id = format!("m-{}", ids::fresh(self.now()));
        let name = request.name.unwrap_or_else(|| run_names::of(&model_id));
        let (workspace, now_ms) = (caller.workspace.clone(), self.now_ms());
        let change = move |tx: &mut Tx<'_>| {
            let Some(experiment) = experiments::head(tx, &workspace, experiment)? else {
                return Ok(Err(no_experiment(experiment)));
            };
            if let Some(refusal) = not_active(&experiment) {
                return Ok(Err(refusal));
            }
            let folder = format!("models/{model_id}/artifacts");
            let artifact_location = locations::append(&experiment.artifact_location, &folder);
            let model = NewLoggedModel {
                model_id,
                experiment: experiment.id,
                name,
                model_type: request.model_type,
                source_run_id: request.source_run_id,
                artifact_location,
                created_ms: now_ms,
                tags,
                params,
            };
            let number = logged_models::insert(tx, &model)?;
            Ok(Ok(logged_models::get(tx, number)?))
        };
        self.store().write(change).await?
    }

    /// A model; a deleted one only if `deleted_too`.
    pub async fn logged_model(
        &self,
        caller: &Caller,
        model_id: &str,
        deleted_too: bool,
    ) -> Result<LoggedModel> {
        let (caller, id) = (caller.clone(), model_id.to_owned());
        let found = self
            .store()
            .read(move |tx| match number_of(tx, &caller, &id, deleted_too)? {
                Some(number) => Ok(logged_models::load(tx, &[number])?.pop()),
                None => Ok(None),
            })
            .await?;
        found.ok_or_else(|| not_found(model_id))
    }

    /// Says how far a model's files have come.
    pub async fn finalize_logged_model(
        &self,
        caller: &Caller,
        model_id: &str,
        status: LoggedModelStatus,
    ) -> Result<LoggedModel> {
        let now_ms = self.now_ms();
        self.change_logged_model(caller, model_id, move |tx, number| {
            logged_models::set_status(tx, number, status, now_ms)?;
            Ok(Ok(logged_models::get(tx, number)?))
        })
        .await
    }

    /// Marks a model as deleted; its files stay until it is purged.
    pub async fn delete_logged_model(&self, caller: &Caller, model_id: &str) -> Result<()> {
        let now_ms = self.now_ms();
        self.change_logged_model(caller, model_id, move |tx, number| {
            logged_models::delete(tx, number, now_ms).map(Ok)
        })
        .await
    }

    /// Sets tags; returns the model.
    pub async fn set_logged_model_tags(
        &self,
        caller: &Caller,
        model_id: &str,
        tags: Vec<(String, String)>,
    ) -> Result<LoggedModel> {
        let tags = by_key(tags, "Tag", false)?;
        self.change_logged_model(caller, model_id, move |tx, number| {
            logged_models::set_tags(tx, number, &tags)?;
            Ok(Ok(logged_models::get(tx, number)?))
        })
        .await
    }

    /// Removes a tag.
    pub async fn delete_logged_model_tag(&self, caller: &Caller, model_id: &str, key: &str) -> Result<()> {
        let missing = TrackingError::not_found(format!(
            "No tag with key '{key}' found for model with ID '{model_id}'."
        ));
        let key = key.to_owned();
        self.change_logged_model(caller, model_id, move |tx, number| {
            let was_there = logged_models::delete_tag(tx, number, &key)?;
            Ok(if was_there { Ok(()) } else { Err(missing) })
        })
        .await
    }

    /// Adds parameters; what is written stays.
    pub async fn log_logged_model_params(
        &self,
        caller: &Caller,
        model_id: &str,
        params: Vec<(String, String)>,
    ) -> Result<()> {
        let params = by_key(params, "Param", true)?;
        let id = model_id.to_owned();
        self.change_logged_model(caller, model_id, move |tx, number| {
            let Some((key, there)) = logged_models::add_params(tx, number, &params)? else {
                return Ok(Ok(()));
            };
            Ok(Err(TrackingError::invalid(format!(
                "Changing param values is not allowed. Param with key='{key}' was already logged with value='{there}' for \
                 model ID='{id}'."
            ))))
        })
        .await
    }

    /// One transaction on a model that is not deleted. What `change` refuses it must refuse before it writes.
    async fn change_logged_model<T: Send + 'static>(
        &self,
        caller: &Caller,
        model_id: &str,
        change: impl FnOnce(&mut Tx<'_>, i64) -> Outcome<T> + Send + 'static,
    ) -> Result<T> {
        let (caller, id) = (caller.clone(), model_id.to_owned());
        let work = move |tx: &mut Tx<'_>| match number_of(tx, &caller, &id, false)? {
            Some(number) => change(tx, number),
            None => Ok(Err(not_found(&id))),
        };
        self.store().write(work).await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_refused_in_mlflows_words() {
        let text = check_name("a/b").unwrap_err().to_string();
        assert_eq!(
            text,
            "Invalid model name ('a/b') provided. Model name must be a non-empty string and cannot contain the following \
             characters: ('/', ':', '.', '%', '\"', \"'\")"
        );
        assert!(check_name("").is_err() && check_name("a b-c").is_ok());
    }
}
