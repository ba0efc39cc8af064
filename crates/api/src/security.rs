//! What a browser may be made to send by a foreign page: nothing that changes anything, and nothing under a foreign name.
//!
//! - A page that points its own name at this machine (DNS rebinding) is told apart by the `Host` that its requests carry: an
//!   address, `localhost` or a name that was allowed.
//! - A page elsewhere that makes a browser post here is told apart by `Origin` and `Sec-Fetch-Site`.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::error::{ApiError, Kind, Protocol};

const INVALID_HOST: &str = "Invalid Host header - possible DNS rebinding attack detected";
const CROSS_ORIGIN: &str = "Cross-origin request blocked";
/// Asked by probes that name the server as they like.
const FOR_PROBES: [&str; 4] = ["/health", "/version", "/v2/health/live", "/v2/health/ready"];
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Which names and pages are allowed beyond this machine's own.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Security {
    /// Names under which the server is reached, with or without a port, such as `mlflow.example.com` or `*.example.com`; `*` for any.
    pub allowed_hosts: Vec<String>,
    /// Origins whose pages may use the server, such as `https://app.example.com`; `*` for any.
    pub allowed_origins: Vec<String>,
}

impl Security {
    fn allows_host(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else {
            return false;
        };
        let name = authority.host().to_ascii_lowercase();
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        // A foreign page has a name: that it is an address shows that it is none.
        if bare == "localhost" || bare.ends_with(".localhost") || bare.parse::<IpAddr>().is_ok() {
            return true;
        }
        let host = host.to_ascii_lowercase();
        self.allowed_hosts.iter().any(|pattern| {
            let pattern = pattern.to_ascii_lowercase();
            fits(&pattern, &host) || fits(&pattern, bare)
        })
    }

    fn allows_origin(&self, origin: &str) -> bool {
        self.allowed_origins
            .iter()
            .any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
    }
}

/// Whether a text fits a pattern in which `*` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(text) = text.strip_prefix(start) else {
        return false;
    };
    let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    ends.into_iter().any(|at| fits(rest, &text[at..]))
}

/// Turns away what a browser was made to send, and tells browsers how to treat what is answered.
pub(crate) async fn layer(State(security): State<Arc<Security>>, request: Request, next: Next) -> Response {
    let origin = text(request.headers(), &header::ORIGIN).map(str::to_owned);
    let allowed = origin
        .as_deref()
        .is_some_and(|origin| security.allows_origin(origin));
    let mut response = match refusal(&security, &request, allowed) {
        Some(refused) => refused.told(request.uri().path()),
        None if allowed && is_preflight(&request) => StatusCode::NO_CONTENT.into_response(),
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers
        .entry(header::X_CONTENT_TYPE_OPTIONS)
        .or_insert(HeaderValue::from_static("nosniff"));
    headers
        .entry(header::X_FRAME_OPTIONS)
        .or_insert(HeaderValue::from_static("SAMEORIGIN"));
    if let Some(Ok(origin)) = origin
        .filter(|_| allowed)
        .map(|origin| HeaderValue::from_str(&origin))
    {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
            HeaderValue::from_static("true"),
        );
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST, PUT, DELETE, PATCH, OPTIONS"),
        );
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("authorization, content-type, x-mlflow-workspace, x-request-id"),
        );
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

/// Why a request is turned away.
enum Refused {
    Host(String),
    Origin,
}

impl Refused {
    fn code(&self) -> &'static str {
        match self {
            Self::Host(_) => "host_not_allowed",
            Self::Origin => "origin_not_allowed",
        }
    }

    /// Programs that ask for predictions learn in their protocol's shape what to do; MLflow's clients and browsers get MLflow's words.
    fn told(self, path: &str) -> Response {
        let protocol = Protocol::of_path(path).filter(|protocol| {
            use Protocol::{Grpc, OpenInference, SageMaker, Vertex};
            matches!(protocol, OpenInference | Grpc | SageMaker | Vertex)
        });
        let Some(protocol) = protocol else {
            let text = match self {
                Self::Host(_) => INVALID_HOST,
                Self::Origin => CROSS_ORIGIN,
            };
            return (StatusCode::FORBIDDEN, text).into_response();
        };
        let code = self.code();
        let message = match self {
            Self::Host(host) => format!(
                "the request names the server `{host}`, which it does not know as its own: start it with `--allowed-hosts {host}`, or ask \
                 by its address"
            ),
            Self::Origin => {
                "the request comes from a page elsewhere: start the server with `--cors-allowed-origins` and that page's origin".to_owned()
            }
        };
        let error = ApiError {
            kind: Kind::Denied,
            ..ApiError::bad_request(code, message)
        };
        protocol.render(&error, error.clone().into_response())
    }
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn refusal(security: &Security, request: &Request, origin_allowed: bool) -> Option<Refused> {
    let headers = request.headers();
    let host = match headers.get(header::HOST) {
        Some(host) => Some(host.to_str().unwrap_or_default()),
        None => request.uri().authority().map(Authority::as_str),
    };
    if let Some(host) = host
        && !FOR_PROBES.contains(&request.uri().path())
        && !security.allows_host(host)
    {
        tracing::warn!(
            host,
            "refused a request with a foreign host: `--allowed-hosts` names those that are ours"
        );
        // What cannot be a name is not repeated.
        let name = host.parse::<Authority>();
        return Some(Refused::Host(
            name.map_or_else(|_| "?".to_owned(), |name| name.host().to_owned()),
        ));
    }
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !changes || origin_allowed {
        return None;
    }
    let foreign = match headers.get(header::ORIGIN) {
        Some(origin) => !is_same(origin.to_str().unwrap_or_default(), host.unwrap_or_default()),
        None => text(headers, &FETCH_SITE) == Some("cross-site"),
    };
    if foreign {
        tracing::warn!(
            origin = text(headers, &header::ORIGIN),
            "refused a request of a foreign page"
        );
        return Some(Refused::Origin);
    }
    None
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Whether an origin is the host that the request was sent to. The scheme may differ: a proxy before us may speak TLS.
fn is_same(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let port = match scheme {
        "https" => 443,
        _ => 80,
    };
    let split = |text: &str| {
        let authority: Authority = text.parse().ok()?;
        let given = authority.port_u16();
        Some((authority.host().to_ascii_lowercase(), given.unwrap_or(port)))
    };
    let (page, server) = (split(authority), split(host));
    page.is_some() && page == server
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_localhost_or_allowed() {
        let security = Security {
            allowed_hosts: vec!["mill.example.com".into(), "*.lan".into(), "box:7878".into()],
            ..Security::default()
        };
        for good in [
            "localhost",
            "localhost:7878",
            "127.0.0.1:1",
            "[::1]:7878",
            "192.168.0.4",
            "MILL.example.com:80",
            "a.lan",
            "box:7878",
        ] {
            assert!(security.allows_host(good), "{good}");
        }
        for bad in [
            "evil.example.com",
            "127.0.0.1.evil.com",
            "localhost.evil.com:7878",
            "lan",
            "box:1",
            "",
            "a b",
            "mill.example.com.evil.com",
            "evil@localhost.evil.com",
        ] {
            assert!(!security.allows_host(bad), "{bad}");
        }
        let any = Security {
            allowed_hosts: vec!["*".into()],
            ..Security::default()
        };
        assert!(any.allows_host("whatever.example"));
    }

    #[test]
    fn an_origin_is_the_servers_own_if_host_and_port_are() {
        assert!(is_same("http://localhost:7878", "localhost:7878"));
        assert!(is_same("https://mill.example.com", "mill.example.com"));
        assert!(!is_same("http://localhost:3000", "localhost:7878"));
        assert!(!is_same("http://evil.com", "localhost:7878"));
        assert!(!is_same("null", "localhost:7878"));
        assert!(!is_same("", ""));
    }
}
