//! Fakes and samples for this crate's tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tidemill_core::clock::Timestamp;
use tidemill_core::frame::{Column, Feature, FeatureKind, FeatureSchema, Frame, Scores, Task};
use tidemill_core::ids::{PredictionId, VersionNumber};
use tidemill_core::ports::{Model, ModelSignature, PortError};
use tidemill_core::predictions::{PredictionBatch, Role, ShadowScores};

use crate::routing::{Deployment, Route};

pub(crate) fn schema() -> Arc<FeatureSchema> {
    let feature = |name: &str, kind| Feature {
        name: name.to_owned(),
        kind,
    };
    let features = vec![
        feature("x", FeatureKind::Numeric),
        feature("c", FeatureKind::Categorical),
    ];
    Arc::new(FeatureSchema { features })
}

pub(crate) fn frame(rows: usize) -> Frame {
    let numbers = (0..rows).map(|row| row as f64).collect();
    let texts = (0..rows)
        .map(|row| (row % 3 != 0).then(|| Arc::from(format!("c{row}"))))
        .collect();
    Frame::new(
        schema(),
        vec![Column::Numeric(numbers), Column::Categorical(texts)],
    )
    .unwrap()
}

/// Answers every row with one number, fails or panics on demand, and counts its calls.
#[derive(Debug)]
pub(crate) struct FakeModel {
    signature: ModelSignature,
    pub score: f64,
    pub fails: AtomicBool,
    pub panics: AtomicBool,
    pub calls: AtomicUsize,
    pub called_rows: AtomicUsize,
}

impl Model for FakeModel {
    fn signature(&self) -> &ModelSignature {
        &self.signature
    }

    fn predict(&self, rows: &Frame) -> Result<Scores, PortError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.called_rows.fetch_add(rows.rows(), Ordering::SeqCst);
        assert!(!self.panics.load(Ordering::SeqCst), "a model that panics");
        if self.fails.load(Ordering::SeqCst) {
            return Err(PortError::internal("fake", "no luck"));
        }
        Ok(Scores::Binary(vec![self.score; rows.rows()]))
    }

    fn knows(&self, feature: usize, value: &str) -> Option<bool> {
        (feature == 1).then(|| value.starts_with('c'))
    }
}

pub(crate) fn model(score: f64) -> Arc<FakeModel> {
    let signature = ModelSignature {
        features: schema(),
        task: Task::Binary,
        classes: Arc::from(Vec::new()),
    };
    Arc::new(FakeModel {
        signature,
        score,
        fails: AtomicBool::new(false),
        panics: AtomicBool::new(false),
        calls: AtomicUsize::new(0),
        called_rows: AtomicUsize::new(0),
    })
}

/// Version `version` answers `version / 10`.
pub(crate) fn deployment(version: u32) -> (Arc<FakeModel>, Arc<Deployment>) {
    let model = model(f64::from(version) / 10.0);
    let shared: Arc<dyn Model> = Arc::<FakeModel>::clone(&model);
    (model, Deployment::new(VersionNumber(version), shared))
}

pub(crate) fn route() -> Route {
    Route::new(
        "flights".into(),
        "flights".into(),
        schema(),
        Task::Binary,
        Arc::from(Vec::new()),
    )
}

/// A batch with everything in it, different for each seed.
pub(crate) fn any_batch(seed: u64, rows: usize) -> PredictionBatch {
    let at = Timestamp::from_micros((seed % (1 << 50)) as i64);
    let number = |row: usize| f64::from_bits(seed.rotate_left(row as u32) ^ row as u64);
    let note = |row: usize| (row % 4 == 1).then(|| Arc::from("canary failed: no luck"));
    let classes: Arc<[String]> = Arc::from(vec!["a".to_owned(), "b".to_owned()]);
    let scores = Scores::Multiclass {
        classes,
        probabilities: (0..rows * 2).map(number).collect(),
    };
    let roles = [
        Role::Champion,
        Role::Canary,
        Role::Previous,
        Role::Default,
        Role::Fallback,
        Role::Abstained,
    ];
    PredictionBatch {
        endpoint: "flights".into(),
        at,
        request_id: format!("request-{seed}"),
        ids: (0..rows)
            .map(|row| PredictionId::new(format!("{seed:016x}{row:016x}")))
            .collect(),
        keys: (0..rows)
            .map(|row| (row % 2 == 0).then(|| Arc::from(format!("key-{row}"))))
            .collect(),
        versions: (0..rows).map(|row| VersionNumber(row as u32)).collect(),
        roles: (0..rows).map(|row| roles[row % roles.len()]).collect(),
        canary_share: 0.25,
        degraded: (0..rows).map(note).collect(),
        shadows: vec![ShadowScores {
            version: VersionNumber(7),
            scores: scores.clone(),
        }],
        scores,
        features: frame(rows),
        latency_us: seed,
    }
}
