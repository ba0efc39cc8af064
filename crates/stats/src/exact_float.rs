//! Serialisation of `f64` that survives a round trip bit for bit.
//!
//! Persisted test state must replay to the same verdict. `serde_json` without its `float_roundtrip` feature may read a
//! number back one unit in the last place off; so text formats get the shortest decimal string (Rust's own
//! parser is correctly rounded) and binary formats the number itself. Use as `#[serde(with = "exact_float")]`.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// Writes a number as a decimal string (text formats) or as it is (binary formats).
pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        serializer.collect_str(&format_args!("{value:?}"))
    } else {
        serializer.serialize_f64(*value)
    }
}

/// Reads what [`serialize`] wrote.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    if deserializer.is_human_readable() {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|_| D::Error::custom(format!("`{text}` is not a number")))
    } else {
        f64::deserialize(deserializer)
    }
}

/// The same for a list of numbers.
pub mod list {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Exact(#[serde(with = "super")] f64);

    /// Writes each number exactly.
    pub fn serialize<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|value| Exact(*value)))
    }

    /// Reads what [`serialize`] wrote.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        let exact = Vec::<Exact>::deserialize(deserializer)?;
        Ok(exact.into_iter().map(|Exact(value)| value).collect())
    }
}
