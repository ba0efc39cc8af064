//! From files to an archive. The same files give the same bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use tidemill_core::deployments::{
    BundleManifest, FILES_FOLDER, MANIFEST_FILE, MAX_BUNDLE_BYTES as MAX_BYTES, MAX_BUNDLE_FILES as MAX_FILES,
};
use tidemill_core::ports::PortError;

/// Writes an archive of `files`: names below the bundle's folder, and where each is.
///
/// # Errors
/// If they cannot be read, the archive not written, or they are too many or too large.
pub fn pack(
    manifest: &BundleManifest,
    files: &BTreeMap<String, PathBuf>,
    archive: &Path,
) -> Result<(), PortError> {
    check_size(files)?;
    let failed = |error: io::Error| {
        PortError::upstream(
            "bundle_io",
            format!("cannot write `{}`: {error}", archive.display()),
        )
    };
    let file = File::create(archive).map_err(failed)?;
    let mut encoder = zstd::Encoder::new(BufWriter::new(file), 3).map_err(failed)?;
    encoder.include_checksum(true).map_err(failed)?;
    let mut tar = tar::Builder::new(encoder);
    tar.mode(tar::HeaderMode::Deterministic);
    let mut text = serde_json::to_vec_pretty(manifest).map_err(|error| failed(error.into()))?;
    text.push(b'\n');
    append(&mut tar, MANIFEST_FILE, text.len() as u64, false, text.as_slice()).map_err(failed)?;
    for (name, path) in files {
        let unreadable = |error: io::Error| {
            PortError::caller("bundle_io", format!("cannot read `{}`: {error}", path.display()))
        };
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(unreadable(io::Error::other("it is no file")));
        }
        // What a file grows by while it is read is left out.
        let content = BufReader::new(file).take(metadata.len());
        append(
            &mut tar,
            &format!("{FILES_FOLDER}/{name}"),
            metadata.len(),
            is_executable(&metadata),
            content,
        )
        .map_err(failed)?;
    }
    let encoder = tar.into_inner().map_err(failed)?;
    let mut file = encoder.finish().map_err(failed)?;
    file.flush().map_err(failed)
}

#[cfg(unix)]
fn is_executable(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o100 != 0
}

#[cfg(not(unix))]
fn is_executable(_: &std::fs::Metadata) -> bool {
    false
}

fn append(
    tar: &mut tar::Builder<impl Write>,
    name: &str,
    size: u64,
    executable: bool,
    content: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(size);
    header.set_mode(if executable { 0o755 } else { 0o644 });
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    tar.append_data(&mut header, name, content)
}

fn check_size(files: &BTreeMap<String, PathBuf>) -> Result<(), PortError> {
    let too_large = |message: String| PortError::caller("bundle_too_large", message);
    if files.len() > MAX_FILES {
        return Err(too_large(format!(
            "the bundle would have {} files, at most {MAX_FILES} are taken; include less",
            files.len()
        )));
    }
    let sizes = files.iter().map(|(name, path)| {
        let size = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        (size, name)
    });
    let mut sizes: Vec<(u64, &String)> = sizes.collect();
    let whole: u64 = sizes.iter().map(|(size, _)| size).sum();
    if whole > MAX_BYTES {
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let largest: Vec<String> = sizes
            .iter()
            .take(3)
            .map(|(size, name)| format!("`{name}` ({} MiB)", size >> 20))
            .collect();
        return Err(too_large(format!(
            "the bundle would have {} MiB, at most {} are taken; the largest files are {}",
            whole >> 20,
            MAX_BYTES >> 20,
            largest.join(", ")
        )));
    }
    Ok(())
}
