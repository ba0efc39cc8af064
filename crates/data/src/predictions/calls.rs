//! Calls of deployments as Parquet files: one row a call. Payloads are JSON texts that give every bit back (`tidemill_core::calls`); inputs
//! that are columns of a table stand in columns of their own too, each a list with an entry a row of the request.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Builder, Int64Array, ListBuilder, RecordBatch,
    StringArray, StringBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Int64Type, Schema, TimestampMicrosecondType};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use tidemill_core::calls::{CallColumnValues, CallFacts, CallFault, CallRecord, Recorded, RecordedTensor};
use tidemill_core::clock::Timestamp;
use tidemill_core::ids::{EndpointName, PredictionId, VersionNumber};
use tidemill_core::ports::CallColumn;

use crate::error::{DataError, Result};
use crate::parquet_file::properties;

/// Rows that are read at a time.
const READ_ROWS: usize = 4_096;

/// A file of calls in the making.
pub struct Writer {
    columns: Vec<CallColumn>,
    file: Option<ArrowWriter<Vec<u8>>>,
}

impl Writer {
    pub fn new(columns: Vec<CallColumn>) -> Self {
        Self { columns, file: None }
    }

    pub fn push(&mut self, calls: &[CallRecord]) -> Result<()> {
        let arrays = arrays(calls, &self.columns);
        let field = |(name, array): &(String, ArrayRef)| Field::new(name, array.data_type().clone(), true);
        let schema = Arc::new(Schema::new(arrays.iter().map(field).collect::<Vec<_>>()));
        let rows = RecordBatch::try_new(
            Arc::clone(&schema),
            arrays.into_iter().map(|(_, array)| array).collect(),
        )?;
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let properties = properties()?.build();
                self.file
                    .insert(ArrowWriter::try_new(Vec::new(), schema, Some(properties))?)
            }
        };
        Ok(file.write(&rows)?)
    }

    pub fn finish(mut self) -> Result<Vec<u8>> {
        if self.file.is_none() {
            self.push(&[])?;
        }
        match self.file {
            Some(file) => Ok(file.into_inner()?),
            None => Ok(Vec::new()),
        }
    }
}

fn texts(calls: &[CallRecord], text: impl Fn(&CallRecord) -> Option<String>) -> ArrayRef {
    Arc::new(calls.iter().map(text).collect::<StringArray>())
}

fn facts<'a>(calls: &'a [CallRecord], text: impl Fn(&'a CallFacts) -> Option<&'a str>) -> ArrayRef {
    Arc::new(
        calls
            .iter()
            .map(|call| text(&call.facts))
            .collect::<StringArray>(),
    )
}

fn numbers(calls: &[CallRecord], number: impl Fn(&CallFacts) -> u64) -> ArrayRef {
    let values = calls
        .iter()
        .map(|call| Some(i64::try_from(number(&call.facts)).unwrap_or(i64::MAX)));
    Arc::new(values.collect::<Int64Array>())
}

fn flags(calls: &[CallRecord], flag: impl Fn(&CallFacts) -> bool) -> ArrayRef {
    Arc::new(
        calls
            .iter()
            .map(|call| Some(flag(&call.facts)))
            .collect::<BooleanArray>(),
    )
}

fn arrays(calls: &[CallRecord], columns: &[CallColumn]) -> Vec<(String, ArrayRef)> {
    let at: TimestampMicrosecondArray = calls.iter().map(|call| Some(call.facts.at.as_micros())).collect();
    let not_empty = |text: &'_ str| -> Option<String> { (!text.is_empty()).then(|| text.to_owned()) };
    let fixed: [(&str, ArrayRef); 24] = [
        ("prediction_id", facts(calls, |f| Some(f.id.as_str()))),
        ("endpoint", facts(calls, |f| Some(f.endpoint.as_str()))),
        ("at", Arc::new(at.with_timezone("UTC"))),
        ("request_id", facts(calls, |f| Some(&f.request_id))),
        ("key", facts(calls, |f| f.key.as_deref())),
        ("version", numbers(calls, |f| u64::from(f.version.0))),
        (
            "bundle",
            texts(calls, |call| call.facts.bundle.map(|digest| digest.to_string())),
        ),
        (
            "answered_by",
            facts(calls, |f| f.by.as_ref().map(EndpointName::as_str)),
        ),
        ("route", facts(calls, |f| Some(&f.route))),
        ("degraded", facts(calls, |f| f.degraded.as_deref())),
        (
            "error_code",
            facts(calls, |f| f.fault.as_ref().map(|fault| fault.code.as_str())),
        ),
        (
            "error",
            facts(calls, |f| f.fault.as_ref().map(|fault| fault.message.as_str())),
        ),
        ("cached", flags(calls, |f| f.cached)),
        ("streamed", flags(calls, |f| f.streamed)),
        ("cut_short", flags(calls, |f| f.cut_short)),
        ("depth", numbers(calls, |f| u64::from(f.depth))),
        ("rows", numbers(calls, |f| f.rows)),
        (
            "parameters",
            texts(calls, |call| not_empty(&call.facts.parameters)),
        ),
        (
            "wanted",
            texts(calls, |call| {
                let outputs = &call.facts.outputs;
                (!outputs.is_empty()).then(|| json!(outputs).to_string())
            }),
        ),
        ("queue_us", numbers(calls, |f| f.queue_us)),
        ("compute_us", numbers(calls, |f| f.compute_us)),
        ("total_us", numbers(calls, |f| f.total_us)),
        (
            "inputs",
            texts(calls, |call| Some(call.inputs.to_json().to_string())),
        ),
        (
            "answers",
            texts(calls, |call| {
                let answers: Vec<Value> = call.answers.iter().map(Recorded::to_json).collect();
                Some(Value::Array(answers).to_string())
            }),
        ),
    ];
    let mut all: Vec<(String, ArrayRef)> = fixed
        .into_iter()
        .map(|(name, array)| (name.to_owned(), array))
        .collect();
    all.extend(
        columns
            .iter()
            .map(|column| (format!("in:{}", column.name), input(calls, column))),
    );
    all
}

/// An input of each call as a list; null where it is not there.
fn input(calls: &[CallRecord], column: &CallColumn) -> ArrayRef {
    let values = calls.iter().map(|call| match &call.inputs {
        Recorded::Tensors(tensors) => tensors
            .iter()
            .find(|tensor| tensor.name == column.name)
            .and_then(RecordedTensor::to_column),
        Recorded::Body { .. } | Recorded::Omitted { .. } => None,
    });
    if column.numeric {
        let mut list = ListBuilder::new(Float64Builder::new());
        for values in values {
            let there = matches!(values, Some(CallColumnValues::Numbers(_)));
            if let Some(CallColumnValues::Numbers(numbers)) = values {
                for number in numbers {
                    list.values().append_option(Some(number).filter(|n| !n.is_nan()));
                }
            }
            list.append(there);
        }
        return Arc::new(list.finish());
    }
    let mut list = ListBuilder::new(StringBuilder::new());
    for values in values {
        let there = matches!(values, Some(CallColumnValues::Texts(_)));
        if let Some(CallColumnValues::Texts(texts)) = values {
            for text in texts {
                list.values().append_option(text);
            }
        }
        list.append(there);
    }
    Arc::new(list.finish())
}

fn broken(what: impl std::fmt::Display) -> DataError {
    DataError::Predictions(format!("these bytes are no log of calls: {what}"))
}

/// Reads the calls that [`Writer`] wrote.
pub fn decode(parquet: &[u8]) -> Result<Vec<CallRecord>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::copy_from_slice(parquet))
        .map_err(broken)?
        .with_batch_size(READ_ROWS)
        .build()?;
    let mut calls = Vec::new();
    for rows in reader {
        let rows = rows?;
        let part = Part { rows: &rows };
        for row in 0..rows.num_rows() {
            calls.push(part.call(row)?);
        }
    }
    Ok(calls)
}

struct Part<'a> {
    rows: &'a RecordBatch,
}

impl Part<'_> {
    fn column(&self, name: &str) -> Result<&ArrayRef> {
        self.rows
            .column_by_name(name)
            .ok_or_else(|| broken(format!("column `{name}` is missing")))
    }

    fn text(&self, name: &str, row: usize) -> Result<Option<&str>> {
        let array = self
            .column(name)?
            .as_string_opt::<i32>()
            .ok_or_else(|| broken(format!("column `{name}` is no text")))?;
        Ok((!array.is_null(row)).then(|| array.value(row)))
    }

    fn owned(&self, name: &str, row: usize) -> Result<Option<String>> {
        Ok(self.text(name, row)?.map(str::to_owned))
    }

    fn number(&self, name: &str, row: usize) -> Result<u64> {
        let array = self
            .column(name)?
            .as_primitive_opt::<Int64Type>()
            .ok_or_else(|| broken(format!("column `{name}` is no number")))?;
        u64::try_from(array.value(row)).map_err(broken)
    }

    fn flag(&self, name: &str, row: usize) -> Result<bool> {
        let array = self.column(name)?.as_boolean_opt();
        let array = array.ok_or_else(|| broken(format!("column `{name}` is no yes or no")))?;
        Ok(array.value(row))
    }

    fn json(&self, name: &str, row: usize) -> Result<Value> {
        serde_json::from_str(self.text(name, row)?.unwrap_or("null")).map_err(broken)
    }

    fn call(&self, row: usize) -> Result<CallRecord> {
        let needed = |name: &str| -> Result<String> { Ok(self.owned(name, row)?.unwrap_or_default()) };
        let no_payload = || broken("a payload cannot be read");
        let at = self
            .column("at")?
            .as_primitive_opt::<TimestampMicrosecondType>()
            .ok_or_else(|| broken("column `at` is no time"))?
            .value(row);
        let fault = match self.owned("error_code", row)? {
            Some(code) => Some(CallFault {
                code,
                message: needed("error")?,
            }),
            None => None,
        };
        let bundle = self.text("bundle", row)?.map(str::parse).transpose();
        let outputs = match self.text("wanted", row)? {
            Some(text) => serde_json::from_str(text).map_err(broken)?,
            None => Vec::new(),
        };
        let answers = self.json("answers", row)?;
        let answers = answers.as_array().ok_or_else(no_payload)?.iter();
        Ok(CallRecord {
            inputs: Recorded::from_json(&self.json("inputs", row)?).ok_or_else(no_payload)?,
            answers: answers
                .map(|answer| Recorded::from_json(answer).ok_or_else(no_payload))
                .collect::<Result<_>>()?,
            facts: CallFacts {
                id: PredictionId::new(needed("prediction_id")?),
                endpoint: EndpointName::new(needed("endpoint")?),
                at: Timestamp::from_micros(at),
                request_id: needed("request_id")?,
                key: self.owned("key", row)?,
                version: VersionNumber(self.number("version", row)? as u32),
                bundle: bundle.map_err(|_| broken("column `bundle` is no digest"))?,
                by: self.owned("answered_by", row)?.map(EndpointName::new),
                route: needed("route")?,
                degraded: self.owned("degraded", row)?,
                fault,
                cached: self.flag("cached", row)?,
                streamed: self.flag("streamed", row)?,
                cut_short: self.flag("cut_short", row)?,
                depth: self.number("depth", row)? as u8,
                rows: self.number("rows", row)?,
                parameters: needed("parameters")?,
                outputs,
                columns: self
                    .rows
                    .schema()
                    .fields()
                    .iter()
                    .any(|field| field.name().starts_with("in:")),
                queue_us: self.number("queue_us", row)?,
                compute_us: self.number("compute_us", row)?,
                total_us: self.number("total_us", row)?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use tidemill_core::digest::Digest;
    use tidemill_core::servable::Payload;
    use tidemill_core::tensors::Tensor;

    use super::*;

    fn call(at: i64, inputs: &Payload, columns: bool) -> CallRecord {
        CallRecord {
            inputs: Recorded::of(inputs, &[], 1_000),
            answers: vec![Recorded::of(inputs, &[], 1_000), Recorded::Omitted { bytes: 7 }],
            facts: CallFacts {
                id: PredictionId::new(format!("{at:032x}")),
                endpoint: "plus".into(),
                at: Timestamp::from_micros(at),
                request_id: "r".to_owned(),
                key: (at % 2 == 0).then(|| "k".to_owned()),
                version: VersionNumber(3),
                bundle: Some(Digest::of(b"x")),
                by: Some("other".into()),
                route: "split 0.5000".to_owned(),
                degraded: Some("fallback_version".to_owned()),
                fault: (at % 2 == 1).then(|| CallFault {
                    code: "model_broken".to_owned(),
                    message: "no".to_owned(),
                }),
                cached: true,
                streamed: false,
                cut_short: at % 2 == 1,
                depth: 1,
                rows: 2,
                parameters: r#"{"a":1}"#.to_owned(),
                outputs: vec!["y".to_owned()],
                columns,
                queue_us: 1,
                compute_us: 2,
                total_us: 30,
            },
        }
    }

    #[test]
    fn calls_come_back_as_they_were_and_columns_can_be_read_by_anybody() {
        let columns = Payload::Tensors(vec![
            Tensor::of_f64("x", vec![2], &[1.5, f64::NAN]).unwrap(),
            Tensor::strings("c", vec![2], vec![None, Some(Bytes::from_static(b"red"))]).unwrap(),
        ]);
        let column = |name: &str, numeric| CallColumn {
            name: name.to_owned(),
            numeric,
        };
        let calls: Vec<CallRecord> = (0..5).map(|at| call(at, &columns, true)).collect();
        let mut writer = Writer::new(vec![column("x", true), column("c", false)]);
        for part in calls.chunks(2) {
            writer.push(part).unwrap();
        }
        let parquet = writer.finish().unwrap();
        assert_eq!(decode(&parquet).unwrap(), calls);
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(parquet)).unwrap();
        let rows = reader.build().unwrap().next().unwrap().unwrap();
        let xs = rows.column_by_name("in:x").unwrap().as_list::<i32>().value(0);
        assert_eq!((xs.len(), xs.null_count()), (2, 1));
        let cs = rows.column_by_name("in:c").unwrap().as_list::<i32>().value(0);
        assert_eq!(cs.as_string::<i32>().value(1), "red");
    }

    #[test]
    fn a_file_of_something_else_is_refused_with_words() {
        let body = Payload::Body {
            content_type: "text/plain".to_owned(),
            bytes: Bytes::from_static(b"hello"),
        };
        let mut writer = Writer::new(Vec::new());
        writer.push(&[call(0, &body, false)]).unwrap();
        assert_eq!(
            decode(&writer.finish().unwrap()).unwrap(),
            [call(0, &body, false)]
        );
        assert!(
            decode(&Writer::new(Vec::new()).finish().unwrap())
                .unwrap()
                .is_empty()
        );
        let error = decode(b"no parquet").unwrap_err().to_string();
        assert!(error.contains("no log of calls"), "{error}");
    }
}
