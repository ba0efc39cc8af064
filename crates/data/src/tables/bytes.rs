//! Bytes of the port, for readers that read in parts and for readers that read from the beginning to the end.

use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use tidemill_core::ports::{ByteSource, PortError};
use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;

use super::halt::Halt;
use crate::error::DataError;

/// So much is read at once by readers that read everything.
const PIECE: u64 = 4 << 20;
/// So much is gathered before it is handed on.
const HANDED: usize = 1 << 20;

/// A file of the port as Parquet's reader wants one.
#[derive(Clone)]
pub struct Parts(pub Arc<dyn ByteSource>);

fn external(error: PortError) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for Parts {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move { Ok(self.0.read(range).await.map_err(external)?.into()) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let size = self.0.size();
            let reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Skip);
            Ok(Arc::new(reader.load_and_finish(&mut *self, size).await?))
        }
        .boxed()
    }
}

/// What kept a file from being read, apart from what is wrong with what it says: readers of formats tell these not apart.
#[derive(Clone, Default)]
pub struct Trouble(Arc<Mutex<Option<DataError>>>);

impl Trouble {
    fn keep(&self, error: DataError) -> io::Error {
        let told = io::Error::other(error.to_string());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        told
    }

    /// What there was.
    pub fn take(&self) -> Option<DataError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A file of the port from its beginning to its end, on a thread that may block.
pub struct Whole {
    source: Arc<dyn ByteSource>,
    handle: Handle,
    halt: Halt,
    trouble: Trouble,
    at: u64,
    piece: Vec<u8>,
    used: usize,
}

impl Whole {
    /// From the beginning.
    pub fn new(source: Arc<dyn ByteSource>, handle: Handle, halt: Halt, trouble: Trouble) -> Self {
        Self {
            source,
            handle,
            halt,
            trouble,
            at: 0,
            piece: Vec::new(),
            used: 0,
        }
    }
}

impl Read for Whole {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.used == self.piece.len() {
            let end = (self.at + PIECE).min(self.source.size());
            if self.at >= end {
                return Ok(0);
            }
            let reading = self.source.read(self.at..end);
            let piece = self.halt.check().and_then(|()| {
                let read = self.handle.block_on(reading);
                read.map_err(|error| DataError::Upstream(error.message))
            });
            self.piece = piece.map_err(|error| self.trouble.keep(error))?;
            self.used = 0;
            self.at = end;
        }
        let left = &self.piece[self.used..];
        let taken = left.len().min(into.len());
        into[..taken].copy_from_slice(&left[..taken]);
        self.used += taken;
        Ok(taken)
    }
}

/// Hands what is written to whoever stands at the other end of a channel.
pub struct Handed {
    sender: Sender<Vec<u8>>,
    gathered: Vec<u8>,
}

impl Handed {
    /// To this end.
    pub fn new(sender: Sender<Vec<u8>>) -> Self {
        Self {
            sender,
            gathered: Vec::new(),
        }
    }

    fn hand_over(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.gathered);
        self.sender.blocking_send(piece).map_err(io::Error::other)
    }
}

impl Write for Handed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= HANDED {
            self.hand_over()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_over()
    }
}
