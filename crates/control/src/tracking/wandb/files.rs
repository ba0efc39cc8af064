//! Bytes that the client sends: files of runs, which become artifacts of the tracked run, and the contents of W&B's artifacts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use md5::{Digest as _, Md5};
use tidemill_store::ContentKind;
use tidemill_store::objects::{Incoming, Outgoing};
use tidemill_store::tracking::artifacts::{self as proxy, ArtifactRow};
use tidemill_store::wandb::artifacts::{self, ArtifactState, Blob};
use tidemill_store::wandb::runs::{self, WandbName};

use super::alerts::unknown_run;
use super::grants::Grant;
use crate::tracking::artifacts::Place;
use crate::tracking::{ArtifactUpload, Caller, Result, Tracking, TrackingError};

/// Bytes on their way in.
#[derive(Debug)]
pub struct Upload {
    grant: Grant,
    coming: Coming,
    md5: Md5,
}

/// Where the bytes go.
#[derive(Debug)]
enum Coming {
    /// To the content-addressed store.
    Object(Box<Incoming>),
    /// To the place of the run's other artifacts, such as a bucket.
    Artifact(Box<ArtifactUpload>),
}

impl Upload {
    /// Takes the next piece.
    pub async fn write(&mut self, piece: Bytes) -> Result<()> {
        if matches!(self.grant, Grant::Blob { .. }) {
            self.md5.update(&piece);
        }
        match &mut self.coming {
            Coming::Object(incoming) => Ok(incoming.write(piece).await?),
            Coming::Artifact(upload) => upload.write(piece).await,
        }
    }
}

/// A file's name as a path below the run's artifacts.
fn clean(name: &str) -> Result<String> {
    let parts: Vec<&str> = name
        .split(['/', '\\'])
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if parts.is_empty() || parts.contains(&"..") {
        return Err(TrackingError::invalid(format!(
            "`{name}` is no name of a file: it leads out of the run's folder"
        )));
    }
    Ok(parts.join("/"))
}

impl Tracking {
    /// Permissions to send files of a run, in the order of `names`; and the id of the tracked run.
    pub async fn wandb_run_files(&self, at: WandbName, names: &[String]) -> Result<(String, Vec<String>)> {
        let (workspace, name) = (at.workspace.clone(), at.name.clone());
        let run = self.store().read(move |tx| runs::find(tx, &at)).await?;
        let run_id = run.ok_or_else(|| unknown_run(&name))?.run_id;
        let signer = self.signer().await?;
        let mut tokens = Vec::with_capacity(names.len());
        for name in names {
            let (workspace, run_id) = (workspace.clone(), run_id.clone());
            tokens.push(signer.sign(Grant::RunFile {
                workspace,
                run_id,
                name: clean(name)?,
            }));
        }
        Ok((run_id, tokens))
    }

    /// Begins to take bytes.
    pub async fn wandb_upload(&self, token: &str) -> Result<Upload> {
        let grant = self.wandb_grant(token).await?;
        if matches!(grant, Grant::Read { .. }) {
            return Err(TrackingError::Denied("this URL allows to read".to_owned()));
        }
        let coming = match self.wandb_run_file_elsewhere(&grant).await? {
            Some(upload) => Coming::Artifact(Box::new(upload)),
            None => Coming::Object(Box::new(self.store().objects().incoming().await?)),
        };
        Ok(Upload {
            grant,
            coming,
            md5: Md5::new(),
        })
    }

    /// Keeps what was taken, under the name that it was taken for.
    pub async fn wandb_keep(&self, upload: Upload) -> Result<()> {
        let Upload { grant, coming, md5 } = upload;
        let incoming = match coming {
            Coming::Object(incoming) => incoming,
            Coming::Artifact(upload) => return upload.finish().await,
        };
        if let Grant::Blob { md5: expected, .. } = &grant {
            let found = STANDARD.encode(md5.finalize());
            if found != *expected {
                return Err(TrackingError::invalid(format!(
                    "the bytes have the MD5 `{found}`, and were announced with `{expected}`: send them again"
                )));
            }
        }
        let arrived = incoming.finish().await?;
        // While `kept` lives the collection of garbage waits for the row that refers to the object.
        let kept = self
            .store()
            .objects()
            .keep(arrived, ContentKind::Artifact)
            .await?;
        let blob = Blob {
            digest: kept.digest,
            size: kept.size as i64,
        };
        match grant {
            Grant::RunFile {
                workspace,
                run_id,
                name,
            } => {
                let row = ArtifactRow {
                    digest: kept.digest,
                    size: kept.size,
                    modified_at: self.now(),
                };
                self.name_run_file(workspace, run_id, name.clone(), row).await?;
                self.table_written(&name, row.digest, row.size);
            }
            Grant::Blob { workspace, md5 } => {
                self.store()
                    .write(move |tx| artifacts::put_blob(tx, &workspace, &md5, blob))
                    .await?;
            }
            Grant::Manifest { artifact, .. } => {
                self.store()
                    .write(move |tx| {
                        // What is whole does not change.
                        if let Some(mut artifact) = artifacts::get(tx, artifact)?
                            && artifact.state == ArtifactState::Pending
                        {
                            artifact.manifest = Some(blob.digest);
                            artifacts::update(tx, &artifact)?;
                        }
                        Ok(())
                    })
                    .await?;
            }
            Grant::Read { .. } => {}
        }
        drop(kept);
        Ok(())
    }

    /// Starts the upload of a file of a run whose artifacts are kept elsewhere than in the content-addressed store, where this server
    /// reaches them.
    async fn wandb_run_file_elsewhere(&self, grant: &Grant) -> Result<Option<ArtifactUpload>> {
        let Grant::RunFile {
            workspace,
            run_id,
            name,
        } = grant
        else {
            return Ok(None);
        };
        let caller = Caller {
            user: String::new(),
            workspace: workspace.clone(),
        };
        let root = self.artifact_root_of_run(&caller, run_id).await?;
        match self.place_of(&caller, &root, name).await {
            Ok(Place::Object(_)) | Err(TrackingError::NotImplemented(_) | TrackingError::Denied(_)) => {
                Ok(None)
            }
            Ok(place) => Ok(Some(self.start_upload(place).await?)),
            Err(error) => Err(error),
        }
    }

    async fn name_run_file(
        &self,
        workspace: String,
        run_id: String,
        name: String,
        row: ArtifactRow,
    ) -> Result<()> {
        self.store()
            .write(move |tx| {
                let Some(root) = proxy::root_of_run(tx, &workspace, &run_id)? else {
                    return Ok(Err(unknown_run(&run_id)));
                };
                let Some(root) = root.strip_prefix("mlflow-artifacts:") else {
                    // Its artifacts are out of our reach: what the client's own record needs is in our tables.
                    return Ok(Ok(()));
                };
                let path = format!("{}/{name}", root.trim_matches('/'));
                let put = proxy::put(tx, &path, &row)?;
                let occupied =
                    || TrackingError::invalid(format!("`{name}` is a folder of the run, or lies in a file"));
                Ok(put.map(|_| ()).map_err(|_| occupied()))
            })
            .await?
    }

    /// Opens bytes that a URL allows to read.
    pub async fn wandb_read(&self, token: &str) -> Result<Outgoing> {
        let Grant::Read { digest } = self.wandb_grant(token).await? else {
            return Err(TrackingError::Denied("this URL allows to write".to_owned()));
        };
        let opened = self.store().objects().open(ContentKind::Artifact, digest).await?;
        opened.ok_or_else(|| TrackingError::not_found(format!("the bytes `{digest}` are gone")))
    }
}
