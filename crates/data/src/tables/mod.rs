//! Tables in files that clients keep: turned into Parquet, shown a page at a time, and asked in SQL that only reads.

mod allowed;
mod bytes;
mod columns;
mod convert;
mod halt;
mod json;
#[cfg(test)]
mod limits_tests;
mod lines;
mod provider;
mod query;
mod render;
#[cfg(test)]
mod tables_tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidemill_core::ports::{
    ByteSink, ByteSource, NamedTable, PortError, RowsFormat, TableEngine, TableFormat, TablePage, TableRows,
    TableShape,
};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::error::{DataError, Result};
use crate::session::guarded;
use halt::Halt;
use provider::ParquetTable;

/// So many questions are answered at the same time; others wait.
const AT_ONCE: usize = 2;
/// A question may take so long;
const LONGEST: Duration = Duration::from_secs(20);
/// to make Parquet of a file, so long;
const LONGEST_CONVERSION: Duration = Duration::from_mins(10);
/// whoever asked hears so much later that it took longer, even if the work has not ended.
const GRACE: Duration = Duration::from_secs(2);
/// Plans are trees that are walked by recursion: their threads have this much stack, of which the system gives what is used.
const STACK: usize = 256 << 20;
/// Pieces of Parquet that wait for whoever stores them.
const AHEAD: usize = 4;

/// [`TableEngine`] on DataFusion. Cheap to clone.
#[derive(Clone)]
pub struct Tables {
    turns: Arc<Semaphore>,
    longest: Duration,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            longest: LONGEST,
        }
    }
}

/// A thread that walks plans.
fn thread(work: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new()
        .name("table-question".to_owned())
        .stack_size(STACK)
        .spawn(work)
        .map_err(|e| DataError::Upstream(format!("no thread for the question: {e}")))
}

impl Tables {
    /// Answers on a thread of its own, so that a long computation holds up nobody, for a limited time, and only as long as somebody waits.
    /// The turn ends with the work.
    async fn answer<T, F>(&self, work: impl FnOnce(Halt) -> F + Send + 'static) -> Result<T, PortError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>>,
    {
        let turn = Arc::clone(&self.turns)
            .acquire_owned()
            .await
            .map_err(|e| DataError::Upstream(e.to_string()))?;
        let (halt, handle, longest) = (Halt::after(self.longest), Handle::current(), self.longest);
        let _unwanted = halt.when_dropped();
        let (mut sender, receiver) = oneshot::channel();
        let late = halt.clone();
        thread(move || {
            let _turn = turn;
            let done = handle.block_on(async {
                let working = tokio::time::timeout(longest, guarded(work(halt.clone())));
                tokio::select! {
                    done = working => Some(done.unwrap_or_else(|_| Err(halt.too_long()))),
                    () = sender.closed() => None,
                }
            });
            if let Some(done) = done {
                // Whoever waited may have gone.
                let _ = sender.send(done);
            }
        })?;
        match tokio::time::timeout(longest + GRACE, receiver).await {
            Ok(done) => {
                Ok(done.map_err(|e| DataError::Upstream(format!("the question was interrupted: {e}")))??)
            }
            Err(_) => Err(late.too_long().into()),
        }
    }
}

#[async_trait]
impl TableEngine for Tables {
    async fn to_parquet(
        &self,
        name: &str,
        file: Arc<dyn ByteSource>,
        format: TableFormat,
        sink: &mut dyn ByteSink,
    ) -> Result<TableShape, PortError> {
        let (sender, mut pieces) = mpsc::channel(AHEAD);
        let (name, handle) = (name.to_owned(), Handle::current());
        let halt = Halt::after(LONGEST_CONVERSION);
        let _unwanted = halt.when_dropped();
        let converting = tokio::task::spawn_blocking(move || {
            convert::to_parquet(&name, &file, format, &handle, &halt, bytes::Handed::new(sender))
        });
        while let Some(piece) = pieces.recv().await {
            sink.write(piece).await?;
        }
        let done = converting.await;
        Ok(done.map_err(|e| DataError::Upstream(format!("the conversion was interrupted: {e}")))??)
    }

    async fn shape(&self, table: NamedTable) -> Result<TableShape, PortError> {
        self.answer(|_| async move { Ok(ParquetTable::open(table).await?.shape()) })
            .await
    }

    async fn page(
        &self,
        table: NamedTable,
        page: TablePage,
        format: RowsFormat,
    ) -> Result<TableRows, PortError> {
        self.answer(move |halt| async move { query::page(table, page, format, &halt).await })
            .await
    }

    fn tables_in(&self, sql: &str) -> Result<Vec<String>, PortError> {
        let sql = sql.to_owned();
        let (sender, receiver) = std::sync::mpsc::channel();
        let parsing = thread(move || {
            // The receiver waits.
            let _ = sender.send(query::tables_in(&sql));
        })?;
        let found = receiver.recv();
        let ended = parsing.join();
        match (found, ended) {
            (Ok(found), Ok(())) => Ok(found?),
            _ => Err(DataError::Upstream("the query could not be read".to_owned()).into()),
        }
    }

    async fn query(
        &self,
        tables: Vec<NamedTable>,
        sql: &str,
        limit: u32,
        format: RowsFormat,
    ) -> Result<TableRows, PortError> {
        let sql = sql.to_owned();
        self.answer(move |halt| async move { query::query(tables, &sql, limit, format, &halt).await })
            .await
    }
}
