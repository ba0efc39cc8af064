//! The built-in trainer: gradient-boosted trees that need no tuning, by the `perpetual` crate.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use perpetual::objective::Objective;
use perpetual::tree::TreeStopper;
use perpetual::{ColumnarMatrix, PerpetualBooster};
use tidemill_core::frame::{Column, FeatureKind, Frame, Labels, Task};
use tidemill_core::ports::{ModelBundle, PortError, TrainOutput, TrainRequest, Trainer};

use crate::encode::{Coding, Rounding, code_of, codes};
use crate::manifest::{MANIFEST_FILE, Manifest, ManifestFeature};
use crate::perpetual::to_json;

/// How perpetual wants its inputs. Its training partitions rows by the number of a category's bin, its prediction by the
/// category itself; the two agree only if the codes are 1, 2, 3, … without a gap.
pub(crate) const CODING: Coding = Coding {
    first_code: 1,
    rounding: Rounding::None,
    most_levels: Some(MOST_LEVELS),
};

const LIBRARY: &str = "perpetual 2.3.0";
/// The bundle's booster file.
const BOOSTER_FILE: &str = "booster.json";
/// Levels of a categorical column that get a code, the most frequent first; rarer ones are read as missing.
const MOST_LEVELS: usize = 254;
/// Perpetual's default and its histograms' fast path.
const MAX_BIN: u16 = 256;
/// Rounds of boosting if the request names no limit: perpetual's own default.
const MOST_ROUNDS: usize = 1000;
/// Memory for the histograms of the nodes of a growing tree. Perpetual would take 70 % of what is free at the moment, which
/// would make the size of trees, and so the model, depend on what else runs; this many bytes are the same everywhere.
/// It is enough for trees of some 900 nodes on 20 columns, and keeps a server that trains within a small machine.
const HISTOGRAM_BYTES: f64 = 8e7;
/// Perpetual sums squares in `f32`.
const LARGEST_LABEL: f64 = 1e15;

/// Trains gradient-boosted trees. The same request gives the same bytes, whatever the number of threads: work is split by
/// column, never by row, so no sum depends on it.
#[derive(Debug, Clone, Copy, Default)]
pub struct BuiltinTrainer {
    threads: Option<usize>,
}

impl BuiltinTrainer {
    /// A trainer that uses every core.
    pub fn new() -> Self {
        Self::default()
    }

    /// A trainer that uses this many threads, for a machine that also serves.
    pub fn with_threads(threads: usize) -> Self {
        Self {
            threads: Some(threads.max(1)),
        }
    }
}

impl Trainer for BuiltinTrainer {
    fn train(&self, request: TrainRequest) -> Result<TrainOutput, PortError> {
        check(&request)?;
        let features = vocabularies(&request.rows);
        let columns = encode(&request.rows, &features);
        let boosters = self.fit(&request, &columns, &features)?;
        drop(columns);

        let task = task_of(&request.labels);
        let classes = match &request.labels {
            Labels::Multiclass { classes, .. } => classes.to_vec(),
            Labels::Binary(_) | Labels::Regression(_) => Vec::new(),
        };
        let manifest = Manifest {
            format: "perpetual".into(),
            file: BOOSTER_FILE.into(),
            task: Some(task),
            classes,
            features,
            engine: None,
            threads: None,
            library: Some(LIBRARY.into()),
            serve: None,
        };
        let unwritten = |error: serde_json::Error| {
            PortError::internal(
                "training_failed",
                format!("the trained model cannot be written: {error}"),
            )
        };
        let bundle = ModelBundle::from([
            (
                MANIFEST_FILE.to_owned(),
                serde_json::to_vec(&manifest).map_err(unwritten)?,
            ),
            (BOOSTER_FILE.to_owned(), to_json(&boosters).map_err(unwritten)?),
        ]);
        let metrics = measure(&boosters, request.rows.rows());
        tracing::info!(
            ?task,
            rows = request.rows.rows(),
            features = manifest.features.len(),
            trees = metrics["trees"],
            "trained"
        );
        Ok(TrainOutput { bundle, metrics })
    }

    fn identity(&self) -> &'static str {
        "perpetual 2.3.0, tidemill encoding 1"
    }
}

impl BuiltinTrainer {
    /// One booster for each output.
    fn fit(
        &self,
        request: &TrainRequest,
        columns: &[Cow<'_, [f64]>],
        features: &[ManifestFeature],
    ) -> Result<Vec<PerpetualBooster>, PortError> {
        let rows = request.rows.rows();
        let matrix = ColumnarMatrix::new(columns.iter().map(AsRef::as_ref).collect(), None, rows);
        let categorical = features
            .iter()
            .enumerate()
            .filter(|(_, feature)| feature.kind == FeatureKind::Categorical)
            .map(|(position, _)| position)
            .collect::<HashSet<usize>>();
        let rounds = request.iterations.map_or(MOST_ROUNDS, |rounds| rounds as usize);
        let empty = PerpetualBooster::default()
            .set_budget(request.budget as f32)
            .set_max_bin(MAX_BIN)
            .set_num_threads(self.threads)
            .set_iteration_limit(Some(rounds))
            .set_memory_limit(Some(memory_limit(rows, columns.len(), rounds)))
            .set_categorical_features(Some(categorical))
            .set_seed(request.seed);
        let fit = |objective: Objective, labels: &[f64]| {
            fit_one(empty.clone().set_objective(objective), &matrix, labels)
        };
        match &request.labels {
            Labels::Binary(truths) => {
                let labels: Vec<f64> = truths.iter().map(|&truth| f64::from(u8::from(truth))).collect();
                Ok(vec![fit(Objective::LogLoss, &labels)?])
            }
            Labels::Regression(labels) => Ok(vec![fit(Objective::SquaredLoss, labels)?]),
            // One class against the rest, as perpetual's own multi-output booster does; prediction normalises by softmax.
            Labels::Multiclass { classes, indices } => (0..classes.len())
                .map(|class| {
                    let labels: Vec<f64> = indices
                        .iter()
                        .map(|&index| f64::from(u8::from(index == class)))
                        .collect();
                    if indices.contains(&class) {
                        return fit(Objective::LogLoss, &labels);
                    }
                    // Nothing to learn from: the odds of half a row in all of them.
                    tracing::warn!(
                        class = classes[class],
                        "no row has this class; its probability will be near zero"
                    );
                    let odds = 0.5 / (rows as f64 + 0.5);
                    let mut rare = empty
                        .clone()
                        .set_objective(Objective::LogLoss)
                        .set_base_score(odds.ln());
                    rare.set_eta(request.budget as f32);
                    Ok(rare)
                })
                .collect(),
        }
    }
}

fn fit_one(
    mut booster: PerpetualBooster,
    matrix: &ColumnarMatrix<'_, f64>,
    labels: &[f64],
) -> Result<PerpetualBooster, PortError> {
    booster
        .fit_columnar(matrix, labels, None, None)
        .map_err(|error| {
            PortError::internal("training_failed", format!("perpetual could not fit: {error}"))
        })?;
    let finite = booster.base_score.is_finite()
        && booster
            .trees
            .iter()
            .all(|tree| tree.nodes.values().all(|node| node.weight_value.is_finite()));
    if !finite {
        return Err(PortError::caller(
            "training_diverged",
            "training gave a model with infinite numbers; bring the label and the numeric features to a smaller scale",
        ));
    }
    Ok(booster)
}

/// Perpetual's memory limit in gigabytes: its own formula turned round, so that the histograms get [`HISTOGRAM_BYTES`].
fn memory_limit(rows: usize, columns: usize, rounds: usize) -> f32 {
    // Bins (u16) of every cell; sum (f64), gradient, hessian and loss (f32) of every row.
    let base = (rows * columns * 2 + rows * 20) as f64;
    let nodes_in_ensemble = rounds as f64 * 256.0;
    let bytes_of_node = size_of::<perpetual::node::Node>() as f64 * 1.3;
    let bytes = (HISTOGRAM_BYTES / 0.7 + base + nodes_in_ensemble * bytes_of_node) / 0.9;
    (bytes / 1e9) as f32
}

fn measure(boosters: &[PerpetualBooster], rows: usize) -> BTreeMap<String, f64> {
    let trees = boosters.iter().flat_map(|booster| &booster.trees);
    let (mut count, mut leaves, mut limited) = (0, 0, 0);
    for tree in trees {
        count += 1;
        leaves += tree.n_leaves;
        limited += usize::from(tree.stopper == TreeStopper::MaxNodes);
    }
    if limited > 0 {
        tracing::warn!(
            trees = limited,
            "trees stopped at the limit of histogram memory; fewer columns would let them grow"
        );
    }
    let numbers = [("trees", count), ("leaves", leaves), ("training_rows", rows)];
    numbers
        .map(|(name, number)| (name.to_owned(), number as f64))
        .into()
}

fn task_of(labels: &Labels) -> Task {
    match labels {
        Labels::Binary(_) => Task::Binary,
        Labels::Regression(_) => Task::Regression,
        Labels::Multiclass { .. } => Task::Multiclass,
    }
}

// ---- checks ----

fn check(request: &TrainRequest) -> Result<(), PortError> {
    let rows = request.rows.rows();
    if request.rows.columns().is_empty() {
        return Err(PortError::caller(
            "training_no_features",
            "there are no features to train on; list some in the spec",
        ));
    }
    if rows == 0 {
        return Err(PortError::caller(
            "training_no_rows",
            "there are no rows to train on; widen the training window or wait for labels",
        ));
    }
    if request.labels.rows() != rows {
        return Err(PortError::internal(
            "training_label_count",
            format!("{rows} rows came with {} labels", request.labels.rows()),
        ));
    }
    if !(0.01..=3.0).contains(&request.budget) {
        return Err(PortError::caller(
            "training_budget",
            format!(
                "the budget `{}` is not between 0.01 and 3; 0.5 is a good start",
                request.budget
            ),
        ));
    }
    if request.iterations == Some(0) {
        return Err(PortError::caller(
            "training_iterations",
            "the limit of boosting rounds is 0, so nothing can be learnt; expected at least 1, or no limit",
        ));
    }
    check_labels(&request.labels)?;
    check_numbers(&request.rows)
}

fn check_labels(labels: &Labels) -> Result<(), PortError> {
    let one_class = |class: &str| {
        let message = format!(
            "every training row has the label `{class}`, so there is nothing to tell apart; widen the training window or check \
             the label expression"
        );
        Err(PortError::caller("training_one_class", message))
    };
    match labels {
        Labels::Binary(truths) => match truths.first() {
            Some(first) if truths.iter().all(|truth| truth == first) => one_class(&first.to_string()),
            _ => Ok(()),
        },
        Labels::Multiclass { classes, indices } => {
            if let Some(index) = indices.iter().find(|&&index| index >= classes.len()) {
                return Err(PortError::internal(
                    "training_label_range",
                    format!("a label has class {index} of {}", classes.len()),
                ));
            }
            match indices.first() {
                Some(first) if indices.iter().all(|index| index == first) => one_class(&classes[*first]),
                _ => Ok(()),
            }
        }
        Labels::Regression(values) => {
            let odd = values
                .iter()
                .position(|value| value.is_nan() || value.abs() > LARGEST_LABEL);
            match odd {
                Some(row) => Err(PortError::caller(
                    "training_label_range",
                    format!(
                        "the label of row {row} is `{}`; expected a number of at most {LARGEST_LABEL:e}; drop such rows or \
                         rescale the label",
                        values[row]
                    ),
                )),
                None => Ok(()),
            }
        }
    }
}

/// Perpetual bins without a bounds check above the largest cut, so nothing infinite may reach it.
fn check_numbers(rows: &Frame) -> Result<(), PortError> {
    for (feature, column) in rows.schema().features.iter().zip(rows.columns()) {
        let Column::Numeric(values) = column else { continue };
        if let Some(row) = values.iter().position(|value| value.abs() >= f64::MAX) {
            return Err(PortError::caller(
                "training_infinite",
                format!(
                    "feature `{}` is `{}` in row {row}; expected a finite number or a missing value",
                    feature.name, values[row]
                ),
            ));
        }
    }
    Ok(())
}

// ---- encoding ----

/// The features with the levels of the categorical ones: the most frequent first, equals by name.
fn vocabularies(rows: &Frame) -> Vec<ManifestFeature> {
    let features = rows.schema().features.iter();
    features
        .zip(rows.columns())
        .map(|(feature, column)| ManifestFeature {
            name: feature.name.clone(),
            kind: feature.kind,
            categories: match column {
                Column::Numeric(_) => Vec::new(),
                Column::Categorical(values) => {
                    let mut counts: HashMap<&str, usize> = HashMap::new();
                    for level in values.iter().flatten() {
                        *counts.entry(level).or_default() += 1;
                    }
                    let mut levels: Vec<(&str, usize)> = counts.into_iter().collect();
                    levels.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
                    levels.truncate(MOST_LEVELS);
                    levels.into_iter().map(|(level, _)| level.to_owned()).collect()
                }
            },
        })
        .collect()
}

/// Numeric columns as they are, categorical ones as codes; missing is NaN.
fn encode<'a>(rows: &'a Frame, features: &[ManifestFeature]) -> Vec<Cow<'a, [f64]>> {
    let columns = rows.columns().iter().zip(features);
    columns
        .map(|(column, feature)| match column {
            Column::Numeric(values) => Cow::Borrowed(values.as_slice()),
            Column::Categorical(values) => {
                let codes = codes(&feature.categories, CODING.first_code);
                Cow::Owned(
                    values
                        .iter()
                        .map(|level| code_of(&codes, level.as_deref()))
                        .collect(),
                )
            }
        })
        .collect()
}
