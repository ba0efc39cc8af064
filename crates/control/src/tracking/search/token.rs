//! Page tokens: where a page ended, and of which search it was a page. Opaque to clients.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tidemill_core::digest::Digest;
use tidemill_store::search::Cursor;

use crate::tracking::{Result, TrackingError};

/// The search that a token belongs to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Searched {
    #[serde(rename = "s")]
    scope: String,
    #[serde(rename = "f")]
    filter: String,
    #[serde(rename = "o")]
    order: String,
}

#[derive(Serialize, Deserialize)]
struct Token {
    #[serde(flatten)]
    searched: Searched,
    #[serde(rename = "a")]
    after: Cursor,
}

/// Enough of a digest to tell two searches apart.
fn short(text: &str) -> String {
    let digest = Digest::of(text.as_bytes()).to_string();
    let digits: String = digest.chars().rev().take(12).collect();
    digits
}

impl Searched {
    /// By where is searched, the filter as written, and the order as written.
    pub fn of(scope: &str, filter: &str, order: &str) -> Self {
        Self {
            scope: short(scope),
            filter: short(filter),
            order: short(order),
        }
    }

    /// Where a token says the page before ended. A token of another search is refused.
    pub fn after(&self, token: Option<&str>) -> Result<Option<Cursor>> {
        let Some(text) = token.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let invalid = |message: String| Err(TrackingError::invalid(message));
        let Ok(bytes) = STANDARD.decode(text) else {
            return invalid("Invalid page token, could not base64-decode".to_owned());
        };
        let Ok(token) = serde_json::from_slice::<Token>(&bytes) else {
            return invalid(format!(
                "Invalid page token, decoded value={}",
                String::from_utf8_lossy(&bytes)
            ));
        };
        let is_of = |what: &str, requested: &str| {
            format!("{what} in the page token do not match the requested {requested}.")
        };
        if token.searched.scope != self.scope {
            return invalid(is_of("Experiment IDs", "experiment IDs"));
        }
        if token.searched.filter != self.filter {
            return invalid(
                "Filter string in the page token does not match the requested filter string.".to_owned(),
            );
        }
        if token.searched.order != self.order {
            return invalid("Order by in the page token does not match the requested order by.".to_owned());
        }
        Ok(Some(token.after))
    }

    /// The token of the page after this one.
    pub fn token(&self, next: Option<Cursor>) -> Option<String> {
        let token = Token {
            searched: self.clone(),
            after: next?,
        };
        serde_json::to_vec(&token).ok().map(|json| STANDARD.encode(json))
    }
}
