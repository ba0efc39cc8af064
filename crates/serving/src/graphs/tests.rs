//! Every kind of node.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tidemill_core::clock::Stopwatch;
use tidemill_core::ids::EndpointName;
use tidemill_core::servable::Payload;
use tidemill_core::tensors::{DataType, Tensor, TensorSpec};

use super::deploy;
use super::fakes::{Function, bench, call, column, numbers, strings, tensors, texts};
use crate::hosting::Call;
use crate::testing::{deployment, route};

#[tokio::test]
async fn a_model_behind_a_model_takes_its_output_by_the_map_and_both_are_counted() {
    let bench = bench();
    bench.models();
    bench.graph(json!({
        "nodes": {
            "first": {"model": {"deployment": "two"}, "inputs": {"x": "x"}, "outputs": {"y": "doubled"}},
            "second": {"model": {"deployment": "ten"}, "inputs": {"x": "first.doubled"}},
        },
        "outputs": {"score": "second.y", "x": "x"},
    }));
    let answer = bench.of(&[1.0, 2.0]).await;
    assert_eq!(
        (numbers(&answer, "score"), numbers(&answer, "x")),
        (vec![20.0, 40.0], vec![1.0, 2.0])
    );
    assert_eq!(
        (bench.counted("first"), bench.counted("second")),
        ((1, 0), (1, 0))
    );
    let (_, interface) = bench.server.hosting().interface(&"g".into(), None).await.unwrap();
    assert_eq!(
        interface.outputs[0],
        TensorSpec::new("score", DataType::Fp64, vec![-1])
    );
    assert!(interface.columns && !interface.batches);
}

#[tokio::test]
async fn a_chain_hands_each_answer_on_by_name_or_by_position() {
    let bench = bench();
    bench.models();
    bench.graph(json!({
        "nodes": {"all": {"chain": [{"deployment": "two"}, {"deployment": "ten"}, {"deployment": "two", "version": 1}]}},
        "output": "all",
    }));
    assert_eq!(numbers(&bench.of(&[1.0, 3.0]).await, "y"), [40.0, 120.0]);
}

#[tokio::test]
async fn bodies_go_through_a_chain_unread() {
    let bench = bench();
    bench.model("echo", &[], |_| None);
    let spec = json!({"nodes": {"all": {"chain": [{"deployment": "echo"}, {"deployment": "echo"}]}}, "output": "all"});
    deploy(&bench.server, "g", &serde_json::from_value(spec).unwrap()).unwrap();
    let body = Payload::Body {
        content_type: "application/json".to_owned(),
        bytes: b"{\"a\": 1}".as_slice().into(),
    };
    let answer = bench
        .server
        .hosting()
        .call(Call::new("g".into(), body.clone(), Stopwatch::start()))
        .await;
    assert_eq!(answer.unwrap().payload, body);
}

#[tokio::test]
async fn ensembles_combine_their_members_in_each_way() {
    let bench = bench();
    bench.models();
    let cases = [
        (json!({"combine": "mean"}), vec![13.0 / 3.0, 26.0 / 3.0]),
        (
            json!({"combine": "weighted_mean", "weights": [1, 1, 0]}),
            vec![1.5, 3.0],
        ),
        (json!({"combine": "max"}), vec![10.0, 20.0]),
        (json!({"combine": "min"}), vec![1.0, 2.0]),
        (json!({"combine": "vote", "weights": [1, 3, 2]}), vec![2.0, 4.0]),
        (json!({"combine": "concat"}), vec![1.0, 2.0, 10.0, 2.0, 4.0, 20.0]),
    ];
    for (mut ensemble, expected) in cases {
        ensemble["of"] = json!(["one.y", "two.y", "ten.y"]);
        ensemble["as"] = json!("all");
        let said = ensemble.to_string();
        bench.graph(json!({
            "nodes": {
                "one": {"model": {"deployment": "one"}}, "two": {"model": {"deployment": "two"}},
                "ten": {"model": {"deployment": "ten"}}, "both": {"ensemble": ensemble},
            },
            "outputs": {"y": "both.all"},
        }));
        let answer = numbers(&bench.of(&[1.0, 2.0]).await, "y");
        let close = answer.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(close && answer.len() == expected.len(), "{said}: {answer:?}");
    }
}

#[tokio::test]
async fn a_quorum_does_without_members_that_fail_and_the_first_that_answers_is_enough() {
    let bench = bench();
    bench.models();
    let nodes = |node: Value| {
        json!({
            "nodes": {
                "bad": {"model": {"deployment": "bad"}}, "two": {"model": {"deployment": "two"}},
                "ten": {"model": {"deployment": "ten"}}, "both": node,
            },
            "output": "both",
        })
    };
    bench.graph(nodes(
        json!({"ensemble": {"of": ["bad.y", "two.y", "ten.y"], "combine": "mean", "quorum": 2}}),
    ));
    assert_eq!(numbers(&bench.of(&[1.0]).await, "y"), [6.0]);
    assert_eq!(bench.counted("bad"), (1, 1));
    bench.graph(nodes(
        json!({"ensemble": {"of": ["bad.y", "two.y", "ten.y"], "combine": "mean"}}),
    ));
    let error = bench.ask(vec![column("x", &[1.0])]).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("node `bad`: version 1 of endpoint `bad` failed: it broke"),
        "{error}"
    );
    bench.graph(nodes(
        json!({"ensemble": {"of": ["bad", "two", "ten"], "combine": "first_success"}}),
    ));
    assert_eq!(numbers(&bench.of(&[1.0]).await, "y"), [2.0]);
    assert_eq!(bench.counted("ten"), (0, 0), "nobody needed it");
}

#[tokio::test]
async fn a_switch_takes_the_first_case_that_holds_and_each_row_by_itself() {
    let bench = bench();
    bench.models();
    bench.graph(json!({
        "nodes": {
            "one": {"model": {"deployment": "one"}}, "two": {"model": {"deployment": "two"}}, "ten": {"model": {"deployment": "ten"}},
            "way": {"switch": {
                "cases": [
                    {"when": {"header": "x-all", "equals": "ten"}, "to": "ten"},
                    {"when": {"input": "x", "below": 0}, "to": "two"},
                    {"when": {"output": "one.y", "min": 5}, "to": "ten"},
                ],
                "default": "one",
            }},
        },
        "outputs": {"y": "way.y"},
    }));
    assert_eq!(
        numbers(&bench.of(&[-1.0, 1.0, 5.0, -2.0]).await, "y"),
        [-2.0, 1.0, 50.0, -4.0]
    );
    assert_eq!(numbers(&bench.of(&[-1.0]).await, "y"), [-2.0]);
    assert_eq!(
        bench.counted("ten"),
        (1, 0),
        "a branch that no row takes does not run"
    );
    let mut all = call(vec![column("x", &[-1.0, 1.0])]);
    all.attributes.insert("x-all".to_owned(), "ten".to_owned());
    let answer = bench.server.hosting().call(all).await.unwrap();
    assert_eq!(numbers(&tensors(answer), "y"), [-10.0, 10.0]);
    bench.graph(json!({
        "nodes": {
            "one": {"model": {"deployment": "one"}},
            "way": {"switch": {"cases": [{"when": {"input": "x", "below": 0}, "to": "one"}]}},
        },
        "output": "way",
    }));
    let error = bench.ask(vec![column("x", &[-1.0, 1.0])]).await.unwrap_err();
    assert!(
        error.to_string().contains("no case of the switch holds"),
        "{error}"
    );
    assert_eq!(error.code(), "graph_failed");
}

#[tokio::test]
async fn a_splitter_sends_a_key_the_same_way_each_time_by_its_weights() {
    let bench = bench();
    bench.models();
    bench.graph(json!({
        "nodes": {
            "one": {"model": {"deployment": "one"}}, "two": {"model": {"deployment": "two"}},
            "way": {"splitter": {"to": {"one": 3, "two": 1}}},
        },
        "output": "way",
    }));
    let mut seconds = 0;
    for key in 0..200 {
        let mut answers = Vec::new();
        for _ in 0..2 {
            let mut call = call(vec![column("x", &[1.0])]);
            call.key = Some(key.to_string().into());
            let answer = bench.server.hosting().call(call).await.unwrap();
            answers.push(numbers(&tensors(answer), "y")[0]);
        }
        assert_eq!(answers[0], answers[1]);
        seconds += u32::from(answers[0] == 2.0);
    }
    assert!(
        (25..80).contains(&seconds),
        "{seconds} of 200 by a weight of a quarter"
    );
}

#[tokio::test]
async fn transforms_change_columns_step_by_step() {
    let bench = bench();
    bench.graph(json!({
        "inputs": {"x": {"datatype": "FP32"}, "n": {"datatype": "INT64"}, "city": {"datatype": "BYTES"}, "logits": {"datatype": "FP64", "shape": [-1, 3]}},
        "nodes": {"t": {"transform": [
            {"impute": {"x": 0, "city": "nowhere"}},
            {"rename": {"n": "age", "city": "place"}},
            {"scale": {"x": {"mean": 1, "std": 2}, "age": {"min": 0, "max": 10}}},
            {"clip": {"age": {"max": 1}}},
            {"softmax": {"of": "logits", "as": "p"}},
            {"argmax": {"of": "logits", "as": "class"}},
            {"argmax": {"of": "p", "as": "label", "labels": ["a", "b", "c"]}},
            {"threshold": {"of": "x", "at": 0, "as": "up"}},
            {"threshold": {"of": "x", "at": 0, "as": "word", "labels": ["low", "high"]}},
            {"cast": {"x": "BYTES", "up": "INT32"}},
            {"select": ["x", "age", "place", "p", "class", "label", "up", "word"]},
        ]}},
        "output": "t",
    }));
    let n = Tensor::of_numbers("n", DataType::Int64, vec![2], &[5.0, 30.0]).unwrap();
    let x = Tensor::of_f32("x", vec![2], &[f32::NAN, 4.0]).unwrap();
    let logits = Tensor::of_f64("logits", vec![2, 3], &[1.0, 3.0, 3.0, 1000.0, 0.0, 0.0]).unwrap();
    let answer = tensors(
        bench
            .ask(vec![x, n, texts("city", &[None, Some("Rome")]), logits])
            .await
            .unwrap(),
    );
    assert_eq!(answer.len(), 8);
    assert_eq!(strings(&answer, "x"), ["-0.5", "1.5"]);
    assert_eq!(numbers(&answer, "age"), [0.5, 1.0]);
    assert_eq!(strings(&answer, "place"), ["nowhere", "Rome"]);
    let p = numbers(&answer, "p");
    assert!(
        (p[0] + p[1] + p[2] - 1.0).abs() < 1e-12 && p[1] == p[2] && p[3] == 1.0,
        "{p:?}"
    );
    assert_eq!(
        numbers(&answer, "class"),
        [1.0, 0.0],
        "of equal numbers the first"
    );
    assert_eq!(strings(&answer, "label"), ["b", "a"]);
    assert_eq!(numbers(&answer, "up"), [0.0, 1.0]);
    assert_eq!(strings(&answer, "word"), ["low", "high"]);
}

#[tokio::test]
async fn what_a_transform_does_not_find_is_the_callers_error_with_the_columns_that_came() {
    let bench = bench();
    bench.graph(json!({"nodes": {"t": {"transform": [{"select": ["z"]}]}}, "output": "t"}));
    let error = bench.ask(vec![column("x", &[1.0])]).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("node `t`: there is no column `z`, but `x`"),
        "{error}"
    );
    assert_eq!(error.blame(), tidemill_core::ports::Blame::Caller);
}

#[tokio::test]
async fn outliers_are_scored_by_each_method_and_annotated() {
    let bench = bench();
    bench.models();
    let inputs = json!({"x": {"datatype": "FP64"}, "z": {"datatype": "FP64"}});
    let ask = |outlier: Value| {
        let (bench, inputs) = (&bench, inputs.clone());
        async move {
            bench.graph(json!({
                "inputs": inputs,
                "nodes": {"model": {"model": {"deployment": "two"}}, "o": {"outlier": outlier}},
                "output": "o",
            }));
            let columns = vec![column("x", &[1.0, 9.0, f64::NAN]), column("z", &[0.0, 0.0, 1.0])];
            tensors(bench.ask(columns).await.unwrap())
        }
    };
    let answer = ask(json!({"method": "zscore", "answer": "model", "columns": {"x": {"mean": 1, "std": 2}, "z": {"mean": 0, "std": 1}}})).await;
    assert_eq!(
        (numbers(&answer, "outlier_score"), numbers(&answer, "outlier")),
        (vec![0.0, 4.0, 1.0], vec![0.0, 1.0, 0.0])
    );
    assert_eq!(numbers(&answer, "y")[..2], [2.0, 18.0]);
    let answer = ask(json!({"method": "iqr", "answer": "model", "columns": {"x": {"q1": 0, "q3": 4}}})).await;
    assert_eq!(numbers(&answer, "outlier_score"), [0.0, 1.25, 0.0]);
    assert_eq!(
        numbers(&answer, "outlier"),
        [0.0; 3],
        "1.25 is below the usual 1.5"
    );
    let answer = ask(json!({
        "method": "mahalanobis", "answer": "model", "threshold": 2.5, "abstain": true,
        "columns": {"x": {"mean": 1}, "z": {"mean": 0}}, "covariance": [[4, 1], [1, 2]],
    }))
    .await;
    // (8, 0)·Σ⁻¹·(8, 0)ᵀ = 64 · 2/7, and (0, 1)·Σ⁻¹·(0, 1)ᵀ = 4/7 where the missing value counts as the mean.
    let expected = [0.0, (128.0_f64 / 7.0).sqrt(), (4.0_f64 / 7.0).sqrt()];
    for (score, expected) in numbers(&answer, "outlier_score").into_iter().zip(expected) {
        assert!((score - expected).abs() < 1e-12, "{score} for {expected}");
    }
    let y = numbers(&answer, "y");
    assert!(y[0] == 2.0 && y[1].is_nan(), "the outlier gets no answer: {y:?}");
}

#[tokio::test]
async fn a_deployed_detector_sends_outliers_another_way() {
    let bench = bench();
    bench.models();
    bench.graph(json!({
        "nodes": {
            "model": {"model": {"deployment": "two"}}, "safe": {"model": {"deployment": "ten"}},
            "o": {"outlier": {"detector": {"deployment": "one", "output": "y", "low": true}, "threshold": 0, "answer": "model", "route": "safe"}},
        },
        "outputs": {"y": "o.y", "odd": "o.outlier"},
    }));
    let answer = bench.of(&[1.0, -1.0, 3.0]).await;
    assert_eq!(
        (numbers(&answer, "y"), numbers(&answer, "odd")),
        (vec![2.0, -10.0, 6.0], vec![0.0, 1.0, 0.0])
    );
    bench.of(&[1.0]).await;
    assert_eq!(bench.counted("safe"), (1, 0), "only outliers need it");
}

#[tokio::test]
async fn attributions_add_up_to_the_answer_are_exact_for_sums_and_the_same_for_a_seed() {
    let bench = bench();
    let product: Function = |columns| {
        let rows = 0..columns["a"].len();
        Some(
            rows.map(|row| 3.0 * columns["a"][row] + columns["b"][row] * columns["c"][row])
                .collect(),
        )
    };
    bench.model("product", &["a", "b", "c"], product);
    let graph = |seed: u64| {
        bench.graph(json!({
            "inputs": {"c": {"datatype": "FP64"}, "a": {"datatype": "FP64"}, "b": {"datatype": "FP64"}},
            "nodes": {"why": {"explain": {"deployment": "product", "samples": 8, "seed": seed, "baseline": {"a": 1, "b": 0, "c": 0}}}},
            "output": "why",
        }));
    };
    graph(7);
    let columns = || {
        vec![
            column("c", &[4.0, 1.0]),
            column("a", &[2.0, 1.0]),
            column("b", &[5.0, 2.0]),
        ]
    };
    let answer = tensors(bench.ask(columns()).await.unwrap());
    let (attributions, base) = (numbers(&answer, "attributions"), numbers(&answer, "base"));
    assert_eq!(base, [3.0, 3.0]);
    // By Shapley's definition the product's value is shared evenly: forwards and backwards together give exactly that.
    let expected = [3.0, 10.0, 10.0, 0.0, 1.0, 1.0];
    for (got, expected) in attributions.iter().zip(expected) {
        assert!((got - expected).abs() < 1e-9, "{attributions:?}");
    }
    graph(7);
    assert_eq!(tensors(bench.ask(columns()).await.unwrap()), answer);
}

#[tokio::test]
async fn a_model_that_explains_itself_is_asked_and_one_that_does_not_needs_a_baseline() {
    let bench = bench();
    bench.slow_model("own", &["x"], 0, true, |columns| Some(columns["x"].clone()));
    bench.models();
    let graph = |name: &str| {
        bench.graph(json!({"nodes": {"why": {"explain": {"deployment": name}}}, "output": "why"}));
    };
    graph("own");
    assert_eq!(numbers(&bench.of(&[1.0]).await, "attributions"), [42.0]);
    graph("two");
    let error = bench.ask(vec![column("x", &[1.0])]).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("give `explain.baseline` a value for `x`"),
        "{error}"
    );
}

#[tokio::test]
async fn branches_run_at_the_same_time_what_two_need_runs_once_and_time_shrinks_on_the_way() {
    let bench = bench();
    let slow: Function = |columns| Some(columns["x"].clone());
    let first = bench.slow_model("first", &["x"], 60, false, slow);
    bench.slow_model("left", &["x"], 60, false, slow);
    bench.slow_model("right", &["x"], 60, false, slow);
    bench.graph(json!({
        "nodes": {
            "first": {"model": {"deployment": "first"}},
            "left": {"model": {"deployment": "left"}, "inputs": {"x": "first.y"}},
            "right": {"model": {"deployment": "right"}, "inputs": {"x": "first.y"}},
            "both": {"ensemble": {"of": ["left.y", "right.y"], "combine": "mean"}},
        },
        "output": "both",
    }));
    let watch = Stopwatch::start();
    bench.of(&[1.0]).await;
    assert!(
        watch.elapsed() < Duration::from_millis(175),
        "{:?} for two of 60 ms after one",
        watch.elapsed()
    );
    assert_eq!(first.calls.load(Ordering::SeqCst), 1);
    let mut hurried = call(vec![column("x", &[1.0])]);
    hurried.timeout = Some(Duration::from_millis(90));
    let watch = Stopwatch::start();
    let error = bench.server.hosting().call(hurried).await.unwrap_err();
    assert_eq!(error.code(), "deadline_passed");
    assert!(
        watch.elapsed() < Duration::from_millis(115),
        "{:?}",
        watch.elapsed()
    );
}

#[tokio::test]
async fn a_graph_in_a_graph_works_and_one_that_asks_itself_ends() {
    let bench = bench();
    bench.models();
    bench.graph(json!({"nodes": {"m": {"model": {"deployment": "two"}}}, "output": "m"}));
    let outer = json!({
        "inputs": {"x": {"datatype": "FP64"}},
        "nodes": {"a": {"model": {"deployment": "g"}}, "b": {"model": {"deployment": "ten"}, "inputs": {"x": "a.y"}}},
        "output": "b",
    });
    deploy(&bench.server, "outer", &serde_json::from_value(outer).unwrap()).unwrap();
    let mut asked = call(vec![column("x", &[1.0])]);
    asked.endpoint = EndpointName::new("outer");
    let answer = bench.server.hosting().call(asked).await.unwrap();
    assert_eq!(numbers(&tensors(answer), "y"), [20.0]);
    bench.graph(json!({"nodes": {"m": {"model": {"deployment": "g"}}}, "output": "m"}));
    let error = bench.ask(vec![column("x", &[1.0])]).await.unwrap_err();
    assert!(error.to_string().contains("8 deep"), "{error}");
}

#[tokio::test]
async fn an_endpoint_of_the_loop_is_a_node_whose_predictions_are_recorded() {
    let bench = bench();
    let mut loop_route = route();
    loop_route.champion = Some(deployment(4).1);
    bench.server.router().put(loop_route);
    bench.graph(json!({
        "inputs": {"x": {"datatype": "FP64"}, "c": {"datatype": "BYTES"}},
        "nodes": {
            "flights": {"model": {"deployment": "flights"}},
            "late": {"input": "flights", "transform": [{"threshold": {"of": "probability", "at": 0.3, "as": "late"}}]},
        },
        "outputs": {"late": "late.late", "id": "flights.prediction_id"},
    }));
    let answer = tensors(
        bench
            .ask(vec![column("x", &[1.0, 2.0]), texts("c", &[Some("a"), None])])
            .await
            .unwrap(),
    );
    assert_eq!(numbers(&answer, "late"), [1.0, 1.0]);
    let (from, until) = (
        tidemill_core::clock::Timestamp::from_micros(0),
        tidemill_core::clock::Timestamp::from_micros(i64::MAX),
    );
    let logged = bench
        .server
        .log()
        .live_batches(&"flights".into(), from, until)
        .await
        .unwrap();
    let ids: Vec<&str> = logged[0]
        .ids
        .iter()
        .map(tidemill_core::ids::PredictionId::as_str)
        .collect();
    assert_eq!(strings(&answer, "id"), ids);
}

#[tokio::test]
async fn a_graph_that_is_put_again_unchanged_keeps_its_counters() {
    let bench = bench();
    bench.models();
    let spec = json!({"nodes": {"m": {"model": {"deployment": "two"}}}, "output": "m"});
    bench.graph(spec.clone());
    bench.of(&[1.0]).await;
    bench.graph(spec);
    bench.of(&[1.0]).await;
    assert_eq!(bench.counted("m"), (2, 0));
}

#[test]
fn a_graph_that_does_not_hang_together_is_not_deployed() {
    let bench = bench();
    let spec = json!({"nodes": {"m": {"model": {"deployment": "two"}}}, "output": "n"});
    let (key, message) = deploy(&bench.server, "g", &serde_json::from_value(spec).unwrap()).unwrap_err();
    assert_eq!(
        (key.as_str(), message.as_str()),
        ("graphs.g.output", "there is no node `n`")
    );
    assert!(!bench.server.hosting().contains(&"g".into()));
}
