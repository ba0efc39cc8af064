//! Whoever answers the requests of batch jobs: the same way that online requests go, behind all others.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tidemill_control::batch::{AskBody, Asking, Asks, BatchError, Given};
use tidemill_core::ports::Blame;
use tidemill_serving::Pressure;

use crate::control_plane::{App, ControlPlane};
use crate::error::{ApiError, Kind as ErrorKind};
use crate::infer::Target;
use crate::infer::forms::reply;
use crate::infer::score::{Kind, Scored, Scoring, score};
use crate::sagemaker;

/// Answers by the models of a server.
pub fn asks(app: Arc<dyn ControlPlane>) -> Arc<dyn Asks> {
    Arc::new(Inside(app))
}

struct Inside(App);

#[async_trait]
impl Asks for Inside {
    async fn ask(&self, asking: Asking) -> Result<Given, BatchError> {
        Ok(answered(&self.0, asking).await?)
    }

    fn is_pressed(&self) -> bool {
        self.0.serving().pressure().now() != Pressure::None
    }
}

async fn answered(app: &App, asking: Asking) -> Result<Given, ApiError> {
    let target = Target::of(app, &asking.endpoint, asking.version)?;
    // Behind everybody who waits for an answer.
    let mut parameters = Map::from_iter([("priority".to_owned(), json!(u32::MAX))]);
    let scoring = |kind, content_type: &str, bytes, parameters| Scoring {
        only_floats: false,
        kind,
        content_type: content_type.to_owned(),
        bytes,
        id: asking.id,
        timeout: None,
        parameters,
    };
    const JSON: &str = "application/json";
    Ok(match asking.body {
        AskBody::Split(body) => {
            let scoring = scoring(Kind::Json { bare: false }, JSON, body.into(), parameters);
            Given::Json(match score(app, target, scoring).await? {
                Scored::Table { response } => Value::Object(reply::of_table(&response)),
                Scored::Hosted { answer, .. } => reply::whole(&answer.payload)?,
            })
        }
        AskBody::Instances(instances, asked) => {
            if let Value::Object(mut asked) = asked {
                // Where it stands in line is not its caller's to say.
                asked.append(&mut parameters);
                parameters = asked;
            }
            let body = json!({ "instances": instances }).to_string();
            let scoring = scoring(Kind::Json { bare: false }, JSON, body.into(), parameters);
            Given::Json(reply::by_instance(&score(app, target, scoring).await?)?)
        }
        AskBody::Body {
            content_type,
            accept,
            bytes,
            parameters: asked,
        } => {
            parameters.extend(asked);
            let kind = sagemaker::kind(&content_type, &bytes);
            let scoring = scoring(kind, &content_type, bytes, parameters);
            let (_, bytes) = sagemaker::answer(score(app, target, scoring).await?, &accept)?;
            Given::Bytes(bytes)
        }
    })
}

impl From<ApiError> for BatchError {
    fn from(error: ApiError) -> Self {
        let passing = match error.kind {
            ErrorKind::TooMany => true,
            ErrorKind::Unavailable => error.blame != Blame::Caller,
            _ => false,
        };
        let mut place = Map::new();
        let details = error.details.unwrap_or_default();
        let finding = details["findings"].get(0).unwrap_or(&details);
        for key in ["field", "row", "value"] {
            if let Some(value) = finding.get(key).filter(|value| !value.is_null()) {
                place.insert(key.to_owned(), value.clone());
            }
        }
        Self {
            blame: error.blame,
            code: error.code,
            message: error.message,
            place,
            passing,
        }
    }
}

impl From<BatchError> for ApiError {
    fn from(error: BatchError) -> Self {
        let kind = match error.code {
            "not_found" | "batch_input_missing" => ErrorKind::NotFound,
            "conflict" | "batch_output_taken" => ErrorKind::Conflict,
            "batch_place_denied" => ErrorKind::Denied,
            _ if error.passing => ErrorKind::TooMany,
            "store_disk_full" => ErrorKind::InsufficientStorage,
            _ => match error.blame {
                Blame::Caller => ErrorKind::BadRequest,
                Blame::Us => ErrorKind::Internal,
                Blame::Upstream => ErrorKind::Unavailable,
            },
        };
        Self {
            blame: error.blame,
            kind,
            code: error.code,
            message: error.message,
            details: (!error.place.is_empty()).then(|| error.place.into()),
        }
    }
}
