//! What an endpoint does with missing values, and with values that training never saw (`endpoint.inputs`).

use std::borrow::Cow;
use std::sync::Arc;

use tidemill_core::frame::{Column, Feature, FeatureKind, Frame};
use tidemill_core::ports::Model;
use tidemill_core::spec::{NullPolicy, UnseenPolicy};

use crate::guard::{Finding, RawValue, SchemaError, kind_name, wrong_value};
use crate::routing::Route;

const SEEN: &str = "a value that training has seen";

/// Rows on their way to the models.
#[derive(Debug)]
pub(crate) struct Taken<'a> {
    /// As the models get them.
    pub rows: Cow<'a, Frame>,
    /// Those that no model is asked, in order, and what does not fit in each.
    pub unfit: Vec<(usize, Finding)>,
}

/// Sorts rows by the endpoint's rules: which go to the models and how, and which do not.
///
/// # Errors
/// All that the rules refuse, up to [`crate::MAX_FINDINGS`].
pub(crate) fn take<'a>(route: &Route, rows: &'a Frame) -> Result<Taken<'a>, SchemaError> {
    let mut taken = Taken {
        rows: Cow::Borrowed(rows),
        unfit: Vec::new(),
    };
    let mut refused = SchemaError::default();
    let rules = route.inputs;
    if rules.nulls != NullPolicy::Take {
        for (feature, row) in missing(rows) {
            let finding = wrong_value(&feature.name, row, &RawValue::Null, kind_name(feature.kind));
            match rules.nulls {
                NullPolicy::Refuse => refused.push(finding),
                NullPolicy::Fallback | NullPolicy::Take => taken.unfit.push((row, finding)),
            }
        }
    }
    let judge = route.champion.as_ref().or(route.previous.as_ref());
    if let Some(judge) = judge.filter(|_| rules.unseen != UnseenPolicy::Take) {
        let mut blanked = Vec::new();
        for (place, row, value) in unseen(judge.model.as_ref(), rows) {
            let name = &rows.schema().features[place].name;
            let finding = || wrong_value(name, row, &RawValue::Text(Arc::clone(value)), SEEN);
            match rules.unseen {
                UnseenPolicy::Refuse => refused.push(finding()),
                UnseenPolicy::Missing => blanked.push((place, row)),
                UnseenPolicy::Fallback | UnseenPolicy::Take => taken.unfit.push((row, finding())),
            }
        }
        if !blanked.is_empty() {
            taken.rows = Cow::Owned(rows.blanked(&blanked));
        }
    }
    if !refused.findings.is_empty() {
        return Err(refused);
    }
    taken.unfit.sort_by_key(|(row, _)| *row);
    taken.unfit.dedup_by_key(|(row, _)| *row);
    Ok(taken)
}

fn missing(rows: &Frame) -> impl Iterator<Item = (&Feature, usize)> {
    let columns = rows.schema().features.iter().zip(rows.columns());
    columns.flat_map(move |(feature, column)| {
        let at = move |row: &usize| match column {
            Column::Numeric(values) => values[*row].is_nan(),
            Column::Categorical(values) => values[*row].is_none(),
        };
        (0..rows.rows()).filter(at).map(move |row| (feature, row))
    })
}

/// Feature, row and value of what the model does not know.
fn unseen<'a>(model: &'a dyn Model, rows: &'a Frame) -> impl Iterator<Item = (usize, usize, &'a Arc<str>)> {
    let signature = &model.signature().features;
    let columns = rows.schema().features.iter().zip(rows.columns()).enumerate();
    columns.flat_map(move |(place, (feature, column))| {
        let asked = signature
            .index_of(&feature.name)
            .filter(|_| feature.kind == FeatureKind::Categorical);
        let values: &[Option<Arc<str>>] = match (asked, column) {
            (Some(_), Column::Categorical(values)) => values,
            _ => &[],
        };
        values.iter().enumerate().filter_map(move |(row, value)| {
            let value = value.as_ref()?;
            (model.knows(asked?, value) == Some(false)).then_some((place, row, value))
        })
    })
}

#[cfg(test)]
mod tests {
    use tidemill_core::spec::InputSpec;

    use super::*;
    use crate::testing;

    fn route(inputs: InputSpec) -> Route {
        let (_, champion) = testing::deployment(1);
        Route {
            champion: Some(champion),
            inputs,
            ..testing::route()
        }
    }

    /// Rows of which the second has a missing text and the third one that the model does not know.
    fn rows() -> Frame {
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

    #[test]
    fn without_rules_every_row_goes_to_the_models_as_it_came() {
        let rows = rows();
        let taken = take(&route(InputSpec::default()), &rows).unwrap();
        assert!(matches!(taken.rows, Cow::Borrowed(_)) && taken.unfit.is_empty());
    }

    #[test]
    fn what_training_never_saw_is_refused_made_missing_or_kept_from_the_models() {
        let by = |unseen| InputSpec {
            unseen,
            ..InputSpec::default()
        };
        let rows = rows();
        let error = take(&route(by(UnseenPolicy::Refuse)), &rows).unwrap_err();
        assert_eq!(
            error.findings[0].message,
            "field `c` row 2: `new` is not a value that training has seen"
        );
        let taken = take(&route(by(UnseenPolicy::Missing)), &rows).unwrap();
        let seen = [Some(Arc::from("c1")), None, None];
        assert_eq!(taken.rows.columns()[1], Column::Categorical(seen.to_vec()));
        let taken = take(&route(by(UnseenPolicy::Fallback)), &rows).unwrap();
        assert_eq!(taken.unfit.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn missing_values_are_refused_or_kept_from_the_models() {
        let by = |nulls, unseen| InputSpec {
            nulls,
            unseen,
            ..InputSpec::default()
        };
        let rows = rows();
        let error = take(&route(by(NullPolicy::Refuse, UnseenPolicy::Take)), &rows).unwrap_err();
        assert_eq!(error.findings[0].message, "field `c` row 1: `null` is not a text");
        let taken = take(&route(by(NullPolicy::Fallback, UnseenPolicy::Fallback)), &rows).unwrap();
        assert_eq!(
            taken.unfit.iter().map(|(row, _)| *row).collect::<Vec<_>>(),
            [1, 2]
        );
    }
}
