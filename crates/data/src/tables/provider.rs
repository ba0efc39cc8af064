//! A Parquet file of the port as a table: read in parts, a row group at a time, whatever its size.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result as EngineResult};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures::{Stream, TryStreamExt as _};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::basic::Type;
use tidemill_core::ports::{NamedTable, TableShape};

use super::bytes::Parts;
use super::columns::{described, with_distinct_names};
use crate::error::{DataError, Result};

/// So many rows come at once at most,
const BATCH_ROWS: u64 = 512;
/// and about so many bytes of them.
const BATCH_BYTES: u64 = 4 << 20;
/// What is read of a row group at once has at most so many bytes.
const MOST_OF_GROUP: i64 = 256 << 20;

/// It unpacks to so many at most, as it says itself.
const MOST_UNPACKED: i64 = 1 << 30;
/// Rows of texts from a dictionary: so many at once,
const FOLDED_ROWS: u64 = 128;
/// and fewer, down to one, where each might be so long that they would be more bytes than this.
const UNFOLDED: u64 = 512 << 20;

/// An open Parquet file.
#[derive(Clone)]
pub struct ParquetTable {
    /// What it is called.
    pub name: String,
    /// Its columns, with names that differ.
    pub schema: SchemaRef,
    parts: Parts,
    metadata: ArrowReaderMetadata,
}

impl fmt::Debug for ParquetTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ParquetTable({})", self.name)
    }
}

impl ParquetTable {
    /// Reads the footer.
    pub async fn open(table: NamedTable) -> Result<Self> {
        let mut parts = Parts(table.parquet);
        let metadata = ArrowReaderMetadata::load_async(&mut parts, ArrowReaderOptions::new())
            .await
            .map_err(|e| broken(&table.name, e))?;
        let schema = with_distinct_names(metadata.schema());
        Ok(Self {
            name: table.name,
            schema,
            parts,
            metadata,
        })
    }

    /// How many rows it has.
    pub fn rows(&self) -> u64 {
        self.metadata.metadata().file_metadata().num_rows().max(0) as u64
    }

    /// What it is made of.
    pub fn shape(&self) -> TableShape {
        TableShape {
            rows: self.rows(),
            columns: described(&self.schema),
        }
    }

    /// Batches of some columns, in this order, from a row on.
    pub fn read(
        &self,
        columns: &[usize],
        offset: u64,
        limit: Option<u64>,
    ) -> Result<impl Stream<Item = Result<RecordBatch>> + Send + 'static> {
        let metadata = self.metadata.metadata();
        // Row groups that end before the offset are not touched.
        let (mut passed, mut groups) = (0, Vec::new());
        for (i, group) in metadata.row_groups().iter().enumerate() {
            let rows = group.num_rows().max(0) as u64;
            if groups.is_empty() && passed + rows <= offset {
                passed += rows;
                continue;
            }
            groups.push(i);
        }
        let mask = ProjectionMask::roots(metadata.file_metadata().schema_descr(), columns.iter().copied());
        let (mut average, mut most_rows) = (1, BATCH_ROWS);
        for i in &groups {
            let group = metadata.row_group(*i);
            let chunks = group.columns().iter().enumerate();
            let wanted = chunks.filter(|(leaf, _)| mask.leaf_included(*leaf));
            let (mut packed, mut unpacked) = (0_i64, 0_i64);
            for (_, chunk) in wanted {
                packed = packed.saturating_add(chunk.compressed_size());
                let claimed = chunk.uncompressed_size().max(0);
                unpacked = unpacked.saturating_add(claimed);
                if chunk.column_type() == Type::BYTE_ARRAY && chunk.dictionary_page_offset().is_some() {
                    // Each row may be the longest entry of the dictionary, as often as there are rows.
                    let rows = UNFOLDED / claimed.max(1) as u64;
                    most_rows = most_rows.min(rows.clamp(1, FOLDED_ROWS));
                }
            }
            if unpacked > MOST_UNPACKED {
                return Err(DataError::QueryLimit(format!(
                    "table `{}`: its row group {i} says that it unpacks to {} MB in the columns that are asked for, and at most {} MB are unpacked; ask for fewer columns",
                    self.name,
                    unpacked >> 20,
                    MOST_UNPACKED >> 20
                )));
            }
            if packed > MOST_OF_GROUP {
                return Err(DataError::QueryLimit(format!(
                    "table `{}`: its row group {i} has {} MB in the columns that are asked for, and at most {} MB are read at once; ask for fewer columns",
                    self.name,
                    packed >> 20,
                    MOST_OF_GROUP >> 20
                )));
            }
            let rows = group.num_rows().max(1) as u64;
            average = average.max(unpacked.max(0) as u64 / rows);
        }
        let batch = (BATCH_BYTES / average).clamp(1, most_rows);
        let mut builder =
            ParquetRecordBatchStreamBuilder::new_with_metadata(self.parts.clone(), self.metadata.clone())
                .with_projection(mask)
                .with_row_groups(groups)
                .with_batch_size(usize::try_from(batch).unwrap_or(1))
                .with_offset(usize::try_from(offset - passed.min(offset)).unwrap_or(usize::MAX));
        if let Some(limit) = limit {
            builder = builder.with_limit(usize::try_from(limit).unwrap_or(usize::MAX));
        }
        let stream = builder.build().map_err(|e| broken(&self.name, e))?;
        // The reader gives columns in the file's order.
        let mut in_file: Vec<usize> = columns.to_vec();
        in_file.sort_unstable();
        let places: Vec<usize> = columns
            .iter()
            .filter_map(|column| in_file.iter().position(|at| at == column))
            .collect();
        let schema = Arc::new(self.schema.project(columns)?);
        let name = self.name.clone();
        Ok(stream.map_err(move |e| broken(&name, e)).and_then(move |batch| {
            let renamed = batch.project(&places).and_then(|batch| {
                let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                RecordBatch::try_new_with_options(Arc::clone(&schema), batch.columns().to_vec(), &options)
            });
            futures::future::ready(renamed.map_err(DataError::from))
        }))
    }
}

fn broken(table: &str, error: parquet::errors::ParquetError) -> DataError {
    match error {
        parquet::errors::ParquetError::External(error) => {
            DataError::Upstream(format!("table `{table}`: {error}"))
        }
        error => DataError::Table {
            table: table.to_owned(),
            reason: format!("it cannot be read as Parquet: {error}"),
        },
    }
}

#[async_trait]
impl TableProvider for ParquetTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let columns = projection.cloned().unwrap_or(all);
        let schema = Arc::new(self.schema.project(&columns)?);
        let scan = Scan {
            table: self.clone(),
            columns,
            schema: Arc::clone(&schema),
            limit,
        };
        let exec = StreamingTableExec::try_new(schema, vec![Arc::new(scan)], None, vec![], false, limit)?;
        Ok(Arc::new(exec))
    }
}

#[derive(Debug)]
struct Scan {
    table: ParquetTable,
    columns: Vec<usize>,
    schema: SchemaRef,
    limit: Option<usize>,
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let outer = |error: DataError| DataFusionError::External(Box::new(error));
        let limit = self.limit.map(|limit| limit as u64);
        let stream: futures::stream::BoxStream<'static, EngineResult<RecordBatch>> =
            match self.table.read(&self.columns, 0, limit) {
                Ok(stream) => Box::pin(stream.map_err(outer)),
                Err(error) => Box::pin(futures::stream::once(async move { Err(outer(error)) })),
            };
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream))
    }
}
