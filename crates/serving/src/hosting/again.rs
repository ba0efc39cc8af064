//! Asking a version again what it was asked before: that version alone, beside its line, with nothing remembered, counted or recorded.

use std::sync::Arc;

use futures_util::StreamExt;
use tidemill_core::clock::Stopwatch;
use tidemill_core::digest::Digest;
use tidemill_core::ids::{EndpointName, VersionNumber};
use tidemill_core::servable::{CallContext, Deadline, Payload};

use super::Hosting;
use super::ask::ready;
use super::threads::off_thread;
use super::version::duration;
use crate::error::ServeError;

impl Hosting {
    /// The bundle of a version that is there, routed or not; `None` inside for one without a bundle.
    pub fn bundle_of(&self, name: &EndpointName, version: VersionNumber) -> Option<Option<Digest>> {
        let host = self.host(name).ok()?;
        host.get(version).map(|version| version.bundle)
    }

    /// What a version says to a payload now: one answer, or the first `pieces` of a stream.
    ///
    /// # Errors
    /// If there is no such version, it cannot be loaded, or it fails.
    pub async fn ask_again(
        &self,
        name: &EndpointName,
        version: VersionNumber,
        mut payload: Payload,
        mut context: CallContext,
        pieces: Option<usize>,
    ) -> Result<Vec<Payload>, ServeError> {
        let host = self.host(name)?;
        host.check_on()?;
        let unknown = || ServeError::UnknownVersion {
            endpoint: name.clone(),
            version,
            loaded: host.served(),
        };
        let version = Arc::clone(host.get(version).ok_or_else(unknown)?);
        let budget = duration(host.spec().timeout);
        context.deadline = Some(Deadline::after(Stopwatch::start(), budget));
        let replica = ready(&version, &mut payload, &context).await?;
        let model = Arc::clone(&replica.model);
        if let Some(pieces) = pieces {
            let asked = payload.clone();
            let answers = model.stream(asked, &context).await;
            if let Some(answers) = answers.map_err(|source| version.failed(source))? {
                let answers = answers.take(pieces).collect::<Vec<_>>().await.into_iter();
                return answers
                    .map(|answer| answer.map_err(|source| version.failed(source)))
                    .collect();
            }
        }
        let answered = off_thread(model.work(), async move { model.call(payload, &context).await });
        let answer = answered.await.map_err(|source| version.failed(source))?;
        Ok(vec![answer])
    }
}
