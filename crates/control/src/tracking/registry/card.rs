//! A version's card: what it is, where it comes from and what befell it, as Markdown. What nothing is known of is left out.

use std::fmt::Write as _;

use serde_json::Value;
use tidemill_core::clock::Timestamp;
use tidemill_store::registry::{self, Entry, Model, Version};

use super::signature::{self, Field, Signature};
use super::{model, version};
use crate::tracking::{Caller, Result, Tracking};

impl Tracking {
    /// A version's card.
    pub async fn model_card(&self, caller: &Caller, name: String, number: i64) -> Result<String> {
        let workspace = caller.workspace.clone();
        let mut known = self
            .look(move |tx| {
                let found = version(tx, &workspace, &name, number)?;
                let facts = match &found.run_id {
                    Some(run) => registry::run_facts(tx, &workspace, run)?,
                    None => Value::Null,
                };
                Ok(Known {
                    model: model(tx, &workspace, &name)?,
                    signature: signature::of(tx, &workspace, &found)?,
                    history: registry::audit(tx, &workspace, &name, Some(found.model))?,
                    facts,
                    version: found,
                })
            })
            .await?;
        let noted = known.signature.take();
        known.signature = self.signature_of(caller, &known.version, noted).await?;
        Ok(write(&known))
    }
}

struct Known {
    model: Model,
    version: Version,
    facts: Value,
    signature: Option<Signature>,
    history: Vec<Entry>,
}

/// Text of others: it must not become markup.
fn plain(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\r' | '\n' => safe.push(' '),
            '|' | '`' | '*' | '_' | '[' | ']' | '\\' | '#' => {
                safe.push('\\');
                safe.push(character);
            }
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            character => safe.push(character),
        }
    }
    safe
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => plain(text),
        other => plain(&other.to_string()),
    }
}

/// A table, if it has rows.
fn table(card: &mut String, title: &str, heads: &[&str], rows: &[Vec<String>]) {
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(card, "\n## {title}\n");
    let _ = writeln!(card, "| {} |", heads.join(" | "));
    let _ = writeln!(card, "|{}", "---|".repeat(heads.len()));
    for row in rows {
        let _ = writeln!(card, "| {} |", row.join(" | "));
    }
}

fn object_rows(object: &Value) -> Vec<Vec<String>> {
    let pairs = object.as_object().into_iter().flatten();
    pairs.map(|(key, value)| vec![plain(key), shown(value)]).collect()
}

fn write(known: &Known) -> String {
    let version = &known.version;
    let mut card = String::new();
    let _ = writeln!(card, "# {} version {}", plain(&version.name), version.version);
    for description in [&known.model.description, &version.description] {
        if !description.is_empty() {
            let _ = writeln!(card, "\n{}", plain(description));
        }
    }
    table(&mut card, "At a glance", &["", ""], &glance(known));
    let facts = &known.facts;
    table(
        &mut card,
        "Parameters",
        &["name", "value"],
        &object_rows(&facts["params"]),
    );
    let mut metrics = object_rows(&version.metrics);
    metrics.extend(object_rows(&facts["metrics"]));
    metrics.dedup();
    table(&mut card, "Metrics", &["name", "value"], &metrics);
    let datasets: Vec<Vec<String>> = facts["datasets"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|d| {
            vec![
                shown(&d["name"]),
                shown(&d["digest"]),
                d["context"].as_str().map(plain).unwrap_or_default(),
            ]
        })
        .collect();
    table(&mut card, "Datasets", &["name", "digest", "context"], &datasets);
    if let Some(signature) = &known.signature {
        table(
            &mut card,
            "Inputs",
            &["column", "type", "required"],
            &fields(&signature.inputs),
        );
        table(
            &mut card,
            "Outputs",
            &["column", "type", "required"],
            &fields(&signature.outputs),
        );
    }
    let tags: Vec<Vec<String>> = version
        .tags
        .iter()
        .map(|(key, value)| vec![plain(key), plain(value)])
        .collect();
    table(&mut card, "Tags", &["key", "value"], &tags);
    table(
        &mut card,
        "History",
        &["when", "what", "who", "why", "decision"],
        &history(known),
    );
    card
}

fn glance(known: &Known) -> Vec<Vec<String>> {
    let (version, facts) = (&known.version, &known.facts);
    let mut rows = vec![vec!["registered".to_owned(), version.created_at.to_string()]];
    let mut add = |name: &str, value: String| {
        if !value.is_empty() {
            rows.push(vec![name.to_owned(), value]);
        }
    };
    add("by", plain(&version.user_id));
    let aliases: Vec<String> = version.aliases.iter().map(|alias| plain(alias)).collect();
    add("aliases", aliases.join(", "));
    if version.stage != "None" {
        add("stage", plain(&version.stage));
    }
    add("source", plain(&version.source));
    add("run", version.run_id.as_deref().map(plain).unwrap_or_default());
    for (name, key) in [
        ("run name", "name"),
        ("experiment", "experiment"),
        ("run by", "user"),
    ] {
        add(name, facts[key].as_str().map(plain).unwrap_or_default());
    }
    if let Some(start) = facts["start_ms"].as_i64() {
        add(
            "run started",
            Timestamp::from_micros(start.saturating_mul(1_000)).to_string(),
        );
    }
    for (name, key) in [
        ("code", "mlflow.source.name"),
        ("commit", "mlflow.source.git.commit"),
    ] {
        add(name, facts["tags"][key].as_str().map(plain).unwrap_or_default());
    }
    add(
        "logged model",
        version.model_id.as_deref().map(plain).unwrap_or_default(),
    );
    add(
        "snapshot",
        version.snapshot.as_deref().map(plain).unwrap_or_default(),
    );
    add("files", version.bundle.as_deref().map(plain).unwrap_or_default());
    rows
}

fn fields(fields: &[Field]) -> Vec<Vec<String>> {
    let row = |field: &Field| {
        let required = if field.required { "yes" } else { "no" };
        vec![plain(&field.name), plain(&field.r#type), required.to_owned()]
    };
    fields.iter().map(row).collect()
}

/// What befell this version: its aliases coming and going, its stages, what was asked and decided.
fn history(known: &Known) -> Vec<Vec<String>> {
    let mine = known.version.version;
    let mut rows = Vec::new();
    let mut held: Vec<String> = Vec::new();
    for entry in &known.history {
        let alias = entry.detail["alias"].as_str().unwrap_or_default();
        let what = match entry.kind.as_str() {
            "alias_moved" if entry.version == Some(mine) => {
                held.push(alias.to_owned());
                format!("got alias {}", plain(alias))
            }
            "alias_moved" if held.iter().any(|held| held == alias) => {
                held.retain(|held| held != alias);
                format!("lost alias {}", plain(alias))
            }
            "stage_moved" if entry.version == Some(mine) => {
                format!(
                    "stage {} → {}",
                    shown(&entry.detail["from"]),
                    shown(&entry.detail["to"])
                )
            }
            kind if entry.version == Some(mine) && kind != "alias_moved" => plain(kind),
            _ => continue,
        };
        rows.push(vec![
            entry.at.to_string(),
            what,
            plain(&entry.by),
            plain(&entry.why),
            entry.decision.as_deref().map(plain).unwrap_or_default(),
        ]);
    }
    rows
}
