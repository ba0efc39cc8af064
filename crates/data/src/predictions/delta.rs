//! The columns of a Parquet file in the words of Delta tables.

use arrow::datatypes::{DataType, TimeUnit};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use crate::error::{DataError, Result};

/// How many rows a file has, and its columns.
pub fn columns(parquet: &[u8]) -> Result<(u64, Vec<(String, Value)>)> {
    let file = ParquetRecordBatchReaderBuilder::try_new(Bytes::copy_from_slice(parquet))?;
    let rows = file.metadata().file_metadata().num_rows();
    let fields = file.schema().fields().iter();
    let columns = fields.map(|field| Ok((field.name().clone(), of_type(field.data_type())?)));
    Ok((u64::try_from(rows).unwrap_or(0), columns.collect::<Result<_>>()?))
}

fn of_type(data_type: &DataType) -> Result<Value> {
    Ok(match data_type {
        DataType::Utf8 => json!("string"),
        DataType::Dictionary(_, value) => of_type(value)?,
        DataType::Int32 => json!("integer"),
        DataType::Int64 => json!("long"),
        DataType::Float64 => json!("double"),
        DataType::Boolean => json!("boolean"),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => json!("timestamp"),
        DataType::List(item) => json!({
            "type": "array", "elementType": of_type(item.data_type())?, "containsNull": true,
        }),
        other => {
            let message = format!("a column of type {other} has no place in a Delta table");
            return Err(DataError::Predictions(message));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predictions::calls::Writer;

    #[test]
    fn every_column_of_a_file_of_calls_has_a_type_in_delta() {
        let column = tidemill_core::ports::CallColumn {
            name: "x".to_owned(),
            numeric: true,
        };
        let parquet = Writer::new(vec![column]).finish().unwrap();
        let (rows, columns) = columns(&parquet).unwrap();
        let of = |name: &str| &columns.iter().find(|column| column.0 == name).unwrap().1;
        assert_eq!(rows, 0);
        assert_eq!((of("at"), of("rows")), (&json!("timestamp"), &json!("long")));
        assert_eq!(of("in:x")["elementType"], "double");
    }
}
