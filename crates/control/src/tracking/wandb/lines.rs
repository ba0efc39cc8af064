//! What W&B's client writes, read: lines of history, configurations and summaries. Pure functions.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::values::{LONGEST_PARAM, cut, each_leaf, number, shown};

/// Numbers by flat names.
pub(super) type Numbers = Vec<(String, f64)>;

/// A line of history or of system metrics.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Line {
    /// The run's own count, if it says so.
    pub step: Option<i64>,
    /// Milliseconds since the epoch, if it says so.
    pub at_ms: Option<i64>,
    /// Numbers by flat names.
    pub numbers: Numbers,
}

/// Reads a JSON object in which numbers may be `NaN` or `Infinity`, as Python and W&B's Go client write them.
pub(super) fn parse(text: &str) -> Option<Map<String, Value>> {
    let read = |text: &str| match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Some(map),
        _ => None,
    };
    read(text).or_else(|| match quote_constants(text) {
        Cow::Owned(quoted) => read(&quoted),
        Cow::Borrowed(_) => None,
    })
}

/// Puts quotes around the constants that JSON does not know.
fn quote_constants(text: &str) -> Cow<'_, str> {
    let mut quoted = String::new();
    let (mut rest, mut in_string) = (text, false);
    while let Some(character) = rest.chars().next() {
        let mut taken = character.len_utf8();
        if in_string {
            if character == '\\' {
                taken += rest[1..].chars().next().map_or(0, char::len_utf8);
            }
            in_string = character != '"';
            quoted.push_str(&rest[..taken]);
        } else if let Some(word) = ["NaN", "-Infinity", "+Infinity", "Infinity"]
            .into_iter()
            .find(|w| rest.starts_with(w))
        {
            taken = word.len();
            quoted.push('"');
            quoted.push_str(word.trim_start_matches('+'));
            quoted.push('"');
        } else {
            in_string = character == '"';
            quoted.push(character);
        }
        rest = &rest[taken..];
    }
    if quoted == text {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(quoted)
    }
}

/// Reads a line of history. What the client keeps for itself begins with `_`.
pub(super) fn read(text: &str) -> Option<Line> {
    let map = parse(text)?;
    let mut numbers = Vec::new();
    for (name, value) in map.iter().filter(|(name, _)| !name.starts_with('_')) {
        each_leaf(name, value, &mut |name, value| {
            numbers.extend(number(value).map(|number| (name, number)));
        });
    }
    let seconds = map
        .get("_timestamp")
        .and_then(number)
        .filter(|seconds| seconds.is_finite());
    Some(Line {
        step: map.get("_step").and_then(Value::as_i64),
        at_ms: seconds.map(|seconds| (seconds * 1e3).round() as i64),
        numbers,
    })
}

/// The parameters of a configuration `{"name": {"value": …}}`.
pub(super) fn params(config: &Value) -> Vec<(String, String)> {
    let mut params = Vec::new();
    for (name, entry) in config.as_object().into_iter().flatten() {
        if name.starts_with('_') {
            continue;
        }
        let value = entry.get("value").unwrap_or(entry);
        each_leaf(name, value, &mut |name, value| {
            params.push((name, cut(&shown(value), LONGEST_PARAM)));
        });
    }
    params
}

/// What a summary says: numbers, and everything else as text.
pub(super) fn summary(summary: &Map<String, Value>) -> (Numbers, Vec<(String, String)>) {
    let (mut numbers, mut texts) = (Vec::new(), Vec::new());
    for (name, value) in summary.iter().filter(|(name, _)| !name.starts_with('_')) {
        each_leaf(name, value, &mut |name, value| match number(value) {
            Some(number) => numbers.push((name, number)),
            None if value.is_null() => {}
            None => texts.push((name, shown(value))),
        });
    }
    (numbers, texts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_of_history_is_read_with_pythons_constants_and_nested_names() {
        let text = r#"{"_step": 7, "_timestamp": 1700000000.1234, "_runtime": 3, "loss": NaN, "up": Infinity, "down": "-Infinity",
            "nested": {"a": {"b": 2}}, "ok": true, "said": "NaN \" Infinity", "image": {"_type": "image-file", "width": 3}}"#;
        let line = read(text).unwrap();
        assert_eq!((line.step, line.at_ms), (Some(7), Some(1_700_000_000_123)));
        let names: Vec<&str> = line.numbers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["loss", "up", "down", "nested.a.b", "ok"]);
        assert!(line.numbers[0].1.is_nan());
        assert_eq!(line.numbers[2].1, f64::NEG_INFINITY);
        assert_eq!(line.numbers[3].1, 2.0);
    }

    #[test]
    fn what_is_no_object_is_no_line() {
        assert_eq!(read("[1]"), None);
        assert_eq!(read("NaN"), None);
        assert_eq!(read("{\"a\": "), None);
    }

    #[test]
    fn a_configuration_becomes_flat_parameters() {
        let config = json!({
            "_wandb": {"value": {"cli_version": "0.31.0"}},
            "lr": {"value": 0.1, "desc": null},
            "model": {"value": {"name": "mlp", "layers": [1, 2]}},
        });
        let expected = [("lr", "0.1"), ("model.name", "mlp"), ("model.layers", "[1,2]")];
        assert_eq!(
            params(&config),
            expected.map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
        let long = json!({"text": {"value": "ä".repeat(7_000)}});
        assert_eq!(params(&long)[0].1.chars().count(), 6_000);
    }

    #[test]
    fn a_summary_falls_into_numbers_and_texts() {
        let map = json!({"loss": {"min": 0.5}, "best": "a", "_step": 3, "table": {"_type": "table-file"}});
        let (numbers, texts) = summary(map.as_object().unwrap());
        assert_eq!(numbers, [("loss.min".to_owned(), 0.5)]);
        assert_eq!(texts.len(), 2);
    }
}
