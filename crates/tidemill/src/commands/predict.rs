//! `tidemill predict`: the rows of a file, through the same code path as online.

use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use tidemill_core::frame::{Column, FeatureKind};
use tidemill_core::ports::DataEngine;

use super::replay::engine;
use crate::cli::Target;
use crate::exit::Code;
use crate::session::Session;

/// Rows in one request.
const BATCH: usize = 500;

pub async fn run(target: &Target, input: &Path, output: Option<&Path>, json: bool) -> Result<Code> {
    let (session, project) = Session::open(target).await?;
    let project = project.context("`predict` needs the project's `tidemill.yaml` (`--project`)")?;
    let rows = engine()?.0.read_features(input, &project.spec).await?;
    let mut sink: Box<dyn Write> = match output {
        Some(path) => Box::new(std::io::BufWriter::new(
            std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?,
        )),
        None => Box::new(std::io::stdout()),
    };
    let bar = ProgressBar::new(rows.rows() as u64);
    for start in (0..rows.rows()).step_by(BATCH) {
        let end = (start + BATCH).min(rows.rows());
        let columns: Vec<&str> = rows.schema().features.iter().map(|f| f.name.as_str()).collect();
        let data: Vec<Vec<Value>> = (start..end)
            .map(|i| rows.columns().iter().map(|c| cell(c, i)).collect())
            .collect();
        let body = json!({ "dataframe_split": { "columns": columns, "data": data } });
        let answer: Value = session
            .client
            .post(&format!("/invocations/{}", project.spec.name), &body)
            .await?;
        let part = |key: &str| answer[key].as_array().cloned().unwrap_or_default();
        let (predictions, ids, versions) = (
            part("predictions"),
            part("prediction_ids"),
            part("model_versions"),
        );
        if predictions.len() != end - start {
            bail!(
                "{} rows were sent, {} were answered",
                end - start,
                predictions.len()
            );
        }
        for i in 0..predictions.len() {
            let line = json!({ "row": start + i, "prediction": predictions[i], "prediction_id": ids[i], "model_version": versions[i] });
            writeln!(sink, "{line}")?;
        }
        bar.inc((end - start) as u64);
    }
    sink.flush()?;
    bar.finish_and_clear();
    session.close().await?;
    if output.is_some() && !json {
        println!("{} rows predicted", rows.rows());
    }
    Ok(Code::Success)
}

fn cell(column: &Column, row: usize) -> Value {
    match column {
        Column::Numeric(values) if values[row].is_nan() => Value::Null,
        Column::Numeric(values) => json!(values[row]),
        Column::Categorical(values) => {
            debug_assert_eq!(column.kind(), FeatureKind::Categorical);
            json!(values[row].as_deref())
        }
    }
}
