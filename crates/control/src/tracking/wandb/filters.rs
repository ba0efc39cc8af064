//! The filters and orders of W&B's `Api.runs`: MongoDB's words over a run's documents. Pure functions.
//!
//! They are no part of the search grammar: configurations hold numbers and lists where parameters are texts, and there are `$or`, `$not` and
//! expressions. So they look at the documents of a project's runs, which are what the client compares with.

use std::cmp::Ordering;

use regex::Regex;
use serde_json::{Map, Value};
use tidemill_core::clock::Timestamp;
use tidemill_store::wandb::runs::WandbRun;

/// A filter that was read.
#[derive(Debug)]
pub(super) enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Box<Filter>),
    Field(String, Test),
}

#[derive(Debug)]
pub(super) enum Test {
    Equal(Value),
    Order(fn(Ordering) -> bool, Value),
    In(Vec<Value>),
    Exists(bool),
    Matches(Box<Regex>),
}

/// Reads a filter.
pub(super) fn read(filter: &Value) -> Result<Filter, String> {
    let Value::Object(map) = filter else {
        return Err(format!("a filter is an object, and not `{filter}`"));
    };
    let mut all = Vec::with_capacity(map.len());
    for (key, value) in map {
        all.push(match key.as_str() {
            "$and" => Filter::All(list(key, value)?),
            "$or" => Filter::Any(list(key, value)?),
            "$nor" => Filter::Not(Box::new(Filter::Any(list(key, value)?))),
            word if word.starts_with('$') => return Err(format!("the operator `{word}` is not known here")),
            field => of_field(field, value)?,
        });
    }
    Ok(Filter::All(all))
}

fn list(key: &str, value: &Value) -> Result<Vec<Filter>, String> {
    let items = value
        .as_array()
        .ok_or_else(|| format!("`{key}` takes a list of filters"))?;
    items.iter().map(read).collect()
}

fn of_field(field: &str, value: &Value) -> Result<Filter, String> {
    let operators = value
        .as_object()
        .filter(|map| map.keys().next().is_some_and(|key| key.starts_with('$')));
    match operators {
        None => Ok(Filter::Field(field.to_owned(), Test::Equal(value.clone()))),
        Some(map) => tests(field, map),
    }
}

fn tests(field: &str, operators: &Map<String, Value>) -> Result<Filter, String> {
    let mut all = Vec::with_capacity(operators.len());
    for (operator, value) in operators {
        let values = || {
            let listed = value.as_array().cloned();
            listed.ok_or_else(|| format!("`{operator}` of `{field}` takes a list"))
        };
        let (test, holds) = match operator.as_str() {
            "$eq" => (Test::Equal(value.clone()), true),
            "$ne" => (Test::Equal(value.clone()), false),
            "$gt" => (Test::Order(Ordering::is_gt, value.clone()), true),
            "$gte" => (Test::Order(Ordering::is_ge, value.clone()), true),
            "$lt" => (Test::Order(Ordering::is_lt, value.clone()), true),
            "$lte" => (Test::Order(Ordering::is_le, value.clone()), true),
            "$in" => (Test::In(values()?), true),
            "$nin" => (Test::In(values()?), false),
            "$exists" => (Test::Exists(value.as_bool() != Some(false)), true),
            "$regex" => {
                let pattern = value.as_str().unwrap_or_default();
                let read = Regex::new(pattern).map_err(|e| format!("`$regex` of `{field}`: {e}"))?;
                (Test::Matches(Box::new(read)), true)
            }
            "$not" => {
                all.push(Filter::Not(Box::new(of_field(field, value)?)));
                continue;
            }
            other => return Err(format!("the operator `{other}` of `{field}` is not known here")),
        };
        let one = Filter::Field(field.to_owned(), test);
        all.push(if holds { one } else { Filter::Not(Box::new(one)) });
    }
    Ok(Filter::All(all))
}

impl Filter {
    /// Whether a run passes.
    pub fn holds(&self, run: &WandbRun) -> bool {
        match self {
            Self::All(all) => all.iter().all(|one| one.holds(run)),
            Self::Any(any) => any.iter().any(|one| one.holds(run)),
            Self::Not(one) => !one.holds(run),
            Self::Field(field, test) => test.holds(&value_of(run, field)),
        }
    }
}

impl Test {
    fn holds(&self, found: &Value) -> bool {
        // A list has what one of its items has.
        let any = |test: &dyn Fn(&Value) -> bool| {
            test(found) || found.as_array().is_some_and(|items| items.iter().any(test))
        };
        match self {
            Self::Equal(value) => any(&|one| same(one, value)),
            Self::Order(fits, value) => any(&|one| compare(one, value).is_some_and(*fits)),
            Self::In(values) => values.iter().any(|value| any(&|one| same(one, value))),
            Self::Exists(there) => found.is_null() != *there,
            Self::Matches(pattern) => any(&|one| one.as_str().is_some_and(|text| pattern.is_match(text))),
        }
    }
}

fn same(a: &Value, b: &Value) -> bool {
    compare(a, b).map_or_else(|| a == b, Ordering::is_eq)
}

/// Numbers with numbers, times with times, texts with texts; nothing else has an order.
fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => match (time(a), time(b)) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => Some(a.cmp(b)),
        },
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// A time as W&B's users write one: with a zone, without, or a date alone.
fn time(text: &str) -> Option<Timestamp> {
    // Most texts are no times, and begin otherwise.
    if !text.as_bytes().first()?.is_ascii_digit() || text.as_bytes().get(4) != Some(&b'-') {
        return None;
    }
    let tries = [text.to_owned(), format!("{text}Z"), format!("{text}T00:00:00Z")];
    tries.iter().find_map(|text| text.parse().ok())
}

/// A value of a run's documents.
pub(super) fn value_of(run: &WandbRun, field: &str) -> Value {
    let text = |text: &str| {
        if text.is_empty() {
            Value::Null
        } else {
            Value::String(text.to_owned())
        }
    };
    if let Some(path) = field.strip_prefix("config.") {
        let whole = inside(&run.config, path).or_else(|| inside(&run.config, path.strip_suffix(".value")?));
        let value = whole.unwrap_or_default();
        return value.get("value").cloned().unwrap_or(value);
    }
    for prefix in ["summary_metrics.", "summaryMetrics.", "summary."] {
        if let Some(path) = field.strip_prefix(prefix) {
            return inside(&run.summary, path).unwrap_or_default();
        }
    }
    let time = |ms: i64| Value::String(Timestamp::from_micros(ms.saturating_mul(1_000)).to_string());
    match field {
        "name" | "id" => text(&run.at.name),
        "display_name" | "displayName" => text(&run.display_name),
        "state" => serde_json::to_value(run.state).unwrap_or_default(),
        "tags" => run.tags.clone(),
        "group" => text(&run.group),
        "job_type" | "jobType" => text(&run.job_type),
        "notes" | "description" => text(&run.notes),
        "sweep" | "sweepName" | "sweep_name" => run.sweep.as_deref().map_or(Value::Null, text),
        "user" | "username" | "entity" => text(&run.at.entity),
        "created_at" | "createdAt" => time(run.created_ms),
        "heartbeat_at" | "heartbeatAt" | "updated_at" | "updatedAt" => time(run.heartbeat_ms),
        "duration" => Value::from((run.heartbeat_ms - run.created_ms) as f64 / 1e3),
        _ => Value::Null,
    }
}

/// What a path with dots leads to. A key may hold dots itself, and a configuration hides its values under `value`.
fn inside(value: &Value, path: &str) -> Option<Value> {
    let map = value.as_object()?;
    if let Some(found) = map.get(path) {
        return Some(found.clone());
    }
    for (at, _) in path.match_indices('.') {
        let (key, rest) = (&path[..at], &path[at + 1..]);
        let Some(next) = map.get(key) else { continue };
        let found = inside(next, rest).or_else(|| inside(next.get("value")?, rest));
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Whether `order` goes upwards, and by what.
pub(super) fn order_of(order: &str) -> (bool, &str) {
    match order.as_bytes().first() {
        Some(b'-') => (false, &order[1..]),
        Some(b'+') => (true, &order[1..]),
        _ => (true, order),
    }
}

/// The order of two values; what is missing comes last, whichever way.
pub(super) fn ordered(a: &Value, b: &Value, upwards: bool) -> Ordering {
    match (a.is_null(), b.is_null()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => {
            let order = compare(a, b).unwrap_or_else(|| a.to_string().cmp(&b.to_string()));
            if upwards { order } else { order.reverse() }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidemill_store::wandb::runs::{WandbName, WandbState};

    use super::*;

    fn run() -> WandbRun {
        WandbRun {
            run_id: "0".repeat(32),
            at: WandbName {
                workspace: "default".to_owned(),
                entity: "ada".to_owned(),
                project: "p".to_owned(),
                name: "r1".to_owned(),
            },
            display_name: "quiet-sea-7".to_owned(),
            config: json!({ "lr": { "value": 0.1 }, "net": { "value": { "layers": [1, 2], "act": "relu" } }, "a.b": { "value": 3 } }),
            summary: json!({ "loss": 0.25, "val": { "acc": 0.9 }, "odd/name": 1 }),
            tags: json!(["good", "old"]),
            notes: String::new(),
            group: "g".to_owned(),
            job_type: String::new(),
            sweep: None,
            state: WandbState::Finished,
            exit_code: Some(0),
            created_ms: 1_700_000_000_000,
            heartbeat_ms: 1_700_000_060_000,
            history_lines: 0,
            events_lines: 0,
            log_lines: 0,
            history_tail: String::new(),
            events_tail: String::new(),
            stop_requested: false,
        }
    }

    #[test]
    fn filters_hold_as_in_mongodb() {
        let cases = [
            (json!({}), true),
            (json!({ "config.lr": 0.1 }), true),
            (json!({ "config.lr.value": { "$gt": 0.05, "$lte": 0.1 } }), true),
            (json!({ "config.net.act": "relu" }), true),
            (json!({ "config.net.value.act": { "$regex": "^re" } }), true),
            (json!({ "config.net.layers": 2 }), true),
            (json!({ "config.a.b": 3 }), true),
            (json!({ "config.nothing": { "$exists": false } }), true),
            (json!({ "config.nothing": { "$gt": 0 } }), false),
            (json!({ "summary_metrics.loss": { "$lt": 0.2 } }), false),
            (json!({ "summary_metrics.val.acc": { "$gte": 0.9 } }), true),
            (json!({ "summary_metrics.odd/name": 1 }), true),
            (json!({ "tags": "good" }), true),
            (json!({ "tags": { "$in": ["new", "old"] } }), true),
            (json!({ "tags": { "$nin": ["old"] } }), false),
            (json!({ "state": { "$ne": "running" } }), true),
            (
                json!({ "$or": [{ "state": "crashed" }, { "display_name": { "$regex": "sea" } }] }),
                true,
            ),
            (
                json!({ "$and": [{ "state": "finished" }, { "group": "h" }] }),
                false,
            ),
            (json!({ "$nor": [{ "group": "h" }] }), true),
            (json!({ "group": { "$not": { "$regex": "^g" } } }), false),
            (
                json!({ "created_at": { "$gt": "2023-11-14", "$lt": "2023-11-15T00:00:00" } }),
                true,
            ),
            (json!({ "createdAt": { "$gte": "2023-11-15T00:00:00Z" } }), false),
            (json!({ "name": "r1", "username": "ada" }), true),
        ];
        for (filter, holds) in cases {
            assert_eq!(read(&filter).unwrap().holds(&run()), holds, "{filter}");
        }
    }

    #[test]
    fn what_is_no_filter_says_what_is_wrong() {
        for (filter, said) in [
            (json!([]), "an object"),
            (json!({ "$where": "1" }), "`$where`"),
            (json!({ "a": { "$near": 1 } }), "`$near`"),
            (json!({ "a": { "$in": 1 } }), "takes a list"),
            (json!({ "a": { "$regex": "(" } }), "`a`"),
            (json!({ "$or": {} }), "list of filters"),
        ] {
            let error = read(&filter).map(|_| ()).unwrap_err();
            assert!(error.contains(said), "{filter}: {error}");
        }
    }

    #[test]
    fn what_is_missing_comes_last_whichever_way() {
        let mut values = [json!(2), json!(null), json!(1)];
        values.sort_by(|a, b| ordered(a, b, false));
        assert_eq!(values, [json!(2), json!(1), json!(null)]);
        assert_eq!(order_of("-summary_metrics.loss"), (false, "summary_metrics.loss"));
        assert_eq!(order_of("+created_at"), (true, "created_at"));
    }
}
