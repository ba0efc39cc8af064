//! Tables that clients keep as files: W&B's and MLflow's JSON, CSV and Parquet. What is not Parquet is turned into it once; then pages
//! of rows and SQL are answered by the port [`tidemill_core::ports::TableEngine`].

mod files;
mod parquet;

use tidemill_core::ports::{NamedTable, PortError, RowsFormat, TableFormat, TablePage, TableRows};
use tidemill_store::wandb::runs::WandbName;

use super::{Caller, Result, Tracking, TrackingError};

pub use files::{TableFile, TableState};

/// So many rows an answer has at most where it is JSON,
pub const MOST_JSON_ROWS: u32 = 10_000;
/// and so many in another form.
pub const MOST_ROWS: u32 = 1_000_000;

/// Whose files are meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TableHome {
    /// A run's; or those of an artifact that it read or wrote, `name:alias`.
    Run(String, Option<String>),
    /// A version of a registered model.
    Version(String, String),
    /// A logged model's.
    LoggedModel(String),
    /// A version of one of W&B's artifacts.
    Artifact(WandbName, String),
}

/// How the rows of a file are written down, by its name.
pub(super) fn format_of(path: &str) -> Option<TableFormat> {
    let (_, ending) = path.rsplit_once('.')?;
    Some(match ending.to_ascii_lowercase().as_str() {
        "json" => TableFormat::JsonRows,
        "csv" => TableFormat::Separated(','),
        "tsv" => TableFormat::Separated('\t'),
        "parquet" | "pq" => TableFormat::Parquet,
        _ => return None,
    })
}

/// A format in the store's word.
fn word(format: TableFormat) -> &'static str {
    match format {
        TableFormat::JsonRows => "json",
        TableFormat::Separated('\t') => "tsv",
        TableFormat::Separated(_) => "csv",
        TableFormat::Parquet => "parquet",
    }
}

fn check_limit(limit: u32, format: RowsFormat) -> Result<()> {
    let most = if format == RowsFormat::Json {
        MOST_JSON_ROWS
    } else {
        MOST_ROWS
    };
    if (1..=most).contains(&limit) {
        return Ok(());
    }
    Err(TrackingError::invalid(format!(
        "`limit` must lie between 1 and {most} in this format, and is {limit}"
    )))
}

impl Tracking {
    /// A page of rows of a file.
    pub async fn table_rows(
        &self,
        caller: &Caller,
        home: &TableHome,
        path: &str,
        page: TablePage,
        format: RowsFormat,
    ) -> Result<TableRows> {
        check_limit(page.limit, format)?;
        let engine = self.table_engine()?;
        let file = self.table_file(caller, home, path).await?;
        let table = NamedTable {
            name: path.to_owned(),
            parquet: self.as_parquet(&file, path).await?,
        };
        Ok(engine.page(table, page, format).await?)
    }

    /// The answer to SQL over the tables of a run or an artifact, by their names or their paths.
    pub async fn query_tables(
        &self,
        caller: &Caller,
        home: &TableHome,
        sql: &str,
        limit: u32,
        format: RowsFormat,
    ) -> Result<TableRows> {
        check_limit(limit, format)?;
        let engine = self.table_engine()?;
        let wanted = engine.tables_in(sql)?;
        let known = self.tables_of(caller, home).await?;
        let mut tables = Vec::with_capacity(wanted.len());
        for name in wanted {
            let listed = known
                .iter()
                .find(|table| table.name == name)
                .or_else(|| known.iter().find(|table| table.path == name));
            let file = match listed {
                Some(table) => table.file.clone(),
                // A file that nobody calls a table may be one.
                None if format_of(&name).is_some() => self.table_file(caller, home, &name).await?,
                None => {
                    let names: Vec<String> = known
                        .iter()
                        .take(20)
                        .map(|table| format!("`{}`", table.name))
                        .collect();
                    let there = if names.is_empty() {
                        "there are none".to_owned()
                    } else {
                        format!("there are {}", names.join(", "))
                    };
                    return Err(PortError::caller(
                        "query_invalid",
                        format!("there is no table `{name}`; {there}"),
                    )
                    .into());
                }
            };
            tables.push(NamedTable {
                parquet: self.as_parquet(&file, &name).await?,
                name,
            });
        }
        Ok(engine.query(tables, sql, limit, format).await?)
    }
}
