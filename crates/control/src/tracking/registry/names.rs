//! What names, tags and aliases may look like, and MLflow's words for what is wrong with them.

use crate::tracking::{Result, TrackingError};

const MAX_TAG_KEY: usize = 250;
const MAX_TAG_VALUE: usize = 100_000;
const MAX_ALIAS: usize = 255;
/// Wider than MLflow's own column, which only some databases hold it to.
const MAX_MODEL_NAME: usize = 256;

/// The stages, in MLflow's order.
pub(super) const STAGES: [&str; 4] = ["None", "Staging", "Production", "Archived"];

fn limit(what: &str, limit: usize, text: &str) -> Result<()> {
    if text.chars().count() <= limit {
        return Ok(());
    }
    Err(TrackingError::invalid(format!(
        "'{what}' exceeds the maximum length of {limit} characters"
    )))
}

/// A model's name, new or looked up.
pub(super) fn model_name(name: &str, parameter: &str) -> Result<()> {
    if name.is_empty() {
        return Err(TrackingError::invalid(format!(
            "Missing value for required parameter '{parameter}'."
        )));
    }
    limit(parameter, MAX_MODEL_NAME, name)
}

/// A model's new name: one that fits into a `models:/` URI and names one folder, as MLflow 3.17 wants it.
pub(super) fn new_model_name(name: &str, parameter: &str) -> Result<()> {
    model_name(name.trim(), parameter)?;
    model_name(name, parameter)?;
    if name.contains(['/', ':']) {
        return Err(TrackingError::invalid(format!(
            "Invalid model name '{name}'. Names cannot contain '/' or ':'."
        )));
    }
    if name == "." || name == ".." {
        return Err(TrackingError::invalid(format!(
            "Invalid value \"{name}\" for parameter 'name' supplied: Names may be treated as files in certain cases, and must not \
             resolve to other names when treated as such. This name would resolve to '{name}'"
        )));
    }
    Ok(())
}

/// A tag's key and value.
pub(super) fn tag(key: &str, value: &str) -> Result<()> {
    tag_key(key)?;
    limit("key", MAX_TAG_KEY, key)?;
    limit("value", MAX_TAG_VALUE, value)
}

/// A tag's key.
pub(super) fn tag_key(key: &str) -> Result<()> {
    let wrong = |reason: String| {
        let quoted = serde_json::Value::String(key.to_owned());
        TrackingError::invalid(format!(
            "Invalid value {quoted} for parameter 'key' supplied: {reason}"
        ))
    };
    let fits = |c: char| c.is_alphanumeric() || "_/.- :".contains(c);
    if !key.chars().all(fits) {
        return Err(wrong(
            "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), colon(:) and slashes (/)."
                .to_owned(),
        ));
    }
    let normal = normal_path(key);
    if normal != key || normal == "." || normal.starts_with("..") || normal.starts_with('/') {
        return Err(wrong(format!(
            "Names may be treated as files in certain cases, and must not resolve to other names when treated as such. \
             This name would resolve to '{normal}'"
        )));
    }
    Ok(())
}

/// Python's `posixpath.normpath`.
fn normal_path(path: &str) -> String {
    if path.is_empty() {
        return ".".to_owned();
    }
    let root = if path.starts_with("//") && !path.starts_with("///") {
        "//"
    } else if path.starts_with('/') {
        "/"
    } else {
        ""
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
    let normal = format!("{root}{}", parts.join("/"));
    if normal.is_empty() { ".".to_owned() } else { normal }
}

/// An alias that is looked up or removed.
pub(super) fn alias(alias: &str) -> Result<()> {
    if alias.is_empty() {
        return Err(TrackingError::invalid(
            "Registered model alias name cannot be empty.",
        ));
    }
    if !alias.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-') {
        return Err(TrackingError::invalid(format!(
            "Invalid alias name: '{alias}'. Names may only contain alphanumerics, underscores (_), and dashes (-)."
        )));
    }
    limit("Registered model alias name", MAX_ALIAS, alias)
}

/// An alias that is set: some words are MLflow's own.
pub(super) fn new_alias(name: &str) -> Result<()> {
    alias(name)?;
    if name.eq_ignore_ascii_case("latest") {
        return Err(TrackingError::invalid(
            "'latest' alias name (case insensitive) is reserved.",
        ));
    }
    let digits = name.strip_prefix(['v', 'V']).unwrap_or_default();
    if !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()) {
        return Err(TrackingError::invalid(format!(
            "Version alias name '{name}' is reserved."
        )));
    }
    Ok(())
}

/// A version's number.
pub(super) fn version(text: &str) -> Result<i64> {
    text.trim()
        .parse()
        .map_err(|_| TrackingError::invalid(format!("Parameter 'version' must be an integer, got '{text}'.")))
}

/// A stage in any spelling of its letters.
pub(super) fn stage(text: &str) -> Result<&'static str> {
    let found = STAGES.into_iter().find(|stage| stage.eq_ignore_ascii_case(text));
    found.ok_or_else(|| {
        TrackingError::invalid(format!(
            "Invalid Model Version stage: {text}. Value must be one of {}.",
            STAGES.join(", ")
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_must_not_look_like_other_files() {
        for good in ["a", "a/b", "a.b", "a: b", "ключ"] {
            assert!(tag_key(good).is_ok(), "{good}");
        }
        for bad in ["../a", "a/../b", "/a", "a//b", "./a", ".", "a/", "a\"b", "a?b"] {
            assert!(tag_key(bad).is_err(), "{bad}");
        }
        assert!(tag("a", &"x".repeat(100_001)).is_err());
        assert!(tag("a", &"ä".repeat(100_000)).is_ok());
    }

    #[test]
    fn aliases_that_mean_a_version_are_reserved() {
        for bad in ["latest", "Latest", "v1", "V12", "a b", "a.b", ""] {
            assert!(new_alias(bad).is_err(), "{bad}");
        }
        for good in ["champion", "v", "v1a", "a-b_c"] {
            assert!(new_alias(good).is_ok(), "{good}");
        }
        assert!(alias("latest").is_ok());
    }
}
