//! Segments of the write-ahead log become Parquet.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use tidemill_core::clock::Timestamp;
use tidemill_core::digest::Digest;
use tidemill_core::frame::FeatureSchema;
use tidemill_core::ids::EndpointName;
use tidemill_core::ports::{BatchWriter, PredictionCodec};
use tidemill_core::predictions::{BatchShape, PredictionBatch};
use tidemill_serving::{PredictionLog, SegmentId, ServeError};
use tidemill_store::objects::ObjectKey;
use tidemill_store::predictions::{self as index, FileKind, PredictionFile};

use super::Predictions;
use super::cache::MAX_ROWS;
use super::ids::{self, Ids};
use crate::error::{ControlError, Result};

/// Rows that are in memory as batches at a time.
const PART: usize = 4_096;

impl Predictions {
    /// Moves every sealed segment of the write-ahead log into Parquet: the file first, then the ids that it holds, then one transaction
    /// makes it visible, then the segment goes. After a crash between any two of these the work is done again and recorded once. What
    /// cannot be read is put aside, and the others go on. Returns how many predictions were moved.
    ///
    /// # Errors
    /// If the store or the disk fails; nothing is lost, the log keeps it.
    pub async fn compact(&self) -> Result<u64> {
        let log = self.log();
        // One at a time: another would find segments gone that it was about to read.
        let _turn = log.compacting().await;
        log.seal().await?;
        let mut moved = 0;
        for segment in log.sealed() {
            let (own, codec) = (log.clone(), Arc::clone(&self.inner.codec));
            let read = move || read_segment(&own, segment, codec.as_ref());
            let (made, damage) = tokio::task::spawn_blocking(read)
                .await
                .map_err(ControlError::internal)??;
            let mut kept = 0;
            for file in made {
                kept += self.store_file(segment, file).await?;
            }
            match damage {
                None => log.remove(&segment).await?,
                Some(damage) => self.set_aside(segment, kept, damage).await?,
            }
            moved += kept;
        }
        Ok(moved)
    }

    async fn store_file(&self, segment: SegmentId, made: MadeFile) -> Result<u64> {
        let MadeFile {
            endpoint,
            day,
            place,
            bytes,
            ids,
            rows,
            from_at,
            until_at,
            batches,
        } = made;
        let digest = Digest::of(&bytes);
        let size = bytes.len() as u64;
        let key = ObjectKey::Predictions {
            endpoint: endpoint.clone(),
            day: day.clone(),
            digest,
        };
        let objects = self.store().objects();
        objects.put(&key, bytes).await?;
        let key = ObjectKey::PredictionIds {
            endpoint: endpoint.clone(),
            digest,
        };
        objects.put(&key, ids.to_bytes().into()).await?;
        let mut name = format!("{segment}/{endpoint}/{day}");
        if place > 0 {
            name = format!("{name}/{place}");
        }
        let file = PredictionFile {
            id: 0,
            segment: name,
            endpoint,
            kind: FileKind::Rows,
            day,
            digest,
            size,
            rows,
            from_at,
            until_at,
            created_at: self.inner.clock.now(),
        };
        let recorded = self
            .store()
            .write(move |tx| index::record_file(tx, &file))
            .await?;
        self.inner.ids.put(recorded.id, Arc::new(ids));
        if let Some(batches) = batches {
            self.inner.batches.put(recorded.id, Arc::new(batches));
        }
        Ok(rows)
    }

    async fn set_aside(&self, segment: SegmentId, kept: u64, damage: ServeError) -> Result<()> {
        let place = self.log().set_aside(segment).await?;
        tracing::error!(%segment, kept, %damage, place = %place.display(), "a segment of the prediction log is damaged; it is put aside");
        let now = self.inner.clock.now();
        let said = json!({ "file": place.display().to_string(), "error": damage.to_string(), "predictions_kept": kept });
        self.store()
            .write(move |tx| {
                tx.event(
                    now,
                    "prediction_log.segment_damaged",
                    "segment",
                    &segment.to_string(),
                    said,
                )
            })
            .await?;
        Ok(())
    }
}

/// A file made from a part of a segment.
struct MadeFile {
    endpoint: EndpointName,
    day: String,
    /// Which of the segment's files of this endpoint and day.
    place: usize,
    bytes: Bytes,
    ids: Ids,
    rows: u64,
    from_at: Timestamp,
    until_at: Timestamp,
    /// What it holds, if that is little.
    batches: Option<Vec<Arc<PredictionBatch>>>,
}

/// A file in the making: batches of one endpoint and day, alike in shape and features.
struct Group {
    endpoint: EndpointName,
    day: String,
    shape: BatchShape,
    schema: Arc<FeatureSchema>,
    writer: Box<dyn BatchWriter>,
    halves: Vec<u64>,
    rows: u64,
    from_at: Timestamp,
    until_at: Timestamp,
    /// Of this part.
    gathered: Vec<PredictionBatch>,
    /// Of all parts, as long as they are few.
    batches: Option<Vec<Arc<PredictionBatch>>>,
}

impl Group {
    fn holds(&self, batch: &PredictionBatch, shape: BatchShape) -> bool {
        // Within a day most times are told apart by their numbers alone.
        let (own, other) = (self.from_at.as_micros(), batch.at.as_micros());
        own.div_euclid(DAY) == other.div_euclid(DAY)
            && self.shape == shape
            && self.endpoint == batch.endpoint
            && *self.schema == **batch.features.schema()
    }

    fn write(&mut self) -> Result<()> {
        let part = std::mem::take(&mut self.gathered);
        self.writer.push(&part)?;
        match &mut self.batches {
            Some(batches) if self.rows <= MAX_ROWS as u64 => batches.extend(part.into_iter().map(Arc::new)),
            _ => self.batches = None,
        }
        Ok(())
    }
}

const DAY: i64 = 86_400_000_000;

/// Makes files of a segment. Damage ends it early: what stands before is kept.
fn read_segment(
    log: &PredictionLog,
    segment: SegmentId,
    codec: &dyn PredictionCodec,
) -> Result<(Vec<MadeFile>, Option<ServeError>)> {
    let mut reader = log.reader(segment)?;
    let mut groups: Vec<Group> = Vec::new();
    let damage = loop {
        let part = match reader.next_part(PART) {
            Ok(part) if part.is_empty() => break None,
            Ok(part) => part,
            Err(damage @ ServeError::Corrupt { .. }) => break Some(damage),
            Err(error) => return Err(error.into()),
        };
        for batch in part {
            gather(&mut groups, batch, codec);
        }
        for group in &mut groups {
            group.write()?;
        }
    };
    let mut made: Vec<MadeFile> = Vec::new();
    for group in groups {
        let alike = |file: &&MadeFile| file.endpoint == group.endpoint && file.day == group.day;
        let place = made.iter().filter(alike).count();
        made.push(MadeFile {
            endpoint: group.endpoint,
            day: group.day,
            place,
            bytes: group.writer.finish()?.into(),
            ids: Ids::of(group.halves),
            rows: group.rows,
            from_at: group.from_at,
            until_at: group.until_at,
            batches: group.batches,
        });
    }
    Ok((made, damage))
}

fn gather(groups: &mut Vec<Group>, batch: PredictionBatch, codec: &dyn PredictionCodec) {
    let shape = BatchShape::of(std::slice::from_ref(&batch));
    let known = groups.iter().position(|group| group.holds(&batch, shape));
    let known = known.unwrap_or_else(|| {
        groups.push(Group {
            endpoint: batch.endpoint.clone(),
            day: batch.at.day(),
            shape,
            schema: Arc::clone(batch.features.schema()),
            writer: codec.batches(shape),
            halves: Vec::new(),
            rows: 0,
            from_at: batch.at,
            until_at: batch.at,
            gathered: Vec::new(),
            batches: Some(Vec::new()),
        });
        groups.len() - 1
    });
    let group = &mut groups[known];
    group.rows += batch.rows() as u64;
    group.from_at = group.from_at.min(batch.at);
    group.until_at = group.until_at.max(batch.at);
    let halves = batch.ids.iter().filter_map(ids::parts);
    group.halves.extend(halves.map(|(_, half)| half));
    group.gathered.push(batch);
}
