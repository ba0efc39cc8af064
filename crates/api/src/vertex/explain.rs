//! `ENDPOINT:explain`: predictions, and what each feature contributed to them.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tidemill_core::ids::VersionNumber;
use tidemill_serving::{ExplainOptions, Explanation};

use super::{Predicted, instances, predicted};
use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::parse_json;
use crate::infer::Target;
use crate::infer::explain::{self, Explained};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    #[serde(default)]
    explanation_spec_override: Override,
    #[serde(default)]
    deployed_model_id: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Override {
    parameters: Parameters,
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Parameters {
    sampled_shapley_attribution: Option<SampledShapley>,
    integrated_gradients_attribution: Option<Value>,
    xrai_attribution: Option<Value>,
    examples: Option<Value>,
    top_k: i64,
    output_indices: Option<Vec<Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SampledShapley {
    path_count: u32,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    inputs: Map<String, Value>,
}

/// Which outputs are told of.
enum Chosen {
    /// These.
    Places(Vec<usize>),
    /// So many of the largest.
    Largest(usize),
}

pub(super) async fn explain(
    app: &App,
    name: &str,
    target: Target,
    body: Bytes,
) -> Result<Response, ApiError> {
    let request: Request = parse_json(&body)?;
    let (options, chosen) = read(&request.explanation_spec_override)?;
    let target = match request.deployed_model_id.parse() {
        Ok(number) => Target::of(app, &name.into(), Some(VersionNumber(number)))?,
        Err(_) => target,
    };
    target.check_version(app)?;
    let Predicted {
        predictions,
        version,
        by_models,
        ..
    } = predicted(app, target, body.clone()).await?;
    // What answered is explained; an answer that no model gave cannot be.
    if !by_models {
        return Err(explain::no_model_answered(name));
    }
    let target = Target::of(app, &name.into(), Some(version))?;
    let Explained { version, explanation } = explain::explain(app, target, instances(body), options).await?;
    let explanations = (0..explanation.rows()).map(|row| written(&explanation, row, &chosen));
    Ok(Json(json!({
        "explanations": explanations.collect::<Result<Value, ApiError>>()?,
        "deployedModelId": version.to_string(),
        "predictions": predictions,
    }))
    .into_response())
}

fn wrong(field: &str, message: String) -> ApiError {
    ApiError::bad_request("bad_parameter", message).with_details(json!({ "field": field }))
}

fn read(asked: &Override) -> Result<(ExplainOptions, Chosen), ApiError> {
    let parameters = &asked.parameters;
    for (name, other) in [
        (
            "integratedGradientsAttribution",
            &parameters.integrated_gradients_attribution,
        ),
        ("xraiAttribution", &parameters.xrai_attribution),
        ("examples", &parameters.examples),
    ] {
        if other.is_some() {
            return Err(wrong(
                name,
                format!(
                    "`{name}` needs a model's gradients or examples, which are not known here: ask for `sampledShapleyAttribution`"
                ),
            ));
        }
    }
    let mut options = ExplainOptions::default();
    if let Some(sampled) = &parameters.sampled_shapley_attribution {
        // Google's paths are orders; here each is gone in both directions.
        options.samples = sampled.path_count.div_ceil(2);
    }
    for (name, input) in &asked.metadata.inputs {
        match &input["inputBaselines"] {
            Value::Null => {}
            Value::Array(baselines) if baselines.len() == 1 => {
                options.baseline.insert(name.clone(), baselines[0].clone());
            }
            other => {
                return Err(wrong(
                    "inputBaselines",
                    format!("`inputBaselines` of `{name}` is `{other}`, expected a list of one baseline"),
                ));
            }
        }
    }
    let chosen = match &parameters.output_indices {
        Some(places) if !places.is_empty() => {
            let place = |place: &Value| {
                let number = place
                    .as_u64()
                    .or_else(|| place.as_f64().map(|place| place as u64));
                number.map(|place| place as usize)
            };
            let places: Option<Vec<usize>> = places.iter().map(place).collect();
            Chosen::Places(places.ok_or_else(|| {
                wrong(
                    "outputIndices",
                    "`outputIndices` is no list of whole numbers".to_owned(),
                )
            })?)
        }
        _ => Chosen::Largest(match parameters.top_k {
            0 => 1,
            all if all < 0 => usize::MAX,
            some => some as usize,
        }),
    };
    Ok((options, chosen))
}

/// An explanation of a row: the class that is predicted, if none is asked for.
fn written(explanation: &Explanation, row: usize, chosen: &Chosen) -> Result<Value, ApiError> {
    let places = match chosen {
        Chosen::Places(places) => {
            if let Some(place) = places.iter().find(|place| **place >= explanation.outputs) {
                return Err(wrong(
                    "outputIndices",
                    format!(
                        "`outputIndices` names {place}, and the model has {} outputs, from 0",
                        explanation.outputs
                    ),
                ));
            }
            places.clone()
        }
        Chosen::Largest(count) => {
            let mut places: Vec<usize> = (0..explanation.outputs).collect();
            let value = |place: &usize| explain::whole(explanation, row, *place);
            places.sort_by(|a, b| value(b).total_cmp(&value(a)));
            places.truncate(*count);
            places
        }
    };
    let attributions = places.into_iter().map(|place| {
        let (_, base) = explanation.of(row, place);
        let whole = explain::whole(explanation, row, place);
        let mut one = Map::new();
        one.insert("baselineOutputValue".to_owned(), json!(base));
        one.insert("instanceOutputValue".to_owned(), json!(whole));
        one.insert(
            "featureAttributions".to_owned(),
            Value::Object(explain::by_input(explanation, row, place)),
        );
        if explanation.outputs > 1 {
            one.insert("outputIndex".to_owned(), json!([place]));
        }
        if let Some(label) = explain::label(explanation, place) {
            one.insert("outputDisplayName".to_owned(), json!(label));
        }
        one.insert("outputName".to_owned(), json!(explanation.output));
        let error = explain::error(explanation, row, place) / (whole - base).abs();
        if error.is_finite() {
            one.insert("approximationError".to_owned(), json!(error));
        }
        Value::Object(one)
    });
    Ok(json!({ "attributions": attributions.collect::<Value>() }))
}
