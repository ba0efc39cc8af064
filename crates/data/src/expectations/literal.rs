//! Between JSON values and values of a column.

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use arrow::datatypes::DataType;
use datafusion::logical_expr::{Expr, lit};
use datafusion::scalar::ScalarValue;
use serde_json::{Value, json};
use tidemill_core::clock::Timestamp;

use crate::columns::is_text;

/// What kind of values a column holds, as far as comparing goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Integers, floats, decimals.
    Number,
    /// Texts.
    Text,
    /// True and false, compared as 1 and 0.
    Boolean,
    /// Timestamps and dates.
    Time,
}

/// A value that can be compared with its like.
#[derive(Debug, Clone, PartialEq, PartialOrd)]
pub enum Comparable {
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
    /// Microseconds since the epoch.
    Time(i64),
}

impl Family {
    /// The family of a type; `None` for lists, structs and bytes.
    pub fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Boolean => Some(Self::Boolean),
            DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64 => Some(Self::Time),
            DataType::Null => Some(Self::Number),
            t if t.is_numeric() => Some(Self::Number),
            t if is_text(t) => Some(Self::Text),
            DataType::Dictionary(_, value) => Self::of(value),
            _ => None,
        }
    }

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Text => "text",
            Self::Boolean => "true or false",
            Self::Time => "a time such as `2013-05-17T10:00:00`",
        }
    }

    /// A JSON value as one of this family; `None` if it is of another.
    pub fn parse(self, value: &Value) -> Option<Comparable> {
        match (self, value) {
            (Self::Number | Self::Boolean, Value::Number(n)) => n.as_f64().map(Comparable::Number),
            (Self::Number | Self::Boolean, Value::Bool(b)) => {
                Some(Comparable::Number(f64::from(u8::from(*b))))
            }
            (Self::Text, Value::String(s)) => Some(Comparable::Text(s.clone())),
            (Self::Time, Value::String(s)) => string_to_timestamp_nanos(s)
                .ok()
                .map(|nanos| Comparable::Time(nanos.div_euclid(1_000))),
            _ => None,
        }
    }
}

impl Comparable {
    /// As a literal for [`super::Kwargs::value`]. Whole numbers stay integers, so that large ones compare exactly.
    pub fn literal(&self) -> Expr {
        match self {
            Self::Number(n) if n.fract() == 0.0 && n.abs() < 9e15 => lit(*n as i64),
            Self::Number(n) => lit(*n),
            Self::Text(t) => lit(t.clone()),
            Self::Time(micros) => lit(ScalarValue::TimestampMicrosecond(
                Some(*micros),
                Some("+00:00".into()),
            )),
        }
    }

    /// A value of a column.
    pub fn of(value: &ScalarValue) -> Option<Self> {
        if value.is_null() {
            return None;
        }
        match value {
            ScalarValue::Utf8(Some(t)) | ScalarValue::LargeUtf8(Some(t)) | ScalarValue::Utf8View(Some(t)) => {
                Some(Self::Text(t.clone()))
            }
            ScalarValue::TimestampMicrosecond(Some(micros), _) => Some(Self::Time(*micros)),
            other => match other.cast_to(&DataType::Float64) {
                Ok(ScalarValue::Float64(Some(n))) => Some(Self::Number(n)),
                _ => None,
            },
        }
    }
}

/// A value of a column as JSON; times as ISO 8601, with `Z` where the column has a zone.
pub fn to_json(value: &ScalarValue) -> Value {
    if value.is_null() {
        return Value::Null;
    }
    match value {
        ScalarValue::Boolean(Some(b)) => json!(b),
        ScalarValue::Float64(Some(n)) => json!(n),
        ScalarValue::Float32(Some(n)) => json!(n),
        ScalarValue::Utf8(Some(t)) | ScalarValue::LargeUtf8(Some(t)) | ScalarValue::Utf8View(Some(t)) => {
            json!(t)
        }
        ScalarValue::Dictionary(_, inner) => to_json(inner),
        ScalarValue::UInt64(Some(n)) => json!(n),
        ScalarValue::Date32(Some(days)) => {
            json!(Timestamp::from_micros(i64::from(*days) * 86_400_000_000).day())
        }
        other => {
            let data_type = other.data_type();
            if let DataType::Timestamp(_, zone) = &data_type {
                let micros = other.cast_to(&crate::columns::utc_micros());
                if let Ok(ScalarValue::TimestampMicrosecond(Some(micros), _)) = micros {
                    let text = Timestamp::from_micros(micros).to_string();
                    let text = if zone.is_none() {
                        text.trim_end_matches('Z')
                    } else {
                        &text
                    };
                    return json!(text);
                }
            }
            if data_type.is_integer()
                && let Ok(ScalarValue::Int64(Some(n))) = other.cast_to(&DataType::Int64)
            {
                return json!(n);
            }
            if data_type.is_numeric()
                && let Ok(ScalarValue::Float64(Some(n))) = other.cast_to(&DataType::Float64)
            {
                return json!(n);
            }
            json!(other.to_string())
        }
    }
}
