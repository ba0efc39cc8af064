//! `tidemill reproduce`: trains a version again from its recorded snapshot and compares every digest.

use tidemill_core::digest::Digest;
use tidemill_core::ids::{ModelName, VersionNumber};
use tidemill_store::objects::ObjectKey;
use tidemill_store::{StoreError, models, runs, snapshots};

use crate::context::Context;
use crate::error::{ControlError, Result};
use crate::pipeline::key::Code;
use crate::pipeline::{sweep, train};
use crate::view::Reproduction;

/// Trains `model/version` again and compares.
pub(crate) async fn version(
    ctx: &Context,
    model: &ModelName,
    version: VersionNumber,
) -> Result<Reproduction> {
    let name = model.clone();
    let found = ctx
        .store
        .read(move |tx| {
            let version = models::get_version(tx, &name, version)?;
            Ok((
                runs::get(tx, &version.run)?,
                snapshots::get(tx, &version.snapshot)?.manifest,
                version,
            ))
        })
        .await;
    let (run, manifest, registered) = found.map_err(|e| match e {
        StoreError::NotFound { .. } => ControlError::not_found(
            "version",
            format!("{model}/{version}"),
            "; `tidemill status` lists what there is",
        ),
        other => other.into(),
    })?;
    let mut digests = Vec::new();
    for file in &manifest.files {
        let bytes = ctx.store.objects().get(&ObjectKey::Snapshot(file.digest)).await?;
        digests.push((
            "snapshot file".to_owned(),
            file.digest.to_string(),
            Digest::of(&bytes).to_string(),
        ));
    }
    let code = Code::of(&ctx.spec, &ctx.root, ctx.trainer.identity())?;
    let key = code.key(&ctx.spec, &manifest.digest)?;
    digests.push((
        "run key (code, lock, data, parameters, seed)".to_owned(),
        run.key.map_or_else(String::new, |k| k.to_string()),
        key.to_string(),
    ));
    let rows = ctx.data.load_snapshot(&manifest).await?;
    let split = train::split(&rows, &ctx.spec.evaluation);
    drop(rows);
    let settings = sweep::settings_of(&ctx.spec, &run.params)?;
    let (output, _) = train::train(ctx, &settings, &manifest, split.train).await?;
    let recorded = ctx.store.objects().bundle_files(&registered.bundle).await?;
    for (name, file) in &recorded {
        let again = output
            .bundle
            .get(name)
            .map_or_else(|| "missing".to_owned(), |bytes| Digest::of(bytes).to_string());
        digests.push((format!("model file {name}"), file.digest.to_string(), again));
    }
    let identical = digests.iter().all(|(_, a, b)| a == b) && recorded.len() == output.bundle.len();
    Ok(Reproduction {
        model: model.clone(),
        version,
        run: run.id,
        digests,
        identical,
    })
}
