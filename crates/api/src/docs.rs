//! `/docs/errors/{code}`: the page of an error, as Markdown.

use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

use crate::error::ApiError;

#[derive(RustEmbed)]
#[folder = "../../docs/errors/"]
#[allow_missing = true]
struct ErrorPages;

/// `GET /docs/errors/{code}`
pub(crate) async fn error_page(Path(code): Path<String>) -> Result<Response, ApiError> {
    let plain = code.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let page = if plain {
        ErrorPages::get(&format!("{code}.md"))
    } else {
        None
    };
    let Some(page) = page else {
        return Err(ApiError::not_found(
            "unknown_error_code",
            format!("there is no page for the error code `{code}`"),
        ));
    };
    let headers = [
        (header::CONTENT_TYPE, "text/markdown; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, page.data.into_owned()).into_response())
}
