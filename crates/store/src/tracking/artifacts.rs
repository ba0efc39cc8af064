//! The names of the artifact proxy: a tree of folders and files, whose bytes are objects.

use tidemill_core::clock::Timestamp;
use tidemill_core::digest::Digest;

use crate::column::{Fields, bind};
use crate::error::StoreError;
use crate::objects::{Entry, Obstacle};
use crate::tx::{ReadTx, Tx};

/// A file of the proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArtifactRow {
    /// Of its bytes.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// When it got its name.
    pub modified_at: Timestamp,
}

/// What a removal took away.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Removed {
    /// Names, folders among them.
    pub names: u64,
    /// Digests of files; nothing else may refer to some of them.
    pub digests: Vec<Digest>,
}

/// Folder and last name of a path.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    Nothing,
    Folder,
    File(ArtifactRow),
}

fn find(tx: &ReadTx<'_>, path: &str) -> Result<Found, StoreError> {
    let (parent, name) = split(path);
    let sql = "SELECT digest, size, modified_at FROM artifacts WHERE parent = ?1 AND name = ?2";
    let found = tx.first(sql, bind![parent, name], |row| {
        let mut fields = Fields::of(row);
        let digest: Option<Digest> = fields.next()?;
        let (size, modified_at) = (fields.next()?, fields.next()?);
        Ok(digest.map_or(Found::Folder, |digest| {
            Found::File(ArtifactRow {
                digest,
                size,
                modified_at,
            })
        }))
    })?;
    Ok(found.unwrap_or(Found::Nothing))
}

/// Gives a file its name, and its folders theirs. Returns the digest that the name stood for before, if it was another one.
pub fn put(
    tx: &mut Tx<'_>,
    path: &str,
    row: &ArtifactRow,
) -> Result<Result<Option<Digest>, Obstacle>, StoreError> {
    let before = match find(tx, path)? {
        Found::Folder => return Ok(Err(Obstacle::Occupied)),
        Found::File(before) => Some(before.digest),
        Found::Nothing => None,
    };
    let columns = "parent, name, digest, size, modified_at";
    if before.is_none() {
        let mut missing = Vec::new();
        let mut folder = split(path).0;
        while !folder.is_empty() {
            match find(tx, folder)? {
                Found::Folder => break,
                Found::File(_) => return Ok(Err(Obstacle::Occupied)),
                Found::Nothing => missing.push(folder),
            }
            folder = split(folder).0;
        }
        for folder in missing {
            let (parent, name) = split(folder);
            let values = bind![parent, name, Option::<Digest>::None, 0u64, row.modified_at];
            tx.insert("artifacts", columns, values)?;
        }
    }
    let (parent, name) = split(path);
    let values = bind![parent, name, row.digest, row.size, row.modified_at];
    tx.upsert("artifacts", columns, "parent, name", values)?;
    Ok(Ok(before.filter(|before| *before != row.digest)))
}

/// A file; `None` if there is none or it is a folder.
pub fn get(tx: &ReadTx<'_>, path: &str) -> Result<Option<ArtifactRow>, StoreError> {
    Ok(match find(tx, path)? {
        Found::File(row) => Some(row),
        Found::Nothing | Found::Folder => None,
    })
}

/// What is in a folder, by name; nothing if that is no folder. The root's path is empty.
pub fn list(tx: &ReadTx<'_>, folder: &str) -> Result<Vec<Entry>, StoreError> {
    let sql = "SELECT name, digest, size FROM artifacts WHERE parent = ?1 ORDER BY name";
    tx.rows(sql, bind![folder], |row| {
        let mut fields = Fields::of(row);
        let name = fields.next()?;
        let digest: Option<Digest> = fields.next()?;
        let size = fields.next()?;
        Ok(Entry {
            name,
            size: digest.map(|_| size),
        })
    })
}

/// Bytes of the files below a path, each name counted.
pub fn size(tx: &ReadTx<'_>, path: &str) -> Result<u64, StoreError> {
    let own = get(tx, path)?.map_or(0, |row| row.size);
    let (from, until) = below(path);
    let sql =
        "SELECT coalesce(sum(size), 0) FROM artifacts WHERE parent = ?1 OR (parent >= ?2 AND parent < ?3)";
    // PostgreSQL's sum is a decimal number unless told otherwise.
    let sql = sql.replace("coalesce(sum(size), 0)", "CAST(coalesce(sum(size), 0) AS BIGINT)");
    let inner: u64 = tx.one(&sql, bind![path, from, until], |row| Fields::of(row).next())?;
    Ok(own + inner)
}

/// The range of the paths that lie below a path. `0` comes right after `/`.
fn below(path: &str) -> (String, String) {
    if path.is_empty() {
        // Above every text: no UTF-8 has a larger first character.
        return (String::new(), char::MAX.to_string());
    }
    (format!("{path}/"), format!("{path}0"))
}

/// Removes at most `limit` of the names at and below a path, the path's own last. Ends with fewer than `limit`. The empty path, which
/// is everybody's, removes nothing.
pub fn remove_some(tx: &mut Tx<'_>, path: &str, limit: u32) -> Result<Removed, StoreError> {
    if path.is_empty() {
        return Ok(Removed::default());
    }
    let (from, until) = below(path);
    let sql = "SELECT parent, name, digest FROM artifacts WHERE parent = ?1 OR (parent >= ?2 AND parent < ?3)
        ORDER BY parent DESC, name LIMIT ?4";
    let mut names: Vec<(String, String, Option<Digest>)> =
        tx.rows(sql, bind![path, from, until, limit], |row| {
            let mut fields = Fields::of(row);
            Ok((fields.next()?, fields.next()?, fields.next()?))
        })?;
    if names.len() < limit as usize {
        let (parent, name) = split(path);
        let digest = match find(tx, path)? {
            Found::Nothing => None,
            Found::Folder => Some(None),
            Found::File(row) => Some(Some(row.digest)),
        };
        names.extend(digest.map(|digest| (parent.to_owned(), name.to_owned(), digest)));
    }
    let mut removed = Removed::default();
    for (parent, name, digest) in names {
        let sql = "DELETE FROM artifacts WHERE parent = ?1 AND name = ?2";
        tx.execute(sql, bind![parent, name])?;
        removed.names += 1;
        removed.digests.extend(digest);
    }
    Ok(removed)
}

/// Those of `digests` that no name stands for, each once. Whatever else comes to keep objects of kind
/// [`crate::ContentKind::Artifact`] has to be asked here as well.
///
/// The Parquet that a file without a name became goes with it.
pub fn unreferenced(tx: &mut Tx<'_>, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
    let mut distinct = digests.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let mut free = Vec::new();
    for digest in distinct {
        if has_name(tx, digest)? {
            continue;
        }
        free.push(digest);
        for parquet in super::tables::forget(tx, digest)? {
            if !has_name(tx, parquet)? {
                free.push(parquet);
            }
        }
    }
    free.sort_unstable();
    free.dedup();
    Ok(free)
}

/// Whether a name or something else stands for these bytes.
pub fn has_name(tx: &ReadTx<'_>, digest: Digest) -> Result<bool, StoreError> {
    Ok(
        tx.exists("SELECT 1 FROM artifacts WHERE digest = ?1 LIMIT 1", bind![digest])?
            || crate::wandb::artifacts::refers(tx, digest)?
            || super::tables::refers(tx, digest)?,
    )
}

/// Where a run of a workspace keeps its artifacts.
pub fn root_of_run(tx: &ReadTx<'_>, workspace: &str, run_id: &str) -> Result<Option<String>, StoreError> {
    let sql = "SELECT r.artifact_uri FROM tracked_runs r JOIN experiments e ON e.id = r.experiment
        WHERE r.run_id = ?1 AND e.workspace = ?2";
    tx.first(sql, bind![run_id, workspace], |row| Fields::of(row).next())
}

/// Where the files of a model version are: where they were stored, or else where they came from.
pub fn root_of_version(
    tx: &ReadTx<'_>,
    workspace: &str,
    model: &str,
    version: i64,
) -> Result<Option<String>, StoreError> {
    let sql = "SELECT coalesce(v.storage_location, v.source) FROM model_versions v JOIN models m ON m.number = v.model
        WHERE m.workspace = ?1 AND m.name = ?2 AND v.version = ?3";
    tx.first(sql, bind![workspace, model, version], |row| {
        Fields::of(row).next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, digest, temp_store};

    fn row(text: &str) -> ArtifactRow {
        ArtifactRow {
            digest: digest(text),
            size: text.len() as u64,
            modified_at: at(1),
        }
    }

    fn names(tx: &ReadTx<'_>, folder: &str) -> Vec<(String, Option<u64>)> {
        let entries = list(tx, folder).unwrap().into_iter();
        entries.map(|entry| (entry.name, entry.size)).collect()
    }

    #[test]
    fn names_make_a_tree_and_go_with_their_folder() {
        let (_dir, store) = temp_store();
        store
            .write_blocking(|tx| {
                assert_eq!(put(tx, "1/run/artifacts/a.txt", &row("one"))?, Ok(None));
                assert_eq!(put(tx, "1/run/artifacts/d/b.txt", &row("two"))?, Ok(None));
                assert_eq!(put(tx, "1/run/artifacts-2", &row("one"))?, Ok(None));
                let file = |name: &str, size| (name.to_owned(), Some(size));
                let folder = |name: &str| (name.to_owned(), None);
                assert_eq!(names(tx, ""), [folder("1")]);
                assert_eq!(names(tx, "1/run"), [folder("artifacts"), file("artifacts-2", 3)]);
                assert_eq!(names(tx, "1/run/artifacts"), [file("a.txt", 3), folder("d")]);
                assert!(names(tx, "1/run/artifacts/a.txt").is_empty());
                assert_eq!(get(tx, "1/run/artifacts/d/b.txt")?, Some(row("two")));
                assert_eq!(get(tx, "1/run/artifacts/d")?, None);
                assert_eq!(get(tx, "none")?, None);
                assert_eq!(size(tx, "1/run/artifacts")?, 6);
                assert_eq!(size(tx, "")?, 9);

                // A folder is no file, and a file no folder.
                assert_eq!(put(tx, "1/run", &row("x"))?, Err(Obstacle::Occupied));
                assert_eq!(
                    put(tx, "1/run/artifacts-2/x", &row("x"))?,
                    Err(Obstacle::Occupied)
                );
                // The old bytes are told, so that they can be freed.
                assert_eq!(
                    put(tx, "1/run/artifacts/a.txt", &row("new"))?,
                    Ok(Some(digest("one")))
                );
                assert_eq!(put(tx, "1/run/artifacts/a.txt", &row("new"))?, Ok(None));

                let mut all = Removed::default();
                loop {
                    let some = remove_some(tx, "1/run/artifacts", 2)?;
                    all.names += some.names;
                    all.digests.extend(&some.digests);
                    if some.names < 2 {
                        break;
                    }
                }
                assert_eq!(all.names, 4);
                assert_eq!(names(tx, "1/run"), [file("artifacts-2", 3)]);
                let free = unreferenced(tx, &[digest("new"), digest("one"), digest("new")])?;
                assert_eq!(free, [digest("new")]);
                assert_eq!(remove_some(tx, "", 9)?.names, 0, "never all");
                assert_eq!(remove_some(tx, "1", 9)?.names, 3);
                Ok(())
            })
            .unwrap();
    }
}
