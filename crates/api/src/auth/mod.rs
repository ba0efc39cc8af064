//! Who sends a request, and whether they may: one layer over every route.
//!
//! - [`rules`]: what each route needs, as a table.
//! - [`subjects`]: finds what a request is about, and asks what its sender may do to it.

mod batch_places;
mod challenge;
mod graphql;
mod rules;
mod subjects;

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest as _, FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use tidemill_control::tracking::{Caller as Calling, DEFAULT_WORKSPACE, TrackingError};
use tidemill_control::users::{Principal, ServerRole};

use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::Body as ReadBody;
use crate::infer::shared;
use crate::mlflow::tracking::{Fields, User, named_workspace, workspaces};

pub(crate) use batch_places::check_batch_place;
pub(crate) use graphql::may_ask;
use rules::{Rule, rule_of};
pub(crate) use subjects::permission_of;

/// The user who sends a request, and what they may do. Only on a server that requires users.
pub(crate) struct Known(pub Arc<Principal>);

impl<S: Send + Sync> FromRequestParts<S> for Known {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let known = parts.extensions.get::<Arc<Principal>>().map(Arc::clone);
        known.map(Self).ok_or_else(|| {
            ApiError::from(TrackingError::Unauthenticated(
                "this server runs without users: start it with `--auth`".to_owned(),
            ))
        })
    }
}

/// [`Known`] where users are required, else nothing.
pub(crate) struct Caller(pub Option<Arc<Principal>>);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.extensions.get::<Arc<Principal>>().map(Arc::clone)))
    }
}

/// A request whose body is in memory, and its fields as the handler will read them.
struct Asked {
    parts: Parts,
    body: Bytes,
    fields: Fields,
}

impl Asked {
    async fn read(request: Request) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let ReadBody(body) = ReadBody::from_request(Request::from_parts(parts.clone(), body), &()).await?;
        let copy = Request::from_parts(parts.clone(), Body::from(body.clone()));
        let fields = Fields::from_request(copy, &()).await?;
        Ok(Self { parts, body, fields })
    }

    fn into_request(self) -> Request {
        Request::from_parts(self.parts, Body::from(self.body))
    }
}

/// The rules of a server's routes.
pub(crate) struct Guard {
    app: App,
    /// By path, then by method.
    rules: HashMap<String, Vec<(Method, Rule)>>,
}

impl Guard {
    /// Over these routes. One without a rule is for administrators.
    pub(crate) fn new<'r>(app: App, routes: impl IntoIterator<Item = (&'r Method, String)>) -> Self {
        let mut rules: HashMap<String, Vec<(Method, Rule)>> = HashMap::new();
        for (method, path) in routes {
            let rule = rule_of(method, &path).unwrap_or(Rule::Role(ServerRole::Admin));
            rules.entry(path).or_default().push((method.clone(), rule));
        }
        Self { app, rules }
    }

    /// A method that a path does not take is told so, to whom may ask; so is a path that is the page's.
    fn rule(&self, method: &Method, path: &str) -> Rule {
        let method = if *method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        let of_path = self.rules.get(path).map_or(&[][..], Vec::as_slice);
        let found = of_path.iter().find(|(known, _)| known == method);
        found.map_or(Rule::User, |(_, rule)| *rule)
    }
}

/// Lets a request through if its sender may send it.
pub(crate) async fn layer(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    match checked(&guard, request, next).await {
        Ok(response) => response,
        Err(Refused::Unknown) => challenge::unauthenticated(&path),
        Err(Refused::Denied) => challenge::denied(&path),
        Err(Refused::TooMany(wait_s)) => challenge::too_many(wait_s),
        Err(Refused::Wrong(error)) => error.into_response(),
    }
}

/// What a request is turned away with.
enum Refused {
    /// Nobody is known to have sent it.
    Unknown,
    /// Its sender may not.
    Denied,
    /// The user was tried with too many wrong passwords; in so many seconds the next is looked at.
    TooMany(u64),
    /// It is wrong in itself.
    Wrong(ApiError),
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self::Wrong(error)
    }
}

impl From<TrackingError> for Refused {
    fn from(error: TrackingError) -> Self {
        Self::Wrong(error.into())
    }
}

async fn checked(guard: &Guard, mut request: Request, next: Next) -> Result<Response, Refused> {
    let app = &guard.app;
    let template = match request.extensions().get::<MatchedPath>() {
        Some(path) => path.as_str().to_owned(),
        None => String::new(),
    };
    if let Some(refusal) = workspaces::refused(app, &request) {
        return Ok(refusal);
    }
    let method = request.method().clone();
    let rule = guard.rule(&method, &template);
    if matches!(rule, Rule::Public | Rule::Signed) {
        return Ok(next.run(request).await);
    }
    if !app.tracking().requires_users() {
        if rule.is_about_users(&template) {
            return Err(ApiError::unknown_route(method.as_str(), request.uri().path()).into());
        }
        check_workspace(app, request.headers(), &template).await?;
        return Ok(next.run(request).await);
    }
    let Some(credentials) = challenge::credentials(request.headers()) else {
        return Err(Refused::Unknown);
    };
    let known = match app.tracking().authenticate(&credentials).await {
        Ok(Some(known)) => known,
        Ok(None) => return Err(Refused::Unknown),
        Err(TrackingError::TooManyLogins { wait_s }) => return Err(Refused::TooMany(wait_s)),
        Err(error) => return Err(error.into()),
    };
    check_workspace(app, request.headers(), &template).await?;
    request.extensions_mut().insert(User(known.name.clone()));
    request.extensions_mut().insert(Arc::clone(&known));
    let caller = Calling {
        user: known.name.clone(),
        workspace: named_workspace(request.headers())
            .unwrap_or(DEFAULT_WORKSPACE)
            .to_owned(),
    };
    let user = known.name.clone();
    shared::working_for(user, allowed(app, rule, &known, &caller, request, next)).await
}

/// Refuses a workspace that is not there. What the server can do is told whatever the workspace is.
async fn check_workspace(app: &App, headers: &HeaderMap, template: &str) -> Result<(), Refused> {
    let Some(name) = named_workspace(headers) else {
        return Ok(());
    };
    if template.ends_with("/mlflow/server-info") {
        return Ok(());
    }
    if !app.tracking().options().workspaces {
        return Err(TrackingError::NotImplemented(
            "Workspace APIs are not available: workspaces are not enabled on this server".to_owned(),
        )
        .into());
    }
    if name != DEFAULT_WORKSPACE {
        app.tracking().workspace(name).await?;
    }
    Ok(())
}

fn need(enough: bool) -> Result<(), Refused> {
    if enough { Ok(()) } else { Err(Refused::Denied) }
}

/// Runs a request if its sender may send it.
async fn allowed(
    app: &App,
    rule: Rule,
    known: &Arc<Principal>,
    caller: &Calling,
    request: Request,
    next: Next,
) -> Result<Response, Refused> {
    match rule {
        Rule::Create => {
            need(known.may_create_in(&caller.workspace))?;
            Ok(next.run(request).await)
        }
        Rule::CreateExperiment if !known.is_admin() => {
            need(known.may_create_in(&caller.workspace))?;
            let asked = Asked::read(request).await?;
            subjects::check(app, rule, known, caller, &asked).await?;
            Ok(next.run(asked.into_request()).await)
        }
        _ if known.is_admin() => Ok(next.run(request).await),
        Rule::Public | Rule::Signed | Rule::User | Rule::Limited => Ok(next.run(request).await),
        Rule::Role(role) => {
            need(known.role >= role)?;
            Ok(next.run(request).await)
        }
        Rule::SeesLoop => {
            need(known.reads_all_of(DEFAULT_WORKSPACE))?;
            Ok(next.run(request).await)
        }
        Rule::SeesEvents => {
            let of_others = app.tracking().options().workspaces;
            need(known.reads_all_of(DEFAULT_WORKSPACE) && (!of_others || known.role >= ServerRole::Editor))?;
            Ok(next.run(request).await)
        }
        Rule::Within(wanted) => {
            need(known.in_workspace(&caller.workspace).allows(wanted))?;
            Ok(next.run(request).await)
        }
        Rule::On(wanted, subject) if subject.is_outside_the_body() => {
            let (mut parts, body) = request.into_parts();
            subjects::check_outside(app, wanted, subject, known, caller, &mut parts).await?;
            Ok(next.run(Request::from_parts(parts, body)).await)
        }
        _ => {
            let asked = Asked::read(request).await?;
            subjects::check(app, rule, known, caller, &asked).await?;
            Ok(next.run(asked.into_request()).await)
        }
    }
}
