//! The prediction log as the loop reads it: Parquet files in the object store, plus what is still in the write-ahead log; and the
//! compaction that moves one into the other.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tidemill_core::clock::Timestamp;
use tidemill_core::digest::Digest;
use tidemill_core::ids::{EndpointName, PredictionId};
use tidemill_core::predictions::PredictionBatch;
use tidemill_store::objects::ObjectKey;
use tidemill_store::predictions::{self as index, PredictionFile};

use crate::context::Context;
use crate::error::{ControlError, Result};
use crate::feedback::cache::Batches;

/// Moves every sealed segment of the write-ahead log into Parquet: the file first, then one transaction makes it visible, then the
/// segment goes. After a crash between any two of these the work is done again and recorded once.
pub(crate) async fn compact(ctx: &Context) -> Result<u64> {
    let log = ctx.serving.log();
    // One at a time: another would find segments gone that it was about to read.
    let _turn = log.compacting().await;
    log.seal().await?;
    let mut moved = 0;
    for segment in log.sealed() {
        let mut groups: BTreeMap<(EndpointName, String), Vec<Arc<PredictionBatch>>> = BTreeMap::new();
        for batch in log.read(&segment).await? {
            let batch = Arc::new(batch);
            groups
                .entry((batch.endpoint.clone(), batch.at.day()))
                .or_default()
                .push(batch);
        }
        for ((endpoint, day), batches) in groups {
            moved += store_group(ctx, &format!("{segment}"), endpoint, day, batches).await?;
        }
        log.remove(&segment).await?;
    }
    Ok(moved)
}

async fn store_group(
    ctx: &Context,
    segment: &str,
    endpoint: EndpointName,
    day: String,
    batches: Vec<Arc<PredictionBatch>>,
) -> Result<u64> {
    let plain: Vec<PredictionBatch> = batches.iter().map(|b| (**b).clone()).collect();
    let data = Arc::clone(&ctx.data);
    let bytes = tokio::task::spawn_blocking(move || data.encode_predictions(&plain))
        .await
        .map_err(ControlError::internal)??;
    let digest = Digest::of(&bytes);
    let size = bytes.len() as u64;
    let key = ObjectKey::Predictions {
        endpoint: endpoint.clone(),
        day: day.clone(),
        digest,
    };
    ctx.store.objects().put(&key, bytes.into()).await?;
    let rows: Vec<(PredictionId, Timestamp)> = batches
        .iter()
        .flat_map(|b| b.ids.iter().map(|id| (id.clone(), b.at)))
        .collect();
    let times = batches.iter().map(|b| b.at);
    let file = PredictionFile {
        id: 0,
        segment: format!("{segment}/{endpoint}/{day}"),
        endpoint,
        day,
        digest,
        size,
        rows: rows.len() as u64,
        from_at: times.clone().min().unwrap_or_default(),
        until_at: times.max().unwrap_or_default(),
        created_at: ctx.now(),
    };
    let count = file.rows;
    let recorded = ctx
        .store
        .write(move |tx| index::record_file(tx, &file, &rows))
        .await?;
    ctx.batches.put(recorded.id, Arc::new(batches));
    Ok(count)
}

/// The batches of an endpoint served in `[from, until)`, in the order in which they were served.
pub(crate) async fn between(
    ctx: &Context,
    endpoint: &EndpointName,
    from: Timestamp,
    until: Timestamp,
) -> Result<Vec<Arc<PredictionBatch>>> {
    // The log first: what is compacted in between then shows in both places, and never in neither.
    let live = ctx.serving.log().live_batches(endpoint, from, until).await?;
    let name = endpoint.clone();
    let files = ctx
        .store
        .read(move |tx| index::files_between(tx, &name, from, until))
        .await?;
    let mut found = Vec::new();
    for file in files {
        let batches = file_batches(ctx, &file).await?;
        found.extend(batches.iter().filter(|b| b.at >= from && b.at < until).cloned());
    }
    // A segment that is being compacted right now may show in both places; a batch is known by its first prediction.
    let stored: HashSet<PredictionId> = found.iter().filter_map(|b| b.ids.first().cloned()).collect();
    found.extend(
        live.into_iter()
            .filter(|b| b.ids.first().is_none_or(|id| !stored.contains(id))),
    );
    found.sort_by_key(|b| b.at);
    Ok(found)
}

async fn file_batches(ctx: &Context, file: &PredictionFile) -> Result<Batches> {
    if let Some(batches) = ctx.batches.get(file.id) {
        return Ok(batches);
    }
    let key = ObjectKey::Predictions {
        endpoint: file.endpoint.clone(),
        day: file.day.clone(),
        digest: file.digest,
    };
    let bytes = ctx.store.objects().get(&key).await?;
    let data = Arc::clone(&ctx.data);
    let decoded = tokio::task::spawn_blocking(move || data.decode_predictions(&bytes))
        .await
        .map_err(ControlError::internal)??;
    let batches: Batches = Arc::new(decoded.into_iter().map(Arc::new).collect());
    ctx.batches.put(file.id, Arc::clone(&batches));
    Ok(batches)
}

/// The batch that holds a prediction, and its row there.
pub(crate) async fn find(ctx: &Context, id: &PredictionId) -> Result<(Arc<PredictionBatch>, usize)> {
    if let Some(found) = ctx.serving.log().find(id).await? {
        return Ok(found);
    }
    let wanted = id.clone();
    let file = ctx
        .store
        .read(move |tx| index::file_of(tx, &wanted))
        .await?
        .ok_or_else(|| {
            ControlError::not_found(
                "prediction",
                id,
                "; the id stands in the answer of the predicting request",
            )
        })?;
    let batches = file_batches(ctx, &file).await?;
    batches
        .iter()
        .find_map(|b| b.ids.iter().position(|i| i == id).map(|row| (Arc::clone(b), row)))
        .ok_or_else(|| {
            ControlError::internal(format!(
                "prediction `{id}` is indexed but not in its file {}",
                file.digest
            ))
        })
}
