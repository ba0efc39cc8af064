//! ONNX files: what is hostile or broken is refused before ONNX Runtime sees it; what is sound answers tensors.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // helpers of tests

mod common;

use std::future::Future;
use std::task::{Context, Poll, Waker};

use common::{manifest_dir, numeric_schema};
use proptest::prelude::*;
use serde_json::json;
use tidemill_core::frame::{Column, Frame, Scores};
use tidemill_core::ports::{Blame, ModelBundle, ModelRuntime, PortError};
use tidemill_core::servable::{CallContext, Payload, Servable};
use tidemill_core::tensors::{DataType, Tensor};
use tidemill_models::{OnnxModel, Runtime};

fn data(name: &str) -> Vec<u8> {
    std::fs::read(manifest_dir().join("tests/data/onnx").join(name)).unwrap()
}

fn bundle(model: Vec<u8>) -> ModelBundle {
    ModelBundle::from([("m.onnx".to_owned(), model)])
}

fn refused(model: Vec<u8>) -> PortError {
    OnnxModel::check(&bundle(model), "m.onnx").unwrap_err()
}

/// Protocol buffers, written by hand: what no exporter would write.
#[derive(Default, Clone)]
struct Proto(Vec<u8>);

impl Proto {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn int(mut self, field: u64, value: i64) -> Self {
        self.varint(field << 3);
        self.varint(value as u64);
        self
    }

    fn bytes(mut self, field: u64, bytes: impl AsRef<[u8]>) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.as_ref().len() as u64);
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    fn message(self, field: u64, inner: Proto) -> Self {
        self.bytes(field, inner.0)
    }
}

fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> Proto {
    let mut node = Proto::default();
    for input in inputs {
        node = node.bytes(1, input);
    }
    for output in outputs {
        node = node.bytes(2, output);
    }
    node.bytes(4, op)
}

/// A value of single-precision numbers.
fn value(name: &str, shape: &[i64]) -> Proto {
    let dims = shape.iter().fold(Proto::default(), |dims, &extent| {
        dims.message(1, Proto::default().int(1, extent))
    });
    let tensor = Proto::default().int(1, 1).message(2, dims);
    Proto::default()
        .bytes(1, name)
        .message(2, Proto::default().message(1, tensor))
}

fn tensor(name: &str, kind: i64, dims: &[i64], raw: &[u8]) -> Proto {
    let tensor = dims
        .iter()
        .fold(Proto::default(), |tensor, &extent| tensor.int(1, extent));
    tensor.int(2, kind).bytes(8, name).bytes(9, raw)
}

/// A graph from `x` to `y`.
fn graph(parts: impl IntoIterator<Item = (u64, Proto)>) -> Proto {
    let graph = Proto::default()
        .message(11, value("x", &[2]))
        .message(12, value("y", &[2]));
    parts
        .into_iter()
        .fold(graph, |graph, (field, part)| graph.message(field, part))
}

fn model(graph: Proto) -> Vec<u8> {
    let opset = Proto::default().int(2, 17);
    Proto::default().int(1, 8).message(7, graph).message(8, opset).0
}

fn external(location: &str, length: &str) -> Proto {
    let entry = |key: &str, text: &str| Proto::default().bytes(1, key).bytes(2, text);
    Proto::default()
        .int(1, 2)
        .int(2, 1)
        .bytes(8, "w")
        .message(13, entry("location", location))
        .message(13, entry("length", length))
        .int(14, 1)
}

#[test]
fn a_sound_graph_passes_and_its_inputs_and_outputs_are_known() {
    let interface = OnnxModel::check(&bundle(data("mlp.onnx")), "m.onnx").unwrap();
    assert_eq!(interface.inputs.len(), 1);
    assert_eq!(interface.inputs[0].datatype, DataType::Fp32);
    assert_eq!(interface.inputs[0].shape, [-1, 3]);
    assert!(interface.batches);
    let by_hand = model(graph([(1, node("Add", &["x", "x"], &["y"]))]));
    OnnxModel::check(&bundle(by_hand), "m.onnx").unwrap();
}

#[test]
fn hostile_files_are_refused_with_what_is_wrong() {
    let add = || (1, node("Add", &["x", "w"], &["y"]));
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nothing", Vec::new(), "there is no graph in it"),
        (
            "a page",
            b"<!doctype html><html></html>".to_vec(),
            "is not an ONNX model",
        ),
        (
            "two graphs, of which another reader takes both",
            [
                model(graph([(1, node("Add", &["x", "x"], &["y"]))])),
                Proto::default().message(7, Proto::default()).0,
            ]
            .concat(),
            "it has several graphs",
        ),
        (
            "a circle",
            model(graph([
                (1, node("Add", &["x", "b"], &["a"])),
                (1, node("Relu", &["a"], &["b"])),
                (1, node("Relu", &["b"], &["y"])),
            ])),
            "read each other in a circle",
        ),
        (
            "a node of itself",
            model(graph([(1, node("Add", &["x", "y"], &["y"]))])),
            "read each other in a circle",
        ),
        (
            "an input from nowhere",
            model(graph([(1, node("Add", &["x", "ghost"], &["y"]))])),
            "reads `ghost`, which nothing makes",
        ),
        (
            "weights that are not there",
            model(graph([add(), (5, tensor("w", 1, &[1 << 40], &[0; 8]))])),
            "tensor `w` of shape [1099511627776]",
        ),
        (
            "more elements than can be counted",
            model(graph([add(), (5, tensor("w", 1, &[i64::MAX, i64::MAX], &[]))])),
            "tensor `w` has shape",
        ),
        (
            "a negative extent",
            model(graph([add(), (5, tensor("w", 1, &[-2], &[]))])),
            "tensor `w` has shape [-2]",
        ),
        (
            "a huge input",
            model(
                Proto::default()
                    .message(11, value("x", &[1 << 20, 1 << 20]))
                    .message(12, value("y", &[2]))
                    .message(1, node("Relu", &["x"], &["y"])),
            ),
            "`x` has shape [1048576, 1048576]",
        ),
        (
            "a constant that would fill the memory",
            model(graph([
                (
                    5,
                    tensor(
                        "w",
                        7,
                        &[2],
                        &[(1_i64 << 30).to_le_bytes(), (1_i64 << 30).to_le_bytes()].concat(),
                    ),
                ),
                (1, node("ConstantOfShape", &["w"], &["z"])),
                (1, node("Add", &["x", "z"], &["y"])),
            ])),
            "`ConstantOfShape` makes `z`, which would have more than",
        ),
        (
            "a path out of the bundle",
            model(graph([add(), (5, external("../../etc/passwd", "8"))])),
            "lies in `../../etc/passwd`, which is no plain file name",
        ),
        (
            "an absolute path",
            model(graph([add(), (5, external("/etc/passwd", "8"))])),
            "lies in `/etc/passwd`, which is no plain file name",
        ),
        (
            "a file that is not there",
            model(graph([add(), (5, external("weights.bin", "8"))])),
            "`weights.bin`, which is not in the bundle",
        ),
        (
            "another file's bytes",
            model(graph([add(), (5, external("m.onnx", "800000"))])),
            "needs 8 bytes, and `m.onnx` does not hold them",
        ),
        (
            "an opset of the future",
            Proto::default()
                .message(7, graph([(1, node("Relu", &["x"], &["y"]))]))
                .message(8, Proto::default().int(2, 9000))
                .0,
            "it needs version 9000 of ``",
        ),
        (
            "operators of somebody else",
            Proto::default()
                .message(7, graph([(1, node("Relu", &["x"], &["y"]))]))
                .message(8, Proto::default().bytes(1, "evil.example").int(2, 1))
                .0,
            "it needs operators of `evil.example`",
        ),
    ];
    for (what, file, expected) in cases {
        let error = refused(file);
        assert_eq!(
            (error.code, error.blame),
            ("model_broken", Blame::Caller),
            "{what}"
        );
        assert!(
            error.message.contains(expected),
            "{what}: {error}\nshould say: {expected}"
        );
    }
}

/// `op` of a size that stands in the file as `w`, behind `steps`.
fn sized(steps: &[(u64, Proto)], op: Proto) -> Vec<u8> {
    let huge = [(1_i64 << 30).to_le_bytes(), (1_i64 << 30).to_le_bytes()].concat();
    let parts = [(5, tensor("w", 7, &[2], &huge)), (1, op)];
    let end = [(1, node("Add", &["x", "z"], &["y"]))];
    model(graph(steps.iter().cloned().chain(parts).chain(end)))
}

#[test]
fn a_huge_size_is_found_behind_copies_in_graphs_inside_and_in_functions() {
    let copied = [
        // Not in the order in which they are run.
        (1, node("Cast", &["b"], &["c"])),
        (1, node("Identity", &["w"], &["a"])),
        (1, node("Concat", &["a"], &["b"])),
    ];
    let fill = |shape: &str| node("ConstantOfShape", &[shape], &["z"]);
    let branch = Proto::default().bytes(1, "then_branch").message(
        6,
        Proto::default().message(1, node("Expand", &["x", "c"], &["inner"])),
    );
    let calls = Proto::default()
        .message(
            7,
            graph([
                (5, tensor("w", 7, &[1], &(1_i64 << 40).to_le_bytes())),
                (1, node("fill", &["w"], &["z"]).bytes(7, "own")),
                (1, node("Add", &["x", "z"], &["y"])),
            ]),
        )
        .message(8, Proto::default().int(2, 17))
        .message(8, Proto::default().bytes(1, "own").int(2, 1))
        .message(
            25,
            Proto::default()
                .bytes(1, "fill")
                .bytes(10, "own")
                .bytes(4, "shape")
                .bytes(5, "filled")
                .message(7, node("Identity", &["shape"], &["same"]))
                .message(7, node("ConstantOfShape", &["same"], &["filled"])),
        );
    for file in [
        sized(&copied, fill("c")),
        sized(&copied, node("If", &["x"], &["z"]).message(5, branch)),
        calls.0,
    ] {
        let error = refused(file);
        assert!(error.message.contains("which would have more than"), "{error}");
    }
}

#[test]
fn what_may_repeat_without_end_or_says_things_twice_is_refused() {
    let scan = |over: &str| {
        let count = Proto::default().bytes(1, "num_scan_inputs").int(3, 1);
        let body = Proto::default().bytes(1, "body").message(
            6,
            Proto::default()
                .message(11, value("row", &[]))
                .message(12, value("out", &[]))
                .message(1, node("Relu", &["row"], &["out"])),
        );
        node("Scan", &[over], &["y"]).message(5, count).message(5, body)
    };
    let copy = (1, node("Identity", &["x"], &["same"]));
    OnnxModel::check(&bundle(model(graph([copy, (1, scan("same"))]))), "m.onnx").unwrap();
    let made = (1, node("Tile", &["x", "x"], &["same"]));
    let inside = Proto::default()
        .bytes(1, "then_branch")
        .message(6, Proto::default().message(1, node("Loop", &["x"], &["inner"])));
    let axis = |axis: i64| Proto::default().bytes(1, "axis").int(3, axis);
    let part = || tensor("s", 1, &[0], &[]);
    let cases = [
        (
            graph([(1, node("Loop", &["x"], &["y"]))]),
            "`Loop`, which makes `y`, may repeat",
        ),
        (
            graph([made, (1, scan("same"))]),
            "`Scan`, which makes `y`, may repeat",
        ),
        (
            graph([(1, node("If", &["x"], &["y"]).message(5, inside))]),
            "`Loop`, which makes `inner`",
        ),
        (
            graph([(1, node("TreeEnsemble", &["x"], &["y"]).bytes(7, "ai.onnx.ml"))]),
            "`TreeEnsemble`, which makes `y`, is too new",
        ),
        (
            graph([(
                1,
                node("Softmax", &["x"], &["y"])
                    .message(5, axis(0))
                    .message(5, axis(1)),
            )]),
            "a node `Softmax` has an attribute twice",
        ),
        (
            graph([(15, Proto::default().message(1, part()).message(1, part()))]),
            "says its values or indices twice",
        ),
    ];
    for (graph, expected) in cases {
        let error = refused(model(graph));
        assert!(
            error.message.contains(expected),
            "{error}\nshould say: {expected}"
        );
    }
}

#[test]
fn functions_that_call_themselves_or_grow_without_end_are_refused() {
    let function = |name: &str, calls: &[&str]| {
        let function = Proto::default().bytes(1, name).bytes(4, "a").bytes(10, "own");
        calls
            .iter()
            .enumerate()
            .fold(function, |function, (number, call)| {
                let output = format!("{name}{number}");
                function
                    .bytes(5, &output)
                    .message(7, node(call, &["a"], &[&output]).bytes(7, "own"))
            })
    };
    let with = |functions: &[Proto]| {
        let opsets = Proto::default()
            .message(7, graph([(1, node("f0", &["x"], &["y"]).bytes(7, "own"))]))
            .message(8, Proto::default().int(2, 17))
            .message(8, Proto::default().bytes(1, "own").int(2, 1));
        let whole = functions
            .iter()
            .fold(opsets, |model, function| model.message(25, function.clone()));
        refused(whole.0)
    };
    let circle = with(&[function("f0", &["f1"]), function("f1", &["f0"])]);
    assert!(
        circle.message.contains("functions call each other in a circle"),
        "{circle}"
    );
    // Twenty functions of eight calls each: 2^60 nodes in a file of some kilobytes.
    let names: Vec<String> = (0..20).map(|number| format!("f{}", number + 1)).collect();
    let mut functions: Vec<Proto> = (0..20)
        .map(|number| function(&format!("f{number}"), &[names[number].as_str(); 8]))
        .collect();
    functions.push(function("f20", &[]));
    let bomb = with(&functions);
    assert!(bomb.message.contains("nodes, its functions expanded"), "{bomb}");
}

#[test]
fn graphs_inside_each_other_have_a_bound() {
    let mut inner = graph([]);
    for _ in 0..40 {
        let branch = Proto::default().bytes(1, "then_branch").message(6, inner);
        inner = graph([(1, node("If", &["x"], &["y"]).message(5, branch))]);
    }
    let error = refused(model(inner));
    assert!(error.message.contains("nested deeper than"), "{error}");
}

#[test]
fn a_tree_that_leads_in_a_circle_is_refused() {
    let ints = |name: &str, values: &[i64]| {
        let attribute = Proto::default().bytes(1, name);
        values
            .iter()
            .fold(attribute, |attribute, &value| attribute.int(8, value))
    };
    let modes = ["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"];
    let modes = modes
        .iter()
        .fold(Proto::default().bytes(1, "nodes_modes"), |modes, mode| {
            modes.bytes(9, mode)
        });
    let trees = node("TreeEnsembleRegressor", &["x"], &["y"])
        .bytes(7, "ai.onnx.ml")
        .message(5, ints("nodes_treeids", &[0, 0, 0]))
        .message(5, ints("nodes_nodeids", &[0, 1, 2]))
        .message(5, ints("nodes_featureids", &[0, 0, 0]))
        .message(5, ints("nodes_truenodeids", &[1, 0, 0]))
        .message(5, ints("nodes_falsenodeids", &[2, 2, 0]))
        .message(5, modes);
    let error = refused(model(graph([(1, trees)])));
    assert!(error.message.contains("their nodes lead in a circle"), "{error}");
}

#[test]
fn a_table_of_trees_answers_without_onnx_runtime() {
    let manifest = json!({"format": "onnx", "file": "m.onnx", "features": [
        {"name": "a", "kind": "numeric"}, {"name": "b", "kind": "numeric"}, {"name": "c", "kind": "numeric"}]});
    let mut bundle = bundle(data("trees.onnx"));
    bundle.insert("model.json".into(), serde_json::to_vec(&manifest).unwrap());
    let model = Runtime.load(&bundle).unwrap();
    let columns = [vec![0.5, f64::NAN], vec![-0.25, 1.0], vec![1.5, 0.0]].map(Column::Numeric);
    let rows = Frame::new(numeric_schema(&["a", "b", "c"]), columns.to_vec()).unwrap();
    let Scores::Regression(answers) = model.predict(&rows).unwrap() else {
        panic!("a regression");
    };
    assert!(
        answers.iter().all(|answer| answer.is_finite() && *answer != 0.0),
        "{answers:?}"
    );
}

/// What a model that never waits answers.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("it waited"),
    }
}

#[test]
fn a_graph_answers_tensors_and_refuses_those_that_do_not_fit() {
    if std::env::var_os("ORT_DYLIB_PATH").is_none() {
        eprintln!("skipped: ORT_DYLIB_PATH names no ONNX Runtime; `make test` does");
        return;
    }
    let model = OnnxModel::load(&bundle(data("mlp.onnx")), "m.onnx").unwrap();
    let rows = Tensor::of_f32("x", vec![2, 3], &[0.1, 0.2, 0.3, -1.0, 0.5, 2.0]).unwrap();
    let ask =
        |tensors: Vec<Tensor>, context: &CallContext| now(model.call(Payload::Tensors(tensors), context));
    let Payload::Tensors(answer) = ask(vec![rows.clone()], &CallContext::default()).unwrap() else {
        panic!("tensors");
    };
    assert_eq!(answer.len(), 1);
    assert_eq!(answer[0].shape, [2, 1]);
    assert!(
        answer[0]
            .to_f64()
            .unwrap()
            .iter()
            .all(|number| number.is_finite())
    );

    let wrong = Tensor::of_f64("x", vec![2, 3], &[0.0; 6]).unwrap();
    let error = ask(vec![wrong], &CallContext::default()).unwrap_err();
    assert_eq!(
        (error.code, error.blame),
        ("bad_payload", Blame::Caller),
        "{error}"
    );
    let other = CallContext {
        outputs: vec!["z".into()],
        ..CallContext::default()
    };
    assert_eq!(
        ask(vec![rows.clone()], &other).unwrap_err().code,
        "unknown_output"
    );

    // As many threads at a time as there are; each gets its own row's answer.
    let expected = answer[0].to_f64().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (model, rows, expected) = (&model, &rows, &expected);
            scope.spawn(move || {
                let row = thread % 2;
                let one = rows.slice_rows(row, row + 1).unwrap();
                for _ in 0..50 {
                    let Payload::Tensors(answer) =
                        now(model.call(Payload::Tensors(vec![one.clone()]), &CallContext::default()))
                            .unwrap()
                    else {
                        panic!("tensors");
                    };
                    assert!((answer[0].to_f64().unwrap()[0] - expected[row]).abs() < 1e-6);
                }
            });
        }
    });
}

#[test]
fn weights_in_another_file_of_the_bundle_are_read_from_there() {
    if std::env::var_os("ORT_DYLIB_PATH").is_none() {
        eprintln!("skipped: ORT_DYLIB_PATH names no ONNX Runtime; `make test` does");
        return;
    }
    let add = (1, node("Add", &["x", "w"], &["y"]));
    let mut bundle = bundle(model(graph([add, (5, external("w.bin", "8"))])));
    let weights = [10.0_f32, 20.0].map(f32::to_le_bytes).concat();
    bundle.insert("w.bin".into(), weights);
    let model = OnnxModel::load(&bundle, "m.onnx").unwrap();
    let x = Tensor::of_f32("x", vec![2], &[1.0, 2.0]).unwrap();
    let Payload::Tensors(answer) =
        now(model.call(Payload::Tensors(vec![x]), &CallContext::default())).unwrap()
    else {
        panic!("tensors");
    };
    assert_eq!(answer[0].to_f64().unwrap(), [11.0, 22.0]);
}

proptest! {
    #[test]
    fn a_mutated_file_is_refused_or_sound_and_never_panics(
        trees in any::<bool>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..3, prop::collection::vec(any::<u8>(), 0..4)), 1..5),
    ) {
        let mut file = data(if trees { "trees.onnx" } else { "mlp.onnx" });
        for (at, removed, inserted) in edits {
            let start = at.index(file.len());
            let end = (start + removed).min(file.len());
            file.splice(start..end, inserted);
        }
        let _ = OnnxModel::check(&bundle(file), "m.onnx");
    }

    #[test]
    fn a_file_that_is_cut_off_never_panics(trees in any::<bool>(), at in any::<prop::sample::Index>()) {
        let file = data(if trees { "trees.onnx" } else { "mlp.onnx" });
        let cut = file[..at.index(file.len())].to_vec();
        let _ = OnnxModel::check(&bundle(cut), "m.onnx");
    }
}
