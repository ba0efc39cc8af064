//! Who a request says it comes from, and what it is told if that is not enough.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tidemill_control::tracking::TrackingError;
use tidemill_control::users::Credentials;

use crate::error::{ApiError, Protocol};

/// MLflow's words: its clients match them.
const UNAUTHENTICATED: &str = "You are not authenticated. Please see \
    https://www.mlflow.org/docs/latest/auth/index.html#authenticating-to-mlflow on how to authenticate.";
const DENIED: &str = "Permission denied";

/// HTTP Basic, or a token: as `Bearer`, or as the access key of a request that a client of AWS has signed. The signature is not looked
/// at: the key that it is made with is no secret that we keep, and the token is one.
pub(super) fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.trim().split_once(' ')?;
    if scheme == "AWS4-HMAC-SHA256" {
        let mut parts = rest.split(',').map(str::trim);
        let scope = parts.find_map(|part| part.strip_prefix("Credential="))?;
        let (key, _) = scope.split_once('/')?;
        return Some(Credentials::Token(key.to_owned()));
    }
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Credentials::Token(rest.trim().to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some(Credentials::basic(user, password))
}

/// 401: in the words of the protocol; a browser asks for a name and a password.
pub(super) fn unauthenticated(path: &str) -> Response {
    let mut response = if speaks_mlflow(path) {
        (StatusCode::UNAUTHORIZED, UNAUTHENTICATED).into_response()
    } else {
        let text = "the request does not say who sends it, or the name, password or token is wrong: send HTTP Basic \
                    credentials or a token as `Authorization: Bearer …`";
        ApiError::from(TrackingError::Unauthenticated(text.to_owned())).into_response()
    };
    let challenge = HeaderValue::from_static("Basic realm=\"mlflow\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// 403: in the words of the protocol.
pub(super) fn denied(path: &str) -> Response {
    if speaks_mlflow(path) {
        return (StatusCode::FORBIDDEN, DENIED).into_response();
    }
    let text = "the user may not do this: an administrator can give a role that does";
    ApiError::from(TrackingError::Denied(text.to_owned())).into_response()
}

/// 429: in the words of the protocol, with when to come again.
pub(super) fn too_many(wait_s: u64) -> Response {
    ApiError::from(TrackingError::TooManyLogins { wait_s }).into_response()
}

fn speaks_mlflow(path: &str) -> bool {
    match Protocol::of_path(path) {
        // Scoring has MLflow's shape of errors, but none of its words for this.
        Some(Protocol::Mlflow | Protocol::MlflowRest) => !path.starts_with("/invocations"),
        Some(_) => false,
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(value: &str) -> Option<Credentials> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        credentials(&headers)
    }

    #[test]
    fn names_passwords_and_tokens_are_read_and_nonsense_is_nobody() {
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert!(with(&basic("ada:pass:word")) == Some(Credentials::basic("ada", "pass:word")));
        assert!(with("bearer tm_abc") == Some(Credentials::Token("tm_abc".into())));
        let signed = "AWS4-HMAC-SHA256 Credential=tm_abc/20261126/eu/sagemaker/aws4_request, SignedHeaders=host, Signature=00";
        assert!(with(signed) == Some(Credentials::Token("tm_abc".into())));
        assert!(with(&basic("api:tm_abc")) == Some(Credentials::Token("tm_abc".into())));
        for bad in [
            "Basic",
            "Basic ???",
            "Digest x",
            "AWS4-HMAC-SHA256 Signature=1",
            &basic("no colon"),
        ] {
            assert!(with(bad).is_none(), "{bad}");
        }
        assert!(credentials(&HeaderMap::new()).is_none());
    }
}
