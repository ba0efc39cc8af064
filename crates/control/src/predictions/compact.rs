//! Segments of the write-ahead log become Parquet.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use tidemill_core::calls::{CallRecord, Recorded, RecordedTensor};
use tidemill_core::clock::Timestamp;
use tidemill_core::digest::Digest;
use tidemill_core::frame::FeatureSchema;
use tidemill_core::ids::{EndpointName, PredictionId};
use tidemill_core::ports::{BatchWriter, CallColumn, CallWriter, PredictionCodec};
use tidemill_core::predictions::{BatchShape, PredictionBatch};
use tidemill_core::tensors::DataType;
use tidemill_serving::{LogEntry, PredictionLog, SegmentId, ServeError};
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
        // The tables are a copy for others: what holds them up holds up nothing else, and is tried again.
        if let Err(error) = self.tell_tables().await {
            tracing::error!(%error, "the Delta tables of the prediction log are behind");
        }
        Ok(moved)
    }

    async fn store_file(&self, segment: SegmentId, made: MadeFile) -> Result<u64> {
        let MadeFile {
            endpoint,
            day,
            kind,
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
        if kind == FileKind::Calls {
            name.push_str("/calls");
        }
        if place > 0 {
            name = format!("{name}/{place}");
        }
        let name = self.free_name(name, digest, &ids).await?;
        let file = PredictionFile {
            id: 0,
            segment: name,
            endpoint,
            kind,
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

    /// Under which name a file is recorded: its own, unless that is taken by a file with other predictions. The log numbers its segments by
    /// what is in its folder, so the numbers begin anew where the folder was lost, or is older than the database.
    async fn free_name(&self, name: String, digest: Digest, ids: &Ids) -> Result<String> {
        let wanted = name.clone();
        let taken = self
            .store()
            .read(move |tx| index::file_of_segment(tx, &wanted))
            .await?;
        let Some(taken) = taken.filter(|taken| taken.digest != digest) else {
            return Ok(name);
        };
        // The same predictions in other bytes: written once more after a crash, by another version of this program.
        let same = match self.ids_of(&taken).await {
            Ok(known) => *known == *ids,
            Err(error) => {
                tracing::warn!(file = %taken.digest, %error, "what a file of the prediction log holds cannot be told");
                false
            }
        };
        if same {
            return Ok(name);
        }
        tracing::warn!(
            segment = name,
            "the name of a segment of the prediction log is taken by another; both are kept"
        );
        Ok(format!("{name}@{digest}"))
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
    kind: FileKind,
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

/// What a file in the making holds.
enum Content {
    /// Batches alike in shape and features.
    Rows {
        shape: BatchShape,
        schema: Arc<FeatureSchema>,
        writer: Box<dyn BatchWriter>,
        /// Of this part.
        gathered: Vec<PredictionBatch>,
        /// Of all parts, as long as they are few.
        kept: Option<Vec<Arc<PredictionBatch>>>,
    },
    /// Calls with the same inputs in columns of their own.
    Calls {
        columns: Vec<CallColumn>,
        writer: Box<dyn CallWriter>,
        /// Of this part.
        gathered: Vec<CallRecord>,
    },
}

/// A file in the making: what one endpoint answered on one day.
struct Group {
    endpoint: EndpointName,
    day: String,
    content: Content,
    halves: Vec<u64>,
    rows: u64,
    from_at: Timestamp,
    until_at: Timestamp,
}

impl Group {
    fn new(endpoint: &EndpointName, at: Timestamp, content: Content) -> Self {
        Self {
            endpoint: endpoint.clone(),
            day: at.day(),
            content,
            halves: Vec::new(),
            rows: 0,
            from_at: at,
            until_at: at,
        }
    }

    /// Whether it is of this endpoint and day.
    fn is_of(&self, endpoint: &EndpointName, at: Timestamp) -> bool {
        self.from_at.as_micros().div_euclid(DAY) == at.as_micros().div_euclid(DAY)
            && self.endpoint == *endpoint
    }

    fn note(&mut self, at: Timestamp, ids: &[PredictionId]) {
        self.rows += ids.len() as u64;
        self.from_at = self.from_at.min(at);
        self.until_at = self.until_at.max(at);
        let halves = ids.iter().filter_map(ids::parts);
        self.halves.extend(halves.map(|(_, half)| half));
    }

    /// Hands what was gathered to the file.
    fn write(&mut self) -> Result<()> {
        match &mut self.content {
            Content::Rows {
                writer,
                gathered,
                kept,
                ..
            } => {
                let part = std::mem::take(gathered);
                writer.push(&part)?;
                match kept {
                    Some(kept) if self.rows <= MAX_ROWS as u64 => kept.extend(part.into_iter().map(Arc::new)),
                    _ => *kept = None,
                }
            }
            Content::Calls { writer, gathered, .. } => {
                writer.push(gathered)?;
                gathered.clear();
            }
        }
        Ok(())
    }

    fn finish(self, place: usize) -> Result<MadeFile> {
        let (kind, bytes, batches) = match self.content {
            Content::Rows { writer, kept, .. } => (FileKind::Rows, writer.finish()?, kept),
            Content::Calls { writer, .. } => (FileKind::Calls, writer.finish()?, None),
        };
        Ok(MadeFile {
            endpoint: self.endpoint,
            day: self.day,
            kind,
            place,
            bytes: bytes.into(),
            ids: Ids::of(self.halves),
            rows: self.rows,
            from_at: self.from_at,
            until_at: self.until_at,
            batches,
        })
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
        for entry in part {
            match entry {
                LogEntry::Batch(batch) => gather_batch(&mut groups, *batch, codec),
                LogEntry::Call(call) => gather_call(&mut groups, *call, codec),
            }
        }
        for group in &mut groups {
            group.write()?;
        }
    };
    let mut made: Vec<MadeFile> = Vec::new();
    for group in groups {
        let kind = match group.content {
            Content::Rows { .. } => FileKind::Rows,
            Content::Calls { .. } => FileKind::Calls,
        };
        let alike =
            |file: &&MadeFile| file.kind == kind && file.endpoint == group.endpoint && file.day == group.day;
        let place = made.iter().filter(alike).count();
        made.push(group.finish(place)?);
    }
    Ok((made, damage))
}

fn gather_batch(groups: &mut Vec<Group>, batch: PredictionBatch, codec: &dyn PredictionCodec) {
    let of_batch = BatchShape::of(std::slice::from_ref(&batch));
    let fits = |group: &Group| match &group.content {
        Content::Rows { shape, schema, .. } => {
            *shape == of_batch
                && group.is_of(&batch.endpoint, batch.at)
                && **schema == **batch.features.schema()
        }
        Content::Calls { .. } => false,
    };
    let known = groups.iter().position(fits).unwrap_or_else(|| {
        let content = Content::Rows {
            shape: of_batch,
            schema: Arc::clone(batch.features.schema()),
            writer: codec.batches(of_batch),
            gathered: Vec::new(),
            kept: Some(Vec::new()),
        };
        groups.push(Group::new(&batch.endpoint, batch.at, content));
        groups.len() - 1
    });
    let group = &mut groups[known];
    group.note(batch.at, &batch.ids);
    if let Content::Rows { gathered, .. } = &mut group.content {
        gathered.push(batch);
    }
}

fn gather_call(groups: &mut Vec<Group>, call: CallRecord, codec: &dyn PredictionCodec) {
    let own = columns_of(&call);
    let fits = |group: &Group| match &group.content {
        Content::Calls { columns, .. } => *columns == own && group.is_of(&call.facts.endpoint, call.facts.at),
        Content::Rows { .. } => false,
    };
    let known = groups.iter().position(fits).unwrap_or_else(|| {
        let content = Content::Calls {
            writer: codec.calls(own.clone()),
            columns: own,
            gathered: Vec::new(),
        };
        groups.push(Group::new(&call.facts.endpoint, call.facts.at, content));
        groups.len() - 1
    });
    let group = &mut groups[known];
    group.note(call.facts.at, std::slice::from_ref(&call.facts.id));
    if let Content::Calls { gathered, .. } = &mut group.content {
        gathered.push(call);
    }
}

/// The inputs that stand in columns of their own: those of a model that takes a table.
fn columns_of(call: &CallRecord) -> Vec<CallColumn> {
    let Recorded::Tensors(tensors) = &call.inputs else {
        return Vec::new();
    };
    if !call.facts.columns {
        return Vec::new();
    }
    let column = |tensor: &RecordedTensor| CallColumn {
        name: tensor.name.clone(),
        numeric: tensor.datatype != DataType::Bytes,
    };
    let mut columns: Vec<CallColumn> = tensors.iter().map(column).collect();
    // The order in which a caller sends them is not the table's.
    columns.sort_by(|a, b| a.name.cmp(&b.name));
    columns.dedup_by(|a, b| a.name == b.name);
    columns
}
