//! Tables in files that clients keep: turned into Parquet, shown a page at a time, and asked in SQL that only reads.

mod bytes;
mod columns;
mod convert;
mod json;
mod provider;
mod query;
mod render;
#[cfg(test)]
mod tables_tests;

use std::sync::Arc;

use async_trait::async_trait;
use tidemill_core::ports::{
    ByteSink, ByteSource, NamedTable, PortError, RowsFormat, TableEngine, TableFormat, TablePage, TableRows,
    TableShape,
};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use crate::error::{DataError, Result};
use crate::session::guarded;
use provider::ParquetTable;

/// So many questions are answered at the same time; others wait.
const AT_ONCE: usize = 2;
/// Pieces of Parquet that wait for whoever stores them.
const AHEAD: usize = 4;

/// [`TableEngine`] on DataFusion. Cheap to clone.
#[derive(Clone)]
pub struct Tables {
    turns: Arc<Semaphore>,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }
}

impl Tables {
    /// Answers on a thread of its own, so that a long computation holds up nobody, and for a limited time.
    async fn answer<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T, PortError> {
        let _turn = self
            .turns
            .acquire()
            .await
            .map_err(|e| DataError::Upstream(e.to_string()))?;
        let handle = Handle::current();
        let limited = async move {
            match tokio::time::timeout(query::LONGEST, guarded(work)).await {
                Ok(answer) => answer,
                Err(_) => Err(DataError::QueryLimit(format!(
                    "the question takes longer than {} seconds; filter first, or ask for less",
                    query::LONGEST.as_secs()
                ))),
            }
        };
        let done = tokio::task::spawn_blocking(move || handle.block_on(limited)).await;
        Ok(done.map_err(|e| DataError::Upstream(format!("the question was interrupted: {e}")))??)
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
        let converting = tokio::task::spawn_blocking(move || {
            convert::to_parquet(&name, &file, format, &handle, bytes::Handed::new(sender))
        });
        while let Some(piece) = pieces.recv().await {
            sink.write(piece).await?;
        }
        let done = converting.await;
        Ok(done.map_err(|e| DataError::Upstream(format!("the conversion was interrupted: {e}")))??)
    }

    async fn shape(&self, table: NamedTable) -> Result<TableShape, PortError> {
        self.answer(async move { Ok(ParquetTable::open(table).await?.shape()) })
            .await
    }

    async fn page(
        &self,
        table: NamedTable,
        page: TablePage,
        format: RowsFormat,
    ) -> Result<TableRows, PortError> {
        self.answer(query::page(table, page, format)).await
    }

    fn tables_in(&self, sql: &str) -> Result<Vec<String>, PortError> {
        Ok(query::tables_in(sql)?)
    }

    async fn query(
        &self,
        tables: Vec<NamedTable>,
        sql: &str,
        limit: u32,
        format: RowsFormat,
    ) -> Result<TableRows, PortError> {
        let sql = sql.to_owned();
        self.answer(async move { query::query(tables, &sql, limit, format).await })
            .await
    }
}
