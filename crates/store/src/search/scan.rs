//! Searches of what there are few of: experiments, registered models, model versions, logged models and evaluation datasets. The rows
//! of a workspace or experiment are walked, each clause is a probe.

use crate::column::Fields;
use crate::error::StoreError;
use crate::search::build::Sql;
use crate::search::columns::{
    EVAL_DATASETS, EXPERIMENTS, LOGGED_MODELS, MODEL_VERSIONS, REGISTERED_MODELS, Searched,
};
use crate::search::page::{Page, Reader, SortKey, after, order_by, select_keys};
use crate::search::tree::{Attribute, Clause, Subject, Test, View};
use crate::search::{Query, Visible};
use crate::tracking::experiments;
use crate::tx::ReadTx;

/// The tag that makes a registered model a prompt.
const IS_PROMPT: &str = "mlflow.prompt.is_prompt";

/// A dataset that metrics of logged models shall be on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DatasetScope {
    /// Its name.
    pub name: String,
    /// Its digest, unless any will do.
    pub digest: Option<String>,
}

/// Where logged models are searched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModelScope<'a> {
    /// The workspace of the experiments.
    pub workspace: &'a str,
    /// The experiments' ids; `None` for all that are not deleted.
    pub experiments: Option<&'a [i64]>,
    /// What metric clauses look at; without any, the models that have a metric on one of these. All metrics if empty.
    pub datasets: &'a [DatasetScope],
}

/// A SELECT in the making.
struct Scan<'a> {
    searched: &'static Searched,
    item: &'static str,
    from: &'static str,
    conditions: Vec<String>,
    /// What makes an order unique, less what the order itself names.
    ties: Vec<(Attribute, bool)>,
    datasets: &'a [DatasetScope],
}

impl Scan<'_> {
    fn page<T>(
        self,
        tx: &ReadTx<'_>,
        mut sql: Sql,
        query: &Query,
        mut item: impl FnMut(&mut Fields<'_>) -> rusqlite::Result<T>,
        width: usize,
    ) -> Result<Page<T>, StoreError> {
        let (mut keys, mut joins): (Vec<SortKey>, _) = (Vec::new(), String::new());
        for (position, key) in query.order.iter().enumerate() {
            keys.extend(sql.sort_keys(self.searched, key, position, &mut joins)?);
        }
        for (attribute, ascending) in self.ties {
            let named = |subject: &Subject| *subject == Subject::Attribute(attribute);
            if !query.order.iter().any(|key| named(&key.subject)) {
                let column = self.searched.column(attribute)?;
                keys.push(SortKey::of(column.sql, ascending, column.kind));
            }
        }
        let mut conditions = self.conditions;
        for clause in &query.filter {
            conditions.push(sql.condition(self.searched, clause, self.datasets)?);
        }
        if let Some(cursor) = &query.after {
            conditions.push(after(&mut sql, &keys, cursor)?);
        }
        let text = format!(
            "SELECT {}{} FROM {}{joins} WHERE {}{} LIMIT {}",
            self.item,
            select_keys(&keys),
            self.from,
            conditions.join(" AND "),
            order_by(&keys),
            u64::from(query.limit) + 1,
        );
        let reader = Reader::new(&keys, query.limit);
        let rows = tx.rows(&text, &sql.params()?, |row| {
            let item = item(&mut Fields::of(row))?;
            Ok((item, reader.cursor(row, width)?))
        })?;
        Ok(reader.page(rows))
    }
}

/// A row that is one number.
fn number(fields: &mut Fields<'_>) -> rusqlite::Result<i64> {
    fields.next()
}

/// Only what the caller may see.
fn visible(sql: &mut Sql, column: &str, query: &Query) -> Option<String> {
    match &query.visible {
        Visible::Except(none) if none.is_empty() => None,
        Visible::Only(numbers) => Some(sql.one_of(column, numbers.iter().copied())),
        Visible::Except(numbers) => Some(format!("NOT ({})", sql.one_of(column, numbers.iter().copied()))),
    }
}

/// Experiments of a workspace: their ids. Their natural order has the newest first.
pub fn experiments(
    tx: &ReadTx<'_>,
    workspace: &str,
    view: View,
    query: &Query,
) -> Result<Page<i64>, StoreError> {
    let mut sql = Sql::for_query(tx, query)?;
    let workspace = sql.bind(workspace);
    let mut conditions = vec![
        format!("e.workspace = {workspace}"),
        sql.one_of("e.lifecycle", view.stages().iter().copied()),
    ];
    conditions.extend(visible(&mut sql, "e.id", query));
    let ties = if query.order.is_empty() {
        vec![(Attribute::CreationTime, false), (Attribute::ExperimentId, true)]
    } else {
        vec![(Attribute::ExperimentId, false)]
    };
    let scan = Scan {
        searched: &EXPERIMENTS,
        item: "e.id",
        from: "experiments e",
        conditions,
        ties,
        datasets: &[],
    };
    scan.page(tx, sql, query, number, 1)
}

/// Whether a filter asks for prompts; the filter less what it says of that.
fn prompts(query: &Query) -> (bool, Query) {
    let about = |clause: &&Clause| clause.subject == Subject::Tag(IS_PROMPT.to_owned());
    let asked = query
        .filter
        .iter()
        .find(about)
        .is_some_and(|clause| match &clause.test {
            Test::Equals(value) => value.eq_ignore_ascii_case("true"),
            Test::Differs(value) => value.eq_ignore_ascii_case("false"),
            _ => false,
        });
    let mut rest = query.clone();
    if !asked {
        // Models that are no prompts have no such tag at all: asking for `false` must not ask for the tag.
        rest.filter.retain(|clause| !about(&clause));
    }
    (asked, rest)
}

/// Registered models of a workspace: their numbers. Their natural order is by name. Prompts are left out unless the filter asks for
/// them by their tag.
pub fn registered_models(tx: &ReadTx<'_>, workspace: &str, query: &Query) -> Result<Page<i64>, StoreError> {
    let (of_prompts, query) = prompts(query);
    let mut sql = Sql::for_query(tx, &query)?;
    let workspace = sql.bind(workspace);
    let mut conditions = vec![format!("m.workspace = {workspace}")];
    if !of_prompts {
        let key = sql.bind(IS_PROMPT);
        conditions.push(format!(
            "NOT EXISTS (SELECT 1 FROM model_tags p WHERE p.model = m.number AND p.key = {key} AND p.value = 'true')"
        ));
    }
    conditions.extend(visible(&mut sql, "m.number", &query));
    let scan = Scan {
        searched: &REGISTERED_MODELS,
        item: "m.number",
        from: "models m",
        conditions,
        ties: vec![(Attribute::Name, true)],
        datasets: &[],
    };
    scan.page(tx, sql, &query, number, 1)
}

/// Model versions of a workspace: numbers of models with versions. Their natural order has those changed last first. Prompts are left out unless the filter asks for
/// them by their tag.
pub fn model_versions(
    tx: &ReadTx<'_>,
    workspace: &str,
    query: &Query,
) -> Result<Page<(i64, i64)>, StoreError> {
    let (of_prompts, query) = prompts(query);
    let mut sql = Sql::for_query(tx, &query)?;
    let workspace = sql.bind(workspace);
    let mut conditions = vec![format!("m.workspace = {workspace}")];
    if !of_prompts {
        let key = sql.bind(IS_PROMPT);
        // A model is a prompt if any of its versions says so.
        conditions.push(format!(
            "NOT EXISTS (SELECT 1 FROM model_version_tags p WHERE p.model = v.model AND p.key = {key} AND p.value = 'true')"
        ));
    }
    conditions.extend(visible(&mut sql, "v.model", &query));
    let mut ties = vec![(Attribute::Name, true), (Attribute::Version, false)];
    if query.order.is_empty() {
        ties.insert(0, (Attribute::LastUpdatedTimestamp, false));
    }
    let scan = Scan {
        searched: &MODEL_VERSIONS,
        item: "v.model, v.version",
        from: "model_versions v JOIN models m ON m.number = v.model",
        conditions,
        ties,
        datasets: &[],
    };
    let key = |fields: &mut Fields<'_>| Ok((fields.next()?, fields.next()?));
    scan.page(tx, sql, &query, key, 2)
}

/// Logged models that are not deleted: their numbers. Their natural order has the newest first.
pub fn logged_models(
    tx: &ReadTx<'_>,
    scope: &ModelScope<'_>,
    query: &Query,
) -> Result<Page<i64>, StoreError> {
    let mut sql = Sql::for_query(tx, query)?;
    let experiments = scope_of(tx, scope.workspace, scope.experiments, query)?;
    let mut conditions = vec![
        sql.one_of("l.experiment", experiments),
        "l.lifecycle = 'active'".to_owned(),
    ];
    let asks_metric = |clause: &Clause| matches!(clause.subject, Subject::Metric(_));
    if !scope.datasets.is_empty() && !query.filter.iter().any(asks_metric) {
        let on = sql.on_datasets(scope.datasets);
        conditions.push(sql.exists(&format!("logged_model_metrics x WHERE x.model = l.number{on}")));
    }
    let scan = Scan {
        searched: &LOGGED_MODELS,
        item: "l.number",
        from: "logged_models l",
        conditions,
        ties: vec![(Attribute::CreationTimestamp, false), (Attribute::ModelId, true)],
        datasets: scope.datasets,
    };
    scan.page(tx, sql, query, number, 1)
}

/// Evaluation datasets of a workspace: their numbers, those in one of `experiments` if any are given. Their natural order has the
/// newest first. Seen is what belongs to experiments that are all seen; what belongs to none is seen with `lone` only.
pub fn eval_datasets(
    tx: &ReadTx<'_>,
    workspace: &str,
    experiments: Option<&[i64]>,
    lone: bool,
    query: &Query,
) -> Result<Page<i64>, StoreError> {
    let mut sql = Sql::for_query(tx, query)?;
    let workspace = sql.bind(workspace);
    let mut conditions = vec![format!("d.workspace = {workspace}")];
    const OF: &str = "SELECT 1 FROM eval_dataset_experiments x WHERE x.dataset = d.number";
    if let Some(ids) = experiments {
        let within = sql.one_of("x.experiment", ids.iter().copied());
        conditions.push(format!("EXISTS ({OF} AND {within})"));
    }
    if let Some(seen) = visible(&mut sql, "x.experiment", query) {
        conditions.push(format!("NOT EXISTS ({OF} AND NOT ({seen}))"));
    }
    if !lone {
        conditions.push(format!("EXISTS ({OF})"));
    }
    let ties = if query.order.is_empty() {
        vec![(Attribute::CreatedTime, false), (Attribute::DatasetId, false)]
    } else {
        vec![(Attribute::DatasetId, false)]
    };
    let scan = Scan {
        searched: &EVAL_DATASETS,
        item: "d.number",
        from: "eval_datasets d",
        conditions,
        ties,
        datasets: &[],
    };
    scan.page(tx, sql, query, number, 1)
}

/// The ids of the experiments that a search of a workspace looks into: those given, or all that are not deleted.
pub(super) fn scope_of(
    tx: &ReadTx<'_>,
    workspace: &str,
    ids: Option<&[i64]>,
    query: &Query,
) -> Result<Vec<i64>, StoreError> {
    let mut found = match ids {
        Some(ids) => experiments::of_workspace(tx, workspace, ids)?,
        None => {
            let sql = "SELECT id FROM experiments WHERE workspace = ?1 AND lifecycle = 'active'";
            tx.rows(sql, &[&workspace], |row| Fields::of(row).next())?
        }
    };
    found.retain(|id| query.visible.holds(*id));
    found.sort_unstable();
    found.dedup();
    Ok(found)
}
