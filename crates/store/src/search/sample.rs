//! A small world of runs, what a search of it must give by plain reading, and the way into a store.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::StoreError;
use crate::column::bind;
use crate::search::{Attribute, Clause, Compare, DatasetField, OrderKey, Subject, Test, View};
use crate::tx::Tx;

/// A run. Its number is its place, from 1.
#[derive(Clone, Debug)]
#[allow(clippy::struct_field_names)] // as the column
pub struct Run {
    pub run_id: String,
    pub experiment: i64,
    pub name: String,
    pub status: String,
    pub active: bool,
    pub start: i64,
    pub end: Option<i64>,
    pub metrics: BTreeMap<String, f64>,
    pub params: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
    /// Name, digest, context.
    pub datasets: Vec<(String, String, Option<String>)>,
}

pub const KEYS: [&str; 3] = ["a", "b b", "unknown"];

/// Texts that are alike in ways that matter: case, prefix, the part that indexes hold.
pub fn texts() -> impl Strategy<Value = String> + Clone {
    let long = |end: &str| format!("{}{end}", "x".repeat(64));
    let texts = ["", "x", "X", "xy", "é_%", "100\\%"].map(str::to_owned);
    prop::sample::select(
        texts
            .into_iter()
            .chain([long("1"), long("2")])
            .collect::<Vec<_>>(),
    )
}

pub fn numbers() -> impl Strategy<Value = f64> {
    prop::sample::select(vec![-1.0, 0.0, 0.5, 2.0, f64::MAX, f64::MIN])
}

fn by_key<V: std::fmt::Debug>(
    values: impl Strategy<Value = V>,
) -> impl Strategy<Value = BTreeMap<String, V>> {
    let key = prop::sample::select(KEYS[..2].to_vec()).prop_map(str::to_owned);
    prop::collection::btree_map(key, values, 0..3)
}

fn a_run() -> impl Strategy<Value = Run> {
    let metric = prop_oneof![4 => numbers(), 1 => Just(f64::NAN)];
    let datasets = prop::collection::vec((texts(), texts(), prop::option::of(texts())), 0..3);
    let row = (
        1_i64..4,
        texts(),
        0..3_usize,
        any::<bool>(),
        0_i64..4,
        prop::option::of(0_i64..3),
    );
    (
        row,
        by_key(metric),
        by_key(texts()),
        by_key(texts()),
        datasets,
        any::<u64>(),
    )
        .prop_map(
            |((experiment, name, status, active, start, end), metrics, params, tags, mut datasets, id)| {
                datasets.sort();
                datasets.dedup_by(|a, b| (&a.0, &a.1) == (&b.0, &b.1));
                Run {
                    run_id: format!("{id:032x}"),
                    experiment,
                    name,
                    status: ["RUNNING", "FINISHED", "FAILED"][status].to_owned(),
                    active,
                    start,
                    end,
                    metrics,
                    params,
                    tags,
                    datasets,
                }
            },
        )
}

/// Up to a few dozen runs in three experiments.
pub fn world() -> impl Strategy<Value = Vec<Run>> {
    prop::collection::vec(a_run(), 1..40)
}

fn a_compare() -> impl Strategy<Value = Compare> {
    prop::sample::select(Compare::ALL)
}

fn text_test() -> impl Strategy<Value = Test> {
    let pattern = || {
        prop_oneof![
            texts(),
            Just("%".to_owned()),
            Just("X%".to_owned()),
            Just("_".to_owned()),
            Just("%\\%".to_owned())
        ]
    };
    prop_oneof![
        texts().prop_map(Test::Equals),
        texts().prop_map(Test::Differs),
        pattern().prop_map(Test::Like),
        pattern().prop_map(Test::Ilike),
    ]
}

fn a_clause(runs: &[Run]) -> impl Strategy<Value = Clause> + use<> {
    let ids: Vec<String> = runs.iter().map(|run| run.run_id.clone()).collect();
    let ids = prop::collection::vec(prop::sample::select(ids), 1..6);
    let key = || prop::sample::select(KEYS.to_vec()).prop_map(str::to_owned);
    let some = prop::collection::vec(texts(), 1..3);
    let presence = || prop_oneof![4 => text_test(), 1 => Just(Test::IsNull), 1 => Just(Test::IsNotNull)];
    let number = |numbers| (a_compare(), numbers).prop_map(|(c, n)| Test::Number(c, n));
    let halves = (0..7).prop_map(|n| f64::from(n) / 2.0);
    let id_test = prop_oneof![
        ids.clone().prop_map(Test::In),
        ids.clone().prop_map(Test::NotIn),
        ids.prop_map(|ids| Test::Equals(ids[0].clone())),
    ];
    let status = prop::sample::select(vec!["RUNNING", "FINISHED"]).prop_map(|s| Test::Equals(s.to_owned()));
    let attribute = Subject::Attribute;
    let clause = |(subject, test)| Clause { subject, test };
    prop_oneof![
        4 => (key().prop_map(Subject::Metric), number(numbers().boxed())).prop_map(clause),
        3 => (key().prop_map(Subject::Param), presence()).prop_map(clause),
        3 => (key().prop_map(Subject::Tag), presence()).prop_map(clause),
        1 => (Just(attribute(Attribute::RunId)), id_test).prop_map(clause),
        1 => (Just(attribute(Attribute::RunName)), text_test()).prop_map(clause),
        1 => (Just(attribute(Attribute::Status)), status).prop_map(clause),
        2 => (prop::sample::select(vec![attribute(Attribute::StartTime), attribute(Attribute::EndTime)]), number(halves.boxed())).prop_map(clause),
        1 => (prop::sample::select(DatasetField::ALL).prop_map(Subject::Dataset), prop_oneof![text_test(), some.clone().prop_map(Test::In), some.prop_map(Test::NotIn)]).prop_map(clause),
    ]
}

fn an_order() -> impl Strategy<Value = Vec<OrderKey>> {
    let subjects = vec![
        Subject::Metric("a".to_owned()),
        Subject::Metric("b b".to_owned()),
        Subject::Metric("unknown".to_owned()),
        Subject::Param("a".to_owned()),
        Subject::Tag("b b".to_owned()),
        Subject::Attribute(Attribute::StartTime),
        Subject::Attribute(Attribute::EndTime),
        Subject::Attribute(Attribute::RunName),
        Subject::Attribute(Attribute::RunId),
    ];
    let some = prop::sample::subsequence(subjects, 0..4).prop_shuffle();
    (some, any::<[bool; 9]>()).prop_map(|(subjects, ascending)| {
        let keys = subjects.into_iter().zip(ascending);
        keys.map(|(subject, ascending)| OrderKey::by(subject, ascending))
            .collect()
    })
}

/// What is asked of a world.
#[derive(Clone, Debug)]
pub struct Question {
    pub experiments: Vec<i64>,
    pub view: View,
    pub filter: Vec<Clause>,
    pub order: Vec<OrderKey>,
    pub limit: u32,
    pub few: usize,
}

pub fn questions(runs: &[Run]) -> impl Strategy<Value = Vec<Question>> + use<> {
    let experiments = prop::sample::subsequence(vec![1, 2, 3, 99], 0..=4);
    let view = prop::sample::select(vec![View::Active, View::Deleted, View::All]);
    let filter = prop::collection::vec(a_clause(runs), 0..4);
    let limit = prop_oneof![1_u32..5, Just(1000)];
    let few = prop::sample::select(vec![0_usize, 3, 1000]);
    let question = (experiments, view, filter, an_order(), limit, few).prop_map(
        |(experiments, view, filter, order, limit, few)| Question {
            experiments,
            view,
            filter,
            order,
            limit,
            few,
        },
    );
    prop::collection::vec(question, 40)
}

fn like(pattern: &[char], text: &[char]) -> bool {
    match (pattern.first(), text.first()) {
        (None, first) => first.is_none(),
        (Some('%'), _) => (0..=text.len()).any(|skipped| like(&pattern[1..], &text[skipped..])),
        (Some('_'), Some(_)) => like(&pattern[1..], &text[1..]),
        (Some(wanted), Some(found)) => wanted == found && like(&pattern[1..], &text[1..]),
        (Some(_), None) => false,
    }
}

fn matches(text: &str, pattern: &str) -> bool {
    let chars = |text: &str| text.chars().collect::<Vec<_>>();
    like(&chars(pattern), &chars(text))
}

fn text_holds(text: Option<&str>, test: &Test) -> bool {
    match (test, text) {
        (Test::IsNull, text) => text.is_none(),
        (_, None) => false,
        (Test::IsNotNull, _) => true,
        (Test::Equals(other), Some(text)) => text == other,
        (Test::Differs(other), Some(text)) => text != other,
        (Test::Like(pattern), Some(text)) => matches(text, pattern),
        (Test::Ilike(pattern), Some(text)) => {
            matches(&text.to_ascii_lowercase(), &pattern.to_ascii_lowercase())
        }
        (Test::In(some), Some(text)) => some.iter().any(|other| other == text),
        (Test::NotIn(some), Some(text)) => some.iter().all(|other| other != text),
        (Test::Number(..), _) => panic!("a text is no number"),
    }
}

fn number_holds(number: Option<f64>, test: &Test) -> bool {
    let (Test::Number(compare, other), Some(number)) = (test, number) else {
        return false;
    };
    match compare {
        Compare::Equal => number == *other,
        Compare::NotEqual => number != *other,
        Compare::Greater => number > *other,
        Compare::GreaterOrEqual => number >= *other,
        Compare::Less => number < *other,
        Compare::LessOrEqual => number <= *other,
    }
}

impl Run {
    fn holds(&self, clause: &Clause) -> bool {
        let test = &clause.test;
        match &clause.subject {
            Subject::Metric(key) => number_holds(self.metrics.get(key).copied(), test),
            Subject::Param(key) => text_holds(self.params.get(key).map(String::as_str), test),
            Subject::Tag(key) => text_holds(self.tags.get(key).map(String::as_str), test),
            Subject::Attribute(Attribute::StartTime) => number_holds(Some(self.start as f64), test),
            Subject::Attribute(Attribute::EndTime) => number_holds(self.end.map(|end| end as f64), test),
            Subject::Attribute(Attribute::RunId) => text_holds(Some(&self.run_id), test),
            Subject::Attribute(Attribute::RunName) => text_holds(Some(&self.name), test),
            Subject::Attribute(Attribute::Status) => text_holds(Some(&self.status), test),
            Subject::Attribute(_) => panic!("not asked"),
            Subject::Dataset(field) => self.datasets.iter().any(|(name, digest, context)| match field {
                DatasetField::Name => text_holds(Some(name), test),
                DatasetField::Digest => text_holds(Some(digest), test),
                DatasetField::Context => text_holds(context.as_deref(), test),
            }),
        }
    }

    fn compare(&self, other: &Self, key: &OrderKey) -> Ordering {
        let texts = |a: Option<&String>, b: Option<&String>| sorted(a, b, key.ascending, Ord::cmp);
        match &key.subject {
            Subject::Metric(name) => {
                let class = |run: &Self| match run.metrics.get(name) {
                    None => 2,
                    Some(value) => i32::from(value.is_nan()),
                };
                let (a, b) = (self.metrics.get(name), other.metrics.get(name));
                class(self).cmp(&class(other)).then_with(|| match class(self) {
                    0 => sorted(a, b, key.ascending, |a, b| a.partial_cmp(b).unwrap()),
                    _ => Ordering::Equal,
                })
            }
            Subject::Param(name) => texts(self.params.get(name), other.params.get(name)),
            Subject::Tag(name) => texts(self.tags.get(name), other.tags.get(name)),
            Subject::Attribute(Attribute::StartTime) => {
                sorted(Some(&self.start), Some(&other.start), key.ascending, Ord::cmp)
            }
            Subject::Attribute(Attribute::EndTime) => {
                sorted(self.end.as_ref(), other.end.as_ref(), key.ascending, Ord::cmp)
            }
            Subject::Attribute(Attribute::RunName) => texts(Some(&self.name), Some(&other.name)),
            Subject::Attribute(Attribute::RunId) => texts(Some(&self.run_id), Some(&other.run_id)),
            _ => panic!("not sorted by"),
        }
    }
}

/// Missing last, whatever the direction.
fn sorted<T>(a: Option<&T>, b: Option<&T>, ascending: bool, by: impl Fn(&T, &T) -> Ordering) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) if ascending => by(a, b),
        (Some(a), Some(b)) => by(b, a),
        (a, b) => a.is_none().cmp(&b.is_none()),
    }
}

impl Question {
    /// The numbers of all runs that a search of this must give, in order.
    pub fn answer(&self, runs: &[Run]) -> Vec<i64> {
        let seen = |run: &Run| match self.view {
            View::Active => run.active,
            View::Deleted => !run.active,
            View::All => true,
        };
        let mut found: Vec<(i64, &Run)> = (1..)
            .zip(runs)
            .filter(|(_, run)| self.experiments.contains(&run.experiment) && seen(run))
            .filter(|(_, run)| self.filter.iter().all(|clause| run.holds(clause)))
            .collect();
        found.sort_by(|(_, a), (_, b)| {
            let keys = self.order.iter().map(|key| a.compare(b, key));
            keys.fold(Ordering::Equal, Ordering::then)
                .then(b.start.cmp(&a.start))
                .then_with(|| a.run_id.cmp(&b.run_id))
        });
        found.into_iter().map(|(number, _)| number).collect()
    }
}

pub fn add_experiment(tx: &mut Tx<'_>, id: i64, workspace: &str) -> Result<(), StoreError> {
    let columns = "id, workspace, name, artifact_location, lifecycle, created_ms, updated_ms";
    let name = format!("experiment {id}");
    tx.insert(
        "experiments",
        columns,
        bind![id, workspace, name, "uri", "active", id, id],
    )
}

/// Puts a world into an empty store.
pub fn add_world(tx: &mut Tx<'_>, runs: &[Run]) -> Result<(), StoreError> {
    for id in 1..=3 {
        add_experiment(tx, id, "default")?;
    }
    for (number, name) in (1_i64..).zip(&KEYS[..2]) {
        tx.insert("metric_keys", "number, name", bind![number, *name])?;
    }
    let mut datasets = 0_i64;
    for (number, run) in (1_i64..).zip(runs) {
        let stage = if run.active { "active" } else { "deleted" };
        tx.insert(
            "tracked_runs",
            "number, run_id, experiment, name, user_id, status, lifecycle, start_ms, end_ms, artifact_uri",
            bind![
                number,
                run.run_id,
                run.experiment,
                run.name,
                "me",
                run.status,
                stage,
                run.start,
                run.end,
                "uri"
            ],
        )?;
        for (key, value) in &run.metrics {
            let place = KEYS.iter().position(|known| known == key).unwrap() as i64 + 1;
            let (is_nan, value) = (value.is_nan(), if value.is_nan() { 0.0 } else { *value });
            let columns = "run, key, step, at_ms, value, is_nan";
            tx.insert(
                "latest_metrics",
                columns,
                bind![number, place, 0_i64, 0_i64, value, is_nan],
            )?;
        }
        for (table, values) in [("run_params", &run.params), ("run_tags", &run.tags)] {
            for (key, value) in values {
                tx.insert(table, "run, key, value", bind![number, *key, *value])?;
            }
        }
        for (name, digest, context) in &run.datasets {
            datasets += 1;
            let columns = "number, experiment, name, digest, source_type, source";
            // Of an experiment of its own, where names and digests may repeat.
            add_experiment(tx, 1000 + datasets, "default")?;
            let params = bind![datasets, 1000 + datasets, *name, *digest, "local", "here"];
            tx.insert("datasets", columns, params)?;
            let columns = "run, dataset, position, context, tags";
            tx.insert(
                "run_datasets",
                columns,
                bind![number, datasets, 0_i64, *context, "[]"],
            )?;
        }
    }
    Ok(())
}
