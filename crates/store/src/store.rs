//! [`Store`]: opens a data folder, and runs closures on its metadata.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::broadcast;

use crate::db::{Database, Dialect, FILE_NAME, Purpose, Source};
use crate::error::StoreError;
use crate::events::Event;
use crate::lock::FolderLock;
use crate::objects::{Ledger, Objects, Shelf};
use crate::reader::ReadPool;
use crate::tx::{ReadTx, Tx};
use crate::writer::Writer;

/// The metadata and the objects of one data folder. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    // In this order: the writer's connection closes last, so that it folds the write-ahead log into the database.
    readers: ReadPool,
    writer: Option<Writer>,
    events: broadcast::Sender<Event>,
    objects: Objects,
    ledger: Arc<Ledger>,
    data_dir: PathBuf,
}

/// How many events a slow listener may fall behind before it has to read them from the log.
const EVENT_BACKLOG: usize = 4_096;

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("data_dir", &self.inner.data_dir)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the data folder as its one server, with its metadata in SQLite: creates it, locks it, and migrates the database.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        Self::open_on(data_dir, Database::Sqlite)
    }

    /// [`Store::open`] with the metadata in any database.
    pub fn open_on(data_dir: &Path, database: Database) -> Result<Self, StoreError> {
        where_waiting_is_allowed(|| Self::open_here(data_dir, database))
    }

    fn open_here(data_dir: &Path, database: Database) -> Result<Self, StoreError> {
        fs::create_dir_all(data_dir).map_err(|e| StoreError::io("create the folder", data_dir, e))?;
        let lock = FolderLock::take(data_dir)?;
        let source = Source {
            database,
            data_dir: data_dir.to_owned(),
        };
        let conn = source.connect(Purpose::Write)?;
        conn.migrate(&source.name())?;
        crate::objects::sync_folder(data_dir)?;
        let objects = Objects::local(&data_dir.join("objects"))?;
        objects.discard_unfinished()?;
        shelf_of(data_dir).discard_unfinished()?;
        let readers = ReadPool::open(&source, Purpose::Read)?;
        let (events, _) = broadcast::channel(EVENT_BACKLOG);
        let writer = Writer::start(source, conn, lock, events.clone())?;
        Ok(Self {
            inner: Arc::new(Inner {
                readers,
                writer: Some(writer),
                events,
                objects,
                ledger: Ledger::at(data_dir.join("uploads")),
                data_dir: data_dir.to_owned(),
            }),
        })
    }

    /// Opens the data folder to look at it, also while a server runs. Writes are refused.
    pub fn open_read_only(data_dir: &Path) -> Result<Self, StoreError> {
        Self::open_read_only_on(data_dir, Database::Sqlite)
    }

    /// [`Store::open_read_only`] with the metadata in any database.
    pub fn open_read_only_on(data_dir: &Path, database: Database) -> Result<Self, StoreError> {
        where_waiting_is_allowed(|| Self::open_read_only_here(data_dir, database))
    }

    fn open_read_only_here(data_dir: &Path, database: Database) -> Result<Self, StoreError> {
        let file = data_dir.join(FILE_NAME);
        if database == Database::Sqlite && !file.exists() {
            return Err(StoreError::not_found("Tidemill database", file.display()));
        }
        let source = Source {
            database,
            data_dir: data_dir.to_owned(),
        };
        let readers = ReadPool::open(&source, Purpose::Inspect)?;
        readers.with(|conn| conn.check_schema(&source.name()))?;
        let (events, _) = broadcast::channel(1);
        Ok(Self {
            inner: Arc::new(Inner {
                readers,
                writer: None,
                events,
                objects: Objects::local(&data_dir.join("objects"))?,
                ledger: Ledger::at(data_dir.join("uploads")),
                data_dir: data_dir.to_owned(),
            }),
        })
    }

    /// Runs `change` in a transaction and returns once it is durable. If it returns an error, it alone is rolled back.
    /// Waiting can be given up, the change cannot: it is stored all the same.
    pub async fn write<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (send, receive) = tokio::sync::oneshot::channel();
        self.writer()?.submit(change, move |answer| {
            // The caller may have given up waiting.
            let _ = send.send(answer);
        })?;
        receive.await.map_err(|_| StoreError::Closed)?
    }

    /// [`Store::write`] for a thread that may block. Not for a closure given to the store: it would wait for itself.
    pub fn write_blocking<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        self.writer()?.submit(change, move |answer| {
            let _ = send.send(answer);
        })?;
        receive.recv().map_err(|_| StoreError::Closed)?
    }

    /// Runs `query` on a consistent view of the metadata, on a thread that may block. It sees every write that was answered
    /// before.
    pub async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&ReadTx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let _permit = self.inner.readers.permit().await?;
        let store = self.clone();
        let task = tokio::task::spawn_blocking(move || store.read_here(query));
        task.await.map_err(|e| StoreError::Panicked {
            message: e.to_string(),
        })?
    }

    /// [`Store::read`] for whoever may wait for it.
    pub fn read_blocking<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send,
        F: FnOnce(&ReadTx<'_>) -> Result<T, StoreError> + Send,
    {
        match self.inner.readers.dialect() {
            Dialect::Sqlite => self.read_here(query),
            Dialect::Postgres => where_waiting_is_allowed(|| self.read_here(query)),
        }
    }

    fn read_here<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        F: FnOnce(&ReadTx<'_>) -> Result<T, StoreError>,
    {
        self.inner.readers.with(|conn| {
            let _view = conn.begin_read()?;
            query(&ReadTx::new(conn))
        })
    }

    /// Events as they become durable. A listener that lags behind reads on with [`crate::events::list_after`].
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.events.subscribe()
    }

    /// The objects of this data folder.
    pub fn objects(&self) -> &Objects {
        &self.inner.objects
    }

    /// Where parts of uploads wait.
    pub fn shelf(&self) -> Shelf {
        shelf_of(&self.inner.data_dir)
    }

    /// Which uploads in parts are open in buckets.
    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.inner.ledger
    }

    /// The data folder.
    pub fn data_dir(&self) -> &Path {
        &self.inner.data_dir
    }

    fn writer(&self) -> Result<&Writer, StoreError> {
        self.inner.writer.as_ref().ok_or(StoreError::ReadOnly)
    }
}

fn shelf_of(data_dir: &Path) -> Shelf {
    Shelf::at(data_dir.join("uploads").join("parts"))
}

/// PostgreSQL's driver waits on a runtime of its own, which an async task may not; a thread of its own may.
fn where_waiting_is_allowed<T: Send>(
    work: impl FnOnce() -> Result<T, StoreError> + Send,
) -> Result<T, StoreError> {
    std::thread::scope(|scope| {
        scope.spawn(work).join().unwrap_or_else(|_| {
            Err(StoreError::Panicked {
                message: "opening the store panicked".to_owned(),
            })
        })
    })
}
