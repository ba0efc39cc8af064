//! A length of time as people write it: `90s`, `15m`, `12h`, `14d`, `2w`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A length of time, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(i64);

impl Span {
    /// No time.
    pub const ZERO: Self = Self(0);
    /// Twenty-four hours.
    pub const DAY: Self = Self::from_micros(86_400_000_000);
    /// Sixty minutes.
    pub const HOUR: Self = Self::from_micros(3_600_000_000);

    /// From microseconds.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// So many days.
    pub const fn days(days: i64) -> Self {
        Self(days * Self::DAY.0)
    }

    /// In microseconds.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// In days.
    pub fn as_days(self) -> f64 {
        self.0 as f64 / Self::DAY.0 as f64
    }
}

const UNITS: [(&str, i64); 6] = [
    ("w", 604_800_000_000),
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
];

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        // Weeks are accepted but written as days, the unit that reports use.
        for (unit, micros) in &UNITS[1..] {
            if self.0 % micros == 0 {
                return write!(f, "{}{unit}", self.0 / micros);
            }
        }
        write!(f, "{}ms", self.0 / 1_000)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a length of time.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is not a length of time: expected a number and a unit, such as `90s`, `15m`, `12h`, `14d` or `2w`"
)]
pub struct SpanError(String);

impl FromStr for Span {
    type Err = SpanError;
    fn from_str(text: &str) -> Result<Self, SpanError> {
        let wrong = || SpanError(text.to_owned());
        let text = text.trim();
        let digits = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let number: f64 = text[..digits].parse().map_err(|_| wrong())?;
        let (_, micros) = UNITS
            .iter()
            .find(|(unit, _)| *unit == text[digits..].trim())
            .ok_or_else(wrong)?;
        Ok(Self((number * *micros as f64).round() as i64))
    }
}

impl Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A length of time: a number and one of ms, s, m, h, d, w.",
            "pattern": r"^[0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d|w)$",
            "examples": ["14d", "12h", "15m"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_written_as_people_do() {
        for (text, micros, written) in [
            ("14d", 14 * 86_400_000_000, "14d"),
            ("2w", 14 * 86_400_000_000, "14d"),
            ("1.5h", 5_400_000_000, "90m"),
            ("0s", 0, "0s"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.as_micros(), span.to_string().as_str()), (micros, written));
        }
        assert!(
            "soon".parse::<Span>().is_err() && "3".parse::<Span>().is_err() && "3y".parse::<Span>().is_err()
        );
    }
}
