//! Who wants to be told of what, and what is still to be sent.

use tidemill_core::clock::Timestamp;

use crate::automations::HIDDEN;
use crate::column::{Fields, bind};
use crate::db::{Dialect, Row};
use crate::error::StoreError;
use crate::sealing::{Sealed, SealingKey, Secret};
use crate::tx::{ReadTx, Tx};

/// A receiver and the events that it wants to be told of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Webhook {
    /// Its id.
    pub id: String,
    /// Whose events.
    pub workspace: String,
    /// For people.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Where to send.
    pub url: String,
    /// Signs what is sent.
    pub secret: Option<Sealed>,
    /// `ACTIVE` or `DISABLED`.
    pub status: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Such as `model_version.created`, in the order given.
    pub events: Vec<String>,
}

const COLUMNS: &str = "id, workspace, name, description, url, secret, status, created_at, updated_at";

fn read(row: &Row<'_>) -> rusqlite::Result<Webhook> {
    let mut fields = Fields::of(row);
    Ok(Webhook {
        id: fields.next()?,
        workspace: fields.next()?,
        name: fields.next()?,
        description: fields.next()?,
        url: fields.next()?,
        secret: fields.next::<Option<String>>()?.map(Sealed),
        status: fields.next()?,
        created_at: fields.next()?,
        updated_at: fields.next()?,
        events: Vec::new(),
    })
}

fn with_events(tx: &ReadTx<'_>, mut webhook: Webhook) -> Result<Webhook, StoreError> {
    let sql = "SELECT event FROM webhook_events WHERE webhook = ?1 ORDER BY position";
    webhook.events = tx.rows(sql, bind![webhook.id], |row| Fields::of(row).next())?;
    Ok(webhook)
}

/// A webhook of a workspace.
pub fn find(tx: &ReadTx<'_>, workspace: &str, id: &str) -> Result<Option<Webhook>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM webhooks WHERE id = ?1 AND workspace = ?2 AND status <> ?3");
    match tx.first(&sql, bind![id, workspace, HIDDEN], read)? {
        Some(webhook) => with_events(tx, webhook).map(Some),
        None => Ok(None),
    }
}

/// The webhooks of a workspace, latest first.
pub fn list(tx: &ReadTx<'_>, workspace: &str, offset: i64, limit: i64) -> Result<Vec<Webhook>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM webhooks WHERE workspace = ?1 AND status <> ?2 ORDER BY created_at DESC, id DESC LIMIT {limit} OFFSET {offset}"
    );
    let found = tx.rows(&sql, bind![workspace, HIDDEN], read)?;
    found
        .into_iter()
        .map(|webhook| with_events(tx, webhook))
        .collect()
}

/// Writes a webhook, new or changed.
pub fn put(tx: &mut Tx<'_>, webhook: &Webhook) -> Result<(), StoreError> {
    let secret = webhook.secret.as_ref().map(|secret| secret.0.as_str());
    let values = bind![
        webhook.id,
        webhook.workspace,
        webhook.name,
        webhook.description,
        webhook.url,
        secret,
        webhook.status,
        webhook.created_at,
        webhook.updated_at
    ];
    tx.upsert("webhooks", COLUMNS, "id", values)?;
    tx.execute("DELETE FROM webhook_events WHERE webhook = ?1", bind![webhook.id])?;
    for (position, event) in webhook.events.iter().enumerate() {
        let values = bind![webhook.id, event, position as i64];
        tx.insert_new("webhook_events", "webhook, event, position", values)?;
    }
    Ok(())
}

/// Encrypts the secrets that older versions stored in the clear; how many there were.
pub fn seal_all(tx: &mut Tx<'_>, key: &SealingKey) -> Result<usize, StoreError> {
    let found: Vec<(String, String)> = unsealed(tx)?;
    if tx.dialect() == Dialect::Sqlite && !found.is_empty() {
        // What stood there is overwritten and not only given up.
        tx.first("PRAGMA secure_delete = ON", bind![], |_| Ok(()))?;
    }
    for (id, secret) in &found {
        let sealed = key.seal(&Secret(secret.clone()), id)?;
        tx.execute(
            "UPDATE webhooks SET secret = ?1 WHERE id = ?2",
            bind![sealed.0, id],
        )?;
    }
    Ok(found.len())
}

/// The webhooks whose secrets are stored in the clear, and those.
fn unsealed(tx: &ReadTx<'_>) -> Result<Vec<(String, String)>, StoreError> {
    let mut found: Vec<(String, String)> = tx.rows(
        "SELECT id, secret FROM webhooks WHERE secret IS NOT NULL",
        bind![],
        |row| {
            let mut fields = Fields::of(row);
            Ok((fields.next()?, fields.next()?))
        },
    )?;
    found.retain(|(_, secret)| !Sealed::is_sealed(secret));
    Ok(found)
}

/// Whether a secret is stored in the clear.
pub fn has_unsealed(tx: &ReadTx<'_>) -> Result<bool, StoreError> {
    Ok(!unsealed(tx)?.is_empty())
}

/// Removes a webhook, and what was still to be sent to it.
pub fn delete(tx: &mut Tx<'_>, id: &str) -> Result<(), StoreError> {
    tx.execute("DELETE FROM webhooks WHERE id = ?1", bind![id])?;
    Ok(())
}

/// The active webhooks of a workspace that want to be told of an event: their ids.
pub fn interested(tx: &ReadTx<'_>, workspace: &str, event: &str) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT w.id FROM webhooks w JOIN webhook_events e ON e.webhook = w.id \
         WHERE w.workspace = ?1 AND w.status = 'ACTIVE' AND e.event = ?2 ORDER BY w.created_at, w.id";
    tx.rows(sql, bind![workspace, event], |row| Fields::of(row).next())
}

/// Puts a message into the outbox.
pub fn enqueue(
    tx: &mut Tx<'_>,
    webhook: &str,
    delivery_id: &str,
    event: &str,
    body: &str,
    at: Timestamp,
) -> Result<(), StoreError> {
    let values = bind![webhook, delivery_id, event, body, at, 0_i64, at, "waiting"];
    let columns = "webhook, delivery_id, event, body, created_at, attempts, due_at, state";
    tx.insert("webhook_outbox", columns, values)
}

/// A message that is to be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outgoing {
    /// Its place in the outbox.
    pub seq: i64,
    /// The same at every attempt, so that a receiver can tell a repetition.
    pub delivery_id: String,
    /// Which webhook.
    pub webhook: String,
    /// Where to send.
    pub url: String,
    /// Signs what is sent.
    pub secret: Option<Sealed>,
    /// What happened.
    pub event: String,
    /// What to send.
    pub body: String,
    /// How often it was tried.
    pub attempts: i64,
}

/// Messages whose time has come, oldest first.
pub fn due(tx: &ReadTx<'_>, now: Timestamp, limit: i64) -> Result<Vec<Outgoing>, StoreError> {
    let sql = format!(
        "SELECT o.seq, o.delivery_id, o.webhook, w.url, w.secret, o.event, o.body, o.attempts FROM webhook_outbox o \
         JOIN webhooks w ON w.id = o.webhook WHERE o.state = 'waiting' AND o.due_at <= ?1 ORDER BY o.seq LIMIT {limit}"
    );
    tx.rows(&sql, bind![now], |row| {
        let mut fields = Fields::of(row);
        Ok(Outgoing {
            seq: fields.next()?,
            delivery_id: fields.next()?,
            webhook: fields.next()?,
            url: fields.next()?,
            secret: fields.next::<Option<String>>()?.map(Sealed),
            event: fields.next()?,
            body: fields.next()?,
            attempts: fields.next()?,
        })
    })
}

/// When the next message is due.
pub fn next_due(tx: &ReadTx<'_>) -> Result<Option<Timestamp>, StoreError> {
    let sql = "SELECT due_at FROM webhook_outbox WHERE state = 'waiting' ORDER BY due_at LIMIT 1";
    tx.first(sql, bind![], |row| Fields::of(row).next())
}

/// A message was received: it goes.
pub fn delivered(tx: &mut Tx<'_>, seq: i64) -> Result<(), StoreError> {
    tx.execute("DELETE FROM webhook_outbox WHERE seq = ?1", bind![seq])?;
    Ok(())
}

/// A message was not received: it is tried again at `again`, or given up.
pub fn failed(tx: &mut Tx<'_>, seq: i64, error: &str, again: Option<Timestamp>) -> Result<(), StoreError> {
    let state = if again.is_some() { "waiting" } else { "failed" };
    let sql = "UPDATE webhook_outbox SET attempts = attempts + 1, state = ?2, error = ?3, due_at = coalesce(?4, due_at) WHERE seq = ?1";
    tx.execute(sql, bind![seq, state, error, again])?;
    Ok(())
}

/// Forgets messages that were given up before a time.
pub fn forget_failed(tx: &mut Tx<'_>, before: Timestamp) -> Result<(), StoreError> {
    let sql = "DELETE FROM webhook_outbox WHERE state = 'failed' AND created_at < ?1";
    tx.execute(sql, bind![before])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, temp_store};

    fn webhook(id: &str, status: &str) -> Webhook {
        Webhook {
            id: id.to_owned(),
            workspace: "default".to_owned(),
            name: id.to_owned(),
            description: None,
            url: "https://example.com".to_owned(),
            secret: Some(Sealed("s3cret".to_owned())),
            status: status.to_owned(),
            created_at: at(1),
            updated_at: at(1),
            events: vec![
                "model_version.created".to_owned(),
                "registered_model.created".to_owned(),
            ],
        }
    }

    #[test]
    fn a_message_waits_until_it_is_delivered_or_given_up() {
        let (_dir, store) = temp_store();
        store
            .write_blocking(|tx| {
                put(tx, &webhook("a", "ACTIVE"))?;
                put(tx, &webhook("b", "DISABLED"))?;
                assert_eq!(interested(tx, "default", "model_version.created")?, ["a"]);
                assert!(interested(tx, "other", "model_version.created")?.is_empty());
                enqueue(tx, "a", "d1", "model_version.created", "{}", at(2))?;
                enqueue(tx, "a", "d2", "model_version.created", "{}", at(2))?;
                let due_now = due(tx, at(3), 10)?;
                assert_eq!(due_now.len(), 2);
                delivered(tx, due_now[0].seq)?;
                failed(tx, due_now[1].seq, "503", Some(at(5)))?;
                assert!(due(tx, at(4), 10)?.is_empty());
                assert_eq!(next_due(tx)?, Some(at(5)));
                let again = due(tx, at(5), 10)?;
                assert_eq!((again[0].attempts, again[0].delivery_id.as_str()), (1, "d2"));
                failed(tx, again[0].seq, "503", None)?;
                assert_eq!(next_due(tx)?, None);
                forget_failed(tx, at(9))?;
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn secrets_of_older_versions_are_encrypted_once_and_leave_no_trace() {
        let (dir, store) = temp_store();
        store
            .write_blocking(|tx| put(tx, &webhook("old", "ACTIVE")))
            .unwrap();
        let key = SealingKey::of_text("k").unwrap();
        store
            .write_blocking(move |tx| {
                put(tx, &webhook("a", "ACTIVE"))?;
                assert!(has_unsealed(tx)?);
                assert_eq!(seal_all(tx, &key)?, 2);
                let sealed = find(tx, "default", "a")?.unwrap().secret.unwrap();
                assert_eq!(key.open(&sealed, "a")?, Secret("s3cret".to_owned()));
                assert_eq!(seal_all(tx, &key)?, 0);
                assert!(!has_unsealed(tx)?);
                Ok(())
            })
            .unwrap();
        drop(store);
        let secret = b"s3cret";
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let bytes = std::fs::read(&path).unwrap();
                assert!(
                    !bytes.windows(secret.len()).any(|part| part == secret),
                    "{}",
                    path.display()
                );
            }
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert!(!format!("{:?}", webhook("a", "ACTIVE")).contains("s3cret"));
    }
}
