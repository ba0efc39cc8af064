//! What an endpoint does with missing values, and with values that training never saw (`endpoint.inputs`): judged for each version by
//! itself, because a newer one may know what an older one does not.

use std::sync::Arc;

use tidemill_core::frame::{Column, FeatureKind, Frame};
use tidemill_core::ports::Model;
use tidemill_core::spec::{InputSpec, NullPolicy, UnseenPolicy};

use crate::guard::{Finding, RawValue, SchemaError, kind_name, wrong_value};

const SEEN: &str = "a value that training has seen";

/// What one version may be asked.
#[derive(Debug, Default)]
pub(crate) struct Fitting {
    /// The rows that it may be asked.
    pub rows: Vec<usize>,
    /// The others, in order, each with the first thing in it that does not fit.
    pub unfit: Vec<(usize, Finding)>,
    /// Values that it is shown as missing: feature and row.
    pub blanked: Vec<(usize, usize)>,
}

/// Refuses rows with a missing value, where the endpoint says so.
///
/// # Errors
/// All of them, up to [`crate::MAX_FINDINGS`].
pub(crate) fn check_nulls(rules: InputSpec, frame: &Frame) -> Result<(), SchemaError> {
    let mut refused = SchemaError::default();
    if rules.nulls == NullPolicy::Refuse {
        for row in 0..frame.rows() {
            missing(frame, row, |finding| refused.push(finding));
        }
    }
    if refused.findings.is_empty() {
        Ok(())
    } else {
        Err(refused)
    }
}

/// Which of `rows` a model may be asked, by the rules.
pub(crate) fn fitting(rules: InputSpec, frame: &Frame, rows: Vec<usize>, model: &dyn Model) -> Fitting {
    let by_nulls = rules.nulls == NullPolicy::Fallback;
    if !by_nulls && rules.unseen == UnseenPolicy::Take {
        return Fitting {
            rows,
            ..Fitting::default()
        };
    }
    let read = columns_read(frame, model);
    let mut fitting = Fitting::default();
    for row in rows {
        let mut first = None;
        if by_nulls {
            missing(frame, row, |finding| {
                first.get_or_insert(finding);
            });
        }
        for &(place, feature, values) in &read {
            let Some(value) = &values[row] else { continue };
            if rules.unseen == UnseenPolicy::Take || model.knows(feature, value) != Some(false) {
                continue;
            }
            if rules.unseen == UnseenPolicy::Missing {
                fitting.blanked.push((place, row));
            } else {
                let name = &frame.schema().features[place].name;
                let value = RawValue::Text(Arc::clone(value));
                first.get_or_insert_with(|| wrong_value(name, row, &value, SEEN));
            }
        }
        match first {
            None => fitting.rows.push(row),
            Some(finding) => fitting.unfit.push((row, finding)),
        }
    }
    fitting
}

/// Tells of each missing value of a row.
fn missing(frame: &Frame, row: usize, mut tell: impl FnMut(Finding)) {
    for (feature, column) in frame.schema().features.iter().zip(frame.columns()) {
        let missing = match column {
            Column::Numeric(values) => values[row].is_nan(),
            Column::Categorical(values) => values[row].is_none(),
        };
        if missing {
            let expected = kind_name(feature.kind);
            tell(wrong_value(&feature.name, row, &RawValue::Null, expected));
        }
    }
}

/// A categorical column that a model reads: its place in the frame, that in the model's signature, its values.
type ColumnRead<'a> = (usize, usize, &'a [Option<Arc<str>>]);

fn columns_read<'a>(frame: &'a Frame, model: &dyn Model) -> Vec<ColumnRead<'a>> {
    let signature = &model.signature().features;
    let columns = frame.schema().features.iter().zip(frame.columns()).enumerate();
    columns
        .filter_map(|(place, (feature, column))| match column {
            Column::Categorical(values) if feature.kind == FeatureKind::Categorical => {
                Some((place, signature.index_of(&feature.name)?, values.as_slice()))
            }
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    /// Rows of which the second has a missing text and the third one that the model does not know.
    fn frame() -> Frame {
        let texts = [Some("c1"), None, Some("new")];
        Frame::new(
            testing::schema(),
            vec![
                Column::Numeric(vec![0.0, 1.0, 2.0]),
                Column::Categorical(texts.map(|text| text.map(Arc::from)).to_vec()),
            ],
        )
        .unwrap()
    }

    fn by(rules: InputSpec) -> Fitting {
        fitting(rules, &frame(), vec![0, 1, 2], testing::model(0.5).as_ref())
    }

    fn unseen(unseen: UnseenPolicy) -> InputSpec {
        InputSpec {
            unseen,
            ..InputSpec::default()
        }
    }

    #[test]
    fn without_rules_every_row_goes_to_the_models_as_it_came() {
        let fitting = by(InputSpec::default());
        assert_eq!(fitting.rows, [0, 1, 2]);
        assert!(fitting.unfit.is_empty() && fitting.blanked.is_empty());
    }

    #[test]
    fn what_training_never_saw_is_shown_as_missing_or_kept_from_the_model() {
        let fitting = by(unseen(UnseenPolicy::Missing));
        assert_eq!((fitting.rows, fitting.blanked), (vec![0, 1, 2], vec![(1, 2)]));
        for policy in [UnseenPolicy::Fallback, UnseenPolicy::Refuse] {
            let fitting = by(unseen(policy));
            assert_eq!(fitting.rows, [0, 1]);
            let (row, finding) = &fitting.unfit[0];
            assert_eq!(*row, 2);
            assert_eq!(
                finding.message,
                "field `c` row 2: `new` is not a value that training has seen"
            );
        }
    }

    #[test]
    fn missing_values_are_refused_or_kept_from_the_model() {
        let rules = |nulls| InputSpec {
            nulls,
            ..InputSpec::default()
        };
        let error = check_nulls(rules(NullPolicy::Refuse), &frame()).unwrap_err();
        assert_eq!(error.findings[0].message, "field `c` row 1: `null` is not a text");
        check_nulls(rules(NullPolicy::Fallback), &frame()).unwrap();
        let fitting = by(rules(NullPolicy::Fallback));
        assert_eq!((fitting.rows, fitting.unfit[0].0), (vec![0, 2], 1));
    }
}
