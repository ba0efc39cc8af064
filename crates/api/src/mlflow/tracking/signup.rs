//! The form in which an administrator adds a user in a browser. The one route that takes a form: a token in the form and in a
//! cookie shows that the form is ours.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{Html, IntoResponse as _, Response};

use tidemill_control::tracking::TrackingError;

use super::form_pairs;
use crate::control_plane::App;
use crate::error::ApiError;
use crate::extract::{Body, media_type};

const COOKIE: &str = "tidemill_csrf";

/// `GET /signup`
pub(crate) async fn form(State(app): State<App>) -> Result<Response, ApiError> {
    let token = app.tracking().random_id()?;
    let page = format!(
        "<!doctype html><title>Sign up</title>\n\
         <form action=\"/api/2.0/mlflow/users/create-ui\" method=\"post\">\n\
         <input type=\"hidden\" name=\"csrf_token\" value=\"{token}\"/>\n\
         <p><label>Username: <input name=\"username\" autocomplete=\"off\" required></label></p>\n\
         <p><label>Password: <input type=\"password\" name=\"password\" minlength=\"12\" required></label></p>\n\
         <p><button>Sign up</button></p>\n</form>\n"
    );
    let mut response = Html(page).into_response();
    let cookie = format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict");
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// `POST /api/2.0/mlflow/users/create-ui`
pub(crate) async fn submit(
    State(app): State<App>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let form = form_pairs(&String::from_utf8_lossy(&body));
    let field = |name: &str| {
        let pair = form.iter().find(|(key, _)| key == name);
        pair.map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    };
    let refused = |text: &str| Err(ApiError::from(TrackingError::invalid(text)));
    let Some(token) = field("csrf_token") else {
        return refused("The CSRF token is missing.");
    };
    if cookie(&headers) != Some(token) {
        return refused("The CSRF tokens do not match.");
    }
    if media_type(&headers).as_deref() != Some("application/x-www-form-urlencoded") {
        return refused("Invalid content type. Must be application/x-www-form-urlencoded");
    }
    let (Some(name), Some(password)) = (field("username"), field("password")) else {
        return refused("Username and password cannot be empty.");
    };
    let user = app.tracking().create_user(name, password).await?;
    Ok(Html(format!(
        "<!doctype html><title>Signed up</title>\n<p>Successfully signed up user: {}</p>\n<p><a href=\"/\">To the start</a></p>\n",
        escaped(&user.name)
    ))
    .into_response())
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
