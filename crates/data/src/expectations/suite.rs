//! Suites: the file of Great Expectations 1.x, and the list in the spec.

use std::path::Path;

use serde::Deserialize;
use tidemill_core::spec::{ExpectationSpec, Spec};

use crate::error::{DataError, Result};

/// A suite as `ctx.suites.add` writes it; what else it holds is not needed here.
#[derive(Debug, Deserialize)]
struct SuiteFile {
    name: String,
    #[serde(default)]
    expectations: Vec<ExpectationSpec>,
}

/// The expectations of a project under one name; `None` if there are none.
pub fn suite_of(root: &Path, spec: &Spec) -> Result<Option<(String, Vec<ExpectationSpec>)>> {
    let mut name = spec.name.clone();
    let mut list = spec.expectations.list.clone();
    if let Some(file) = &spec.expectations.suite {
        let path = root.join(file);
        let text = std::fs::read_to_string(&path).map_err(|e| DataError::io(&path, e))?;
        let suite: SuiteFile = serde_json::from_str(&text).map_err(|e| {
            DataError::Suite(format!(
                "`{}` line {}, column {}: {e}; expected a Great Expectations 1.x suite such as \
                 `{{\"name\": \"…\", \"expectations\": [{{\"type\": \"…\", \"kwargs\": {{}}}}]}}`",
                path.display(),
                e.line(),
                e.column()
            ))
        })?;
        name = suite.name;
        list.splice(0..0, suite.expectations);
    }
    Ok((!list.is_empty()).then_some((name, list)))
}
