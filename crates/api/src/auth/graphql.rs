//! GraphQL's root fields, of which one request holds several: each is checked by itself, and what may not be looked at is null.

use serde_json::{Value, json};
use tidemill_control::tracking::Caller;
use tidemill_control::users::{EXPERIMENT, Need, Principal};

use super::Refused;
use super::rules::Subject;
use super::subjects::{self, permission_of};
use crate::control_plane::App;
use crate::error::ApiError;
use crate::mlflow::tracking::Fields;

/// What a root field needs.
enum Rule {
    /// Nothing: it shows nothing, or it is a search that gives what the user may look at.
    User,
    /// That the user may look at what it names.
    On(Subject),
    /// That the user may look at one of the experiments that it names.
    InExperiments,
    /// To be an administrator.
    Admin,
}

fn rule_of(field: &str) -> Rule {
    match field {
        "mlflowGetExperiment" => Rule::On(Subject::Experiment),
        "mlflowGetRun" | "mlflowListArtifacts" => Rule::On(Subject::Run),
        "mlflowGetMetricHistoryBulkInterval" => Rule::On(Subject::Runs("run_ids")),
        "mlflowSearchRuns" | "mlflowSearchDatasets" => Rule::InExperiments,
        "mlflowSearchModelVersions" | "test" | "testMutation" => Rule::User,
        _ => Rule::Admin,
    }
}

/// Whether a user may ask a root field this. Takes experiments that they may not look at out of the input.
pub(crate) async fn may_ask(
    app: &App,
    known: &Principal,
    caller: &Caller,
    field: &str,
    input: &mut Value,
) -> Result<bool, ApiError> {
    if known.is_admin() {
        return Ok(true);
    }
    let fields = Fields::of(input.clone());
    match rule_of(field) {
        Rule::On(Subject::Runs(name)) => {
            for run_id in fields.texts(name)? {
                let one = Fields::of(json!({ "run_id": run_id }));
                if !allowed(app, known, caller, Subject::Run, &one).await? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Rule::On(subject) => allowed(app, known, caller, subject, &fields).await,
        Rule::InExperiments => {
            let ids = fields.texts("experiment_ids")?;
            let mut readable = Vec::new();
            for id in &ids {
                let permission = permission_of(app, known, EXPERIMENT, id, &caller.workspace).await?;
                // The word for all of them is for the search itself to limit.
                if id == "ALL" || permission.allows(Need::Read) {
                    readable.push(id.clone());
                }
            }
            let any = ids.is_empty() || !readable.is_empty();
            if let Some(input) = input.as_object_mut() {
                input.insert("experiment_ids".to_owned(), json!(readable));
            }
            Ok(any)
        }
        Rule::User => Ok(true),
        Rule::Admin => Ok(false),
    }
}

async fn allowed(
    app: &App,
    known: &Principal,
    caller: &Caller,
    subject: Subject,
    fields: &Fields,
) -> Result<bool, ApiError> {
    match subjects::on(app, Need::Read, subject, known, caller, fields).await {
        Ok(()) => Ok(true),
        Err(Refused::Wrong(error)) => Err(error),
        Err(_) => Ok(false),
    }
}
