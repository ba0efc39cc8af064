//! What a model said of some rows, as columns beside them.

use serde_json::{Value, json};
use tidemill_core::ports::PortError;

/// What one request was answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// How many rows were asked.
    pub rows: usize,
    /// As MLflow's scoring protocol writes it.
    pub body: Value,
}

impl Answer {
    /// The answer as columns: predictions, and what the endpoint says beside them.
    ///
    /// # Errors
    /// If there is not one answer a row.
    pub fn columns(&self) -> Result<Vec<(String, Vec<Value>)>, PortError> {
        let mut columns = Vec::new();
        match &self.body["predictions"] {
            Value::Array(values) => columns.push(("prediction".to_owned(), values.clone())),
            Value::Object(outputs) => {
                for (name, values) in outputs {
                    let values = values.as_array().cloned().unwrap_or_default();
                    columns.push((name.clone(), values));
                }
            }
            other => columns.push(("prediction".to_owned(), vec![other.clone(); self.rows])),
        }
        for (key, column) in [
            ("probabilities", "probabilities"),
            ("prediction_ids", "prediction_id"),
            ("model_versions", "model_version"),
            ("degraded", "degraded"),
        ] {
            if let Some(values) = self.body[key].as_array() {
                columns.push((column.to_owned(), values.clone()));
            }
        }
        for (name, values) in &columns {
            if values.len() != self.rows {
                return Err(PortError::caller(
                    "not_by_rows",
                    format!(
                        "{} rows were sent, `{name}` has {} answers; an endpoint for files answers each row",
                        self.rows,
                        values.len()
                    ),
                ));
            }
        }
        Ok(columns)
    }

    /// A JSON object a row; `row` counts on.
    ///
    /// # Errors
    /// If there is not one answer a row.
    pub fn lines(&self, row: &mut usize) -> Result<Vec<Value>, PortError> {
        let columns = self.columns()?;
        let mut lines = Vec::with_capacity(self.rows);
        for i in 0..self.rows {
            let mut line = json!({ "row": *row });
            for (name, values) in &columns {
                line[name] = values[i].clone();
            }
            lines.push(line);
            *row += 1;
        }
        Ok(lines)
    }
}

/// The columns of several answers, one after the other.
///
/// # Errors
/// If there is not one answer a row.
pub fn joined(answers: &[Answer]) -> Result<Vec<(String, Vec<Value>)>, PortError> {
    let mut all: Vec<(String, Vec<Value>)> = Vec::new();
    let mut rows = 0;
    for answer in answers {
        for (name, values) in answer.columns()? {
            match all.iter_mut().find(|(known, _)| *known == name) {
                Some((_, column)) => column.extend(values),
                // Only degraded answers say so: those before were not.
                None => {
                    let mut column = vec![Value::Null; rows];
                    column.extend(values);
                    all.push((name, column));
                }
            }
        }
        rows += answer.rows;
        for (_, column) in &mut all {
            column.resize(rows, Value::Null);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_some_answers_say_is_missing_in_the_others() {
        let answers = [
            Answer {
                rows: 2,
                body: json!({ "predictions": [1, 2] }),
            },
            Answer {
                rows: 1,
                body: json!({ "predictions": [3], "degraded": [true] }),
            },
        ];
        assert_eq!(
            joined(&answers).unwrap(),
            [
                ("prediction".to_owned(), vec![json!(1), json!(2), json!(3)]),
                ("degraded".to_owned(), vec![Value::Null, Value::Null, json!(true)]),
            ]
        );
        let odd = Answer {
            rows: 2,
            body: json!({ "predictions": [1] }),
        };
        assert_eq!(odd.columns().unwrap_err().code, "not_by_rows");
    }
}
