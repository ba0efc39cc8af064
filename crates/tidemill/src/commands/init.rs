//! `tidemill init`: a first, commented `tidemill.yaml` from a look at a data file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;
use tidemill_core::ports::{ColumnSummary, DataEngine, SourceSummary};
use tidemill_core::spec;

use super::replay::engine;
use crate::exit::{BadInput, Code, bad_input};

pub struct Args {
    pub source: String,
    pub output: PathBuf,
    pub label: Option<String>,
    pub name: Option<String>,
    pub force: bool,
}

/// Names that labels often have, best first.
const LABEL_NAMES: [&str; 11] = [
    "label",
    "target",
    "y",
    "outcome",
    "class",
    "churn",
    "churned",
    "converted",
    "is_fraud",
    "fraud",
    "default",
];

/// Categories beyond this are keys or free text, not features.
const MAX_CATEGORIES: u64 = 1_000;

pub async fn run(args: Args, json: bool) -> Result<Code> {
    if args.output.exists() && !args.force {
        bad_input!("{} exists; `--force` overwrites it", args.output.display());
    }
    let root = args
        .output
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
        .to_owned();
    let source = relative_to(&args.source, &root);
    let engine = engine()?;
    let summary = engine.0.inspect(&root, &source).await?;
    let plan = plan(&args, &summary)?;
    let text = render(&plan, &source, &summary);
    // What is written must be what is read.
    let parsed = spec::parse(&args.output, &text)
        .context("the spec that was made is not valid; please report this")?;
    engine.0.check_spec(&root, &parsed).await?;
    std::fs::write(&args.output, &text).with_context(|| format!("cannot write {}", args.output.display()))?;
    if json {
        println!(
            "{}",
            json!({ "path": args.output, "name": plan.name, "label": plan.label, "task": plan.task, "features": plan.features.len() })
        );
    } else {
        println!(
            "wrote {}: predicts `{}` ({}) from {} features\nread it, then: tidemill train && tidemill up",
            args.output.display(),
            plan.label,
            plan.task,
            plan.features.len()
        );
    }
    Ok(Code::Success)
}

/// The source as seen from the spec's folder; an absolute path stays.
fn relative_to(source: &str, root: &Path) -> String {
    if root == Path::new(".") || Path::new(source).is_absolute() {
        return source.to_owned();
    }
    Path::new(source).strip_prefix(root).map_or_else(
        |_| {
            std::env::current_dir().map_or_else(
                |_| source.to_owned(),
                |cwd| cwd.join(source).display().to_string(),
            )
        },
        |inside| inside.display().to_string(),
    )
}

struct Plan {
    name: String,
    label: String,
    task: &'static str,
    time: Option<String>,
    key: Option<String>,
    features: Vec<(String, &'static str)>,
    left_out: Vec<(String, String)>,
}

fn plan(args: &Args, summary: &SourceSummary) -> Result<Plan> {
    let names: Vec<&str> = summary.columns.iter().map(|c| c.name.as_str()).collect();
    let label = match &args.label {
        Some(label) => summary.columns.iter().find(|c| c.name == *label).ok_or_else(|| {
            let nearest = names
                .iter()
                .max_by(|a, b| strsim::jaro_winkler(a, label).total_cmp(&strsim::jaro_winkler(b, label)))
                .copied()
                .unwrap_or("");
            BadInput(format!(
                "`{}` has no column `{label}`; did you mean `{nearest}`? It has: {}",
                args.source,
                names.join(", ")
            ))
        })?,
        None => guess_label(summary).ok_or_else(|| {
            BadInput(format!(
                "no column of `{}` looks like a label; name it with `--label`, one of: {}",
                args.source,
                names.join(", ")
            ))
        })?,
    };
    let task = task_of(label);
    let time = summary
        .columns
        .iter()
        .find(|c| c.role == "time")
        .map(|c| c.name.clone());
    let unique = |c: &&ColumnSummary| c.nulls == 0 && c.distinct >= summary.rows.min(10_000);
    let named_like_key = |c: &&ColumnSummary| {
        let name = c.name.to_lowercase();
        name == "id" || name.ends_with("_id") || name == "key" || name == "uuid"
    };
    let key = summary
        .columns
        .iter()
        .filter(|c| c.name != label.name && Some(&c.name) != time.as_ref())
        .find(|c| unique(c) && named_like_key(c))
        .map(|c| c.name.clone());
    let (mut features, mut left_out) = (Vec::new(), Vec::new());
    for c in &summary.columns {
        if c.name == label.name || Some(&c.name) == time.as_ref() || Some(&c.name) == key.as_ref() {
            continue;
        }
        let skip = |why: &str| (c.name.clone(), why.to_owned());
        match c.role.as_str() {
            _ if c.nulls == summary.rows => left_out.push(skip("always null")),
            _ if c.distinct <= 1 && c.nulls == 0 => left_out.push(skip("constant")),
            "numeric" => features.push((c.name.clone(), "numeric")),
            "categorical" if c.distinct <= MAX_CATEGORIES => features.push((c.name.clone(), "categorical")),
            "categorical" => left_out.push(skip("too many values to be a category")),
            "time" => left_out.push(skip("a second time column")),
            other => left_out.push(skip(&format!("{other} column"))),
        }
    }
    if features.is_empty() {
        bad_input!(
            "no column of `{}` can be a feature beside the label `{}`",
            args.source,
            label.name
        );
    }
    let name = args.name.clone().unwrap_or_else(|| {
        let stem = Path::new(&args.source)
            .file_stem()
            .and_then(|s| s.to_str())
            .unwrap_or("project")
            .to_owned();
        let clean: String = stem
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '-' || c == '_' {
                    c
                } else {
                    '-'
                }
            })
            .collect();
        let clean = clean.trim_matches('-').to_owned();
        if clean.is_empty() { "project".into() } else { clean }
    });
    Ok(Plan {
        name,
        label: label.name.clone(),
        task,
        time,
        key,
        features,
        left_out,
    })
}

fn guess_label(summary: &SourceSummary) -> Option<&ColumnSummary> {
    let by_name = LABEL_NAMES
        .iter()
        .find_map(|name| summary.columns.iter().find(|c| c.name.eq_ignore_ascii_case(name)));
    let usable = |c: &&ColumnSummary| matches!(c.role.as_str(), "numeric" | "categorical") && c.distinct > 1;
    // By custom the last column is the label.
    by_name.or_else(|| summary.columns.iter().rev().find(usable))
}

fn task_of(label: &ColumnSummary) -> &'static str {
    let boolean = label.data_type == "Boolean";
    let zero_one = label.distinct == 2
        && label
            .examples
            .iter()
            .all(|e| matches!(e.as_str(), "0" | "1" | "0.0" | "1.0" | "true" | "false"));
    if boolean || zero_one {
        "binary"
    } else if label.role == "categorical" {
        "multiclass"
    } else {
        "regression"
    }
}

/// A YAML scalar: plain where that is safe, quoted otherwise.
fn scalar(text: &str) -> String {
    let plain = text
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || c == '.' || c == '/')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'))
        && !matches!(
            text.to_lowercase().as_str(),
            "true" | "false" | "yes" | "no" | "on" | "off" | "null" | "y" | "n"
        );
    if plain {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}

fn render(plan: &Plan, source: &str, summary: &SourceSummary) -> String {
    let mut out = String::new();
    let metric = match plan.task {
        "binary" => "auc",
        "multiclass" => "log_loss",
        _ => "mae",
    };
    let mut put = |line: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        let _ = out.write_fmt(line);
        out.push('\n');
    };
    put(format_args!(
        "# One model's whole life. `tidemill schema > tidemill.schema.json` lets your editor complete and check it:"
    ));
    put(format_args!(
        "# yaml-language-server: $schema=tidemill.schema.json"
    ));
    put(format_args!("name: {}", scalar(&plan.name)));
    put(format_args!(""));
    put(format_args!(
        "# Where the history is: Parquet, CSV or JSON lines; a file, a folder or a glob. ({} rows seen)",
        summary.rows
    ));
    put(format_args!("data:\n  source: {}", scalar(source)));
    match &plan.time {
        Some(time) => put(format_args!(
            "  time: {}        # when each row was, or would have been, predicted",
            scalar(time)
        )),
        None => put(format_args!(
            "  # time: COLUMN   # when each row was predicted; needed for replay and for a hold-out by time"
        )),
    }
    match &plan.key {
        Some(key) => put(format_args!(
            "  key: {}         # keeps a unit on one version during a canary",
            scalar(key)
        )),
        None => put(format_args!(
            "  # key: COLUMN    # keeps a unit on one version during a canary"
        )),
    }
    put(format_args!(""));
    put(format_args!(
        "label:\n  name: {}\n  task: {}         # binary, multiclass or regression",
        scalar(&plan.label),
        plan.task
    ));
    put(format_args!(
        "  # expression: arr_delay > 30   # an SQL expression, where the label is not a column by itself"
    ));
    put(format_args!(
        "  # known_at: COLUMN             # when the label became known"
    ));
    put(format_args!(
        "  horizon: 1d                    # how long after a prediction its label is waited for"
    ));
    put(format_args!(""));
    put(format_args!(
        "# The model's inputs, known at the time of prediction. A column that is known only later would leak the answer."
    ));
    put(format_args!("features:"));
    for (name, kind) in &plan.features {
        put(format_args!("  {}: {kind}", scalar(name)));
    }
    for (name, why) in &plan.left_out {
        put(format_args!(
            "  # {} was left out: {why}",
            name.replace(['\n', '\r'], " ")
        ));
    }
    put(format_args!(""));
    put(format_args!(
        "# What must hold of the data before anything is trained on it (Great Expectations' names and parameters)."
    ));
    put(format_args!(
        "expectations:\n  # suite: suite.json   # a Great Expectations 1.x suite file"
    ));
    put(format_args!(
        "  list:\n  - type: expect_table_row_count_to_be_between\n    kwargs: {{min_value: 1}}"
    ));
    let complete = summary
        .columns
        .iter()
        .filter(|c| c.nulls == 0 && plan.features.iter().any(|(f, _)| *f == c.name))
        .take(3);
    for c in complete {
        put(format_args!(
            "  - type: expect_column_values_to_not_be_null\n    kwargs: {{column: {}, mostly: 0.99}}\n    severity: warning",
            scalar(&c.name)
        ));
    }
    put(format_args!(""));
    put(format_args!(
        "training:\n  budget: 0.5      # how hard the built-in trainer searches, 0.1 to 2\n  seed: 42"
    ));
    put(format_args!("  # window: 90d    # train on the latest rows only"));
    put(format_args!(
        "  # run: python train.py   # a trainer of your own; docs/training.md has the contract"
    ));
    put(format_args!(
        "evaluation:\n  holdout: 14d     # the latest rows are held out\n  holdout_share: 0.2"
    ));
    put(format_args!(
        "\n# A challenger must be no worse than the champion on the same rows, by more than `margin`.\ngates:\n- metric: {metric}\n  margin: {}",
        if metric == "mae" { "0" } else { "0.01" }
    ));
    put(format_args!(
        "\nrollout:\n  shadow: {{duration: 3d, min_labels: 500}}\n  canary: {{steps: [10, 50], dwell: 1d}}"
    ));
    put(format_args!(
        "\nmonitors:\n  every: 1d\n  drift: {{method: psi, threshold: 0.2, share: 0.3, window: 7d}}\n  performance: {{window: 7d, max_drop: 0.05}}"
    ));
    put(format_args!(
        "\n# What starts a retraining, and how long it then stays quiet.\ntriggers:\n- on: drift\n- on: performance\ncooldown: 7d"
    ));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, role: &str, data_type: &str, distinct: u64, examples: &[&str]) -> ColumnSummary {
        ColumnSummary {
            name: name.into(),
            data_type: data_type.into(),
            role: role.into(),
            nulls: 0,
            distinct,
            min: None,
            max: None,
            examples: examples.iter().map(|e| (*e).to_owned()).collect(),
        }
    }

    fn args(source: &str) -> Args {
        Args {
            source: source.into(),
            output: "tidemill.yaml".into(),
            label: None,
            name: None,
            force: false,
        }
    }

    #[test]
    fn odd_names_still_give_a_spec_that_can_be_read() {
        let summary = SourceSummary {
            rows: 100,
            columns: vec![
                column("id", "numeric", "Int64", 100, &[]),
                column("when", "time", "Timestamp", 100, &[]),
                column("weird: name #1", "numeric", "Float64", 50, &[]),
                column("no", "categorical", "Utf8", 4, &[]),
                column("constant", "numeric", "Int64", 1, &[]),
                column("target", "categorical", "Utf8", 3, &["a", "b", "c"]),
            ],
        };
        let plan = plan(&args("my data.csv"), &summary).unwrap();
        assert_eq!(
            (plan.task, plan.key.as_deref(), plan.time.as_deref()),
            ("multiclass", Some("id"), Some("when"))
        );
        let text = render(&plan, "my data.csv", &summary);
        let spec = spec::parse(Path::new("tidemill.yaml"), &text).unwrap();
        assert_eq!(spec.name, "my-data");
        assert!(spec.features.contains_key("weird: name #1") && spec.features.contains_key("no"));
        assert!(!spec.features.contains_key("constant"));
    }

    #[test]
    fn the_task_follows_the_label() {
        assert_eq!(
            task_of(&column("y", "numeric", "Int64", 2, &["0", "1"])),
            "binary"
        );
        assert_eq!(
            task_of(&column("y", "numeric", "Float64", 90, &["0.5"])),
            "regression"
        );
        assert_eq!(
            task_of(&column("y", "categorical", "Utf8", 3, &["a"])),
            "multiclass"
        );
    }
}
