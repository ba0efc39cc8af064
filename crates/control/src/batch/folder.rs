//! Where the files of a job of rows go, each whole or not at all.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use tidemill_core::ports::PortError;

/// Where the files of a job go.
#[async_trait]
pub trait OutFolder: Send + Sync {
    /// The names of the files that are there.
    async fn names(&self) -> Result<BTreeSet<String>, PortError>;
    /// The text of a file, if it is there.
    async fn read(&self, name: &str) -> Result<Option<String>, PortError>;
    /// Writes a small file, whole or not at all.
    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), PortError>;
    /// Where on this machine a file is written before it is kept.
    fn draft(&self, name: &str) -> PathBuf;
    /// Gives what lies at the draft its place: durable, and there at once.
    async fn keep(&self, name: &str) -> Result<(), PortError>;
    /// What people call the folder.
    fn shown(&self) -> String;
}

/// A folder of this machine.
#[derive(Debug, Clone)]
pub struct LocalFolder(pub PathBuf);

fn failed(what: &str, path: &Path, error: &std::io::Error) -> PortError {
    PortError::upstream("batch_io", format!("cannot {what} `{}`: {error}", path.display()))
}

#[async_trait]
impl OutFolder for LocalFolder {
    async fn names(&self) -> Result<BTreeSet<String>, PortError> {
        std::fs::create_dir_all(&self.0).map_err(|error| failed("make", &self.0, &error))?;
        let entries = std::fs::read_dir(&self.0).map_err(|error| failed("list", &self.0, &error))?;
        let mut names = BTreeSet::new();
        for entry in entries {
            let entry = entry.map_err(|error| failed("list", &self.0, &error))?;
            names.insert(entry.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    async fn read(&self, name: &str) -> Result<Option<String>, PortError> {
        let path = self.0.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path, &error)),
        }
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), PortError> {
        let path = self.0.join(name);
        let partial = path.with_extension("partial");
        std::fs::write(&partial, bytes)
            .and_then(|()| std::fs::File::open(&partial)?.sync_all())
            .and_then(|()| std::fs::rename(&partial, &path))
            .and_then(|()| std::fs::File::open(&self.0)?.sync_all())
            .map_err(|error| failed("write", &path, &error))
    }

    fn draft(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    async fn keep(&self, _name: &str) -> Result<(), PortError> {
        // It was renamed into its place.
        Ok(())
    }

    fn shown(&self) -> String {
        self.0.display().to_string()
    }
}
