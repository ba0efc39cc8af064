use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tidemill_core::clock::VirtualClock;
use tidemill_store::Store;

use super::delivery::signature;
use super::*;
use crate::tracking::TrackingOptions;

/// Answers with what it was told to, and remembers what it got.
struct Receiver {
    answers: Mutex<Vec<u16>>,
    got: Mutex<Vec<Post>>,
}

impl Sender for Receiver {
    fn post(
        &self,
        post: Post,
    ) -> Pin<Box<dyn Future<Output = std::result::Result<Answer, Failure>> + Send + '_>> {
        Box::pin(async move {
            self.got.lock().unwrap().push(post);
            let status = self.answers.lock().unwrap().pop().unwrap_or(200);
            Ok(Answer {
                status,
                body: String::new(),
                retry_after_s: Some(0),
            })
        })
    }
}

struct House {
    tracking: Tracking,
    receiver: Arc<Receiver>,
    caller: Caller,
    _dir: tempfile::TempDir,
}

fn house(answers: &[u16], allow_private_ips: bool) -> House {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let clock = VirtualClock::new("2030-01-01T00:00:00Z".parse().unwrap());
    let options = TrackingOptions {
        webhooks: WebhookOptions {
            allow_private_ips,
            ..WebhookOptions::default()
        },
        ..TrackingOptions::default()
    };
    let tracking = Tracking::new(store, Arc::new(clock), options);
    let receiver = Arc::new(Receiver {
        answers: Mutex::new(answers.to_vec()),
        got: Mutex::default(),
    });
    tracking.send_webhooks_by(Arc::clone(&receiver) as Arc<dyn Sender>);
    House {
        tracking,
        receiver,
        caller: Caller::default(),
        _dir: dir,
    }
}

fn fields(url: &str) -> WebhookFields {
    WebhookFields {
        name: Some("hook".to_owned()),
        url: Some(url.to_owned()),
        events: Some(vec!["registered_model.created".to_owned()]),
        secret: Some("s3cret".to_owned()),
        ..WebhookFields::default()
    }
}

async fn until(what: impl Fn() -> bool) {
    for _ in 0..500 {
        if what() {
            return;
        }
        tidemill_core::clock::real_sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("it did not happen");
}

#[tokio::test]
async fn a_change_is_told_of_signed_and_again_after_a_503_with_the_same_id() {
    let house = house(&[503], true);
    let tracking = house.tracking.clone();
    tracking
        .create_webhook(&house.caller, fields("https://127.0.0.1:1/hook"))
        .await
        .unwrap();
    let sending = tokio::spawn({
        let tracking = tracking.clone();
        async move { tracking.deliver_webhooks().await }
    });
    let tags = vec![("a".to_owned(), "b".to_owned())];
    tracking
        .create_registered_model(&house.caller, "m".to_owned(), tags, String::new())
        .await
        .unwrap();
    until(|| house.receiver.got.lock().unwrap().len() == 2).await;
    let got = house.receiver.got.lock().unwrap().clone();
    assert_eq!(got[0].body, got[1].body);
    let header = |post: &Post, name: &str| {
        let found = post.headers.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.clone()).unwrap()
    };
    let id = header(&got[0], "X-MLflow-Delivery-Id");
    assert_eq!(id, header(&got[1], "X-MLflow-Delivery-Id"));
    let time = header(&got[0], "X-MLflow-Timestamp");
    let expected = signature(&Secret("s3cret".to_owned()), &id, &time, &got[0].body);
    assert_eq!(header(&got[0], "X-MLflow-Signature"), expected);
    let body: Value = serde_json::from_str(&got[0].body).unwrap();
    assert_eq!(body["entity"], "registered_model");
    assert_eq!(body["data"]["tags"]["a"], "b");
    assert_eq!(got[0].addresses, ["127.0.0.1:1".parse().unwrap()]);
    let store = tracking.store().clone();
    until(move || {
        store
            .read_blocking(tidemill_store::webhooks::next_due)
            .unwrap()
            .is_none()
    })
    .await;
    sending.abort();
}

#[tokio::test]
async fn addresses_inside_are_refused_at_creation_and_again_at_delivery() {
    let strict = house(&[], false);
    for (url, text) in [
        (
            "https://127.0.0.1/x",
            "must not resolve to a non-public IP address",
        ),
        ("https://[::1]/x", "must not resolve to a non-public IP address"),
        ("https://0x7f.1/x", "must not resolve to a non-public IP address"),
        (
            "https://169.254.169.254/latest",
            "must not resolve to a non-public IP address",
        ),
        (
            "http://93.184.216.34/x",
            "Invalid webhook URL scheme: 'http'. Allowed schemes are: https.",
        ),
        ("file:///etc/passwd", "Invalid webhook URL scheme: 'file'"),
        ("nonsense", "Invalid webhook URL scheme: ''"),
        ("https:///", "Webhook URL must include a hostname"),
        ("  ", "cannot be empty or just whitespace"),
    ] {
        let error = strict
            .tracking
            .create_webhook(&strict.caller, fields(url))
            .await
            .unwrap_err();
        assert!(error.to_string().contains(text), "{url}: {error}");
    }
    let public = fields("https://93.184.216.34/x");
    let mut created = strict
        .tracking
        .create_webhook(&strict.caller, public)
        .await
        .unwrap();
    // As if the name led elsewhere by now.
    created.url = "https://127.0.0.1/x".to_owned();
    let id = created.id.clone();
    strict
        .tracking
        .store()
        .write(move |tx| tidemill_store::webhooks::put(tx, &created))
        .await
        .unwrap();
    let tested = strict
        .tracking
        .test_webhook(&strict.caller, id, None)
        .await
        .unwrap();
    assert!(!tested.success);
    assert!(tested.error_message.unwrap().contains("non-public IP address"));
    assert!(strict.receiver.got.lock().unwrap().is_empty());
}

#[tokio::test]
async fn webhooks_are_listed_changed_and_removed_in_their_own_workspace() {
    let house = house(&[], true);
    let tracking = &house.tracking;
    let url = "https://127.0.0.1/x";
    let created = tracking.create_webhook(&house.caller, fields(url)).await.unwrap();
    let change = WebhookFields {
        status: Some("DISABLED".to_owned()),
        ..WebhookFields::default()
    };
    let changed = tracking
        .update_webhook(&house.caller, created.id.clone(), change)
        .await
        .unwrap();
    assert_eq!((changed.status.as_str(), changed.url.as_str()), ("DISABLED", url));
    assert_eq!(changed.events, created.events);
    let stranger = Caller {
        workspace: "other".to_owned(),
        ..Caller::default()
    };
    assert!(tracking.get_webhook(&stranger, created.id.clone()).await.is_err());
    let (page, next) = tracking.list_webhooks(&house.caller, Some(1), 0).await.unwrap();
    assert_eq!((page.len(), next), (1, None));
    tracking
        .delete_webhook(&house.caller, created.id.clone())
        .await
        .unwrap();
    let error = tracking.get_webhook(&house.caller, created.id).await.unwrap_err();
    assert!(error.to_string().starts_with("Webhook with ID"));
    for name in ["", "-a", "a b", &"x".repeat(64)] {
        let mut wrong = fields(url);
        wrong.name = Some(name.to_owned());
        assert!(
            tracking.create_webhook(&house.caller, wrong).await.is_err(),
            "{name}"
        );
    }
}

#[test]
fn a_signature_is_mlflows() {
    // hmac.new(b"key", b"id.1.{}", sha256) in base64.
    let found = signature(&Secret("key".to_owned()), "id", "1", "{}");
    assert_eq!(found, "v1,5PVmP2AfJGwnp9flV+flrzfukNWA9zyUdqvI+IQalVs=");
}
