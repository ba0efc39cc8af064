//! Shared memory of this machine, through which a client on it hands over large tensors: off unless the operator says so.
//!
//! A region is a file of the system's shared memory, read and written at its offsets. It is not mapped: another process could shrink
//! a mapped file under us, and one copy costs less than a fault.
//!
//! A region belongs to the user who registered it: to every other it is not there. Where nobody has to say who they are, all are one user.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use tidemill_core::tensors::{Tensor, TensorData};

use crate::control_plane::App;
use crate::error::ApiError;

/// So many bytes of shared memory are copied for one request at most: the same regions may be named again and again.
pub(crate) const REQUEST_BYTES: u64 = 256 << 20;
/// At most so many regions are registered at a time.
const MAX_REGIONS: usize = 1_024;
/// A tensor has at most so many bytes: a region may be larger than the memory that this server has.
const MAX_BYTES: u64 = 1 << 30;

/// The regions that clients have registered.
#[derive(Debug)]
pub struct SharedMemory {
    folder: PathBuf,
    /// By whose they are and what they are called.
    regions: RwLock<BTreeMap<(String, String), Arc<Region>>>,
}

tokio::task_local! {
    static CALLER: String;
}

/// Who sends the request that is being answered; empty where nobody has to say so.
pub(crate) fn caller() -> String {
    CALLER.try_with(Clone::clone).unwrap_or_default()
}

/// Works for a user.
pub(crate) async fn working_for<F: Future>(caller: String, work: F) -> F::Output {
    CALLER.scope(caller, work).await
}

/// The same on a thread that may block.
pub(crate) fn blocking_for<T>(caller: String, work: impl FnOnce() -> T) -> T {
    CALLER.sync_scope(caller, work)
}

/// A part of a shared file.
#[derive(Debug)]
pub(crate) struct Region {
    pub name: String,
    pub key: String,
    pub offset: u64,
    pub byte_size: u64,
    file: File,
}

/// Where in a region a tensor lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub region: String,
    pub offset: u64,
    pub byte_size: u64,
}

impl Default for SharedMemory {
    fn default() -> Self {
        Self::under(Path::new("/dev/shm"))
    }
}

/// The shared memory of this server.
pub(crate) fn of(app: &App) -> Result<&SharedMemory, ApiError> {
    allowed(app.shared_memory())
}

/// Shared memory, if this server takes any.
pub(crate) fn allowed(shared: Option<&SharedMemory>) -> Result<&SharedMemory, ApiError> {
    shared.ok_or_else(|| {
        refused("this server takes no shared memory: start it with `--shared-memory`, or send the tensors themselves".to_owned())
    })
}

/// There is no memory of a GPU to share.
pub(crate) fn no_cuda() -> ApiError {
    refused(
        "this server shares no CUDA memory: use system shared memory (`--shared-memory`), or send the tensors themselves".to_owned(),
    )
}

fn refused(message: String) -> ApiError {
    ApiError::bad_request("shared_memory", message)
}

impl SharedMemory {
    /// Over the files in a folder.
    pub fn under(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            regions: RwLock::default(),
        }
    }

    pub(crate) fn register(
        &self,
        name: &str,
        key: &str,
        offset: u64,
        byte_size: u64,
    ) -> Result<(), ApiError> {
        let file_name = key.strip_prefix('/').unwrap_or(key);
        if file_name.is_empty() || file_name.contains(['/', '\0']) || file_name.starts_with('.') {
            return Err(refused(format!(
                "key `{key}` is no name of shared memory: expected one such as `/my_region`"
            )));
        }
        let path = self.folder.join(file_name);
        let open = || -> std::io::Result<File> {
            let named = std::fs::symlink_metadata(&path)?;
            if !named.is_file() {
                return Err(std::io::Error::other("it is no shared memory"));
            }
            let file = File::options().read(true).write(true).open(&path)?;
            let opened = file.metadata()?;
            if (named.dev(), named.ino()) != (opened.dev(), opened.ino()) {
                return Err(std::io::Error::other("it changed while it was opened"));
            }
            let end = offset.checked_add(byte_size);
            if end.is_none_or(|end| end > opened.len()) {
                return Err(std::io::Error::other(format!(
                    "it has {} bytes, {byte_size} from {offset} were asked for",
                    opened.len()
                )));
            }
            Ok(file)
        };
        let file =
            open().map_err(|error| refused(format!("shared memory `{key}` cannot be used: {error}")))?;
        let mut regions = self.regions.write().unwrap_or_else(PoisonError::into_inner);
        let own = (caller(), name.to_owned());
        if regions.contains_key(&own) {
            return Err(refused(format!(
                "shared memory region `{name}` is registered already"
            )));
        }
        if regions.len() >= MAX_REGIONS {
            return Err(refused(format!(
                "{MAX_REGIONS} regions are registered, and no more are taken: unregister those that are done"
            )));
        }
        let region = Region {
            name: name.to_owned(),
            key: key.to_owned(),
            offset,
            byte_size,
            file,
        };
        regions.insert(own, Arc::new(region));
        Ok(())
    }

    /// Forgets a region of the caller, or all of theirs. One that is not there is no error, as in Triton.
    pub(crate) fn unregister(&self, name: Option<&str>) {
        let mut regions = self.regions.write().unwrap_or_else(PoisonError::into_inner);
        match name {
            Some(name) => {
                regions.remove(&(caller(), name.to_owned()));
            }
            None => {
                let own = caller();
                regions.retain(|(owner, _), _| *owner != own);
            }
        }
    }

    /// One region of the caller, or all of theirs.
    pub(crate) fn list(&self, name: Option<&str>) -> Result<Vec<Arc<Region>>, ApiError> {
        match name {
            Some(name) => Ok(vec![self.region(name)?]),
            None => {
                let regions = self.regions.read().unwrap_or_else(PoisonError::into_inner);
                let own = caller();
                let of_caller = regions.iter().filter(|((owner, _), _)| *owner == own);
                Ok(of_caller.map(|(_, region)| Arc::clone(region)).collect())
            }
        }
    }

    fn region(&self, name: &str) -> Result<Arc<Region>, ApiError> {
        let regions = self.regions.read().unwrap_or_else(PoisonError::into_inner);
        let found = regions.get(&(caller(), name.to_owned())).cloned();
        found.ok_or_else(|| {
            ApiError::not_found(
                "shared_memory",
                format!("there is no shared memory region `{name}`: register it first"),
            )
        })
    }

    /// Refuses a place that is not there, before anything is done for it.
    pub(crate) fn check(&self, place: &Place) -> Result<(), ApiError> {
        self.place(place).map(|_| ())
    }

    fn place(&self, place: &Place) -> Result<(Arc<Region>, u64), ApiError> {
        let region = self.region(&place.region)?;
        if place.byte_size > MAX_BYTES {
            return Err(refused(format!(
                "{} bytes of region `{}` were asked for, and a tensor has at most {MAX_BYTES}",
                place.byte_size, place.region
            )));
        }
        let end = place.offset.checked_add(place.byte_size);
        if end.is_none_or(|end| end > region.byte_size) {
            return Err(refused(format!(
                "region `{}` has {} bytes, {} from {} were asked for",
                place.region, region.byte_size, place.byte_size, place.offset
            )));
        }
        let at = region.offset + place.offset;
        Ok((region, at))
    }

    /// Copies the bytes of a tensor out of a region. `budget` is what the request may still copy.
    pub(crate) fn read(&self, place: &Place, budget: &mut u64) -> Result<Bytes, ApiError> {
        *budget = budget.checked_sub(place.byte_size).ok_or_else(|| {
            refused(format!(
                "the request's inputs in shared memory have more than {REQUEST_BYTES} bytes together; send fewer rows a request"
            ))
        })?;
        let (region, at) = self.place(place)?;
        let mut bytes = vec![0; usize::try_from(place.byte_size).unwrap_or(0)];
        let read = region.file.read_exact_at(&mut bytes, at);
        read.map_err(|error| refused(format!("region `{}` cannot be read: {error}", place.region)))?;
        Ok(bytes.into())
    }

    /// Copies the bytes of a tensor into a region, and says how many they were.
    pub(crate) fn write(&self, place: &Place, tensor: &Tensor) -> Result<u64, ApiError> {
        let raw = raw_bytes(tensor);
        let length = raw.len() as u64;
        if length > place.byte_size {
            return Err(refused(format!(
                "output `{}` has {length} bytes, and {} were set aside for it in region `{}`",
                tensor.name, place.byte_size, place.region
            )));
        }
        let (region, at) = self.place(place)?;
        let written = region.file.write_all_at(&raw, at);
        written.map_err(|error| refused(format!("region `{}` cannot be written: {error}", place.region)))?;
        Ok(length)
    }
}

/// A tensor's elements as they travel: byte strings each after their length.
pub(crate) fn raw_bytes(tensor: &Tensor) -> Bytes {
    match &tensor.data {
        TensorData::Fixed(bytes) => bytes.clone(),
        TensorData::Strings(strings) => {
            let mut raw = Vec::with_capacity(tensor.bytes());
            for string in strings {
                let bytes = string.as_deref().unwrap_or_default();
                raw.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                raw.extend_from_slice(bytes);
            }
            raw.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_read_and_written_within_its_bounds_and_nothing_else_is() {
        let dir = tempfile::TempDir::new().unwrap();
        let memory = SharedMemory::under(dir.path());
        std::fs::write(dir.path().join("area"), [0_u8; 32]).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        for (key, why) in [
            ("/../area", "no name of shared memory"),
            ("", "no name"),
            ("/.hidden", "no name"),
            ("/link", "it is no shared memory"),
            ("/nothing", "cannot be used"),
        ] {
            let error = memory.register("r", key, 0, 8).unwrap_err();
            assert!(error.message.contains(why), "{key}: {error}");
        }
        let error = memory.register("r", "/area", 16, 17).unwrap_err();
        assert!(error.message.contains("it has 32 bytes"), "{error}");
        memory.register("r", "/area", 16, 16).unwrap();
        assert!(memory.register("r", "/area", 0, 1).is_err());

        let place = |offset, byte_size| Place {
            region: "r".to_owned(),
            offset,
            byte_size,
        };
        let tensor = Tensor::of_f32("x", vec![2], &[1.5, 2.5]).unwrap();
        assert_eq!(memory.write(&place(8, 8), &tensor).unwrap(), 8);
        assert_eq!(memory.read(&place(8, 8), &mut 64).unwrap(), raw_bytes(&tensor));
        assert!(memory.write(&place(8, 4), &tensor).is_err());
        assert!(
            memory.read(&place(8, 8), &mut 7).is_err(),
            "beyond what the request may copy"
        );
        assert!(memory.read(&place(8, 9), &mut 64).is_err());
        assert!(memory.read(&place(u64::MAX, 2), &mut 64).is_err());
        assert_eq!(memory.list(None).unwrap()[0].key, "/area");
        memory.unregister(Some("r"));
        assert!(memory.list(Some("r")).is_err());
    }

    #[test]
    fn a_region_is_its_users_own() {
        let dir = tempfile::TempDir::new().unwrap();
        let memory = SharedMemory::under(dir.path());
        std::fs::write(dir.path().join("area"), [0_u8; 32]).unwrap();
        let place = Place {
            region: "r".to_owned(),
            offset: 0,
            byte_size: 8,
        };
        let (ada, bob) = (|| "ada".to_owned(), || "bob".to_owned());
        blocking_for(ada(), || memory.register("r", "/area", 0, 8)).unwrap();
        let tensor = Tensor::of_f32("x", vec![2], &[1.5, 2.5]).unwrap();
        blocking_for(bob(), || {
            for error in [
                memory.check(&place).unwrap_err(),
                memory.read(&place, &mut 64).unwrap_err(),
                memory.write(&place, &tensor).unwrap_err(),
            ] {
                assert!(
                    error.message.contains("there is no shared memory region"),
                    "{error}"
                );
            }
            assert!(memory.list(None).unwrap().is_empty());
            // The same name is free for another user, and forgetting all forgets one's own.
            memory.register("r", "/area", 8, 8).unwrap();
            memory.unregister(None);
            assert!(memory.list(None).unwrap().is_empty());
        });
        assert!(memory.check(&place).is_err(), "nor is it there for nobody");
        blocking_for(ada(), || memory.check(&place)).unwrap();
    }
}
