//! The files of a source as one table.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::prelude::{DataFrame, SessionContext};
use tidemill_core::spec::DataFormat;

use super::csv::CsvTable;
use super::resolve::{SourceFiles, resolve};
use super::schema::SchemaCache;
use crate::error::{DataError, Result, suggest};

/// A source that was found and whose columns are known.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its files.
    pub files: SourceFiles,
    /// Its columns.
    pub schema: SchemaRef,
}

impl Source {
    /// Finds the files of `pattern` and reads their columns.
    pub async fn open(
        cache: &SchemaCache,
        root: &Path,
        pattern: &str,
        format: Option<DataFormat>,
    ) -> Result<Self> {
        let (cache, root, pattern) = (cache.clone(), root.to_owned(), pattern.to_owned());
        let opened = tokio::task::spawn_blocking(move || {
            let files = resolve(&root, &pattern, format)?;
            let schema = cache.schema(&files)?;
            Ok(Self { files, schema })
        });
        opened
            .await
            .map_err(|e| DataError::Upstream(format!("reading the columns was interrupted: {e}")))?
    }

    /// The source as a table whose rows come in the order of the files.
    pub fn dataframe(&self, context: &SessionContext) -> Result<DataFrame> {
        let format: Arc<dyn FileFormat> = match self.files.format {
            DataFormat::Parquet => Arc::new(ParquetFormat::default()),
            DataFormat::Csv => {
                let table = CsvTable::new(self.files.files.clone(), SchemaRef::clone(&self.schema));
                return Ok(context.read_table(Arc::new(table))?);
            }
            DataFormat::Jsonl => Arc::new(JsonFormat::default()),
        };
        let urls = self
            .files
            .files
            .iter()
            .map(|file| ListingTableUrl::parse(file_url(file)))
            .collect::<Result<Vec<_>, _>>()?;
        let config = ListingTableConfig::new_with_multi_paths(urls)
            .with_listing_options(ListingOptions::new(format).with_file_extension(""))
            .with_schema(SchemaRef::clone(&self.schema));
        Ok(context.read_table(Arc::new(ListingTable::try_new(config)?))?)
    }

    /// The column called `name`.
    pub fn column(&self, what: &str, name: &str) -> Result<&Field> {
        self.schema
            .field_with_name(name)
            .map_err(|_| DataError::NoSuchColumn {
                what: what.to_owned(),
                column: name.to_owned(),
                source_pattern: self.files.pattern.clone(),
                hint: suggest(name, self.schema.fields().iter().map(|f| f.name().as_str())),
            })
    }
}

/// A path as a URL, so that `*` or `[` in a name are not read as a glob.
fn file_url(path: &Path) -> String {
    let mut url = String::from("file://");
    for byte in path.to_string_lossy().bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}
