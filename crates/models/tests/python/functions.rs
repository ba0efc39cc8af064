//! What functions take and give.

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tidemill_core::servable::{CallContext, Payload};
use tidemill_core::tensors::{DataType, Tensor};

use crate::harness::{Place, ask, body, f64s, infer, json_of, shown, texts};

const PLAIN: &str = r#"
import dataclasses, enum, os
from typing import Literal, Optional
import tidemill

@dataclasses.dataclass
class Point:
    x: float
    y: float = 1.0

def predict(a: int, b: float = 0.5, *, tags: Optional[list[str]] = None):
    assert isinstance(b, float)
    return {"sum": a + b, "tags": tags}

def far(point: Point, unit: Literal["m", "km"] = "m") -> Point:
    return Point(point.x * 2, point.y)

def whole(items: list[int]):
    return sum(items)

def fails(x: int):
    return 1 // x

def refuses(x: int):
    raise tidemill.BadRequest(f"no {x} here")

def picture():
    return tidemill.Response(b"\x89PNG", "image/png")

def nothing_finite():
    return [float("nan"), 1.5]

def about():
    return [os.environ.get("COLOUR"), os.environ.get("TIDEMILL_ADMIN_PASSWORD"), tidemill.request().id]

async def later(x: int):
    import asyncio
    await asyncio.sleep(0.01)
    return x + 1

class Model:
    loads = 0
    def __init__(self):
        Model.loads += 1
        self.base = 40
    def predict(self, x: int):
        return [self.base + x, Model.loads]
"#;

#[tokio::test]
async fn json_names_the_arguments_and_the_result_is_json() {
    let place = Place::new(PLAIN);
    let predict = place.load("app:predict").await;
    assert_eq!(
        ask(&predict, json!({ "a": 1 })).await.unwrap(),
        json!({ "sum": 1.5, "tags": null })
    );
    let answer = ask(&predict, json!({ "a": 1.0, "b": 2, "tags": ["x"] }))
        .await
        .unwrap();
    assert_eq!(answer, json!({ "sum": 3.0, "tags": ["x"] }));
    let far = place.load("app.py:far").await;
    let answer = ask(&far, json!({ "point": { "x": 2 }, "unit": "km" }))
        .await
        .unwrap();
    assert_eq!(answer, json!({ "x": 4.0, "y": 1.0 }));
    // The only parameter takes the body itself where its names are no parameters.
    assert_eq!(
        ask(&far, json!({ "x": 1, "y": 2 })).await.unwrap(),
        json!({ "x": 2.0, "y": 2.0 })
    );
    let whole = place.load("app:whole").await;
    assert_eq!(ask(&whole, json!([1, 2, 3])).await.unwrap(), json!(6));
    let finite = place.load("app:nothing_finite").await;
    assert_eq!(ask(&finite, json!({})).await.unwrap(), json!([null, 1.5]));
}

#[tokio::test]
async fn what_does_not_fit_the_signature_is_the_callers_fault_and_named() {
    let place = Place::new(PLAIN);
    let predict = place.load("app:predict").await;
    let far = place.load("app:far").await;
    let refuses = place.load("app:refuses").await;
    let cases = [
        (
            &predict,
            json!({ "b": 1 }),
            "`a` is missing; the function takes `a`, `b`, `tags`",
        ),
        (
            &predict,
            json!({ "a": 1, "c": 1 }),
            "the function takes no `c`; it takes `a`, `b`, `tags`",
        ),
        (
            &predict,
            json!({ "a": "x" }),
            "`a` is `'x'`; expected a whole number",
        ),
        (
            &predict,
            json!({ "a": true }),
            "`a` is `True`; expected a whole number",
        ),
        (
            &predict,
            json!({ "a": 1, "tags": [1] }),
            "`tags[0]` is `1`; expected a text",
        ),
        (
            &far,
            json!({ "point": { "z": 1 } }),
            "`point` has no `z`; it has `x`, `y`",
        ),
        (
            &far,
            json!({ "point": { "x": 1 }, "unit": "mile" }),
            "`unit` is 'mile'; expected one of 'm', 'km'",
        ),
        (&refuses, json!({ "x": 3 }), "no 3 here"),
    ];
    for (model, asked, said) in cases {
        let error = ask(model, asked).await.unwrap_err();
        assert_eq!((error.code, error.message.as_str()), ("function_arguments", said));
    }
    let fails = place.load("app:fails").await;
    let error = ask(&fails, json!({ "x": 0 })).await.unwrap_err();
    assert_eq!(error.code, "function_raised");
    assert!(error.message.contains("ZeroDivisionError"), "{error}");
    assert_eq!(ask(&fails, json!({ "x": 1 })).await.unwrap(), json!(1));
}

#[tokio::test]
async fn a_class_is_made_once_and_an_asynchronous_function_is_awaited() {
    let place = Place::new(PLAIN);
    for target in ["app:Model.predict", "app:Model"] {
        let model = place.load(target).await;
        for x in 1..3 {
            assert_eq!(ask(&model, json!({ "x": x })).await.unwrap(), json!([40 + x, 1]));
        }
    }
    let later = place
        .load_with(|d| {
            d.model = place.deployment("app:later").model;
            d.worker.concurrency = 8;
        })
        .await;
    let calls = (0..8).map(|x| ask(&later, json!({ "x": x })));
    let answers: Vec<Value> = futures_util::future::join_all(calls)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(json!(answers), json!([1, 2, 3, 4, 5, 6, 7, 8]));
}

#[tokio::test]
async fn a_worker_sees_its_own_variables_and_none_of_the_servers_secrets() {
    let place = Place::new(PLAIN);
    let about = place.load("app:about").await;
    let context = CallContext {
        request_id: "r-1".to_owned(),
        ..CallContext::default()
    };
    let answer = about.call(body(&json!({})), &context).await.unwrap();
    assert_eq!(json_of(answer), json!(["blue", null, "r-1"]));
    let picture = place.load("app:picture").await;
    let answer = picture.call(body(&json!({})), &context).await.unwrap();
    let expected = Payload::Body {
        content_type: "image/png".to_owned(),
        bytes: b"\x89PNG".as_slice().into(),
    };
    assert_eq!(answer, expected);
}

const ARRAYS: &str = r#"
import numpy as np
import pandas as pd
import tidemill

@tidemill.endpoint(batch=True, inputs={"x": ("FP32", [-1, 2])}, outputs={"y": ("FP32", [-1])})
def predict(x: np.ndarray) -> np.ndarray:
    assert x.dtype == np.float32 and x.flags.writeable
    return x.sum(axis=1)

def two(x: np.ndarray, scale: float = 1.0):
    return {"double": x * 2 * scale, "text": np.array(["a", None], dtype=object), "flag": x > 1}

def table(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(both=rows["age"] + rows["weight"], known=rows["city"].notna())

def echo(x):
    return x
"#;

#[tokio::test]
async fn tensors_come_as_arrays_and_go_as_tensors() {
    let place = Place::new(ARRAYS);
    let predict = place.load("app:predict").await;
    let interface = predict.interface();
    assert!(interface.batches && !interface.columns && !interface.decoupled);
    assert_eq!(
        (interface.inputs[0].name.as_str(), interface.inputs[0].datatype),
        ("x", DataType::Fp32)
    );
    let x = Tensor::of_f32("x", vec![2, 2], &[1.0, 2.0, 3.0, 4.0]).unwrap();
    let answer = infer(&predict, vec![x]).await.unwrap();
    assert_eq!(
        (answer[0].name.as_str(), shown(&answer[0])),
        ("y", json!(["FP32", [2], [3.0, 7.0]]))
    );
    let two = place.load("app:two").await;
    let context = CallContext {
        parameters: [("scale".to_owned(), json!(10))].into_iter().collect(),
        outputs: vec!["text".to_owned(), "double".to_owned(), "flag".to_owned()],
        ..CallContext::default()
    };
    let asked = Payload::Tensors(vec![f64s("x", &[0.5, 2.0])]);
    let Payload::Tensors(answer) = two.call(asked, &context).await.unwrap() else {
        panic!("tensors")
    };
    let answer: Vec<Value> = answer.iter().map(shown).collect();
    let expected = json!([
        ["BYTES", [2], ["a", null]],
        ["FP64", [2], [10.0, 40.0]],
        ["BOOL", [2], [0.0, 1.0]]
    ]);
    assert_eq!(json!(answer), expected);
}

#[tokio::test]
async fn columns_come_as_a_data_frame() {
    let place = Place::new(ARRAYS);
    let table = place.load("app:table").await;
    assert!(table.interface().columns);
    let asked = vec![
        f64s("age", &[1.0, 2.0]),
        f64s("weight", &[0.5, 0.25]),
        texts("city", &[Some("Łódź"), None]),
    ];
    let answer: Vec<Value> = infer(&table, asked).await.unwrap().iter().map(shown).collect();
    assert_eq!(answer[2], json!(["BYTES", [2], ["Łódź", null]]));
    assert_eq!(answer[3], json!(["FP64", [2], [1.5, 2.25]]));
    assert_eq!(answer[4], json!(["BOOL", [2], [1.0, 0.0]]));
}

#[tokio::test]
async fn every_datatype_and_a_large_tensor_come_back_as_they_went() {
    let place = Place::new(ARRAYS);
    let echo = place.load("app:echo").await;
    for datatype in DataType::ALL {
        let Some(size) = datatype.size() else { continue };
        let bytes: Vec<u8> = (0..3 * size)
            .map(|i| if i % size == size - 1 { 0x3f } else { 1 })
            .collect();
        let bytes = if datatype == DataType::Bool {
            vec![0, 1, 1]
        } else {
            bytes
        };
        let sent = Tensor::fixed("x", datatype, vec![3, 1], bytes.into()).unwrap();
        let answer = infer(&echo, vec![sent.clone()]).await.unwrap();
        if datatype == DataType::Bf16 {
            // numpy has none: it comes, and goes, as a single-precision number of the same value.
            assert_eq!(answer[0].to_f64(), sent.to_f64());
        } else {
            assert_eq!((answer[0].datatype, &answer[0].data), (datatype, &sent.data));
        }
    }
    let many: Vec<f64> = (0..1_000_000).map(f64::from).collect();
    let answer = infer(
        &echo,
        vec![Tensor::of_f64("x", vec![1_000, 1_000], &many).unwrap()],
    )
    .await
    .unwrap();
    assert_eq!(answer[0].to_f64().unwrap(), many);
    let strings = texts("x", &[Some("a"), None, Some("")]);
    assert_eq!(
        shown(&infer(&echo, vec![strings]).await.unwrap()[0]),
        json!(["BYTES", [3], ["a", null, ""]])
    );
}

const STREAMS: &str = r#"
import asyncio, time
seen = []

def predict(n: int):
    try:
        for i in range(n):
            seen.append(i)
            yield {"i": i}
    finally:
        seen.append("closed")

def fails(n: int):
    yield n
    raise ValueError("half way")

async def later(n: int):
    for i in range(n):
        await asyncio.sleep(0.001)
        yield i
"#;

#[tokio::test]
async fn generators_answer_piece_by_piece() {
    let place = Place::new(STREAMS);
    let context = CallContext::default();
    for target in ["app:predict", "app:later"] {
        let model = place.load(target).await;
        assert!(model.interface().decoupled);
        let answers = model
            .stream(body(&json!({ "n": 200 })), &context)
            .await
            .unwrap()
            .unwrap();
        let pieces: Vec<Value> = answers.map(|piece| json_of(piece.unwrap())).collect().await;
        assert_eq!(pieces.len(), 200);
        // Asked by a protocol that does not stream, all pieces are the answer.
        assert_eq!(
            ask(&model, json!({ "n": 2 }))
                .await
                .unwrap()
                .as_array()
                .unwrap()
                .len(),
            2
        );
    }
    let fails = place.load("app:fails").await;
    let mut answers = fails
        .stream(body(&json!({ "n": 7 })), &context)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(json_of(answers.next().await.unwrap().unwrap()), json!(7));
    let error = answers.next().await.unwrap().unwrap_err();
    assert!(error.message.contains("half way"), "{error}");
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn a_caller_who_leaves_a_stream_ends_the_generator_and_the_next_call_is_answered() {
    let place = Place::new(&format!("{STREAMS}\ndef look():\n    return seen[-1]\n"));
    let model = place.load("app:predict").await;
    let mut answers = model
        .stream(body(&json!({ "n": 1_000_000_000 })), &CallContext::default())
        .await
        .unwrap()
        .unwrap();
    for _ in 0..3 {
        answers.next().await.unwrap().unwrap();
    }
    drop(answers);
    assert_eq!(ask(&model, json!({ "n": 1 })).await.unwrap(), json!([{ "i": 0 }]));
}

const THREADS: &str = r#"
import threading, time

def predict(seconds: float = 0.0):
    time.sleep(seconds)
    return threading.current_thread().name

def endless(size: int = 100_000):
    while True:
        yield "x" * size
"#;

#[tokio::test]
async fn a_plain_function_may_work_on_several_calls_at_once() {
    let place = Place::new(THREADS);
    let model = place.load_with(|d| d.worker.concurrency = 4).await;
    assert_eq!(model.concurrency(), 4);
    let watch = tidemill_core::clock::Stopwatch::start();
    let calls = (0..8).map(|_| ask(&model, json!({ "seconds": 0.2 })));
    let threads: std::collections::BTreeSet<String> = futures_util::future::join_all(calls)
        .await
        .into_iter()
        .map(|answer| answer.unwrap().to_string())
        .collect();
    assert!(watch.elapsed().as_millis() < 1_000, "{:?}", watch.elapsed());
    assert_eq!(threads.len(), 4);
}

#[tokio::test]
async fn who_reads_a_stream_slowly_is_waited_for_alone_and_left_behind_among_others() {
    let place = Place::new(THREADS);
    let context = CallContext::default();
    let endless = |concurrency| {
        let model = place.deployment("app:endless").model;
        place.load_with(move |d| {
            d.model = model;
            d.worker.concurrency = concurrency;
        })
    };
    let alone = endless(1).await;
    let mut answers = alone.stream(body(&json!({})), &context).await.unwrap().unwrap();
    // The generator waits: what has been read ahead is bounded.
    tidemill_core::clock::real_sleep(std::time::Duration::from_millis(300)).await;
    for _ in 0..200 {
        answers.next().await.unwrap().unwrap();
    }
    drop(answers);
    let among = endless(2).await;
    let mut answers = among
        .stream(body(&json!({ "size": 10 })), &context)
        .await
        .unwrap()
        .unwrap();
    tidemill_core::clock::real_sleep(std::time::Duration::from_millis(1_500)).await;
    let error = loop {
        match answers.next().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("it ended as if it were whole"),
        }
    };
    assert_eq!(error.code, "stream_too_slow");
    let mut others = among
        .stream(body(&json!({ "size": 10 })), &context)
        .await
        .unwrap()
        .unwrap();
    others.next().await.unwrap().unwrap();
}
