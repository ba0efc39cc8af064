//! The part of JSONPath that `SageMaker`'s batch transform knows: names, indices, slices, and `*`. No descents, no filters.

use serde_json::{Map, Value};

use super::error::{BatchError, Result};

/// A path into a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// The value of a name.
    Name(String),
    /// An object of some names.
    Names(Vec<String>),
    /// An item; from the end if negative.
    Index(i64),
    /// A list of some items.
    Indices(Vec<i64>),
    /// A list of the items from one up to, without, another.
    Slice(Option<i64>, Option<i64>),
    /// Every item, or every value.
    All,
}

fn refused(path: &str, why: &str) -> BatchError {
    BatchError::refused(format!(
        "the filter `{path}` is not understood: {why}; known are `$`, `.name`, `['name']`, `['a','b']`, `[0]`, `[0,2]`, `[1:3]` and `*`"
    ))
}

impl JsonPath {
    /// Reads a path.
    pub fn parse(path: &str) -> Result<Self> {
        let Some(mut rest) = path.trim().strip_prefix('$') else {
            return Err(refused(path, "it does not begin with `$`"));
        };
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if rest.starts_with("..") {
                return Err(refused(path, "`..` looks at every depth"));
            }
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                let name = &after[..end];
                match name {
                    "" => return Err(refused(path, "a name is missing")),
                    "*" => steps.push(Step::All),
                    name => steps.push(Step::Name(name.to_owned())),
                }
                rest = &after[end..];
            } else if let Some(after) = rest.strip_prefix('[') {
                let end = closing(after).ok_or_else(|| refused(path, "a `]` is missing"))?;
                steps.push(bracket(path, after[..end].trim())?);
                rest = &after[end + 1..];
            } else {
                return Err(refused(path, &format!("`{rest}` is no step")));
            }
        }
        Ok(Self { steps })
    }

    /// Whether it takes a record as it is.
    pub fn is_whole(&self) -> bool {
        self.steps.is_empty()
    }

    /// What it takes of a record; `None` if there is nothing there.
    pub fn take(&self, record: &Value) -> Option<Value> {
        take(&self.steps, record)
    }
}

/// Where a bracket ends, outside of quotes.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, character) in text.char_indices() {
        match (quote, character) {
            (None, ']') => return Some(at),
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), close) if open == close => quote = None,
            _ => {}
        }
    }
    None
}

fn bracket(path: &str, inside: &str) -> Result<Step> {
    let number = |text: &str| {
        text.trim()
            .parse::<i64>()
            .map_err(|_| refused(path, &format!("`{text}` is no whole number")))
    };
    if inside == "*" {
        return Ok(Step::All);
    }
    if inside.starts_with(['\'', '"']) {
        let mut names = Vec::new();
        let mut rest = inside;
        loop {
            rest = rest.trim_start();
            let quote = rest.chars().next().filter(|quote| matches!(quote, '\'' | '"'));
            let Some(quote) = quote else {
                return Err(refused(path, "a name is not in quotes"));
            };
            let Some((name, after)) = rest[1..].split_once(quote) else {
                return Err(refused(path, "a quote is missing"));
            };
            names.push(name.to_owned());
            rest = after.trim_start();
            match rest.strip_prefix(',') {
                Some(after) => rest = after,
                None if rest.is_empty() => break,
                None => return Err(refused(path, "a comma is missing")),
            }
        }
        return Ok(match <[String; 1]>::try_from(names) {
            Ok([name]) => Step::Name(name),
            Err(names) => Step::Names(names),
        });
    }
    if let Some((from, until)) = inside.split_once(':') {
        let bound = |text: &str| (!text.trim().is_empty()).then(|| number(text)).transpose();
        return Ok(Step::Slice(bound(from)?, bound(until)?));
    }
    if inside.contains(',') {
        return Ok(Step::Indices(
            inside.split(',').map(number).collect::<Result<_>>()?,
        ));
    }
    Ok(Step::Index(number(inside)?))
}

/// The place of an index in a list of `length`.
fn place(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    let at = if index < 0 { index + length } else { index };
    usize::try_from(at).ok().filter(|_| at < length)
}

fn take(steps: &[Step], value: &Value) -> Option<Value> {
    let Some((step, rest)) = steps.split_first() else {
        return Some(value.clone());
    };
    let all = |values: Vec<&Value>| -> Option<Value> {
        values.into_iter().map(|value| take(rest, value)).collect()
    };
    match step {
        Step::Name(name) => take(rest, value.get(name)?),
        Step::Names(names) => {
            let mut some = Map::new();
            for name in names {
                some.insert(name.clone(), value.get(name)?.clone());
            }
            take(rest, &Value::Object(some))
        }
        Step::Index(index) => {
            let items = value.as_array()?;
            take(rest, &items[place(*index, items.len())?])
        }
        Step::Indices(indices) => {
            let items = value.as_array()?;
            let some = indices
                .iter()
                .map(|index| Some(&items[place(*index, items.len())?]));
            all(some.collect::<Option<_>>()?)
        }
        Step::Slice(from, until) => {
            let items = value.as_array()?;
            let length = i64::try_from(items.len()).ok()?;
            let bound = |bound: i64| (if bound < 0 { bound + length } else { bound }).clamp(0, length);
            let (from, until) = (bound(from.unwrap_or(0)), bound(until.unwrap_or(length)));
            let (from, until) = (usize::try_from(from).ok()?, usize::try_from(until).ok()?);
            all(items.get(from..until.max(from))?.iter().collect())
        }
        Step::All => match value {
            Value::Array(items) => all(items.iter().collect()),
            Value::Object(fields) => all(fields.values().collect()),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_take_what_they_name() {
        let object = json!({ "id": 7, "features": [1, 2, 3, 4], "a b": { "c": [5] } });
        for (path, expected) in [
            ("$", Some(object.clone())),
            ("$.id", Some(json!(7))),
            ("$.features", Some(json!([1, 2, 3, 4]))),
            ("$['a b'].c[0]", Some(json!(5))),
            (
                "$['id','features']",
                Some(json!({ "id": 7, "features": [1, 2, 3, 4] })),
            ),
            ("$.features[1:]", Some(json!([2, 3, 4]))),
            ("$.features[:-1]", Some(json!([1, 2, 3]))),
            ("$.features[-1]", Some(json!(4))),
            ("$.features[0, 2]", Some(json!([1, 3]))),
            ("$.features[*]", Some(json!([1, 2, 3, 4]))),
            ("$.features[9]", None),
            ("$.nothing", None),
            ("$.id.deeper", None),
        ] {
            assert_eq!(JsonPath::parse(path).unwrap().take(&object), expected, "{path}");
        }
        let row = json!(["1", "x", "2.5"]);
        assert_eq!(
            JsonPath::parse("$[1:]").unwrap().take(&row),
            Some(json!(["x", "2.5"]))
        );
        assert_eq!(JsonPath::parse("$[5:]").unwrap().take(&row), Some(json!([])));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for path in [
            "",
            "id",
            "$..id",
            "$.",
            "$[?(@.a)]",
            "$[",
            "$['a",
            "$[1.5]",
            "$['a' 'b']",
            "$x",
        ] {
            let error = JsonPath::parse(path).unwrap_err();
            assert!(error.message.contains("is not understood"), "{path}: {error}");
        }
    }
}
