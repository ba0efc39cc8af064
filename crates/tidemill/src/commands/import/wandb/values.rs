//! Values as W&B writes them.

use serde_json::Value as Json;

/// Walks through nested objects. Media and tables are objects that say their `_type`: they are given as a whole.
pub fn each_leaf(name: &str, value: &Json, take: &mut impl FnMut(String, &Json)) {
    match value {
        Json::Object(inner) if !inner.contains_key("_type") => {
            for (key, value) in inner {
                each_leaf(&format!("{name}.{key}"), value, take);
            }
        }
        other => take(cut(name, 250), other),
    }
}

/// A number as W&B writes one; true and false are 1 and 0, as it draws them.
pub fn number(value: &Json) -> Option<f64> {
    match value {
        Json::Number(number) => number.as_f64(),
        Json::Bool(flag) => Some(f64::from(u8::from(*flag))),
        Json::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

/// A text as it is, anything else as JSON.
pub fn shown(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A text of at most so many characters.
pub fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

/// A text, or what stands for an empty one.
pub fn or(text: &str, otherwise: &str) -> String {
    if text.is_empty() { otherwise } else { text }.to_owned()
}
