//! Rows of a source on their way into a snapshot or a replay.

use std::sync::Arc;

use datafusion::logical_expr::{Expr, ident};
use datafusion::prelude::DataFrame;
use futures::TryStreamExt;
use tidemill_core::frame::{Column, FeatureSchema, Frame};
use tidemill_core::spec::Spec;

use crate::columns::{BadLabel, LabelColumn, to_column, to_micros, to_shared_texts};
use crate::error::{DataError, Result};
use crate::query::{SpecSource, Wanted};
use crate::session::guarded;
use crate::sources::{INFINITE, first_row_where};

/// Rows in memory, all vectors of one length.
pub struct Rows {
    /// The model's inputs.
    pub features: Frame,
    /// What was true.
    pub labels: LabelColumn,
    /// The time of each row, microseconds; `None` in every row of a source without times.
    pub times: Vec<Option<i64>>,
    /// When the label became known.
    pub known_at: Vec<Option<i64>>,
    /// The key of each row.
    pub keys: Vec<Option<Arc<str>>>,
}

/// Reads the wanted rows in the order of the files.
pub async fn read_rows(opened: &SpecSource, spec: &Spec, wanted: Wanted) -> Result<Rows> {
    opened.check(spec).await?;
    let schema = Arc::new(spec.feature_schema());
    let read = async {
        let rows = collect(opened, spec, wanted, &schema).await?;
        refuse_infinities(opened, &rows.features).await?;
        Ok(rows)
    };
    match guarded(read).await {
        Ok(rows) => Ok(rows),
        Err(error) => Err(opened.explain(spec, error).await),
    }
}

async fn collect(
    opened: &SpecSource,
    spec: &Spec,
    wanted: Wanted,
    schema: &Arc<FeatureSchema>,
) -> Result<Rows> {
    let mut wanted_columns: Vec<Expr> = Vec::new();
    for (i, feature) in schema.features.iter().enumerate() {
        wanted_columns.push(ident(&feature.name).alias(format!("f{i}")));
    }
    wanted_columns.push(opened.label.clone().alias("label"));
    for (name, expression) in [("time", &opened.time), ("known_at", &opened.known_at)] {
        if let Some(expression) = expression {
            wanted_columns.push(expression.clone().alias(name));
        }
    }
    if let Some(key) = &spec.data.key {
        wanted_columns.push(ident(key).alias("key"));
    }
    let table: DataFrame = opened.rows(wanted)?.select(wanted_columns)?;
    let mut columns: Vec<Column> = schema.features.iter().map(|f| Column::empty(f.kind)).collect();
    let mut labels = LabelColumn::empty(spec.label.task);
    let mut times = Vec::new();
    let mut known_at = Vec::new();
    let mut keys = Vec::new();
    let mut stream = table.execute_stream().await?;
    while let Some(batch) = stream.try_next().await? {
        for (i, feature) in schema.features.iter().enumerate() {
            columns[i].append(&to_column(feature.kind, batch.column(i))?)?;
        }
        labels
            .extend(batch.column(columns.len()))?
            .map_err(|bad| bad_label(opened, spec, bad))?;
        match batch.column_by_name("time") {
            Some(array) => times.extend(to_micros(array)?),
            None => times.resize(labels.len(), None),
        }
        match batch.column_by_name("known_at") {
            Some(array) => known_at.extend(to_micros(array)?),
            None => known_at.resize(labels.len(), None),
        }
        match batch.column_by_name("key") {
            Some(array) => keys.extend(to_shared_texts(array)?),
            None => keys.resize(labels.len(), None),
        }
    }
    let features = if columns.is_empty() {
        Frame::empty(Arc::clone(schema))
    } else {
        Frame::new(Arc::clone(schema), columns)?
    };
    Ok(Rows {
        features,
        labels,
        times,
        known_at,
        keys,
    })
}

fn bad_label(opened: &SpecSource, spec: &Spec, bad: BadLabel) -> DataError {
    DataError::BadValue {
        place: format!(
            "label `{}` (`{}`), selected row {} of `{}`",
            spec.label.name,
            spec.label_expression(),
            bad.row,
            opened.source.files.pattern
        ),
        value: bad.value,
        problem: format!(
            "does not answer a {:?} task; expected {}, or null where it is not known",
            spec.label.task, bad.expected
        ),
    }
}

async fn refuse_infinities(opened: &SpecSource, features: &Frame) -> Result<()> {
    for (feature, column) in features.schema().features.iter().zip(features.columns()) {
        let Column::Numeric(values) = column else {
            continue;
        };
        let Some(row) = values.iter().position(|v| v.is_infinite()) else {
            continue;
        };
        let found = first_row_where(&opened.source, &feature.name, |array, i| {
            to_column(feature.kind, &array.slice(i, 1))
                .is_ok_and(|c| matches!(c, Column::Numeric(v) if v[0].is_infinite()))
        })
        .await?;
        let (place, value) = found.unwrap_or_else(|| {
            (
                format!(
                    "`{}` selected row {row}, column `{}`",
                    opened.source.files.pattern, feature.name
                ),
                values[row].to_string(),
            )
        });
        return Err(DataError::BadValue {
            place,
            value,
            problem: INFINITE.to_owned(),
        });
    }
    Ok(())
}
