//! What each search knows: entities, attributes and their types.

use tidemill_store::search::Attribute;

/// What is searched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Runs.
    Runs,
    /// Experiments.
    Experiments,
    /// Registered models.
    RegisteredModels,
    /// Versions of registered models.
    ModelVersions,
    /// Logged models.
    LoggedModels,
    /// Evaluation datasets.
    EvalDatasets,
}

/// An attribute, the names that it goes by, the best first, and whether it is a number.
pub(super) struct Known {
    pub names: &'static [&'static str],
    pub attribute: Attribute,
    pub is_number: bool,
}

const fn text(names: &'static [&'static str], attribute: Attribute) -> Known {
    Known {
        names,
        attribute,
        is_number: false,
    }
}

const fn number(names: &'static [&'static str], attribute: Attribute) -> Known {
    Known {
        names,
        attribute,
        is_number: true,
    }
}

const RUNS: &[Known] = &[
    text(&["artifact_uri"], Attribute::ArtifactUri),
    number(&["end_time"], Attribute::EndTime),
    text(&["run_id"], Attribute::RunId),
    text(
        &["run_name", "run name", "Run name", "Run Name"],
        Attribute::RunName,
    ),
    number(&["start_time", "created", "Created"], Attribute::StartTime),
    text(&["status"], Attribute::Status),
    text(&["user_id"], Attribute::UserId),
];

const EXPERIMENTS: &[Known] = &[
    text(&["name"], Attribute::Name),
    text(&["experiment_id"], Attribute::ExperimentId),
    number(&["creation_time"], Attribute::CreationTime),
    number(&["last_update_time"], Attribute::LastUpdateTime),
];

const REGISTERED_MODELS: &[Known] = &[text(&["name"], Attribute::Name)];

const REGISTERED_MODELS_ORDER: &[Known] = &[
    text(&["name"], Attribute::Name),
    number(
        &["timestamp", "last_updated_timestamp"],
        Attribute::LastUpdatedTimestamp,
    ),
    number(&["creation_timestamp"], Attribute::CreationTimestamp),
];

const MODEL_VERSIONS: &[Known] = &[
    text(&["name"], Attribute::Name),
    text(&["run_id"], Attribute::RunId),
    text(&["source_path"], Attribute::SourcePath),
    number(&["version_number"], Attribute::Version),
];

const MODEL_VERSIONS_ORDER: &[Known] = &[
    text(&["name"], Attribute::Name),
    number(&["version_number"], Attribute::Version),
    number(&["creation_timestamp"], Attribute::CreationTimestamp),
    number(&["last_updated_timestamp"], Attribute::LastUpdatedTimestamp),
];

const LOGGED_MODELS: &[Known] = &[
    text(&["name"], Attribute::Name),
    text(&["model_id"], Attribute::ModelId),
    text(&["model_type"], Attribute::ModelType),
    text(&["status"], Attribute::Status),
    text(&["source_run_id"], Attribute::SourceRunId),
    number(
        &["creation_timestamp", "creation_time"],
        Attribute::CreationTimestamp,
    ),
    number(
        &["last_updated_timestamp", "last_updated_time"],
        Attribute::LastUpdatedTimestamp,
    ),
];

const EVAL_DATASETS: &[Known] = &[
    text(&["name"], Attribute::Name),
    number(&["created_time"], Attribute::CreatedTime),
    number(&["last_update_time"], Attribute::LastUpdateTime),
    text(&["created_by"], Attribute::CreatedBy),
    text(&["last_updated_by"], Attribute::LastUpdatedBy),
];

const EVAL_DATASETS_ORDER: &[Known] = &[
    text(&["name"], Attribute::Name),
    number(&["created_time"], Attribute::CreatedTime),
    number(&["last_update_time"], Attribute::LastUpdateTime),
];

impl Target {
    /// Attributes that a filter may name.
    pub(super) fn filtered(self) -> &'static [Known] {
        match self {
            Self::Runs => RUNS,
            Self::Experiments => EXPERIMENTS,
            Self::RegisteredModels => REGISTERED_MODELS,
            Self::ModelVersions => MODEL_VERSIONS,
            Self::LoggedModels => LOGGED_MODELS,
            Self::EvalDatasets => EVAL_DATASETS,
        }
    }

    /// Attributes that an order may name.
    pub(super) fn ordered(self) -> &'static [Known] {
        match self {
            Self::RegisteredModels => REGISTERED_MODELS_ORDER,
            Self::ModelVersions => MODEL_VERSIONS_ORDER,
            Self::EvalDatasets => EVAL_DATASETS_ORDER,
            other => other.filtered(),
        }
    }

    /// Whether an attribute may be compared with a list.
    pub(super) fn takes_list(self, attribute: Attribute) -> bool {
        self == Self::LoggedModels || self.lists().contains(&attribute)
    }

    /// The attributes that may be compared with a list; of logged models all may.
    pub(super) fn lists(self) -> &'static [Attribute] {
        match self {
            Self::Runs => &[Attribute::RunId],
            Self::Experiments => &[Attribute::ExperimentId],
            Self::RegisteredModels | Self::EvalDatasets => &[Attribute::Name],
            Self::ModelVersions => &[Attribute::Name, Attribute::RunId],
            Self::LoggedModels => &[],
        }
    }

    /// Whether IS NULL may be asked of a tag, and of a parameter where there are any.
    pub(super) fn asks_for_presence(self) -> bool {
        matches!(self, Self::Runs | Self::Experiments)
    }
}

/// The attribute of a name.
pub(super) fn find<'k>(known: &'k [Known], name: &str) -> Option<&'k Known> {
    known.iter().find(|known| known.names.contains(&name))
}

/// As Python writes a set of them.
pub(super) fn names(known: &[Known]) -> String {
    let names: Vec<String> = known
        .iter()
        .flat_map(|known| known.names)
        .map(|name| format!("'{name}'"))
        .collect();
    format!("{{{}}}", names.join(", "))
}
