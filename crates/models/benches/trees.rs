//! How long a tree model takes for one row and for 1,024 rows: `trees FOLDER SECONDS`.
//!
//! The folder holds a bundle, `rows.f64` (row-major) and `expected.f64`, the library's own answers, which ours must equal.
//! `benches/trees.py` makes it and reads the answer, a JSON object of seconds by rows.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic)]

use std::path::Path;
use std::sync::Arc;

use tidemill_core::clock::Stopwatch;
use tidemill_core::frame::{Column, Feature, FeatureKind, FeatureSchema, Frame};
use tidemill_core::ports::{Model, ModelBundle, ModelRuntime};
use tidemill_models::Runtime;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|it| !it.starts_with("--"))
        .collect();
    let [folder, seconds] = arguments.as_slice() else {
        println!("usage: trees FOLDER SECONDS (made by benches/trees.py)");
        return;
    };
    let (folder, seconds): (&Path, f64) = (folder.as_ref(), seconds.parse().unwrap());
    let model = Runtime.load(&bundle(folder)).unwrap();
    let rows = rows(&model, &numbers(&folder.join("rows.f64")));
    let expected = numbers(&folder.join("expected.f64"));
    let answers = model.predict(&rows).unwrap();
    let wrong = answers
        .values()
        .iter()
        .zip(&expected)
        .filter(|(a, b)| a != b)
        .count();
    assert_eq!(wrong, 0, "of {} answers", expected.len());

    let indices: Vec<usize> = (0..rows.rows()).collect();
    let singles: Vec<Frame> = indices.iter().map(|&row| rows.take(&[row])).collect();
    for (single, answer) in singles.iter().zip(answers.values()) {
        assert_eq!(model.predict(single).unwrap().values(), [*answer]);
    }
    // One row: another one each time, so that no branch is learnt by heart.
    let one = best(seconds, || {
        for single in &singles {
            std::hint::black_box(model.predict(single).unwrap());
        }
    }) / singles.len() as f64;
    let all = best(seconds, || {
        std::hint::black_box(model.predict(&rows).unwrap());
    });
    println!("{{\"1\": {one}, \"{}\": {all}}}", rows.rows());
}

/// The shortest time of a call, over so many seconds.
fn best(seconds: f64, call: impl Fn()) -> f64 {
    let whole = Stopwatch::start();
    let mut shortest = f64::INFINITY;
    while whole.elapsed().as_secs_f64() < seconds {
        let watch = Stopwatch::start();
        call();
        shortest = shortest.min(watch.elapsed().as_secs_f64());
    }
    shortest
}

fn bundle(folder: &Path) -> ModelBundle {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    files
        .filter(|entry| entry.path().extension().is_none_or(|it| it != "f64"))
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect()
}

fn numbers(path: &Path) -> Vec<f64> {
    let bytes = std::fs::read(path).unwrap();
    bytes
        .chunks_exact(8)
        .map(|chunk| f64::from_ne_bytes(chunk.try_into().unwrap()))
        .collect()
}

fn rows(model: &Arc<dyn Model>, numbers: &[f64]) -> Frame {
    let names = &model.signature().features.features;
    let columns = (0..names.len()).map(|column| {
        let cells = numbers.iter().skip(column).step_by(names.len());
        Column::Numeric(cells.copied().collect())
    });
    let features = names.iter().map(|feature| Feature {
        name: feature.name.clone(),
        kind: FeatureKind::Numeric,
    });
    let schema = FeatureSchema {
        features: features.collect(),
    };
    Frame::new(Arc::new(schema), columns.collect()).unwrap()
}
