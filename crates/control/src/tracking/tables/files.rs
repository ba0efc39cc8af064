//! Which files are tables, where their bytes are, and what they are called in SQL.

use std::collections::HashSet;
use std::str::FromStr as _;

use tidemill_core::digest::Digest;
use tidemill_core::ports::{TableColumn, TableFormat};
use tidemill_store::ReadTx;
use tidemill_store::tracking::{runs as tracked, tables, tags};
use tidemill_store::wandb::artifacts;
use tidemill_store::wandb::runs::WandbName;

use super::{TableHome, format_of, word};
use crate::tracking::artifacts::Place;
use crate::tracking::wandb::ArtifactView;
use crate::tracking::{Caller, Result, Tracking, TrackingError, safe_name};

/// W&B's tables end so.
pub(crate) const WANDB_TABLE: &str = ".table.json";
/// Where W&B's client puts the tables of a run.
const MEDIA: &str = "media/table";
/// The tag in which MLflow's client lists the tables of a run.
const LOGGED_TABLES: &str = "mlflow.loggedArtifacts";
/// So many files are looked at to find tables.
const MOST_FILES: usize = 2_000;
/// The type of the artifacts that W&B's client makes of the tables of a run: these are whole, the run's own files are cut.
const RUN_TABLE: &str = "run_table";

/// Where bytes are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Bytes {
    /// An object.
    Object(Digest),
    /// A file of a run or a model, wherever those are.
    Place(Place),
}

/// A file of rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RowsFile {
    /// Stands for the bytes: their digest, or one of their place and mark.
    pub key: Digest,
    /// Where they are.
    pub bytes: Bytes,
    /// How many.
    pub size: u64,
    /// How they hold rows.
    pub format: TableFormat,
}

/// How far a table has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TableState {
    /// It is Parquet, with so many rows of these columns.
    Ready(u64, Vec<TableColumn>),
    /// It will be when it is first asked, or sooner.
    Waiting,
    /// It is none, for this reason.
    Failed(String),
}

/// A table of a run or an artifact.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableFile {
    /// What it is called in SQL.
    pub name: String,
    /// The file's path in the run or artifact.
    pub path: String,
    /// The artifact that holds it, `name:v3`; none for a file of the run itself.
    pub artifact: Option<String>,
    /// Bytes of the file.
    pub size: u64,
    /// How far it has come.
    pub state: TableState,
    pub(super) file: RowsFile,
}

/// A name for SQL out of a path: the key that the client logged it under.
fn base_name(path: &str) -> String {
    let stem = match path.strip_suffix(WANDB_TABLE) {
        Some(stem) => stem.strip_prefix(MEDIA).unwrap_or(stem).trim_matches('/'),
        None => path.rsplit_once('.').map_or(path, |(stem, _)| stem),
    };
    // `key_3_0a1b…`: the step and the digest that the client appends.
    let key = match stem
        .rsplit_once('_')
        .and_then(|(rest, digest)| Some((rest.rsplit_once('_')?, digest)))
    {
        Some(((key, step), digest))
            if path.starts_with(MEDIA)
                && !key.is_empty()
                && step.bytes().all(|b| b.is_ascii_digit())
                && digest.len() >= 16
                && digest.bytes().all(|b| b.is_ascii_hexdigit()) =>
        {
            key
        }
        _ => stem,
    };
    let plain: String = key
        .chars()
        .map(|c| if c.is_alphanumeric() || c == '_' { c } else { '_' })
        .collect();
    match plain.chars().next() {
        None => "table".to_owned(),
        Some(first) if first.is_ascii_digit() => format!("_{plain}"),
        Some(_) => plain,
    }
}

/// The step that is part of the name of a run's table.
fn step_of(path: &str) -> i64 {
    let stem = path.strip_suffix(WANDB_TABLE).unwrap_or(path);
    let step = stem
        .rsplit_once('_')
        .and_then(|(rest, _)| rest.rsplit_once('_'))
        .and_then(|(_, step)| step.parse().ok());
    step.unwrap_or(0)
}

/// An artifact by its name and version.
fn called(view: &ArtifactView) -> String {
    format!(
        "{}:v{}",
        view.collection.name,
        view.artifact.version.unwrap_or_default()
    )
}

/// The digest of an artifact's file.
fn blob_of(
    tx: &ReadTx<'_>,
    workspace: &str,
    artifact: i64,
    path: &str,
) -> std::result::Result<Option<artifacts::Blob>, tidemill_store::StoreError> {
    match artifacts::file(tx, artifact, path)? {
        Some(file) if file.reference.is_none() => artifacts::blob(tx, workspace, &file.md5),
        _ => Ok(None),
    }
}

impl Tracking {
    /// A file of rows, wherever it is.
    pub(super) async fn table_file(&self, caller: &Caller, home: &TableHome, path: &str) -> Result<RowsFile> {
        let path = safe_name(path)?;
        let format = format_of(&path).ok_or_else(|| {
            TrackingError::invalid(format!(
                "`{path}` is no table: names of tables end with `.json`, `.csv`, `.tsv`, `.parquet` or `.pq`"
            ))
        })?;
        let root = match home {
            TableHome::Run(run_id, None) => self.artifact_root_of_run(caller, run_id).await?,
            TableHome::Version(name, version) => self.artifact_root_of_version(caller, name, version).await?,
            TableHome::LoggedModel(model_id) => self.artifact_root_of_model(caller, model_id).await?,
            TableHome::Run(_, Some(_)) | TableHome::Artifact(..) => {
                let view = self.artifact_of_tables(caller, home).await?;
                let (workspace, wanted, number) =
                    (caller.workspace.clone(), path.clone(), view.artifact.number);
                let blob = self
                    .store()
                    .read(move |tx| blob_of(tx, &workspace, number, &wanted))
                    .await?;
                let blob = blob.ok_or_else(|| {
                    TrackingError::not_found(format!(
                        "artifact `{}` has no file `{path}` here",
                        called(&view)
                    ))
                })?;
                return Ok(of_blob(blob, format));
            }
        };
        self.file_at(self.place_of(caller, &root, &path).await?, format)
            .await
    }

    async fn file_at(&self, place: Place, format: TableFormat) -> Result<RowsFile> {
        let opened = self.open_artifact(place.clone()).await?;
        let size = opened.bytes.size();
        let digest = if matches!(place, Place::Object(_)) {
            Digest::from_str(&opened.etag).ok()
        } else {
            None
        };
        Ok(match digest {
            Some(digest) => RowsFile {
                key: digest,
                bytes: Bytes::Object(digest),
                size,
                format,
            },
            None => RowsFile {
                key: Digest::of_parts([format!("{place:?}").as_bytes(), opened.etag.as_bytes()]),
                bytes: Bytes::Place(place),
                size,
                format,
            },
        })
    }

    /// The artifact that a home names.
    async fn artifact_of_tables(&self, caller: &Caller, home: &TableHome) -> Result<ArtifactView> {
        let unknown = |name: &str| TrackingError::not_found(format!("artifact `{name}` not found"));
        match home {
            TableHome::Artifact(at, full) => {
                let found = self.wandb_find_artifact(at.clone(), full).await?;
                found.ok_or_else(|| unknown(full))
            }
            TableHome::Run(run_id, Some(full)) => {
                let lineage = self.artifact_lineage(caller, run_id).await?;
                let linked = lineage.outputs.into_iter().chain(lineage.inputs);
                let (name, alias) = full.split_once(':').unwrap_or((full, "latest"));
                let mut views = linked
                    .map(|(view, _)| view)
                    .filter(|view| view.collection.name == name);
                let found = views.find(|view| {
                    let version = view.artifact.version.map(|version| format!("v{version}"));
                    version.as_deref() == Some(alias) || view.aliases.iter().any(|a| a == alias)
                });
                found.ok_or_else(|| {
                    TrackingError::not_found(format!("the run neither read nor wrote an artifact `{full}`"))
                })
            }
            _ => Err(unknown("")),
        }
    }

    /// The tables of a run (its own, and those in artifacts that it wrote) or of an artifact.
    pub async fn tables_of(&self, caller: &Caller, home: &TableHome) -> Result<Vec<TableFile>> {
        let mut found: Vec<(String, Option<String>, RowsFile)> = Vec::new();
        match home {
            TableHome::Run(run_id, None) => {
                let mut views: Vec<ArtifactView> = self
                    .artifact_lineage(caller, run_id)
                    .await?
                    .outputs
                    .into_iter()
                    .map(|(view, _)| view)
                    .collect();
                // Whole tables of the run first, the newest first: they have the plain names.
                views.sort_by_key(|view| {
                    (
                        view.collection.kind != RUN_TABLE,
                        std::cmp::Reverse(view.artifact.number),
                    )
                });
                for view in views.iter().filter(|view| view.collection.kind == RUN_TABLE) {
                    self.tables_in_artifact(caller, view, &mut found).await?;
                }
                self.tables_in_run(caller, run_id, &mut found).await?;
                for view in views.iter().filter(|view| view.collection.kind != RUN_TABLE) {
                    self.tables_in_artifact(caller, view, &mut found).await?;
                }
            }
            TableHome::Run(_, Some(_)) | TableHome::Artifact(..) => {
                let view = self.artifact_of_tables(caller, home).await?;
                self.tables_in_artifact(caller, &view, &mut found).await?;
            }
            TableHome::Version(..) | TableHome::LoggedModel(_) => {}
        }
        let keys: Vec<(Digest, TableFormat)> =
            found.iter().map(|(_, _, file)| (file.key, file.format)).collect();
        let states = self
            .store()
            .read(move |tx| {
                let mut states = Vec::with_capacity(keys.len());
                for (key, format) in keys {
                    states.push(tables::get(tx, key, word(format))?);
                }
                Ok(states)
            })
            .await?;
        let mut taken = HashSet::new();
        let mut listed = Vec::with_capacity(found.len());
        for ((path, artifact, file), known) in found.into_iter().zip(states) {
            let base = base_name(&path);
            let mut name = base.clone();
            let mut number = 1;
            while !taken.insert(name.clone()) {
                number += 1;
                name = format!("{base}_{number}");
            }
            let state = match known {
                Some(known) if known.parquet.is_none() => TableState::Failed(known.problem),
                Some(known) => TableState::Ready(
                    known.rows,
                    serde_json::from_value(known.columns).unwrap_or_default(),
                ),
                None => TableState::Waiting,
            };
            let size = file.size;
            listed.push(TableFile {
                name,
                path,
                artifact,
                size,
                state,
                file,
            });
        }
        Ok(listed)
    }

    /// Tables among the files of an artifact.
    async fn tables_in_artifact(
        &self,
        caller: &Caller,
        view: &ArtifactView,
        found: &mut Vec<(String, Option<String>, RowsFile)>,
    ) -> Result<()> {
        let (workspace, number) = (caller.workspace.clone(), view.artifact.number);
        let files = self
            .store()
            .read(move |tx| {
                let mut tables = Vec::new();
                for file in artifacts::files(tx, number, "", MOST_FILES as u32)? {
                    let is_table = file.path.ends_with(WANDB_TABLE)
                        || matches!(
                            format_of(&file.path),
                            Some(TableFormat::Separated(_) | TableFormat::Parquet)
                        );
                    if is_table
                        && let Some(format) = format_of(&file.path)
                        && file.reference.is_none()
                        && let Some(blob) = artifacts::blob(tx, &workspace, &file.md5)?
                    {
                        tables.push((file.path, of_blob(blob, format)));
                    }
                }
                Ok(tables)
            })
            .await?;
        found.extend(
            files
                .into_iter()
                .map(|(path, file)| (path, Some(called(view)), file)),
        );
        Ok(())
    }

    /// Tables among the files of a run: where W&B's client puts them, and those that MLflow's says are some.
    async fn tables_in_run(
        &self,
        caller: &Caller,
        run_id: &str,
        found: &mut Vec<(String, Option<String>, RowsFile)>,
    ) -> Result<()> {
        let root = self.artifact_root_of_run(caller, run_id).await?;
        let mut paths = Vec::new();
        let mut folders = vec![MEDIA.to_owned()];
        while let Some(folder) = folders.pop()
            && paths.len() < MOST_FILES
        {
            // A root that only clients reach has no tables for us.
            let Ok(entries) = self.artifacts_of(caller, &root, &folder).await else {
                break;
            };
            for entry in entries {
                let path = format!("{folder}/{}", entry.name);
                if entry.size.is_none() {
                    folders.push(path);
                } else if path.ends_with(WANDB_TABLE) {
                    paths.push(path);
                }
            }
        }
        paths.sort_by_key(|path| (std::cmp::Reverse(step_of(path)), path.clone()));
        let (workspace, id) = (caller.workspace.clone(), run_id.to_owned());
        let tag = self
            .store()
            .read(move |tx| match tracked::find(tx, &workspace, &id)? {
                Some(run) => tags::value(tx, run.number, LOGGED_TABLES),
                None => Ok(None),
            })
            .await?;
        let logged: Vec<serde_json::Value> =
            serde_json::from_str(&tag.unwrap_or_default()).unwrap_or_default();
        let named = logged.iter().filter(|one| one["type"] == "table");
        for path in named.filter_map(|one| one["path"].as_str()) {
            if !paths.iter().any(|known| known == path) {
                paths.push(path.to_owned());
            }
        }
        for path in paths {
            let home = TableHome::Run(run_id.to_owned(), None);
            match self.table_file(caller, &home, &path).await {
                Ok(file) => found.push((path, None, file)),
                // Listed, and deleted since.
                Err(
                    TrackingError::NotFound(_) | TrackingError::Invalid(_) | TrackingError::NotImplemented(_),
                ) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// An artifact by entity, project, name and alias, for [`TableHome::Artifact`].
    pub fn artifact_home(caller: &Caller, full: &str) -> Result<TableHome> {
        let mut parts: Vec<&str> = full.split('/').collect();
        let name = parts.pop().unwrap_or_default();
        let project = parts.pop();
        let entity = parts.pop();
        if name.is_empty() || project.is_none() || !parts.is_empty() {
            return Err(TrackingError::invalid(format!(
                "`artifact` is `{full}`, and has to be `entity/project/name:alias` or `project/name:alias`"
            )));
        }
        let at: WandbName = crate::tracking::wandb::name_of(caller, entity, project, "");
        Ok(TableHome::Artifact(at, name.to_owned()))
    }

    /// What an artifact's or a run's file is known by, if it is one of W&B's tables.
    pub(crate) async fn tables_written(&self, caller: &Caller, artifact: i64) -> Result<()> {
        let workspace = caller.workspace.clone();
        let digests: Vec<(String, artifacts::Blob)> = self
            .store()
            .read(move |tx| {
                let mut blobs = Vec::new();
                for file in artifacts::files(tx, artifact, "", MOST_FILES as u32)? {
                    if file.path.ends_with(WANDB_TABLE)
                        && let Some(blob) = artifacts::blob(tx, &workspace, &file.md5)?
                    {
                        blobs.push((file.path, blob));
                    }
                }
                Ok(blobs)
            })
            .await?;
        for (path, blob) in digests {
            self.convert_soon(path, of_blob(blob, TableFormat::JsonRows));
        }
        Ok(())
    }

    /// Turns the table of a run into Parquet, in its own time.
    pub(crate) fn table_written(&self, path: &str, digest: Digest, size: u64) {
        if path.ends_with(WANDB_TABLE) {
            let file = RowsFile {
                key: digest,
                bytes: Bytes::Object(digest),
                size,
                format: TableFormat::JsonRows,
            };
            self.convert_soon(path.to_owned(), file);
        }
    }
}

fn of_blob(blob: artifacts::Blob, format: TableFormat) -> RowsFile {
    RowsFile {
        key: blob.digest,
        bytes: Bytes::Object(blob.digest),
        size: blob.size.max(0) as u64,
        format,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_called_by_the_keys_that_they_were_logged_under() {
        let names = [
            ("media/table/preds_12_0123456789abcdef0123.table.json", "preds"),
            (
                "media/table/val/preds_0_0123456789abcdef0123.table.json",
                "val_preds",
            ),
            ("preds.table.json", "preds"),
            ("dir/rows.csv", "dir_rows"),
            ("3 rows.parquet", "_3_rows"),
            ("a_1_b.table.json", "a_1_b"),
            (".json", "table"),
        ];
        for (path, name) in names {
            assert_eq!(base_name(path), name, "{path}");
        }
        assert_eq!(
            step_of("media/table/preds_12_0123456789abcdef0123.table.json"),
            12
        );
    }
}
