//! Makes the POSTs of webhooks: to the addresses that were checked and no other, without redirects, proxies or patience.

use std::future::Future;
use std::pin::Pin;

use anyhow::{Result, anyhow};
use reqwest::redirect::Policy;
use reqwest::{Client, Url, header};
use tidemill_control::tracking::webhooks::{Answer, Failure, Post, Sender, WebhookOptions};
use tidemill_store::sealing::Secret;

/// How much of an answer is read.
const ANSWER_LIMIT: usize = 64 * 1024;

/// Posts by `reqwest`.
#[derive(Debug, Default)]
pub struct HttpSender;

/// Chooses the code that TLS works with, once for the process: every HTTP client asks for it, whatever it speaks.
pub fn choose_tls() {
    // An error says that it is chosen already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

impl Sender for HttpSender {
    fn post(&self, post: Post) -> Pin<Box<dyn Future<Output = Result<Answer, Failure>> + Send + '_>> {
        Box::pin(async move { send(post).await.map_err(|error| format!("{error:#}")) })
    }
}

async fn send(post: Post) -> Result<Answer> {
    let url = Url::parse(&post.url)?;
    let host = url.host_str().ok_or_else(|| anyhow!("the URL has no host"))?;
    let mut client = Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .timeout(post.timeout)
        .user_agent(concat!("tidemill/", env!("CARGO_PKG_VERSION")));
    if !post.addresses.is_empty() {
        client = client.resolve_to_addrs(host, &post.addresses);
    }
    let mut request = client.build()?.post(url).body(post.body);
    for (name, value) in post.headers {
        request = request.header(name, value);
    }
    let mut response = request.send().await?;
    let status = response.status().as_u16();
    let retry_after_s = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let mut body = Vec::new();
    while body.len() < ANSWER_LIMIT {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            // The status says that the message was received, however its answer ends: small servers close TLS without a word.
            Ok(None) | Err(_) => break,
        }
    }
    body.truncate(ANSWER_LIMIT);
    Ok(Answer {
        status,
        body: String::from_utf8_lossy(&body).into_owned(),
        retry_after_s,
    })
}

/// What the environment says of webhooks, in MLflow's variables.
pub fn options_from_env() -> Result<WebhookOptions> {
    let mut options = WebhookOptions::default();
    let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(schemes) = var("MLFLOW_WEBHOOK_ALLOWED_SCHEMES") {
        let schemes = schemes.split(',').map(|scheme| scheme.trim().to_lowercase());
        options.allowed_schemes = schemes.filter(|scheme| !scheme.is_empty()).collect();
    }
    if let Some(allow) = var("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS") {
        options.allow_private_ips = matches!(allow.to_lowercase().as_str(), "true" | "1");
    }
    options.secret_key = var("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY").map(Secret);
    let number = |name: &'static str| -> Result<Option<u32>> {
        var(name)
            .map(|text| {
                text.parse()
                    .map_err(|_| anyhow!("`{name}` is `{text}`: expected a whole number"))
            })
            .transpose()
    };
    if let Some(seconds) = number("MLFLOW_WEBHOOK_REQUEST_TIMEOUT")? {
        options.timeout_s = u64::from(seconds.max(1));
    }
    if let Some(retries) = number("MLFLOW_WEBHOOK_REQUEST_MAX_RETRIES")? {
        options.max_retries = i64::from(retries);
    }
    Ok(options)
}
