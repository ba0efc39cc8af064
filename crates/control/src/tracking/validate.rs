//! What names and values of MLflow's may be, and the words in which others are refused.

use std::fmt::Write as _;

use tidemill_store::tracking::metrics::NewMetric;

use super::{Result, TrackingError};

/// The most metrics of a batch.
pub(crate) const MAX_METRICS_PER_BATCH: usize = 1_000;
/// The most parameters and the most tags of a batch.
pub(crate) const MAX_PARAMS_TAGS_PER_BATCH: usize = 100;
/// The most of all of them together.
pub(crate) const MAX_ENTITIES_PER_BATCH: usize = 1_000;
/// The longest key of a metric, a parameter or a tag, in characters.
pub(crate) const MAX_KEY: usize = 250;
/// The longest value of a parameter; what is longer is cut, as MLflow's server does.
pub(crate) const MAX_PARAM_VALUE: usize = 6_000;
/// The longest value of a run's tag; what is longer is cut.
pub(crate) const MAX_TAG_VALUE: usize = 8_000;
/// The longest value of an experiment's tag, as MLflow 3.17 has it.
pub(crate) const MAX_EXPERIMENT_TAG_VALUE: usize = 20_000;
/// The longest name of an experiment.
pub(crate) const MAX_EXPERIMENT_NAME: usize = 500;
/// The longest location of artifacts.
pub(crate) const MAX_LOCATION: usize = 2_048;

const BAD_CHARACTERS: &str = "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), \
                              colon(:) and slashes (/).";

/// A text as Python's `json.dumps` writes it.
fn python_json(text: &str) -> String {
    let mut written = String::with_capacity(text.len() + 2);
    for character in serde_json::Value::from(text).to_string().chars() {
        if character.is_ascii() {
            written.push(character);
        } else {
            let mut units = [0_u16; 2];
            for unit in character.encode_utf16(&mut units) {
                // Writing to a text cannot fail.
                let _ = write!(written, "\\u{unit:04x}");
            }
        }
    }
    written
}

/// A text as Python shows it in a list.
pub(crate) fn python_repr(text: &str) -> String {
    if text.contains('\'') && !text.contains('"') {
        format!("\"{text}\"")
    } else {
        format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
    }
}

fn python_float(value: f64) -> String {
    if value.is_nan() {
        "nan".to_owned()
    } else {
        format!("{value:?}")
    }
}

fn invalid_value(path: &str, value: &str, why: &str) -> TrackingError {
    TrackingError::invalid(format!(
        "Invalid value {value} for parameter '{path}' supplied: {why}"
    ))
}

/// The id of a run.
pub(crate) fn run_id(run_id: &str) -> Result<()> {
    let first = run_id.chars().next();
    let fits = first.is_some_and(|c| c.is_ascii_alphanumeric())
        && run_id.chars().count() <= 256
        && run_id
            .chars()
            .all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    if fits {
        return Ok(());
    }
    let value = python_json(run_id);
    Err(TrackingError::invalid(format!(
        "Invalid value {value} for parameter 'run_id' supplied."
    )))
}

/// The name of a metric, the key of a parameter or of a tag, at `path` of the request.
pub(crate) fn key(name: &str, path: &str) -> Result<()> {
    let fits = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        || name
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '/' | '_' | '.' | '-' | ' ' | ':'));
    if !fits {
        return Err(invalid_value(path, &python_json(name), BAD_CHARACTERS));
    }
    if name.contains(['/', '.']) || name.is_empty() {
        let resolved = normal_path(name);
        if resolved != name || resolved == "." || resolved.starts_with("..") || resolved.starts_with('/') {
            let why = format!(
                "Names may be treated as files in certain cases, and must not resolve to other names when treated as such. \
                 This name would resolve to {}",
                python_repr(&resolved)
            );
            return Err(invalid_value(path, &python_json(name), &why));
        }
    }
    Ok(())
}

/// A path without `.`, `..` and doubled slashes, as Python's `posixpath.normpath` gives it.
fn normal_path(path: &str) -> String {
    if path.is_empty() {
        return ".".to_owned();
    }
    let slashes = path.bytes().take_while(|b| *b == b'/').count();
    let root = match slashes {
        0 => "",
        2 => "//",
        _ => "/",
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if !root.is_empty() => {}
            part => parts.push(part),
        }
    }
    let joined = format!("{root}{}", parts.join("/"));
    if joined.is_empty() { ".".to_owned() } else { joined }
}

/// A text that is not too long.
pub(crate) fn length(what: &str, limit: usize, value: &str) -> Result<()> {
    if value.len() <= limit || value.chars().count() <= limit {
        return Ok(());
    }
    Err(TrackingError::invalid(format!(
        "'{what}' exceeds the maximum length of {limit} characters"
    )))
}

/// Cuts a text that is too long.
pub(crate) fn cut(what: &str, limit: usize, value: &mut String) {
    if value.len() <= limit {
        return;
    }
    if let Some((end, _)) = value.char_indices().nth(limit) {
        tracing::warn!(what, limit, "cut a value to the longest length that is kept");
        value.truncate(end);
    }
}

/// A point of a metric, at `path` of the request.
pub(crate) fn metric(metric: &NewMetric, path: &str) -> Result<()> {
    let at = |field: &str| {
        if path.is_empty() {
            field.to_owned()
        } else {
            format!("{path}.{field}")
        }
    };
    // Names repeat thousands of times: the path is only written for those that are refused.
    if key(&metric.key, "").is_err() {
        key(&metric.key, &at("name"))?;
    }
    let timestamp = metric.point.at_ms;
    if timestamp < 0 {
        let why = format!(
            "metric '{}' (value={}). Timestamp must be a nonnegative long (64-bit integer) ",
            metric.key,
            python_float(metric.point.told())
        );
        return Err(invalid_value(&at("timestamp"), &timestamp.to_string(), &why));
    }
    if metric.dataset_name.is_some() != metric.dataset_digest.is_some() {
        return Err(TrackingError::invalid(
            "Both dataset_name and dataset_digest must be provided if one is provided",
        ));
    }
    length("Metric name", MAX_KEY, &metric.key)
}

/// A parameter; a value that is too long is cut.
pub(crate) fn param((key_text, value): &mut (String, String), path: &str) -> Result<()> {
    key(key_text, path)?;
    length("Param key", MAX_KEY, key_text)?;
    cut("Param value", MAX_PARAM_VALUE, value);
    Ok(())
}

/// A run's tag, whose key and value are at these paths of the request; a value that is too long is cut.
pub(crate) fn tag((key_text, value): &mut (String, String), path: &str) -> Result<()> {
    key(key_text, path)?;
    length(path, MAX_KEY, key_text)?;
    cut("value", MAX_TAG_VALUE, value);
    Ok(())
}

/// How many of something a batch holds.
pub(crate) fn batch_limit(what: &str, limit: usize, count: usize) -> Result<()> {
    if count <= limit {
        return Ok(());
    }
    Err(TrackingError::invalid(format!(
        "A batch logging request can contain at most {limit} {what}. Got {count} {what}. Please split up {what} across multiple \
         requests and try again."
    )))
}

/// The name of an experiment.
pub(crate) fn experiment_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(TrackingError::invalid("Invalid experiment name: ''"));
    }
    length("name", MAX_EXPERIMENT_NAME, name)
}

/// The id of an experiment; empty for the default one.
pub(crate) fn experiment_id(id: &str) -> Result<i64> {
    if id.is_empty() {
        return Ok(tidemill_store::tracking::experiments::DEFAULT_ID);
    }
    id.trim().parse().map_err(|_| {
        TrackingError::invalid(format!(
            "Invalid experiment ID '{id}'. Experiment ID must be a valid integer."
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_resolve_to_other_names_are_refused_with_what_they_resolve_to() {
        for (name, resolved) in [
            ("a/../b", "b"),
            ("./a", "a"),
            ("a//b", "a/b"),
            ("../a", "../a"),
            ("/a", "/a"),
            (".", "."),
            ("", "."),
            ("a/", "a"),
        ] {
            let message = key(name, "name").unwrap_err().to_string();
            assert!(
                message.ends_with(&format!("This name would resolve to '{resolved}'")),
                "{name}: {message}"
            );
        }
        for name in ["a", "a/b.c", "ä b", "a:b", "..a"] {
            let found = key(name, "name");
            assert_eq!(found.is_err(), name == "..a", "{name}");
        }
        assert_eq!(
            key("a$", "metrics[0].name").unwrap_err().to_string(),
            "Invalid value \"a$\" for parameter 'metrics[0].name' supplied: Names may only contain alphanumerics, underscores (_), \
             dashes (-), periods (.), spaces ( ), colon(:) and slashes (/)."
        );
    }

    #[test]
    fn lengths_count_characters() {
        assert!(length("x", 3, "äöü").is_ok());
        assert!(length("x", 2, "äöü").is_err());
        let mut value = "äöü".to_owned();
        cut("x", 2, &mut value);
        assert_eq!(value, "äö");
    }

    #[test]
    fn texts_are_shown_as_python_shows_them() {
        assert_eq!(python_json("ä\"😀"), r#""\u00e4\"\ud83d\ude00""#);
        assert_eq!(python_repr("it's"), "\"it's\"");
        assert_eq!(python_repr("a"), "'a'");
    }
}
