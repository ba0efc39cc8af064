//! A typed columnar batch: what a request becomes, what a model reads, what the prediction log keeps.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What kind of values a feature holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FeatureKind {
    /// Numbers; missing is allowed. Booleans and integers are numbers too.
    Numeric,
    /// Texts from a finite set; missing is allowed.
    Categorical,
}

/// A named, typed input of a model.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Feature {
    /// The column's name.
    pub name: String,
    /// What it holds.
    pub kind: FeatureKind,
}

/// The inputs of a model, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FeatureSchema {
    /// The features, in the order in which the model reads them.
    pub features: Vec<Feature>,
}

impl FeatureSchema {
    /// The position of the feature called `name`.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.features.iter().position(|f| f.name == name)
    }
}

/// One column of a [`Frame`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Column {
    /// Numbers; NaN is missing. Infinities never get in: the edge refuses them.
    Numeric(Vec<f64>),
    /// Texts; `None` is missing.
    Categorical(Vec<Option<Arc<str>>>),
}

impl Column {
    /// How many values.
    pub fn len(&self) -> usize {
        match self {
            Self::Numeric(values) => values.len(),
            Self::Categorical(values) => values.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it holds.
    pub fn kind(&self) -> FeatureKind {
        match self {
            Self::Numeric(_) => FeatureKind::Numeric,
            Self::Categorical(_) => FeatureKind::Categorical,
        }
    }

    /// An empty column of this kind.
    pub fn empty(kind: FeatureKind) -> Self {
        match kind {
            FeatureKind::Numeric => Self::Numeric(Vec::new()),
            FeatureKind::Categorical => Self::Categorical(Vec::new()),
        }
    }

    /// The rows at `indices`, in that order.
    pub fn take(&self, indices: &[usize]) -> Self {
        match self {
            Self::Numeric(values) => Self::Numeric(indices.iter().map(|&i| values[i]).collect()),
            Self::Categorical(values) => {
                Self::Categorical(indices.iter().map(|&i| values[i].clone()).collect())
            }
        }
    }

    /// Appends the rows of a column of the same kind.
    ///
    /// # Errors
    /// [`FrameError::KindMismatch`] if the kinds differ.
    pub fn append(&mut self, other: &Self) -> Result<(), FrameError> {
        match (self, other) {
            (Self::Numeric(a), Self::Numeric(b)) => a.extend_from_slice(b),
            (Self::Categorical(a), Self::Categorical(b)) => a.extend_from_slice(b),
            (_, other) => return Err(FrameError::KindMismatch { got: other.kind() }),
        }
        Ok(())
    }
}

/// Columns of equal length that do not fit together.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum FrameError {
    /// A column has another number of rows than the first.
    #[error("column `{column}` has {got} rows, expected {expected} as in the first column")]
    UnequalLengths {
        /// Which column.
        column: String,
        /// Its rows.
        got: usize,
        /// The rows of the first column.
        expected: usize,
    },
    /// A column of another kind than expected.
    #[error("a column is {got:?}, which is not the kind expected here")]
    KindMismatch {
        /// The kind that came.
        got: FeatureKind,
    },
    /// The number of columns is not the number of features.
    #[error("{got} columns came for a schema of {expected} features")]
    ColumnCount {
        /// Columns that came.
        got: usize,
        /// Features in the schema.
        expected: usize,
    },
}

/// A batch of rows in columns, each described by a [`FeatureSchema`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Frame {
    schema: Arc<FeatureSchema>,
    columns: Vec<Column>,
    rows: usize,
}

impl Frame {
    /// Joins columns to a frame.
    ///
    /// # Errors
    /// If the columns do not match the schema or each other's lengths.
    pub fn new(schema: Arc<FeatureSchema>, columns: Vec<Column>) -> Result<Self, FrameError> {
        if columns.len() != schema.features.len() {
            return Err(FrameError::ColumnCount {
                got: columns.len(),
                expected: schema.features.len(),
            });
        }
        let rows = columns.first().map_or(0, Column::len);
        for (feature, column) in schema.features.iter().zip(&columns) {
            if column.len() != rows {
                return Err(FrameError::UnequalLengths {
                    column: feature.name.clone(),
                    got: column.len(),
                    expected: rows,
                });
            }
            if column.kind() != feature.kind {
                return Err(FrameError::KindMismatch { got: column.kind() });
            }
        }
        Ok(Self {
            schema,
            columns,
            rows,
        })
    }

    /// A frame of no rows.
    pub fn empty(schema: Arc<FeatureSchema>) -> Self {
        let columns = schema.features.iter().map(|f| Column::empty(f.kind)).collect();
        Self {
            schema,
            columns,
            rows: 0,
        }
    }

    /// The description of the columns.
    pub fn schema(&self) -> &Arc<FeatureSchema> {
        &self.schema
    }

    /// The columns, in the schema's order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The column called `name`.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.schema.index_of(name).map(|i| &self.columns[i])
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The rows at `indices`, in that order.
    pub fn take(&self, indices: &[usize]) -> Self {
        Self {
            schema: Arc::clone(&self.schema),
            columns: self.columns.iter().map(|c| c.take(indices)).collect(),
            rows: indices.len(),
        }
    }

    /// The same rows with all values of the features at these positions missing.
    pub fn without(&self, features: &[usize]) -> Self {
        let mut frame = self.clone();
        for &feature in features {
            match frame.columns.get_mut(feature) {
                Some(Column::Numeric(values)) => values.fill(f64::NAN),
                Some(Column::Categorical(values)) => values.fill(None),
                None => {}
            }
        }
        frame
    }

    /// The same rows with the values at these places (feature, row) missing.
    pub fn blanked(&self, places: &[(usize, usize)]) -> Self {
        let mut frame = self.clone();
        for &(feature, row) in places {
            match frame.columns.get_mut(feature) {
                Some(Column::Numeric(values)) if row < values.len() => values[row] = f64::NAN,
                Some(Column::Categorical(values)) if row < values.len() => values[row] = None,
                _ => {}
            }
        }
        frame
    }

    /// Appends the rows of a frame of the same schema.
    ///
    /// # Errors
    /// If the columns differ in number or kind.
    pub fn append(&mut self, other: &Self) -> Result<(), FrameError> {
        if self.columns.len() != other.columns.len() {
            return Err(FrameError::ColumnCount {
                got: other.columns.len(),
                expected: self.columns.len(),
            });
        }
        for (mine, theirs) in self.columns.iter_mut().zip(&other.columns) {
            mine.append(theirs)?;
        }
        self.rows += other.rows;
        Ok(())
    }
}

/// Which question a model answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Yes or no; the score is the probability of yes.
    Binary,
    /// One of several classes; the scores are their probabilities.
    Multiclass,
    /// A number.
    Regression,
}

/// A model's answers for a batch of rows.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Scores {
    /// Probability of the positive class, one a row.
    Binary(Vec<f64>),
    /// A number a row.
    Regression(Vec<f64>),
    /// Probabilities, row-major, `classes.len()` a row.
    Multiclass {
        /// The classes, in the order of the probabilities.
        classes: Arc<[String]>,
        /// Row-major probabilities.
        probabilities: Vec<f64>,
    },
}

impl Scores {
    /// Which question these answer.
    pub fn task(&self) -> Task {
        match self {
            Self::Binary(_) => Task::Binary,
            Self::Regression(_) => Task::Regression,
            Self::Multiclass { .. } => Task::Multiclass,
        }
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        match self {
            Self::Binary(v) | Self::Regression(v) => v.len(),
            Self::Multiclass {
                classes,
                probabilities,
            } => probabilities.len() / classes.len().max(1),
        }
    }

    /// Numbers a row: 1, or the number of classes.
    pub fn width(&self) -> usize {
        match self {
            Self::Binary(_) | Self::Regression(_) => 1,
            Self::Multiclass { classes, .. } => classes.len(),
        }
    }

    /// All numbers, row-major.
    pub fn values(&self) -> &[f64] {
        match self {
            Self::Binary(v) | Self::Regression(v) => v,
            Self::Multiclass { probabilities, .. } => probabilities,
        }
    }

    /// The numbers of one row.
    pub fn row(&self, row: usize) -> &[f64] {
        let width = self.width();
        &self.values()[row * width..(row + 1) * width]
    }

    /// The most probable class of a row, the first of equals; `None` where nobody answered, or the task is another.
    pub fn label(&self, row: usize) -> Option<&str> {
        let Self::Multiclass { classes, .. } = self else {
            return None;
        };
        let probabilities = self.row(row);
        let best = (0..probabilities.len()).reduce(|best, i| {
            if probabilities[i] > probabilities[best] {
                i
            } else {
                best
            }
        })?;
        let class = classes.get(best).map(String::as_str);
        class.filter(|_| !probabilities[best].is_nan())
    }

    /// Whether nobody answered a row: an endpoint that abstains records NaN.
    pub fn is_abstained(&self, row: usize) -> bool {
        self.row(row).iter().any(|value| value.is_nan())
    }

    /// The same kind of answers with other numbers.
    pub fn with_values(&self, values: Vec<f64>) -> Self {
        match self {
            Self::Binary(_) => Self::Binary(values),
            Self::Regression(_) => Self::Regression(values),
            Self::Multiclass { classes, .. } => Self::Multiclass {
                classes: Arc::clone(classes),
                probabilities: values,
            },
        }
    }

    /// The rows at `indices`, in that order.
    pub fn take(&self, indices: &[usize]) -> Self {
        self.with_values(
            indices
                .iter()
                .flat_map(|&i| self.row(i).iter().copied())
                .collect(),
        )
    }
}

/// What was true, for a batch of rows. A row without a label is not in here.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Labels {
    /// Yes or no.
    Binary(Vec<bool>),
    /// A number.
    Regression(Vec<f64>),
    /// The class, by its position in `classes`.
    Multiclass {
        /// The classes.
        classes: Arc<[String]>,
        /// One a row.
        indices: Vec<usize>,
    },
}

impl Labels {
    /// How many rows.
    pub fn rows(&self) -> usize {
        match self {
            Self::Binary(v) => v.len(),
            Self::Regression(v) => v.len(),
            Self::Multiclass { indices, .. } => indices.len(),
        }
    }

    /// The rows at `rows`, in that order.
    pub fn take(&self, rows: &[usize]) -> Self {
        match self {
            Self::Binary(v) => Self::Binary(rows.iter().map(|&i| v[i]).collect()),
            Self::Regression(v) => Self::Regression(rows.iter().map(|&i| v[i]).collect()),
            Self::Multiclass { classes, indices } => Self::Multiclass {
                classes: Arc::clone(classes),
                indices: rows.iter().map(|&i| indices[i]).collect(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_refuses_columns_of_unequal_length_by_name() {
        let schema = Arc::new(FeatureSchema {
            features: vec![
                Feature {
                    name: "a".into(),
                    kind: FeatureKind::Numeric,
                },
                Feature {
                    name: "b".into(),
                    kind: FeatureKind::Numeric,
                },
            ],
        });
        let wrong =
            Frame::new(schema, vec![Column::Numeric(vec![1.0]), Column::Numeric(vec![])]).unwrap_err();
        assert_eq!(
            wrong.to_string(),
            "column `b` has 0 rows, expected 1 as in the first column"
        );
    }
}
