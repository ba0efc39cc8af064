//! A small pool of connections that read.

use std::sync::{Condvar, Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::db::{Connection, Dialect, Purpose, Source};
use crate::error::StoreError;

const CONNECTIONS: usize = 4;

pub(crate) struct ReadPool {
    source: Source,
    purpose: Purpose,
    idle: Mutex<Vec<Connection>>,
    returned: Condvar,
    // Keeps async readers out of the blocking threads until a connection is likely to be idle.
    permits: Semaphore,
}

impl ReadPool {
    pub fn open(source: &Source, purpose: Purpose) -> Result<Self, StoreError> {
        let connections = (0..CONNECTIONS)
            .map(|_| source.connect(purpose))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            source: source.clone(),
            purpose,
            idle: Mutex::new(connections),
            returned: Condvar::new(),
            permits: Semaphore::new(CONNECTIONS),
        })
    }

    pub fn dialect(&self) -> Dialect {
        self.source.dialect()
    }

    pub async fn permit(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        self.permits.acquire().await.map_err(|_| StoreError::Closed)
    }

    /// Runs `work` with an idle connection; waits for one.
    pub fn with<T>(&self, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut idle = self
            .returned
            .wait_while(idle, |idle| idle.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        let Some(conn) = idle.pop() else {
            return Err(StoreError::Closed);
        };
        drop(idle);
        let mut borrowed = Borrowed {
            pool: self,
            conn: Some(conn),
        };
        if borrowed.conn.as_ref().is_some_and(Connection::is_lost) {
            let fresh = self.source.connect(self.purpose)?;
            borrowed.conn = Some(fresh);
        }
        match &borrowed.conn {
            Some(conn) => work(conn),
            None => Err(StoreError::Closed),
        }
    }
}

/// Gives the connection back even if the work panics.
struct Borrowed<'p> {
    pool: &'p ReadPool,
    conn: Option<Connection>,
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            self.pool
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(conn);
            self.pool.returned.notify_one();
        }
    }
}
