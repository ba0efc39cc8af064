//! The databases that metadata can live in, behind one connection type: SQLite in the data folder, or PostgreSQL.
//!
//! Every query is written once. It is SQL that both understand, with SQLite's numbered parameters (`?1`), which
//! [`postgres`] rewrites; the few places that must differ ask [`Connection::dialect`]. Rows arrive as [`Row`], whose values have
//! SQLite's five types whatever the database.

mod postgres;
mod row;
mod schema;
mod sqlite;
mod tls;

use std::path::{Path, PathBuf};

use rusqlite::types::ToSql;

use crate::error::StoreError;

pub(crate) use row::Row;
pub(crate) use sqlite::FILE_NAME;

/// The parameters of a statement.
pub(crate) type Params<'a> = &'a [&'a dyn ToSql];

/// Where the metadata is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Database {
    /// `meta.db` in the data folder.
    #[default]
    Sqlite,
    /// A PostgreSQL database, by its connection URL (`postgres://user:password@host:port/database`).
    Postgres(String),
}

impl Database {
    /// Reads what a user wrote: `sqlite`, or the URL of a PostgreSQL database.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        if text == "sqlite" {
            return Ok(Self::Sqlite);
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            postgres::check_url(text)?;
            return Ok(Self::Postgres(text.to_owned()));
        }
        Err(StoreError::conflict(
            "database",
            "expected `sqlite` or a URL such as `postgres://user:password@host:5432/tidemill`".to_owned(),
        ))
    }
}

/// Which words of SQL a database speaks, where the two differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres,
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// The one that writes.
    Write,
    /// The server's read pool.
    Read,
    /// Looking on while a server may run.
    Inspect,
}

/// How to connect.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub database: Database,
    pub data_dir: PathBuf,
}

impl Source {
    /// What messages call the database. Without its password.
    pub fn name(&self) -> PathBuf {
        match &self.database {
            Database::Sqlite => self.data_dir.join(FILE_NAME),
            Database::Postgres(url) => PathBuf::from(postgres::without_password(url)),
        }
    }

    pub fn dialect(&self) -> Dialect {
        match self.database {
            Database::Sqlite => Dialect::Sqlite,
            Database::Postgres(_) => Dialect::Postgres,
        }
    }

    pub fn connect(&self, purpose: Purpose) -> Result<Connection, StoreError> {
        match &self.database {
            Database::Sqlite => {
                let path = self.data_dir.join(FILE_NAME);
                sqlite::open(&path, purpose).map(Connection::Sqlite)
            }
            Database::Postgres(url) => postgres::Client::connect(url, purpose)
                .map(Box::new)
                .map(Connection::Postgres),
        }
    }
}

/// Opens a database that another program made, for looking only.
pub(crate) fn open_foreign(place: &ForeignPlace) -> Result<Connection, StoreError> {
    match place {
        ForeignPlace::Sqlite(path) => sqlite::open(path, Purpose::Inspect).map(Connection::Sqlite),
        ForeignPlace::Postgres(url) => postgres::Client::connect(url, Purpose::Inspect)
            .map(Box::new)
            .map(Connection::Postgres),
    }
}

/// Where a database of another program is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ForeignPlace {
    Sqlite(PathBuf),
    Postgres(String),
}

impl ForeignPlace {
    /// What messages call it. Without its password.
    pub fn name(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite:///{}", path.display()),
            Self::Postgres(url) => postgres::without_password(url),
        }
    }
}

/// A connection to either database.
pub(crate) enum Connection {
    Sqlite(rusqlite::Connection),
    Postgres(Box<postgres::Client>),
}

impl Connection {
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Runs statements without parameters.
    pub fn batch(&self, sql: &str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(conn) => Ok(conn.execute_batch(sql)?),
            Self::Postgres(client) => client.batch(sql),
        }
    }

    /// Runs one statement without parameters, prepared once where that helps.
    pub fn command(&self, sql: &str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(conn) => {
                conn.prepare_cached(sql)?.execute([])?;
                Ok(())
            }
            Self::Postgres(client) => client.batch(sql),
        }
    }

    /// All rows.
    pub fn rows<T>(
        &self,
        sql: &str,
        params: Params<'_>,
        mut map: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        match self {
            Self::Sqlite(conn) => {
                let mut statement = conn.prepare_cached(sql)?;
                let rows = statement.query_map(params, |row| map(&Row::Sqlite(row)))?;
                Ok(rows.collect::<rusqlite::Result<_>>()?)
            }
            Self::Postgres(client) => client.rows(sql, params, map),
        }
    }

    /// Gives each row to `take`, without holding all of them. `take` must not use the connection.
    pub fn each(
        &self,
        sql: &str,
        params: Params<'_>,
        mut take: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(conn) => {
                let mut statement = conn.prepare_cached(sql)?;
                let mut rows = statement.query(params)?;
                while let Some(row) = rows.next()? {
                    take(&Row::Sqlite(row))?;
                }
                Ok(())
            }
            Self::Postgres(client) => client.each(sql, params, take),
        }
    }

    /// The first row, if there is one.
    pub fn first<T>(
        &self,
        sql: &str,
        params: Params<'_>,
        map: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        match self {
            Self::Sqlite(conn) => {
                let mut statement = conn.prepare_cached(sql)?;
                let mut rows = statement.query(params)?;
                match rows.next()? {
                    Some(row) => Ok(Some(map(&Row::Sqlite(row))?)),
                    None => Ok(None),
                }
            }
            Self::Postgres(client) => client.first(sql, params, map),
        }
    }

    /// Runs a statement; returns how many rows it changed.
    pub fn execute(&self, sql: &str, params: Params<'_>) -> Result<usize, StoreError> {
        match self {
            Self::Sqlite(conn) => Ok(conn.prepare_cached(sql)?.execute(params)?),
            Self::Postgres(client) => client.execute(sql, params),
        }
    }

    /// Inserts rows: each on its own where a statement costs nothing, many at a time where it costs a round trip. `bind` appends
    /// the parameters of one row.
    pub fn insert_rows<'r, R>(
        &self,
        insert: &Insert<'_>,
        rows: &'r [R],
        bind: impl Fn(&'r R, &mut Vec<&'r dyn ToSql>),
    ) -> Result<usize, StoreError> {
        let mut params = Vec::new();
        let mut inserted = 0;
        match self {
            Self::Sqlite(conn) => {
                let mut statement = conn.prepare_cached(&insert.sql(1))?;
                for row in rows {
                    params.clear();
                    bind(row, &mut params);
                    inserted += statement.execute(params.as_slice())?;
                }
            }
            Self::Postgres(client) => {
                let mut rest = rows;
                while !rest.is_empty() {
                    let size = chunk_of(rest.len());
                    let (chunk, after) = rest.split_at(size);
                    params.clear();
                    for row in chunk {
                        bind(row, &mut params);
                    }
                    inserted += client.execute(&insert.sql(size), &params)?;
                    rest = after;
                }
            }
        }
        Ok(inserted)
    }

    /// Whether a transaction is open. A database that fails may end it by itself.
    pub fn in_transaction(&self) -> bool {
        match self {
            Self::Sqlite(conn) => !conn.is_autocommit(),
            Self::Postgres(client) => client.in_transaction(),
        }
    }

    /// Opens the writer's transaction.
    pub fn begin_write(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(conn) => Ok(conn.execute_batch("BEGIN IMMEDIATE")?),
            Self::Postgres(client) => client.begin("BEGIN"),
        }
    }

    /// Opens a view of one moment.
    pub fn begin_read(&self) -> Result<View<'_>, StoreError> {
        match self {
            // Deferred: the first statement fixes the moment that all of them see.
            Self::Sqlite(conn) => conn.execute_batch("BEGIN DEFERRED")?,
            Self::Postgres(client) => client.begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?,
        }
        Ok(View { conn: self })
    }

    pub fn commit(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(conn) => Ok(conn.execute_batch("COMMIT")?),
            Self::Postgres(client) => client.end("COMMIT"),
        }
    }

    pub fn rollback(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(conn) => Ok(conn.execute_batch("ROLLBACK")?),
            Self::Postgres(client) => client.end("ROLLBACK"),
        }
    }

    /// Closes it, and waits for that.
    pub fn close(self) {
        match self {
            Self::Sqlite(conn) => drop(conn),
            Self::Postgres(client) => client.close(),
        }
    }

    /// Whether the connection is gone for good and has to be made anew.
    pub fn is_lost(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            Self::Postgres(client) => client.is_lost(),
        }
    }

    /// Brings the schema up to date.
    pub fn migrate(&self, name: &Path) -> Result<(), StoreError> {
        schema::run(self, name)
    }

    /// Refuses a schema other than the one this binary reads.
    pub fn check_schema(&self, name: &Path) -> Result<(), StoreError> {
        schema::check(self, name)
    }

    /// The columns of a table; none if there is no such table.
    pub fn columns(&self, table: &str) -> Result<Vec<String>, StoreError> {
        let sql = match self.dialect() {
            Dialect::Sqlite => "SELECT name FROM pragma_table_info(?1)",
            Dialect::Postgres => {
                "SELECT column_name::text FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = ?1"
            }
        };
        self.rows(sql, &[&table], |row| Ok(row.get_ref(0)?.as_str()?.to_owned()))
    }

    /// Whether there is a table of this name.
    fn has_table(&self, table: &str) -> Result<bool, StoreError> {
        let sql = match self.dialect() {
            Dialect::Sqlite => "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1",
            Dialect::Postgres => {
                "SELECT 1::bigint FROM information_schema.tables WHERE table_schema = current_schema() AND table_name = ?1"
            }
        };
        Ok(self.first(sql, &[&table], |_| Ok(()))?.is_some())
    }
}

/// What rows are inserted into, and what happens to those that are there.
pub(crate) struct Insert<'a> {
    pub table: &'a str,
    pub columns: &'a str,
    /// What follows the values, such as ` ON CONFLICT DO NOTHING`.
    pub tail: &'a str,
}

impl Insert<'_> {
    /// The statement for so many rows.
    pub fn sql(&self, rows: usize) -> String {
        let columns = self.columns.split(',').count();
        let row = format!("({})", vec!["?"; columns].join(", "));
        let values = vec![row.as_str(); rows].join(", ");
        format!(
            "INSERT INTO {} ({}) VALUES {values}{}",
            self.table, self.columns, self.tail
        )
    }
}

/// How many of `left` things go into the next statement: of few sizes, so that prepared statements are used again.
pub(crate) fn chunk_of(left: usize) -> usize {
    [500, 100, 20, 5]
        .into_iter()
        .find(|size| *size <= left)
        .unwrap_or(1)
}

/// An open view; ends with this guard.
pub(crate) struct View<'c> {
    conn: &'c Connection,
}

impl Drop for View<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.conn.rollback() {
            tracing::warn!(%error, "could not end a view of the metadata");
        }
    }
}
