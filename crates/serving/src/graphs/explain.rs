//! A node that explains: what each input contributed to the answer of a deployment, or of the project's endpoint.

use tidemill_core::ids::VersionNumber;
use tidemill_core::ports::PortError;
use tidemill_core::servable::Payload;
use tidemill_core::spec::{ExplainNode, ModelNode};
use tidemill_core::tensors::Tensor;

use super::endpoint;
use super::run::{Run, of_serving};
use super::servable::failed;
use super::tensors::{broken, tensors_of};
use crate::explain::{ExplainOptions, Explanation, in_order};

pub(super) async fn explain(run: &Run<'_>, spec: &ExplainNode, input: Payload) -> Result<Payload, PortError> {
    let model = ModelNode {
        deployment: spec.deployment.clone(),
        version: spec.version,
    };
    let options = ExplainOptions {
        method: spec.method,
        output: spec.output.clone(),
        baseline: spec.baseline.clone(),
        strict: true,
        samples: spec.samples,
        seed: spec.seed,
    };
    let mut columns = tensors_of(input)?;
    let interface = run.interface(&model).await?;
    if let Some(interface) = &interface {
        columns = in_order(interface, columns);
    }
    let call = run.call_of(&model, Payload::Tensors(columns));
    let server = run.server();
    let route = server
        .router()
        .route(&call.endpoint)
        .filter(|_| interface.is_none());
    let explained = match route {
        Some(route) => {
            let version = spec.version.map(VersionNumber);
            let rows = endpoint::rows(&route, call.payload).map_err(of_serving)?;
            server.explain(&route, version, rows, &options).await
        }
        None => server.hosting().explain(call, &options).await,
    };
    let (_, explanation) = explained.map_err(of_serving)?;
    tensors(spec, &explanation).map(Payload::Tensors)
}

/// Of the class that is asked for.
fn tensors(spec: &ExplainNode, explanation: &Explanation) -> Result<Vec<Tensor>, PortError> {
    let class = spec.class as usize;
    if class >= explanation.outputs {
        return Err(failed(format!(
            "output `{}` has {} numbers a row, expected a place {class}",
            explanation.output, explanation.outputs
        )));
    }
    let (rows, features) = (explanation.rows(), explanation.features());
    let mut attributions = Vec::with_capacity(rows * features);
    let mut bases = Vec::with_capacity(rows);
    for row in 0..rows {
        let (shares, base) = explanation.of(row, class);
        attributions.extend_from_slice(shares);
        bases.push(base);
    }
    let attributions = Tensor::of_f64("attributions", vec![rows, features], &attributions).map_err(broken)?;
    let base = Tensor::of_f64("base", vec![rows], &bases).map_err(broken)?;
    Ok(vec![attributions, base])
}
