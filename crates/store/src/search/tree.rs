//! A filter and an order, as read. They print as the filter string that means them.

use std::fmt;

use crate::column::text_enum;

text_enum! {
    /// A property that every searched thing of a kind has. The text is what a filter calls it.
    Attribute {
        /// Of a run, or of the run that a model version comes from.
        RunId = "run_id",
        /// Of a run.
        RunName = "run_name",
        /// Who started a run.
        UserId = "user_id",
        /// Of a run or a logged model.
        Status = "status",
        /// Where a run's artifacts are.
        ArtifactUri = "artifact_uri",
        /// Of a run, in milliseconds.
        StartTime = "start_time",
        /// Of a run, in milliseconds.
        EndTime = "end_time",
        /// Of anything but a run.
        Name = "name",
        /// Of an experiment.
        ExperimentId = "experiment_id",
        /// Of an experiment, in milliseconds.
        CreationTime = "creation_time",
        /// Of an experiment or an evaluation dataset, in milliseconds.
        LastUpdateTime = "last_update_time",
        /// Of anything of the registry or a logged model, in milliseconds.
        CreationTimestamp = "creation_timestamp",
        /// Of anything of the registry or a logged model, in milliseconds.
        LastUpdatedTimestamp = "last_updated_timestamp",
        /// Of a model version.
        Version = "version_number",
        /// Where a model version's files are.
        SourcePath = "source_path",
        /// Of a logged model.
        ModelId = "model_id",
        /// Of a logged model.
        ModelType = "model_type",
        /// The run that made a logged model.
        SourceRunId = "source_run_id",
        /// Of an evaluation dataset.
        DatasetId = "dataset_id",
        /// Of an evaluation dataset, in milliseconds.
        CreatedTime = "created_time",
        /// Who created an evaluation dataset.
        CreatedBy = "created_by",
        /// Who changed an evaluation dataset last.
        LastUpdatedBy = "last_updated_by",
    }
}

text_enum! {
    /// A property of a dataset that a run read.
    DatasetField {
        /// Its name.
        Name = "name",
        /// The digest of its content.
        Digest = "digest",
        /// What it was read for.
        Context = "context",
    }
}

text_enum! {
    /// How two numbers are compared.
    Compare {
        /// The same.
        Equal = "=",
        /// Not the same.
        NotEqual = "!=",
        /// Greater.
        Greater = ">",
        /// Greater or the same.
        GreaterOrEqual = ">=",
        /// Less.
        Less = "<",
        /// Less or the same.
        LessOrEqual = "<=",
    }
}

/// What a clause or an order looks at.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Subject {
    /// The latest value of a metric; of a logged model, any value.
    Metric(String),
    /// A parameter.
    Param(String),
    /// A tag.
    Tag(String),
    /// A property that all have.
    Attribute(Attribute),
    /// A dataset that the run read; one of them is enough.
    Dataset(DatasetField),
}

/// What must hold of it.
#[derive(Clone, PartialEq, Debug)]
pub enum Test {
    /// A number compares like this with a finite one. NaN is `!=` to every number and nothing else.
    Number(Compare, f64),
    /// The same text.
    Equals(String),
    /// There is a text, and it is another one.
    Differs(String),
    /// Matches a pattern, in which `%` stands for any text and `_` for any character.
    Like(String),
    /// Matches a pattern, letters in either case.
    Ilike(String),
    /// One of these texts.
    In(Vec<String>),
    /// There is a text, and it is none of these.
    NotIn(Vec<String>),
    /// Is not there.
    IsNull,
    /// Is there.
    IsNotNull,
}

/// One condition of a filter.
#[derive(Clone, PartialEq, Debug)]
pub struct Clause {
    /// What is looked at.
    pub subject: Subject,
    /// What must hold of it.
    pub test: Test,
}

/// One key of an order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OrderKey {
    /// What is sorted by.
    pub subject: Subject,
    /// Whether small comes first.
    pub ascending: bool,
    /// Of a logged model's metric: only values on the dataset of this name.
    pub dataset_name: Option<String>,
    /// Of a logged model's metric: only values on the dataset of this digest.
    pub dataset_digest: Option<String>,
}

impl OrderKey {
    /// An order by something, of whatever dataset.
    pub fn by(subject: Subject, ascending: bool) -> Self {
        Self {
            subject,
            ascending,
            dataset_name: None,
            dataset_digest: None,
        }
    }
}

/// Whether deleted things are searched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum View {
    /// Only what is not deleted.
    #[default]
    Active,
    /// Only what is deleted.
    Deleted,
    /// Both.
    All,
}

impl View {
    /// The stages that it takes in.
    pub(crate) fn stages(self) -> &'static [&'static str] {
        match self {
            Self::Active => &["active"],
            Self::Deleted => &["deleted"],
            Self::All => &["active", "deleted"],
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (entity, key) = match self {
            Self::Metric(key) => ("metrics", key),
            Self::Param(key) => ("params", key),
            Self::Tag(key) => ("tags", key),
            Self::Attribute(attribute) => return write!(f, "attributes.{attribute}"),
            Self::Dataset(field) => return write!(f, "datasets.{field}"),
        };
        // There is no way to write a key that holds both kinds of quotes; MLflow's grammar has none either.
        let quote = if key.contains('`') { '"' } else { '`' };
        write!(f, "{entity}.{quote}{key}{quote}")
    }
}

/// A text between the quotes that it does not hold.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') { '"' } else { '\'' };
    format!("{quote}{text}{quote}")
}

/// A list, whose texts may hold anything: in lists a backslash takes away a sign's meaning.
fn list(texts: &[String]) -> String {
    let items: Vec<String> = texts
        .iter()
        .map(|text| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")))
        .collect();
    format!("({})", items.join(", "))
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = &self.subject;
        match &self.test {
            Test::Number(compare, number) => write!(f, "{subject} {compare} {number}"),
            Test::Equals(text) => write!(f, "{subject} = {}", quoted(text)),
            Test::Differs(text) => write!(f, "{subject} != {}", quoted(text)),
            Test::Like(pattern) => write!(f, "{subject} LIKE {}", quoted(pattern)),
            Test::Ilike(pattern) => write!(f, "{subject} ILIKE {}", quoted(pattern)),
            Test::In(texts) => write!(f, "{subject} IN {}", list(texts)),
            Test::NotIn(texts) => write!(f, "{subject} NOT IN {}", list(texts)),
            Test::IsNull => write!(f, "{subject} IS NULL"),
            Test::IsNotNull => write!(f, "{subject} IS NOT NULL"),
        }
    }
}

impl fmt::Display for OrderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}",
            self.subject,
            if self.ascending { "ASC" } else { "DESC" }
        )
    }
}
