//! `X-Amzn-SageMaker-Enable-Explanations`: the answer as an endpoint of SageMaker Clarify gives it, with what each feature contributed.

use axum::http::HeaderMap;
use bytes::Bytes;
use serde_json::{Value, json};
use tidemill_core::ids::VersionNumber;
use tidemill_serving::{ExplainOptions, Explanation};

use super::{text, wrong};
use crate::control_plane::App;
use crate::error::ApiError;
use crate::infer::Target;
use crate::infer::explain::explain;
use crate::infer::score::{Scored, Scoring};

const ENABLE: &str = "x-amzn-sagemaker-enable-explanations";

/// What the header says; `None` where it did not come. Clarify takes an expression over a record's answer; here it is one of the two that
/// look at none.
pub(super) fn wanted(headers: &HeaderMap) -> Result<Option<bool>, ApiError> {
    match text(headers, ENABLE).map(str::trim) {
        None => Ok(None),
        Some("`true`") => Ok(Some(true)),
        Some("`false`") => Ok(Some(false)),
        Some(other) => Err(wrong(format!(
            "`X-Amzn-SageMaker-Enable-Explanations` is `{other}`: expressions over answers are not evaluated here, expected a literal, \
             true or false in backticks"
        ))),
    }
}

/// The version that answered; the default's, if that answered a row.
pub(super) fn version(scored: &Scored) -> Option<VersionNumber> {
    match scored {
        Scored::Table { response } => {
            let mut versions = response.versions.iter();
            let default = versions
                .clone()
                .find(|version| **version == VersionNumber::DEFAULT);
            default.or(versions.next()).copied()
        }
        Scored::Hosted { answer, .. } => Some(answer.version),
    }
}

/// The whole body: the answer as a text beside the explanations, a list of features for each record.
pub(super) async fn body(
    app: &App,
    target: Option<Target>,
    scoring: Scoring,
    (kind, answer): (&str, &Bytes),
) -> Result<Bytes, ApiError> {
    let explanations = match target {
        Some(target) => {
            let explained = explain(app, target, scoring, ExplainOptions::default()).await?;
            let explanation = explained.explanation;
            let records = (0..explanation.rows()).map(|row| record(&explanation, row));
            json!({ "kernel_shap": records.collect::<Value>() })
        }
        None => json!({}),
    };
    let whole = json!({
        "version": "1.0",
        "predictions": { "content_type": kind, "data": String::from_utf8_lossy(answer) },
        "explanations": explanations,
    });
    Ok(whole.to_string().into())
}

/// The features of a record, each with one number an output.
fn record(explanation: &Explanation, row: usize) -> Value {
    let mut features = Vec::with_capacity(explanation.features());
    for input in &explanation.inputs {
        for place in 0..input.width.unwrap_or(1) {
            let at = features.len();
            let shares = (0..explanation.outputs).map(|output| explanation.of(row, output).0[at]);
            let header = match input.width {
                Some(_) => format!("{}[{place}]", input.name),
                None => input.name.clone(),
            };
            let attribution: Vec<f64> = shares.collect();
            features.push(json!({
                "feature_header": header,
                "feature_type": if input.texts { "categorical" } else { "numerical" },
                "attributions": [{ "attribution": attribution }],
            }));
        }
    }
    Value::Array(features)
}
