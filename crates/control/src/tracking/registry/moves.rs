//! Moves of aliases and stages, and what stands in their way: an endpoint that serves by the alias, or an approval that is missing.

use serde_json::json;
use tidemill_store::registry::{self, Model, Move, Version, Who};
use tidemill_store::{ReadTx, Tx, endpoints};

use super::{APPROVAL_TAG, REQUIRED, Target, model, names, version};
use crate::tracking::automations::{self, Event, Facts};
use crate::tracking::{Caller, DEFAULT_WORKSPACE, Result, Tracking, TrackingError, webhooks};

/// The aliases that the loop moves by itself.
const OF_THE_LOOP: [&str; 2] = ["champion", "challenger"];

impl Tracking {
    /// Points an alias at a version.
    pub async fn set_registered_model_alias(
        &self,
        caller: &Caller,
        name: String,
        alias: String,
        number: String,
    ) -> Result<()> {
        names::new_alias(&alias)?;
        let parsed = names::version(&number)?;
        let (workspace, who) = (caller.workspace.clone(), self.who(caller));
        self.change(move |tx| {
            let found = version(tx, &workspace, &name, parsed)?;
            let of = model(tx, &workspace, &name)?;
            refuse_without_approval(&of, Some(parsed), &Target::Alias(alias.clone()))?;
            move_alias(tx, &of, &alias, Some(&found), &who)
        })
        .await?;
        self.webhooks_written();
        Ok(())
    }

    /// Removes an alias, if it is there.
    pub async fn delete_registered_model_alias(
        &self,
        caller: &Caller,
        name: String,
        alias: String,
    ) -> Result<()> {
        names::alias(&alias)?;
        let (workspace, who) = (caller.workspace.clone(), self.who(caller));
        self.change(move |tx| {
            let of = model(tx, &workspace, &name)?;
            refuse_without_approval(&of, None, &Target::Alias(alias.clone()))?;
            move_alias(tx, &of, &alias, None, &who)
        })
        .await?;
        self.webhooks_written();
        Ok(())
    }

    /// The version that an alias names. `latest` is the highest.
    pub async fn get_model_version_by_alias(
        &self,
        caller: &Caller,
        name: String,
        alias: String,
    ) -> Result<Version> {
        names::alias(&alias)?;
        let workspace = caller.workspace.clone();
        self.look(move |tx| {
            let of = model(tx, &workspace, &name)?;
            if alias.eq_ignore_ascii_case("latest") {
                let highest = of.latest.into_iter().max_by_key(|version| version.version);
                return highest.ok_or_else(|| {
                    TrackingError::not_found(format!("Latest version not found for model {name}."))
                });
            }
            let target = of.aliases.iter().find(|(known, _)| *known == alias);
            let (_, number) = target.ok_or_else(|| no_alias(&alias))?;
            version(tx, &workspace, &name, *number)
        })
        .await
    }

    /// Puts a version into a stage, and others of that stage into the archive if asked to.
    pub async fn transition_model_version_stage(
        &self,
        caller: &Caller,
        (name, number): (String, String),
        stage: String,
        archive_existing: bool,
    ) -> Result<Version> {
        let canonical = names::stage(&stage)?;
        if archive_existing && !["Staging", "Production"].contains(&canonical) {
            return Err(TrackingError::invalid(format!(
                "Model version transition cannot archive existing model versions because '{stage}' is not an Active stage. \
                 Valid stages are ['Staging', 'Production']"
            )));
        }
        let parsed = names::version(&number)?;
        let (workspace, who) = (caller.workspace.clone(), self.who(caller));
        let moved = self
            .change(move |tx| {
                let found = version(tx, &workspace, &name, parsed)?;
                let of = model(tx, &workspace, &name)?;
                refuse_without_approval(&of, Some(parsed), &Target::Stage(canonical.to_owned()))?;
                move_stage(tx, &of, canonical, &found, archive_existing, &who)?;
                version(tx, &workspace, &name, parsed)
            })
            .await?;
        self.webhooks_written();
        Ok(moved)
    }
}

pub(super) fn no_alias(alias: &str) -> TrackingError {
    TrackingError::invalid(format!("Registered model alias {alias} not found."))
}

/// Moves an alias and tells of it.
pub(super) fn move_alias(
    tx: &mut Tx<'_>,
    of: &Model,
    alias: &str,
    to: Option<&Version>,
    who: &Who,
) -> Result<()> {
    refuse_if_the_loops(tx, of, alias)?;
    let change = Move {
        model: of,
        target: alias,
        decision: None,
    };
    let target = to.map(|version| version.version);
    if registry::move_alias(tx, &change, target, who)? {
        let payload = json!({ "alias": alias, "version": target, "by": who.by, "reason": who.why });
        tx.event(who.at, "alias.moved", "model", &of.name, payload)?;
        if let Some(version) = target {
            let data = json!({
                "name": of.name, "alias": alias, "version": version.to_string(), "by": who.by, "reason": who.why,
            });
            automations::fire_alias(tx, &of.workspace, (&of.name, alias), &data)?;
        }
    }
    let (event, data) = match target {
        Some(version) => (
            "model_version_alias.created",
            json!({ "name": of.name, "alias": alias, "version": version.to_string() }),
        ),
        None => (
            "model_version_alias.deleted",
            json!({ "name": of.name, "alias": alias }),
        ),
    };
    webhooks::tell(tx, &of.workspace, event, data)
}

/// Moves a version into a stage.
pub(super) fn move_stage(
    tx: &mut Tx<'_>,
    of: &Model,
    stage: &str,
    version: &Version,
    archive_existing: bool,
    who: &Who,
) -> Result<()> {
    let into = |target| Move {
        model: of,
        target,
        decision: None,
    };
    if archive_existing {
        for other in registry::versions_in_stage(tx, of.number, stage)? {
            if other != version.version {
                registry::move_stage(tx, &into("Archived"), other, stage, who)?;
                tell_of_stage(tx, of, other, (stage, "Archived"), who)?;
            }
        }
    }
    registry::move_stage(tx, &into(stage), version.version, &version.stage, who)?;
    let subject = format!("{}/{}", of.name, version.version);
    let payload = json!({ "from": version.stage, "to": stage, "by": who.by, "reason": who.why });
    tx.event(who.at, "version.stage_moved", "version", &subject, payload)?;
    if version.stage != stage {
        tell_of_stage(tx, of, version.version, (&version.stage, stage), who)?;
    }
    Ok(())
}

fn tell_of_stage(
    tx: &mut Tx<'_>,
    of: &Model,
    version: i64,
    (from, to): (&str, &str),
    who: &Who,
) -> Result<()> {
    let facts = Facts {
        model: Some(&of.name),
        stage: Some(to),
        ..Facts::default()
    };
    let data = json!({
        "name": of.name, "version": version.to_string(), "from": from, "to": to, "by": who.by, "reason": who.why,
    });
    Ok(automations::fire(
        tx,
        &of.workspace,
        Event::StageTransitioned,
        &facts,
        &data,
    )?)
}

/// The endpoint that serves a model, if one does.
fn endpoint_of(tx: &ReadTx<'_>, of: &Model) -> Result<Option<endpoints::EndpointRow>> {
    if of.workspace != DEFAULT_WORKSPACE {
        return Ok(None);
    }
    let all = endpoints::list(tx)?;
    Ok(all.into_iter().find(|row| row.model.as_str() == of.name))
}

/// The loop's own aliases say who serves; moved alone they would say what is not so.
fn refuse_if_the_loops(tx: &ReadTx<'_>, of: &Model, alias: &str) -> Result<()> {
    if !OF_THE_LOOP.contains(&alias) {
        return Ok(());
    }
    let Some(endpoint) = endpoint_of(tx, of)? else {
        return Ok(());
    };
    Err(TrackingError::invalid(format!(
        "alias `{alias}` of model `{}` says what endpoint `{}` serves, so it moves with the endpoint only: use `tidemill promote VERSION \
         --why …` or `POST /api/v1/endpoints/{1}/promote`",
        of.name, endpoint.name
    )))
}

/// A model that an endpoint serves cannot go.
pub(super) fn refuse_if_served(tx: &ReadTx<'_>, of: &Model, what: &str) -> Result<()> {
    let Some(endpoint) = endpoint_of(tx, of)? else {
        return Ok(());
    };
    Err(TrackingError::invalid(format!(
        "model `{}` belongs to endpoint `{}` of this project and cannot be {what}",
        of.name, endpoint.name
    )))
}

/// A version that answers, may have to answer, or is compared with cannot go.
pub(super) fn refuse_if_in_use(tx: &ReadTx<'_>, of: &Model, number: i64) -> Result<()> {
    let Some(row) = endpoint_of(tx, of)? else {
        return Ok(());
    };
    let roles = [
        ("champion", row.champion),
        ("fallback", row.previous),
        ("baseline", row.baseline),
        ("canary", row.canary),
    ];
    let role = roles
        .into_iter()
        .find(|(_, version)| version.is_some_and(|version| i64::from(version.0) == number))
        .map(|(role, _)| role)
        .or_else(|| {
            let shadows = row.shadows.iter().any(|version| i64::from(version.0) == number);
            shadows.then_some("shadow")
        });
    match role {
        None => Ok(()),
        Some(role) => Err(TrackingError::invalid(format!(
            "version {number} of model `{}` is the {role} of endpoint `{}` and cannot be deleted: promote another version first",
            of.name, row.name
        ))),
    }
}

/// Whether moves of a model's aliases and stages need an approval.
pub(super) fn needs_approval(of: &Model) -> bool {
    of.tags
        .iter()
        .any(|(key, value)| key == APPROVAL_TAG && value == REQUIRED)
}

fn refuse_without_approval(of: &Model, version: Option<i64>, target: &Target) -> Result<()> {
    if !needs_approval(of) {
        return Ok(());
    }
    let version = version.map_or_else(|| "{version}".to_owned(), |version| version.to_string());
    Err(TrackingError::Denied(format!(
        "model `{}` requires approval for this (its tag `{APPROVAL_TAG}` is `{REQUIRED}`): ask with `POST /api/v1/models/{0}/versions/{version}\
         /requests` and the body {}",
        of.name,
        json!({ "to": target, "why": "…" })
    )))
}
