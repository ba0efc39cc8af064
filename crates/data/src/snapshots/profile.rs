//! What a snapshot remembers of each column: what monitors compare later windows with.
//!
//! A numeric column: `{kind: "numeric", rows, nulls, distinct, mean, std, min, max, quantiles: {"0.01", "0.05", "0.25", "0.5", "0.75", "0.95",
//! "0.99"}, histogram: ReferenceHistogram, sample: ReferenceSample}`; `std` is the sample's (n − 1), quantiles are nearest ranks, and `sample`
//! is absent where no value is there. A categorical one: `{kind: "categorical", rows, nulls, distinct, top: [{value, count}] (20),
//! histogram}`. The label: `{kind: "label", task, rows, positive_rate}` (binary), `{…, classes: {name: share}}` (multiclass), or all of a
//! numeric column with `kind: "label"` (regression).

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use tidemill_core::frame::Column;
use tidemill_stats::StatsError;
use tidemill_stats::drift::histogram::DEFAULT_BINS;
use tidemill_stats::drift::{ReferenceHistogram, ReferenceSample, Sample};

use crate::columns::LabelColumn;
use crate::error::{DataError, Result};

const QUANTILES: [&str; 7] = ["0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99"];
const TOP: usize = 20;

fn failed(error: StatsError) -> DataError {
    DataError::Stored(format!("a column could not be profiled: {error}"))
}

/// The profile of a feature.
pub fn of_column(column: &Column) -> Result<Value> {
    match column {
        Column::Numeric(values) => of_numbers(values, "numeric").map(Value::Object),
        Column::Categorical(values) => {
            let texts: Vec<Option<&str>> = values.iter().map(|v| v.as_deref()).collect();
            of_texts(&texts)
        }
    }
}

fn of_numbers(values: &[f64], kind: &str) -> Result<Map<String, Value>> {
    let mut present: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
    present.sort_unstable_by(f64::total_cmp);
    let n = present.len();
    let mean = present.iter().sum::<f64>() / n as f64;
    let squares: f64 = present.iter().map(|v| (v - mean).powi(2)).sum();
    // -0.0 and 0.0 are one value.
    let distinct = usize::from(n > 0) + present.windows(2).filter(|w| w[0] != w[1]).count();
    let quantile = |name: &str| -> Value {
        let share: f64 = name.parse().unwrap_or(0.5);
        let rank = ((share * n as f64).ceil() as usize).clamp(1, n.max(1));
        present.get(rank - 1).map_or(Value::Null, |v| json!(v))
    };
    let quantiles: Map<String, Value> = QUANTILES.iter().map(|q| ((*q).to_owned(), quantile(q))).collect();
    let number = |value: f64| {
        if value.is_finite() {
            json!(value)
        } else {
            Value::Null
        }
    };
    let histogram =
        ReferenceHistogram::from_sample(&Sample::Numeric(values), DEFAULT_BINS).map_err(failed)?;
    let mut profile = Map::new();
    let mut put = |name: &str, value: Value| {
        profile.insert(name.to_owned(), value);
    };
    put("kind", json!(kind));
    put("rows", json!(values.len()));
    put("nulls", json!(values.len() - n));
    put("distinct", json!(distinct));
    put("mean", number(mean));
    put("std", number((squares / (n as f64 - 1.0)).sqrt()));
    put("min", present.first().map_or(Value::Null, |v| json!(v)));
    put("max", present.last().map_or(Value::Null, |v| json!(v)));
    put("quantiles", Value::Object(quantiles));
    put("histogram", serde_json::to_value(histogram)?);
    if n > 0 {
        let sample = ReferenceSample::from_values(values).map_err(failed)?;
        put("sample", serde_json::to_value(sample)?);
    }
    Ok(profile)
}

fn counts<'a>(texts: &[Option<&'a str>]) -> Vec<(&'a str, u64)> {
    let mut counts: HashMap<&str, u64> = HashMap::new();
    for text in texts.iter().flatten() {
        *counts.entry(text).or_default() += 1;
    }
    let mut sorted: Vec<(&str, u64)> = counts.into_iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    sorted
}

fn of_texts(texts: &[Option<&str>]) -> Result<Value> {
    let counts = counts(texts);
    let histogram =
        ReferenceHistogram::from_sample(&Sample::Categorical(texts), DEFAULT_BINS).map_err(failed)?;
    let top: Vec<Value> = counts
        .iter()
        .take(TOP)
        .map(|(value, count)| json!({ "value": value, "count": count }))
        .collect();
    Ok(json!({
        "kind": "categorical",
        "rows": texts.len(),
        "nulls": texts.iter().filter(|t| t.is_none()).count(),
        "distinct": counts.len(),
        "top": top,
        "histogram": serde_json::to_value(histogram)?,
    }))
}

/// The profile of the label.
pub fn of_label(labels: &LabelColumn) -> Result<Value> {
    Ok(match labels {
        LabelColumn::Binary(rows) => {
            let positive = rows.iter().filter(|v| **v == Some(true)).count();
            json!({
                "kind": "label",
                "task": "binary",
                "rows": rows.len(),
                "positive_rate": positive as f64 / rows.len().max(1) as f64,
            })
        }
        LabelColumn::Multiclass(rows) => {
            let texts: Vec<Option<&str>> = rows.iter().map(|v| v.as_deref()).collect();
            let shares: Map<String, Value> = counts(&texts)
                .into_iter()
                .map(|(class, count)| (class.to_owned(), json!(count as f64 / rows.len() as f64)))
                .collect();
            json!({ "kind": "label", "task": "multiclass", "rows": rows.len(), "classes": shares })
        }
        LabelColumn::Regression(rows) => {
            let values: Vec<f64> = rows.iter().map(|v| v.unwrap_or(f64::NAN)).collect();
            let mut profile = of_numbers(&values, "label")?;
            profile.insert("task".to_owned(), json!("regression"));
            Value::Object(profile)
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_profile_says_what_monitors_need() {
        let profile = of_column(&Column::Numeric(vec![3.0, f64::NAN, 1.0, 2.0])).unwrap();
        assert_eq!(profile["nulls"], 1);
        assert_eq!(profile["mean"], 2.0);
        assert_eq!(profile["std"], 1.0);
        assert_eq!(profile["quantiles"]["0.5"], 2.0);
        let histogram: ReferenceHistogram = serde_json::from_value(profile["histogram"].clone()).unwrap();
        assert_eq!(histogram.rows(), 4);
        let sample: ReferenceSample = serde_json::from_value(profile["sample"].clone()).unwrap();
        assert_eq!(sample.values(), [1.0, 2.0, 3.0]);
        let texts = Column::Categorical(vec![Some(Arc::from("b")), None, Some(Arc::from("b"))]);
        let profile = of_column(&texts).unwrap();
        assert_eq!(profile["top"][0], json!({"value": "b", "count": 2}));
    }

    #[test]
    fn a_column_without_values_still_has_a_profile() {
        let profile = of_column(&Column::Numeric(vec![f64::NAN; 3])).unwrap();
        assert_eq!(profile["mean"], Value::Null);
        assert_eq!(profile.get("sample"), None);
    }
}
