//! Pickled estimators and models of MLflow, and how long it takes from nothing to an answer.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tidemill_core::clock::{Stopwatch, real_sleep};
use tidemill_core::tensors::{DataType, Tensor};
use tidemill_models::python::PythonModel;

use crate::harness::{Place, ask, f64s, infer, named, python, shown, texts};

/// Runs a script in the deployment's folder and returns the JSON that it prints.
fn script(place: &Place, code: &str) -> Value {
    let output = Command::new(python())
        .args(["-W", "ignore", "-c", code])
        .current_dir(place.folder.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let said = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}

/// An interpreter that has all packages but mlflow.
fn without_mlflow(place: &Place) -> PathBuf {
    let here = script(
        place,
        "import json, site, sys; print(json.dumps([sys.base_prefix, site.getsitepackages()[0]]))",
    );
    let packages = place.folder.path().join("packages");
    std::fs::create_dir(&packages).unwrap();
    for entry in std::fs::read_dir(here[1].as_str().unwrap()).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_name().to_string_lossy().starts_with("mlflow") {
            std::os::unix::fs::symlink(entry.path(), packages.join(entry.file_name())).unwrap();
        }
    }
    let interpreter = place.folder.path().join("python-without");
    let script = format!(
        "#!/bin/sh\nPYTHONPATH='{}' exec '{}/bin/python3' \"$@\"\n",
        packages.display(),
        here[0].as_str().unwrap()
    );
    std::fs::write(&interpreter, script).unwrap();
    std::fs::set_permissions(&interpreter, std::fs::Permissions::from_mode(0o755)).unwrap();
    interpreter
}

fn estimator(file: &str, method: Option<&str>) -> PythonModel {
    PythonModel::Estimator {
        file: file.to_owned(),
        method: method.map(str::to_owned),
        inputs: Vec::new(),
        outputs: Vec::new(),
    }
}

const BOOSTED: &str = r"
import json, pickle, numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
rng = np.random.default_rng(0)
x = rng.normal(size=(500, 10)); y = (x[:, 0] + x[:, 1] > 0).astype(int)
model = HistGradientBoostingClassifier(max_iter=100, random_state=0).fit(x, y)
pickle.dump(model, open('model.pkl', 'wb'))
print(json.dumps([x[:16].ravel().tolist(), model.predict_proba(x[:16]).ravel().tolist(), model.predict(x[:16]).tolist()]))
";

#[tokio::test]
async fn a_pickled_classifier_answers_as_it_does_in_python() {
    let place = Place::new("");
    let said = script(&place, BOOSTED);
    let numbers = |i: usize| -> Vec<f64> { serde_json::from_value(said[i].clone()).unwrap() };
    let x = Tensor::of_f64("input", vec![16, 10], &numbers(0)).unwrap();
    let proba = place
        .load_with(|d| d.model = estimator("model.pkl", Some("predict_proba")))
        .await;
    let interface = proba.interface();
    assert_eq!(
        (interface.inputs[0].shape.as_slice(), interface.batches),
        ([-1, 10].as_slice(), true)
    );
    assert_eq!(interface.outputs[0].labels, ["0", "1"]);
    assert_eq!(
        infer(&proba, vec![x.clone()]).await.unwrap()[0].to_f64().unwrap(),
        numbers(1)
    );
    let labels = place.load_with(|d| d.model = estimator("model.pkl", None)).await;
    let answer = infer(&labels, vec![x]).await.unwrap();
    assert_eq!(
        (answer[0].datatype, answer[0].to_f64().unwrap()),
        (DataType::Int64, numbers(2))
    );
    let wrong = place
        .try_with(|d| d.model = estimator("model.pkl", Some("guess")))
        .await
        .unwrap_err();
    assert!(wrong.message.contains("has no `guess`"), "{wrong}");
}

#[tokio::test]
async fn a_pipeline_over_columns_gets_the_table_that_it_was_trained_on() {
    let place = Place::new("");
    let said = script(
        &place,
        r"
import json, joblib, pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
rows = pd.DataFrame({'age': [1.0, 2.0, 3.0, 4.0], 'city': ['a', 'b', 'a', 'b']})
steps = ColumnTransformer([('city', OneHotEncoder(), ['city'])], remainder='passthrough')
model = make_pipeline(steps, LogisticRegression()).fit(rows, ['no', 'yes', 'no', 'yes'])
joblib.dump(model, 'model.joblib')
print(json.dumps(model.predict(rows).tolist()))
",
    );
    let model = place
        .load_with(|d| {
            d.model = PythonModel::Estimator {
                file: "model.joblib".to_owned(),
                method: None,
                inputs: vec![
                    named(DataType::Fp64, "age", vec![-1]),
                    named(DataType::Bytes, "city", vec![-1]),
                ],
                outputs: Vec::new(),
            }
        })
        .await;
    assert!(model.interface().columns);
    let cities = texts("city", &[Some("a"), Some("b"), Some("a"), Some("b")]);
    let answer = infer(&model, vec![cities, f64s("age", &[1.0, 2.0, 3.0, 4.0])])
        .await
        .unwrap();
    assert_eq!(shown(&answer[0]), json!(["BYTES", [4], said]));
    let records = json!([{ "age": 1.0, "city": "a" }, { "age": 2.0, "city": "b" }]);
    assert_eq!(ask(&model, records).await.unwrap(), json!(["no", "yes"]));
}

#[tokio::test]
async fn a_pickle_that_runs_code_or_takes_all_memory_does_so_in_its_worker_alone() {
    let place = Place::new("");
    script(
        &place,
        r"
import os, pickle
class Exit:
    def __reduce__(self): return (os._exit, (66,))
class Bomb:
    def __reduce__(self): return (eval, ('[bytearray(16 << 20) for _ in range(10**6)]',))
class Where:
    def __reduce__(self): return (eval, ('(lambda pid: lambda: pid)(__import__(\'os\').getpid())',))
for name, what in (('exit', Exit()), ('bomb', Bomb()), ('where', Where())):
    pickle.dump(what, open(name + '.pkl', 'wb'))
open('broken.pkl', 'wb').write(b'\x80\x04nonsense')
print(0)
",
    );
    let load = |file: &'static str| {
        place.try_with(move |d| {
            d.model = estimator(file, None);
            d.worker.memory_mib = 300;
        })
    };
    let left = load("exit.pkl").await.unwrap_err();
    assert!(
        left.message.contains("left with code 66 while it was loaded"),
        "{left}"
    );
    let bomb = load("bomb.pkl").await.unwrap_err();
    assert!(
        bomb.message.contains("memory") || bomb.message.contains("MemoryError"),
        "{bomb}"
    );
    let broken = load("broken.pkl").await.unwrap_err();
    assert_eq!(broken.code, "worker_start", "{broken}");
    let somewhere = load("where.pkl").await.unwrap();
    assert_ne!(
        ask(&somewhere, json!({})).await.unwrap(),
        json!(std::process::id())
    );
}

#[tokio::test]
async fn a_model_of_mlflow_is_asked_by_its_signature_with_mlflow_and_without() {
    let place = Place::new("");
    let said = script(
        &place,
        r"
import json, logging, os
import mlflow, pandas as pd, yaml
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression
rows = pd.DataFrame({'a': [1.0, 2.0, 3.0], 'b': [2, 1, 4]})
model = LinearRegression().fit(rows, [1.0, 2.0, 4.0])
mlflow.sklearn.save_model(model, 'm', signature=infer_signature(rows, model.predict(rows)), serialization_format='pickle')
d = yaml.safe_load(open('m/MLmodel'))
signature = {k: json.loads(v) for k, v in d['signature'].items() if v}
print(json.dumps([model.predict(rows).tolist(), d['flavors'], signature]))
",
    );
    let expected: Vec<f64> = serde_json::from_value(said[0].clone()).unwrap();
    for interpreter in [python(), without_mlflow(&place)] {
        let model = place
            .load_with(|d| {
                d.python = interpreter;
                d.model = PythonModel::Mlflow {
                    folder: "m".to_owned(),
                    flavors: said[1].clone(),
                    signature: said[2].clone(),
                };
            })
            .await;
        let interface = model.interface();
        let inputs: Vec<_> = interface
            .inputs
            .iter()
            .map(|i| (i.name.as_str(), i.datatype))
            .collect();
        assert_eq!(inputs, [("a", DataType::Fp64), ("b", DataType::Int64)]);
        assert!(interface.columns && interface.batches);
        let b = Tensor::fixed(
            "b",
            DataType::Int64,
            vec![3],
            [2_i64, 1, 4].map(i64::to_le_bytes).concat().into(),
        )
        .unwrap();
        let answer = infer(&model, vec![f64s("a", &[1.0, 2.0, 3.0]), b]).await.unwrap();
        let worst = answer[0]
            .to_f64()
            .unwrap()
            .iter()
            .zip(&expected)
            .map(|(got, wanted)| (got - wanted).abs())
            .fold(0.0, f64::max);
        assert!(worst < 1e-12, "{answer:?} {expected:?}");
    }
}

#[tokio::test]
async fn a_function_answers_from_nothing_and_again_with_what_was_learnt_the_first_time() {
    let place = Place::new("");
    script(&place, BOOSTED);
    std::fs::write(
        place.folder.path().join("app.py"),
        "import pickle, numpy as np\nmodel = pickle.load(open('model.pkl', 'rb'))\ndef predict(x: np.ndarray):\n    return model.predict_proba(x)\n",
    )
    .unwrap();
    let ask_once = |place: &Place| {
        let mut deployment = place.deployment("app:predict");
        deployment.memory = Some(place.memory_file());
        place.models.warm_loader(deployment)
    };
    let x = || Tensor::of_f64("x", vec![1, 10], &[0.5; 10]).unwrap();
    let loader = ask_once(&place);
    let watch = Stopwatch::start();
    let model = loader.load().await.unwrap();
    infer(&model, vec![x()]).await.unwrap();
    let first = watch.elapsed();
    drop(model);
    real_sleep(Duration::from_secs(4)).await;
    let watch = Stopwatch::start();
    let model = loader.load().await.unwrap();
    infer(&model, vec![x()]).await.unwrap();
    let again = watch.elapsed();
    println!("from nothing: first {first:?}, once it is known {again:?}");
    // How long that took says nothing on a busy machine; the figure stands in docs/benchmarks.md.
    // A server that starts anew remembers what it needs and takes.
    let next = Place::new("");
    let mut deployment = place.deployment("app:predict");
    deployment.memory = Some(place.memory_file());
    let loader = next.models.warm_loader(deployment);
    assert!(loader.interface().is_some_and(|i| i.platform == "python"));
}
