//! Two versions side by side, and whether one can take the other's place.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};
use tidemill_store::ReadTx;
use tidemill_store::registry::{self, Version};

use super::signature::{self, Field, Signature};
use super::version;
use crate::tracking::{Caller, Result, Tracking};

/// How version `b` differs from version `a`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Comparison {
    /// The model.
    pub model: String,
    /// The one that is there.
    pub a: i64,
    /// The one that may take its place.
    pub b: i64,
    /// By name: `{"a": …, "b": …}` where the two differ.
    pub params: Value,
    /// The same of metrics, with their `change`.
    pub metrics: Value,
    /// The same of tags.
    pub tags: Value,
    /// `{"inputs": {…}, "outputs": {…}}`, each with `removed`, `added`, `retyped`; null where a signature is not known.
    pub signature: Value,
    /// Whether who calls `a` can call `b` without a change; null where a signature is not known.
    pub compatible: Option<bool>,
    /// What speaks against it, or why it is not known.
    pub reasons: Vec<String>,
}

impl Tracking {
    /// How version `b` of a model differs from version `a`.
    pub async fn compare_versions(
        &self,
        caller: &Caller,
        name: String,
        a: i64,
        b: i64,
    ) -> Result<Comparison> {
        let workspace = caller.workspace.clone();
        let model = name.clone();
        let (mut left, mut right) = self
            .look(move |tx| {
                let left = Side::load(tx, &workspace, &name, a)?;
                Ok((left, Side::load(tx, &workspace, &name, b)?))
            })
            .await?;
        for side in [&mut left, &mut right] {
            let noted = side.signature.take();
            side.signature = self.signature_of(caller, &side.version, noted).await?;
        }
        Ok(compare(model, &left, &right))
    }
}

struct Side {
    version: Version,
    facts: Value,
    signature: Option<Signature>,
}

impl Side {
    fn load(tx: &ReadTx<'_>, workspace: &str, name: &str, number: i64) -> Result<Self> {
        let version = version(tx, workspace, name, number)?;
        let facts = match &version.run_id {
            Some(run) => registry::run_facts(tx, workspace, run)?,
            None => Value::Null,
        };
        Ok(Self {
            signature: signature::of(tx, workspace, &version)?,
            facts,
            version,
        })
    }

    fn metrics(&self) -> Map<String, Value> {
        let of_run = self.facts["metrics"].as_object().cloned().unwrap_or_default();
        let mut all = self.version.metrics.as_object().cloned().unwrap_or_default();
        all.extend(of_run);
        all
    }

    fn tags(&self) -> Map<String, Value> {
        let tags = self.version.tags.iter();
        tags.map(|(key, value)| (key.clone(), json!(value))).collect()
    }
}

fn compare(model: String, a: &Side, b: &Side) -> Comparison {
    let none = Map::new();
    let params = differences(
        a.facts["params"].as_object().unwrap_or(&none),
        b.facts["params"].as_object().unwrap_or(&none),
    );
    let mut reasons = Vec::new();
    let (signature, compatible) = match (&a.signature, &b.signature) {
        (Some(left), Some(right)) => {
            let inputs = columns("input", &left.inputs, &right.inputs, Place::Input, &mut reasons);
            let outputs = columns(
                "output",
                &left.outputs,
                &right.outputs,
                Place::Output,
                &mut reasons,
            );
            (
                json!({ "inputs": inputs, "outputs": outputs }),
                Some(reasons.is_empty()),
            )
        }
        (left, right) => {
            for (side, signature) in [(a, left), (b, right)] {
                if signature.is_none() {
                    reasons.push(format!(
                        "version {} has no signature that is known here",
                        side.version.version
                    ));
                }
            }
            (Value::Null, None)
        }
    };
    Comparison {
        model,
        a: a.version.version,
        b: b.version.version,
        params,
        metrics: differences(&a.metrics(), &b.metrics()),
        tags: differences(&a.tags(), &b.tags()),
        signature,
        compatible,
        reasons,
    }
}

/// What differs, by name.
fn differences(a: &Map<String, Value>, b: &Map<String, Value>) -> Value {
    let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
    names.sort();
    names.dedup();
    let mut found = Map::new();
    for name in names {
        let (left, right) = (a.get(name), b.get(name));
        if left == right {
            continue;
        }
        let mut entry = json!({ "a": left, "b": right });
        if let (Some(left), Some(right)) = (left.and_then(Value::as_f64), right.and_then(Value::as_f64)) {
            entry["change"] = json!(right - left);
        }
        found.insert(name.clone(), entry);
    }
    Value::Object(found)
}

/// On which side of the model a column stands: what it takes more or gives less breaks callers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Input,
    Output,
}

fn columns(word: &str, a: &[Field], b: &[Field], side: Place, reasons: &mut Vec<String>) -> Value {
    let named = |fields: &[Field]| -> BTreeMap<String, Field> {
        let keyed = fields.iter().enumerate().map(|(at, field)| {
            let name = if field.name == "-" {
                format!("#{at}")
            } else {
                field.name.clone()
            };
            (name, field.clone())
        });
        keyed.collect()
    };
    let (left, right) = (named(a), named(b));
    let mut removed = Vec::new();
    let mut added = Vec::new();
    let mut retyped = Map::new();
    for (name, field) in &left {
        match right.get(name) {
            None => {
                removed.push(json!(name));
                // A column that is sent and not read any more harms nobody; one that is awaited and not given does.
                if side == Place::Output {
                    reasons.push(format!("{word} `{name}` is gone"));
                }
            }
            Some(new) if new.r#type != field.r#type => {
                retyped.insert(name.clone(), json!({ "a": field.r#type, "b": new.r#type }));
                reasons.push(format!(
                    "{word} `{name}` was {} and is {}",
                    field.r#type, new.r#type
                ));
            }
            Some(new) if side == Place::Input && new.required && !field.required => {
                reasons.push(format!("{word} `{name}` is required now"));
            }
            Some(_) => {}
        }
    }
    for (name, field) in &right {
        if !left.contains_key(name) {
            added.push(json!(name));
            if side == Place::Input && field.required {
                reasons.push(format!("{word} `{name}` is new and required"));
            }
        }
    }
    json!({ "removed": removed, "added": added, "retyped": retyped })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, kind: &str, required: bool) -> Field {
        Field {
            name: name.to_owned(),
            r#type: kind.to_owned(),
            required,
        }
    }

    #[test]
    fn a_new_required_input_breaks_callers_and_a_dropped_one_does_not() {
        let mut reasons = Vec::new();
        let a = [field("x", "double", true), field("y", "long", true)];
        let b = [field("x", "double", true), field("z", "long", false)];
        let diff = columns("input", &a, &b, Place::Input, &mut reasons);
        assert!(reasons.is_empty(), "{reasons:?}");
        assert_eq!(diff, json!({"removed": ["y"], "added": ["z"], "retyped": {}}));
        let b = [field("x", "string", true), field("w", "long", true)];
        columns("input", &a, &b, Place::Input, &mut reasons);
        assert_eq!(reasons.len(), 2);
        reasons.clear();
        columns("output", &a, &a[..1], Place::Output, &mut reasons);
        assert_eq!(reasons, ["output `y` is gone"]);
    }

    #[test]
    fn only_what_differs_is_listed() {
        let a = json!({"auc": 0.5, "same": 1, "gone": 2});
        let b = json!({"auc": 0.75, "same": 1});
        let found = differences(a.as_object().unwrap(), b.as_object().unwrap());
        assert_eq!(
            found,
            json!({"auc": {"a": 0.5, "b": 0.75, "change": 0.25}, "gone": {"a": 2, "b": null}})
        );
    }
}
