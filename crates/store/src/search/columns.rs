//! Where the things that are searched have their attributes, tags, parameters and metrics.

use crate::error::StoreError;
use crate::search::page::Kind;
use crate::search::tree::Attribute;

/// A column of an attribute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub sql: &'static str,
    pub kind: Kind,
    pub nullable: bool,
}

/// A table of keys and values.
pub(super) struct KeyTable {
    pub name: &'static str,
    links: &'static [(&'static str, &'static str)],
}

impl KeyTable {
    /// That a row belongs to the thing that is searched.
    pub fn link(&self, alias: &str) -> String {
        let terms: Vec<String> = self
            .links
            .iter()
            .map(|(column, of)| format!("{alias}.{column} = {of}"))
            .collect();
        terms.join(" AND ")
    }
}

/// What kind of metrics there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Metrics {
    None,
    Latest,
    OfModel,
}

/// A kind of thing that is searched.
pub(super) struct Searched {
    columns: &'static [(Attribute, Column)],
    pub tags: KeyTable,
    params: Option<KeyTable>,
    pub metrics: Metrics,
}

impl Searched {
    pub fn column(&self, attribute: Attribute) -> Result<Column, StoreError> {
        let found = self.columns.iter().find(|(known, _)| *known == attribute);
        found.map(|(_, column)| *column).ok_or_else(|| {
            StoreError::conflict("search", format!("there is no attribute `{attribute}` here"))
        })
    }

    pub fn params(&self) -> Result<&KeyTable, StoreError> {
        self.params
            .as_ref()
            .ok_or_else(|| StoreError::conflict("search", "there are no parameters here"))
    }
}

const fn text(sql: &'static str) -> Column {
    Column {
        sql,
        kind: Kind::Text,
        nullable: false,
    }
}

const fn integer(sql: &'static str) -> Column {
    Column {
        sql,
        kind: Kind::Integer,
        nullable: false,
    }
}

pub(super) const RUNS: Searched = Searched {
    columns: &[
        (Attribute::RunId, text("r.run_id")),
        (Attribute::RunName, text("r.name")),
        (Attribute::UserId, text("r.user_id")),
        (Attribute::Status, text("r.status")),
        (Attribute::ArtifactUri, text("r.artifact_uri")),
        (Attribute::StartTime, integer("r.start_ms")),
        (
            Attribute::EndTime,
            Column {
                nullable: true,
                ..integer("r.end_ms")
            },
        ),
    ],
    tags: KeyTable {
        name: "run_tags",
        links: &[("run", "r.number")],
    },
    params: Some(KeyTable {
        name: "run_params",
        links: &[("run", "r.number")],
    }),
    metrics: Metrics::Latest,
};

pub(super) const EXPERIMENTS: Searched = Searched {
    columns: &[
        (Attribute::ExperimentId, integer("e.id")),
        (Attribute::Name, text("e.name")),
        (Attribute::CreationTime, integer("e.created_ms")),
        (Attribute::LastUpdateTime, integer("e.updated_ms")),
    ],
    tags: KeyTable {
        name: "experiment_tags",
        links: &[("experiment", "e.id")],
    },
    params: None,
    metrics: Metrics::None,
};

pub(super) const REGISTERED_MODELS: Searched = Searched {
    columns: &[
        (Attribute::Name, text("m.name")),
        (Attribute::CreationTimestamp, integer("m.created_at")),
        (Attribute::LastUpdatedTimestamp, integer("m.updated_at")),
    ],
    tags: KeyTable {
        name: "model_tags",
        links: &[("model", "m.number")],
    },
    params: None,
    metrics: Metrics::None,
};

pub(super) const MODEL_VERSIONS: Searched = Searched {
    columns: &[
        (Attribute::Name, text("m.name")),
        (Attribute::Version, integer("v.version")),
        (
            Attribute::RunId,
            Column {
                nullable: true,
                ..text("v.tracked_run")
            },
        ),
        (Attribute::SourcePath, text("v.source")),
        (Attribute::CreationTimestamp, integer("v.created_at")),
        (Attribute::LastUpdatedTimestamp, integer("v.updated_at")),
    ],
    tags: KeyTable {
        name: "model_version_tags",
        links: &[("model", "v.model"), ("version", "v.version")],
    },
    params: None,
    metrics: Metrics::None,
};

pub(super) const LOGGED_MODELS: Searched = Searched {
    columns: &[
        (Attribute::ModelId, text("l.model_id")),
        (Attribute::Name, text("l.name")),
        (Attribute::ModelType, text("l.model_type")),
        (Attribute::Status, text("l.status")),
        (Attribute::SourceRunId, text("l.source_run_id")),
        (Attribute::CreationTimestamp, integer("l.created_ms")),
        (Attribute::LastUpdatedTimestamp, integer("l.updated_ms")),
    ],
    tags: KeyTable {
        name: "logged_model_tags",
        links: &[("model", "l.number")],
    },
    params: Some(KeyTable {
        name: "logged_model_params",
        links: &[("model", "l.number")],
    }),
    metrics: Metrics::OfModel,
};

const fn nullable(column: Column) -> Column {
    Column {
        nullable: true,
        ..column
    }
}

pub(super) const EVAL_DATASETS: Searched = Searched {
    columns: &[
        (Attribute::DatasetId, text("d.dataset_id")),
        (Attribute::Name, text("d.name")),
        (Attribute::CreatedTime, integer("d.created_ms")),
        (Attribute::LastUpdateTime, integer("d.updated_ms")),
        (Attribute::CreatedBy, nullable(text("d.created_by"))),
        (Attribute::LastUpdatedBy, nullable(text("d.updated_by"))),
    ],
    tags: KeyTable {
        name: "eval_dataset_tags",
        links: &[("dataset", "d.number")],
    },
    params: None,
    metrics: Metrics::None,
};
