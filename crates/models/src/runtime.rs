//! From a bundle to a model that answers.

use std::sync::Arc;

use tidemill_core::frame::{FeatureKind, Task};
use tidemill_core::ports::{Model, ModelBundle, ModelRuntime, PortError};

use crate::encode::{Coding, Rounding, RowEncoder};
use crate::error::{Broken, BundleError};
use crate::lightgbm::{self, LightGbm};
use crate::manifest::{self, Manifest, ManifestFeature};
use crate::onnx;
use crate::perpetual;
use crate::sklearn;
use crate::trainer::CODING;
use crate::tree_model::{Parts, TreeModel};
use crate::xgboost;

/// The values of `format` in `model.json` that [`Runtime`] loads.
pub const SUPPORTED_FORMATS: [&str; 5] = ["perpetual", "lightgbm", "xgboost", "sklearn_trees", "onnx"];

/// Loads bundles of every supported format.
#[derive(Debug, Clone, Copy, Default)]
pub struct Runtime;

impl ModelRuntime for Runtime {
    fn load(&self, bundle: &ModelBundle) -> Result<Arc<dyn Model>, PortError> {
        let manifest = Manifest::read(bundle)?;
        if manifest.format == "onnx" {
            return onnx::load_table(&manifest, bundle);
        }
        let model = load_trees(&manifest, bundle)?;
        tracing::debug!(
            trees = model.trees(),
            features = model.signature().features.features.len(),
            task = ?model.signature().task,
            "model loaded"
        );
        Ok(Arc::new(model))
    }
}

/// Loads a bundle of one of the tree formats.
fn load_trees(manifest: &Manifest, bundle: &ModelBundle) -> Result<TreeModel, BundleError> {
    let bytes = manifest::file(bundle, &manifest.file)?;
    match manifest.format.as_str() {
        "lightgbm" => load_lightgbm(manifest, bytes),
        "xgboost" => load_xgboost(manifest, bytes),
        "sklearn_trees" => load_sklearn(manifest, bytes),
        _ => load_perpetual(manifest, bytes),
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
    let mut model = lightgbm::parse(text).map_err(broken)?;
    let features = manifest.features_or(|| {
        let names = std::mem::take(&mut model.feature_names);
        let categories = model.categories.drain(..).chain(std::iter::repeat_with(Vec::new));
        names
            .into_iter()
            .zip(categories)
            .map(|(name, levels)| feature(name, levels))
            .collect()
    })?;
    check_features(manifest, &features, model.features, &model.feature_names)?;
    let task = lightgbm_task(manifest, &model)?;
    TreeModel::assemble(Parts {
        file: manifest.file.clone(),
        task,
        classes: manifest.classes.clone(),
        encoder: RowEncoder::new(
            &features,
            Coding {
                first_code: 0,
                rounding: Rounding::TinyIsZero,
                most_levels: None,
            },
        ),
        features,
        ensemble: model.ensemble,
    })
}

fn lightgbm_task(manifest: &Manifest, model: &LightGbm) -> Result<Task, BundleError> {
    match (manifest.task, model.task) {
        (Some(said), Some(read)) if said != read => Err(task_differs(manifest, read, said)),
        (_, Some(read)) => Ok(read),
        (Some(Task::Regression), None) => Ok(Task::Regression),
        (said, None) => {
            let said = said.map_or_else(|| "missing".to_owned(), |task| format!("{task:?}"));
            Err(mismatch(
                manifest,
                format!(
                    "it has no objective of LightGBM's own, so its raw sums can only answer `\"task\": \"regression\"`, and \
                     `task` is {said}; save the model with a built-in objective"
                ),
            ))
        }
    }
}

/// An input as a model file describes it.
fn feature(name: String, categories: Vec<String>) -> ManifestFeature {
    let kind = if categories.is_empty() {
        FeatureKind::Numeric
    } else {
        FeatureKind::Categorical
    };
    ManifestFeature {
        name,
        kind,
        categories,
    }
}

fn task_differs(manifest: &Manifest, read: Task, said: Task) -> BundleError {
    mismatch(
        manifest,
        format!(
            "its objective answers {read:?}, `task` says {said:?}; drop `task` or train with another objective"
        ),
    )
}

/// Whether the listed inputs are those that the file reads. Names of its own (`Column_0`, or with blanks replaced) say nothing;
/// the same names in another order are a mistake.
fn check_features(
    manifest: &Manifest,
    features: &[ManifestFeature],
    count: usize,
    names: &[String],
) -> Result<(), BundleError> {
    if features.len() != count {
        return Err(mismatch(
            manifest,
            format!(
                "it reads {count} features, `features` lists {}; list them all, in the order of training",
                features.len()
            ),
        ));
    }
    let listed: Vec<&str> = features.iter().map(|feature| feature.name.as_str()).collect();
    let read: Vec<&str> = names.iter().map(String::as_str).collect();
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

fn load_xgboost(manifest: &Manifest, bytes: &[u8]) -> Result<TreeModel, BundleError> {
    let model = xgboost::parse(bytes, manifest.task).map_err(|broken| BundleError::Broken {
        file: manifest.file.clone(),
        broken,
    })?;
    if let Some(said) = manifest.task
        && said != model.task
    {
        return Err(task_differs(manifest, model.task, said));
    }
    let features = manifest.features_or(|| {
        let named = model.feature_names.len() == model.features;
        let categories = model.categories.iter().cloned().enumerate();
        categories
            .map(|(position, levels)| {
                let name = if named {
                    model.feature_names[position].clone()
                } else {
                    format!("f{position}")
                };
                feature(name, levels)
            })
            .collect()
    })?;
    check_features(manifest, &features, model.features, &model.feature_names)?;
    TreeModel::assemble(Parts {
        file: manifest.file.clone(),
        task: model.task,
        classes: manifest.classes.clone(),
        encoder: RowEncoder::new(
            &features,
            Coding {
                first_code: 0,
                rounding: Rounding::F32,
                most_levels: None,
            },
        ),
        features,
        ensemble: model.ensemble,
    })
}

/// The file says it all; a manifest may name classes and inputs otherwise, if it names as many.
fn load_sklearn(manifest: &Manifest, bytes: &[u8]) -> Result<TreeModel, BundleError> {
    let model = sklearn::parse(bytes).map_err(|broken| BundleError::Broken {
        file: manifest.file.clone(),
        broken,
    })?;
    if let Some(said) = manifest.task
        && said != model.task
    {
        return Err(task_differs(manifest, model.task, said));
    }
    let kinds: Vec<FeatureKind> = model.features.iter().map(|feature| feature.kind).collect();
    let names: Vec<String> = model
        .features
        .iter()
        .map(|feature| feature.name.clone())
        .collect();
    let features = manifest.features_or(|| model.features)?;
    check_features(manifest, &features, names.len(), &names)?;
    if let Some((feature, _)) = features
        .iter()
        .zip(&kinds)
        .find(|(feature, kind)| feature.kind != **kind)
    {
        let name = &feature.name;
        return Err(mismatch(
            manifest,
            format!("it was trained with another kind of feature `{name}`; leave `features` out"),
        ));
    }
    TreeModel::assemble(Parts {
        file: manifest.file.clone(),
        task: model.task,
        classes: if manifest.classes.is_empty() {
            model.classes
        } else {
            manifest.classes.clone()
        },
        encoder: RowEncoder::of(model.inputs, model.rounding),
        features,
        ensemble: model.ensemble,
    })
}

fn load_perpetual(manifest: &Manifest, bytes: &[u8]) -> Result<TreeModel, BundleError> {
    let task = manifest.task.ok_or_else(|| {
        BundleError::Contradiction(
            "`task` is missing; expected `binary`, `multiclass` or `regression`".into(),
        )
    })?;
    let features = manifest.features_or(Vec::new)?;
    let ensemble =
        perpetual::from_json(bytes, task, features.len()).map_err(|broken| BundleError::Broken {
            file: manifest.file.clone(),
            broken,
        })?;
    TreeModel::assemble(Parts {
        file: manifest.file.clone(),
        task,
        classes: manifest.classes.clone(),
        encoder: RowEncoder::new(&features, CODING),
        features,
        ensemble,
    })
}

fn mismatch(manifest: &Manifest, reason: impl Into<String>) -> BundleError {
    BundleError::Mismatch {
        file: manifest.file.clone(),
        reason: reason.into(),
    }
}
