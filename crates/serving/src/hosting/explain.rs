//! Explaining the answers of a deployment's version.

use std::sync::Arc;

use tidemill_core::ids::VersionNumber;
use tidemill_core::ports::PortError;
use tidemill_core::servable::{Payload, Work};
use tidemill_core::spec::ExplainMethod;

use super::Call;
use super::ask::{ask, ready};
use super::host::Host;
use super::threads::off_thread;
use crate::error::ServeError;
use crate::explain::{ExplainOptions, Explanation, ROWS_AT_ONCE, by_asking, in_order, inputs_of};

/// By the model itself where it can tell, else by asking this version about mixed rows, in turn with all others who ask it.
pub(super) async fn explain(
    host: &Host,
    mut call: Call,
    options: &ExplainOptions,
) -> Result<(VersionNumber, Explanation), ServeError> {
    host.check_on()?;
    let context = host.context(&mut call);
    let version = host.version(call.version)?;
    host.check_rate(version)?;
    let replica = ready(version, &mut call.payload, &context).await?;
    let interface = &replica.interface;
    let Payload::Tensors(tensors) = call.payload else {
        return Err(version.failed(PortError::caller(
            "not_explainable",
            "it takes a body of its own, and only tensors and columns are explained",
        )));
    };
    let tensors = in_order(interface, tensors);
    // The model's own method tells of the raw sums, of which there is one output.
    if options.method == ExplainMethod::Auto
        && let Some(output) = interface.outputs.last()
    {
        let (model, payload, context) = (
            Arc::clone(&replica.model),
            Payload::Tensors(tensors.clone()),
            context.clone(),
        );
        // Trees that answer at once explain a thousand times more slowly.
        let work = match model.work() {
            Work::Light => Work::Heavy,
            work => work,
        };
        let own = off_thread(work, async move { model.explain(payload, &context).await });
        if let Some(own) = own.await.map_err(|source| version.failed(source))? {
            let explanation = Explanation::of_model(own, inputs_of(&tensors), output);
            return Ok((version.number, explanation));
        }
    }
    let at_once = match &version.spec.batching {
        _ if !interface.batches => 1,
        Some(batching) if batching.max_rows > 1 => ROWS_AT_ONCE.min(batching.max_rows as usize),
        _ => ROWS_AT_ONCE,
    };
    // Every output, whatever the caller wanted of the answer.
    let mut asking = context;
    asking.outputs.clear();
    let priority = call.priority;
    let asks = |tensors| -> futures_util::future::BoxFuture<'_, Result<Payload, PortError>> {
        Box::pin(async {
            let answer = ask(version, Payload::Tensors(tensors), &asking, priority).await;
            answer.map(|said| said.payload).map_err(crate::graphs::of_serving)
        })
    };
    let explanation = by_asking(tensors, &interface.outputs, options, at_once, &asks).await;
    let explanation = explanation.map_err(|source| version.failed(source))?;
    Ok((version.number, explanation))
}
