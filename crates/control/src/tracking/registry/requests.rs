//! Requests that a version gets an alias or a stage, and what is decided of them.

use serde::{Deserialize, Serialize};
use serde_json::json;
use tidemill_store::registry::{self, Happened, Request, RequestState, Who};
use tidemill_store::{ReadTx, Tx};

use super::{model, moves, names, version};
use crate::tracking::{Caller, Result, Tracking, TrackingError};

/// What a version is to get.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// An alias.
    Alias(String),
    /// A stage.
    Stage(String),
}

impl Target {
    fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Alias(alias) => ("alias", alias),
            Self::Stage(stage) => ("stage", stage),
        }
    }
}

impl Tracking {
    /// Asks that a version gets an alias or a stage.
    pub async fn request_move(
        &self,
        caller: &Caller,
        (name, number): (String, i64),
        target: Target,
        why: &str,
    ) -> Result<Request> {
        let target = match target {
            Target::Alias(alias) => {
                names::new_alias(&alias)?;
                Target::Alias(alias)
            }
            Target::Stage(stage) => Target::Stage(names::stage(&stage)?.to_owned()),
        };
        if why.trim().is_empty() {
            return Err(TrackingError::invalid(
                "`why` is empty: say why, for the one who decides",
            ));
        }
        let (workspace, who) = (caller.workspace.clone(), self.who_because(caller, why));
        self.change(move |tx| {
            let found = version(tx, &workspace, &name, number)?;
            let id = registry::ask(tx, (found.model, number), target.parts(), &who)?;
            let happened = Happened {
                version: Some(number),
                detail: json!({ "request": id, "to": target }),
                ..Happened::new(&workspace, &name, found.model, "requested")
            };
            registry::note(tx, &happened, &who)?;
            announce(tx, "approval.requested", &name, number, id, &who)?;
            request(tx, (found.model, number), id)
        })
        .await
    }

    /// The requests about a version, oldest first.
    pub async fn list_requests(&self, caller: &Caller, name: String, number: i64) -> Result<Vec<Request>> {
        let workspace = caller.workspace.clone();
        self.look(move |tx| {
            let found = version(tx, &workspace, &name, number)?;
            Ok(registry::list_requests(tx, (found.model, number))?)
        })
        .await
    }

    /// Grants a request, and moves what it asks for; or refuses it.
    pub async fn decide_request(
        &self,
        caller: &Caller,
        (name, number, id): (String, i64, i64),
        approve: bool,
        comment: &str,
    ) -> Result<Request> {
        let (workspace, who) = (caller.workspace.clone(), self.who_because(caller, comment));
        let user = caller.user.clone();
        let decided = self
            .change(move |tx| {
                let found = version(tx, &workspace, &name, number)?;
                let of = model(tx, &workspace, &name)?;
                let open = request(tx, (found.model, number), id)?;
                if open.state != RequestState::Open {
                    return Err(TrackingError::Conflict(format!(
                        "request {id} is {} already, by {}",
                        open.state,
                        open.decided_by.as_deref().unwrap_or("anonymous")
                    )));
                }
                if approve && !user.is_empty() && user == open.requested_by {
                    return Err(TrackingError::Denied(format!(
                        "request {id} is your own: somebody else has to approve it"
                    )));
                }
                let state = if approve { RequestState::Approved } else { RequestState::Rejected };
                registry::decide(tx, id, state, &who)?;
                let happened = Happened {
                    version: Some(number),
                    detail: json!({ "request": id, "to": { &*open.kind: open.target }, "requested_by": open.requested_by }),
                    ..Happened::new(&workspace, &name, found.model, state.as_str())
                };
                registry::note(tx, &happened, &who)?;
                if approve {
                    let mover = Who {
                        why: format!("request {id} of {}, approved by {}: {}", open.requested_by, who.by, open.why),
                        ..who.clone()
                    };
                    if open.kind == "alias" {
                        moves::move_alias(tx, &of, &open.target, Some(&found), &mover)?;
                    } else {
                        moves::move_stage(tx, &of, &open.target, &found, false, &mover)?;
                    }
                }
                announce(tx, &format!("approval.{state}"), &name, number, id, &who)?;
                request(tx, (found.model, number), id)
            })
            .await?;
        self.webhooks_written();
        Ok(decided)
    }
}

fn request(tx: &ReadTx<'_>, key: (i64, i64), id: i64) -> Result<Request> {
    registry::find_request(tx, key, id)?
        .ok_or_else(|| TrackingError::not_found(format!("there is no request {id} about this version")))
}

fn announce(tx: &mut Tx<'_>, kind: &str, name: &str, number: i64, id: i64, who: &Who) -> Result<()> {
    let payload = json!({ "request": id, "by": who.by, "reason": who.why });
    tx.event(who.at, kind, "version", &format!("{name}/{number}"), payload)?;
    Ok(())
}
