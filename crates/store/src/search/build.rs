//! Text of SQL with its parameters, and what a clause or a key of an order is in it.

use std::collections::HashMap;

use rusqlite::types::ToSql;

use crate::column::Fields;
use crate::db::Dialect;
use crate::error::StoreError;
use crate::search::columns::{Column, KeyTable, Metrics, Searched};
use crate::search::page::{CursorValue, Kind, SortKey};
use crate::search::tree::{Clause, Compare, DatasetField, OrderKey, Subject, Test};
use crate::search::{DatasetScope, Query};
use crate::tx::ReadTx;

/// Parameters that one statement may have; SQLite takes 32,766.
const PARAMETERS: usize = 30_000;

/// No metric has this number.
const UNKNOWN_METRIC: i64 = -1;

/// The parameters of a statement that is being written, and what is known beforehand.
pub(super) struct Sql {
    pub dialect: Dialect,
    params: Vec<CursorValue>,
    metric_keys: HashMap<String, i64>,
}

impl From<i64> for CursorValue {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<f64> for CursorValue {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<&str> for CursorValue {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for CursorValue {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl Sql {
    /// Looks up the numbers of the metrics that a query names.
    pub fn for_query(tx: &ReadTx<'_>, query: &Query) -> Result<Self, StoreError> {
        let subjects = query.filter.iter().map(|clause| &clause.subject);
        let subjects = subjects.chain(query.order.iter().map(|key| &key.subject));
        let mut metric_keys = HashMap::new();
        for subject in subjects {
            let Subject::Metric(name) = subject else {
                continue;
            };
            if metric_keys.contains_key(name) {
                continue;
            }
            let sql = "SELECT number FROM metric_keys WHERE name = ?1";
            let number = tx.first(sql, &[name], |row| Fields::of(row).next())?;
            metric_keys.insert(name.clone(), number.unwrap_or(UNKNOWN_METRIC));
        }
        Ok(Self {
            dialect: tx.dialect(),
            params: Vec::new(),
            metric_keys,
        })
    }

    /// Another statement of the same query.
    pub fn fresh(&self) -> Self {
        Self {
            dialect: self.dialect,
            params: Vec::new(),
            metric_keys: self.metric_keys.clone(),
        }
    }

    /// A parameter; returns its mark.
    pub fn bind(&mut self, value: impl Into<CursorValue>) -> String {
        self.params.push(value.into());
        format!("?{}", self.params.len())
    }

    /// `column = value` or `column IN (values)`.
    pub fn one_of<V: Into<CursorValue>>(
        &mut self,
        column: &str,
        values: impl IntoIterator<Item = V>,
    ) -> String {
        let marks: Vec<String> = values.into_iter().map(|value| self.bind(value)).collect();
        match marks.as_slice() {
            [] => "1 = 0".to_owned(),
            [mark] => format!("{column} = {mark}"),
            marks => format!("{column} IN ({})", marks.join(", ")),
        }
    }

    /// The parameters so far.
    pub fn params(&self) -> Result<Vec<&dyn ToSql>, StoreError> {
        if self.params.len() > PARAMETERS {
            return Err(StoreError::conflict(
                "search",
                format!("it names more than {PARAMETERS} values; ask for fewer at once"),
            ));
        }
        Ok(self.params.iter().map(|value| value as &dyn ToSql).collect())
    }

    /// A column in a condition that no index shall be chosen for. PostgreSQL chooses by statistics and needs no hint.
    pub fn unindexed(&self, column: &str) -> String {
        match self.dialect {
            Dialect::Sqlite => format!("+{column}"),
            Dialect::Postgres => column.to_owned(),
        }
    }

    /// Whether there is a row. SQLite makes a join of EXISTS and then begins where its guesses say; a subquery is a probe.
    pub fn exists(&self, from: &str) -> String {
        match self.dialect {
            Dialect::Sqlite => format!("(SELECT 1 FROM {from} LIMIT 1) = 1"),
            Dialect::Postgres => format!("EXISTS (SELECT 1 FROM {from})"),
        }
    }

    /// The number of a metric of the query, as a parameter.
    pub fn metric_key(&mut self, name: &str) -> String {
        let number = self.metric_keys.get(name).copied();
        self.bind(number.unwrap_or(UNKNOWN_METRIC))
    }

    /// A test of a text column. What is missing passes none but IS NULL.
    pub fn text_test(&mut self, column: &str, test: &Test) -> Result<String, StoreError> {
        // A backslash is a sign like any other: SQLite knows no escape unless told one, PostgreSQL one unless told none.
        let no_escape = match self.dialect {
            Dialect::Sqlite => "",
            Dialect::Postgres => " ESCAPE ''",
        };
        Ok(match test {
            Test::Equals(text) => format!("{column} = {}", self.bind(text.as_str())),
            Test::Differs(text) => format!("{column} != {}", self.bind(text.as_str())),
            Test::Like(pattern) => format!("{column} LIKE {}{no_escape}", self.bind(pattern.as_str())),
            Test::Ilike(pattern) => {
                // As `lower` does in both databases: letters of ASCII.
                let pattern = self.bind(pattern.to_ascii_lowercase());
                format!("lower({column}) LIKE {pattern}{no_escape}")
            }
            Test::In(texts) => self.one_of(column, texts.iter().map(String::as_str)),
            Test::NotIn(texts) => {
                let some = self.one_of(column, texts.iter().map(String::as_str));
                format!("NOT ({some})")
            }
            Test::IsNull => format!("{column} IS NULL"),
            Test::IsNotNull => format!("{column} IS NOT NULL"),
            Test::Number(..) => return Err(wrong_type(column)),
        })
    }

    /// A test of a column of whole numbers. The number may have a fraction; the column stays as it is, for its index.
    pub fn integer_test(&mut self, column: &str, compare: Compare, number: f64) -> String {
        let whole = number.fract() == 0.0;
        // What is beyond an i64 is cut to it by `as`; no stored time comes near.
        let (floor, ceiling) = (number.floor() as i64, number.ceil() as i64);
        let bound = match compare {
            Compare::Equal if !whole => return "1 = 0".to_owned(),
            Compare::NotEqual if !whole => return format!("{column} IS NOT NULL"),
            Compare::Equal | Compare::NotEqual | Compare::Greater | Compare::LessOrEqual => floor,
            Compare::GreaterOrEqual | Compare::Less => ceiling,
        };
        format!("{column} {compare} {}", self.bind(bound))
    }

    /// A test of `value` and `is_nan` of a row `x` of a table of metrics.
    pub fn metric_test(&mut self, test: &Test) -> Result<String, StoreError> {
        match test {
            Test::Number(Compare::NotEqual, number) => {
                let mark = self.bind(*number);
                Ok(format!("(x.is_nan = TRUE OR x.value != {mark})"))
            }
            Test::Number(compare, number) => {
                let mark = self.bind(*number);
                Ok(format!("x.is_nan = FALSE AND x.value {compare} {mark}"))
            }
            _ => Err(wrong_type("a metric")),
        }
    }

    /// A test of an attribute's column.
    fn column_test(&mut self, column: &Column, test: &Test) -> Result<String, StoreError> {
        match (column.kind, test) {
            (Kind::Integer, Test::Number(compare, number)) => {
                Ok(self.integer_test(column.sql, *compare, *number))
            }
            (Kind::Text, test) => self.text_test(column.sql, test),
            // The id of an experiment is a number that filters write as a text.
            (_, test) => self.text_test(&format!("CAST({} AS TEXT)", column.sql), test),
        }
    }

    /// The condition that a clause is, each a probe of a primary key or of the row itself.
    pub fn condition(
        &mut self,
        searched: &Searched,
        clause: &Clause,
        datasets: &[DatasetScope],
    ) -> Result<String, StoreError> {
        match &clause.subject {
            Subject::Attribute(attribute) => {
                let column = searched.column(*attribute)?;
                self.column_test(&column, &clause.test)
            }
            Subject::Param(key) => self.key_condition(searched.params()?, key, &clause.test),
            Subject::Tag(key) => self.key_condition(&searched.tags, key, &clause.test),
            Subject::Metric(key) => {
                let key = self.metric_key(key);
                let test = self.metric_test(&clause.test)?;
                match searched.metrics {
                    Metrics::Latest => Ok(self.exists(&format!(
                        "latest_metrics x WHERE x.run = r.number AND x.key = {key} AND {test}"
                    ))),
                    Metrics::OfModel => {
                        let on = self.on_datasets(datasets);
                        Ok(self.exists(&format!(
                            "logged_model_metrics x \
                             WHERE x.model = l.number AND x.key = {key} AND {test}{on}"
                        )))
                    }
                    Metrics::None => Err(wrong_type("a metric")),
                }
            }
            Subject::Dataset(DatasetField::Context) => {
                let test = self.text_test("i.context", &clause.test)?;
                Ok(self.exists(&format!("run_datasets i WHERE i.run = r.number AND {test}")))
            }
            Subject::Dataset(field) => {
                let test = self.text_test(&format!("d.{field}"), &clause.test)?;
                Ok(self.exists(&format!(
                    "run_datasets i JOIN datasets d ON d.number = i.dataset \
                     WHERE i.run = r.number AND {test}"
                )))
            }
        }
    }

    fn key_condition(&mut self, table: &KeyTable, key: &str, test: &Test) -> Result<String, StoreError> {
        let (name, link) = (table.name, table.link("x"));
        let key = self.bind(key);
        let there = format!("{name} x WHERE {link} AND x.key = {key}");
        Ok(match test {
            Test::IsNull => format!("NOT EXISTS (SELECT 1 FROM {there})"),
            Test::IsNotNull => self.exists(&there),
            test => {
                let test = self.text_test("x.value", test)?;
                self.exists(&format!("{there} AND {test}"))
            }
        })
    }

    /// ` AND` a metric's row `x` is on one of these datasets; nothing where there are none.
    pub fn on_datasets(&mut self, datasets: &[DatasetScope]) -> String {
        let scopes: Vec<String> = datasets
            .iter()
            .map(|dataset| {
                let name = self.bind(dataset.name.as_str());
                match &dataset.digest {
                    Some(digest) => {
                        let digest = self.bind(digest.as_str());
                        format!("(x.dataset_name = {name} AND x.dataset_digest = {digest})")
                    }
                    None => format!("x.dataset_name = {name}"),
                }
            })
            .collect();
        if scopes.is_empty() {
            String::new()
        } else {
            format!(" AND ({})", scopes.join(" OR "))
        }
    }

    /// The expressions that a key of an order stands for, and the join that they need, named by `position`.
    pub fn sort_keys(
        &mut self,
        searched: &Searched,
        key: &OrderKey,
        position: usize,
        joins: &mut String,
    ) -> Result<Vec<SortKey>, StoreError> {
        let alias = format!("o{position}");
        let ascending = key.ascending;
        match &key.subject {
            Subject::Attribute(attribute) => {
                let column = searched.column(*attribute)?;
                Ok(if column.nullable {
                    SortKey::missing_last(column.sql, ascending, column.kind).to_vec()
                } else {
                    vec![SortKey::of(column.sql, ascending, column.kind)]
                })
            }
            Subject::Param(name) | Subject::Tag(name) => {
                let table = match &key.subject {
                    Subject::Param(_) => searched.params()?,
                    _ => &searched.tags,
                };
                let mark = self.bind(name.as_str());
                joins.extend([format!(
                    " LEFT JOIN {} {alias} ON {} AND {alias}.key = {mark}",
                    table.name,
                    table.link(&alias)
                )]);
                let value = format!("{alias}.value");
                Ok(SortKey::missing_last(value, ascending, Kind::Text).to_vec())
            }
            Subject::Metric(name) => {
                let mark = self.metric_key(name);
                let (class, value) = match searched.metrics {
                    Metrics::Latest => {
                        joins.extend([format!(
                            " LEFT JOIN latest_metrics {alias} ON {alias}.run = r.number AND {alias}.key = {mark}"
                        )]);
                        (
                            format!(
                                "CASE WHEN {alias}.is_nan THEN 1 WHEN {alias}.value IS NULL THEN 2 ELSE 0 END"
                            ),
                            format!("{alias}.value"),
                        )
                    }
                    Metrics::OfModel => self.model_metric(key, &mark),
                    Metrics::None => return Err(wrong_type("a metric")),
                };
                let value = SortKey {
                    nullable: true,
                    ..SortKey::of(value, ascending, Kind::Real)
                };
                Ok(vec![SortKey::of(class, true, Kind::Integer), value])
            }
            Subject::Dataset(_) => Err(wrong_type("a dataset")),
        }
    }

    /// Class and value of a logged model's metric: the latest on the dataset that the order names, if it names one.
    fn model_metric(&mut self, order: &OrderKey, key: &str) -> (String, String) {
        let mut rows = format!("FROM logged_model_metrics x WHERE x.model = l.number AND x.key = {key}");
        if let Some(name) = &order.dataset_name {
            rows.extend([format!(" AND x.dataset_name = {}", self.bind(name.as_str()))]);
        }
        if let Some(digest) = &order.dataset_digest {
            rows.extend([format!(" AND x.dataset_digest = {}", self.bind(digest.as_str()))]);
        }
        rows.push_str(
            " ORDER BY x.at_ms DESC, x.step DESC, x.run DESC, x.dataset_name, x.dataset_digest LIMIT 1",
        );
        (
            format!("coalesce((SELECT CASE WHEN x.is_nan THEN 1 ELSE 0 END {rows}), 2)"),
            format!("(SELECT x.value {rows})"),
        )
    }
}

/// What reads filters gives each subject the tests of its type.
fn wrong_type(what: &str) -> StoreError {
    StoreError::conflict("search", format!("{what} cannot be compared or sorted like that"))
}
