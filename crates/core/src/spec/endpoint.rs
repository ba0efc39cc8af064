//! `endpoint`: how the model is served, what is taken from a request, and what is kept of it.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::routing::{ConditionSpec, Finding};
use crate::frame::{FeatureKind, Task};

/// How the model is served.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EndpointSpec {
    /// The answer while no model can give one: a probability, a number, or a class. Without it such a request gets a 503.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<DefaultAnswer>,
    /// What is tried in turn once the champion and the one before it could not answer, or may not: versions, rules, no answer at all.
    /// `default` comes after it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fallback: Vec<FallbackStep>,
    /// Keep the first version as a permanent shadow, to show what the loop has earned.
    pub baseline: bool,
    /// What is taken from a request.
    #[serde(skip_serializing_if = "is_default")]
    pub inputs: InputSpec,
    /// What is kept of a request.
    #[serde(skip_serializing_if = "is_default")]
    pub log: LogSpec,
}

/// A step of an endpoint's fallback chain: exactly one of `version`, `rule` and `abstain`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FallbackStep {
    /// Another version of the model, such as a small one. A number, because an alias may point elsewhere when it is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// A fixed answer for rows of which something is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleAnswer>,
    /// The row gets no answer, and is told so, instead of an error for the whole request.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub abstain: bool,
}

/// A fixed answer for rows of which something is true.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleAnswer {
    /// What has to hold of a row: its place is `input`, a feature.
    pub when: ConditionSpec,
    /// The answer then.
    pub answer: DefaultAnswer,
}

impl DefaultAnswer {
    /// Whether it answers such a question.
    ///
    /// # Errors
    /// What it is instead.
    pub(super) fn check(&self, task: Task) -> Result<(), String> {
        match (self, task) {
            (Self::Number(p), Task::Binary) if !(0.0..=1.0).contains(p) => {
                Err(format!("`{p}` is not a probability"))
            }
            (Self::Class(c), Task::Binary | Task::Regression) => {
                Err(format!("`{c}` is not a number, which a {task:?} label needs").to_lowercase())
            }
            (Self::Number(n), Task::Multiclass) => Err(format!(
                "`{n}` is a number; the answer to a multiclass question names a class, quoted"
            )),
            _ => Ok(()),
        }
    }
}

impl EndpointSpec {
    /// Whether the fallback chain and the rules for inputs hang together.
    ///
    /// # Errors
    /// The first contradiction: its key, and what to do.
    pub(super) fn check_fallback(
        &self,
        features: &IndexMap<String, FeatureKind>,
        task: Task,
    ) -> Result<(), Finding> {
        const KEY: &str = "endpoint.fallback";
        for (place, step) in self.fallback.iter().enumerate() {
            let finding = |message: String| Err((KEY.to_owned(), format!("step {}: {message}", place + 1)));
            let ways = usize::from(step.version.is_some())
                + usize::from(step.rule.is_some())
                + usize::from(step.abstain);
            if ways != 1 {
                return finding("names exactly one of `version`, `rule` or `abstain: true`".to_owned());
            }
            if step.version == Some(0) {
                return finding("versions count from 1".to_owned());
            }
            if let Some(rule) = &step.rule {
                if let Err(message) = rule.when.check(false) {
                    return finding(message);
                }
                match &rule.when.input {
                    None => return finding("a rule looks at an `input`, row by row".to_owned()),
                    Some(input) if !features.contains_key(input) => {
                        return finding(format!("`{input}` is not a feature"));
                    }
                    Some(_) => {}
                }
                if let Err(message) = rule.answer.check(task) {
                    return finding(message);
                }
            }
            if step.abstain && place + 1 < self.fallback.len() {
                return finding(
                    "`abstain` always holds, so nothing after it is reached; put it last".to_owned(),
                );
            }
        }
        if self.default.is_some() && self.fallback.last().is_some_and(|step| step.abstain) {
            return Err((
                KEY.to_owned(),
                "`abstain` comes before `endpoint.default`, which is never reached; keep one of them"
                    .to_owned(),
            ));
        }
        let kept_from_models =
            self.inputs.nulls == NullPolicy::Fallback || self.inputs.unseen == UnseenPolicy::Fallback;
        let answered = self.default.is_some()
            || self
                .fallback
                .iter()
                .any(|step| step.abstain || step.rule.is_some());
        if kept_from_models && !answered {
            return Err((
                "endpoint.inputs".to_owned(),
                "`fallback` needs something that answers such rows: `endpoint.default`, or a `rule` or `abstain: true` in \
                 `endpoint.fallback`"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The answer while no model can give one.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum DefaultAnswer {
    /// A probability or a number.
    Number(f64),
    /// A class.
    Class(String),
}

/// What is taken from a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InputSpec {
    /// A text where a number is expected.
    pub texts: TextPolicy,
    /// A missing value.
    pub nulls: NullPolicy,
    /// A value of a categorical feature that training never saw.
    pub unseen: UnseenPolicy,
}

/// What becomes of a text where a number is expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TextPolicy {
    /// The request is refused, and told which row.
    #[default]
    Refuse,
    /// A text that reads as a number is that number, an empty one is missing; any other is refused.
    Read,
}

/// What becomes of a missing value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NullPolicy {
    /// The model sees that it is missing.
    #[default]
    Take,
    /// The request is refused, and told which row.
    Refuse,
    /// The row is asked of no model, but answered by the rules, the default or the abstention of the fallback chain.
    Fallback,
}

/// What becomes of a value of a categorical feature that training never saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnseenPolicy {
    /// The model does with it what its training has taught it.
    #[default]
    Take,
    /// The model sees a missing value; the log keeps what came.
    Missing,
    /// The request is refused, and told which row.
    Refuse,
    /// The row is asked of no model, but answered by the rules, the default or the abstention of the fallback chain.
    Fallback,
}

/// What is kept of a request in the prediction log.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSpec {
    /// How safe a prediction is once it is answered.
    pub durability: LogDurability,
    /// What becomes of a request that cannot be recorded.
    pub on_failure: LogFailure,
    /// The share of requests that are recorded, 0 to 1. What is not recorded has no label, no drift and no lineage.
    pub sample: f64,
    /// Features whose values are recorded as missing. Drift of these cannot be watched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redact: Vec<String>,
}

impl Default for LogSpec {
    fn default() -> Self {
        Self {
            durability: LogDurability::default(),
            on_failure: LogFailure::default(),
            sample: 1.0,
            redact: Vec::new(),
        }
    }
}

/// How safe a prediction is once it is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogDurability {
    /// It survives the end of the process at any instant; a power cut may cost the last twentieth of a second.
    #[default]
    Written,
    /// It survives a power cut too: each answer waits for the disk.
    Synced,
}

/// What becomes of a request that cannot be recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFailure {
    /// It is refused (507), so that nothing is answered that is not recorded.
    #[default]
    Refuse,
    /// It is answered, and counted as not recorded (`tidemill_wal_refused_rows_total`).
    Drop,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, task: Task) -> Result<(), String> {
        let endpoint: EndpointSpec = serde_saphyr::from_str(text).unwrap();
        let features = [
            ("carrier".to_owned(), FeatureKind::Categorical),
            ("distance".to_owned(), FeatureKind::Numeric),
        ];
        endpoint
            .check_fallback(&features.into(), task)
            .map_err(|(key, message)| format!("{key}: {message}"))
    }

    #[test]
    fn a_chain_of_versions_rules_and_abstention_is_read_as_it_is_written() {
        let text = "fallback:\n- version: 2\n- rule: {when: {input: carrier, in: [UA, DL]}, answer: 0.2}\n- abstain: true\ninputs: {unseen: fallback}\n";
        check(text, Task::Binary).unwrap();
        let endpoint: EndpointSpec = serde_saphyr::from_str(text).unwrap();
        let again: EndpointSpec = serde_json::from_value(serde_json::to_value(&endpoint).unwrap()).unwrap();
        assert_eq!(again, endpoint);
    }

    #[test]
    fn contradictions_of_a_chain_name_their_key_and_what_to_do() {
        let cases = [
            (
                "fallback:\n- {version: 1, abstain: true}\n",
                "step 1: names exactly one of",
            ),
            ("fallback:\n- version: 0\n", "versions count from 1"),
            ("fallback:\n- abstain: true\n- version: 1\n", "put it last"),
            ("default: 0.5\nfallback:\n- abstain: true\n", "keep one of them"),
            (
                "fallback:\n- rule: {when: {header: x-a, equals: 1}, answer: 0.1}\n",
                "a rule looks at an `input`",
            ),
            (
                "fallback:\n- rule: {when: {input: carier, equals: UA}, answer: 0.1}\n",
                "`carier` is not a feature",
            ),
            (
                "fallback:\n- rule: {when: {input: carrier, equals: UA}, answer: 7}\n",
                "`7` is not a probability",
            ),
            (
                "inputs: {nulls: fallback}\nfallback:\n- version: 1\n",
                "endpoint.inputs: `fallback` needs something that answers such rows",
            ),
        ];
        for (text, expected) in cases {
            let message = check(text, Task::Binary).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }
}
