//! The HTTP client of the commands: the same API that everybody uses.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The server said no.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiFailure {
    /// The HTTP status, 0 where no answer came.
    pub status: u16,
    /// What the server said.
    pub message: String,
}

/// A client of one server.
#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    http: reqwest::Client,
}

impl Client {
    /// A client of the server at `base`.
    pub fn new(base: &str) -> Result<Self> {
        // Training and clock moves answer when they are done, which can take minutes.
        let http = reqwest::Client::builder()
            .timeout(Duration::from_hours(1))
            .no_proxy()
            .build()?;
        Ok(Self {
            base: base.trim_end_matches('/').to_owned(),
            http,
        })
    }

    /// Where the server is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// GET, as JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.read(self.http.get(format!("{}{path}", self.base)).send().await)
            .await
    }

    /// POST of a JSON body, as JSON.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &(impl Serialize + ?Sized)) -> Result<T> {
        self.read(
            self.http
                .post(format!("{}{path}", self.base))
                .json(body)
                .send()
                .await,
        )
        .await
    }

    async fn read<T: DeserializeOwned>(&self, sent: reqwest::Result<reqwest::Response>) -> Result<T> {
        let response = sent.map_err(|e| ApiFailure {
            status: 0,
            message: format!(
                "no answer from {}: {e:?}; is the server running (`tidemill up`)?",
                self.base
            ),
        })?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|e| ApiFailure {
            status: 0,
            message: format!("the answer of {} broke off: {e}", self.base),
        })?;
        if status.is_success() || status.as_u16() == 409 && is_outcomes(&bytes) {
            let mut value: Value =
                serde_json::from_slice(&bytes).context("the server's answer is not JSON")?;
            if status.as_u16() == 409 {
                value = value["error"]["details"].take();
            }
            return serde_json::from_value(value).context("the server's answer is not what was expected");
        }
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let message = value["error"]["message"]
            .as_str()
            .or_else(|| value["error"].as_str())
            .or_else(|| value["message"].as_str())
            .map_or_else(
                || format!("{status}: {}", String::from_utf8_lossy(&bytes)),
                str::to_owned,
            );
        Err(ApiFailure {
            status: status.as_u16(),
            message,
        }
        .into())
    }
}

/// Whether the error means that no server answered (rather than that it said no).
pub fn is_unreachable(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|c| c.downcast_ref::<ApiFailure>().is_some_and(|f| f.status == 0))
}

/// Feedback answers 409 with an outcome for each item: that is an answer, not a failure of the request.
fn is_outcomes(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Value>(bytes).is_ok_and(|v| v["error"]["details"]["outcomes"].is_array())
}
