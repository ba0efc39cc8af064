//! Links: versions of artifacts in portfolios, which is what W&B's registries and `link_artifact` make. A portfolio is a collection of its
//! own, in a project of its own; what a link stands for stays where it is.

use serde_json::json;
use tidemill_store::wandb::artifacts::{self, ArtifactState, Collection};
use tidemill_store::wandb::links::{self, Link};
use tidemill_store::wandb::runs::WandbName;
use tidemill_store::{ReadTx, Tx};

use super::artifacts::{ArtifactView, Stored, find, of_workspace, unknown};
use crate::tracking::{Caller, Result, Tracking, TrackingError};

/// The alias of what was linked last.
const LATEST: &str = "latest";

/// A version under one of its names: in its own collection, or in a portfolio.
#[derive(Clone, PartialEq, Debug)]
pub struct Membership {
    /// The collection that names it.
    pub collection: Collection,
    /// Whether that is a portfolio.
    pub is_link: bool,
    /// Its version there.
    pub version: i64,
    /// What it is called there.
    pub aliases: Vec<String>,
    /// Since when.
    pub created_ms: i64,
    /// The version itself.
    pub view: ArtifactView,
}

/// A version to link, and to where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewLink {
    /// Entity and project of the portfolio.
    pub at: WandbName,
    /// The portfolio.
    pub portfolio: String,
    /// The version's number.
    pub artifact: i64,
    /// What to call it there.
    pub aliases: Vec<String>,
}

fn membership(tx: &ReadTx<'_>, link: Link, view: ArtifactView) -> Stored<Membership> {
    Ok(Membership {
        collection: artifacts::collection(tx, link.collection)?,
        is_link: true,
        version: link.version,
        aliases: links::aliases(tx, link.collection, link.artifact)?,
        created_ms: link.created_ms,
        view,
    })
}

fn make(tx: &mut Tx<'_>, new: &NewLink, now_ms: i64) -> Stored<Result<Membership>> {
    let at = &new.at;
    let Some(found) = of_workspace(tx, &at.workspace, new.artifact)? else {
        return Ok(Err(unknown(&new.artifact.to_string())));
    };
    if found.artifact.state != ArtifactState::Committed {
        return Ok(Err(TrackingError::InvalidState(format!(
            "artifact `{}` is not whole yet",
            found.collection.name
        ))));
    }
    let known = artifacts::find_collection(tx, &at.workspace, &at.entity, &at.project, &new.portfolio)?;
    let portfolio = match known {
        Some(known) if known.is_portfolio => known,
        Some(known) => {
            return Ok(Err(TrackingError::Conflict(format!(
                "`{}` has versions of its own: nothing can be linked into it",
                known.name
            ))));
        }
        None => {
            let wanted = Collection {
                number: 0,
                workspace: at.workspace.clone(),
                entity: at.entity.clone(),
                project: at.project.clone(),
                name: new.portfolio.clone(),
                kind: found.collection.kind.clone(),
                created_ms: now_ms,
                is_portfolio: true,
            };
            let made = artifacts::ensure_collection(tx, &wanted)?;
            links::make_portfolio(tx, made.number)?;
            made
        }
    };
    if portfolio.kind != found.collection.kind {
        return Ok(Err(TrackingError::Conflict(format!(
            "`{}` holds artifacts of the type `{}`, not `{}`",
            portfolio.name, portfolio.kind, found.collection.kind
        ))));
    }
    let number = found.artifact.number;
    let link = links::link(tx, portfolio.number, number, now_ms)?;
    for alias in new.aliases.iter().map(String::as_str).chain([LATEST]) {
        artifacts::set_alias(tx, portfolio.number, alias, number)?;
    }
    membership(tx, link, found).map(Ok)
}

impl Tracking {
    /// Links a version into a portfolio, which is made if there is none.
    pub async fn wandb_link(&self, new: NewLink) -> Result<Membership> {
        let (now, now_ms) = (self.now(), self.now_ms());
        self.store()
            .write(move |tx| {
                let made = make(tx, &new, now_ms)?;
                if let Ok(made) = &made {
                    let source = &made.view.collection;
                    let payload = json!({
                        "name": made.collection.name, "project": made.collection.project, "version": made.version,
                        "aliases": made.aliases, "source": source.name, "source_version": made.view.artifact.version,
                    });
                    tx.event(now, "artifact.linked", "artifact", &made.collection.name, payload)?;
                }
                Ok(made)
            })
            .await?
    }

    /// A version by a name of its collection or of a portfolio, and an alias or version there.
    pub async fn wandb_membership(&self, at: WandbName, full: &str) -> Result<Option<Membership>> {
        let full = full.to_owned();
        let found = self
            .store()
            .read(move |tx| {
                let Some(found) = find(tx, &at, &full)? else {
                    return Ok(None);
                };
                let name = full.split_once(':').map_or(full.as_str(), |(name, _)| name);
                let named = artifacts::find_collection(tx, &at.workspace, &at.entity, &at.project, name)?;
                if let Some(named) = named
                    && let Some(link) = links::of(tx, named.number, found.artifact.number)?
                {
                    return membership(tx, link, found).map(Some);
                }
                Ok(Some(Membership {
                    collection: found.collection.clone(),
                    is_link: false,
                    version: found.artifact.version.unwrap_or_default(),
                    aliases: found.aliases.clone(),
                    created_ms: found.artifact.updated_ms,
                    view: found,
                }))
            })
            .await?;
        Ok(found)
    }

    /// The links to a version.
    pub async fn wandb_links(&self, caller: &Caller, number: i64) -> Result<Vec<Membership>> {
        let found = self.wandb_artifact(caller, number).await?;
        Ok(self
            .store()
            .read(move |tx| {
                let listed = links::to(tx, number)?;
                let listed = listed.into_iter().map(|link| membership(tx, link, found.clone()));
                listed.collect()
            })
            .await?)
    }

    /// Removes a link; the version stays where it is.
    pub async fn wandb_unlink(&self, caller: &Caller, portfolio: i64, number: i64) -> Result<()> {
        self.wandb_artifact(caller, number).await?;
        let there = self
            .store()
            .write(move |tx| links::unlink(tx, portfolio, number))
            .await?;
        if there {
            Ok(())
        } else {
            Err(TrackingError::not_found("the artifact is not linked there"))
        }
    }

    /// Gives a version aliases in a portfolio, or takes them; `false` if `name` is no portfolio that has it.
    pub async fn wandb_alias_link(
        &self,
        at: WandbName,
        name: &str,
        number: i64,
        aliases: Vec<String>,
        add: bool,
    ) -> Result<bool> {
        let name = name.to_owned();
        let done = self
            .store()
            .write(move |tx| {
                let named = artifacts::find_collection(tx, &at.workspace, &at.entity, &at.project, &name)?;
                let Some(named) = named else {
                    return Ok(false);
                };
                if links::of(tx, named.number, number)?.is_none() {
                    return Ok(false);
                }
                for alias in &aliases {
                    if add {
                        artifacts::set_alias(tx, named.number, alias, number)?;
                    } else {
                        artifacts::remove_alias(tx, named.number, alias, number)?;
                    }
                }
                Ok(true)
            })
            .await?;
        Ok(done)
    }
}
