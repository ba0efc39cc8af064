//! The HTTP client of the commands: the same API that everybody uses.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The longest that the transfer of a file may take.
const A_DAY: Duration = Duration::from_hours(24);

/// A client for any server, over TLS too, that takes as long as it takes.
pub fn http() -> Result<reqwest::Client> {
    // Fails only if a provider is there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(30))
        .build()?)
}

/// Text as it stands in a URL; `/` may stay, for paths.
pub fn encoded(text: &str, slashes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || slashes && byte == b'/' {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

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
        // Fails only if a provider is there already.
        let _ = rustls::crypto::ring::default_provider().install_default();
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

    /// Sends bytes as they come; for as long as it takes.
    pub async fn put(&self, path: &str, body: reqwest::Body) -> Result<()> {
        let request = self.http.put(format!("{}{path}", self.base)).body(body);
        let _: Value = self.read(request.timeout(A_DAY).send().await).await?;
        Ok(())
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
