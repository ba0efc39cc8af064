//! Whom to tell of what happens, beyond MLflow's webhooks. Where to send, and by which secret what is sent is signed, is a webhook
//! that MLflow's clients do not see, so that there is one outbox and one sender for both.

use tidemill_core::clock::Timestamp;

use crate::column::{Fields, bind};
use crate::db::Row;
use crate::error::StoreError;
use crate::sealing::Sealed;
use crate::tx::{ReadTx, Tx};
use crate::webhooks::{self, Webhook};

/// The status of the webhooks that belong to automations.
pub(crate) const HIDDEN: &str = "AUTOMATION";

/// What is to be told to whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Automation {
    /// Its id.
    pub id: String,
    /// What happens in which workspace.
    pub workspace: String,
    /// For people.
    pub name: String,
    /// Such as `run.finished`.
    pub event: String,
    /// Of which things, as JSON.
    pub filter: String,
    /// Where to send.
    pub url: String,
    /// Signs what is sent.
    pub secret: Option<Sealed>,
    /// When it was created.
    pub created_at: Timestamp,
}

const COLUMNS: &str = "w.id, w.workspace, w.name, a.event, a.filter, w.url, w.secret, w.created_at";

fn read(row: &Row<'_>) -> rusqlite::Result<Automation> {
    let mut fields = Fields::of(row);
    Ok(Automation {
        id: fields.next()?,
        workspace: fields.next()?,
        name: fields.next()?,
        event: fields.next()?,
        filter: fields.next()?,
        url: fields.next()?,
        secret: fields.next::<Option<String>>()?.map(Sealed),
        created_at: fields.next()?,
    })
}

/// Writes a new one.
pub fn insert(tx: &mut Tx<'_>, automation: &Automation) -> Result<(), StoreError> {
    let receiver = Webhook {
        id: automation.id.clone(),
        workspace: automation.workspace.clone(),
        name: automation.name.clone(),
        description: None,
        url: automation.url.clone(),
        secret: automation.secret.clone(),
        status: HIDDEN.to_owned(),
        created_at: automation.created_at,
        updated_at: automation.created_at,
        events: Vec::new(),
    };
    webhooks::put(tx, &receiver)?;
    let values = bind![automation.id, automation.event, automation.filter];
    tx.insert("automations", "id, event, filter", values)
}

/// Those of a workspace, latest first.
pub fn list(tx: &ReadTx<'_>, workspace: &str) -> Result<Vec<Automation>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM automations a JOIN webhooks w ON w.id = a.id WHERE w.workspace = ?1
         ORDER BY w.created_at DESC, w.id DESC"
    );
    tx.rows(&sql, bind![workspace], read)
}

/// Those of a workspace that an event may concern, oldest first.
pub fn of_event(tx: &ReadTx<'_>, workspace: &str, event: &str) -> Result<Vec<Automation>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM automations a JOIN webhooks w ON w.id = a.id WHERE a.event = ?1 AND w.workspace = ?2
         ORDER BY w.created_at, w.id"
    );
    tx.rows(&sql, bind![event, workspace], read)
}

/// The events that any automation of any workspace waits for.
pub fn events(tx: &ReadTx<'_>) -> Result<Vec<String>, StoreError> {
    tx.rows("SELECT DISTINCT event FROM automations", bind![], |row| {
        Fields::of(row).next()
    })
}

/// Removes one, and what was still to be sent for it; whether it was there.
pub fn delete(tx: &mut Tx<'_>, workspace: &str, id: &str) -> Result<bool, StoreError> {
    let sql = "DELETE FROM webhooks WHERE id = ?1 AND workspace = ?2 AND status = ?3";
    Ok(tx.execute(sql, bind![id, workspace, HIDDEN])? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, temp_store};

    #[test]
    fn an_automation_is_found_by_its_event_and_is_no_webhook_of_mlflow() {
        let (_dir, store) = temp_store();
        let automation = |id: &str, event: &str| Automation {
            id: id.to_owned(),
            workspace: "default".to_owned(),
            name: id.to_owned(),
            event: event.to_owned(),
            filter: "{}".to_owned(),
            url: "https://example.com".to_owned(),
            secret: Some(Sealed("s3cret".to_owned())),
            created_at: at(1),
        };
        store
            .write_blocking(move |tx| {
                let (a, b) = (automation("a", "run.finished"), automation("b", "tag.set"));
                insert(tx, &a)?;
                insert(tx, &b)?;
                assert_eq!(list(tx, "default")?, [b.clone(), a.clone()]);
                assert_eq!(of_event(tx, "default", "run.finished")?, [a]);
                assert!(of_event(tx, "other", "run.finished")?.is_empty());
                let mut waited_for = events(tx)?;
                waited_for.sort();
                assert_eq!(waited_for, ["run.finished", "tag.set"]);
                assert!(webhooks::list(tx, "default", 0, 10)?.is_empty());
                assert_eq!(webhooks::find(tx, "default", "a")?, None);
                webhooks::enqueue(tx, "a", "d", "run.finished", "{}", at(2))?;
                assert_eq!(webhooks::due(tx, at(3), 10)?[0].url, "https://example.com");
                assert!(!delete(tx, "other", "a")?);
                assert!(delete(tx, "default", "a")?);
                assert!(webhooks::due(tx, at(3), 10)?.is_empty());
                assert_eq!(list(tx, "default")?, [b]);
                Ok(())
            })
            .unwrap();
    }
}
