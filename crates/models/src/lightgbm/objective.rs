//! The `objective` line: which question, how many outputs, which link.

use tidemill_core::frame::Task;

use crate::error::{Broken, shorten};
use crate::trees::Link;

/// What the line says.
#[derive(Debug, PartialEq)]
pub(super) struct Objective {
    /// The question; `None` if the objective is the user's own.
    pub task: Option<Task>,
    /// The outputs' number, where the line gives it.
    pub outputs: Option<usize>,
    /// From sums to answers.
    pub link: Link,
}

impl Objective {
    /// The user's own objective: the sums are the answers.
    pub fn unknown() -> Self {
        Self {
            task: None,
            outputs: None,
            link: Link::Identity,
        }
    }

    fn single(task: Task, link: Link) -> Self {
        Self {
            task: Some(task),
            outputs: Some(1),
            link,
        }
    }

    /// Reads `name key:value key:value`.
    pub fn parse(line: usize, text: &str) -> Result<Self, Broken> {
        let mut words = text.split_ascii_whitespace();
        let name = words.next().unwrap_or("");
        let settings: Vec<&str> = words.collect();
        let setting = |key: &str| {
            settings
                .iter()
                .find_map(|word| word.strip_prefix(key)?.strip_prefix(':'))
        };
        let number = |key: &str| {
            let text = setting(key).unwrap_or("");
            let number = text
                .parse::<f64>()
                .ok()
                .filter(|value| *value > 0.0 && value.is_finite());
            number.ok_or_else(|| {
                let found = format!("`objective` has {key} `{}`", shorten(text));
                Broken::new(line, found, format!("`{name} {key}:` and a number above zero"))
            })
        };
        Ok(match name {
            "binary" => Self::single(
                Task::Binary,
                Link::Sigmoid {
                    slope: number("sigmoid")?,
                },
            ),
            "cross_entropy" => Self::single(Task::Binary, Link::Sigmoid { slope: 1.0 }),
            "multiclass" | "multiclassova" => Self {
                task: Some(Task::Multiclass),
                outputs: Some(number("num_class")? as usize),
                link: if name == "multiclass" {
                    Link::Softmax
                } else {
                    Link::Sigmoid {
                        slope: number("sigmoid")?,
                    }
                },
            },
            "regression" if settings.contains(&"sqrt") => Self::single(Task::Regression, Link::SignedSquare),
            "regression" | "regression_l1" | "huber" | "fair" | "quantile" | "mape" | "lambdarank"
            | "rank_xendcg" => Self::single(Task::Regression, Link::Identity),
            "poisson" | "gamma" | "tweedie" => Self::single(Task::Regression, Link::Exp),
            "cross_entropy_lambda" => Self::single(Task::Regression, Link::LogOnePlusExp),
            "" | "custom" | "none" => Self::unknown(),
            other => {
                return Err(Broken::new(
                    line,
                    format!("`objective` is `{}`", shorten(other)),
                    "one of binary, cross_entropy, multiclass, multiclassova, regression, regression_l1, huber, fair, quantile, \
                     mape, poisson, gamma, tweedie, cross_entropy_lambda, lambdarank, rank_xendcg",
                ));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objective_line_gives_task_outputs_and_link() {
        let binary = Objective::parse(7, "binary sigmoid:1.5").unwrap();
        assert_eq!(
            binary,
            Objective::single(Task::Binary, Link::Sigmoid { slope: 1.5 })
        );
        let classes = Objective::parse(7, "multiclass num_class:3").unwrap();
        assert_eq!((classes.outputs, classes.link), (Some(3), Link::Softmax));
        let squared = Objective::parse(7, "regression sqrt").unwrap();
        assert_eq!(squared.link, Link::SignedSquare);
    }

    #[test]
    fn an_unknown_objective_and_a_missing_slope_are_told_by_line() {
        let unknown = Objective::parse(7, "poincare").unwrap_err().to_string();
        assert!(
            unknown.starts_with("line 7: `objective` is `poincare`; expected one of binary"),
            "{unknown}"
        );
        let slope = Objective::parse(7, "binary").unwrap_err().to_string();
        assert_eq!(
            slope,
            "line 7: `objective` has sigmoid ``; expected `binary sigmoid:` and a number above zero"
        );
    }
}
