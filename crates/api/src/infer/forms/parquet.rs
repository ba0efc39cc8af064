//! A scoring request as Parquet: the engine of tables reads it, and its rows are then like any others.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use tidemill_core::ports::{ByteSource, NamedTable, PortError, RowsFormat, TablePage};

use crate::control_plane::App;
use crate::error::ApiError;

/// The content type under which MLflow takes it.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.apache.parquet";

struct Memory(Bytes);

#[async_trait]
impl ByteSource for Memory {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, PortError> {
        let range = range.start as usize..range.end as usize;
        match self.0.get(range) {
            Some(part) => Ok(part.to_vec()),
            None => Err(PortError::caller(
                "table_invalid",
                "the Parquet file ends before what it says it holds",
            )),
        }
    }
}

/// The file as a body of the form `dataframe_split`.
pub(crate) async fn as_split(app: &App, body: Bytes) -> Result<Map<String, Value>, ApiError> {
    let engine = app.tracking().table_engine()?;
    let table = NamedTable {
        name: "the request's body".to_owned(),
        parquet: Arc::new(Memory(body)),
    };
    let page = TablePage {
        limit: u32::MAX,
        ..TablePage::default()
    };
    let rows = engine.page(table, page, RowsFormat::Json).await?;
    if rows.more || rows.total.is_some_and(|total| total > rows.rows) {
        return Err(ApiError::bad_request(
            "bad_body",
            format!(
                "the Parquet file holds more than the {} rows that fit into a request; send it in parts, or as a batch job (`tidemill predict`)",
                rows.rows
            ),
        ));
    }
    let data: Value = serde_json::from_slice(&rows.body).map_err(|error| {
        ApiError::internal(
            "internal",
            format!("rows of a table cannot be read back: {error}"),
        )
    })?;
    let columns: Vec<&str> = rows.columns.iter().map(|column| column.name.as_str()).collect();
    let split = json!({ "dataframe_split": { "columns": columns, "data": data } });
    match split {
        Value::Object(body) => Ok(body),
        _ => Ok(Map::new()),
    }
}
