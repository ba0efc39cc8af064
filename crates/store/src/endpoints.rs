//! Endpoints: the stable serving names, and which versions answer behind each.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemill_core::clock::Timestamp;
use tidemill_core::ids::{EndpointName, ModelName, VersionNumber};

use crate::column::{Fields, bind};
use crate::db::Row;
use crate::error::StoreError;
use crate::tx::{ReadTx, Tx};

/// What serving is to do under a name.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EndpointRow {
    /// The name.
    pub name: EndpointName,
    /// Of which model.
    pub model: ModelName,
    /// Answers all that the canary does not.
    pub champion: Option<VersionNumber>,
    /// The champion before: answers if the one in charge fails.
    pub previous: Option<VersionNumber>,
    /// What outcomes are compared with.
    pub baseline: Option<VersionNumber>,
    /// The version on trial.
    pub canary: Option<VersionNumber>,
    /// Its share of the traffic, 0 to 1.
    pub canary_share: f64,
    /// Makes each unit's side stick.
    pub salt: String,
    /// Answer too, unseen.
    pub shadows: Vec<VersionNumber>,
    /// Rises by one with every change.
    pub generation: i64,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it first answered.
    pub first_served_at: Option<Timestamp>,
    /// The answer when no model can give one.
    pub default_answer: Value,
}

const COLUMNS: &str = "name, model, champion, previous, baseline, canary, canary_share, salt, shadows, generation, updated_at, \
     first_served_at, default_answer";

fn read(row: &Row<'_>) -> rusqlite::Result<EndpointRow> {
    let mut fields = Fields::of(row);
    Ok(EndpointRow {
        name: fields.next()?,
        model: fields.next()?,
        champion: fields.next()?,
        previous: fields.next()?,
        baseline: fields.next()?,
        canary: fields.next()?,
        canary_share: fields.next()?,
        salt: fields.next()?,
        shadows: fields.next()?,
        generation: fields.next()?,
        updated_at: fields.next()?,
        first_served_at: fields.next()?,
        default_answer: fields.next()?,
    })
}

/// An endpoint.
pub fn get(tx: &ReadTx<'_>, name: &EndpointName) -> Result<EndpointRow, StoreError> {
    find(tx, name)?.ok_or_else(|| StoreError::not_found("endpoint", name))
}

/// An endpoint, if there is one.
pub fn find(tx: &ReadTx<'_>, name: &EndpointName) -> Result<Option<EndpointRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM endpoints WHERE name = ?1");
    tx.first(&sql, bind![name], read)
}

/// Writes an endpoint under the generation after the stored one, whatever `endpoint.generation` says; returns that generation.
pub fn upsert(tx: &mut Tx<'_>, endpoint: &EndpointRow) -> Result<i64, StoreError> {
    let generation = find(tx, &endpoint.name)?.map_or(0, |stored| stored.generation) + 1;
    let values = bind![
        endpoint.name,
        endpoint.model,
        endpoint.champion,
        endpoint.previous,
        endpoint.baseline,
        endpoint.canary,
        endpoint.canary_share,
        endpoint.salt,
        endpoint.shadows,
        generation,
        endpoint.updated_at,
        endpoint.first_served_at,
        endpoint.default_answer
    ];
    tx.upsert("endpoints", COLUMNS, "name", values)?;
    Ok(generation)
}

/// All endpoints by name.
pub fn list(tx: &ReadTx<'_>) -> Result<Vec<EndpointRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM endpoints ORDER BY name");
    tx.rows(&sql, bind![], read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, temp_store};

    #[test]
    fn every_change_of_an_endpoint_raises_its_generation() {
        let (_dir, store) = temp_store();
        let row = EndpointRow {
            name: "delay".into(),
            model: "delay".into(),
            champion: Some(VersionNumber(1)),
            previous: None,
            baseline: Some(VersionNumber(1)),
            canary: None,
            canary_share: 0.25,
            salt: "salt".to_owned(),
            shadows: vec![VersionNumber(2), VersionNumber(3)],
            generation: 77,
            updated_at: at(1),
            first_served_at: None,
            default_answer: serde_json::json!(0.5),
        };
        let written = row.clone();
        let generations = store
            .write_blocking(move |tx| Ok((upsert(tx, &written)?, upsert(tx, &written)?)))
            .unwrap();
        assert_eq!(generations, (1, 2));
        let stored = store.read_blocking(|tx| get(tx, &"delay".into())).unwrap();
        assert_eq!(stored, EndpointRow { generation: 2, ..row });
    }
}
