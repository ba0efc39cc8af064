//! Frames and bundles for the tests of this crate.
#![allow(dead_code)] // each test binary uses its part

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use tidemill_core::frame::{Column, Feature, FeatureKind, FeatureSchema, Frame};
use tidemill_core::ports::ModelBundle;

/// A frame from named columns.
pub fn frame(columns: Vec<(&str, Column)>) -> Frame {
    let (features, columns) = columns
        .into_iter()
        .map(|(name, column)| {
            let feature = Feature {
                name: name.to_owned(),
                kind: column.kind(),
            };
            (feature, column)
        })
        .unzip();
    Frame::new(Arc::new(FeatureSchema { features }), columns).unwrap()
}

/// Texts, `None` where empty.
pub fn texts(values: &[&str]) -> Column {
    Column::Categorical(
        values
            .iter()
            .map(|value| (!value.is_empty()).then(|| Arc::from(*value)))
            .collect(),
    )
}

/// The frame of JSON rows for a manifest.
pub fn frame_of_rows(manifest: &Value, rows: &[Value]) -> Frame {
    let features = manifest["features"].as_array().unwrap();
    let columns = features.iter().map(|feature| {
        let name = feature["name"].as_str().unwrap();
        let values = rows.iter().map(|row| &row[name]);
        let column = if feature["kind"] == "categorical" {
            Column::Categorical(values.map(|value| value.as_str().map(Arc::from)).collect())
        } else {
            Column::Numeric(values.map(|value| value.as_f64().unwrap_or(f64::NAN)).collect())
        };
        (name, column)
    });
    frame(columns.collect())
}

/// A schema of numeric features.
pub fn numeric_schema(names: &[&str]) -> Arc<FeatureSchema> {
    let features = names.iter().map(|name| Feature {
        name: (*name).to_owned(),
        kind: FeatureKind::Numeric,
    });
    Arc::new(FeatureSchema {
        features: features.collect(),
    })
}

/// A bundle of a manifest and a LightGBM text.
pub fn lightgbm_bundle(manifest: &Value, text: impl Into<Vec<u8>>) -> ModelBundle {
    ModelBundle::from([
        ("model.json".to_owned(), serde_json::to_vec(manifest).unwrap()),
        ("model.txt".to_owned(), text.into()),
    ])
}

/// Numbers that look random and are the same everywhere.
pub struct Dice(u64);

impl Dice {
    /// Dice with a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Uniform in `[0, 1)`.
    pub fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Roughly normal, with variance one.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }

    /// A position below `count`.
    pub fn below(&mut self, count: usize) -> usize {
        (self.uniform() * count as f64) as usize
    }
}

/// This crate's folder: asked for when the tests run, since a target folder that several clones share may hold a binary built in another.
pub fn manifest_dir() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}
