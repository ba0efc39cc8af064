//! GraphQL's root fields, of which one request holds several: each is checked by itself, and what may not be looked at is null.

use serde_json::{Value, json};
use tidemill_control::tracking::Caller;
use tidemill_control::users::{EXPERIMENT, Need, Principal, REGISTERED_MODEL};

use super::Refused;
use super::rules::{Rule, Search, Subject};
use super::subjects::{self, permission_of};
use crate::control_plane::App;
use crate::error::ApiError;
use crate::mlflow::tracking::Fields;

/// What a root field needs; `None` for those that show nothing.
fn rule_of(field: &str) -> Option<Rule> {
    Some(match field {
        "mlflowGetExperiment" => Rule::On(Need::Read, Subject::Experiment),
        "mlflowGetRun" | "mlflowListArtifacts" => Rule::On(Need::Read, Subject::Run),
        "mlflowGetMetricHistoryBulkInterval" => Rule::On(Need::Read, Subject::Runs("run_ids")),
        "mlflowSearchRuns" | "mlflowSearchDatasets" => Rule::Limited(Search::InExperiments),
        "mlflowSearchModelVersions" => Rule::Limited(Search::Versions),
        "test" | "testMutation" => return None,
        _ => Rule::Role(tidemill_control::users::ServerRole::Admin),
    })
}

/// Whether a user may ask a root field this. Takes experiments that they may not look at out of the input.
pub(crate) async fn may_ask(
    app: &App,
    known: &Principal,
    caller: &Caller,
    field: &str,
    input: &mut Value,
) -> Result<bool, ApiError> {
    let Some(rule) = rule_of(field).filter(|_| !known.is_admin()) else {
        return Ok(true);
    };
    let fields = Fields::of(input.clone());
    match rule {
        Rule::On(Need::Read, Subject::Runs(name)) => {
            for run_id in fields.texts(name)? {
                let one = Fields::of(json!({ "run_id": run_id }));
                if !allowed(app, known, caller, Subject::Run, &one).await? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Rule::On(_, subject) => allowed(app, known, caller, subject, &fields).await,
        Rule::Limited(Search::InExperiments) => {
            let ids = fields.texts("experiment_ids")?;
            let mut readable = Vec::new();
            for id in &ids {
                let permission = permission_of(app, known, EXPERIMENT, id, &caller.workspace).await?;
                if permission.allows(Need::Read) {
                    readable.push(id.clone());
                }
            }
            let any = ids.is_empty() || !readable.is_empty();
            if let Some(input) = input.as_object_mut() {
                input.insert("experiment_ids".to_owned(), json!(readable));
            }
            Ok(any)
        }
        Rule::Limited(_) => Ok(true),
        _ => Ok(false),
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

/// Takes versions of models that a user may not look at out of an answer.
pub(crate) fn keep_readable(known: &Principal, caller: &Caller, message: &mut Value) {
    if known.reads_all_of(&caller.workspace) {
        return;
    }
    if let Some(versions) = message.get_mut("model_versions").and_then(Value::as_array_mut) {
        versions.retain(|version| {
            let name = version["name"].as_str().unwrap_or_default();
            known
                .on(REGISTERED_MODEL, name, &caller.workspace)
                .allows(Need::Read)
        });
    }
}
