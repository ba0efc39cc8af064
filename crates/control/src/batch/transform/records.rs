//! Records as they are sent, and as they are kept: filtered, and joined with their answers.

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::error::{BatchError, Result};
use super::super::jsonpath::JsonPath;
use super::Transform;

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writing {
    /// Values with commas between them.
    Csv,
    /// A JSON value.
    Json,
}

const LINES: &str = "application/jsonlines";

/// The name of a type without its parameters.
fn bare(content_type: &str) -> String {
    let bare = content_type.split(';').next().unwrap_or_default();
    bare.trim().to_ascii_lowercase()
}

impl Writing {
    /// How records of a type are written; `None` for a type that is not looked into.
    pub fn of(content_type: &str) -> Option<Self> {
        match bare(content_type).as_str() {
            "text/csv" => Some(Self::Csv),
            "application/json" | LINES | "application/x-jsonlines" => Some(Self::Json),
            _ => None,
        }
    }
}

/// How a job's records are sent and kept.
#[derive(Debug)]
pub(super) struct Records {
    content_type: String,
    /// The type that is asked for.
    pub accept: String,
    writing: Option<Writing>,
    split_lines: bool,
    assemble_lines: bool,
    input: JsonPath,
    output: JsonPath,
    join: bool,
}

impl Records {
    pub fn of(asked: &Transform) -> Result<Self> {
        let (input, output) = (
            JsonPath::parse(&asked.input_filter)?,
            JsonPath::parse(&asked.output_filter)?,
        );
        let mut content_type = asked.content_type.clone();
        let mut accept = asked.accept.clone();
        // Several JSON values are lines of JSON; and a record can only be joined with an answer of its own.
        if asked.split_lines && !asked.one_record && bare(&content_type) == "application/json" {
            LINES.clone_into(&mut content_type);
        }
        if asked.split_lines && (asked.join || !output.is_whole()) && bare(&accept) == "application/json" {
            LINES.clone_into(&mut accept);
        }
        Ok(Self {
            content_type,
            accept,
            writing: Writing::of(&asked.content_type),
            split_lines: asked.split_lines,
            assemble_lines: asked.assemble_lines,
            input,
            output,
            join: asked.join,
        })
    }

    /// The body of a request for some records.
    pub fn request(&self, records: &[Bytes]) -> Result<(String, Bytes)> {
        let mut body = Vec::with_capacity(records.iter().map(|record| record.len() + 1).sum());
        for (i, record) in records.iter().enumerate() {
            if i > 0 {
                body.push(b'\n');
            }
            match self.writing.filter(|_| !self.input.is_whole()) {
                None => body.extend_from_slice(record),
                Some(writing) => {
                    let value = read(writing, record).map_err(|error| error.at("row", i))?;
                    let taken = self.input.take(&value).ok_or_else(|| nothing("InputFilter", i))?;
                    body.extend_from_slice(write(writing, &taken).as_bytes());
                }
            }
        }
        Ok((self.content_type.clone(), body.into()))
    }

    /// What is kept for some records and the answer to them.
    pub fn written(&self, records: &[Bytes], answer: Bytes) -> Result<Bytes> {
        let inside = self.writing.filter(|_| self.join || !self.output.is_whole());
        let Some(writing) = inside else {
            if !self.assemble_lines || answer.ends_with(b"\n") {
                return Ok(answer);
            }
            return Ok([answer.as_ref(), b"\n"].concat().into());
        };
        let answers: Vec<&[u8]> = if self.split_lines {
            let lines = answer.split(|&byte| byte == b'\n');
            lines
                .map(<[u8]>::trim_ascii)
                .filter(|line| !line.is_empty())
                .collect()
        } else {
            vec![answer.as_ref()]
        };
        if answers.len() != records.len() {
            return Err(BatchError::bad_input(format!(
                "{} records were sent and {} answers came, so they cannot be joined or filtered one by one",
                records.len(),
                answers.len()
            )));
        }
        let mut kept = String::new();
        for (i, (record, answer)) in records.iter().zip(answers).enumerate() {
            let mut value = read(writing, answer).map_err(|error| error.at("row", i))?;
            if self.join {
                let record = read(writing, record).map_err(|error| error.at("row", i))?;
                value = joined(writing, record, value);
            }
            let taken = self
                .output
                .take(&value)
                .ok_or_else(|| nothing("OutputFilter", i))?;
            kept.push_str(&write(writing, &taken));
            if self.assemble_lines {
                kept.push('\n');
            }
        }
        Ok(kept.into())
    }
}

fn nothing(filter: &str, row: usize) -> BatchError {
    BatchError::bad_input(format!("there is nothing at the `{filter}` in the record")).at("row", row)
}

/// A record with its answer beside it.
fn joined(writing: Writing, record: Value, answer: Value) -> Value {
    match (writing, record) {
        (Writing::Csv, Value::Array(mut fields)) => {
            match answer {
                Value::Array(more) => fields.extend(more),
                one => fields.push(one),
            }
            Value::Array(fields)
        }
        (Writing::Json, Value::Object(mut fields)) => {
            fields.insert("SageMakerOutput".to_owned(), answer);
            Value::Object(fields)
        }
        (_, record) => json!({ "SageMakerInput": record, "SageMakerOutput": answer }),
    }
}

fn read(writing: Writing, record: &[u8]) -> Result<Value> {
    match writing {
        Writing::Json => serde_json::from_slice(record)
            .map_err(|error| BatchError::bad_input(format!("the record is not JSON: {error}"))),
        Writing::Csv => {
            let text = std::str::from_utf8(record)
                .map_err(|error| BatchError::bad_input(format!("the record is not UTF-8: {error}")))?;
            Ok(fields(text).into_iter().map(Value::String).collect())
        }
    }
}

/// The values of a line of CSV, as they are written there, quotes taken off.
pub fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        let last = fields.len() - 1;
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                fields[last].push('"');
            }
            '"' if quoted => quoted = false,
            '"' if fields[last].is_empty() => quoted = true,
            ',' if !quoted => fields.push(String::new()),
            other => fields[last].push(other),
        }
    }
    fields
}

fn write(writing: Writing, value: &Value) -> String {
    let field = |value: &Value| match value {
        Value::String(text) if text.contains([',', '"', '\n', '\r']) => {
            format!("\"{}\"", text.replace('"', "\"\""))
        }
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    match (writing, value) {
        (Writing::Json, value) => value.to_string(),
        (Writing::Csv, Value::Array(fields)) => fields.iter().map(field).collect::<Vec<_>>().join(","),
        (Writing::Csv, one) => field(one),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transform(content_type: &str, input: &str, output: &str, join: bool) -> Transform {
        Transform {
            input: "in".to_owned(),
            output: "out".to_owned(),
            content_type: content_type.to_owned(),
            accept: content_type.to_owned(),
            split_lines: true,
            one_record: false,
            assemble_lines: true,
            max_payload: 0,
            at_once: 1,
            input_filter: input.to_owned(),
            output_filter: output.to_owned(),
            join,
            timeout_s: None,
        }
    }

    fn lines(texts: &[&'static str]) -> Vec<Bytes> {
        texts
            .iter()
            .map(|text| Bytes::from_static(text.as_bytes()))
            .collect()
    }

    #[test]
    fn a_transform_has_no_more_bytes_under_way_than_sagemaker_allows() {
        let of = |megabytes: u64, at_once| Transform {
            max_payload: megabytes << 20,
            at_once,
            ..transform("text/csv", "$", "$", false)
        };
        for (megabytes, at_once) in [(0, 1), (6, 16), (1, 64), (100, 1)] {
            of(megabytes, at_once).check_size().unwrap();
        }
        for (megabytes, at_once) in [(0, 2), (6, 17), (64, 64)] {
            let error = of(megabytes, at_once).check_size().unwrap_err();
            assert!(error.message.contains("expected at most 100"), "{error}");
        }
    }

    #[test]
    fn csv_is_filtered_joined_and_written_as_it_came() {
        let records = Records::of(&transform("text/csv", "$[1:]", "$[0,-1]", true)).unwrap();
        let rows = lines(&["id-1,1.50,\"a,b\"", "id-2,2,c"]);
        let (kind, body) = records.request(&rows).unwrap();
        assert_eq!(
            (kind.as_str(), body.as_ref()),
            ("text/csv", &b"1.50,\"a,b\"\n2,c"[..])
        );
        let kept = records
            .written(&rows, Bytes::from_static(b"0.25\n0.5\n"))
            .unwrap();
        assert_eq!(kept.as_ref(), b"id-1,0.25\nid-2,0.5\n");
        let error = records.written(&rows, Bytes::from_static(b"0.25\n")).unwrap_err();
        assert!(
            error.message.contains("2 records were sent and 1 answers"),
            "{error}"
        );
    }

    #[test]
    fn json_gets_its_answer_as_an_attribute() {
        let records = Records::of(&transform("application/json", "$.features", "$", true)).unwrap();
        let rows = lines(&[r#"{"id":1,"features":[1,2]}"#, r#"{"id":2,"features":[3,4]}"#]);
        let (kind, body) = records.request(&rows).unwrap();
        assert_eq!((kind.as_str(), body.as_ref()), (LINES, &b"[1,2]\n[3,4]"[..]));
        assert_eq!(records.accept, LINES, "a record needs an answer of its own");
        let kept = records
            .written(&rows, Bytes::from_static(b"0.25\n\"x\"\n"))
            .unwrap();
        let expected = concat!(
            r#"{"id":1,"features":[1,2],"SageMakerOutput":0.25}"#,
            "\n",
            r#"{"id":2,"features":[3,4],"SageMakerOutput":"x"}"#,
            "\n"
        );
        assert_eq!(kept.as_ref(), expected.as_bytes());
        let lists = Records::of(&transform(LINES, "$", "$.SageMakerOutput", true)).unwrap();
        let kept = lists.written(&lines(&["[1]"]), Bytes::from_static(b"7")).unwrap();
        assert_eq!(kept.as_ref(), b"7\n");
        let error = records
            .request(&lines(&[r#"{"features":[1]}"#, "{"]))
            .unwrap_err();
        assert_eq!(error.place["row"], 1);
    }

    #[test]
    fn without_filters_answers_are_kept_as_they_are() {
        let mut asked = transform("application/x-recordio", "$", "$", false);
        let rows = lines(&["whatever"]);
        for (assemble, expected) in [(true, &b"abc\n"[..]), (false, &b"abc"[..])] {
            asked.assemble_lines = assemble;
            let records = Records::of(&asked).unwrap();
            assert_eq!(records.request(&rows).unwrap().1.as_ref(), b"whatever");
            let kept = records.written(&rows, Bytes::from_static(b"abc")).unwrap();
            assert_eq!(kept.as_ref(), expected);
        }
    }
}
