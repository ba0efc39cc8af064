//! [`Store`]: opens a data folder, and runs closures on its metadata.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::broadcast;

use crate::error::StoreError;
use crate::events::Event;
use crate::lock::FolderLock;
use crate::objects::Objects;
use crate::reader::ReadPool;
use crate::tx::{ReadTx, Tx};
use crate::writer::Writer;
use crate::{migrate, sqlite};

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
    /// Opens the data folder as its one server: creates it, locks it, and migrates the database.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(data_dir).map_err(|e| StoreError::io("create the folder", data_dir, e))?;
        let lock = FolderLock::take(data_dir)?;
        let database = data_dir.join(sqlite::FILE_NAME);
        let mut conn = sqlite::open_writer(&database)?;
        migrate::run(&mut conn, &database)?;
        crate::objects::sync_folder(data_dir)?;
        let objects = Objects::local(&data_dir.join("objects"))?;
        objects.discard_unfinished()?;
        let readers = ReadPool::open(&database, sqlite::open_reader)?;
        let (events, _) = broadcast::channel(EVENT_BACKLOG);
        let writer = Writer::start(conn, lock, events.clone())?;
        Ok(Self {
            inner: Arc::new(Inner {
                readers,
                writer: Some(writer),
                events,
                objects,
                data_dir: data_dir.to_owned(),
            }),
        })
    }

    /// Opens the data folder to look at it, also while a server runs. Writes are refused.
    pub fn open_read_only(data_dir: &Path) -> Result<Self, StoreError> {
        let database = data_dir.join(sqlite::FILE_NAME);
        if !database.exists() {
            return Err(StoreError::not_found("Tidemill database", database.display()));
        }
        let readers = ReadPool::open(&database, sqlite::open_inspector)?;
        readers.with(|conn| migrate::check(conn, &database))?;
        let (events, _) = broadcast::channel(1);
        Ok(Self {
            inner: Arc::new(Inner {
                readers,
                writer: None,
                events,
                objects: Objects::local(&data_dir.join("objects"))?,
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
        let task = tokio::task::spawn_blocking(move || store.read_blocking(query));
        task.await.map_err(|e| StoreError::Panicked {
            message: e.to_string(),
        })?
    }

    /// [`Store::read`] for a thread that may block.
    pub fn read_blocking<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        F: FnOnce(&ReadTx<'_>) -> Result<T, StoreError>,
    {
        self.inner.readers.with(|conn| {
            // Deferred: the first statement fixes the moment that all of them see.
            let view = conn.unchecked_transaction()?;
            query(&ReadTx::new(&view))
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

    /// The data folder.
    pub fn data_dir(&self) -> &Path {
        &self.inner.data_dir
    }

    fn writer(&self) -> Result<&Writer, StoreError> {
        self.inner.writer.as_ref().ok_or(StoreError::ReadOnly)
    }
}
