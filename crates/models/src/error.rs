//! Why a bundle cannot become a model.

use tidemill_core::ports::PortError;

/// What is wrong with a bundle, written for the person who made it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    /// A named file is not in the bundle.
    #[error("the bundle has no file `{name}`, only {present}; write it beside `model.json`")]
    NoFile {
        /// The file that was looked for.
        name: String,
        /// What is there.
        present: String,
    },
    /// `model.json` is not a manifest.
    #[error(
        "`model.json` is not a model manifest: {0}; expected an object such as {{\"format\": \"lightgbm\", \"file\": \
         \"model.txt\", \"features\": [{{\"name\": \"age\", \"kind\": \"numeric\"}}]}}"
    )]
    Manifest(#[source] serde_json::Error),
    /// `model.json` contradicts itself.
    #[error("`model.json`: {0}")]
    Contradiction(String),
    /// No engine for this format.
    #[error(
        "`model.json` has format `{0}`, which this version cannot load; expected one of {formats}",
        formats = crate::SUPPORTED_FORMATS.join(", ")
    )]
    UnknownFormat(String),
    /// The model file is damaged or from another program.
    #[error("`{file}` {broken}")]
    Broken {
        /// The model file.
        file: String,
        /// What is wrong in it.
        broken: Broken,
    },
    /// The model file and `model.json` do not belong together.
    #[error("`{file}` does not fit `model.json`: {reason}")]
    Mismatch {
        /// The model file.
        file: String,
        /// Where they differ and what to do.
        reason: String,
    },
}

impl From<BundleError> for PortError {
    fn from(error: BundleError) -> Self {
        let code = match &error {
            BundleError::UnknownFormat(_) => "model_unknown_format",
            BundleError::NoFile { .. } => "model_file_missing",
            BundleError::Manifest(_) | BundleError::Contradiction(_) => "model_manifest",
            BundleError::Broken { .. } => "model_broken",
            BundleError::Mismatch { .. } => "model_mismatch",
        };
        Self::caller(code, error.to_string())
    }
}

/// A place in a model file that cannot be read.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("line {line}: {found}; expected {expected}")]
pub(crate) struct Broken {
    /// From 1.
    pub line: usize,
    /// What stands there.
    pub found: String,
    /// What should.
    pub expected: String,
}

impl Broken {
    /// Describes a place.
    pub fn new(line: usize, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            line,
            found: found.into(),
            expected: expected.into(),
        }
    }
}

/// A value from a broken file, shortened so that a message stays readable.
pub(crate) fn shorten(value: &str) -> String {
    const LONGEST: usize = 40;
    match value.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}
