//! `POST /v2/models/{model}[/versions/{version}]/infer`

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use bytes::Bytes;

use super::reading::{self, Plan};
use super::{ModelPath, check_type, header_length, raw, writing};
use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::{Body, Inflated};
use crate::infer::ask::{ask, timeout_of};
use crate::infer::{self, Call, Reading, Rows, Target, fast, table, tensors};

/// A prediction, or one with one version.
pub(crate) async fn infer(
    State(app): State<App>,
    Path(path): Path<ModelPath>,
    request: Request,
) -> Result<Response, ApiError> {
    // The headers are taken, not copied: this is the way of most requests.
    let (parts, body) = request.into_parts();
    let headers = parts.headers;
    let body = Body::read(body).await?;
    let Inflated(body) = Inflated::of(body, headers.get(header::CONTENT_ENCODING)).await?;
    let length = header_length(&headers)?;
    check_type(&headers, length.is_some())?;
    match path.target(&app)? {
        Target::Table(call) if length.is_none() => by_json(&app, call, &headers, body).await,
        target if length == Some(0) => {
            let (request, plan) = raw::read(&app, &target, body).await?;
            let answer = ask(&app, target, request).await?;
            writing::tensors(&headers, &answer, &plan, app.shared_memory())
        }
        target => {
            let (request, plan) = if body.len() > infer::HEAVY_BYTES {
                let app = app.clone();
                infer::off_thread(move || reading::read(body, length, app.shared_memory())).await?
            } else {
                reading::read(body, length, app.shared_memory())?
            };
            let answer = ask(&app, target, request).await?;
            writing::tensors(&headers, &answer, &plan, app.shared_memory())
        }
    }
}

/// What is asked most: JSON, of an endpoint of the loop.
async fn by_json(app: &App, call: Call, headers: &HeaderMap, body: Bytes) -> Result<Response, ApiError> {
    let reader = app.clone();
    let answer = infer::predict(app, call, body.len(), move |call| {
        if let Some(ordinary) = fast::read(&body, call) {
            return Ok(Reading {
                rows: Rows::Frame(ordinary.rows),
                request_id: ordinary.id,
                timeout: None,
                rest: Plan::default(),
            });
        }
        let (request, plan) = reading::read(body, None, reader.shared_memory())?;
        let names = plan.outputs.iter().map(|output| output.name.as_str());
        table::check_requested(names, call.route.task)?;
        let timeout = timeout_of(&request.parameters, request.timeout)?;
        let rows = tensors::rows(request.inputs, call)?;
        Ok(Reading {
            rows,
            request_id: request.id,
            timeout,
            rest: plan,
        })
    })
    .await?;
    let plan = &answer.rest;
    if plan.is_plain() {
        let names: Vec<&str> = plan.outputs.iter().map(|output| output.name.as_str()).collect();
        return writing::table(headers, &answer.route, &answer.response, &names);
    }
    let tensors = infer::ask::of_table(&answer.route, &answer.response, &plan.wanted())?;
    writing::tensors(headers, &tensors, plan, app.shared_memory())
}
