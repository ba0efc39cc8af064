//! CSV files as a table. DataFusion's own reader knows the words for missing values only while it guesses types, not while it reads.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result as EngineResult};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};

use crate::error::{DataError, Result};

/// What counts as missing in a CSV file: nothing, or one of the words that R and pandas write.
const MISSING: &str = "^(|NA|N/A|n/a|NaN|nan|null|NULL|None)$";
const BATCH_ROWS: usize = 8_192;
/// Batches that are read ahead.
const AHEAD: usize = 2;

/// The pattern of missing values.
pub fn missing() -> Result<regex::Regex> {
    regex::Regex::new(MISSING)
        .map_err(|e| DataError::Upstream(format!("the pattern of missing values is broken: {e}")))
}

/// Reads a file with a header line; `projection` are positions of columns.
pub fn reader(
    file: &Path,
    schema: &SchemaRef,
    projection: Option<Vec<usize>>,
) -> Result<arrow::csv::Reader<BufReader<File>>> {
    let opened = File::open(file).map_err(|e| DataError::io(file, e))?;
    let mut builder = arrow::csv::ReaderBuilder::new(SchemaRef::clone(schema))
        .with_header(true)
        .with_null_regex(missing()?)
        .with_batch_size(BATCH_ROWS);
    if let Some(projection) = projection {
        builder = builder.with_projection(projection);
    }
    Ok(builder.build(BufReader::with_capacity(1 << 16, opened))?)
}

/// CSV files of equal header lines, read one after the other.
#[derive(Debug)]
pub struct CsvTable {
    files: Vec<PathBuf>,
    schema: SchemaRef,
}

impl CsvTable {
    /// A table of these files.
    pub fn new(files: Vec<PathBuf>, schema: SchemaRef) -> Self {
        Self { files, schema }
    }
}

#[async_trait]
impl TableProvider for CsvTable {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
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
        let projected = match projection {
            None => SchemaRef::clone(&self.schema),
            Some(columns) => SchemaRef::new(self.schema.project(columns)?),
        };
        let scan = CsvScan {
            files: self.files.clone(),
            all_columns: SchemaRef::clone(&self.schema),
            projection: projection.cloned(),
            schema: SchemaRef::clone(&projected),
        };
        let exec = StreamingTableExec::try_new(projected, vec![Arc::new(scan)], None, vec![], false, limit)?;
        Ok(Arc::new(exec))
    }
}

#[derive(Debug)]
struct CsvScan {
    files: Vec<PathBuf>,
    all_columns: SchemaRef,
    projection: Option<Vec<usize>>,
    /// After the projection.
    schema: SchemaRef,
}

impl PartitionStream for CsvScan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut builder = RecordBatchReceiverStream::builder(SchemaRef::clone(&self.schema), AHEAD);
        let sender = builder.tx();
        let (files, schema, projection) = (
            self.files.clone(),
            SchemaRef::clone(&self.all_columns),
            self.projection.clone(),
        );
        builder.spawn_blocking(move || {
            for file in &files {
                let batches = reader(file, &schema, projection.clone())
                    .map_err(|e| DataFusionError::External(Box::new(e)))?;
                for batch in batches {
                    if sender.blocking_send(Ok(batch?)).is_err() {
                        // Nobody reads any more: a limit was reached.
                        return Ok(());
                    }
                }
            }
            Ok(())
        });
        builder.build()
    }
}
