//! What a closure given to the store works with: [`ReadTx`] sees one moment of the metadata, [`Tx`] also changes it.

use std::ops::Deref;

use rusqlite::types::ToSql;
use serde_json::Value;
use tidemill_core::clock::Timestamp;

use crate::db::{Connection, Dialect, Insert, Params, Row, chunk_of};
use crate::error::StoreError;
use crate::events::{self, Event};

/// A consistent view of the metadata: everything read through it stems from one moment.
pub struct ReadTx<'c> {
    conn: &'c Connection,
}

impl<'c> ReadTx<'c> {
    pub(crate) fn new(conn: &'c Connection) -> Self {
        Self { conn }
    }

    /// For the tests of plans.
    #[cfg(test)]
    fn noted(&self, sql: &str, params: Params<'_>) {
        crate::plans::note(self.conn, sql, params);
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self)]
    fn noted(&self, _: &str, _: Params<'_>) {}

    /// Which words of SQL the database speaks.
    pub(crate) fn dialect(&self) -> Dialect {
        self.conn.dialect()
    }

    /// All rows.
    pub(crate) fn rows<T>(
        &self,
        sql: &str,
        params: Params<'_>,
        map: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        self.noted(sql, params);
        self.conn.rows(sql, params, map)
    }

    /// Gives each row to `take`, without holding all of them. `take` must not use the transaction.
    pub(crate) fn each(
        &self,
        sql: &str,
        params: Params<'_>,
        take: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), StoreError> {
        self.noted(sql, params);
        self.conn.each(sql, params, take)
    }

    /// Runs a query that ends in `… IN`, for as many numbers as there are: a few statements of fixed sizes. `tail` follows the
    /// list, such as an order; rows of one number come together if it begins with that number.
    pub(crate) fn each_in(
        &self,
        sql: &str,
        numbers: &[i64],
        tail: &str,
        mut take: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), StoreError> {
        let mut rest = numbers;
        while !rest.is_empty() {
            let size = chunk_of(rest.len());
            let (chunk, after) = rest.split_at(size);
            let params: Vec<&dyn ToSql> = chunk.iter().map(|number| number as &dyn ToSql).collect();
            let marks = vec!["?"; size].join(", ");
            self.each(&format!("{sql} ({marks}) {tail}"), &params, &mut take)?;
            rest = after;
        }
        Ok(())
    }

    /// The first row, if there is one.
    pub(crate) fn first<T>(
        &self,
        sql: &str,
        params: Params<'_>,
        map: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        self.noted(sql, params);
        self.conn.first(sql, params, map)
    }

    /// Whether there is a row.
    pub(crate) fn exists(&self, sql: &str, params: Params<'_>) -> Result<bool, StoreError> {
        Ok(self.first(sql, params, |_| Ok(()))?.is_some())
    }

    /// The one row of an aggregate.
    pub(crate) fn one<T>(
        &self,
        sql: &str,
        params: Params<'_>,
        map: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.first(sql, params, map)?
            .ok_or_else(|| rusqlite::Error::QueryReturnedNoRows.into())
    }
}

/// A change of the metadata. Either all of it and its events are stored, or nothing is.
pub struct Tx<'c> {
    read: ReadTx<'c>,
    events: Vec<Event>,
}

impl<'c> Deref for Tx<'c> {
    type Target = ReadTx<'c>;
    fn deref(&self) -> &ReadTx<'c> {
        &self.read
    }
}

impl<'c> Tx<'c> {
    pub(crate) fn new(conn: &'c Connection) -> Self {
        Self {
            read: ReadTx::new(conn),
            events: Vec::new(),
        }
    }

    pub(crate) fn into_events(self) -> Vec<Event> {
        self.events
    }

    /// Appends an event, which is stored together with the rest of this change and announced once that is durable. Returns its
    /// sequence number.
    pub fn event(
        &mut self,
        at: Timestamp,
        kind: &str,
        subject_kind: &str,
        subject: &str,
        payload: Value,
    ) -> Result<i64, StoreError> {
        let event = events::append(self, at, kind, subject_kind, subject, payload)?;
        let seq = event.seq;
        self.events.push(event);
        Ok(seq)
    }

    /// Runs a statement; returns how many rows it changed.
    pub(crate) fn execute(&mut self, sql: &str, params: Params<'_>) -> Result<usize, StoreError> {
        self.read.conn.execute(sql, params)
    }

    /// Inserts one row.
    pub(crate) fn insert(
        &mut self,
        table: &str,
        columns: &str,
        params: Params<'_>,
    ) -> Result<(), StoreError> {
        let tail = "";
        self.execute(&Insert { table, columns, tail }.sql(1), params)?;
        Ok(())
    }

    /// Inserts rows; `bind` appends the parameters of one.
    pub(crate) fn insert_rows<'r, R>(
        &mut self,
        table: &str,
        columns: &str,
        tail: &str,
        rows: &'r [R],
        bind: impl Fn(&'r R, &mut Vec<&'r dyn ToSql>),
    ) -> Result<(), StoreError> {
        self.insert_rows_counted(table, columns, tail, rows, bind)?;
        Ok(())
    }

    /// [`Tx::insert_rows`] that tells how many rows were inserted or changed.
    pub(crate) fn insert_rows_counted<'r, R>(
        &mut self,
        table: &str,
        columns: &str,
        tail: &str,
        rows: &'r [R],
        bind: impl Fn(&'r R, &mut Vec<&'r dyn ToSql>),
    ) -> Result<usize, StoreError> {
        let insert = Insert { table, columns, tail };
        self.read.conn.insert_rows(&insert, rows, bind)
    }

    /// Inserts one row unless it is there; returns whether it did.
    pub(crate) fn insert_new(
        &mut self,
        table: &str,
        columns: &str,
        params: Params<'_>,
    ) -> Result<bool, StoreError> {
        let tail = " ON CONFLICT DO NOTHING";
        Ok(self.execute(&Insert { table, columns, tail }.sql(1), params)? == 1)
    }

    /// Inserts one row, or replaces the one with the same `key` columns.
    pub(crate) fn upsert(
        &mut self,
        table: &str,
        columns: &str,
        key: &str,
        params: Params<'_>,
    ) -> Result<(), StoreError> {
        let key_columns: Vec<&str> = key.split(", ").collect();
        let assignments: Vec<String> = columns
            .split(", ")
            .filter(|column| !key_columns.contains(column))
            .map(|column| format!("{column} = excluded.{column}"))
            .collect();
        let tail = format!(" ON CONFLICT ({key}) DO UPDATE SET {}", assignments.join(", "));
        let tail = &tail;
        self.execute(&Insert { table, columns, tail }.sql(1), params)?;
        Ok(())
    }
}
