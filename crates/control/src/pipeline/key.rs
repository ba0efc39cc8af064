//! The run key: everything that a training result depends on, as one digest. The same key gives the same model, so it is not trained
//! twice; `tidemill reproduce` trains it again on purpose and compares.

use std::path::Path;

use serde_json::{Value, json};
use tidemill_core::digest::Digest;
use tidemill_core::spec::{Spec, TrainingSpec};

use crate::error::{ControlError, Result};
use crate::pipeline::sweep;

/// What a training result depends on, apart from the data.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Code {
    /// Digests by part, for the record.
    pub(crate) parts: Value,
}

impl Code {
    /// Reads the command's files and lock, or takes the built-in trainer's identity.
    pub(crate) fn of(spec: &Spec, root: &Path, trainer: &str) -> Result<Self> {
        let Some(command) = &spec.training.run else {
            return Ok(Self {
                parts: json!({ "trainer": trainer }),
            });
        };
        let digest = |path: &Path| -> Result<String> {
            let full = root.join(path);
            let bytes = std::fs::read(&full).map_err(|e| ControlError::Refused {
                code: "training_code_missing",
                message: format!(
                    "`{}` is named in `training.code` or `training.lock` but cannot be read: {e}",
                    full.display()
                ),
            })?;
            Ok(Digest::of(&bytes).to_string())
        };
        let mut files = serde_json::Map::new();
        for path in &spec.training.code {
            files.insert(path.display().to_string(), digest(path)?.into());
        }
        // A script named in the command is code whether or not it is listed.
        for word in command.split_whitespace() {
            let path = Path::new(word);
            if !files.contains_key(word) && root.join(path).is_file() {
                files.insert(word.to_owned(), digest(path)?.into());
            }
        }
        let lock = spec.training.lock.as_deref().map(digest).transpose()?;
        Ok(Self {
            parts: json!({ "command": command, "files": files, "lock": lock }),
        })
    }

    /// The run key on a snapshot.
    pub(crate) fn key(&self, spec: &Spec, snapshot: &Digest) -> Result<Digest> {
        let mut all = json!({
            "code": self.parts,
            "snapshot": snapshot,
            "params": params(&spec.training),
            "label": spec.label.name,
            "features": spec.features,
            "holdout": [json!(spec.evaluation.holdout), json!(spec.evaluation.holdout_share)],
        });
        if spec.training.sweep.is_some() {
            all["sweep"] = sweep::config(spec);
        }
        Ok(Digest::of(
            &serde_json::to_vec(&all).map_err(ControlError::internal)?,
        ))
    }
}

/// The parameters of a training run, as recorded.
pub(crate) fn params(training: &TrainingSpec) -> Value {
    if training.run.is_some() {
        json!({ "seed": training.seed, "params": training.params })
    } else {
        json!({ "seed": training.seed, "budget": training.budget, "iterations": training.iterations })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_changes_with_the_script_the_seed_and_the_data() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("train.py"), "print(1)").unwrap();
        let text = "name: m\ndata:\n  source: a.csv\nlabel:\n  name: y\n  task: binary\nfeatures:\n  x: numeric\ntraining:\n  run: python train.py\n";
        let spec = |text: &str| tidemill_core::spec::parse(Path::new("tidemill.yaml"), text).unwrap();
        let key = |text: &str, data: &[u8]| {
            let spec = spec(text);
            Code::of(&spec, dir.path(), "t")
                .unwrap()
                .key(&spec, &Digest::of(data))
                .unwrap()
        };
        let first = key(text, b"a");
        assert_eq!(first, key(text, b"a"));
        assert_ne!(first, key(text, b"b"));
        assert_ne!(first, key(&format!("{text}  seed: 7\n"), b"a"));
        assert_ne!(
            first,
            key(
                &format!("{text}  sweep: {{parameters: {{depth: {{values: [1, 2]}}}}}}\n"),
                b"a"
            )
        );
        std::fs::write(dir.path().join("train.py"), "print(2)").unwrap();
        assert_ne!(first, key(text, b"a"));
    }
}
