//! Rows in a body, whatever stands behind the name asked, and out comes what each input contributed to each answer.

use serde_json::{Map, Value, json};
use tidemill_core::ids::VersionNumber;
use tidemill_serving::{ExplainOptions, Explanation};

use super::score::{Scoring, as_text, hosted_call, table_rows};
use super::{Target, prepared};
use crate::control_plane::App;
use crate::error::ApiError;

/// More orders than this are not taken.
const MOST_SAMPLES: u32 = 4_096;

/// What came out.
pub(crate) struct Explained {
    pub version: VersionNumber,
    pub explanation: Explanation,
}

/// Explains. Where the model does not explain itself and no baseline is given, an endpoint of the loop is compared with the usual row of its
/// version's training data, a deployment with zeros and missing texts.
pub(crate) async fn explain(
    app: &App,
    target: Target,
    scoring: Scoring,
    mut options: ExplainOptions,
) -> Result<Explained, ApiError> {
    if !(1..=MOST_SAMPLES).contains(&options.samples) {
        return Err(ApiError::bad_request(
            "bad_parameter",
            format!("`samples` is {}, expected 1 to {MOST_SAMPLES}", options.samples),
        )
        .with_details(json!({ "field": "samples", "value": options.samples })));
    }
    let (version, explanation) = match target {
        Target::Table(call) => {
            let scoring = as_text(app, scoring).await?;
            let length = scoring.bytes.len();
            let (route, request, ()) = prepared(call, length, move |call| table_rows(scoring, call)).await?;
            let champion = route.champion.as_ref().map(|champion| champion.version);
            if let Some(version) = request.version.or(champion) {
                let usual = app.usual_inputs(&route.endpoint, version).await?;
                for (name, value) in usual {
                    if route.schema.index_of(&name).is_some() && !options.baseline.contains_key(&name) {
                        options.baseline.insert(name, value);
                    }
                }
            }
            app.serving()
                .explain(&route, request.version, request.rows, &options)
                .await?
        }
        Target::Hosted(hosted) => {
            // What is explained are tensors.
            let (call, _) = hosted_call(app, &hosted, scoring, false).await?;
            app.serving().hosting().explain(call, &options).await?
        }
    };
    Ok(Explained { version, explanation })
}

/// To an instance at least the endpoint's default answered.
pub(crate) fn no_model_answered(name: &str) -> ApiError {
    ApiError::bad_request(
        "not_explainable",
        format!(
            "`{name}` answered an instance with its default, which no model gave, so there is nothing to explain; send the others without it, or ask \
                 again when a version answers"
        ),
    )
}

/// The contributions to an output of a row by the inputs' names; an input of several values has a list.
pub(crate) fn by_input(explanation: &Explanation, row: usize, output: usize) -> Map<String, Value> {
    let (mut shares, _) = explanation.of(row, output);
    let mut named = Map::new();
    for input in &explanation.inputs {
        let (own, rest) = shares.split_at(input.width.unwrap_or(1).min(shares.len()));
        shares = rest;
        let value = match input.width {
            None => json!(own.first()),
            Some(_) => json!(own),
        };
        named.insert(input.name.clone(), value);
    }
    named
}

/// What base and contributions add up to.
pub(crate) fn whole(explanation: &Explanation, row: usize, output: usize) -> f64 {
    let (shares, base) = explanation.of(row, output);
    base + shares.iter().sum::<f64>()
}

/// The error of a row's contributions to an output; NaN where it is not known.
pub(crate) fn error(explanation: &Explanation, row: usize, output: usize) -> f64 {
    explanation
        .errors
        .get(row * explanation.outputs + output)
        .copied()
        .unwrap_or(f64::NAN)
}

/// The name of an output's place, where there are several and they have names.
pub(crate) fn label(explanation: &Explanation, output: usize) -> Option<&str> {
    explanation.labels.get(output).map(String::as_str)
}
