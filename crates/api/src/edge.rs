//! What every request passes on its way in and out: an id, a trace, and an error's shape.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::middleware::Next;
use axum::response::Response;
use tidemill_core::clock::Stopwatch;
use tidemill_core::ids::{self, PredictionId};
use tidemill_core::ports::Blame;
use tracing::Instrument as _;

use crate::control_plane::App;
use crate::error::{ApiError, Kind, Protocol};
use crate::sagemaker::control;

const REQUEST_ID: &str = "x-request-id";
/// The longest id that is taken over from a client's header.
const MAX_REQUEST_ID: usize = 200;

/// So many headers are kept for routing, of so many bytes each.
const MAX_ATTRIBUTES: usize = 32;
const MAX_ATTRIBUTE: usize = 1_024;

tokio::task_local! {
    static ATTRIBUTES: BTreeMap<String, String>;
    static RECORDED: RefCell<Option<PredictionId>>;
}

/// The header of an answer that says under which id it stands in the prediction log.
const PREDICTION_ID: &str = "x-tidemill-prediction-id";

/// Notes under which id the answer to the request stands in the prediction log; the answer's headers tell it.
pub(crate) fn note_prediction(id: Option<&PredictionId>) {
    // Outside a request there is nobody to tell.
    let _ = RECORDED.try_with(|recorded| recorded.replace(id.cloned()));
}

/// The headers of the request being answered that begin with `x-`, in lower case: routing rules and graphs look at them. The metadata of a
/// gRPC call are its headers.
pub(crate) fn attributes() -> BTreeMap<String, String> {
    ATTRIBUTES.try_with(Clone::clone).unwrap_or_default()
}

/// The same future, which sees the headers of this request also where it is polled by a task of its own.
pub(crate) fn carried<F: Future>(future: F) -> impl Future<Output = F::Output> {
    ATTRIBUTES.scope(attributes(), future)
}

fn attributes_of(headers: &HeaderMap) -> BTreeMap<String, String> {
    let own = headers.iter().filter(|(name, value)| {
        let name = name.as_str();
        // What proves who somebody is goes no further.
        let secret = name.contains("key") && name != "x-tidemill-key" || name.contains("token");
        name.starts_with("x-") && !secret && value.len() <= MAX_ATTRIBUTE
    });
    let texts =
        own.filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())));
    texts.take(MAX_ATTRIBUTES).collect()
}

/// How long the caller waits, by a header: ours, or the one by which Envoy and what is built on it tell what is left of a request's time.
///
/// # Errors
/// If it is no number of milliseconds.
pub(crate) fn timeout() -> Result<Option<Duration>, ApiError> {
    let names = ["x-tidemill-timeout-ms", "x-envoy-expected-rq-timeout-ms"];
    let found = ATTRIBUTES.try_with(|attributes| names.map(|name| attributes.get(name).cloned()));
    let mut shortest = None;
    for (name, text) in names.into_iter().zip(found.into_iter().flatten()) {
        let Some(text) = text else { continue };
        let millis: u64 = text.parse().map_err(|_| {
            ApiError::bad_request(
                "bad_parameter",
                format!("header `{name}` is `{text}`, expected a whole number of milliseconds"),
            )
        })?;
        // As in Triton's parameter, 0 is no limit.
        let asked = (millis > 0).then(|| Duration::from_millis(millis));
        shortest = crate::infer::shortest(shortest, asked);
    }
    Ok(shortest)
}

/// Gives the request an id, traces it, and gives an error the shape of the protocol that was spoken.
pub(crate) async fn layer(State(app): State<App>, request: Request, next: Next) -> Response {
    let id = request_id(&request).unwrap_or_else(|| ids::fresh(app.now()));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let span = tracing::info_span!("request", %id, %method, path);
    let watch = Stopwatch::start();

    let attributes = attributes_of(request.headers());
    let answering = next.run(request).instrument(span.clone());
    let answering = RECORDED.scope(RefCell::default(), async {
        let response = answering.await;
        (response, RECORDED.with(RefCell::take))
    });
    let (mut response, recorded) = if attributes.is_empty() {
        answering.await
    } else {
        ATTRIBUTES.scope(attributes, answering).await
    };

    let status = response.status();
    if let Some(error) = taken_error(&mut response) {
        let protocol = Protocol::of_path(&path).unwrap_or(Protocol::V1);
        let (code, message) = (error.code, &error.message);
        match (error.blame, error.kind) {
            (Blame::Caller, _) => tracing::debug!(parent: &span, code, %message, "refused"),
            (_, Kind::Unavailable) => tracing::warn!(parent: &span, code, %message, "not answered"),
            _ => tracing::error!(parent: &span, code, %message, "failed"),
        }
        response = protocol.render(&error, response);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    if let Some(recorded) = recorded
        && let Ok(value) = HeaderValue::from_str(recorded.as_str())
    {
        response.headers_mut().insert(PREDICTION_ID, value);
    }
    tracing::debug!(parent: &span, status = status.as_u16(), micros = watch.micros(), "answered");
    response
}

fn request_id(request: &Request) -> Option<String> {
    let id = request.headers().get(REQUEST_ID)?.to_str().ok()?;
    let fits = !id.is_empty() && id.len() <= MAX_REQUEST_ID;
    fits.then(|| id.to_owned())
}

/// The error of a response. What axum's own extractors refuse comes without one: only paths that are not UTF-8 do.
fn taken_error(response: &mut Response) -> Option<ApiError> {
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        return Some(error);
    }
    (response.status() == axum::http::StatusCode::BAD_REQUEST).then(|| {
        ApiError::bad_request(
            "bad_path",
            "the path cannot be read: expected UTF-8, percent-encoded",
        )
    })
}

/// What a known path answers to another method.
pub(crate) async fn method_not_allowed(method: axum::http::Method, uri: Uri) -> ApiError {
    ApiError::method_not_allowed(method.as_str(), uri.path())
}

/// Clients of AWS send every call of a control plane to `/`, where the page is, and name it in a header.
fn control_plane_of_aws(mut request: Request) -> Request {
    let of_sagemaker = request.uri().path() == "/"
        && *request.method() == axum::http::Method::POST
        && request
            .headers()
            .get(control::TARGET_HEADER)
            .is_some_and(|target| target.as_bytes().starts_with(control::TARGET.as_bytes()));
    if of_sagemaker {
        *request.uri_mut() = Uri::from_static(control::PATH);
    }
    request
}

/// A path that begins with several slashes is the one with a single one: clients join their server's address and a path carelessly,
/// and MLflow's own server takes it so. Before routing.
pub(crate) fn one_slash(request: Request) -> Request {
    let mut request = control_plane_of_aws(request);
    let uri = request.uri();
    if !uri.path().starts_with("//") {
        return request;
    }
    let path = format!("/{}", uri.path().trim_start_matches('/'));
    let whole = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    // What cannot be a URI stays as it is, and no route has it.
    if let Ok(uri) = whole.parse() {
        *request.uri_mut() = uri;
    }
    request
}
