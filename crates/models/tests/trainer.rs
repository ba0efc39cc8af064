//! The built-in trainer: it learns, it repeats itself to the byte, and its bundles answer as perpetual does to the last bit.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests; clippy.toml covers only the tests themselves

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{Dice, frame, texts};
use perpetual::booster::config::BoosterIO as _;
use perpetual::{Matrix, MultiOutputBooster, PerpetualBooster};
use serde_json::Value;
use tidemill_core::frame::{Column, Frame, Labels, Scores};
use tidemill_core::ports::{Blame, Model, ModelBundle, ModelRuntime, TrainOutput, TrainRequest, Trainer};
use tidemill_models::{BuiltinTrainer, Runtime};

const CITIES: [&str; 12] = [
    "Aachen", "Bonn", "Celle", "Dresden", "Essen", "Fulda", "Goslar", "Hamm", "Ilmenau", "Jena", "Kassel",
    "Lemgo",
];

/// Rows whose score is known: two numbers (one of them missing at times), a category and noise columns.
fn sample(rows: usize, seed: u64) -> (Frame, Vec<f64>) {
    let mut dice = Dice::new(seed);
    let (mut x, mut y, mut noise, mut cities, mut truth) = (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..rows {
        let (a, b, city) = (dice.normal(), dice.normal(), dice.below(CITIES.len() + 1));
        let missing = dice.uniform() < 0.2;
        let of_city = if city % 3 == 0 { 1.5 } else { -1.0 };
        truth.push(1.5 * a + of_city + if missing { 2.0 } else { b } + 0.3 * dice.normal());
        x.push(a);
        y.push(if missing { f64::NAN } else { b });
        noise.push(dice.normal());
        cities.push(CITIES.get(city).map(|&name| Arc::from(name)));
    }
    let columns = vec![
        ("x", Column::Numeric(x)),
        ("city", Column::Categorical(cities)),
        ("y", Column::Numeric(y)),
        ("noise", Column::Numeric(noise)),
        ("constant", Column::Numeric(vec![4.0; rows])),
        ("nothing", Column::Numeric(vec![f64::NAN; rows])),
        ("one_level", texts(&vec!["only"; rows])),
        ("no_level", texts(&vec![""; rows])),
    ];
    (frame(columns), truth)
}

fn binary(truth: &[f64]) -> Labels {
    Labels::Binary(truth.iter().map(|&score| score > 0.5).collect())
}

fn three(truth: &[f64]) -> Labels {
    let class = |score: f64| usize::from(score > -0.5) + usize::from(score > 1.5);
    Labels::Multiclass {
        classes: ["low", "middle", "high"].map(str::to_owned).into(),
        indices: truth.iter().map(|&score| class(score)).collect(),
    }
}

fn request(rows: &Frame, labels: &Labels) -> TrainRequest {
    TrainRequest {
        rows: rows.clone(),
        labels: labels.clone(),
        budget: 0.5,
        iterations: None,
        seed: 42,
    }
}

fn train(rows: &Frame, labels: &Labels) -> TrainOutput {
    BuiltinTrainer::new().train(request(rows, labels)).unwrap()
}

fn load(bundle: &ModelBundle) -> Arc<dyn Model> {
    Runtime.load(bundle).unwrap()
}

/// The area under the ROC curve.
fn auc(scores: &[f64], truths: &[bool]) -> f64 {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let (mut negatives, mut pairs) = (0.0, 0.0);
    for row in order {
        if truths[row] {
            pairs += negatives;
        } else {
            negatives += 1.0;
        }
    }
    pairs / (negatives * (truths.len() as f64 - negatives))
}

#[test]
fn it_learns_yes_and_no_from_numbers_categories_and_missing_values() {
    let (rows, truth) = sample(3000, 1);
    let trained = train(&rows, &binary(&truth));
    assert!(trained.metrics["trees"] > 1.0 && trained.metrics["leaves"] > 10.0);
    let (fresh, truth) = sample(2000, 2);
    let Scores::Binary(scores) = load(&trained.bundle).predict(&fresh).unwrap() else {
        panic!("not binary")
    };
    let Labels::Binary(truths) = binary(&truth) else {
        panic!("not binary")
    };
    let auc = auc(&scores, &truths);
    assert!(auc > 0.97, "{auc}");
    let mean = scores.iter().sum::<f64>() / 2000.0;
    let share = truths.iter().filter(|&&truth| truth).count() as f64 / 2000.0;
    assert!(
        (mean - share).abs() < 0.03,
        "probabilities are off: {mean} and {share}"
    );
}

#[test]
fn it_learns_a_category_alone() {
    let mut dice = Dice::new(5);
    let levels: Vec<usize> = (0..4000).map(|_| dice.below(CITIES.len())).collect();
    let names: Vec<&str> = levels.iter().map(|&level| CITIES[level]).collect();
    let labels = Labels::Regression(
        levels
            .iter()
            .map(|&level| if level % 2 == 0 { 10.0 } else { -10.0 })
            .collect(),
    );
    let rows = frame(vec![("city", texts(&names))]);
    let answers = load(&train(&rows, &labels).bundle).predict(&rows).unwrap();
    let Labels::Regression(truth) = labels else {
        panic!("not a regression")
    };
    for (answer, truth) in answers.values().iter().zip(truth) {
        assert!((answer - truth).abs() < 1.0, "{answer} for {truth}");
    }
}

#[test]
fn it_learns_a_number() {
    let (rows, truth) = sample(3000, 3);
    let model = load(&train(&rows, &Labels::Regression(truth)).bundle);
    let (fresh, truth) = sample(2000, 4);
    let answers = model.predict(&fresh).unwrap();
    let mean = truth.iter().sum::<f64>() / truth.len() as f64;
    let error: f64 = answers
        .values()
        .iter()
        .zip(&truth)
        .map(|(a, t)| (a - t).powi(2))
        .sum();
    let spread: f64 = truth.iter().map(|t| (t - mean).powi(2)).sum();
    let r2 = 1.0 - error / spread;
    assert!(r2 > 0.93, "{r2}");
}

#[test]
fn it_learns_three_classes() {
    let (rows, truth) = sample(3000, 5);
    let model = load(&train(&rows, &three(&truth)).bundle);
    assert_eq!(*model.signature().classes, ["low", "middle", "high"]);
    let (fresh, truth) = sample(2000, 6);
    let scores = model.predict(&fresh).unwrap();
    let Labels::Multiclass { indices, .. } = three(&truth) else {
        panic!("not classes")
    };
    let right = indices.iter().enumerate().filter(|&(row, &truth)| {
        let row = scores.row(row);
        assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        row.iter().all(|&probability| probability <= row[truth])
    });
    let accuracy = right.count() as f64 / 2000.0;
    assert!(accuracy > 0.8, "{accuracy}");
}

#[test]
fn a_class_without_rows_gets_a_small_probability() {
    let (rows, truth) = sample(600, 7);
    let Labels::Multiclass { indices, .. } = three(&truth) else {
        panic!("not classes")
    };
    let labels = Labels::Multiclass {
        classes: ["low", "middle", "high", "never"].map(str::to_owned).into(),
        indices,
    };
    let scores = load(&train(&rows, &labels).bundle).predict(&rows).unwrap();
    assert!((0..600).all(|row| scores.row(row)[3] < 0.02));
}

#[test]
fn the_same_request_gives_the_same_bytes_whatever_the_threads() {
    let (rows, truth) = sample(3000, 8);
    for labels in [binary(&truth), Labels::Regression(truth.clone()), three(&truth)] {
        let once = train(&rows, &labels);
        for trainer in [
            BuiltinTrainer::new(),
            BuiltinTrainer::with_threads(1),
            BuiltinTrainer::with_threads(5),
        ] {
            let again = trainer.train(request(&rows, &labels)).unwrap();
            assert!(once.bundle == again.bundle, "bytes differ with {trainer:?}");
            assert_eq!(once.metrics, again.metrics);
        }
    }
}

/// The codes that the manifest gives, column by column, as perpetual reads them.
fn encoded(bundle: &ModelBundle, rows: &Frame) -> Vec<f64> {
    let manifest: Value = serde_json::from_slice(&bundle["model.json"]).unwrap();
    let features = manifest["features"].as_array().unwrap();
    let columns =
        features.iter().map(
            |feature| match rows.column(feature["name"].as_str().unwrap()).unwrap() {
                Column::Numeric(values) => values.clone(),
                Column::Categorical(values) => {
                    let none = Vec::new();
                    let levels = feature["categories"].as_array().unwrap_or(&none).iter();
                    let codes: BTreeMap<&str, f64> = levels
                        .zip(1..)
                        .map(|(level, code)| (level.as_str().unwrap(), f64::from(code)))
                        .collect();
                    let code = |level: &Option<Arc<str>>| {
                        level.as_deref().and_then(|level| codes.get(level)).copied()
                    };
                    values
                        .iter()
                        .map(|level| code(level).unwrap_or(f64::NAN))
                        .collect()
                }
            },
        );
    columns.collect::<Vec<Vec<f64>>>().concat()
}

#[test]
fn answers_equal_perpetuals_own_to_the_last_bit() {
    let (rows, truth) = sample(2500, 9);
    let (mut fresh, _) = sample(1500, 10);
    let strange = vec![
        ("x", Column::Numeric(vec![f64::NAN, 0.0, -0.0, 1e308])),
        ("city", texts(&["Zwickau", "", "Aachen", "Lemgo"])),
        ("y", Column::Numeric(vec![f64::NAN; 4])),
        ("noise", Column::Numeric(vec![-1e308, 0.1, f64::NAN, 0.0])),
        ("constant", Column::Numeric(vec![f64::NAN, 3.0, 4.0, 5.0])),
        ("nothing", Column::Numeric(vec![1.0, 2.0, 3.0, f64::NAN])),
        ("one_level", texts(&["other", "", "only", "only"])),
        ("no_level", texts(&["some", "", "", "some"])),
    ];
    fresh.append(&frame(strange)).unwrap();
    for labels in [binary(&truth), Labels::Regression(truth.clone()), three(&truth)] {
        let bundle = train(&rows, &labels).bundle;
        let ours = load(&bundle).predict(&fresh).unwrap();
        let numbers = encoded(&bundle, &fresh);
        let matrix = Matrix::new(&numbers, fresh.rows(), fresh.columns().len());
        let json = std::str::from_utf8(&bundle["booster.json"]).unwrap();
        let theirs = match &labels {
            Labels::Binary(_) => PerpetualBooster::from_json(json)
                .unwrap()
                .predict_proba(&matrix, false, false),
            Labels::Regression(_) => PerpetualBooster::from_json(json).unwrap().predict(&matrix, false),
            Labels::Multiclass { .. } => {
                let mut boosters: Value = serde_json::from_str(json).unwrap();
                boosters["metadata"] = serde_json::json!({});
                let boosters: MultiOutputBooster = serde_json::from_value(boosters).unwrap();
                boosters.predict_proba(&matrix, false)
            }
        };
        assert_eq!(ours.values().len(), theirs.len());
        let differ = ours
            .values()
            .iter()
            .zip(&theirs)
            .filter(|(a, b)| a.to_bits() != b.to_bits());
        assert_eq!(differ.count(), 0, "of {}", theirs.len());
    }
}

#[test]
fn more_than_forty_columns_train_and_repeat_too() {
    let (rows, truth) = sample(500, 11);
    let mut dice = Dice::new(12);
    let names: Vec<String> = (0..60).map(|column| format!("extra_{column}")).collect();
    let own = rows.schema().features.iter().map(|feature| feature.name.as_str());
    let mut columns: Vec<(&str, Column)> = own.zip(rows.columns().iter().cloned()).collect();
    for name in &names {
        columns.push((name, Column::Numeric((0..500).map(|_| dice.normal()).collect())));
    }
    let rows = frame(columns);
    let trained = train(&rows, &binary(&truth));
    assert_eq!(trained.bundle, train(&rows, &binary(&truth)).bundle);
    let Labels::Binary(truths) = binary(&truth) else {
        panic!("not binary")
    };
    let scores = load(&trained.bundle).predict(&rows).unwrap();
    assert!(auc(scores.values(), &truths) > 0.9);
}

#[test]
fn rare_levels_beyond_the_limit_are_read_as_missing() {
    let names: Vec<String> = (0..3000)
        .map(|row| format!("level {:03}", (row * row) % 401))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let rows = frame(vec![("level", texts(&names))]);
    let labels = Labels::Binary((0..3000).map(|row| (row * row) % 401 < 100).collect());
    let bundle = train(&rows, &labels).bundle;
    let manifest: Value = serde_json::from_slice(&bundle["model.json"]).unwrap();
    let levels = manifest["features"][0]["categories"].as_array().unwrap();
    assert!(levels.len() <= 254, "{}", levels.len());
    load(&bundle).predict(&rows).unwrap();
}

#[test]
fn levels_stand_by_frequency_and_then_by_name() {
    let rows = frame(vec![("level", texts(&["b", "c", "a", "b", "", "c", "b", "d"]))]);
    let labels = Labels::Binary(vec![true, false, true, true, false, false, true, false]);
    let bundle = train(&rows, &labels).bundle;
    let manifest: Value = serde_json::from_slice(&bundle["model.json"]).unwrap();
    assert_eq!(
        manifest["features"][0]["categories"],
        serde_json::json!(["b", "c", "a", "d"])
    );
    assert_eq!(manifest["format"], "perpetual");
    assert_eq!(manifest["library"], "perpetual 2.3.0");
}

#[test]
fn the_named_version_is_the_one_that_is_built() {
    let lock = include_str!("../../../Cargo.lock");
    assert!(
        lock.contains("name = \"perpetual\"\nversion = \"2.3.0\"\n"),
        "update LIBRARY and identity() in trainer.rs"
    );
    assert!(BuiltinTrainer::new().identity().starts_with("perpetual 2.3.0"));
}

#[test]
fn what_cannot_be_learnt_is_refused_with_what_to_do() {
    let (rows, truth) = sample(20, 13);
    let none = rows.take(&[]);
    let infinite = frame(vec![("x", Column::Numeric(vec![1.0, f64::INFINITY]))]);
    let mut wrong_budget = request(&rows, &binary(&truth));
    wrong_budget.budget = f64::NAN;
    let mut no_rounds = request(&rows, &binary(&truth));
    no_rounds.iterations = Some(0);
    let mut labels = truth.clone();
    labels[3] = f64::NAN;
    let one_of_three = Labels::Multiclass {
        classes: ["a", "b"].map(str::to_owned).into(),
        indices: vec![1; 20],
    };
    let cases = [
        (
            request(&rows, &Labels::Binary(vec![true; 20])),
            "training_one_class",
            "label `true`",
        ),
        (request(&rows, &one_of_three), "training_one_class", "label `b`"),
        (
            request(&none, &Labels::Binary(vec![])),
            "training_no_rows",
            "widen the training window",
        ),
        (
            request(&rows, &Labels::Regression(labels)),
            "training_label_range",
            "label of row 3 is `NaN`",
        ),
        (
            request(&infinite, &Labels::Binary(vec![true, false])),
            "training_infinite",
            "feature `x` is `inf` in row 1",
        ),
        (no_rounds, "training_iterations", "at least 1"),
        (wrong_budget, "training_budget", "`NaN` is not between"),
        (
            request(&frame(vec![]), &Labels::Binary(vec![])),
            "training_no_features",
            "no features",
        ),
    ];
    for (request, code, expected) in cases {
        let error = BuiltinTrainer::new().train(request).unwrap_err();
        assert_eq!((error.code, error.blame), (code, Blame::Caller), "{error}");
        assert!(error.message.contains(expected), "{error}");
    }
}

#[test]
fn a_tiny_or_constant_table_still_gives_a_model() {
    let rows = frame(vec![
        ("x", Column::Numeric(vec![1.0, 2.0])),
        ("city", texts(&["a", ""])),
    ]);
    let scores = load(&train(&rows, &Labels::Binary(vec![true, false])).bundle)
        .predict(&rows)
        .unwrap();
    assert!(
        scores
            .values()
            .iter()
            .all(|probability| (0.0..=1.0).contains(probability))
    );
    let constant = load(&train(&rows, &Labels::Regression(vec![7.0, 7.0])).bundle)
        .predict(&rows)
        .unwrap();
    assert_eq!(constant.values(), [7.0, 7.0]);
}

#[test]
fn a_limit_of_rounds_is_kept() {
    let (rows, truth) = sample(1000, 15);
    let mut limited = request(&rows, &Labels::Regression(truth));
    limited.iterations = Some(4);
    let trained = BuiltinTrainer::new().train(limited).unwrap();
    assert_eq!(trained.metrics["trees"], 4.0);
}

#[test]
fn a_damaged_booster_is_refused() {
    let (rows, truth) = sample(300, 14);
    let bundle = train(&rows, &binary(&truth)).bundle;
    let text = String::from_utf8(bundle["booster.json"].clone()).unwrap();
    for damaged in [
        text[..text.len() / 2].to_owned(),
        "{}".to_owned(),
        text.replacen("\"split_feature\":", "\"split_feature\":99", 1),
        text.replacen("\"left_child\":1,", "\"left_child\":0,", 1),
        text.replacen("\"missing\":null", "\"missing\":-1.0", 1),
    ] {
        let mut bundle = bundle.clone();
        bundle.insert("booster.json".into(), damaged.into_bytes());
        let error = Runtime.load(&bundle).unwrap_err();
        assert_eq!(error.code, "model_broken", "{error}");
        assert!(error.message.starts_with("`booster.json` line "), "{error}");
    }
}
