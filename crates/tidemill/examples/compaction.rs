//! How quickly the write-ahead log becomes Parquet: `cargo run --release -p tidemill --example compaction -- [PREDICTIONS]`.
//!
//! Writes that many requests of one row of ten numbers, as the quickest callers send them, then compacts them on one thread, and tells
//! predictions a second and the largest memory meanwhile.

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::sync::Arc;

use anyhow::Result;
use tidemill_control::predictions::Predictions;
use tidemill_core::clock::{Clock, Stopwatch, Timestamp, WallClock};
use tidemill_core::frame::{Column, Feature, FeatureKind, FeatureSchema, Frame, Scores};
use tidemill_core::ids::{self, PredictionId, VersionNumber};
use tidemill_core::predictions::{PredictionBatch, Role};
use tidemill_data::PredictionFiles;
use tidemill_serving::{LogOptions, PredictionLog};
use tidemill_store::Store;

fn batch(schema: &Arc<FeatureSchema>, at: Timestamp, i: usize) -> Result<PredictionBatch> {
    let value = |feature: usize| ((i * 31 + feature * 17) % 1_009) as f64 / 7.0;
    let columns = (0..10)
        .map(|feature| Column::Numeric(vec![value(feature)]))
        .collect();
    Ok(PredictionBatch {
        endpoint: "speed".into(),
        at,
        request_id: ids::fresh(at),
        ids: vec![PredictionId::new(ids::fresh(at))],
        keys: vec![None],
        versions: vec![VersionNumber(1)],
        roles: vec![Role::Champion],
        canary_share: 0.0,
        degraded: vec![None],
        scores: Scores::Binary(vec![value(3) / 200.0]),
        shadows: vec![],
        features: Frame::new(Arc::clone(schema), columns)?,
        latency_us: 12,
    })
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let predictions: usize = std::env::args().nth(1).map_or(Ok(1_000_000), |arg| arg.parse())?;
    let dir = std::env::temp_dir().join(format!("tidemill-compaction-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let store = Store::open(&dir)?;
    let clock: Arc<dyn Clock> = Arc::new(WallClock);
    let (log, _) = PredictionLog::open(&dir.join("wal"), LogOptions::default())?;
    let feature = |i: usize| Feature {
        name: format!("feature_{i}"),
        kind: FeatureKind::Numeric,
    };
    let schema = Arc::new(FeatureSchema {
        features: (0..10).map(feature).collect(),
    });
    let watch = Stopwatch::start();
    for i in 0..predictions {
        log.append(batch(&schema, clock.now(), i)?).await?;
    }
    let written = watch.elapsed().as_secs_f64();
    let stats = log.live_stats();
    let archive = Predictions::new(store, log, Arc::new(PredictionFiles), clock);
    let before = peak_mib();
    let watch = Stopwatch::start();
    let moved = archive.compact().await?;
    let seconds = watch.elapsed().as_secs_f64();
    println!(
        "{moved} predictions in {} segments: written in {written:.2} s ({:.0}/s), compacted in {seconds:.2} s ({:.0}/s); \
         peak memory {before} MiB before, {} MiB after",
        stats.segments,
        predictions as f64 / written,
        moved as f64 / seconds,
        peak_mib()
    );
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
