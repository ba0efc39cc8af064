//! Pages of tables, and SQL that only reads, with limits on rows, time and memory.

use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::common::{SchemaError, TableReference};
use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{ident, lit};
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::{DataFrame, SQLOptions, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;
use futures::{Stream, StreamExt as _};
use tidemill_core::ports::{NamedTable, RowsFormat, TablePage, TableRows};

use super::allowed::{check_plan, check_text, functions};
use super::columns::described;
use super::halt::Halt;
use super::provider::ParquetTable;
use super::render::render;
use crate::error::{DataError, Result, suggest};
use crate::session::session_on;

/// A question's operators may hold so many bytes,
const MEMORY: usize = 256 << 20;
/// work on so many rows at once (joins look at each with all of the other side before they can be ended),
const BATCH_ROWS: usize = 512;
/// and its answer may have so many in memory.
const ANSWER: usize = 128 << 20;
fn context() -> Result<SessionContext> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(MEMORY)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc()?;
    let config = session_on(Arc::default())
        .copied_config()
        .with_batch_size(BATCH_ROWS);
    let context = SessionContext::new_with_config_rt(config, runtime);
    for name in ["range", "generate_series"] {
        context.deregister_udtf(name);
    }
    Ok(context)
}

/// The only statement of a text, if it is a query.
fn statement(context: &SessionContext, sql: &str) -> Result<Statement> {
    check_text("SQL", sql)?;
    let state = context.state();
    let dialect = state.config_options().sql_parser.dialect;
    let statement = state
        .sql_to_statement(sql, &dialect)
        .map_err(|e| DataError::Query(told(&e)))?;
    match &statement {
        Statement::Statement(one) if matches!(one.as_ref(), ast::Statement::Query(_)) => Ok(statement),
        _ => Err(DataError::Query(
            "only one query that reads is answered here: tables are never changed, and no file is reached"
                .to_owned(),
        )),
    }
}

/// The tables that a query names.
pub fn tables_in(sql: &str) -> Result<Vec<String>> {
    let context = context()?;
    let statement = statement(&context, sql)?;
    let found = context
        .state()
        .resolve_table_references(&statement)
        .map_err(|e| DataError::Query(told(&e)))?;
    found
        .into_iter()
        .map(|table| match table {
            TableReference::Bare { table } => Ok(table.to_string()),
            qualified => Err(DataError::Query(format!(
                "there is no table `{qualified}`: tables here have no schema and no catalog; a name with dots or slashes stands in double quotes"
            ))),
        })
        .collect()
}

/// A page of one table.
pub async fn page(table: NamedTable, page: TablePage, format: RowsFormat, halt: &Halt) -> Result<TableRows> {
    let open = ParquetTable::open(table).await?;
    let places = places(&open, &page.columns)?;
    let limit = u64::from(page.limit);
    if page.filter.is_none() && page.order.is_empty() {
        let schema = Arc::new(open.schema.project(&places)?);
        let stream = open.read(&places, page.offset, Some(limit))?;
        let (batches, cut) = gather(stream, limit, halt).await?;
        let mut rows = answer(&schema, &batches, format)?;
        rows.total = Some(open.rows());
        rows.more = cut || page.offset.saturating_add(rows.rows) < open.rows();
        return Ok(rows);
    }
    for (column, _) in &page.order {
        place(&open, column)?;
    }
    let context = context()?;
    let mut frame = context.read_table(Arc::new(open.clone()))?;
    if let Some(filter) = &page.filter {
        check_text("filter", filter)?;
        let invalid = |e: DataFusionError| {
            wrong(&open.name, &e)
                .unwrap_or_else(|| DataError::Query(format!("the filter `{filter}`: {}", told(&e))))
        };
        let condition = frame.parse_sql_expr(filter).map_err(invalid)?;
        frame = frame.filter(condition).map_err(invalid)?;
        check_plan(frame.logical_plan()).map_err(invalid)?;
    }
    let of = open.name.clone();
    let counted = frame.clone().aggregate(Vec::new(), vec![count(lit(1_i64))])?;
    let (_, counted, _) = run(&of, counted, 1, halt).await?;
    let total = counted
        .first()
        .and_then(|batch| batch.column(0).as_primitive_opt::<Int64Type>())
        .filter(|numbers| !numbers.is_empty())
        .map_or(0, |numbers| numbers.value(0).max(0) as u64);
    if !page.order.is_empty() {
        // Rows that are equal in all that they are ordered by stay as the file has them, page after page.
        let mut number = "row".to_owned();
        while open.schema.index_of(&number).is_ok() {
            number.push('_');
        }
        frame = frame.with_column(&number, row_number())?;
        let by = page
            .order
            .iter()
            .map(|(column, downwards)| ident(column).sort(!downwards, false))
            .chain([ident(&number).sort(true, false)]);
        frame = frame.sort(by.collect())?;
    }
    let names: Vec<_> = places
        .iter()
        .map(|at| ident(open.schema.field(*at).name()))
        .collect();
    frame = frame.select(names)?.limit(
        usize::try_from(page.offset).unwrap_or(usize::MAX),
        Some(page.limit as usize),
    )?;
    let (schema, batches, cut) = run(&of, frame, limit, halt).await?;
    let mut rows = answer(&schema, &batches, format)?;
    rows.total = Some(total);
    rows.more = cut || page.offset.saturating_add(rows.rows) < total;
    Ok(rows)
}

/// The answer to a query.
pub async fn query(
    tables: Vec<NamedTable>,
    sql: &str,
    limit: u32,
    format: RowsFormat,
    halt: &Halt,
) -> Result<TableRows> {
    let context = context()?;
    let mut names = Vec::with_capacity(tables.len());
    for table in tables {
        let open = ParquetTable::open(table).await?;
        names.push(open.name.clone());
        context.register_table(TableReference::bare(open.name.clone()), Arc::new(open))?;
    }
    let statement = statement(&context, sql)?;
    let of = names.join(", ");
    let invalid = |e: DataFusionError| wrong(&of, &e).unwrap_or_else(|| DataError::Query(told(&e)));
    let plan = context
        .state()
        .statement_to_plan(statement)
        .await
        .map_err(invalid)?;
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(&plan)
        .map_err(invalid)?;
    check_plan(&plan).map_err(invalid)?;
    let frame = context.execute_logical_plan(plan).await.map_err(invalid)?;
    // One more shows whether there is more.
    let frame = frame.limit(0, Some(limit as usize + 1))?;
    let (schema, mut batches, cut) = run(&of, frame, u64::from(limit) + 1, halt).await?;
    let found: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if found > limit as usize
        && let Some(last) = batches.pop()
    {
        batches.push(last.slice(0, last.num_rows() - 1));
    }
    let mut rows = answer(&schema, &batches, format)?;
    rows.more |= cut || found > limit as usize;
    Ok(rows)
}

fn answer(schema: &SchemaRef, batches: &[RecordBatch], format: RowsFormat) -> Result<TableRows> {
    let all: u64 = batches.iter().map(|batch| batch.num_rows() as u64).sum();
    let (body, rows) = render(schema, batches, format)?;
    Ok(TableRows {
        columns: described(schema),
        rows,
        total: None,
        more: rows < all,
        body,
    })
}

async fn run(
    of: &str,
    frame: DataFrame,
    limit: u64,
    halt: &Halt,
) -> Result<(SchemaRef, Vec<RecordBatch>, bool)> {
    let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
    let invalid = |e: DataFusionError| failed(of, e);
    let task = Arc::new(frame.task_ctx());
    let plan = frame.create_physical_plan().await.map_err(invalid)?;
    let plan = halt.watch(plan).map_err(invalid)?;
    let stream = execute_stream(plan, task).map_err(invalid)?;
    let (batches, cut) = gather(stream.map(|batch| batch.map_err(invalid)), limit, halt).await?;
    Ok((schema, batches, cut))
}

/// Batches until there are enough rows or too many bytes; whether it was the bytes.
async fn gather(
    stream: impl Stream<Item = Result<RecordBatch>>,
    rows: u64,
    halt: &Halt,
) -> Result<(Vec<RecordBatch>, bool)> {
    let mut stream = std::pin::pin!(stream);
    let (mut batches, mut found, mut bytes) = (Vec::new(), 0, 0);
    while let Some(batch) = stream.next().await {
        halt.check()?;
        let batch = batch?;
        found += batch.num_rows() as u64;
        bytes += batch.get_array_memory_size();
        batches.push(batch);
        if found >= rows {
            break;
        }
        if bytes > ANSWER {
            return Ok((batches, true));
        }
    }
    Ok((batches, false))
}

fn place(table: &ParquetTable, column: &str) -> Result<usize> {
    table
        .schema
        .index_of(column)
        .map_err(|_| DataError::NoSuchColumn {
            what: "the request".to_owned(),
            column: column.to_owned(),
            source_pattern: table.name.clone(),
            hint: suggest(column, table.schema.fields().iter().map(|f| f.name().as_str())),
        })
}

fn places(table: &ParquetTable, columns: &[String]) -> Result<Vec<usize>> {
    if columns.is_empty() {
        return Ok((0..table.schema.fields().len()).collect());
    }
    let mut places = Vec::with_capacity(columns.len());
    for column in columns {
        let at = place(table, column)?;
        if places.contains(&at) {
            return Err(DataError::Query(format!("column `{column}` is asked for twice")));
        }
        places.push(at);
    }
    Ok(places)
}

/// What the engine says, without what is of no use to the reader.
fn told(error: &DataFusionError) -> String {
    let text = error.strip_backtrace().replace("?table?.", "");
    let text = text.lines().next().unwrap_or_default();
    match text.split_once("Invalid function ") {
        Some((before, name)) => format!(
            "{before}there is no function {}; there are {}",
            name.split_whitespace()
                .next()
                .unwrap_or_default()
                .trim_end_matches('.'),
            functions()
        ),
        None => text.to_owned(),
    }
}

/// An error in the caller's own words: a column that is not there, a limit that was reached, a table that cannot be read.
fn wrong(of: &str, error: &DataFusionError) -> Option<DataError> {
    match error.find_root() {
        DataFusionError::SchemaError(error, _) => match error.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => Some(DataError::NoSuchColumn {
                what: "the query".to_owned(),
                column: field.name.clone(),
                source_pattern: of.to_owned(),
                hint: suggest(&field.name, valid_fields.iter().map(|field| field.name.as_str())),
            }),
            _ => None,
        },
        DataFusionError::External(inner) => match inner.downcast_ref::<DataError>() {
            Some(DataError::QueryLimit(text)) => Some(DataError::QueryLimit(text.clone())),
            _ => None,
        },
        DataFusionError::ResourcesExhausted(_) => Some(DataError::QueryLimit(format!(
            "the question needs more than {} MB of memory; filter first, choose fewer columns, or group by less",
            MEMORY >> 20
        ))),
        _ => None,
    }
}

/// What went wrong while the answer was computed.
fn failed(of: &str, error: DataFusionError) -> DataError {
    if let Some(known) = wrong(of, &error) {
        return known;
    }
    let error = match error {
        DataFusionError::External(inner) => match inner.downcast::<DataError>() {
            Ok(known) => return *known,
            Err(inner) => DataFusionError::External(inner),
        },
        other => other,
    };
    match error.find_root() {
        DataFusionError::Internal(_) | DataFusionError::External(_) | DataFusionError::IoError(_) => {
            error.into()
        }
        // A value that cannot be computed with: a division by zero, a text that is no number.
        _ => DataError::Query(told(&error)),
    }
}
