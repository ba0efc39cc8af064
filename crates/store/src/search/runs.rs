//! Searches of runs, of which there may be a million in an experiment.

use crate::column::Fields;
use crate::error::StoreError;
use crate::search::build::Sql;
use crate::search::columns::RUNS;
use crate::search::page::{Kind, Page, Reader, SortKey, after, order_by, select_keys};
use crate::search::scan::scope_of;
use crate::search::tree::{Attribute, Clause, Compare, Subject, Test, View};
use crate::search::{OrderKey, Query};
use crate::tx::ReadTx;

/// A clause that lets through at most so many runs is where the search begins.
const FEW: usize = 1_000;

/// So many clauses are looked at.
const LOOKED_AT: usize = 8;

/// Experiments with at most so many stages are searched one by one in their natural order and merged; a sort of all their runs would
/// read them all.
const MERGED: usize = 32;

/// The start of a value that the indexes by value hold.
const INDEXED_CHARACTERS: usize = 64;

/// Where runs are searched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunScope<'a> {
    /// The workspace of the experiments.
    pub workspace: &'a str,
    /// The experiments' ids; `None` for all that are not deleted.
    pub experiments: Option<&'a [i64]>,
    /// Whether deleted runs are searched.
    pub view: View,
}

/// Runs: their numbers. Their natural order has those that started last first.
pub fn runs(tx: &ReadTx<'_>, scope: &RunScope<'_>, query: &Query) -> Result<Page<i64>, StoreError> {
    runs_with(tx, scope, query, FEW)
}

/// [`runs`], by what counts as few.
pub(super) fn runs_with(
    tx: &ReadTx<'_>,
    scope: &RunScope<'_>,
    query: &Query,
    few: usize,
) -> Result<Page<i64>, StoreError> {
    let experiments = scope_of(tx, scope.workspace, scope.experiments, query)?;
    if experiments.is_empty() {
        return Ok(Page::empty());
    }
    let sql = Sql::for_query(tx, query)?;
    let start = start(tx, &sql, query, few)?;
    let search = Search {
        experiments: &experiments,
        stages: scope.view.stages(),
        query,
        natural: is_natural(&query.order),
    };
    search.page(tx, &sql, start)
}

/// Whether an order is the one that the index of an experiment's runs has.
fn is_natural(order: &[OrderKey]) -> bool {
    match order {
        [] => true,
        [first, rest @ ..] => {
            first.subject == Subject::Attribute(Attribute::StartTime) && !first.ascending && rest.is_empty()
        }
    }
}

/// Where a search begins.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Start {
    /// At the runs of the experiments.
    Experiments,
    /// At the runs that the filter names.
    Ids,
    /// At the rows that the clause of this place in the filter lets through.
    Clause(usize),
}

/// Chooses by looking: an index says at once whether a clause lets few runs through.
fn start(tx: &ReadTx<'_>, sql: &Sql, query: &Query, few: usize) -> Result<Start, StoreError> {
    let names_runs = |clause: &Clause| {
        clause.subject == Subject::Attribute(Attribute::RunId)
            && matches!(clause.test, Test::Equals(_) | Test::In(_))
    };
    if query.filter.iter().any(names_runs) {
        return Ok(Start::Ids);
    }
    let mut best = (few + 1, Start::Experiments);
    let mut looked_at = 0;
    for (place, clause) in query.filter.iter().enumerate() {
        let mut sql = sql.fresh();
        let Some(rows) = through_index(&mut sql, clause)? else {
            continue;
        };
        looked_at += 1;
        let text = format!("SELECT count(*) FROM ({rows} LIMIT {}) few", best.0);
        let count: i64 = tx.one(&text, &sql.params()?, |row| Fields::of(row).next())?;
        if (count as usize) < best.0 {
            best = (count as usize, Start::Clause(place));
        }
        if looked_at == LOOKED_AT || best.0 < few / 20 {
            break;
        }
    }
    Ok(best.1)
}

/// The runs that a clause lets through, out of an index, for clauses that one knows. No run comes twice.
fn through_index(sql: &mut Sql, clause: &Clause) -> Result<Option<String>, StoreError> {
    let rows = match (&clause.subject, &clause.test) {
        (Subject::Metric(_), Test::Number(Compare::NotEqual, _)) => return Ok(None),
        (Subject::Metric(key), test) => {
            let key = sql.metric_key(key);
            let test = sql.metric_test(test)?;
            format!("SELECT x.run FROM latest_metrics x WHERE x.key = {key} AND {test}")
        }
        (Subject::Param(key) | Subject::Tag(key), Test::Equals(value)) => {
            let table = key_table(&clause.subject);
            let key = sql.bind(key.as_str());
            let beginning: String = value.chars().take(INDEXED_CHARACTERS).collect();
            let beginning = sql.bind(beginning);
            let value = sql.bind(value.as_str());
            format!(
                "SELECT x.run FROM {table} x \
                 WHERE x.key = {key} AND substr(x.value, 1, {INDEXED_CHARACTERS}) = {beginning} AND x.value = {value}"
            )
        }
        (Subject::Param(key) | Subject::Tag(key), Test::IsNotNull) => {
            let table = key_table(&clause.subject);
            let key = sql.bind(key.as_str());
            format!("SELECT x.run FROM {table} x WHERE x.key = {key}")
        }
        _ => return Ok(None),
    };
    Ok(Some(rows))
}

fn key_table(subject: &Subject) -> &'static str {
    match subject {
        Subject::Param(_) => "run_params",
        _ => "run_tags",
    }
}

/// How dear a clause is to ask of a run: its own row first, then by how much each is likely to keep out.
fn cost(clause: &Clause) -> u8 {
    match (&clause.subject, &clause.test) {
        (Subject::Attribute(_), _) => 0,
        (Subject::Dataset(_), _) => 4,
        (_, Test::Equals(_) | Test::In(_) | Test::Number(Compare::Equal, _)) => 1,
        (_, Test::Differs(_) | Test::NotIn(_) | Test::Number(Compare::NotEqual, _)) => 3,
        _ => 2,
    }
}

struct Search<'a> {
    experiments: &'a [i64],
    stages: &'static [&'static str],
    query: &'a Query,
    natural: bool,
}

impl Search<'_> {
    fn page(&self, tx: &ReadTx<'_>, sql: &Sql, start: Start) -> Result<Page<i64>, StoreError> {
        let mut sql = sql.fresh();
        let (mut keys, mut joins) = (Vec::new(), String::new());
        if !self.natural {
            for (position, key) in self.query.order.iter().enumerate() {
                keys.extend(sql.sort_keys(&RUNS, key, position, &mut joins)?);
            }
        }
        let by = |attribute| {
            let named = Subject::Attribute(attribute);
            !self.natural && self.query.order.iter().any(|key| key.subject == named)
        };
        let [by_start, by_id] = natural_keys();
        if !by(Attribute::StartTime) {
            keys.push(by_start);
        }
        if !by(Attribute::RunId) {
            keys.push(by_id);
        }
        let parts = self.experiments.len() * self.stages.len();
        let text = if self.natural && start == Start::Experiments && (2..=MERGED).contains(&parts) {
            self.merged(&mut sql, &keys)?
        } else {
            let all = (self.experiments, self.stages);
            self.select(&mut sql, &keys, &joins, start, all)?
        };
        let reader = Reader::new(&keys, self.query.limit);
        let rows = tx.rows(&text, &sql.params()?, |row| {
            Ok((Fields::of(row).next()?, reader.cursor(row, 1)?))
        })?;
        Ok(reader.page(rows))
    }

    /// The first rows of each experiment and stage by the index, and the first of those.
    fn merged(&self, sql: &mut Sql, keys: &[SortKey]) -> Result<String, StoreError> {
        let mut parts = Vec::new();
        for experiment in self.experiments {
            for stage in self.stages {
                let one = (std::slice::from_ref(experiment), std::slice::from_ref(stage));
                let part = self.select(sql, keys, "", Start::Experiments, one)?;
                parts.push(format!("SELECT * FROM ({part}) part{}", parts.len()));
            }
        }
        Ok(format!(
            "SELECT * FROM ({}) parts{} LIMIT {}",
            parts.join(" UNION ALL "),
            order_by(keys),
            self.rows(),
        ))
    }

    fn rows(&self) -> u64 {
        u64::from(self.query.limit) + 1
    }

    fn select(
        &self,
        sql: &mut Sql,
        keys: &[SortKey],
        joins: &str,
        start: Start,
        (experiments, stages): (&[i64], &[&'static str]),
    ) -> Result<String, StoreError> {
        let mut conditions = Vec::new();
        let mut from = "tracked_runs r".to_owned();
        if let Start::Clause(place) = start
            && let Some(rows) = through_index(sql, &self.query.filter[place])?
        {
            // SQLite keeps to the order of a CROSS JOIN.
            from = format!("({rows}) few CROSS JOIN tracked_runs r");
            conditions.push("r.number = few.run".to_owned());
        }
        let experiment = match start {
            Start::Experiments => "r.experiment".to_owned(),
            Start::Ids | Start::Clause(_) => sql.unindexed("r.experiment"),
        };
        conditions.push(sql.one_of(&experiment, experiments.iter().copied()));
        conditions.push(sql.one_of("r.lifecycle", stages.iter().copied()));
        let mut clauses: Vec<(usize, &Clause)> = self.query.filter.iter().enumerate().collect();
        clauses.retain(|(place, _)| start != Start::Clause(*place));
        clauses.sort_by_key(|(_, clause)| cost(clause));
        for (_, clause) in clauses {
            conditions.push(sql.condition(&RUNS, clause, &[])?);
        }
        if let Some(cursor) = &self.query.after {
            conditions.push(after(sql, keys, cursor)?);
        }
        Ok(format!(
            "SELECT r.number{} FROM {from}{joins} WHERE {}{} LIMIT {}",
            select_keys(keys),
            conditions.join(" AND "),
            order_by(keys),
            self.rows(),
        ))
    }
}

/// What an experiment's runs are sorted by where nothing else is said.
fn natural_keys() -> [SortKey; 2] {
    [
        SortKey::of("r.start_ms", false, Kind::Integer),
        SortKey::of("r.run_id", true, Kind::Text),
    ]
}
