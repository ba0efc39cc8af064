//! From an archive to files. Whoever made the archive is not trusted: nothing is written outside the folder, no links, no devices, no
//! more than the limits.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tidemill_core::deployments::{
    BundleManifest, FILES_FOLDER, MANIFEST_FILE, MAX_BUNDLE_BYTES as MAX_BYTES, MAX_BUNDLE_FILES as MAX_FILES,
};
use tidemill_core::ports::PortError;

/// A file's name has at most so many bytes.
const MAX_NAME: u64 = 4_096;
/// A manifest has at most so many bytes.
const MAX_MANIFEST: u64 = 1 << 20;
/// The window that is kept in memory to decompress; what asks for a larger one is no bundle of ours.
const WINDOW_LOG: u32 = 27;

fn broken(message: impl Into<String>) -> PortError {
    PortError::caller("bundle_broken", message)
}

/// Unpacks an archive into `folder`, which must not be there: it appears whole, or not at all.
///
/// # Errors
/// If it is broken or hostile, or there is no room.
pub fn unpack(archive: &Path, folder: &Path) -> Result<BundleManifest, PortError> {
    remove_left_behind(folder);
    let temporary = temporary(folder);
    let result = unpack_into(archive, &temporary).and_then(|manifest| {
        match fs::rename(&temporary, folder) {
            Ok(()) => Ok(manifest),
            // Another has unpacked the same meanwhile.
            Err(_) if folder.join(MANIFEST_FILE).is_file() => {
                let _ = fs::remove_dir_all(&temporary);
                Ok(manifest)
            }
            Err(error) => Err(io_error("rename", folder, &error)),
        }
    });
    if result.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    result
}

/// A folder of this call's own, beside the one that is to appear.
fn temporary(folder: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    folder.with_extension(format!("{}-{number}.unpacking", std::process::id()))
}

/// Removes what processes that were killed have left of the same bundle.
fn remove_left_behind(folder: &Path) {
    let (Some(parent), Some(name)) = (folder.parent(), folder.file_stem().and_then(|name| name.to_str()))
    else {
        return;
    };
    let (start, own) = (format!("{name}."), format!("{name}.{}-", std::process::id()));
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let found = entry.file_name();
        let found = found.to_str().unwrap_or_default();
        if found.starts_with(&start) && found.ends_with(".unpacking") && !found.starts_with(&own) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn io_error(action: &str, path: &Path, error: &io::Error) -> PortError {
    PortError::upstream(
        "bundle_io",
        format!("cannot {action} `{}`: {error}", path.display()),
    )
}

fn unpack_into(archive: &Path, folder: &Path) -> Result<BundleManifest, PortError> {
    let unreadable = |error: io::Error| {
        broken(format!(
            "the archive cannot be read: {error}; pack it again with `tidemill bundle`"
        ))
    };
    let file = File::open(archive).map_err(|error| io_error("open", archive, &error))?;
    let mut decoder = zstd::Decoder::new(BufReader::new(file)).map_err(unreadable)?;
    decoder.window_log_max(WINDOW_LOG).map_err(unreadable)?;
    // A few kibibytes for the header of each file.
    let limited = decoder.take(MAX_BYTES + MAX_FILES as u64 * 2_048 + MAX_MANIFEST);
    let mut tar = tar::Archive::new(limited);
    fs::create_dir_all(folder.join(FILES_FOLDER)).map_err(|error| io_error("create", folder, &error))?;
    let mut manifest = None;
    let (mut files, mut bytes) = (0_usize, 0_u64);
    let mut long_name = None;
    // Raw, because the library would read a long name into memory whatever its length.
    for entry in tar.entries().map_err(unreadable)?.raw(true) {
        let entry = entry.map_err(unreadable)?;
        let kind = entry.header().entry_type();
        if kind == tar::EntryType::GNULongName {
            long_name = Some(read_name(entry).map_err(unreadable)?);
            continue;
        }
        let path = match long_name.take() {
            Some(name) => name,
            None => entry.path().map_err(unreadable)?.into_owned(),
        };
        if kind == tar::EntryType::Directory {
            safe(&path)?;
            continue;
        }
        if kind != tar::EntryType::Regular {
            return Err(broken(format!(
                "`{}` is a link, a device or the like; a bundle has files alone",
                path.display()
            )));
        }
        let size = entry.size();
        if path == Path::new(MANIFEST_FILE) {
            let mut text = Vec::new();
            entry
                .take(MAX_MANIFEST)
                .read_to_end(&mut text)
                .map_err(unreadable)?;
            manifest = Some(BundleManifest::parse(&text)?);
            let target = folder.join(MANIFEST_FILE);
            fs::write(&target, &text).map_err(|error| io_error("write", &target, &error))?;
            continue;
        }
        files += 1;
        bytes = bytes.saturating_add(size);
        if files > MAX_FILES || bytes > MAX_BYTES {
            return Err(PortError::caller(
                "bundle_too_large",
                format!(
                    "the bundle has more than {MAX_FILES} files or {} MiB; include less",
                    MAX_BYTES >> 20
                ),
            ));
        }
        let executable = entry.header().mode().unwrap_or(0) & 0o100 != 0;
        write(folder, &safe(&path)?, executable, entry).map_err(|(path, error)| match error.kind() {
            // What is wrong with the archive comes out while it is copied.
            io::ErrorKind::Other | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
                unreadable(error)
            }
            _ => io_error("write", &path, &error),
        })?;
    }
    manifest.ok_or_else(|| {
        broken(format!(
            "the archive has no `{MANIFEST_FILE}`; pack it with `tidemill bundle`"
        ))
    })
}

/// The name that an entry holds for the next one.
fn read_name(entry: impl Read) -> io::Result<PathBuf> {
    let mut name = Vec::new();
    entry.take(MAX_NAME + 1).read_to_end(&mut name)?;
    if name.len() as u64 > MAX_NAME {
        return Err(io::Error::other(format!("a name has more than {MAX_NAME} bytes")));
    }
    while name.last() == Some(&0) {
        name.pop();
    }
    String::from_utf8(name)
        .map(PathBuf::from)
        .map_err(|_| io::Error::other("a name is not UTF-8"))
}

/// The path, if it stays below the folder and is below its files.
fn safe(path: &Path) -> Result<PathBuf, PortError> {
    let outside = || broken(format!("`{}` leads out of the bundle", path.display()));
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            _ => return Err(outside()),
        }
    }
    if !clean.starts_with(FILES_FOLDER) {
        return Err(broken(format!(
            "`{}` is not below `{FILES_FOLDER}/`",
            path.display()
        )));
    }
    Ok(clean)
}

fn write(
    folder: &Path,
    path: &Path,
    executable: bool,
    mut content: impl Read,
) -> Result<(), (PathBuf, io::Error)> {
    let target = folder.join(path);
    let failed = |error| (target.clone(), error);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    let mut file = File::create_new(&target).map_err(failed)?;
    io::copy(&mut content, &mut file).map_err(failed)?;
    if executable {
        mark_executable(&file).map_err(failed)?;
    }
    // The folder is trusted by its name later on, also after a power cut.
    file.flush().and_then(|()| file.sync_data()).map_err(failed)
}

#[cfg(unix)]
fn mark_executable(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn mark_executable(_: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Map;
    use tidemill_core::deployments::BundledModel;

    use super::*;
    use crate::bundle::pack;

    fn manifest() -> BundleManifest {
        BundleManifest {
            format: 1,
            name: "f".to_owned(),
            model: BundledModel::Function {
                target: "app:f".to_owned(),
            },
            python: None,
            serving: Map::new(),
        }
    }

    fn archive_of(dir: &Path, write: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> PathBuf {
        let mut tar = tar::Builder::new(Vec::new());
        write(&mut tar);
        let bytes = zstd::encode_all(tar.into_inner().unwrap().as_slice(), 1).unwrap();
        let path = dir.join("x.tidemill");
        fs::write(&path, bytes).unwrap();
        path
    }

    fn entry(tar: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, name: &[u8], content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        if kind.is_symlink() {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        tar.append(&header, content).unwrap();
    }

    #[test]
    fn what_is_packed_comes_out_again_and_the_same_files_give_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("in/sub")).unwrap();
        fs::write(dir.path().join("in/app.py"), "x = 1\n").unwrap();
        fs::write(dir.path().join("in/sub/model.bin"), vec![7; 100_000]).unwrap();
        let file = |name: &str| (name.to_owned(), dir.path().join("in").join(name));
        let files: BTreeMap<_, _> = [file("app.py"), file("sub/model.bin")].into();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        pack(&manifest(), &files, &a).unwrap();
        // Another time and other rights make no difference.
        fs::write(dir.path().join("in/app.py"), "x = 1\n").unwrap();
        pack(&manifest(), &files, &b).unwrap();
        assert_eq!(fs::read(&a).unwrap(), fs::read(&b).unwrap());
        let out = dir.path().join("out");
        assert_eq!(unpack(&a, &out).unwrap(), manifest());
        assert_eq!(
            fs::read(out.join("files/sub/model.bin")).unwrap(),
            vec![7; 100_000]
        );
        assert_eq!(fs::read_to_string(out.join("files/app.py")).unwrap(), "x = 1\n");
    }

    #[test]
    fn paths_that_lead_out_and_links_are_refused_and_leave_nothing() {
        use tar::EntryType;
        let dir = tempfile::tempdir().unwrap();
        let cases: [(EntryType, &[u8], &str); 6] = [
            (EntryType::Regular, b"files/../../evil", "leads out"),
            (EntryType::Regular, b"/tmp/evil", "leads out"),
            (EntryType::Regular, b"other/evil", "not below"),
            (EntryType::Symlink, b"files/link", "link"),
            (EntryType::Link, b"files/link", "link"),
            (EntryType::Fifo, b"files/pipe", "device"),
        ];
        for (kind, name, said) in cases {
            let path = archive_of(dir.path(), |tar| entry(tar, kind, name, b""));
            let error = unpack(&path, &dir.path().join("out")).unwrap_err();
            assert_eq!(error.code, "bundle_broken");
            assert!(error.message.contains(said), "{error}");
            assert!(!dir.path().join("out").exists() && !dir.path().join("out.unpacking").exists());
        }
    }

    #[test]
    fn nonsense_and_what_is_cut_off_are_broken_and_a_second_file_of_a_name_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let path = dir.path().join("nonsense");
        fs::write(&path, b"no archive").unwrap();
        assert_eq!(unpack(&path, &out).unwrap_err().code, "bundle_broken");
        let app = dir.path().join("app.py");
        fs::write(
            &app,
            (0..50_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>(),
        )
        .unwrap();
        let whole = dir.path().join("whole");
        pack(&manifest(), &[("app.py".to_owned(), app)].into(), &whole).unwrap();
        let bytes = fs::read(&whole).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert_eq!(unpack(&path, &out).unwrap_err().code, "bundle_broken");
        let twice = archive_of(dir.path(), |tar| {
            entry(tar, tar::EntryType::Regular, b"files/a", b"1");
            entry(tar, tar::EntryType::Regular, b"files/a", b"2");
        });
        assert!(unpack(&twice, &out).is_err());
        let empty = archive_of(dir.path(), |_| {});
        assert!(
            unpack(&empty, &out)
                .unwrap_err()
                .message
                .contains("has no `tidemill.json`")
        );
    }

    #[test]
    fn several_who_unpack_the_same_do_not_disturb_each_other_and_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let app = dir.path().join("app.py");
        fs::write(&app, vec![b'#'; 300_000]).unwrap();
        let archive = dir.path().join("whole");
        pack(&manifest(), &[("app.py".to_owned(), app)].into(), &archive).unwrap();
        let out = dir.path().join("unpacked/digest");
        fs::create_dir_all(out.with_extension("1-0.unpacking").join("files")).unwrap();
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(|| unpack(&archive, &out))).collect();
            for one in all {
                assert_eq!(one.join().unwrap().unwrap(), manifest());
            }
        });
        let left: Vec<_> = fs::read_dir(dir.path().join("unpacked"))
            .unwrap()
            .flatten()
            .collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(fs::read(out.join("files/app.py")).unwrap().len(), 300_000);
    }

    #[test]
    fn long_names_come_out_again_and_a_name_without_end_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let name = format!("{}/{}.py", "d".repeat(120), "f".repeat(120));
        let app = dir.path().join("app.py");
        fs::write(&app, "x = 1\n").unwrap();
        let archive = dir.path().join("a");
        pack(&manifest(), &[(name.clone(), app)].into(), &archive).unwrap();
        let out = dir.path().join("out");
        unpack(&archive, &out).unwrap();
        assert!(out.join(FILES_FOLDER).join(name).is_file());
        let endless = archive_of(dir.path(), |tar| {
            entry(
                tar,
                tar::EntryType::GNULongName,
                b"././@LongLink",
                &vec![b'a'; 1 << 20],
            );
        });
        let error = unpack(&endless, &dir.path().join("other")).unwrap_err();
        assert!(
            error.message.contains("a name has more than 4096 bytes"),
            "{error}"
        );
    }

    #[test]
    fn a_bomb_ends_at_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        // A header that claims more than a bundle may have, with a stream of zeros behind it.
        let path = archive_of(dir.path(), |tar| {
            let mut header = tar::Header::new_gnu();
            header.set_path("files/bomb").unwrap();
            header.set_size(MAX_BYTES + 1);
            header.set_cksum();
            tar.get_mut().extend_from_slice(header.as_bytes());
        });
        let error = unpack(&path, &dir.path().join("out")).unwrap_err();
        assert_eq!(error.code, "bundle_too_large");
    }
}
