//! Which case of a switch each row takes.

use tidemill_core::ports::PortError;
use tidemill_core::servable::Payload;
use tidemill_core::spec::ConditionSpec;
use tidemill_core::tensors::Tensor;

use super::servable::failed;
use super::tensors::{pick_answers, width};
use crate::hosting::routing::conditions;

/// The case of the whole request, or of each row; `None` while none holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Choices {
    Whole(Option<usize>),
    Rows(Vec<Option<usize>>),
}

impl Default for Choices {
    fn default() -> Self {
        Self::Whole(None)
    }
}

impl Choices {
    /// Gives a case to those that have none and for which its condition holds: by `column` each row by itself, else all by `whole`.
    pub fn take(
        &mut self,
        case: usize,
        when: &ConditionSpec,
        column: Option<&Tensor>,
        whole: bool,
    ) -> Result<(), PortError> {
        let Some(column) = column else {
            if whole {
                match self {
                    Self::Whole(choice) => *choice = choice.or(Some(case)),
                    Self::Rows(rows) => rows.iter_mut().for_each(|row| *row = row.or(Some(case))),
                }
            }
            return Ok(());
        };
        let values = conditions::elements(column);
        let step = width(column).max(1);
        let holds = values
            .iter()
            .step_by(step)
            .map(|value| value.as_ref().is_some_and(|value| value.fits(when)));
        let holds: Vec<bool> = holds.collect();
        if let Self::Whole(None) = self {
            *self = Self::Rows(vec![None; holds.len()]);
        }
        if let Self::Rows(rows) = self {
            if rows.len() != holds.len() {
                let message = format!(
                    "`{}` has {} rows, another column of the switch {}",
                    column.name,
                    holds.len(),
                    rows.len()
                );
                return Err(failed(message));
            }
            for (row, holds) in rows.iter_mut().zip(holds) {
                if holds {
                    *row = row.or(Some(case));
                }
            }
        }
        Ok(())
    }

    /// Whether no later case can be taken.
    pub fn all_taken(&self) -> bool {
        match self {
            Self::Whole(choice) => choice.is_some(),
            Self::Rows(rows) => rows.iter().all(Option::is_some),
        }
    }

    /// The cases that are taken, each once.
    pub fn distinct(&self) -> Vec<Option<usize>> {
        match self {
            Self::Whole(choice) => vec![*choice],
            Self::Rows(rows) => {
                let mut distinct = Vec::new();
                for row in rows {
                    if !distinct.contains(row) {
                        distinct.push(*row);
                    }
                }
                distinct
            }
        }
    }

    /// Each row's answer, from the answers of the cases that are taken.
    pub fn merge(&self, answers: &[(Option<usize>, &Payload)]) -> Result<Payload, PortError> {
        match (self, answers) {
            (_, [(_, only)]) => Ok((*only).clone()),
            (Self::Rows(rows), _) => {
                let place = |row: &Option<usize>| answers.iter().position(|(choice, _)| choice == row);
                let from: Option<Vec<usize>> = rows.iter().map(place).collect();
                let from = from.ok_or_else(|| failed("a row has no case"))?;
                let payloads: Vec<&Payload> = answers.iter().map(|(_, payload)| *payload).collect();
                pick_answers(&payloads, &from)
            }
            // No rows came, so nobody took a case.
            (Self::Whole(_), _) => Err(failed("no case was taken")),
        }
    }
}
