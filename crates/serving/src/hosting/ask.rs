//! Asking one version: loaded if it slept, the payload checked, at once or in turn.

use std::sync::Arc;

use tidemill_core::clock::Stopwatch;
use tidemill_core::servable::{CallContext, Payload, Work};
use tokio::sync::oneshot;

use super::call::Said;
use super::fit;
use super::queue::{self, Pending};
use super::replicas::Replica;
use super::version::Version;
use crate::error::ServeError;

/// A replica that this payload fits, as it is or in the form that it is given here.
pub(super) async fn ready(
    version: &Arc<Version>,
    payload: &mut Payload,
    context: &CallContext,
) -> Result<Arc<Replica>, ServeError> {
    if context.deadline.is_some_and(|deadline| deadline.passed()) {
        return Err(version.late("its time was over when it came"));
    }
    let replica = version.ready(context).await?;
    fit::adapt(&version.endpoint, &replica.interface, payload)?;
    fit::check(&version.endpoint, &replica.interface, payload)?;
    fit::check_size(&version.endpoint, &version.spec, &replica.interface, payload)?;
    Ok(replica)
}

/// The version's answer.
pub(super) async fn ask(
    version: &Arc<Version>,
    mut payload: Payload,
    context: &CallContext,
    priority: u32,
) -> Result<Said, ServeError> {
    let replica = ready(version, &mut payload, context).await?;
    ask_ready(version, &replica, payload, context, priority).await
}

/// The model's answer: at once from one that takes microseconds, else in turn.
pub(super) async fn ask_ready(
    version: &Arc<Version>,
    replica: &Replica,
    payload: Payload,
    context: &CallContext,
    priority: u32,
) -> Result<Said, ServeError> {
    let rows = fit::rows(&replica.interface, &payload);
    if replica.model.work() == Work::Light {
        return version.ask_now(replica, payload, context, rows).await;
    }
    let gathered = replica.interface.batches && version.spec.batching.as_ref().is_none_or(|b| b.max_rows > 1);
    let permit = if version.spec.queue.adaptive {
        let together = if gathered { version.max_rows() } else { 1 };
        let Some(permit) = version.limit.admit(version.replicas.slots(), together) else {
            let now = version.limit.under_way();
            let why = format!("{now} requests are under way, and they take longer than they should");
            return Err(version.overloaded(why));
        };
        Some(permit)
    } else {
        None
    };
    let priorities = version.spec.queue.priorities.max(1);
    let priority = if priority == 0 {
        priorities.div_ceil(2)
    } else {
        priority
    };
    let (reply, answer) = oneshot::channel();
    let pending = Pending {
        alike: if gathered {
            queue::alike(&payload, context)
        } else {
            None
        },
        payload,
        context: context.clone(),
        rows,
        priority: priority as usize - 1,
        waiting: Stopwatch::start(),
        reply,
    };
    let said = version.ask_in_turn(pending, answer).await;
    match (&said, permit) {
        (Ok(_), Some(permit)) => permit.answered(version.may_grow()),
        (Err(ServeError::Model { .. } | ServeError::Internal(_)), Some(permit)) => permit.failed(),
        _ => {}
    }
    said
}
