//! Which version of a deployment answers a request, what happens when it cannot, and who else gets a copy.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Span;

/// A contradiction: the key, dotted, and what is wrong with what to do.
pub type Finding = (String, String);

/// Which version answers. A version that the request names always does; else the first rule that holds; else the split or the bandit; else
/// the newest. Versions that are named here are served whatever `versions` says.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RoutingSpec {
    /// What sticks to one version: a header, a parameter or an input column of the request. Default: the header `x-tidemill-key`, the
    /// parameter `key`, or else the request's id, which sticks to nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<SourceSpec>,
    /// Mixes the keys anew: change it for a new experiment, keep it while weights change. Default: the deployment's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
    /// Requests of a kind that go to a version; the first that holds wins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleSpec>,
    /// Weights by version, such as `{1: 90, 2: 10}`. A key stays on its version while the version's weight does not fall.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub split: IndexMap<u32, f64>,
    /// Weights that are learnt from outcomes, instead of `split`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandit: Option<BanditSpec>,
    /// Versions that get a copy of what was answered by another, and answer nobody.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shadow: Vec<ShadowCopySpec>,
}

/// Where in a request a value is. Exactly one of them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SourceSpec {
    /// A header, in lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// A parameter of the protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// An input column; its first row counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
}

/// A rule.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// What has to hold.
    pub when: ConditionSpec,
    /// The version that answers then.
    pub version: u32,
}

/// What has to hold of a request: one place to look, and at least one thing that is true of the value there. A value that is not there fails
/// every condition.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConditionSpec {
    /// A header, in lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// A parameter of the protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// An input column. In a routing rule its first row counts, in a graph's switch each row by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// In a graph only: the output of a node, `NODE.OUTPUT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// The value is this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub equals: Option<Value>,
    /// The value is one of these.
    #[serde(rename = "in", skip_serializing_if = "Vec::is_empty")]
    pub one_of: Vec<Value>,
    /// The text begins with this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The number is at least this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The number is less than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub below: Option<f64>,
}

/// Weights that are learnt: Thompson sampling over outcomes told through feedback.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BanditSpec {
    /// The versions to choose from.
    pub versions: Vec<u32>,
    /// Every version keeps at least this share, so that a change is seen.
    #[serde(default = "default_floor")]
    pub min_share: f64,
    /// The seed of the draws: the same outcomes in the same order give the same weights.
    #[serde(default)]
    pub seed: u64,
}

fn default_floor() -> f64 {
    0.05
}

/// A version that gets copies.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShadowCopySpec {
    /// Which.
    pub version: u32,
    /// Of this share of the requests, by key.
    #[serde(default = "whole")]
    pub share: f64,
    /// At most so many copies wait or are worked on; more are dropped and counted.
    #[serde(default = "default_copies")]
    pub max_copies: u32,
    /// Numbers that differ by no more than this, relative to the larger, count as equal.
    #[serde(default = "default_tolerance")]
    pub tolerance: f64,
}

fn whole() -> f64 {
    1.0
}

fn default_copies() -> u32 {
    64
}

fn default_tolerance() -> f64 {
    1e-6
}

/// When a version that fails is given a rest.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerSpec {
    /// After so many failures …
    pub failures: u32,
    /// … within this time …
    pub window: Span,
    /// … the version is not asked for this long; then …
    pub open: Span,
    /// … so many requests at once try whether it answers again.
    pub probes: u32,
}

impl Default for BreakerSpec {
    fn default() -> Self {
        Self {
            failures: 5,
            window: Span::from_micros(10_000_000),
            open: Span::from_micros(30_000_000),
            probes: 1,
        }
    }
}

/// A step of the fallback chain: exactly one of these.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FallbackSpec {
    /// Another version of this deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Another deployment, a cheap one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// A fixed answer. For a model of tensors: a value for each output, given to every row, such as `{probability: 0.1}`; for one of
    /// bodies: the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// An answer without outputs that says so, instead of an error.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub abstain: bool,
}

impl FallbackSpec {
    fn ways(&self) -> usize {
        usize::from(self.version.is_some())
            + usize::from(self.endpoint.is_some())
            + usize::from(self.default.is_some())
            + usize::from(self.abstain)
    }
}

impl ConditionSpec {
    /// Whether it says one place, and something of the value there.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn check(&self, in_graph: bool) -> Result<(), String> {
        let places = [&self.header, &self.parameter, &self.input, &self.output];
        let places = places.into_iter().flatten().count();
        if places != 1 || (self.output.is_some() && !in_graph) {
            let known = if in_graph {
                "`header`, `parameter`, `input` or `output`"
            } else {
                "`header`, `parameter` or `input`"
            };
            return Err(format!("a condition looks at exactly one of {known}"));
        }
        let header = self.header.as_deref().unwrap_or_default();
        if header.chars().any(char::is_uppercase) {
            return Err(format!(
                "header `{header}` has capitals; headers arrive in lower case"
            ));
        }
        let says = self.equals.is_some() || !self.one_of.is_empty() || self.prefix.is_some();
        if !says && self.min.is_none() && self.below.is_none() {
            return Err(
                "a condition says what the value is: `equals`, `in`, `prefix`, `min` or `below`".to_owned(),
            );
        }
        let plain = |value: &Value| !matches!(value, Value::Array(_) | Value::Object(_) | Value::Null);
        if let Some(odd) = self.equals.iter().chain(&self.one_of).find(|value| !plain(value)) {
            return Err(format!("`{odd}` is not a text, a number, `true` or `false`"));
        }
        if let (Some(min), Some(below)) = (self.min, self.below)
            && min >= below
        {
            return Err(format!("no number is at least `{min}` and less than `{below}`"));
        }
        Ok(())
    }
}

/// Whether weights can be split by.
pub(super) fn check_weights<'a>(weights: impl Iterator<Item = &'a f64>) -> Result<(), String> {
    let mut sum = 0.0;
    for weight in weights {
        if !weight.is_finite() || *weight < 0.0 {
            return Err(format!("`{weight}` is not a weight: zero or more"));
        }
        sum += weight;
    }
    if sum > 0.0 {
        Ok(())
    } else {
        Err("at least one weight is above zero".to_owned())
    }
}

impl RoutingSpec {
    /// Whether it contradicts itself. `key`: where it stands.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn check(&self, key: &str) -> Result<(), Finding> {
        let finding = |part: &str, message: String| Err((format!("{key}.{part}"), message));
        if let Some(source) = &self.key {
            let places = [&source.header, &source.parameter, &source.input];
            if places.into_iter().flatten().count() != 1 {
                return finding(
                    "key",
                    "names exactly one of `header`, `parameter` or `input`".to_owned(),
                );
            }
        }
        for (place, rule) in self.rules.iter().enumerate() {
            if let Err(message) = rule.when.check(false) {
                return finding("rules", format!("rule {}: {message}", place + 1));
            }
        }
        if !self.split.is_empty() {
            if let Err(message) = check_weights(self.split.values()) {
                return finding("split", message);
            }
            if self.bandit.is_some() {
                return finding(
                    "bandit",
                    "learns the weights that `split` gives; keep one of them".to_owned(),
                );
            }
        }
        if let Some(bandit) = &self.bandit {
            let mut versions = bandit.versions.clone();
            versions.sort_unstable();
            versions.dedup();
            if versions.len() < 2 || versions.len() != bandit.versions.len() {
                return finding("bandit.versions", "at least two versions, each once".to_owned());
            }
            let most = 1.0 / versions.len() as f64;
            if !(0.0..=most).contains(&bandit.min_share) {
                let message = format!(
                    "`{}` is not between 0 and {most:.3}, an even share",
                    bandit.min_share
                );
                return finding("bandit.min_share", message);
            }
        }
        for shadow in &self.shadow {
            if !(0.0..=1.0).contains(&shadow.share) {
                return finding(
                    "shadow",
                    format!("share `{}` is not between 0 and 1", shadow.share),
                );
            }
            if shadow.tolerance.is_nan() || shadow.tolerance < 0.0 {
                return finding(
                    "shadow",
                    format!("tolerance `{}` is not zero or more", shadow.tolerance),
                );
            }
        }
        Ok(())
    }
}

impl super::ServingSpec {
    /// Whether it contradicts itself. `key`: where it stands, such as `serving`.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn check(&self, key: &str) -> Result<(), Finding> {
        if let Some(routing) = &self.routing {
            routing.check(&format!("{key}.routing"))?;
        }
        self.log.check(&format!("{key}.log"))?;
        if let Some(breaker) = &self.breaker
            && (breaker.failures == 0 || breaker.probes == 0)
        {
            let message = "`failures` and `probes` are at least 1".to_owned();
            return Err((format!("{key}.breaker"), message));
        }
        for (place, step) in self.fallback.iter().enumerate() {
            let finding = |message: &str| {
                Err((
                    format!("{key}.fallback"),
                    format!("step {}: {message}", place + 1),
                ))
            };
            if step.ways() != 1 {
                return finding("names exactly one of `version`, `endpoint`, `default` or `abstain: true`");
            }
            let always = step.default.is_some() || step.abstain;
            if always && place + 1 < self.fallback.len() {
                return finding(
                    "a fixed answer or `abstain` always answers, so nothing after it is reached; put it last",
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::spec::ServingSpec;

    fn error(text: &str) -> String {
        let spec: ServingSpec = serde_saphyr::from_str(text).unwrap();
        let (key, message) = spec.check("serving").unwrap_err();
        format!("{key}: {message}")
    }

    #[test]
    fn a_whole_routing_section_is_read_as_it_is_written() {
        let text = "routing:\n  key: {header: x-user}\n  rules:\n  - when: {header: x-plan, in: [gold, 3]}\n    version: 2\n  - when: {input: amount, min: 10, below: 20}\n    version: 3\n  split: {1: 90, 2: 10}\n  shadow:\n  - version: 4\nbreaker: {failures: 3}\nfallback:\n- version: 1\n- endpoint: cheap\n- default: {y: 0.5}\n";
        let spec: ServingSpec = serde_saphyr::from_str(text).unwrap();
        spec.check("serving").unwrap();
        let routing = spec.routing.as_ref().unwrap();
        assert_eq!(routing.split[&2], 10.0);
        assert_eq!(routing.rules[0].when.one_of.len(), 2);
        assert_eq!(routing.shadow[0].max_copies, 64);
        let again: ServingSpec = serde_json::from_value(serde_json::to_value(&spec).unwrap()).unwrap();
        assert_eq!(again, spec);
    }

    #[test]
    fn contradictions_name_their_key_and_what_to_do() {
        let cases = [
            (
                "routing:\n  rules:\n  - when: {header: a, input: b, equals: 1}\n    version: 1\n",
                "serving.routing.rules: rule 1: a condition looks at exactly one",
            ),
            (
                "routing:\n  rules:\n  - when: {header: a}\n    version: 1\n",
                "a condition says what the value is",
            ),
            (
                "routing:\n  rules:\n  - when: {header: X-A, equals: 1}\n    version: 1\n",
                "arrive in lower case",
            ),
            (
                "routing:\n  split: {1: 0}\n",
                "serving.routing.split: at least one weight is above zero",
            ),
            ("routing:\n  split: {1: -2}\n", "`-2` is not a weight"),
            (
                "routing:\n  split: {1: 1}\n  bandit: {versions: [1, 2]}\n",
                "keep one of them",
            ),
            (
                "routing:\n  bandit: {versions: [1, 2], min_share: 0.6}\n",
                "`0.6` is not between 0 and 0.500",
            ),
            (
                "routing:\n  bandit: {versions: [1, 1]}\n",
                "at least two versions",
            ),
            (
                "fallback:\n- {version: 1, endpoint: b}\n",
                "serving.fallback: step 1: names exactly one",
            ),
            ("fallback:\n- abstain: true\n- version: 1\n", "put it last"),
            (
                "breaker: {failures: 0}\n",
                "serving.breaker: `failures` and `probes` are at least 1",
            ),
        ];
        for (text, expected) in cases {
            let message = error(text);
            assert!(message.contains(expected), "{message}");
        }
    }
}
