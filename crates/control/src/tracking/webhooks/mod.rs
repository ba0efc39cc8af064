//! Who is told of what happens in the registry: webhooks as MLflow has them.
//!
//! A message is written to the outbox in the transaction of the change that it tells of ([`tell`]), and sent from there
//! ([`Tracking::deliver_webhooks`]) until it is received or given up. Where messages may go is decided in `address`, at creation and
//! again for the very address that is connected to.

mod address;
mod delivery;
mod events;

use tidemill_core::clock::{Clock as _, WallClock};
use tidemill_core::ids;
use tidemill_store::StoreError;
use tidemill_store::sealing::{Sealed, SealingKey, Secret};
use tidemill_store::webhooks::{self as stored, Webhook};

use super::{Caller, Result, Tracking, TrackingError};

pub use delivery::{Answer, Failure, Post, Sender, TestResult};
pub use events::event_name;
pub(super) use events::{delivery_id, tag_map, tell};

const MAX_RESULTS: i64 = 1000;

/// Where messages may go, and how hard to try.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebhookOptions {
    /// The schemes of URLs, such as `https`.
    pub allowed_schemes: Vec<String>,
    /// Whether addresses inside may be sent to: loopback, private networks, link-local.
    pub allow_private_ips: bool,
    /// How long one attempt may take, in seconds.
    pub timeout_s: u64,
    /// How often to try again.
    pub max_retries: i64,
    /// What secrets are encrypted with in the database; `None` for a key that is kept in the data folder.
    pub secret_key: Option<Secret>,
}

impl Default for WebhookOptions {
    fn default() -> Self {
        Self {
            allowed_schemes: vec!["https".to_owned()],
            allow_private_ips: false,
            timeout_s: 30,
            max_retries: 3,
            secret_key: None,
        }
    }
}

/// What a client says of a webhook. On a change, what is `None` stays.
#[derive(Clone, Default)]
pub struct WebhookFields {
    /// For people.
    pub name: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// Where to send.
    pub url: Option<String>,
    /// Such as `model_version.created`.
    pub events: Option<Vec<String>>,
    /// Signs what is sent.
    pub secret: Option<String>,
    /// `ACTIVE` or `DISABLED`.
    pub status: Option<String>,
}

impl Tracking {
    fn sealing_key(&self) -> std::result::Result<&SealingKey, StoreError> {
        if let Some(key) = self.inner.sealing.get() {
            return Ok(key);
        }
        let key = match &self.options().webhooks.secret_key {
            Some(text) => SealingKey::of_text(&text.0)?,
            None => SealingKey::of_folder(self.store().data_dir())?,
        };
        Ok(self.inner.sealing.get_or_init(|| key))
    }

    /// A secret as it is stored for a webhook.
    pub(super) fn sealed(&self, id: &str, secret: &str) -> Result<Sealed> {
        Ok(self.sealing_key()?.seal(&Secret(secret.to_owned()), id)?)
    }

    /// A webhook's secret in the clear.
    fn opened(&self, id: &str, sealed: &Sealed) -> Result<Secret> {
        Ok(self.sealing_key()?.open(sealed, id)?)
    }

    /// Encrypts the secrets that older versions stored in the clear. A store that cannot be written to stays as it is.
    pub(super) fn seal_old_secrets(&self) {
        let sealed = || {
            if !self.store().read_blocking(stored::has_unsealed)? {
                return Ok(0);
            }
            self.sealing_key()?;
            let tracking = self.clone();
            self.store()
                .write_blocking(move |tx| stored::seal_all(tx, tracking.sealing_key()?))
        };
        match sealed() {
            Ok(0) | Err(StoreError::ReadOnly) => {}
            Ok(count) => tracing::info!(count, "encrypted the secrets of webhooks"),
            Err(error) => {
                tracing::error!(%error, "the secrets of webhooks are stored in the clear and could not be encrypted");
            }
        }
    }

    /// Creates a webhook.
    pub async fn create_webhook(&self, caller: &Caller, fields: WebhookFields) -> Result<Webhook> {
        let now = self.now();
        let mut webhook = Webhook {
            id: ids::fresh(WallClock.now()),
            workspace: caller.workspace.clone(),
            name: String::new(),
            description: None,
            url: String::new(),
            secret: None,
            status: "ACTIVE".to_owned(),
            created_at: now,
            updated_at: now,
            events: Vec::new(),
        };
        check_name(fields.name.as_deref().unwrap_or_default())?;
        self.check_url(fields.url.as_deref().unwrap_or_default()).await?;
        let secret = fields.secret.as_deref();
        let secret = secret
            .map(|secret| self.sealed(&webhook.id, secret))
            .transpose()?;
        apply(&mut webhook, fields, secret)?;
        if webhook.events.is_empty() {
            return Err(no_events());
        }
        self.change(move |tx| {
            stored::put(tx, &webhook)?;
            Ok(webhook)
        })
        .await
    }

    /// A webhook.
    pub async fn get_webhook(&self, caller: &Caller, id: String) -> Result<Webhook> {
        let workspace = caller.workspace.clone();
        self.look(move |tx| stored::find(tx, &workspace, &id)?.ok_or_else(|| not_found(&id)))
            .await
    }

    /// A page of webhooks, latest first, and where the next begins.
    pub async fn list_webhooks(
        &self,
        caller: &Caller,
        max_results: Option<i64>,
        offset: i64,
    ) -> Result<(Vec<Webhook>, Option<i64>)> {
        let limit = max_results.filter(|limit| *limit != 0).unwrap_or(100);
        if !(1..=MAX_RESULTS).contains(&limit) {
            return Err(TrackingError::invalid("max_results must be between 1 and 1000."));
        }
        let workspace = caller.workspace.clone();
        let mut found = self
            .look(move |tx| Ok(stored::list(tx, &workspace, offset, limit + 1)?))
            .await?;
        let more = found.len() as i64 > limit;
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok((found, more.then_some(offset + limit)))
    }

    /// Changes what is given.
    pub async fn update_webhook(
        &self,
        caller: &Caller,
        id: String,
        fields: WebhookFields,
    ) -> Result<Webhook> {
        let before = self.get_webhook(caller, id.clone()).await?;
        if let Some(name) = &fields.name {
            check_name(name)?;
        }
        if let Some(url) = &fields.url {
            self.check_url(url).await?;
        }
        if fields.events.as_ref().is_some_and(Vec::is_empty) {
            return Err(no_events());
        }
        let now = self.now();
        let workspace = before.workspace;
        let secret = fields.secret.as_deref();
        let secret = secret.map(|secret| self.sealed(&id, secret)).transpose()?;
        self.change(move |tx| {
            let mut webhook = stored::find(tx, &workspace, &id)?.ok_or_else(|| not_found(&id))?;
            apply(&mut webhook, fields, secret)?;
            webhook.updated_at = now;
            stored::put(tx, &webhook)?;
            Ok(webhook)
        })
        .await
    }

    /// Removes a webhook and what was still to be sent to it.
    pub async fn delete_webhook(&self, caller: &Caller, id: String) -> Result<()> {
        let workspace = caller.workspace.clone();
        self.change(move |tx| {
            stored::find(tx, &workspace, &id)?.ok_or_else(|| not_found(&id))?;
            Ok(stored::delete(tx, &id)?)
        })
        .await
    }
}

fn apply(webhook: &mut Webhook, fields: WebhookFields, secret: Option<Sealed>) -> Result<()> {
    if let Some(status) = fields.status {
        if status != "ACTIVE" && status != "DISABLED" {
            return Err(TrackingError::invalid(format!(
                "Invalid webhook status: '{status}'. Expected ACTIVE or DISABLED."
            )));
        }
        webhook.status = status;
    }
    if let Some(name) = fields.name {
        webhook.name = name;
    }
    if let Some(url) = fields.url {
        webhook.url = url;
    }
    if let Some(events) = fields.events {
        webhook.events = events;
    }
    if fields.description.is_some() {
        webhook.description = fields.description;
    }
    if secret.is_some() {
        webhook.secret = secret;
    }
    Ok(())
}

fn not_found(id: &str) -> TrackingError {
    TrackingError::not_found(format!("Webhook with ID {id} not found."))
}

fn no_events() -> TrackingError {
    TrackingError::invalid("Webhook events must be a non-empty list of WebhookEvent objects: [].")
}

pub(super) fn check_name(name: &str) -> Result<()> {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let fits = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if fits && name.len() <= 63 && ends(name.chars().next()) && ends(name.chars().last()) {
        return Ok(());
    }
    Err(TrackingError::invalid(format!(
        "Webhook name '{name}' is invalid. It must start and end with a letter or digit, be less than 63 characters long, and contain \
         only letters, digits, dots (.), underscores (_), and hyphens (-)."
    )))
}

#[cfg(test)]
mod webhooks_tests;
