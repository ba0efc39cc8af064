//! Snapshots: immutable, content-addressed versions of a dataset.
//!
//! A snapshot is made of labelled rows of the source and of served rows whose labels came back. The rows are sorted by time (source rows
//! before served ones at the same time, both in the order in which they came) and written as one Parquet file whose bytes depend on the rows
//! alone, so equal data has an equal digest. Rows without a time (null) are left out where the spec has a time column.

mod file;
mod merge;
mod profile;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tidemill_core::clock::Timestamp;
use tidemill_core::digest::Digest;
use tidemill_core::frame::{Frame, Labels};
use tidemill_core::ports::{LabelledRows, SnapshotRequest};
use tidemill_core::snapshot::{SnapshotFile, SnapshotManifest, SnapshotOrigin};

use crate::columns::LabelColumn;
use crate::error::{DataError, Result};
use crate::expectations::validate_snapshot;
use crate::query::{SpecSource, Wanted};
use crate::rows::read_rows;
use crate::sources::SchemaCache;

pub use file::to_batch;
pub use merge::{SnapshotRows, time_name};

use file::{read_file, write_file};
use merge::{merge, served_rows};

/// A snapshot that was built and is not stored yet.
pub struct Built {
    /// Its description.
    pub manifest: SnapshotManifest,
    /// Its data.
    pub parquet: Bytes,
}

/// Builds, profiles and validates a snapshot.
pub async fn build(cache: &SchemaCache, request: &SnapshotRequest) -> Result<Built> {
    let spec = &request.spec;
    let source = match request.source {
        None => None,
        Some((from, until)) => {
            let opened = SpecSource::open(cache, &request.root, spec).await?;
            let wanted = Wanted {
                from,
                until,
                labelled_by: Some(request.as_of),
            };
            let rows = read_rows(&opened, spec, wanted).await?;
            Some((opened, wanted, rows))
        }
    };
    let served = served_rows(spec, &request.served, &request.labels)?;
    let source_rows = source.as_ref().map_or(0, |(_, _, rows)| rows.labels.len() as u64);
    let served_count = served.labels.len() as u64;
    if source_rows + served_count == 0 {
        return Err(DataError::SnapshotEmpty(empty_message(request)));
    }
    let validation = validate_snapshot(
        &request.root,
        spec,
        request.as_of,
        source.as_ref().map(|(opened, wanted, _)| (opened, *wanted)),
        &served,
    )
    .await?;
    let origin = SnapshotOrigin {
        source: source
            .as_ref()
            .map(|(opened, _, _)| (opened.source.files.pattern.clone(), source_rows)),
        served_rows: served_count,
        as_of: request.as_of,
    };
    let rows = match source {
        Some((_, _, source_rows)) => merge(spec, source_rows, served)?,
        None => served,
    };
    let spec = Arc::clone(spec);
    let finished = tokio::task::spawn_blocking(move || finish(&spec, rows, origin, validation));
    finished
        .await
        .map_err(|e| DataError::Upstream(format!("writing the snapshot was interrupted: {e}")))?
}

fn empty_message(request: &SnapshotRequest) -> String {
    let spec = &request.spec;
    let range = |bound: Option<Timestamp>| bound.map_or("any time".to_owned(), |t| t.to_string());
    let source = match request.source {
        Some((from, until)) => format!(
            "`{}` has no row with a time from {} to {} whose label `{}` was known by {}",
            spec.data.source,
            range(from),
            range(until),
            spec.label_expression(),
            request.as_of
        ),
        None => "the source was left out".to_owned(),
    };
    format!(
        "there is no labelled row for a snapshot: {source}, and of {} served predictions none has a label; widen the range, or send labels",
        request.served.iter().map(|b| b.ids.len()).sum::<usize>()
    )
}

fn finish(
    spec: &tidemill_core::spec::Spec,
    rows: SnapshotRows,
    origin: SnapshotOrigin,
    validation: Option<(serde_json::Value, bool)>,
) -> Result<Built> {
    let rows = rows.sorted();
    let classes = classes_of(&rows.labels);
    let time = rows.time_name(spec);
    let parquet = write_file(
        &rows.features,
        (&spec.label.name, &rows.labels),
        time.as_deref().map(|name| (name, rows.times.as_slice())),
        Some(&rows.prediction_ids),
    )?;
    let mut profile: BTreeMap<String, serde_json::Value> = BTreeMap::new();
    for (feature, column) in rows
        .features
        .schema()
        .features
        .iter()
        .zip(rows.features.columns())
    {
        profile.insert(feature.name.clone(), profile::of_column(column)?);
    }
    profile.insert(spec.label.name.clone(), profile::of_label(&rows.labels)?);
    let known: Vec<i64> = rows.times.iter().flatten().copied().collect();
    let time_range = known
        .first()
        .zip(known.last())
        .filter(|_| time.is_some())
        .map(|(a, b)| (Timestamp::from_micros(*a), Timestamp::from_micros(*b)));
    let (validation, quarantined) = match validation {
        Some((result, critical)) => (Some(result), critical),
        None => (None, false),
    };
    let count = rows.labels.len() as u64;
    let mut manifest = SnapshotManifest {
        digest: Digest::of(b""),
        dataset: spec.name.clone(),
        features: spec.feature_schema(),
        time,
        label: spec.label.name.clone(),
        task: spec.label.task,
        classes,
        files: vec![SnapshotFile {
            digest: Digest::of(&parquet),
            size: parquet.len() as u64,
            rows: count,
        }],
        rows: count,
        time_range,
        origin,
        profile,
        validation,
        quarantined,
    };
    manifest.digest = manifest_digest(&manifest)?;
    Ok(Built {
        manifest,
        parquet: Bytes::from(parquet),
    })
}

fn classes_of(labels: &LabelColumn) -> Vec<String> {
    let LabelColumn::Multiclass(rows) = labels else {
        return Vec::new();
    };
    let distinct: std::collections::BTreeSet<&str> = rows.iter().flatten().map(AsRef::as_ref).collect();
    distinct.into_iter().map(str::to_owned).collect()
}

/// The digest of the canonical JSON (keys sorted) of what the snapshot *is*: not of when it was taken, nor of what validation said of it.
fn manifest_digest(manifest: &SnapshotManifest) -> Result<Digest> {
    let mut value = serde_json::to_value(manifest)?;
    if let Some(object) = value.as_object_mut() {
        for name in ["digest", "validation", "quarantined"] {
            object.remove(name);
        }
        if let Some(origin) = object.get_mut("origin").and_then(|o| o.as_object_mut()) {
            origin.remove("as_of");
        }
    }
    value.sort_all_objects();
    Ok(Digest::of(serde_json::to_string(&value)?.as_bytes()))
}

/// The rows of a snapshot's file.
pub fn load(manifest: &SnapshotManifest, parquet: Bytes) -> Result<LabelledRows> {
    let (features, labels, times) = read_file(manifest, parquet)?;
    Ok(LabelledRows {
        rows: features,
        labels: to_labels(manifest, labels)?,
        times,
    })
}

fn to_labels(manifest: &SnapshotManifest, labels: LabelColumn) -> Result<Labels> {
    let missing = || {
        DataError::Stored(format!(
            "snapshot `{}` has a row without a label; rebuild it",
            manifest.digest.short()
        ))
    };
    Ok(match labels {
        LabelColumn::Binary(rows) => {
            Labels::Binary(rows.into_iter().collect::<Option<_>>().ok_or_else(missing)?)
        }
        LabelColumn::Regression(rows) => {
            Labels::Regression(rows.into_iter().collect::<Option<_>>().ok_or_else(missing)?)
        }
        LabelColumn::Multiclass(rows) => {
            let classes: Arc<[String]> = Arc::from(manifest.classes.clone());
            let index = rows
                .iter()
                .map(|row| {
                    let class = row.as_deref().ok_or_else(missing)?;
                    manifest
                        .classes
                        .binary_search_by(|c| c.as_str().cmp(class))
                        .map_err(|_| {
                            DataError::Stored(format!(
                                "snapshot `{}` has a label `{class}` that its manifest does not list; rebuild it",
                                manifest.digest.short()
                            ))
                        })
                })
                .collect::<Result<Vec<_>>>()?;
            Labels::Multiclass {
                classes,
                indices: index,
            }
        }
    })
}

fn from_labels(labels: &Labels) -> LabelColumn {
    match labels {
        Labels::Binary(rows) => LabelColumn::Binary(rows.iter().map(|v| Some(*v)).collect()),
        Labels::Regression(rows) => LabelColumn::Regression(rows.iter().map(|v| Some(*v)).collect()),
        Labels::Multiclass { classes, indices } => {
            let shared: Vec<Arc<str>> = classes.iter().map(|c| Arc::from(c.as_str())).collect();
            LabelColumn::Multiclass(indices.iter().map(|&i| shared.get(i).cloned()).collect())
        }
    }
}

/// Labelled rows as one Parquet file for a user's own trainer.
pub fn export(manifest: &SnapshotManifest, rows: &LabelledRows) -> Result<Vec<u8>> {
    let labels = from_labels(&rows.labels);
    let times: Vec<Option<i64>> = rows.times.iter().map(|t| Some(t.as_micros())).collect();
    let time = manifest
        .time
        .as_deref()
        .filter(|_| times.len() == labels.len())
        .map(|name| (name, times.as_slice()));
    let features: &Frame = &rows.rows;
    write_file(features, (&manifest.label, &labels), time, None)
}
