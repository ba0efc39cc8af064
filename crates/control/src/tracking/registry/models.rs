//! Registered models.

use serde_json::json;
use tidemill_store::registry::{self, Model};
use tidemill_store::users as rows;

use super::{APPROVAL_TAG, PROMPT_TAG, REQUIRED, is_prompt, model, model_number, moves, names};
use crate::tracking::{Caller, Result, Tracking, TrackingError, automations, webhooks};
use crate::users::{REGISTERED_MODEL, give_to_creator};

impl Tracking {
    /// Registers a model.
    pub async fn create_registered_model(
        &self,
        caller: &Caller,
        name: String,
        tags: Vec<(String, String)>,
        description: String,
    ) -> Result<Model> {
        names::new_model_name(&name, "name")?;
        for (key, value) in &tags {
            names::tag(key, value)?;
        }
        let (workspace, who) = (caller.workspace.clone(), self.who(caller));
        let creator = self.creator(caller).map(str::to_owned);
        let created = self
            .change(move |tx| {
                let prompt = tags.iter().any(|(key, _)| key == PROMPT_TAG);
                if registry::find(tx, &workspace, &name)?.is_some() {
                    let existing = is_prompt(&model(tx, &workspace, &name)?);
                    return Err(TrackingError::AlreadyExists(taken(&name, existing, prompt)));
                }
                let number = registry::create(tx, &workspace, &name, &description, &tags, &who)?;
                if !prompt {
                    let data = json!({
                        "name": name,
                        "tags": webhooks::tag_map(&tags),
                        "description": description,
                    });
                    webhooks::tell(tx, &workspace, "registered_model.created", data)?;
                }
                tx.event(who.at, "model.created", "model", &name, json!({ "by": who.by }))?;
                let _ = number;
                give_to_creator(tx, creator.as_deref(), &workspace, REGISTERED_MODEL, &name)?;
                model(tx, &workspace, &name)
            })
            .await?;
        self.users().changed();
        self.webhooks_written();
        Ok(created)
    }

    /// A model.
    pub async fn get_registered_model(&self, caller: &Caller, name: String) -> Result<Model> {
        names::model_name(&name, "name")?;
        let workspace = caller.workspace.clone();
        self.look(move |tx| model(tx, &workspace, &name)).await
    }

    /// Gives a model another name.
    pub async fn rename_registered_model(
        &self,
        caller: &Caller,
        name: String,
        new_name: String,
    ) -> Result<Model> {
        names::new_model_name(&new_name, "new_name")?;
        let (workspace, who) = (caller.workspace.clone(), self.who(caller));
        let renamed = self
            .change(move |tx| {
                let before = model(tx, &workspace, &name)?;
                moves::refuse_if_served(tx, &before, "renamed")?;
                if new_name != name && registry::find(tx, &workspace, &new_name)?.is_some() {
                    return Err(TrackingError::AlreadyExists(format!(
                        "Registered Model (name={new_name}) already exists."
                    )));
                }
                registry::rename(tx, &before, &new_name, &who)?;
                rows::rename_grants_of_resource(
                    tx,
                    &workspace,
                    crate::users::REGISTERED_MODEL,
                    &name,
                    &new_name,
                )?;
                let payload = json!({ "from": name, "by": who.by });
                tx.event(who.at, "model.renamed", "model", &new_name, payload)?;
                model(tx, &workspace, &new_name)
            })
            .await;
        self.users().changed();
        renamed
    }

    /// Says what a model is for.
    pub async fn update_registered_model(
        &self,
        caller: &Caller,
        name: String,
        description: String,
    ) -> Result<Model> {
        let (workspace, now) = (caller.workspace.clone(), self.now());
        self.change(move |tx| {
            let number = model_number(tx, &workspace, &name)?;
            registry::describe(tx, number, &description, now)?;
            model(tx, &workspace, &name)
        })
        .await
    }

    /// Removes a model and its versions.
    pub async fn delete_registered_model(&self, caller: &Caller, name: String) -> Result<()> {
        let (workspace, who) = (caller.workspace.clone(), self.who(caller));
        let deleted = self
            .change(move |tx| {
                let found = model(tx, &workspace, &name)?;
                moves::refuse_if_served(tx, &found, "deleted")?;
                registry::delete(tx, &found, &who)?;
                // Another of its name must not inherit who could do what.
                rows::delete_grants_of_resource(tx, &workspace, crate::users::REGISTERED_MODEL, &name)?;
                tx.event(who.at, "model.deleted", "model", &name, json!({ "by": who.by }))?;
                Ok(())
            })
            .await;
        self.users().changed();
        deleted
    }

    /// Sets a tag of a model.
    pub async fn set_registered_model_tag(
        &self,
        caller: &Caller,
        name: String,
        key: String,
        value: String,
    ) -> Result<()> {
        names::tag(&key, &value)?;
        let (workspace, who) = (caller.workspace.clone(), self.who(caller));
        self.change(move |tx| {
            let number = model_number(tx, &workspace, &name)?;
            if key == APPROVAL_TAG {
                let kind = if value == REQUIRED {
                    "approval_required"
                } else {
                    "approval_lifted"
                };
                registry::note(
                    tx,
                    &registry::Happened::new(&workspace, &name, number, kind),
                    &who,
                )?;
            }
            registry::set_tag(tx, number, &key, &value)?;
            Ok(automations::fire_model_tag(
                tx,
                &workspace,
                (&name, None),
                (&key, &value),
            )?)
        })
        .await?;
        self.webhooks_written();
        Ok(())
    }

    /// Removes a tag of a model, if it is there.
    pub async fn delete_registered_model_tag(
        &self,
        caller: &Caller,
        name: String,
        key: String,
    ) -> Result<()> {
        names::tag_key(&key)?;
        let (workspace, who) = (caller.workspace.clone(), self.who(caller));
        self.change(move |tx| {
            let number = model_number(tx, &workspace, &name)?;
            if key == APPROVAL_TAG {
                let happened = registry::Happened::new(&workspace, &name, number, "approval_lifted");
                registry::note(tx, &happened, &who)?;
            }
            Ok(registry::delete_tag(tx, number, &key)?)
        })
        .await
    }
}

fn taken(name: &str, existing_is_prompt: bool, new_is_prompt: bool) -> String {
    let word = |prompt| if prompt { "Prompt" } else { "Registered Model" };
    let (old, new) = (word(existing_is_prompt), word(new_is_prompt));
    if old == new {
        return format!("{new} (name={name}) already exists.");
    }
    format!(
        "Tried to create a {} with name '{name}', but the name is already taken by a {}. MLflow does not allow creating a model \
         and a prompt with the same name.",
        new.to_lowercase(),
        old.to_lowercase()
    )
}
