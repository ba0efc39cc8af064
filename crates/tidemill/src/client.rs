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

/// Who calls a server. Never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Nobody in particular.
    #[default]
    None,
    /// A user and a password.
    Basic(String, String),
    /// A token.
    Token(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

impl Credentials {
    /// What the environment says as for MLflow's own client: `MLFLOW_TRACKING_TOKEN`, or `_USERNAME` and `_PASSWORD`.
    pub fn of_mlflow() -> Self {
        Self::of("MLFLOW_TRACKING")
    }

    /// What the environment says of Tidemill's servers alone: `TIDEMILL_TOKEN`, or `_USERNAME` and `_PASSWORD`.
    pub fn of_tidemill() -> Self {
        Self::of("TIDEMILL")
    }

    fn of(prefix: &str) -> Self {
        Self::read(|name| std::env::var(format!("{prefix}_{name}")).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name| variable(name).filter(|text| !text.is_empty());
        match (variable("TOKEN"), variable("USERNAME")) {
            (Some(token), _) => Self::Token(token),
            (None, Some(user)) => Self::Basic(user, variable("PASSWORD").unwrap_or_default()),
            (None, None) => Self::None,
        }
    }

    /// A request that says who calls.
    pub fn authorise(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match self {
            Self::None => request,
            Self::Basic(user, password) => request.basic_auth(user, Some(password)),
            Self::Token(token) => request.bearer_auth(token),
        }
    }
}

/// A client of one server.
#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    http: reqwest::Client,
    credentials: Credentials,
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
            credentials: Credentials::None,
        })
    }

    /// A client of the server at `base`, which may want to know who calls: the environment says it, for Tidemill or else for MLflow.
    pub fn signed_in(base: &str) -> Result<Self> {
        let credentials = match Credentials::of_tidemill() {
            Credentials::None => Credentials::of_mlflow(),
            ours => ours,
        };
        Ok(Self {
            credentials,
            ..Self::new(base)?
        })
    }

    /// The same for where MLflow's variables are about another server, which alone gets what they say.
    pub fn without_mlflows_credentials(self) -> Self {
        match self.credentials {
            Credentials::None => self,
            _ => Self {
                credentials: Credentials::of_tidemill(),
                ..self
            },
        }
    }

    /// Where the server is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// GET, as JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.send(self.http.get(format!("{}{path}", self.base))).await
    }

    /// POST of a JSON body, as JSON.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &(impl Serialize + ?Sized)) -> Result<T> {
        self.send(self.http.post(format!("{}{path}", self.base)).json(body))
            .await
    }

    /// POST of JSON that is written already, under an id that makes a repetition the same request.
    pub async fn post_json<T: DeserializeOwned>(
        &self,
        path: &str,
        body: String,
        id: Option<&str>,
    ) -> Result<T> {
        let mut request = self.http.post(format!("{}{path}", self.base)).body(body);
        request = request.header("content-type", "application/json");
        if let Some(id) = id {
            request = request.header("x-request-id", id);
        }
        self.send(request).await
    }

    /// DELETE, whose answer is empty.
    pub async fn delete(&self, path: &str) -> Result<()> {
        let request = self.http.delete(format!("{}{path}", self.base));
        self.send_empty(request).await
    }

    /// POST of bytes as they come, for as long as it takes; the answer is JSON.
    pub async fn post_bytes<T: DeserializeOwned>(&self, path: &str, body: reqwest::Body) -> Result<T> {
        let request = self.http.post(format!("{}{path}", self.base)).body(body);
        let request = request.header("content-type", "application/octet-stream");
        self.send(request.timeout(A_DAY)).await
    }

    /// Sends bytes as they come; for as long as it takes.
    pub async fn put(&self, path: &str, body: reqwest::Body) -> Result<()> {
        let request = self.http.put(format!("{}{path}", self.base)).body(body);
        let _: Value = self.send(request.timeout(A_DAY)).await?;
        Ok(())
    }

    async fn send<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T> {
        self.read(self.credentials.authorise(request).send().await).await
    }

    async fn send_empty(&self, request: reqwest::RequestBuilder) -> Result<()> {
        let sent = self.credentials.authorise(request).send().await;
        match &sent {
            Ok(response) if response.status().as_u16() == 204 => Ok(()),
            _ => self.read::<Value>(sent).await.map(drop),
        }
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
        let message = match (status.as_u16(), &self.credentials) {
            (401, Credentials::None) => format!(
                "{message}; set `TIDEMILL_USERNAME` and `TIDEMILL_PASSWORD`, or `TIDEMILL_TOKEN` (or MLflow's `MLFLOW_TRACKING_…`)"
            ),
            _ => message,
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_before_a_name_and_neither_is_shown() {
        let read = |pairs: &[(&str, &str)]| {
            let pairs: Vec<(String, String)> = pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
            Credentials::read(move |name| {
                pairs
                    .iter()
                    .find(|(key, _)| key == name)
                    .map(|(_, value)| value.clone())
            })
        };
        assert_eq!(read(&[]), Credentials::None);
        assert_eq!(read(&[("TOKEN", ""), ("PASSWORD", "p")]), Credentials::None);
        let basic = read(&[("USERNAME", "ada"), ("PASSWORD", "p")]);
        assert_eq!(basic, Credentials::Basic("ada".to_owned(), "p".to_owned()));
        let token = read(&[("USERNAME", "ada"), ("TOKEN", "tm_1")]);
        assert_eq!(token, Credentials::Token("tm_1".to_owned()));
        assert!(!format!("{token:?}{basic:?}").contains("tm_1"));
    }
}
