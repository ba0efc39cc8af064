//! From a bundle to a model that answers.

use std::sync::Arc;

use rayon::prelude::*;
use tidemill_core::frame::{Column, Frame, Scores, Task};
use tidemill_core::ports::{Model, ModelBundle, ModelRuntime, ModelSignature, PortError};

use crate::encode::{Coding, RowEncoder, columns_for};
use crate::error::{Broken, BundleError};
use crate::lightgbm::{self, LightGbm};
use crate::manifest::{self, Manifest};
use crate::perpetual;
use crate::trainer::CODING;
use crate::trees::{Block, Ensemble, Workspace};

/// The values of `format` in `model.json` that [`Runtime`] loads.
pub const SUPPORTED_FORMATS: [&str; 2] = ["perpetual", "lightgbm"];

/// Rows that one thread encodes and answers at a time: small enough to stay in the cache.
const BLOCK: usize = 64;

/// Batches of up to this many rows are answered on the calling thread; handing out work would cost more than it saves.
const PARALLEL_FROM: usize = 512;

/// Loads bundles of every supported format.
#[derive(Debug, Clone, Copy, Default)]
pub struct Runtime;

impl ModelRuntime for Runtime {
    fn load(&self, bundle: &ModelBundle) -> Result<Arc<dyn Model>, PortError> {
        let model = load(bundle)?;
        tracing::debug!(
            trees = model.ensemble.trees(),
            features = model.signature.features.features.len(),
            task = ?model.signature.task,
            "model loaded"
        );
        Ok(Arc::new(model))
    }
}

fn load(bundle: &ModelBundle) -> Result<TreeModel, BundleError> {
    let manifest = Manifest::read(bundle)?;
    let bytes = manifest::file(bundle, &manifest.file)?;
    if manifest.format == "lightgbm" {
        load_lightgbm(&manifest, bytes)
    } else {
        load_perpetual(&manifest, bytes)
    }
}

fn load_lightgbm(manifest: &Manifest, bytes: &[u8]) -> Result<TreeModel, BundleError> {
    let broken = |broken: Broken| BundleError::Broken {
        file: manifest.file.clone(),
        broken,
    };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].split(|&byte| byte == b'\n').count();
        broken(Broken::new(
            line,
            "the file is not text",
            "LightGBM's text format, as `Booster.save_model` writes it",
        ))
    })?;
    let model = lightgbm::parse(text).map_err(broken)?;
    check_lightgbm_features(manifest, &model)?;
    let task = match (manifest.task, model.task) {
        (Some(said), Some(read)) if said != read => {
            return Err(mismatch(
                manifest,
                format!(
                    "its objective answers {read:?}, `task` says {said:?}; drop `task` or train with another objective"
                ),
            ));
        }
        (_, Some(read)) => read,
        (Some(Task::Regression), None) => Task::Regression,
        (said, None) => {
            let said = said.map_or_else(|| "missing".to_owned(), |task| format!("{task:?}"));
            return Err(mismatch(
                manifest,
                format!(
                    "it has no objective of LightGBM's own, so its raw sums can only answer `\"task\": \"regression\"`, and \
                     `task` is {said}; save the model with a built-in objective"
                ),
            ));
        }
    };
    let coding = Coding {
        first_code: 0,
        tiny_is_zero: true,
    };
    TreeModel::assemble(manifest, task, model.ensemble, coding)
}

fn check_lightgbm_features(manifest: &Manifest, model: &LightGbm) -> Result<(), BundleError> {
    if manifest.features.len() != model.features {
        return Err(mismatch(
            manifest,
            format!(
                "it reads {} features, `features` lists {}; list them all, in the order of training",
                model.features,
                manifest.features.len()
            ),
        ));
    }
    // Names of its own (`Column_0`, or with blanks replaced) say nothing; the same names in another order are a mistake.
    let listed: Vec<&str> = manifest
        .features
        .iter()
        .map(|feature| feature.name.as_str())
        .collect();
    let read: Vec<&str> = model.feature_names.iter().map(String::as_str).collect();
    let sorted = |names: &[&str]| {
        let mut names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        names.sort_unstable();
        names
    };
    if listed != read && sorted(&listed) == sorted(&read) {
        return Err(mismatch(
            manifest,
            format!(
                "it reads its features in the order {}; list `features` in that order",
                read.join(", ")
            ),
        ));
    }
    Ok(())
}

fn load_perpetual(manifest: &Manifest, bytes: &[u8]) -> Result<TreeModel, BundleError> {
    let task = manifest.task.ok_or_else(|| {
        BundleError::Contradiction(
            "`task` is missing; expected `binary`, `multiclass` or `regression`".into(),
        )
    })?;
    let ensemble =
        perpetual::from_json(bytes, task, manifest.features.len()).map_err(|broken| BundleError::Broken {
            file: manifest.file.clone(),
            broken,
        })?;
    TreeModel::assemble(manifest, task, ensemble, CODING)
}

fn mismatch(manifest: &Manifest, reason: String) -> BundleError {
    BundleError::Mismatch {
        file: manifest.file.clone(),
        reason,
    }
}

/// A tree ensemble with what it needs and gives.
#[derive(Debug)]
struct TreeModel {
    signature: ModelSignature,
    encoder: RowEncoder,
    ensemble: Ensemble,
}

impl TreeModel {
    fn assemble(
        manifest: &Manifest,
        task: Task,
        ensemble: Ensemble,
        coding: Coding,
    ) -> Result<Self, BundleError> {
        let outputs = ensemble.outputs();
        let wanted_outputs = if task == Task::Multiclass {
            manifest.classes.len()
        } else {
            1
        };
        let unnamed = task == Task::Multiclass && manifest.classes.is_empty();
        if !unnamed && outputs != wanted_outputs {
            return Err(mismatch(
                manifest,
                format!(
                    "it gives {outputs} numbers a row, `model.json` wants {wanted_outputs}; list one class a number"
                ),
            ));
        }
        if outputs == 0 {
            return Err(mismatch(manifest, "it gives no number".into()));
        }
        if task == Task::Binary && !matches!(manifest.classes.len(), 0 | 2) {
            return Err(BundleError::Contradiction(format!(
                "`classes` of a binary model has {} names; expected none or two, the negative one first",
                manifest.classes.len()
            )));
        }
        let classes: Arc<[String]> = match task {
            Task::Multiclass if unnamed => (0..outputs).map(|class| class.to_string()).collect(),
            Task::Multiclass => manifest.classes.as_slice().into(),
            Task::Binary | Task::Regression => Arc::default(),
        };
        Ok(Self {
            signature: ModelSignature {
                features: Arc::new(manifest.schema()),
                task,
                classes,
            },
            encoder: RowEncoder::new(&manifest.features, coding),
            ensemble,
        })
    }

    fn answer_block(&self, columns: &[&Column], first: usize, work: &mut BlockWork, out: &mut [f64]) {
        let rows = out.len() / self.ensemble.outputs();
        work.cells.resize(rows * self.encoder.width(), 0.0);
        self.encoder.encode(columns, first, rows, &mut work.cells);
        let block = Block {
            cells: &work.cells,
            stride: rows,
            rows,
        };
        self.ensemble.predict(block, &mut work.trees, out);
    }

    fn answers(&self, columns: &[&Column], rows: usize) -> Vec<f64> {
        let outputs = self.ensemble.outputs();
        let mut out = vec![0.0; rows * outputs];
        if rows > PARALLEL_FROM {
            out.par_chunks_mut(BLOCK * outputs).enumerate().for_each_init(
                BlockWork::default,
                |work, (block, out)| {
                    self.answer_block(columns, block * BLOCK, work, out);
                },
            );
        } else {
            let mut work = BlockWork::default();
            for (block, out) in out.chunks_mut(BLOCK * outputs).enumerate() {
                self.answer_block(columns, block * BLOCK, &mut work, out);
            }
        }
        out
    }
}

/// What a thread needs to answer blocks.
#[derive(Debug, Default)]
struct BlockWork {
    cells: Vec<f64>,
    trees: Workspace,
}

impl Model for TreeModel {
    fn signature(&self) -> &ModelSignature {
        &self.signature
    }

    fn predict(&self, rows: &Frame) -> Result<Scores, PortError> {
        let columns = columns_for(&self.signature.features, rows)?;
        let values = self.answers(&columns, rows.rows());
        if let Some(position) = values.iter().position(|value| !value.is_finite()) {
            return Err(PortError::internal(
                "model_non_finite",
                format!(
                    "the model answered `{}` for row {}; look at that row for extreme numbers, and roll back if they are normal",
                    values[position],
                    position / self.ensemble.outputs()
                ),
            ));
        }
        Ok(match self.signature.task {
            Task::Binary => Scores::Binary(values),
            Task::Regression => Scores::Regression(values),
            Task::Multiclass => Scores::Multiclass {
                classes: Arc::clone(&self.signature.classes),
                probabilities: values,
            },
        })
    }
}
