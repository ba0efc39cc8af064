use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::hyperband::{Curve, to_stop};
use super::space::{Hyperband, Space};
use super::suggest::{Observation, suggest};

fn space(config: Value) -> Space {
    Space::read(&config).unwrap()
}

fn mixed(method: &str) -> Space {
    space(json!({
        "method": method,
        "metric": {"name": "loss", "goal": "minimize"},
        "parameters": {
            "lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-1},
            "layers": {"min": 1, "max": 8},
            "dropout": {"min": 0.0, "max": 0.5},
            "optimizer": {"values": ["sgd", "adam", "lamb"]},
            "batch": {"distribution": "q_uniform", "min": 16, "max": 256, "q": 16},
            "nested": {"parameters": {"width": {"distribution": "q_log_uniform_values", "min": 8, "max": 512, "q": 8}}},
            "fixed": {"value": 3},
        }
    }))
}

proptest! {
    #[test]
    fn a_grid_covers_each_point_once(sizes in prop::collection::vec(1_usize..6, 1..4), low in -3_i64..3) {
        let mut parameters = serde_json::Map::new();
        for (i, size) in sizes.iter().enumerate() {
            let parameter = match i % 3 {
                0 => json!({"values": (0..*size).collect::<Vec<_>>()}),
                1 => json!({"min": low, "max": low + *size as i64 - 1}),
                _ => json!({"distribution": "q_uniform", "min": 0, "max": (*size - 1) as f64 * 0.5, "q": 0.5}),
            };
            parameters.insert(format!("p{i}"), parameter);
        }
        let space = space(json!({"method": "grid", "parameters": parameters}));
        let count: usize = sizes.iter().product();
        let points: HashSet<String> =
            (0..count as i64).map(|n| suggest(&space, 0, n, &[]).unwrap().to_string()).collect();
        prop_assert_eq!(points.len(), count);
        prop_assert_eq!(suggest(&space, 0, count as i64, &[]), None);
    }

    #[test]
    fn the_same_seed_gives_the_same_trials_within_their_bounds(seed in any::<i64>(), number in 0_i64..1000) {
        for method in ["random", "bayes"] {
            let space = mixed(method);
            let past: Vec<Observation> = (0..12)
                .map(|n| {
                    let params = suggest(&space, seed, n, &[]).unwrap();
                    let objective = if n == 3 { f64::NAN } else { params["lr"].as_f64().unwrap() };
                    Observation { params, objective }
                })
                .collect();
            let first = suggest(&space, seed, number, &past).unwrap();
            prop_assert_eq!(&first, &suggest(&space, seed, number, &past).unwrap());
            prop_assert!((9e-6..=0.1001).contains(&first["lr"].as_f64().unwrap()), "{}", first);
            prop_assert!((1..=8).contains(&first["layers"].as_i64().unwrap()), "{}", first);
            prop_assert!((0.0..=0.5).contains(&first["dropout"].as_f64().unwrap()), "{}", first);
            prop_assert_eq!(first["batch"].as_f64().unwrap() % 16.0, 0.0);
            prop_assert_eq!(first["nested"]["width"].as_f64().unwrap() % 8.0, 0.0);
            prop_assert_eq!(&first["fixed"], &json!(3));
        }
    }

    #[test]
    fn hyperband_stops_the_worse(
        losses in prop::collection::vec(prop::collection::vec(0.0_f64..1.0, 0..30), 1..12),
        maximize in any::<bool>(),
    ) {
        let rule = Hyperband { bands: vec![3, 9, 27], eta: 3.0 };
        let curves: Vec<Curve> = losses
            .iter()
            .enumerate()
            .map(|(trial, values)| Curve { trial: trial as i64, running: true, values: values.clone() })
            .collect();
        let stopped = to_stop(&rule, maximize, &curves);
        let best = |curve: &Curve, band: usize| {
            let values = curve.values.iter().take(band);
            let signed = values.map(|v| if maximize { -v } else { *v });
            signed.fold(f64::INFINITY, f64::min)
        };
        let band_of = |curve: &Curve| rule.bands.iter().rev().copied().find(|band| curve.values.len() >= *band);
        for curve in &curves {
            let Some(band) = band_of(curve) else {
                prop_assert!(!stopped.contains(&curve.trial), "stopped before the first band");
                continue;
            };
            for rival in &curves {
                let worse = band_of(rival) == Some(band) && best(rival, band) >= best(curve, band);
                if stopped.contains(&curve.trial) && worse {
                    prop_assert!(stopped.contains(&rival.trial), "a worse one went on");
                }
            }
        }
        // Somebody always goes on.
        prop_assert!(stopped.len() < curves.len());
    }
}

#[test]
fn a_bayesian_search_does_better_than_chance() {
    let config = |method: &str| {
        space(json!({
            "method": method,
            "metric": {"name": "loss", "goal": "minimize"},
            "parameters": {"x": {"min": -5.0, "max": 5.0}, "y": {"values": [1, 10, 100]}},
        }))
    };
    let run = |method: &str| -> f64 {
        let total: f64 = (0..20)
            .map(|seed| {
                let space = config(method);
                let mut past = Vec::new();
                for number in 0..40 {
                    let params = suggest(&space, seed, number, &past).unwrap();
                    let x = params["x"].as_f64().unwrap();
                    let objective = (x - 1.0).powi(2) + params["y"].as_f64().unwrap();
                    past.push(Observation { params, objective });
                }
                past.iter()
                    .map(|seen| seen.objective)
                    .fold(f64::INFINITY, f64::min)
            })
            .sum();
        total / 20.0
    };
    let (bayes, random) = (run("bayes"), run("random"));
    assert!(bayes < random, "bayes {bayes}, random {random}");
    assert!(bayes < 1.05, "{bayes}");
}

#[test]
fn a_wrong_configuration_is_refused_with_its_place() {
    let refused = |config: Value| Space::read(&config).unwrap_err().to_string();
    assert!(
        refused(json!({"method": "grid", "parameters": {"a": {"min": 0.0, "max": 1.0}}}))
            .contains("parameters.a")
    );
    assert!(refused(json!({"method": "magic", "parameters": {}})).contains("`magic`"));
    assert!(refused(json!({"method": "bayes", "parameters": {}})).contains("metric"));
    assert!(
        refused(json!({"method": "random", "parameters": {"a": {"min": 2, "max": 1}}}))
            .contains("`min` above")
    );
    assert!(
        refused(json!({"method": "random", "parameters": {"a": {"distribution": "log_uniform_values", "min": 0, "max": 1}}}))
            .contains("above 0")
    );
}

#[test]
fn hyperband_reads_both_ways_of_telling_bands() {
    let bands = |early: Value| {
        let config = json!({"method": "random", "parameters": {}, "early_terminate": early});
        space(config).early.unwrap().bands
    };
    assert_eq!(
        bands(json!({"type": "hyperband", "max_iter": 27, "s": 2, "eta": 3})),
        [3, 9]
    );
    assert_eq!(
        bands(json!({"type": "hyperband", "min_iter": 2, "eta": 2}))[..4],
        [2, 4, 8, 16]
    );
}
