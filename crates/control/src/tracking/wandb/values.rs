//! Values as W&B's client writes them, live and in its log. Pure functions.

use serde_json::Value;

pub use super::system::renamed;

/// MLflow's longest key.
const LONGEST_KEY: usize = 250;
/// MLflow's longest value of a parameter.
pub const LONGEST_PARAM: usize = 6_000;
/// MLflow's longest value of a tag.
pub const LONGEST_TAG: usize = 8_000;

/// Walks through nested objects. Media and tables are objects that say their `_type`: they are given as a whole.
pub fn each_leaf(name: &str, value: &Value, take: &mut impl FnMut(String, &Value)) {
    match value {
        Value::Object(inner) if !inner.contains_key("_type") => {
            for (key, value) in inner {
                each_leaf(&format!("{name}.{key}"), value, take);
            }
        }
        other => take(cut(name, LONGEST_KEY), other),
    }
}

/// A number as the client writes one; true and false are 1 and 0, as W&B draws them.
pub fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

/// A value as MLflow shows one: a text as it is, anything else as JSON.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A text of at most so many characters.
pub fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => text[..end].to_owned(),
        None => text.to_owned(),
    }
}
