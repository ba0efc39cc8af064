//! Reading `tidemill.yaml`: every mistake is named with file, line, column, key, what was expected and the nearest valid key.

use std::path::{Path, PathBuf};

use super::{GraphSpec, Metric, Spec, SweepSpec, TriggerKind};
use crate::frame::Task;

/// What of the built-in trainer can be searched.
const BUILT_IN_PARAMETERS: [&str; 2] = ["budget", "iterations"];

/// A spec that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The file cannot be read.
    #[error("cannot read `{}`: {source}; `tidemill init DATA_FILE` writes a first spec", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The text is not what a spec looks like.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// From 1.
        column: u64,
        /// What is wrong, what was expected, and the nearest valid key.
        message: String,
    },
    /// The text is well-formed but contradicts itself.
    #[error("{}:{line}: `{key}`: {message}", path.display())]
    Contradiction {
        /// Which file.
        path: PathBuf,
        /// The line of the key, 1 where it is not in the file.
        line: u64,
        /// The key, dotted.
        key: String,
        /// What is wrong and what to do.
        message: String,
    },
}

/// Reads the spec at `path`.
///
/// # Errors
/// See [`SpecError`].
pub fn load(path: &Path) -> Result<Spec, SpecError> {
    let text = std::fs::read_to_string(path).map_err(|source| SpecError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    parse(path, &text)
}

/// Reads a spec from its text; `path` is for messages.
///
/// # Errors
/// See [`SpecError`].
pub fn parse(path: &Path, text: &str) -> Result<Spec, SpecError> {
    let spec: Spec = serde_saphyr::from_str(text).map_err(|error| malformed(path, &error))?;
    check(&spec).map_err(|(key, message)| SpecError::Contradiction {
        path: path.to_owned(),
        line: line_of(text, &key),
        key,
        message,
    })?;
    Ok(spec)
}

/// Reads a graph that stands in a file of its own, checks it under `name`, and returns it as it is written.
///
/// # Errors
/// See [`SpecError`].
pub fn load_graph(path: &Path, name: &str) -> Result<serde_json::Value, SpecError> {
    let text = std::fs::read_to_string(path).map_err(|source| SpecError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let malformed = |error: serde_saphyr::Error| malformed(path, &error);
    let graph: GraphSpec = serde_saphyr::from_str(&text).map_err(malformed)?;
    graph.check(name).map_err(|(key, message)| {
        // In a file of its own it does not stand below anything.
        let prefix = format!("graphs.{name}");
        let own = key.strip_prefix(&prefix).unwrap_or(&key);
        let key = own.trim_start_matches('.').to_owned();
        SpecError::Contradiction {
            path: path.to_owned(),
            line: line_of(&text, &key),
            key,
            message,
        }
    })?;
    serde_saphyr::from_str(&text).map_err(malformed)
}

/// The JSON Schema of `tidemill.yaml`, for editors.
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(Spec).to_value()
}

fn malformed(path: &Path, error: &serde_saphyr::Error) -> SpecError {
    let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
    let message = match error.without_snippet() {
        serde_saphyr::Error::SerdeUnknownField { field, expected, .. } => unknown("key", field, expected),
        serde_saphyr::Error::SerdeUnknownVariant {
            variant, expected, ..
        } => unknown("value", variant, expected),
        serde_saphyr::Error::SerdeMissingField { field, .. } => {
            format!("the key `{field}` is missing here; add it")
        }
        other => {
            // The library appends its own position to some texts; ours stands in front already.
            let text = other.to_string();
            let end = text.find(" at line ").unwrap_or(text.len());
            text[..end].trim_end_matches([',', ':', ' ']).to_owned()
        }
    };
    SpecError::Malformed {
        path: path.to_owned(),
        line: u64::from(line as u32),
        column: u64::from(column as u32),
        message,
    }
}

fn unknown(what: &str, got: &str, expected: &[&'static str]) -> String {
    let nearest = expected
        .iter()
        .map(|candidate| (strsim::jaro_winkler(got, candidate), *candidate))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(similarity, _)| *similarity > 0.7)
        .map_or_else(String::new, |(_, candidate)| {
            format!("; did you mean `{candidate}`?")
        });
    format!(
        "unknown {what} `{got}`{nearest} (expected one of: {})",
        expected.join(", ")
    )
}

type Finding = (String, String);

/// What can be told of a sweep without reading its distributions.
fn check_sweep(spec: &Spec, sweep: &SweepSpec) -> Result<(), Finding> {
    const MOST: u32 = 10_000;
    let finding = |key: &str, message: String| Err((key.to_owned(), message));
    if !(1..=MOST).contains(&sweep.trials) {
        return finding(
            "training.sweep.trials",
            format!("`{}` is not between 1 and {MOST}", sweep.trials),
        );
    }
    if sweep.parameters.is_empty() {
        return finding(
            "training.sweep.parameters",
            "nothing to search: name at least one, such as `iterations: {min: 20, max: 200}`".into(),
        );
    }
    if let Some(metric) = sweep.metric.filter(|metric| !metric.fits(spec.label.task)) {
        return finding(
            "training.sweep.metric",
            format!("`{}` does not fit a {:?} label", metric.name(), spec.label.task).to_lowercase(),
        );
    }
    let unknown = sweep
        .parameters
        .keys()
        .find(|name| spec.training.run.is_none() && !BUILT_IN_PARAMETERS.contains(&name.as_str()));
    if let Some(name) = unknown {
        return finding(
            "training.sweep.parameters",
            format!(
                "the built-in trainer has no parameter `{name}`: expected {}; a command of your own (`training.run`) takes any",
                BUILT_IN_PARAMETERS.map(|name| format!("`{name}`")).join(" or ")
            ),
        );
    }
    Ok(())
}

fn check(spec: &Spec) -> Result<(), Finding> {
    let finding = |key: &str, message: String| Err((key.to_owned(), message));
    let good_name = |name: &str| {
        !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    if !good_name(&spec.name) {
        return finding(
            "name",
            format!("`{}` is not a name: use letters, digits, `-` and `_`", spec.name),
        );
    }
    if spec.features.is_empty() {
        return finding(
            "features",
            "no feature: name at least one column known at prediction time".into(),
        );
    }
    if spec.features.contains_key(&spec.label.name) {
        return finding(
            "features",
            format!(
                "the label `{0}` is among the features, so the model would read its own answer; remove `{0}`",
                spec.label.name
            ),
        );
    }
    for column in label_columns(spec) {
        if spec.features.contains_key(&column) {
            return finding(
                "features",
                format!(
                    "`{column}` is used by the label (`label.expression` or `label.known_at`) and known only later; remove it from the features"
                ),
            );
        }
    }
    let share = |key: &str, value: f64| {
        if value > 0.0 && value < 1.0 {
            Ok(())
        } else {
            Err((key.to_owned(), format!("`{value}` is not between 0 and 1")))
        }
    };
    share("evaluation.holdout_share", spec.evaluation.holdout_share)?;
    share("rollout.harm_alpha", spec.rollout.harm_alpha)?;
    share("rollout.advance_alpha", spec.rollout.advance_alpha)?;
    if !(0.01..=3.0).contains(&spec.training.budget) {
        return finding(
            "training.budget",
            format!("`{}` is not between 0.01 and 3", spec.training.budget),
        );
    }
    if let Some(sweep) = &spec.training.sweep {
        check_sweep(spec, sweep)?;
    }
    if spec.monitors.every.as_micros() <= 0 {
        return finding("monitors.every", "a window needs a length above zero".into());
    }
    for metric in &spec.evaluation.metrics {
        if !metric.fits(spec.label.task) {
            return finding(
                "evaluation.metrics",
                format!("`{}` does not fit a {:?} label", metric.name(), spec.label.task).to_lowercase(),
            );
        }
    }
    for gate in &spec.gates {
        if !gate.metric.fits(spec.label.task) {
            return finding(
                "gates",
                format!(
                    "`{}` does not fit a {:?} label",
                    gate.metric.name(),
                    spec.label.task
                )
                .to_lowercase(),
            );
        }
        share("gates.confidence", gate.confidence)?;
        if gate.cluster.is_some_and(|c| c.as_micros() <= 0)
            || gate.cluster.is_some() && (gate.metric != Metric::Auc || spec.label.task != Task::Binary)
        {
            return finding(
                "gates.cluster",
                "a cluster is a stretch of time, such as `1d`, and is known for `auc` of a binary label only"
                    .into(),
            );
        }
        if gate.cluster.is_some() && spec.data.time.is_none() {
            return finding(
                "gates.cluster",
                "clusters are stretches of time, which need `data.time`".into(),
            );
        }
        if gate.margin.is_none() && gate.min.is_none() && gate.max.is_none() {
            return finding(
                "gates",
                format!(
                    "the gate on `{}` checks nothing: give it `margin`, `min` or `max`",
                    gate.metric.name()
                ),
            );
        }
        if gate.margin.is_some_and(|m| !m.is_finite() || m < 0.0) {
            return finding(
                "gates.margin",
                "a margin is how much worse the challenger may be: zero or more".into(),
            );
        }
    }
    if let Some(wrong) = spec
        .rollout
        .canary
        .steps
        .iter()
        .find(|s| !(**s > 0.0 && **s < 100.0))
    {
        return finding(
            "rollout.canary.steps",
            format!("`{wrong}` is not a share of traffic between 0 and 100 per cent"),
        );
    }
    if !spec.rollout.canary.steps.is_sorted() {
        return finding(
            "rollout.canary.steps",
            "the shares must grow from step to step".into(),
        );
    }
    for trigger in &spec.triggers {
        if (trigger.on == TriggerKind::Cron) != trigger.schedule.is_some() {
            return finding(
                "triggers",
                "`schedule` belongs to `on: cron`, and `on: cron` needs it, e.g. `schedule: \"0 3 1 * *\"`"
                    .into(),
            );
        }
        if trigger.on == TriggerKind::NewLabels && trigger.count.is_none_or(|c| c == 0) {
            return finding(
                "triggers",
                "`on: new_labels` needs `count`, e.g. `count: 10000`".into(),
            );
        }
    }
    super::graphs::check_all(&spec.graphs, &spec.name)?;
    if spec.monitors.outcome.is_some() && spec.label.task != Task::Binary {
        return finding(
            "monitors.outcome",
            "the value of each confusion-matrix cell needs a binary label".into(),
        );
    }
    let sample = spec.endpoint.log.sample;
    if !(0.0..=1.0).contains(&sample) {
        return finding(
            "endpoint.log.sample",
            format!("`{sample}` is not a share; expected 0 to 1"),
        );
    }
    for column in &spec.endpoint.log.redact {
        if !spec.features.contains_key(column) {
            return finding(
                "endpoint.log.redact",
                format!("`{column}` is not a feature; expected one of those under `features`"),
            );
        }
    }
    if let Some(default) = &spec.endpoint.default
        && let Err(message) = default.check(spec.label.task)
    {
        return finding("endpoint.default", message);
    }
    spec.endpoint.check_fallback(&spec.features, spec.label.task)
}

/// The identifiers in the label's expressions: those that are also columns cannot be features.
fn label_columns(spec: &Spec) -> Vec<String> {
    [spec.label.expression.as_deref(), spec.label.known_at.as_deref()]
        .into_iter()
        .flatten()
        .flat_map(|expression| {
            expression
                .split(|c: char| !(c.is_alphanumeric() || c == '_'))
                .filter(|word| word.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_'))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .filter(|word| Some(word) != spec.data.time.as_ref())
        .collect()
}

/// The line on which the last part of a dotted key stands, looking for its parents on the way.
fn line_of(text: &str, key: &str) -> u64 {
    let mut from = 0;
    let mut found = 1;
    for part in key.split('.') {
        let hit = text.lines().enumerate().skip(from).find(|(_, line)| {
            line.trim_start()
                .trim_start_matches("- ")
                .strip_prefix(part)
                .is_some_and(|rest| rest.trim_start().starts_with(':'))
        });
        let Some((index, _)) = hit else { break };
        from = index;
        found = index as u64 + 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str =
        "name: m\ndata:\n  source: a.csv\nlabel:\n  name: y\n  task: binary\nfeatures:\n  x: numeric\n";

    fn error(text: &str) -> String {
        parse(Path::new("tidemill.yaml"), text).unwrap_err().to_string()
    }

    #[test]
    fn a_minimal_spec_has_sensible_defaults() {
        let spec = parse(Path::new("tidemill.yaml"), MINIMAL).unwrap();
        assert_eq!(spec.label.horizon, super::super::Span::DAY);
        assert_eq!(spec.metrics()[0].name(), "auc");
        assert_eq!(spec.effective_gates().len(), 1);
        assert_eq!(spec.label_expression(), "\"y\"");
    }

    #[test]
    fn an_unknown_key_names_file_line_column_and_the_nearest_key() {
        let text = MINIMAL.replace("  source: a.csv", "  sorce: a.csv");
        let message = error(&text);
        assert!(
            message.starts_with("tidemill.yaml:3:3: unknown key `sorce`; did you mean `source`?"),
            "{message}"
        );
    }

    #[test]
    fn a_wrong_value_and_a_missing_key_say_where_and_what() {
        let message = error(&MINIMAL.replace("task: binary", "task: binry"));
        assert!(
            message.contains(":6:") && message.contains("did you mean `binary`"),
            "{message}"
        );
        let message = error(&MINIMAL.replace("  task: binary\n", ""));
        assert!(message.contains("`task` is missing"), "{message}");
        let message = error(&format!("{MINIMAL}cooldown: soon\n"));
        assert!(
            message.contains(":9:") && message.contains("`soon` is not a length of time"),
            "{message}"
        );
    }

    #[test]
    fn a_label_or_its_columns_among_the_features_is_refused() {
        let message = error(&MINIMAL.replace("  x: numeric", "  x: numeric\n  y: numeric"));
        assert!(
            message.starts_with("tidemill.yaml:7: `features`: the label `y` is among the features"),
            "{message}"
        );
        let text = MINIMAL.replace("  name: y", "  name: y\n  expression: x > 3");
        assert!(error(&text).contains("`x` is used by the label"));
    }

    #[test]
    fn contradictions_are_named_by_key() {
        assert!(
            error(&format!("{MINIMAL}gates:\n- metric: rmse\n  margin: 0\n")).contains("`rmse` does not fit")
        );
        assert!(error(&format!("{MINIMAL}triggers:\n- on: cron\n")).contains("`on: cron` needs it"));
        assert!(
            error(&format!("{MINIMAL}rollout:\n  canary:\n    steps: [50, 10]\n"))
                .contains(":11: `rollout.canary.steps`")
        );
    }

    #[test]
    fn the_schema_covers_every_top_level_key() {
        let schema = json_schema();
        for key in [
            "name", "data", "label", "features", "training", "gates", "rollout", "monitors", "triggers",
            "cooldown",
        ] {
            assert!(schema["properties"][key].is_object(), "{key}");
        }
    }
}
