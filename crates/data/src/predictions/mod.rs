//! Prediction batches as Parquet files.
//!
//! One row per prediction; what is said of a whole request (endpoint, time, request id, …) is repeated in each of its rows, where Parquet's
//! dictionaries make it nearly free, so that any reader of Parquet can work with the log. `batch` numbers the requests of the file.
//! A request without rows stands as one row whose `prediction_id` is null.

mod calls;
mod decode;
mod delta;
mod encode;

use serde::{Deserialize, Serialize};
use tidemill_core::frame::{FeatureSchema, Scores, Task};

use decode::decode;
use encode::Writer;
#[cfg(test)]
use encode::encode;
use tidemill_core::calls::CallRecord;
use tidemill_core::ports::{BatchWriter, CallColumn, CallWriter, PortError, PredictionCodec};
use tidemill_core::predictions::{BatchShape, PredictionBatch};

/// [`PredictionCodec`] on Parquet.
#[derive(Debug, Clone, Copy, Default)]
pub struct PredictionFiles;

impl PredictionCodec for PredictionFiles {
    fn batches(&self, shape: BatchShape) -> Box<dyn BatchWriter> {
        Box::new(Writer::new(shape))
    }

    fn decode_batches(&self, parquet: &[u8]) -> Result<Vec<PredictionBatch>, PortError> {
        Ok(decode(parquet)?)
    }

    fn calls(&self, columns: Vec<CallColumn>) -> Box<dyn CallWriter> {
        Box::new(calls::Writer::new(columns))
    }

    fn decode_calls(&self, parquet: &[u8]) -> Result<Vec<CallRecord>, PortError> {
        Ok(calls::decode(parquet)?)
    }

    fn delta_columns(&self, parquet: &[u8]) -> Result<(u64, Vec<(String, serde_json::Value)>), PortError> {
        Ok(delta::columns(parquet)?)
    }
}

impl CallWriter for calls::Writer {
    fn push(&mut self, calls: &[CallRecord]) -> Result<(), PortError> {
        Ok(Self::push(self, calls)?)
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, PortError> {
        Ok(Self::finish(*self)?)
    }
}

impl BatchWriter for Writer {
    fn push(&mut self, batches: &[PredictionBatch]) -> Result<(), PortError> {
        Ok(Self::push(self, batches)?)
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, PortError> {
        Ok(Self::finish(*self)?)
    }
}

/// The key under which a file's description stands in the Parquet metadata.
const METADATA_KEY: &str = "tidemill.predictions";

/// What a file says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Description {
    schema: FeatureSchema,
    /// The kinds of answers in the file; `layout` and `shadow_layouts` point here.
    layouts: Vec<Layout>,
}

/// How to read a row of scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Layout {
    task: Task,
    classes: Vec<String>,
}

impl Layout {
    /// Whether scores are to be read so.
    fn is_of(&self, scores: &Scores) -> bool {
        let classes: &[String] = match scores {
            Scores::Multiclass { classes, .. } => classes,
            Scores::Binary(_) | Scores::Regression(_) => &[],
        };
        self.task == scores.task() && self.classes == classes
    }

    fn of(scores: &Scores) -> Self {
        Self {
            task: scores.task(),
            classes: match scores {
                Scores::Multiclass { classes, .. } => classes.to_vec(),
                Scores::Binary(_) | Scores::Regression(_) => Vec::new(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use tidemill_core::clock::Timestamp;
    use tidemill_core::frame::{Column, Feature, FeatureKind, FeatureSchema, Frame, Scores};
    use tidemill_core::ids::{PredictionId, VersionNumber};
    use tidemill_core::predictions::{Role, ShadowScores};

    use super::*;

    fn schema() -> Arc<FeatureSchema> {
        Arc::new(FeatureSchema {
            features: vec![
                Feature {
                    name: "x".into(),
                    kind: FeatureKind::Numeric,
                },
                Feature {
                    name: "batch".into(),
                    kind: FeatureKind::Categorical,
                },
            ],
        })
    }

    fn scores(rows: usize) -> BoxedStrategy<Scores> {
        let number = -1e9..1e9f64;
        prop_oneof![
            prop::collection::vec(number.clone(), rows).prop_map(Scores::Binary),
            prop::collection::vec(number.clone(), rows).prop_map(Scores::Regression),
            prop::collection::vec(number, rows * 3).prop_map(|probabilities| Scores::Multiclass {
                classes: Arc::from(vec!["a".to_owned(), "b".to_owned(), "c".to_owned()]),
                probabilities,
            }),
        ]
        .boxed()
    }

    fn text() -> BoxedStrategy<Option<Arc<str>>> {
        prop_oneof![Just(None), "[a-zé]{0,3}".prop_map(|t| Some(Arc::from(t)))].boxed()
    }

    fn batch() -> BoxedStrategy<PredictionBatch> {
        (0usize..5)
            .prop_flat_map(|rows| {
                let role = prop_oneof![
                    Just(Role::Champion),
                    Just(Role::Canary),
                    Just(Role::Previous),
                    Just(Role::Default),
                    Just(Role::Fallback),
                    Just(Role::Abstained)
                ];
                let features = (
                    prop::collection::vec(-1e6..1e6f64, rows),
                    prop::collection::vec(text(), rows),
                );
                let per_row = (
                    prop::collection::vec("[0-9a-f]{4}", rows),
                    prop::collection::vec(text(), rows),
                    prop::collection::vec(0u32..9, rows),
                    prop::collection::vec(role, rows),
                    prop::collection::vec(text(), rows),
                );
                let shadows = prop::collection::vec((0u32..9, scores(rows)), 0..3);
                (
                    per_row,
                    features,
                    scores(rows),
                    shadows,
                    any::<i32>(),
                    "[a-z]{0,4}",
                    0.0..1.0f64,
                    any::<u64>(),
                )
            })
            .prop_map(
                |(per_row, (x, c), scores, shadows, at, request_id, share, latency_us)| PredictionBatch {
                    endpoint: "flights".into(),
                    at: Timestamp::from_micros(i64::from(at) * 1_000_003),
                    request_id,
                    ids: per_row.0.into_iter().map(PredictionId::new).collect(),
                    keys: per_row.1,
                    versions: per_row.2.into_iter().map(VersionNumber).collect(),
                    roles: per_row.3,
                    canary_share: share,
                    degraded: per_row.4,
                    scores,
                    shadows: shadows
                        .into_iter()
                        .map(|(version, scores)| ShadowScores {
                            version: VersionNumber(version),
                            scores,
                        })
                        .collect(),
                    features: Frame::new(schema(), vec![Column::Numeric(x), Column::Categorical(c)]).unwrap(),
                    latency_us,
                },
            )
            .boxed()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn batches_come_back_request_by_request(batches in prop::collection::vec(batch(), 0..6)) {
            let bytes = encode(&batches).unwrap();
            prop_assert_eq!(decode(&bytes).unwrap(), batches.clone());
            // In parts, as compaction writes them.
            let mut writer = Writer::new(BatchShape::of(&batches));
            for part in batches.chunks(2) {
                writer.push(part).unwrap();
            }
            prop_assert_eq!(decode(&writer.finish().unwrap()).unwrap(), batches);
        }
    }

    fn one(rows: usize) -> PredictionBatch {
        PredictionBatch {
            endpoint: "e".into(),
            at: Timestamp::from_micros(7),
            request_id: "r".into(),
            ids: (0..rows).map(|i| PredictionId::new(i.to_string())).collect(),
            keys: vec![None; rows],
            versions: vec![VersionNumber(1); rows],
            roles: vec![Role::Champion; rows],
            canary_share: 0.0,
            degraded: vec![None; rows],
            scores: Scores::Binary(vec![0.5; rows]),
            shadows: vec![],
            features: Frame::new(
                schema(),
                vec![
                    Column::Numeric(vec![f64::NAN; rows]),
                    Column::Categorical(vec![None; rows]),
                ],
            )
            .unwrap(),
            latency_us: 3,
        }
    }

    #[test]
    fn missing_numbers_stay_missing() {
        let back = decode(&encode(&[one(2)]).unwrap()).unwrap();
        let Column::Numeric(values) = &back[0].features.columns()[0] else {
            panic!("wrong kind");
        };
        assert!(values.iter().all(|v| v.is_nan()));
    }

    #[test]
    fn unlike_batches_and_foreign_files_are_refused_with_words() {
        let mut other = one(1);
        other.features = Frame::empty(Arc::new(FeatureSchema::default()));
        let error = encode(&[one(1), other]).unwrap_err().to_string();
        assert!(error.contains("request `r`"), "{error}");
        let error = decode(b"no parquet").unwrap_err().to_string();
        assert!(error.contains("no prediction log"), "{error}");
    }

    #[test]
    fn a_day_of_predictions_decodes_quickly() {
        let batches: Vec<PredictionBatch> = (0..130).map(|_| one(100)).collect();
        let bytes = encode(&batches).unwrap();
        let watch = tidemill_core::clock::Stopwatch::start();
        assert_eq!(decode(&bytes).unwrap().len(), 130);
        println!("decoded 13,000 rows in {:?}", watch.elapsed());
    }
}
