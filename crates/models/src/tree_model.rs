//! A tree ensemble as a model of a table's rows.

use std::sync::Arc;

use rayon::prelude::*;
use tidemill_core::frame::{Column, Frame, Scores, Task};
use tidemill_core::ports::{Contributions, Model, ModelSignature, PortError};

use crate::encode::{RowEncoder, columns_for};
use crate::error::BundleError;
use crate::manifest::{self, ManifestFeature};
use crate::trees::{Block, Ensemble, NoShap, Workspace};

/// Rows that one thread encodes and answers at a time: small enough to stay in the cache.
const BLOCK: usize = 64;

/// Batches of up to this many rows are answered on the calling thread; handing out work would cost more than it saves.
const PARALLEL_FROM: usize = 512;

/// What a model is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The model file's name.
    pub file: String,
    /// The question.
    pub task: Task,
    /// The classes, in the order of the outputs; empty if they have no names.
    pub classes: Vec<String>,
    /// The inputs, in the order of the encoder's columns.
    pub features: Vec<ManifestFeature>,
    /// How these become numbers.
    pub encoder: RowEncoder,
    /// The trees.
    pub ensemble: Ensemble,
}

/// A tree ensemble with what it needs and gives.
#[derive(Debug)]
pub(crate) struct TreeModel {
    signature: ModelSignature,
    encoder: RowEncoder,
    ensemble: Ensemble,
}

impl TreeModel {
    /// Puts a model together, if its parts fit.
    pub fn assemble(parts: Parts) -> Result<Self, BundleError> {
        let Parts {
            file,
            task,
            classes,
            features,
            encoder,
            ensemble,
        } = parts;
        let mismatch = |reason: String| BundleError::Mismatch {
            file: file.clone(),
            reason,
        };
        let outputs = ensemble.outputs();
        let unnamed = task == Task::Multiclass && classes.is_empty();
        let wanted_outputs = if task == Task::Multiclass {
            classes.len()
        } else {
            1
        };
        if !unnamed && outputs != wanted_outputs {
            return Err(mismatch(format!(
                "it gives {outputs} numbers a row, `model.json` wants {wanted_outputs}; list one class a number"
            )));
        }
        if outputs == 0 {
            return Err(mismatch("it gives no number".into()));
        }
        if task == Task::Binary && !matches!(classes.len(), 0 | 2) {
            return Err(BundleError::Contradiction(format!(
                "`classes` of a binary model has {} names; expected none or two, the negative one first",
                classes.len()
            )));
        }
        let classes: Arc<[String]> = match task {
            Task::Multiclass if unnamed => (0..outputs).map(|class| class.to_string()).collect(),
            Task::Multiclass => classes.into(),
            Task::Binary | Task::Regression => Arc::default(),
        };
        Ok(Self {
            signature: ModelSignature {
                features: Arc::new(manifest::schema(&features)),
                task,
                classes,
            },
            encoder,
            ensemble,
        })
    }

    /// How many trees.
    pub fn trees(&self) -> usize {
        self.ensemble.trees()
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
        scores(&self.signature, values)
    }

    fn knows(&self, feature: usize, value: &str) -> Option<bool> {
        self.encoder.knows(feature, value)
    }

    fn contributions(&self, rows: &Frame) -> Result<Option<Contributions>, PortError> {
        let columns = columns_for(&self.signature.features, rows)?;
        match self.explain(&columns, rows.rows()) {
            Ok(contributions) => Ok(Some(contributions)),
            Err(why @ (NoShap::NoCover | NoShap::TooDeep(_))) => {
                tracing::debug!(%why, "trees cannot tell what contributed");
                Ok(None)
            }
        }
    }
}

impl TreeModel {
    /// Several numbers may come from one column, whose contribution is their sum.
    fn explain(&self, columns: &[&Column], rows: usize) -> Result<Contributions, NoShap> {
        let outputs = self.ensemble.outputs();
        let inputs = self.encoder.width();
        let features = self.signature.features.features.len();
        let mut cells = vec![0.0; rows * inputs];
        self.encoder.encode(columns, 0, rows, &mut cells);
        let block = Block {
            cells: &cells,
            stride: rows,
            rows,
        };
        let mut values = vec![0.0; rows * outputs * (features + 1)];
        let explained = values.par_chunks_mut(outputs * (features + 1)).enumerate();
        explained.try_for_each(|(row, values)| {
            let mut all = vec![0.0; self.ensemble.contributions_width()];
            self.ensemble.contributions(block, row, &mut all)?;
            for (of_input, of_feature) in all
                .chunks_exact(inputs + 1)
                .zip(values.chunks_exact_mut(features + 1))
            {
                for (input, contribution) in of_input[..inputs].iter().enumerate() {
                    of_feature[self.encoder.column(input)] += contribution;
                }
                of_feature[features] = of_input[inputs];
            }
            Ok(())
        })?;
        Ok(Contributions { outputs, values })
    }
}

/// The numbers of an answer, which must be finite, as what they mean.
pub(crate) fn scores(signature: &ModelSignature, values: Vec<f64>) -> Result<Scores, PortError> {
    if let Some(position) = values.iter().position(|value| !value.is_finite()) {
        let width = signature.classes.len().max(1);
        return Err(PortError::internal(
            "model_non_finite",
            format!(
                "the model answered `{}` for row {}; look at that row for extreme numbers, and roll back if they are normal",
                values[position],
                position / width
            ),
        ));
    }
    Ok(match signature.task {
        Task::Binary => Scores::Binary(values),
        Task::Regression => Scores::Regression(values),
        Task::Multiclass => Scores::Multiclass {
            classes: Arc::clone(&signature.classes),
            probabilities: values,
        },
    })
}
