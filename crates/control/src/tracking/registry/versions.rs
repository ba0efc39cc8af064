//! Model versions.

use serde_json::json;
use tidemill_store::ReadTx;
use tidemill_store::registry::{self, NewVersion, Version};

use super::sources::{self, ModelsUri, Origin};
use super::{PROMPT_TAG, model, model_number, moves, names, version};
use crate::tracking::{Caller, Result, Tracking, TrackingError, automations, webhooks};

/// What a client says of a version that it registers. Empty texts are as good as none.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CreateVersion {
    /// Of which model.
    pub name: String,
    /// Where its files are.
    pub source: String,
    /// The run behind it.
    pub run_id: String,
    /// Where that run can be seen.
    pub run_link: String,
    /// The logged model behind it.
    pub model_id: String,
    /// For people.
    pub description: String,
    /// By key.
    pub tags: Vec<(String, String)>,
}

fn given(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

impl Tracking {
    /// Registers a version under the model's next number.
    pub async fn create_model_version(&self, caller: &Caller, new: CreateVersion) -> Result<Version> {
        names::model_name(&new.name, "name")?;
        for (key, value) in &new.tags {
            names::tag(key, value)?;
        }
        let (workspace, who) = (caller.workspace.clone(), self.who(caller));
        let (user_id, strict) = (caller.user.clone(), self.options().strict_sources);
        let created = self
            .change(move |tx| {
                let prompt = new.tags.iter().any(|(key, _)| key == PROMPT_TAG);
                let origin = Origin {
                    workspace: &workspace,
                    run_id: &new.run_id,
                    model_id: &new.model_id,
                    strict,
                };
                if prompt {
                    sources::check_prompt(&new.source)?;
                } else {
                    sources::check(tx, &origin, &new.source)?;
                }
                let number = model_number(tx, &workspace, &new.name)?;
                let located = locate(tx, &workspace, &new.source)?;
                let mut run_id = given(new.run_id).or(located.run_id);
                let logged = match new.model_id.as_str() {
                    "" => None,
                    id => {
                        Some(registry::logged_model(tx, &workspace, id)?.ok_or_else(|| no_logged_model(id))?)
                    }
                };
                if run_id.is_none() {
                    run_id = logged
                        .as_ref()
                        .and_then(|logged| given(logged.source_run_id.clone()));
                }
                let tags = webhooks::tag_map(&new.tags);
                let row = NewVersion {
                    user_id,
                    source: new.source.clone(),
                    storage_location: located.storage_location,
                    run_id: run_id.clone(),
                    run_link: given(new.run_link),
                    model_id: given(new.model_id).or(located.model_id),
                    description: new.description.clone(),
                    tags: new.tags,
                };
                let created = registry::create_version(tx, number, &row, &who)?;
                if let Some(logged) = &logged {
                    registry::add_version_to_logged_model(tx, logged.number, &new.name, created)?;
                }
                if !prompt {
                    let data = json!({
                        "name": new.name,
                        "version": created.to_string(),
                        "source": new.source,
                        "run_id": run_id,
                        "tags": tags,
                        "description": given(new.description),
                    });
                    webhooks::tell(tx, &workspace, "model_version.created", data)?;
                }
                let subject = format!("{}/{created}", new.name);
                let payload = json!({ "version": created, "by": who.by, "run": run_id });
                tx.event(who.at, "version.registered", "version", &subject, payload)?;
                version(tx, &workspace, &new.name, created)
            })
            .await?;
        self.webhooks_written();
        Ok(created)
    }

    /// A version.
    pub async fn get_model_version(&self, caller: &Caller, name: String, number: String) -> Result<Version> {
        let number = names::version(&number)?;
        let workspace = caller.workspace.clone();
        self.look(move |tx| version(tx, &workspace, &name, number)).await
    }

    /// Where a version's files are.
    pub async fn get_model_version_download_uri(
        &self,
        caller: &Caller,
        name: String,
        number: String,
    ) -> Result<String> {
        let found = self.get_model_version(caller, name, number).await?;
        Ok(found.storage_location.unwrap_or(found.source))
    }

    /// The highest version of each of these stages, or of every stage.
    pub async fn get_latest_versions(
        &self,
        caller: &Caller,
        name: String,
        stages: Vec<String>,
    ) -> Result<Vec<Version>> {
        let wanted: Vec<&'static str> = if stages.is_empty() {
            names::STAGES.to_vec()
        } else {
            stages
                .iter()
                .map(|stage| names::stage(stage))
                .collect::<Result<_>>()?
        };
        let found = self.get_registered_model(caller, name).await?.latest;
        Ok(found
            .into_iter()
            .filter(|version| wanted.contains(&version.stage.as_str()))
            .collect())
    }

    /// Says what a version is.
    pub async fn update_model_version(
        &self,
        caller: &Caller,
        name: String,
        number: String,
        description: String,
    ) -> Result<Version> {
        let number = names::version(&number)?;
        let (workspace, now) = (caller.workspace.clone(), self.now());
        self.change(move |tx| {
            let found = version(tx, &workspace, &name, number)?;
            registry::describe_version(tx, (found.model, number), &description, now)?;
            version(tx, &workspace, &name, number)
        })
        .await
    }

    /// Removes a version; its number does not come back.
    pub async fn delete_model_version(&self, caller: &Caller, name: String, number: String) -> Result<()> {
        let number = names::version(&number)?;
        let (workspace, who) = (caller.workspace.clone(), self.who(caller));
        self.change(move |tx| {
            let found = version(tx, &workspace, &name, number)?;
            let of = model(tx, &workspace, &name)?;
            moves::refuse_if_in_use(tx, &of, number)?;
            registry::delete_version(tx, &of, &found, &who)?;
            let subject = format!("{name}/{number}");
            tx.event(
                who.at,
                "version.deleted",
                "version",
                &subject,
                json!({ "by": who.by }),
            )?;
            Ok(())
        })
        .await
    }

    /// Sets a tag of a version.
    pub async fn set_model_version_tag(
        &self,
        caller: &Caller,
        (name, number): (String, String),
        key: String,
        value: String,
    ) -> Result<()> {
        let parsed = names::version(&number)?;
        names::tag(&key, &value)?;
        let workspace = caller.workspace.clone();
        self.change(move |tx| {
            let found = version(tx, &workspace, &name, parsed)?;
            registry::set_version_tag(tx, found.model, parsed, &key, &value)?;
            automations::fire_model_tag(tx, &workspace, (&name, Some(&number)), (&key, &value))?;
            let data = json!({ "name": name, "version": number, "key": key, "value": value });
            webhooks::tell(tx, &workspace, "model_version_tag.set", data)
        })
        .await?;
        self.webhooks_written();
        Ok(())
    }

    /// Removes a tag of a version, if it is there.
    pub async fn delete_model_version_tag(
        &self,
        caller: &Caller,
        (name, number): (String, String),
        key: String,
    ) -> Result<()> {
        let parsed = names::version(&number)?;
        names::tag_key(&key)?;
        let workspace = caller.workspace.clone();
        self.change(move |tx| {
            let found = version(tx, &workspace, &name, parsed)?;
            registry::delete_version_tag(tx, found.model, parsed, &key)?;
            let data = json!({ "name": name, "version": number, "key": key });
            webhooks::tell(tx, &workspace, "model_version_tag.deleted", data)
        })
        .await?;
        self.webhooks_written();
        Ok(())
    }
}

fn no_logged_model(id: &str) -> TrackingError {
    TrackingError::not_found(format!("Logged model with ID '{id}' not found."))
}

#[derive(Default)]
struct Located {
    storage_location: Option<String>,
    run_id: Option<String>,
    model_id: Option<String>,
}

/// Where the files are that a source names, if it names another model's.
fn locate(tx: &ReadTx<'_>, workspace: &str, source: &str) -> Result<Located> {
    let Some(uri) = sources::models_uri(source)? else {
        return Ok(Located {
            storage_location: Some(source.to_owned()),
            ..Located::default()
        });
    };
    let unreachable = |error: &TrackingError| {
        TrackingError::invalid(format!(
            "Unable to fetch model from model URI source artifact location '{source}'.Error: {error}"
        ))
    };
    match uri {
        ModelsUri::Id(id) => {
            let found = registry::logged_model(tx, workspace, &id)?
                .ok_or_else(|| unreachable(&no_logged_model(&id)))?;
            Ok(Located {
                storage_location: Some(found.artifact_location),
                run_id: given(found.source_run_id),
                model_id: Some(id),
            })
        }
        ModelsUri::Version(name, number) => {
            let found = version(tx, workspace, &name, number).map_err(|error| unreachable(&error))?;
            Ok(from_version(found))
        }
        ModelsUri::Alias(name, alias) => {
            let of = model_number(tx, workspace, &name).map_err(|error| unreachable(&error))?;
            let number = registry::alias_target(tx, of, &alias)?
                .ok_or_else(|| unreachable(&moves::no_alias(&alias)))?;
            Ok(from_version(version(tx, workspace, &name, number)?))
        }
        ModelsUri::Stage(name, stage) => {
            let of = model(tx, workspace, &name).map_err(|error| unreachable(&error))?;
            let stage = stage.as_deref().map(names::stage).transpose()?;
            let found = of
                .latest
                .into_iter()
                .filter(|version| stage.is_none_or(|stage| version.stage == stage))
                .max_by_key(|version| version.version);
            let missing = TrackingError::not_found(format!("No versions of model with name '{name}' found"));
            found.map(from_version).ok_or_else(|| unreachable(&missing))
        }
    }
}

fn from_version(version: Version) -> Located {
    Located {
        storage_location: Some(version.storage_location.unwrap_or(version.source)),
        run_id: None,
        model_id: version.model_id,
    }
}
