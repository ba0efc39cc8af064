//! Sends what is in the outbox: signed, with a limit of time, and again after what may pass.

use std::collections::HashSet;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tidemill_core::clock::{Clock as _, Timestamp, WallClock, real_sleep};
use tidemill_core::spec::Span;
use tidemill_store::sealing::{Sealed, Secret};
use tidemill_store::webhooks::{self as stored, Outgoing};
use tokio::task::JoinSet;

use super::events;
use crate::tracking::{Caller, Result, Tracking, TrackingError};

/// How many messages are on their way at a time.
const AT_ONCE: usize = 8;
/// How long a message that was given up is kept.
const KEEP_FAILED: Span = Span::from_micros(7 * 24 * 3_600 * 1_000_000);
/// The longest that is waited between two attempts.
const LONGEST_WAIT_S: u64 = 60;
/// Wakes the sender now and then, whatever it may have missed.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// One POST, to be made to these addresses and no other, without following redirects and without a proxy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Post {
    /// Where to.
    pub url: String,
    /// What the URL's host is: connecting elsewhere would undo the check of them. Empty where inner addresses are allowed and the
    /// host could not be resolved.
    pub addresses: Vec<SocketAddr>,
    /// Names and values.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub body: String,
    /// How long it may take.
    pub timeout: Duration,
}

/// What the receiver answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The beginning of the body.
    pub body: String,
    /// After how many seconds the receiver wants to be asked again.
    pub retry_after_s: Option<u64>,
}

/// Why there was no answer, for people.
pub type Failure = String;

/// Makes POSTs. The binary has the HTTP client.
pub trait Sender: Send + Sync + 'static {
    /// Makes one POST.
    fn post(
        &self,
        post: Post,
    ) -> Pin<Box<dyn Future<Output = std::result::Result<Answer, Failure>> + Send + '_>>;
}

/// What came of testing a webhook.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TestResult {
    /// Whether the receiver took it.
    pub success: bool,
    /// The HTTP status, if there was an answer.
    pub response_status: Option<u16>,
    /// The beginning of the answer.
    pub response_body: Option<String>,
    /// Why there was none.
    pub error_message: Option<String>,
}

/// The signature of a message as MLflow computes it.
pub(super) fn signature(secret: &Secret, delivery_id: &str, timestamp: &str, body: &str) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.0.as_bytes()) else {
        return String::new();
    };
    for part in [delivery_id, ".", timestamp, ".", body] {
        mac.update(part.as_bytes());
    }
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// Whether what failed may pass by itself.
fn may_pass(status: u16) -> bool {
    matches!(status, 429 | 500 | 502 | 503 | 504)
}

/// How long to wait before the next attempt: 1, 2, 4 … seconds, or what the receiver asked for.
fn wait(attempts: i64, retry_after_s: Option<u64>) -> Span {
    let exponent = u32::try_from(attempts).unwrap_or(0).min(6);
    let seconds = retry_after_s.unwrap_or(1 << exponent).min(LONGEST_WAIT_S);
    Span::from_micros(seconds as i64 * 1_000_000)
}

impl Tracking {
    /// Says that the outbox has something new.
    pub(in crate::tracking) fn webhooks_written(&self) {
        self.inner.outbox.notify_one();
    }

    /// Says who makes the POSTs; without one nothing is sent. The first one stays.
    pub fn send_webhooks_by(&self, sender: Arc<dyn Sender>) {
        let _ = self.inner.sender.set(sender);
    }

    /// Sends what is in the outbox, for ever.
    pub async fn deliver_webhooks(&self) {
        let Some(sender) = self.inner.sender.get().map(Arc::clone) else {
            tracing::warn!("nobody sends webhooks");
            return;
        };
        let mut under_way: HashSet<i64> = HashSet::new();
        let mut tasks: JoinSet<i64> = JoinSet::new();
        let forgotten = WallClock.now() - KEEP_FAILED;
        let forget = self
            .store()
            .write(move |tx| stored::forget_failed(tx, forgotten))
            .await;
        if let Err(error) = forget {
            tracing::warn!(%error, "cannot forget messages that were given up");
        }
        loop {
            let now = WallClock.now();
            // What is under way comes again, so that many more are asked for.
            let limit = (AT_ONCE + under_way.len()) as i64;
            let looked = self
                .store()
                .read(move |tx| Ok((stored::due(tx, now, limit)?, stored::next_due(tx)?)))
                .await;
            let (due, next) = looked.unwrap_or_else(|error| {
                tracing::error!(%error, "cannot read the outbox of webhooks");
                (Vec::new(), None)
            });
            for message in due {
                if under_way.len() >= AT_ONCE || !under_way.insert(message.seq) {
                    continue;
                }
                let (tracking, sender) = (self.clone(), Arc::clone(&sender));
                tasks.spawn(async move {
                    let seq = message.seq;
                    tracking.deliver(&*sender, message).await;
                    seq
                });
            }
            let pause = next.map_or(HEARTBEAT, |next| {
                let micros = u64::try_from((next - WallClock.now()).as_micros()).unwrap_or(0);
                Duration::from_micros(micros).clamp(Duration::from_millis(20), HEARTBEAT)
            });
            let full = under_way.len() >= AT_ONCE;
            tokio::select! {
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    match ended {
                        Ok(seq) => { under_way.remove(&seq); }
                        // Which one it was is not told; what is still due is tried again.
                        Err(_) if tasks.is_empty() => under_way.clear(),
                        Err(_) => {}
                    }
                }
                () = self.inner.outbox.notified(), if !full => {}
                () = real_sleep(if under_way.is_empty() { pause } else { pause.max(Duration::from_millis(200)) }), if !full => {}
            }
        }
    }

    /// One attempt, and what comes of it.
    async fn deliver(&self, sender: &dyn Sender, message: Outgoing) {
        let posted = self
            .post(
                sender,
                &message.url,
                message
                    .secret
                    .as_ref()
                    .map(|secret| (message.webhook.as_str(), secret)),
                &message.delivery_id,
                &message.body,
            )
            .await;
        let (error, again, after) = match posted {
            Ok(answer) if answer.status < 400 && !(300..400).contains(&answer.status) => {
                let seq = message.seq;
                self.note(move |tx| stored::delivered(tx, seq)).await;
                return;
            }
            Ok(answer) => (
                format!("the receiver answered {}", answer.status),
                may_pass(answer.status),
                answer.retry_after_s,
            ),
            Err(Refused::Forbidden(reason)) => (reason, false, None),
            Err(Refused::Failed(reason)) => (reason, true, None),
        };
        let again = again && message.attempts < self.options().webhooks.max_retries;
        tracing::warn!(webhook = %message.webhook, event = %message.event, again, "a webhook was not received: {error}");
        let due: Option<Timestamp> = again.then(|| WallClock.now() + wait(message.attempts, after));
        let seq = message.seq;
        self.note(move |tx| stored::failed(tx, seq, &error, due)).await;
    }

    async fn note(
        &self,
        change: impl FnOnce(&mut tidemill_store::Tx<'_>) -> std::result::Result<(), tidemill_store::StoreError>
        + Send
        + 'static,
    ) {
        if let Err(error) = self.store().write(change).await {
            tracing::error!(%error, "cannot write down what came of a webhook; it is sent again");
        }
    }

    async fn post(
        &self,
        sender: &dyn Sender,
        url: &str,
        secret: Option<(&str, &Sealed)>,
        delivery_id: &str,
        body: &str,
    ) -> std::result::Result<Answer, Refused> {
        let addresses = self
            .check_url(url)
            .await
            .map_err(|error| Refused::Forbidden(error.to_string()))?;
        let timestamp = WallClock.now().as_millis().div_euclid(1_000).to_string();
        let mut headers = vec![
            ("Content-Type", "application/json".to_owned()),
            ("X-MLflow-Delivery-Id", delivery_id.to_owned()),
            ("X-MLflow-Timestamp", timestamp.clone()),
        ];
        if let Some((webhook, sealed)) = secret {
            let secret = self.opened(webhook, sealed);
            // The server may have been started with another key; it is tried again.
            let secret = secret.map_err(|error| Refused::Failed(error.to_string()))?;
            headers.push((
                "X-MLflow-Signature",
                signature(&secret, delivery_id, &timestamp, body),
            ));
        }
        let post = Post {
            url: url.to_owned(),
            addresses,
            headers,
            body: body.to_owned(),
            timeout: Duration::from_secs(self.options().webhooks.timeout_s),
        };
        sender.post(post).await.map_err(Refused::Failed)
    }

    /// Sends an example of an event (the webhook's first, if none is named) now, once.
    pub async fn test_webhook(
        &self,
        caller: &Caller,
        id: String,
        event: Option<String>,
    ) -> Result<TestResult> {
        let webhook = self.get_webhook(caller, id).await?;
        let sender = self
            .inner
            .sender
            .get()
            .map(Arc::clone)
            .ok_or_else(|| TrackingError::NotImplemented("this server sends no webhooks".to_owned()))?;
        let event = event
            .or_else(|| webhook.events.first().cloned())
            .unwrap_or_default();
        let now = WallClock.now();
        let body = events::body(&event, events::example(&event), now);
        let id = events::delivery_id(now);
        let secret = webhook
            .secret
            .as_ref()
            .map(|secret| (webhook.id.as_str(), secret));
        let posted = self.post(&*sender, &webhook.url, secret, &id, &body).await;
        Ok(match posted {
            Ok(answer) => TestResult {
                success: answer.status < 400,
                response_status: Some(answer.status),
                response_body: Some(answer.body),
                error_message: None,
            },
            Err(Refused::Forbidden(reason) | Refused::Failed(reason)) => TestResult {
                success: false,
                response_status: None,
                response_body: None,
                error_message: Some(format!("Failed to test webhook: {reason}")),
            },
        })
    }
}

/// Why nothing was answered.
enum Refused {
    /// The URL must not be sent to.
    Forbidden(String),
    /// It did not work this time.
    Failed(String),
}
