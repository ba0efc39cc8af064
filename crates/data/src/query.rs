//! What the spec asks of its source, as DataFusion expressions: time, label, when the label became known, and the features.

use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use datafusion::functions_aggregate::expr_fn::{max, min};
use datafusion::logical_expr::{Expr, cast, ident, lit};
use datafusion::prelude::DataFrame;
use datafusion::scalar::ScalarValue;
use tidemill_core::clock::Timestamp;
use tidemill_core::frame::{FeatureKind, Task};
use tidemill_core::spec::Spec;

use crate::columns::{fits, is_number, is_text, is_time, to_micros, utc_micros};
use crate::error::{DataError, Result};
use crate::session::{guarded, session};
use crate::sources::{
    SchemaCache, Source, first_bad_row, first_not_number, first_row_where, first_such_text,
};

/// A spec's source, opened and checked.
pub struct SpecSource {
    /// The files and their columns.
    pub source: Source,
    /// All rows and columns.
    pub table: DataFrame,
    /// The time of each row, microseconds in UTC.
    pub time: Option<Expr>,
    /// The label, null where it is not known.
    pub label: Expr,
    /// When the label became known; `None` if the source has no times at all.
    pub known_at: Option<Expr>,
}

/// Which rows of a source are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Rows at or after.
    pub from: Option<Timestamp>,
    /// Rows before.
    pub until: Option<Timestamp>,
    /// Only rows with a label that was known by then.
    pub labelled_by: Option<Timestamp>,
}

/// A time as a literal.
pub fn time_literal(time: Timestamp) -> Expr {
    lit(ScalarValue::TimestampMicrosecond(
        Some(time.as_micros()),
        Some("+00:00".into()),
    ))
}

impl SpecSource {
    /// Opens the spec's source and plans its expressions.
    pub async fn open(cache: &SchemaCache, root: &Path, spec: &Spec) -> Result<Self> {
        let source = Source::open(cache, root, &spec.data.source, spec.data.format).await?;
        let context = session();
        let table = source.dataframe(&context)?;
        let time = match &spec.data.time {
            None => None,
            Some(name) => {
                let field = source.column("`data.time`", name)?;
                if !is_time(field.data_type()) {
                    return Err(DataError::ColumnType {
                        what: "the time column".to_owned(),
                        column: name.clone(),
                        found: field.data_type().to_string(),
                        expected:
                            "a timestamp, a date, or RFC 3339 text; convert it where the file is written"
                                .to_owned(),
                    });
                }
                Some(cast(ident(name), utc_micros()))
            }
        };
        let mut opened = Self {
            source,
            table,
            label: ident(&spec.label.name),
            known_at: time.clone(),
            time,
        };
        opened.label = opened.parse("`label.expression`", &spec.label_expression())?;
        if let Some(text) = &spec.label.known_at {
            let expression = opened.parse("`label.known_at`", text)?;
            let found = opened.type_of("`label.known_at`", text, &expression)?;
            if !is_time(&found) && found != DataType::Null {
                return Err(DataError::ColumnType {
                    what: "`label.known_at`".to_owned(),
                    column: text.clone(),
                    found: found.to_string(),
                    expected: "a timestamp, such as `time + interval '1 day'`".to_owned(),
                });
            }
            opened.known_at = Some(cast(expression, utc_micros()));
        }
        Ok(opened)
    }

    fn invalid(
        &self,
        what: &'static str,
        text: &str,
        reason: &datafusion::error::DataFusionError,
    ) -> DataError {
        let reason = reason.strip_backtrace();
        DataError::Expression {
            what,
            expression: text.to_owned(),
            source_pattern: self.source.files.pattern.clone(),
            reason: reason.replace("?table?.", ""),
        }
    }

    fn parse(&self, what: &'static str, text: &str) -> Result<Expr> {
        if what == "`label.expression`"
            && let Some(name) = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'))
            && !name.contains('"')
        {
            self.source.column("the label", name)?;
        }
        self.table
            .parse_sql_expr(text)
            .map_err(|e| self.invalid(what, text, &e))
    }

    fn type_of(&self, what: &'static str, text: &str, expression: &Expr) -> Result<DataType> {
        let plan = self
            .table
            .clone()
            .select(vec![expression.clone().alias("value")])
            .and_then(DataFrame::into_optimized_plan)
            .map_err(|e| self.invalid(what, text, &e))?;
        Ok(plan.schema().field(0).data_type().clone())
    }

    /// Checks that every column and expression of the spec exists and fits.
    pub async fn check(&self, spec: &Spec) -> Result<()> {
        match guarded(self.check_columns(spec)).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.explain(spec, error).await),
        }
    }

    async fn check_columns(&self, spec: &Spec) -> Result<()> {
        if let Some(key) = &spec.data.key {
            self.source.column("`data.key`", key)?;
        }
        if spec.label.name == "prediction_id" || Some(&spec.label.name) == spec.data.time.as_ref() {
            return Err(DataError::Spec(format!(
                "the label `{}` has the name of a column that every snapshot has; rename it",
                spec.label.name
            )));
        }
        for (name, kind) in &spec.features {
            if *name == spec.label.name {
                return Err(DataError::Spec(format!(
                    "`{name}` is both the label and a feature: a model must not read what it is to predict"
                )));
            }
            if name == "prediction_id" || Some(name) == spec.data.time.as_ref() {
                return Err(DataError::Spec(format!(
                    "feature `{name}` has the name of a column that every snapshot has; rename it"
                )));
            }
            self.check_feature(name, *kind).await?;
        }
        let text = spec.label_expression();
        let found = self.type_of("`label.expression`", &text, &self.label)?;
        let fits = match spec.label.task {
            Task::Binary | Task::Multiclass => is_number(&found) || is_text(&found),
            Task::Regression => is_number(&found),
        };
        if !fits {
            if spec.label.task == Task::Regression && spec.label.expression.is_none() {
                self.refuse_words(&spec.label.name, &found, "but the label of a regression task is one; correct the value, or leave it empty where the label is not known").await?;
            }
            return Err(DataError::ColumnType {
                what: "the label".to_owned(),
                column: text,
                found: found.to_string(),
                expected: match spec.label.task {
                    Task::Binary => "a boolean (or 0 and 1) for a binary task",
                    Task::Multiclass => "text or numbers for a multiclass task",
                    Task::Regression => "a number for a regression task",
                }
                .to_owned(),
            });
        }
        Ok(())
    }

    async fn check_feature(&self, name: &str, kind: FeatureKind) -> Result<()> {
        let field = self.source.column("`features`", name)?;
        if fits(kind, field.data_type()) {
            return Ok(());
        }
        if kind == FeatureKind::Numeric {
            let expected = format!(
                "but feature `{name}` is numeric; correct the value, leave it empty, or declare `{name}: categorical`"
            );
            self.refuse_words(name, field.data_type(), &expected).await?;
        }
        Err(DataError::ColumnType {
            what: format!(
                "the {} feature",
                if kind == FeatureKind::Numeric {
                    "numeric"
                } else {
                    "categorical"
                }
            ),
            column: name.to_owned(),
            found: field.data_type().to_string(),
            expected: match kind {
                FeatureKind::Numeric => "numbers or booleans",
                FeatureKind::Categorical => "text, whole numbers or booleans",
            }
            .to_owned(),
        })
    }

    /// Names the first value that makes a column text which should be numbers; `expected` goes on after "is not a number".
    async fn refuse_words(&self, column: &str, found: &DataType, expected: &str) -> Result<()> {
        if !is_text(found) {
            return Ok(());
        }
        match first_not_number(&self.source, column).await? {
            Some(found) => Err(found.refused(expected)),
            None => Ok(()),
        }
    }

    /// Places a text that the label's expressions compute with as if it were a number.
    async fn word_in_expression(&self, error: &DataError) -> Option<DataError> {
        // Arrow names the value only in its message.
        let message = error.to_string();
        let (_, rest) = message.split_once("Cannot cast string '")?;
        let (text, _) = rest.split_once("' to value of ")?;
        let expressions = std::iter::once(&self.label).chain(&self.known_at);
        let columns: std::collections::BTreeSet<&str> = expressions
            .flat_map(Expr::column_refs)
            .map(|column| column.name.as_str())
            .collect();
        for column in columns {
            let is_words = self
                .source
                .schema
                .field_with_name(column)
                .is_ok_and(|f| is_text(f.data_type()));
            if is_words && let Ok(Some(found)) = first_such_text(&self.source, column, text).await {
                return Some(found.refused(
                    "but an expression of the label computes with it; correct the value, or leave it empty",
                ));
            }
        }
        None
    }

    /// The wanted rows with all columns of the source.
    pub fn rows(&self, wanted: Wanted) -> Result<DataFrame> {
        let mut table = self.table.clone();
        if let Some(time) = &self.time {
            if let Some(from) = wanted.from {
                table = table.filter(time.clone().gt_eq(time_literal(from)))?;
            }
            if let Some(until) = wanted.until {
                table = table.filter(time.clone().lt(time_literal(until)))?;
            }
            table = table.filter(time.clone().is_not_null())?;
        }
        if let Some(by) = wanted.labelled_by {
            table = table.filter(self.label.clone().is_not_null())?;
            if let Some(known_at) = &self.known_at {
                table = table.filter(known_at.clone().lt_eq(time_literal(by)))?;
            }
        }
        Ok(table)
    }

    /// The first and last time of the source.
    pub async fn time_range(&self, spec: &Spec) -> Result<Option<(Timestamp, Timestamp)>> {
        let Some(time) = &self.time else {
            return Ok(None);
        };
        let bounds = self.table.clone().aggregate(
            vec![],
            vec![min(time.clone()).alias("first"), max(time.clone()).alias("last")],
        )?;
        let batches = match guarded(async { Ok(bounds.collect().await?) }).await {
            Ok(batches) => batches,
            Err(e) => return Err(self.explain(spec, e).await),
        };
        let mut range = None;
        for batch in &batches {
            let value = |i: usize| {
                let column = batch.column(i).as_primitive::<TimestampMicrosecondType>();
                (!column.is_empty() && column.is_valid(0)).then(|| Timestamp::from_micros(column.value(0)))
            };
            if let (Some(first), Some(last)) = (value(0), value(1)) {
                range = Some((first, last));
            }
        }
        Ok(range)
    }

    /// Finds the place that made a query fail, so that the reader can act.
    pub async fn explain(&self, spec: &Spec, error: DataError) -> DataError {
        if let Some(name) = &spec.data.time
            && error.is_of_engine()
            && self
                .source
                .schema
                .field_with_name(name)
                .is_ok_and(|f| is_text(f.data_type()))
        {
            let unreadable = first_row_where(&self.source, name, |values, i| {
                // Casting gives null for a text that is no time.
                values.is_valid(i) && to_micros(&values.slice(i, 1)).is_ok_and(|t| t == [None])
            });
            let unreadable = guarded(unreadable).await;
            if let Ok(Some((place, value))) = unreadable {
                return DataError::BadValue {
                    place,
                    value,
                    problem:
                        "is not a time; expected RFC 3339 such as `2013-05-17T10:00:00Z`, or a date such as `2013-05-17`"
                            .to_owned(),
                };
            }
        }
        if let Some(found) = self.word_in_expression(&error).await {
            return found;
        }
        first_bad_row(&self.source, error).await
    }
}
