//! Connections to PostgreSQL. The driver is the synchronous one: closures given to the store run on threads that may block.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use bytes::BytesMut;
use postgres::Statement;
use postgres::error::SqlState;
use postgres::fallible_iterator::FallibleIterator as _;
use postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use rusqlite::types::{ToSqlOutput, Value};

use crate::db::tls::{self, Link};
use crate::db::{Params, Purpose, Row};
use crate::error::StoreError;

/// Statements that are kept prepared; a connection that has seen more starts afresh.
const STATEMENT_CACHE: usize = 512;

/// Held by the server that writes, as the lock in the data folder is: two servers on one database would each keep a loop.
const ADVISORY_LOCK: i64 = 0x7469_6465_6d69_6c6c;

/// How often the lock is tried, a tenth of a second apart.
const LOCK_TRIES: usize = 10;

/// A connection. Used by one thread at a time.
pub(crate) struct Client {
    // `None` only while it is dropped.
    driver: RefCell<Option<postgres::Client>>,
    statements: RefCell<HashMap<String, Statement>>,
    in_transaction: Cell<bool>,
}

pub(super) fn check_url(url: &str) -> Result<(), StoreError> {
    link(url).map(|_| ())
}

fn link(url: &str) -> Result<Link, StoreError> {
    tls::link(url).map_err(|error| {
        StoreError::conflict(
            "database",
            format!("`{}` is no PostgreSQL URL: {error}", without_password(url)),
        )
    })
}

/// The URL as it may stand in a log.
pub(super) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return "postgres".to_owned();
    };
    match rest.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}@{host}")
        }
        None => url.to_owned(),
    }
}

impl Client {
    /// Connects. The driver waits on a runtime of its own, so neither this nor any other call may come from an async task.
    pub fn connect(url: &str, purpose: Purpose) -> Result<Self, StoreError> {
        let Link { config, tls } = link(url)?;
        let mut client = config.connect(tls)?;
        match purpose {
            Purpose::Write => {
                if !take_lock(&mut client)? {
                    return Err(StoreError::Locked {
                        path: without_password(url).into(),
                        pid: None,
                    });
                }
            }
            Purpose::Read | Purpose::Inspect => {
                client.batch_execute("SET default_transaction_read_only = on")?;
            }
        }
        Ok(Self {
            driver: RefCell::new(Some(client)),
            statements: RefCell::default(),
            in_transaction: Cell::new(false),
        })
    }

    /// Closes on this thread, and so gives the lock back before it returns.
    pub fn close(mut self) {
        drop(self.driver.get_mut().take());
    }

    pub fn is_lost(&self) -> bool {
        self.driver
            .borrow()
            .as_ref()
            .is_none_or(postgres::Client::is_closed)
    }

    pub fn in_transaction(&self) -> bool {
        self.in_transaction.get() && !self.is_lost()
    }

    pub fn begin(&self, sql: &str) -> Result<(), StoreError> {
        self.batch(sql)?;
        self.in_transaction.set(true);
        Ok(())
    }

    pub fn end(&self, sql: &str) -> Result<(), StoreError> {
        self.in_transaction.set(false);
        self.batch(sql)
    }

    pub fn batch(&self, sql: &str) -> Result<(), StoreError> {
        self.call(|client| client.batch_execute(sql))
    }

    pub fn rows<T>(
        &self,
        sql: &str,
        params: Params<'_>,
        mut map: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        self.query(sql, params)?
            .iter()
            .map(|row| Ok(map(&Row::Values(&values_of(row)?))?))
            .collect()
    }

    pub fn each(
        &self,
        sql: &str,
        params: Params<'_>,
        mut take: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), StoreError> {
        let statement = self.prepared(sql)?;
        let bound = bound(params)?;
        let mut client = self.driver.borrow_mut();
        let client = client.as_mut().ok_or(StoreError::Closed)?;
        let mut rows = client.query_raw(&statement, bound.iter())?;
        while let Some(row) = rows.next()? {
            take(&Row::Values(&values_of(&row)?))?;
        }
        Ok(())
    }

    pub fn first<T>(
        &self,
        sql: &str,
        params: Params<'_>,
        map: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        match self.query(sql, params)?.first() {
            Some(row) => Ok(Some(map(&Row::Values(&values_of(row)?))?)),
            None => Ok(None),
        }
    }

    pub fn execute(&self, sql: &str, params: Params<'_>) -> Result<usize, StoreError> {
        let statement = self.prepared(sql)?;
        let bound = bound(params)?;
        let params: Vec<&(dyn ToSql + Sync)> = bound.iter().map(|p| p as &(dyn ToSql + Sync)).collect();
        let changed = self.call(|client| client.execute(&statement, &params))?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    fn call<T>(
        &self,
        call: impl FnOnce(&mut postgres::Client) -> Result<T, postgres::Error>,
    ) -> Result<T, StoreError> {
        match self.driver.borrow_mut().as_mut() {
            Some(client) => Ok(call(client)?),
            None => Err(StoreError::Closed),
        }
    }

    fn query(&self, sql: &str, params: Params<'_>) -> Result<Vec<postgres::Row>, StoreError> {
        let statement = self.prepared(sql)?;
        let bound = bound(params)?;
        let params: Vec<&(dyn ToSql + Sync)> = bound.iter().map(|p| p as &(dyn ToSql + Sync)).collect();
        self.call(|client| client.query(&statement, &params))
    }

    fn prepared(&self, sql: &str) -> Result<Statement, StoreError> {
        if let Some(statement) = self.statements.borrow().get(sql) {
            return Ok(statement.clone());
        }
        let translated = numbered(sql);
        let statement = self.call(|client| client.prepare(&translated))?;
        let mut statements = self.statements.borrow_mut();
        if statements.len() >= STATEMENT_CACHE {
            statements.clear();
        }
        statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

/// A server that was killed a moment ago may hold the lock until PostgreSQL has noticed.
fn take_lock(client: &mut postgres::Client) -> Result<bool, postgres::Error> {
    let sql = format!("SELECT pg_try_advisory_lock({ADVISORY_LOCK})");
    for _ in 0..LOCK_TRIES {
        if client.query_one(&sql, &[])?.try_get(0)? {
            return Ok(true);
        }
        client.batch_execute("SELECT pg_sleep(0.1)")?;
    }
    Ok(false)
}

/// Closing waits too, and the last owner of a store may be an async task.
impl Drop for Client {
    fn drop(&mut self) {
        if let Some(client) = self.driver.get_mut().take() {
            std::thread::spawn(move || drop(client));
        }
    }
}

/// `?1` and `?` as PostgreSQL writes them, `$1`. Text between quotes stays.
fn numbered(sql: &str) -> String {
    let mut translated = String::with_capacity(sql.len() + 16);
    let mut quote: Option<char> = None;
    let mut next = 1;
    let mut characters = sql.chars().peekable();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), c) => {
                if c == open {
                    quote = None;
                }
                translated.push(c);
            }
            (None, '\'' | '"') => {
                quote = Some(character);
                translated.push(character);
            }
            (None, '?') => {
                translated.push('$');
                if !characters.peek().is_some_and(char::is_ascii_digit) {
                    translated.push_str(&next.to_string());
                    next += 1;
                }
            }
            (None, c) => translated.push(c),
        }
    }
    translated
}

/// A parameter on its way. Its PostgreSQL type is the one that the statement expects.
#[derive(Debug)]
struct Bound(Value);

fn bound(params: Params<'_>) -> Result<Vec<Bound>, StoreError> {
    params
        .iter()
        .map(|param| {
            Ok(Bound(match param.to_sql()? {
                ToSqlOutput::Borrowed(value) => value.try_into().map_err(|_| StoreError::Unreadable {
                    what: "a parameter".to_owned(),
                    message: "it is not UTF-8".to_owned(),
                })?,
                ToSqlOutput::Owned(value) => value,
                _ => Value::Null,
            }))
        })
        .collect()
}

impl ToSql for Bound {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match (&self.0, ty) {
            (Value::Null, _) => Ok(IsNull::Yes),
            (Value::Integer(value), &Type::BOOL) => (*value != 0).to_sql(ty, out),
            (Value::Integer(value), &Type::INT4) => i32::try_from(*value)?.to_sql(ty, out),
            (Value::Integer(value), &Type::INT2) => i16::try_from(*value)?.to_sql(ty, out),
            (Value::Integer(value), &Type::FLOAT8) => (*value as f64).to_sql(ty, out),
            (Value::Integer(value), &Type::TEXT) => value.to_string().to_sql(ty, out),
            (Value::Integer(value), _) => value.to_sql(&Type::INT8, out),
            (Value::Real(value), _) => value.to_sql(&Type::FLOAT8, out),
            (Value::Text(value), _) => {
                if value.contains('\0') {
                    return Err("a text with a zero byte cannot be stored in PostgreSQL".into());
                }
                value.to_sql(&Type::TEXT, out)
            }
            (Value::Blob(value), _) => value.to_sql(&Type::BYTEA, out),
        }
    }

    fn accepts(_ty: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

fn values_of(row: &postgres::Row) -> Result<Vec<Value>, StoreError> {
    (0..row.len()).map(|column| value_of(row, column)).collect()
}

fn value_of(row: &postgres::Row, column: usize) -> Result<Value, StoreError> {
    let integer = |value: Option<i64>| value.map_or(Value::Null, Value::Integer);
    Ok(match *row.columns()[column].type_() {
        Type::INT8 => integer(row.try_get(column)?),
        Type::INT4 => integer(row.try_get::<_, Option<i32>>(column)?.map(i64::from)),
        Type::INT2 => integer(row.try_get::<_, Option<i16>>(column)?.map(i64::from)),
        Type::BOOL => integer(row.try_get::<_, Option<bool>>(column)?.map(i64::from)),
        Type::FLOAT8 => row
            .try_get::<_, Option<f64>>(column)?
            .map_or(Value::Null, Value::Real),
        Type::BYTEA => row
            .try_get::<_, Option<Vec<u8>>>(column)?
            .map_or(Value::Null, Value::Blob),
        Type::NUMERIC => integer(row.try_get::<_, Option<Whole>>(column)?.map(|whole| whole.0)),
        _ => row
            .try_get::<_, Option<String>>(column)?
            .map_or(Value::Null, Value::Text),
    })
}

/// A whole number as PostgreSQL's `sum` gives it: `numeric`, in groups of four decimal digits.
struct Whole(i64);

impl<'a> postgres::types::FromSql<'a> for Whole {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let word = |at: usize| -> Result<i64, Box<dyn Error + Sync + Send>> {
            let bytes = raw.get(at..at + 2).ok_or("a numeric is cut short")?;
            Ok(i64::from(i16::from_be_bytes([bytes[0], bytes[1]])))
        };
        let (digits, weight, sign) = (word(0)?, word(2)?, word(4)?);
        let mut whole: i64 = 0;
        for group in 0..=weight.max(-1) {
            let value = if group < digits {
                word(8 + 2 * usize::try_from(group)?)?
            } else {
                0
            };
            whole = whole
                .checked_mul(10_000)
                .and_then(|w| w.checked_add(value))
                .ok_or("a numeric is too large")?;
        }
        Ok(Self(if sign == 0 { whole } else { -whole }))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::NUMERIC
    }
}

impl From<postgres::Error> for StoreError {
    fn from(error: postgres::Error) -> Self {
        let Some(said) = error.as_db_error() else {
            let conversion = error
                .source()
                .is_some_and(|source| source.to_string().contains("zero byte"));
            if conversion {
                return Self::conflict(
                    "metadata",
                    "a text with a zero byte cannot be stored in PostgreSQL",
                );
            }
            return Self::Database {
                source: Arc::new(error),
            };
        };
        let code = said.code();
        if *code == SqlState::DISK_FULL {
            return Self::DiskFull {
                what: "the metadata database".to_owned(),
            };
        }
        // Class 23: integrity constraint violation.
        if code.code().starts_with("23") {
            return Self::conflict(
                "metadata",
                format!("the write contradicts what is stored: {}", said.message()),
            );
        }
        Self::Database {
            source: Arc::new(Said(format!("{} ({})", said.message(), code.code()))),
        }
    }
}

/// What PostgreSQL said; the driver's own text is only `db error`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Said(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered_as_postgresql_numbers_them() {
        assert_eq!(
            numbered("a = ?2 AND b = ?1 OR c = '?'"),
            "a = $2 AND b = $1 OR c = '?'"
        );
        assert_eq!(numbered("VALUES (?, ?, ?)"), "VALUES ($1, $2, $3)");
    }

    #[test]
    fn a_password_stays_out_of_messages() {
        assert_eq!(
            without_password("postgres://me:secret@host:5432/db"),
            "postgres://me@host:5432/db"
        );
        assert_eq!(without_password("postgres://host/db"), "postgres://host/db");
    }
}
