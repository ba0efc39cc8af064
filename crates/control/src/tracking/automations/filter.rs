//! Which happenings an automation waits for. Pure: what happened is told, nothing is looked up.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemill_store::tracking::metrics::Point;

use crate::tracking::{Result, TrackingError};

/// What can happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Event {
    /// A model version came into another stage.
    #[serde(rename = "model_version.stage_transitioned")]
    StageTransitioned,
    /// An alias was pointed at a version.
    #[serde(rename = "alias.set")]
    AliasSet,
    /// A run ended, well or not.
    #[serde(rename = "run.finished")]
    RunFinished,
    /// A metric of a run crossed a threshold.
    #[serde(rename = "metric.threshold")]
    MetricThreshold,
    /// A tag of a run, of a registered model or of a version was set.
    #[serde(rename = "tag.set")]
    TagSet,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::StageTransitioned,
        Self::AliasSet,
        Self::RunFinished,
        Self::MetricThreshold,
        Self::TagSet,
    ];

    /// Its name, such as `run.finished`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StageTransitioned => "model_version.stage_transitioned",
            Self::AliasSet => "alias.set",
            Self::RunFinished => "run.finished",
            Self::MetricThreshold => "metric.threshold",
            Self::TagSet => "tag.set",
        }
    }

    /// What a filter can say of it.
    const fn filters(self) -> &'static [&'static str] {
        match self {
            Self::StageTransitioned => &["model", "stage"],
            Self::AliasSet => &["model", "alias"],
            Self::RunFinished => &["experiment_id", "status"],
            Self::MetricThreshold => &["experiment_id", "metric", "op", "value"],
            Self::TagSet => &["model", "experiment_id", "tag", "value"],
        }
    }
}

/// How a value is compared with a threshold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Op {
    /// Greater.
    #[serde(rename = ">")]
    Greater,
    /// Greater or the same.
    #[serde(rename = ">=")]
    AtLeast,
    /// Less.
    #[serde(rename = "<")]
    Less,
    /// Less or the same.
    #[serde(rename = "<=")]
    AtMost,
}

impl Op {
    fn holds(self, value: f64, threshold: f64) -> bool {
        match self {
            Self::Greater => value > threshold,
            Self::AtLeast => value >= threshold,
            Self::Less => value < threshold,
            Self::AtMost => value <= threshold,
        }
    }
}

/// Of which things an automation wants to be told; what is not said may be anything.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// A registered model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// An experiment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experiment_id: Option<String>,
    /// An alias.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// The stage that a version comes into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// How a run ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// A tag, by its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// A metric.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// How the metric is compared with the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub op: Option<Op>,
    /// A metric's threshold, or a tag's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

/// What is known of a happening.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Facts<'a> {
    pub model: Option<&'a str>,
    pub experiment_id: Option<&'a str>,
    pub alias: Option<&'a str>,
    pub stage: Option<&'a str>,
    pub status: Option<&'a str>,
    pub tag: Option<&'a str>,
    pub metric: Option<&'a str>,
    /// The text of a tag.
    pub value: Option<&'a str>,
}

impl Filter {
    /// Refuses what an event has not, and what would never come.
    pub(super) fn check(&self, event: Event) -> Result<()> {
        let given = serde_json::to_value(self).unwrap_or_default();
        let allowed = event.filters();
        for field in given.as_object().into_iter().flatten().map(|(field, _)| field) {
            if !allowed.contains(&field.as_str()) {
                return Err(TrackingError::invalid(format!(
                    "`{}` has no `{field}`: a filter of it can have `{}`",
                    event.name(),
                    allowed.join("`, `")
                )));
            }
        }
        one_of(
            "stage",
            self.stage.as_deref(),
            &["None", "Staging", "Production", "Archived"],
        )?;
        one_of(
            "status",
            self.status.as_deref(),
            &["FINISHED", "FAILED", "KILLED"],
        )?;
        if let Some(id) = &self.experiment_id
            && id.parse::<i64>().is_err()
        {
            return Err(TrackingError::invalid(format!(
                "experiment `{id}` is not a number"
            )));
        }
        match event {
            Event::MetricThreshold if self.threshold().is_none() => Err(TrackingError::invalid(
                "`metric.threshold` needs a filter with `metric`, `op` (`>`, `>=`, `<` or `<=`) and `value`, a number",
            )),
            Event::TagSet if self.value.as_ref().is_some_and(|value| !value.is_string()) => {
                Err(TrackingError::invalid("the `value` of a tag is a text"))
            }
            _ => Ok(()),
        }
    }

    /// Whether this waits for what happened. A threshold is not among it: see [`Filter::crossings`].
    pub(super) fn fits(&self, facts: &Facts<'_>) -> bool {
        let text = match &self.value {
            Some(Value::String(text)) => Some(text.as_str()),
            _ => None,
        };
        let exact = [
            (self.model.as_deref(), facts.model),
            (self.experiment_id.as_deref(), facts.experiment_id),
            (self.alias.as_deref(), facts.alias),
            (self.tag.as_deref(), facts.tag),
            (self.metric.as_deref(), facts.metric),
            (text, facts.value),
        ];
        let any_case = [
            (self.stage.as_deref(), facts.stage),
            (self.status.as_deref(), facts.status),
        ];
        let same = |a: &str, b: Option<&str>| b.is_some_and(|b| a.eq_ignore_ascii_case(b));
        exact
            .iter()
            .all(|(wanted, found)| wanted.is_none() || wanted == found)
            && any_case
                .iter()
                .all(|(wanted, found)| wanted.is_none_or(|wanted| same(wanted, *found)))
    }

    /// The metric, and what makes a value cross.
    pub(super) fn threshold(&self) -> Option<(&str, Op, f64)> {
        let value = self.value.as_ref()?.as_f64()?;
        Some((self.metric.as_deref()?, self.op?, value))
    }

    /// Those points with which the metric comes over the threshold, when `latest` is its latest point and `points` are logged, in any
    /// order. Points before the latest one are history, and NaN says nothing.
    pub(super) fn crossings(&self, latest: Option<&Point>, points: &[Point]) -> Vec<Point> {
        let Some((_, op, threshold)) = self.threshold() else {
            return Vec::new();
        };
        let over = |point: &Point| op.holds(point.value, threshold);
        let mut fresh: Vec<&Point> = points
            .iter()
            .filter(|point| !point.is_nan && latest.is_none_or(|latest| point.order(latest).is_gt()))
            .collect();
        fresh.sort_by(|a, b| a.order(b));
        let mut was_over = latest.is_some_and(|latest| !latest.is_nan && over(latest));
        let mut found = Vec::new();
        for point in fresh {
            let is_over = over(point);
            if is_over && !was_over {
                found.push(*point);
            }
            was_over = is_over;
        }
        found
    }
}

fn one_of(field: &str, given: Option<&str>, known: &[&str]) -> Result<()> {
    match given {
        Some(text) if !known.iter().any(|one| one.eq_ignore_ascii_case(text)) => Err(TrackingError::invalid(
            format!("`{text}` is no {field}: expected one of `{}`", known.join("`, `")),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filter(of: Value) -> Filter {
        serde_json::from_value(of).unwrap()
    }

    #[test]
    fn every_event_has_the_name_that_requests_use() {
        for event in Event::ALL {
            assert_eq!(serde_json::to_value(event).unwrap(), event.name());
        }
    }

    #[test]
    fn what_is_not_said_may_be_anything() {
        let facts = Facts {
            model: Some("m"),
            stage: Some("Production"),
            ..Facts::default()
        };
        for (of, fits) in [
            (json!({}), true),
            (json!({"model": "m"}), true),
            (json!({"model": "n"}), false),
            (json!({"model": "m", "stage": "production"}), true),
            (json!({"model": "m", "stage": "Staging"}), false),
            (json!({"alias": "a"}), false),
        ] {
            assert_eq!(filter(of.clone()).fits(&facts), fits, "{of}");
        }
        let tag = Facts {
            tag: Some("t"),
            value: Some("1"),
            ..Facts::default()
        };
        assert!(filter(json!({"tag": "t", "value": "1"})).fits(&tag));
        assert!(!filter(json!({"tag": "t", "value": "2"})).fits(&tag));
    }

    #[test]
    fn a_filter_says_only_what_its_event_has() {
        let refused = [
            (Event::RunFinished, json!({"model": "m"})),
            (Event::RunFinished, json!({"experiment_id": "e"})),
            (Event::RunFinished, json!({"status": "RUNNING"})),
            (Event::StageTransitioned, json!({"stage": "Live"})),
            (Event::MetricThreshold, json!({})),
            (
                Event::MetricThreshold,
                json!({"metric": "m", "op": ">", "value": "1"}),
            ),
            (Event::TagSet, json!({"tag": "t", "value": 1})),
        ];
        for (event, of) in refused {
            assert!(filter(of.clone()).check(event).is_err(), "{of}");
        }
        let metric = json!({"metric": "m", "op": ">=", "value": 1, "experiment_id": "3"});
        assert!(filter(metric).check(Event::MetricThreshold).is_ok());
        assert!(serde_json::from_value::<Filter>(json!({"op": "=="})).is_err());
        assert!(serde_json::from_value::<Filter>(json!({"run": "r"})).is_err());
    }

    #[test]
    fn a_threshold_is_crossed_once_however_long_the_metric_stays_over_it() {
        let above = filter(json!({"metric": "m", "op": ">", "value": 1.0}));
        let points = |values: &[f64]| -> Vec<Point> {
            let steps = values.iter().enumerate();
            steps
                .map(|(step, value)| Point::new(10 + step as i64, 0, *value))
                .collect()
        };
        let steps = |latest: Option<f64>, values: &[f64]| -> Vec<i64> {
            let latest = latest.map(|value| Point::new(9, 0, value));
            let mut points = points(values);
            points.reverse();
            let found = above.crossings(latest.as_ref(), &points);
            found.iter().map(|point| point.step).collect()
        };
        assert_eq!(steps(None, &[2.0, 3.0]), [10]);
        assert_eq!(steps(Some(0.0), &[1.0, 2.0, 2.0, 0.0, 2.0]), [11, 14]);
        assert_eq!(steps(Some(2.0), &[2.0, 3.0]), [0_i64; 0]);
        assert_eq!(steps(Some(2.0), &[f64::NAN, 3.0, 0.5, f64::INFINITY]), [13]);
        // What was logged before is not news, nor is what belongs before it.
        let latest = Point::new(12, 0, 0.0);
        assert_eq!(above.crossings(Some(&latest), &points(&[2.0, 2.0, 0.0])), []);
    }
}
