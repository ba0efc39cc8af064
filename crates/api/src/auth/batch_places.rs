//! Whether a user may send a job that reads or writes files: as for the artifacts' own routes, whichever way a place is named.

use tidemill_control::tracking::{Caller, Origin, Owners};
use tidemill_control::users::{Need, Principal, REGISTERED_MODEL};

use super::subjects::{of_owners, on_logged_model, on_run};
use super::{Refused, need};
use crate::control_plane::App;
use crate::error::{ApiError, Kind};

/// Refuses a batch job that reads or writes what its sender may not. `begun`: it also takes files whose paths only begin with the
/// location.
pub(crate) async fn check_batch_place(
    app: &App,
    known: Option<&Principal>,
    caller: &Caller,
    wanted: Need,
    location: &str,
    begun: bool,
) -> Result<(), ApiError> {
    let known = match known {
        Some(known) if known.is_admin() => return Ok(()),
        Some(known) => known,
        None if !app.tracking().requires_users() => return Ok(()),
        None => return Err(batch_place_denied(location)),
    };
    let origins = app.batch_jobs().places().origins(caller, location, begun).await?;
    for origin in &origins {
        match on_origin(app, known, caller, origin, wanted).await {
            Ok(()) => {}
            Err(Refused::Wrong(error)) => return Err(error),
            Err(_) => return Err(batch_place_denied(location)),
        }
    }
    Ok(())
}

fn batch_place_denied(location: &str) -> ApiError {
    ApiError {
        kind: Kind::Denied,
        ..ApiError::bad_request(
            "batch_place_denied",
            format!(
                "you may not use `{location}`, or not all that is there: ask whoever manages the experiments whose artifacts these are, or \
                 name another place"
            ),
        )
    }
}

/// Whether a user is permitted something by all that a location names, and by all whose files are there.
async fn on_origin(
    app: &App,
    known: &Principal,
    caller: &Caller,
    origin: &Origin,
    wanted: Need,
) -> Result<(), Refused> {
    for name in &origin.models {
        need(known.on(REGISTERED_MODEL, name, &caller.workspace).allows(wanted))?;
    }
    for run_id in &origin.runs {
        need(on_run(app, known, run_id, caller).await?.allows(wanted))?;
    }
    for model_id in &origin.logged_models {
        let permission = on_logged_model(app, known, model_id, caller).await?;
        need(permission.allows(wanted))?;
    }
    if origin.owners == Owners::Elsewhere {
        need(known.in_workspace(&caller.workspace).allows(wanted))?;
    }
    of_owners(known, &origin.owners, wanted)
}
