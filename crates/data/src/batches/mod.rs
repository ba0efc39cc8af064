//! Files to be predicted, a part at a time, and the files that their answers become.
//!
//! Parts are a function of the input files and of the number of rows in one: the same job cuts the same parts again after a crash.

mod added;
mod cells;

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use tidemill_core::batches::{BatchEngine, BatchFiles, BatchPart, BatchParts};
use tidemill_core::digest::Digest;
use tidemill_core::ports::PortError;
use tidemill_core::spec::DataFormat;

use crate::error::{DataError, Result};
use crate::parquet_file::properties;
use crate::sources::{Source, csv_reader};
use added::Added;

/// Files on this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Batches;

#[async_trait]
impl BatchEngine for Batches {
    async fn open(&self, root: &Path, pattern: &str) -> Result<Arc<dyn BatchFiles>, PortError> {
        let source = Source::open(&crate::sources::SchemaCache::default(), root, pattern, None).await?;
        Ok(Arc::new(Files { source }))
    }
}

/// Files to be predicted.
struct Files {
    source: Source,
}

/// Some rows of a file.
struct Part {
    rows: RecordBatch,
}

impl BatchFiles for Files {
    fn files(&self) -> &[PathBuf] {
        &self.source.files.files
    }

    fn format(&self) -> DataFormat {
        self.source.files.format
    }

    fn digest(&self) -> Result<Digest, PortError> {
        Ok(self.source.files.digest(Path::new("/"))?)
    }

    fn parts(&self, file: usize, rows: usize) -> Result<BatchParts, PortError> {
        let path = self.source.files.files[file].clone();
        let batches = read(&path, self.format(), &self.source.schema, rows)?;
        Ok(Box::new(Regular {
            batches,
            rows: rows.max(1),
            left: None,
            path,
            format: self.format(),
        }))
    }
}

type RecordBatches =
    Box<dyn Iterator<Item = std::result::Result<RecordBatch, arrow::error::ArrowError>> + Send>;

fn read(path: &Path, format: DataFormat, schema: &SchemaRef, rows: usize) -> Result<RecordBatches> {
    let open = || File::open(path).map_err(|e| DataError::io(path, e));
    Ok(match format {
        DataFormat::Parquet => {
            let builder = ParquetRecordBatchReaderBuilder::try_new(open()?)
                .map_err(|e| crate::sources::corrupt(path, format, e))?;
            let reader = builder.with_batch_size(rows).build();
            Box::new(reader.map_err(|e| crate::sources::corrupt(path, format, e))?)
        }
        DataFormat::Csv => Box::new(csv_reader(path, schema, None)?),
        DataFormat::Jsonl => {
            let reader =
                arrow::json::ReaderBuilder::new(SchemaRef::clone(schema)).with_batch_size(rows.min(8_192));
            Box::new(reader.build(BufReader::new(open()?))?)
        }
    })
}

/// Cuts what a reader gives into parts of equal size.
struct Regular {
    batches: RecordBatches,
    rows: usize,
    left: Option<RecordBatch>,
    path: PathBuf,
    format: DataFormat,
}

impl Regular {
    fn next_part(&mut self) -> Result<Option<Part>> {
        let mut gathered: Vec<RecordBatch> = self.left.take().into_iter().collect();
        let mut count: usize = gathered.iter().map(RecordBatch::num_rows).sum();
        while count < self.rows {
            match self.batches.next() {
                Some(Ok(batch)) => {
                    count += batch.num_rows();
                    gathered.push(batch);
                }
                Some(Err(error)) => {
                    return Err(crate::sources::corrupt(&self.path, self.format, error));
                }
                None => break,
            }
        }
        let Some(first) = gathered.first() else {
            return Ok(None);
        };
        let all = concat_batches(&first.schema(), &gathered)?;
        if all.num_rows() == 0 {
            return Ok(None);
        }
        let taken = all.num_rows().min(self.rows);
        if all.num_rows() > taken {
            self.left = Some(all.slice(taken, all.num_rows() - taken));
        }
        Ok(Some(Part {
            rows: all.slice(0, taken),
        }))
    }
}

impl Iterator for Regular {
    type Item = Result<Box<dyn BatchPart>, PortError>;

    fn next(&mut self) -> Option<Self::Item> {
        let part = self.next_part().map_err(PortError::from).transpose()?;
        Some(part.map(|part| Box::new(part) as Box<dyn BatchPart>))
    }
}

impl BatchPart for Part {
    fn rows(&self) -> usize {
        self.rows.num_rows()
    }

    fn columns(&self) -> Vec<String> {
        let schema = self.rows.schema();
        schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    fn json(&self, from: usize, until: usize) -> Result<String, PortError> {
        Ok(cells::json(&self.rows.slice(from, until - from), from)?)
    }

    fn write(
        &self,
        path: &Path,
        format: DataFormat,
        answers: &[(String, Vec<Value>)],
    ) -> Result<(), PortError> {
        let rows = self.with(answers)?;
        let partial = path.with_extension("partial");
        write(&partial, format, &rows)?;
        let moved = std::fs::rename(&partial, path).and_then(|()| {
            let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        });
        Ok(moved.map_err(|e| DataError::io(path, e))?)
    }
}

impl Part {
    fn with(&self, answers: &[(String, Vec<Value>)]) -> Result<RecordBatch> {
        let schema = self.rows.schema();
        let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
        let mut columns = self.rows.columns().to_vec();
        for (name, values) in answers {
            // An input that was an output before keeps its column.
            let mut free = name.clone();
            while fields.iter().any(|field| *field.name() == free) {
                free.push('_');
            }
            let array = Added::of(values).array();
            fields.push(Arc::new(Field::new(free, array.data_type().clone(), true)));
            columns.push(array);
        }
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }
}

fn write(path: &Path, format: DataFormat, rows: &RecordBatch) -> Result<()> {
    let failed = |e: std::io::Error| DataError::io(path, e);
    let mut file = File::create(path).map_err(failed)?;
    match format {
        DataFormat::Parquet => {
            let properties = properties()?.build();
            let mut writer = ArrowWriter::try_new(&mut file, rows.schema(), Some(properties))?;
            writer.write(rows)?;
            writer.close()?;
        }
        DataFormat::Csv => {
            let flat = added::flat(rows)?;
            arrow::csv::WriterBuilder::new()
                .with_header(true)
                .build(&mut file)
                .write(&flat)?;
        }
        DataFormat::Jsonl => {
            let mut writer = arrow::json::LineDelimitedWriter::new(&mut file);
            writer.write(rows)?;
            writer.finish()?;
        }
    }
    file.flush().and_then(|()| file.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use serde_json::json;

    fn csv(rows: usize) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.csv");
        let mut text = "id,x,colour\n".to_owned();
        for row in 0..rows {
            let x = if row % 7 == 3 {
                String::new()
            } else {
                format!("{row}.5")
            };
            writeln!(text, "{row},{x},c{}", row % 3).unwrap();
        }
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[tokio::test]
    async fn parts_have_equal_sizes_and_come_again_as_they_were() {
        let (_dir, path) = csv(25);
        let input = Batches
            .open(Path::new("/"), path.to_str().unwrap())
            .await
            .unwrap();
        let sizes = || -> Vec<usize> {
            let parts = input.parts(0, 10).unwrap();
            parts.map(|part| part.unwrap().rows()).collect()
        };
        assert_eq!(sizes(), [10, 10, 5]);
        assert_eq!(sizes(), [10, 10, 5]);
        let part = input.parts(0, 10).unwrap().next().unwrap().unwrap();
        assert_eq!(part.columns(), ["id", "x", "colour"]);
        assert_eq!(part.json(2, 4).unwrap(), r#"[[2,2.5,"c2"],[3,null,"c0"]]"#);
    }

    #[tokio::test]
    async fn answers_stand_beside_their_rows_in_every_format() {
        let (dir, path) = csv(4);
        let input = Batches
            .open(Path::new("/"), path.to_str().unwrap())
            .await
            .unwrap();
        let part = input.parts(0, 10).unwrap().next().unwrap().unwrap();
        let answers = [
            (
                "prediction".to_owned(),
                vec![json!(0.25), json!(1), json!(null), json!(0.5)],
            ),
            (
                "id".to_owned(),
                vec![json!("a"), json!("b"), json!("c"), json!("d")],
            ),
            (
                "probabilities".to_owned(),
                vec![json!([0.1, 0.9]), json!([1, 0]), json!([0, 1]), json!([0.5, 0.5])],
            ),
        ];
        for format in [DataFormat::Parquet, DataFormat::Csv, DataFormat::Jsonl] {
            let out = dir.path().join(format!("out-{format:?}.{}", extension(format)));
            part.write(&out, format, &answers).unwrap();
            let again = Batches.open(Path::new("/"), out.to_str().unwrap()).await.unwrap();
            let rows = again.parts(0, 10).unwrap().next().unwrap().unwrap();
            assert_eq!(
                rows.columns(),
                ["id", "x", "colour", "prediction", "id_", "probabilities"]
            );
            assert_eq!(rows.rows(), 4);
            let text = rows.json(0, 2).unwrap();
            assert!(text.contains(r#"0.25,"a","#), "{text}");
            assert!(!out.with_extension("partial").exists());
        }
    }

    fn extension(format: DataFormat) -> &'static str {
        match format {
            DataFormat::Parquet => "parquet",
            DataFormat::Csv => "csv",
            DataFormat::Jsonl => "jsonl",
        }
    }
}
