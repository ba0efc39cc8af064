//! Models out of the object store.

use std::sync::Arc;

use tidemill_core::digest::Digest;
use tidemill_core::ids::{ModelName, VersionNumber};
use tidemill_core::ports::Model;
use tidemill_store::models;

use crate::context::Context;
use crate::error::{ControlError, Result};

/// Loads a bundle's model, off the async threads.
pub(crate) async fn load(ctx: &Context, digest: &Digest) -> Result<Arc<dyn Model>> {
    let bundle = ctx.store.objects().get_bundle(digest).await?;
    let runtime = Arc::clone(&ctx.runtime);
    Ok(tokio::task::spawn_blocking(move || runtime.load(&bundle))
        .await
        .map_err(ControlError::internal)??)
}

/// Loads a registered version.
pub(crate) async fn load_version(
    ctx: &Context,
    model: &ModelName,
    version: VersionNumber,
) -> Result<Arc<dyn Model>> {
    let name = model.clone();
    let row = ctx
        .store
        .read(move |tx| models::get_version(tx, &name, version))
        .await?;
    load(ctx, &row.bundle).await
}
