//! The Parquet of a file of rows: kept beside it as an object, made once.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use tidemill_core::ports::{Blame, ByteSink, ByteSource, PortError, TableEngine, TableFormat};
use tidemill_store::objects::Incoming;
use tidemill_store::tracking::artifacts::has_name;
use tidemill_store::tracking::tables::{self, StoredTable};
use tidemill_store::{ContentKind, StoreError};

use super::files::{Bytes, RowsFile};
use super::word;
use crate::tracking::{Result, Tracking, TrackingError};

/// The Parquet of a file that is not kept by its digest goes when it was not asked for so long.
const UNUSED_MS: i64 = 7 * 24 * 60 * 60 * 1000;
/// How often it is noted that a file was asked.
const NOTED_MS: i64 = 60 * 60 * 1000;
/// So many are forgotten at once.
const SOME: u32 = 100;

/// A stored file, opened for each part that is read of it.
struct Stored {
    tracking: Tracking,
    bytes: Bytes,
    size: u64,
}

#[async_trait]
impl ByteSource for Stored {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read(&self, range: Range<u64>) -> std::result::Result<Vec<u8>, PortError> {
        let gone = || PortError::caller("not_found", "the file is gone");
        let mut opened = match &self.bytes {
            Bytes::Object(digest) => {
                let objects = self.tracking.store().objects();
                objects
                    .open(ContentKind::Artifact, *digest)
                    .await?
                    .ok_or_else(gone)?
            }
            Bytes::Place(place) => match self.tracking.open_artifact(place.clone()).await {
                Ok(artifact) => artifact.bytes,
                Err(TrackingError::Store(error)) => return Err(error.into()),
                Err(_) => return Err(gone()),
            },
        };
        let wanted = range.end.saturating_sub(range.start);
        opened.only(range.start, range.end);
        match opened.rest(wanted).await? {
            Some(bytes) if bytes.len() as u64 == wanted => Ok(bytes),
            _ => Err(PortError::upstream(
                "object_store",
                "the file is shorter than it was",
            )),
        }
    }
}

struct Into<'a>(&'a mut Incoming);

#[async_trait]
impl ByteSink for Into<'_> {
    async fn write(&mut self, piece: Vec<u8>) -> std::result::Result<(), PortError> {
        Ok(self.0.write(piece.into()).await?)
    }
}

impl Tracking {
    /// Lets tables be asked. Once, at the start.
    pub fn answer_tables(&self, engine: Arc<dyn TableEngine>) {
        // A second one changes nothing.
        let _ = self.inner.tables.set(engine);
    }

    /// What answers questions about tables.
    pub fn table_engine(&self) -> Result<Arc<dyn TableEngine>> {
        self.inner
            .tables
            .get()
            .cloned()
            .ok_or_else(|| TrackingError::NotImplemented("this server has no engine for tables".to_owned()))
    }

    fn stored(&self, bytes: Bytes, size: u64) -> Arc<dyn ByteSource> {
        Arc::new(Stored {
            tracking: self.clone(),
            bytes,
            size,
        })
    }

    /// The Parquet of a file; it is made if there is none.
    pub(super) async fn as_parquet(&self, file: &RowsFile, name: &str) -> Result<Arc<dyn ByteSource>> {
        if file.format == TableFormat::Parquet {
            return Ok(self.stored(file.bytes.clone(), file.size));
        }
        let known = match self.known_table(file).await? {
            Some(known) => known,
            None => self.convert(file, name, false).await?,
        };
        if known.by_place && self.now_ms() - known.used_ms > NOTED_MS {
            let (key, now_ms) = (file.key, self.now_ms());
            self.store()
                .write(move |tx| tables::touch(tx, key, now_ms))
                .await?;
        }
        if let Some(found) = self.parquet_of(&known).await? {
            return Ok(found);
        }
        // The object is lost, its source is not.
        let made = self.convert(file, name, true).await?;
        let found = self.parquet_of(&made).await?;
        Ok(found.ok_or_else(|| StoreError::not_found("table", name))?)
    }

    /// The Parquet that a file became, if it is still there.
    async fn parquet_of(&self, table: &StoredTable) -> Result<Option<Arc<dyn ByteSource>>> {
        let Some(parquet) = table.parquet else {
            return Err(PortError::caller("table_invalid", table.problem.clone()).into());
        };
        let key = ContentKind::Artifact.key(parquet);
        let size = self.store().objects().head(&key).await?;
        Ok(size.map(|size| self.stored(Bytes::Object(parquet), size)))
    }

    async fn known_table(&self, file: &RowsFile) -> Result<Option<StoredTable>> {
        let (key, format) = (file.key, word(file.format));
        Ok(self.store().read(move |tx| tables::get(tx, key, format)).await?)
    }

    /// Turns a file into Parquet, one at a time; one that was turned already only `again`.
    async fn convert(&self, file: &RowsFile, name: &str, again: bool) -> Result<StoredTable> {
        let _turn = self.inner.converting.lock().await;
        if !again && let Some(known) = self.known_table(file).await? {
            return Ok(known);
        }
        let engine = self.table_engine()?;
        let by_place = matches!(file.bytes, Bytes::Place(_));
        let mut table = StoredTable {
            source: file.key,
            format: word(file.format).to_owned(),
            by_place,
            parquet: None,
            rows: 0,
            columns: serde_json::Value::Array(Vec::new()),
            problem: String::new(),
            used_ms: self.now_ms(),
        };
        let mut incoming = self.store().objects().incoming().await?;
        let source = self.stored(file.bytes.clone(), file.size);
        let converted = engine
            .to_parquet(name, source, file.format, &mut Into(&mut incoming))
            .await;
        let kept = match converted {
            Ok(shape) => {
                table.rows = shape.rows;
                table.columns = serde_json::to_value(&shape.columns).unwrap_or_default();
                let arrived = incoming.finish().await?;
                let kept = self
                    .store()
                    .objects()
                    .keep(arrived, ContentKind::Artifact)
                    .await?;
                table.parquet = Some(kept.digest);
                Some(kept)
            }
            Err(error) if error.blame == Blame::Caller && error.code == "table_invalid" => {
                table.problem = error.message;
                None
            }
            Err(error) => return Err(error.into()),
        };
        let unused_before = table.used_ms - UNUSED_MS;
        let row = table.clone();
        let unused = self
            .store()
            .write(move |tx| {
                let _kept = kept;
                if !row.by_place && !has_name(tx, row.source)? {
                    // Deleted meanwhile: nothing would ever free the Parquet.
                    return Ok(row.parquet.into_iter().collect());
                }
                tables::put(tx, &row)?;
                tables::forget_unused(tx, unused_before, SOME)
            })
            .await?;
        self.free(unused).await?;
        Ok(table)
    }

    /// Turns a file into Parquet in its own time; what fails is tried again when the table is asked.
    pub(super) fn convert_soon(&self, name: String, file: RowsFile) {
        if self.inner.tables.get().is_none() {
            return;
        }
        let tracking = self.clone();
        tokio::spawn(async move {
            if let Err(error) = tracking.as_parquet(&file, &name).await {
                tracing::info!(%error, table = name, "not turned into Parquet");
            }
        });
    }
}
