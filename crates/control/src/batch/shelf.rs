//! A folder among artifacts or in a bucket: files are written on this machine and sent when they are whole.

use std::collections::BTreeSet;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use tidemill_core::ports::PortError;

use super::error::BatchError;
use super::folder::OutFolder;
use super::places::{Place, Places};
use crate::tracking::Caller;

/// The longest small file.
const SMALL: u64 = 1 << 20;

/// A folder elsewhere.
pub(super) struct Elsewhere {
    pub places: Places,
    pub caller: Caller,
    pub place: Place,
    /// Where files wait until they are whole.
    pub drafts: PathBuf,
}

fn port(error: BatchError) -> PortError {
    PortError {
        blame: error.blame,
        code: error.code,
        message: error.message,
        trace: None,
    }
}

#[async_trait]
impl OutFolder for Elsewhere {
    async fn names(&self) -> Result<BTreeSet<String>, PortError> {
        std::fs::create_dir_all(&self.drafts)
            .map_err(|error| PortError::upstream("batch_io", error.to_string()))?;
        let names = self.places.names(&self.caller, &self.place).await;
        names.map_err(port)
    }

    async fn read(&self, name: &str) -> Result<Option<String>, PortError> {
        let file = self.places.open(&self.caller, &self.place.below(name)).await;
        let Some(file) = file.map_err(port)? else {
            return Ok(None);
        };
        let bytes = file.rest(SMALL).await.map_err(|error| port(error.into()))?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), PortError> {
        let written = self
            .places
            .write(&self.caller, &self.place.below(name), bytes)
            .await;
        written.map_err(port)
    }

    fn draft(&self, name: &str) -> PathBuf {
        self.drafts.join(name)
    }

    async fn keep(&self, name: &str) -> Result<(), PortError> {
        let draft = self.draft(name);
        let target = self.place.below(name);
        let written = self.places.write_file(&self.caller, &target, &draft).await;
        written.map_err(port)?;
        // It is where it belongs; a draft that stays goes with the job's folder.
        let _ = std::fs::remove_file(&draft);
        Ok(())
    }

    fn shown(&self) -> String {
        self.place.shown()
    }
}
