//! What a call of a Python worker costs beyond the model: `TIDEMILL_PYTHON=… cargo run --release -p tidemill-models --example python_calls`.
//! Needs numpy and scikit-learn there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tidemill_core::clock::Stopwatch;
use tidemill_core::servable::{CallContext, Payload, Servable};
use tidemill_core::spec::{Span, WorkerSpec};
use tidemill_core::tensors::Tensor;
use tidemill_models::python::{PythonDeployment, PythonModel, PythonModels};

const TRAIN: &str = r"
import pickle, time, numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
rng = np.random.default_rng(0)
x = rng.normal(size=(2000, 10)); y = (x[:, 0] + x[:, 1] > 0).astype(int)
model = HistGradientBoostingClassifier(max_iter=100, random_state=0).fit(x, y)
pickle.dump(model, open('model.pkl', 'wb'))
for rows in (1, 16, 64, 256):
    part = x[:rows]; times = []
    for _ in range(300):
        start = time.perf_counter(); model.predict_proba(part); times.append(time.perf_counter() - start)
    print(f'in Python itself, {rows:4} rows: p50 {sorted(times)[150] * 1e6:6.0f} us')
";

const APP: &str = "def predict(x):\n    return x\n";

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn deployment(python: &Path, folder: &Path, model: PythonModel) -> PythonDeployment {
    PythonDeployment {
        name: "bench".to_owned(),
        python: python.to_owned(),
        folder: folder.to_owned(),
        model,
        worker: WorkerSpec::default(),
        timeout: Span::from_micros(60_000_000),
        environment: std::collections::BTreeMap::new(),
        preload: Vec::new(),
        memory: None,
    }
}

#[allow(clippy::print_stdout)]
async fn time(what: &str, model: &Arc<dyn Servable>, name: &str, rows: usize) -> Outcome {
    let values: Vec<f64> = (0..rows * 10).map(|i| (i % 7) as f64 - 3.0).collect();
    let payload = Payload::Tensors(vec![Tensor::of_f64(name, vec![rows, 10], &values)?]);
    let context = CallContext::default();
    let mut times = Vec::new();
    for _ in 0..1_000 {
        let watch = Stopwatch::start();
        model.call(payload.clone(), &context).await?;
        times.push(watch.elapsed());
    }
    times.sort_unstable();
    println!(
        "{what}, {rows:4} rows: p50 {:6} us, p99 {:6} us",
        times[500].as_micros(),
        times[990].as_micros()
    );
    Ok(())
}

#[allow(clippy::print_stdout)]
#[tokio::main]
async fn main() -> Outcome {
    let python = std::env::var_os("TIDEMILL_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("app.py"), APP)?;
    let trained = Command::new(&python)
        .args(["-c", TRAIN])
        .current_dir(folder.path())
        .env("OMP_NUM_THREADS", "1")
        .status()?;
    if !trained.success() {
        return Err("training failed, see above".into());
    }
    let models = PythonModels::new(folder.path().join("sources"));
    let echo = PythonModel::Function {
        target: "app:predict".to_owned(),
    };
    let echo = models
        .loader(deployment(&python, folder.path(), echo))
        .load()
        .await?;
    let boosted = PythonModel::Estimator {
        file: "model.pkl".to_owned(),
        method: Some("predict_proba".to_owned()),
        inputs: Vec::new(),
        outputs: Vec::new(),
    };
    let loader = models.loader(deployment(&python, folder.path(), boosted));
    let boosted = loader.load().await?;
    for rows in [1, 16, 64, 256] {
        time("echo      ", &echo, "x", rows).await?;
        time("classifier", &boosted, "input", rows).await?;
    }
    drop(boosted);
    let mut times = Vec::new();
    for _ in 0..20 {
        let watch = Stopwatch::start();
        let model = loader.load().await?;
        let row = Tensor::of_f64("input", vec![1, 10], &[0.5; 10])?;
        model
            .call(Payload::Tensors(vec![row]), &CallContext::default())
            .await?;
        times.push(watch.elapsed());
    }
    times.sort_unstable();
    println!(
        "from nothing to the first answer: p50 {:?}, worst {:?}",
        times[10], times[19]
    );
    Ok(())
}
