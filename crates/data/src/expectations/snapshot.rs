//! The suite of a project on the rows of a snapshot.

use std::path::Path;

use arrow::datatypes::{DataType, Field};
use datafusion::logical_expr::{Expr, cast, ident, lit};
use datafusion::prelude::DataFrame;
use datafusion::scalar::ScalarValue;
use serde_json::Value;
use tidemill_core::clock::Timestamp;
use tidemill_core::frame::{FeatureKind, Task};
use tidemill_core::spec::Spec;

use super::evaluate::{Table, evaluate, plan};
use super::kwargs::SERVED;
use super::result::whole;
use super::suite::suite_of;
use crate::columns::utc_micros;
use crate::error::{DataError, Result};
use crate::query::{SpecSource, Wanted};
use crate::session::{guarded, session};
use crate::snapshots::{SnapshotRows, time_name, to_batch};

const PREDICTION_ID: &str = "prediction_id";

/// Checks that every expectation of the project is known and fits its source.
pub fn check_expectations(root: &Path, spec: &Spec, opened: &SpecSource) -> Result<()> {
    let Some((suite, specs)) = suite_of(root, spec)? else {
        return Ok(());
    };
    let table = Table::new(with_label(spec, opened, Wanted::default())?)?;
    for (i, expectation) in specs.iter().enumerate() {
        plan(&table, expectation).map_err(|refused| {
            DataError::Suite(format!(
                "expectation {} of suite `{suite}`, `{}`: {}",
                i + 1,
                expectation.kind,
                refused.0
            ))
        })?;
    }
    Ok(())
}

/// Validates the rows of a snapshot: the result, and whether a critical expectation failed. `None` without expectations.
pub async fn validate_snapshot(
    root: &Path,
    spec: &Spec,
    as_of: Timestamp,
    source: Option<(&SpecSource, Wanted)>,
    served: &SnapshotRows,
) -> Result<Option<(Value, bool)>> {
    let Some((suite, specs)) = suite_of(root, spec)? else {
        return Ok(None);
    };
    let table = match source {
        Some((opened, wanted)) if served.labels.len() == 0 => source_table(spec, opened, wanted)?,
        Some((opened, wanted)) => mixed_table(spec, opened, wanted, served)?,
        None => served_table(spec, served)?,
    };
    let outcomes = match guarded(evaluate(&table, &specs)).await {
        Ok(outcomes) => outcomes,
        Err(error) => match source {
            Some((opened, _)) => return Err(opened.explain(spec, error).await),
            None => return Err(error),
        },
    };
    Ok(Some(whole(&suite, as_of, &specs, &outcomes)))
}

/// The wanted rows of the source, with the label under its name.
fn with_label(spec: &Spec, opened: &SpecSource, wanted: Wanted) -> Result<DataFrame> {
    let rows = opened.rows(wanted)?;
    if opened.source.schema.field_with_name(&spec.label.name).is_ok() {
        return Ok(rows);
    }
    Ok(rows.with_column(&spec.label.name, opened.label.clone())?)
}

fn index_columns(spec: &Spec) -> Vec<String> {
    spec.data.key.iter().chain(&spec.data.time).cloned().collect()
}

fn source_table(spec: &Spec, opened: &SpecSource, wanted: Wanted) -> Result<Table> {
    let mut table = Table::new(with_label(spec, opened, wanted)?)?;
    table.index = index_columns(spec);
    Ok(table)
}

fn served_frame(spec: &Spec, served: &SnapshotRows) -> Result<DataFrame> {
    let time = time_name(spec);
    let batch = to_batch(
        &served.features,
        (&spec.label.name, &served.labels),
        time.as_deref().map(|name| (name, served.times.as_slice())),
        Some(&served.prediction_ids),
    )?;
    Ok(session().read_batch(batch)?)
}

fn served_table(spec: &Spec, served: &SnapshotRows) -> Result<Table> {
    let mut table = Table::new(served_frame(spec, served)?)?;
    table.absent = Some("all rows were served, and only features, label and time of a served row are known");
    table.index = vec![PREDICTION_ID.to_owned()];
    Ok(table)
}

/// The type that a column has in rows of both origins.
fn common_type(spec: &Spec, field: &Field) -> DataType {
    let name = field.name();
    match spec.features.get(name) {
        Some(FeatureKind::Numeric) => DataType::Float64,
        Some(FeatureKind::Categorical) => DataType::Utf8,
        None if *name == spec.label.name => match spec.label.task {
            Task::Binary => DataType::Boolean,
            Task::Regression => DataType::Float64,
            Task::Multiclass => DataType::Utf8,
        },
        None if Some(name) == spec.data.time.as_ref() => utc_micros(),
        None => field.data_type().clone(),
    }
}

fn mixed_table(spec: &Spec, opened: &SpecSource, wanted: Wanted, served: &SnapshotRows) -> Result<Table> {
    let source_rows = with_label(spec, opened, wanted)?;
    let served_rows = served_frame(spec, served)?;
    let fields: Vec<Field> = source_rows
        .schema()
        .fields()
        .iter()
        .map(|f| f.as_ref().clone())
        .collect();
    let served_has = |name: &str| {
        spec.features.contains_key(name)
            || *name == spec.label.name
            || Some(name) == spec.data.time.as_deref()
    };
    let mut from_source: Vec<Expr> = Vec::new();
    let mut from_served: Vec<Expr> = Vec::new();
    let mut source_only = Vec::new();
    for field in fields.iter().filter(|f| f.name() != PREDICTION_ID) {
        let kind = common_type(spec, field);
        from_source.push(cast(ident(field.name()), kind.clone()).alias(field.name()));
        let value = if served_has(field.name()) {
            cast(ident(field.name()), kind)
        } else {
            source_only.push(field.name().clone());
            lit(ScalarValue::try_new_null(&kind)?)
        };
        from_served.push(value.alias(field.name()));
    }
    from_source.push(lit(ScalarValue::Utf8(None)).alias(PREDICTION_ID));
    from_served.push(ident(PREDICTION_ID).alias(PREDICTION_ID));
    from_source.push(lit(false).alias(SERVED));
    from_served.push(lit(true).alias(SERVED));
    let rows = source_rows
        .select(from_source)?
        .union(served_rows.select(from_served)?)?;
    let mut table = Table::new(rows)?;
    table.source_only = source_only;
    table.index = index_columns(spec);
    table.index.push(PREDICTION_ID.to_owned());
    Ok(table)
}
