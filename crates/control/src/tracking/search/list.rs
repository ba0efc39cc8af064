//! A list of texts in parentheses, as Python writes one.

use crate::tracking::{Result, TrackingError};

/// Reads `('a', "b")`.
pub(super) fn texts(raw: &str) -> Result<Vec<String>> {
    let inner = raw
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'))
        .unwrap_or(raw);
    let mut texts = Vec::new();
    let mut other = false;
    let mut expects_item = true;
    let mut rest = inner.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            ',' if expects_item => return Err(ill_formed()),
            ',' => {
                expects_item = true;
                1
            }
            _ if !expects_item => return Err(ill_formed()),
            '\'' | '"' => {
                let (text, length) = text(rest, first).ok_or_else(ill_formed)?;
                texts.push(text);
                expects_item = false;
                length
            }
            _ => {
                other = true;
                expects_item = false;
                rest.find(',').unwrap_or(rest.len())
            }
        };
        rest = rest[length..].trim_start();
    }
    if other {
        return Err(TrackingError::invalid(format!(
            "While parsing a list in the query, expected string value, punctuation, or whitespace, \
             but got different type in list: {raw}"
        )));
    }
    if texts.is_empty() {
        return Err(TrackingError::invalid(
            "While parsing a list in the query, expected a non-empty list of string values, but got empty list",
        ));
    }
    Ok(texts)
}

fn ill_formed() -> TrackingError {
    TrackingError::invalid(
        "While parsing a list in the query, expected a non-empty list of string values, but got ill-formed list.",
    )
}

/// A text in quotes, and its length with them.
fn text(raw: &str, quote: char) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut signs = raw.char_indices().skip(1);
    while let Some((at, sign)) = signs.next() {
        if sign == quote {
            return Some((text, at + 1));
        }
        if sign != '\\' {
            text.push(sign);
            continue;
        }
        match signs.next()?.1 {
            'n' => text.push('\n'),
            't' => text.push('\t'),
            'r' => text.push('\r'),
            sign @ ('\\' | '\'' | '"') => text.push(sign),
            sign => text.extend(['\\', sign]),
        }
    }
    None
}
