//! Whether a payload fits what the model says it takes.

use tidemill_core::ids::EndpointName;
use tidemill_core::servable::{Interface, Payload};
use tidemill_core::spec::ServingSpec;
use tidemill_core::tensors::Tensor;

use crate::error::ServeError;

fn bad(endpoint: &EndpointName, message: String) -> ServeError {
    ServeError::Payload {
        endpoint: endpoint.clone(),
        message,
    }
}

/// Checks names, datatypes and shapes.
pub(super) fn check(
    endpoint: &EndpointName,
    interface: &Interface,
    payload: &Payload,
) -> Result<(), ServeError> {
    let Payload::Tensors(tensors) = payload else {
        if interface.body {
            return Ok(());
        }
        return Err(bad(endpoint, "it takes tensors, a body came".to_owned()));
    };
    if interface.inputs.is_empty() {
        return Ok(());
    }
    for tensor in tensors {
        let Some(spec) = interface.inputs.iter().find(|spec| spec.name == tensor.name) else {
            let known: Vec<&str> = interface.inputs.iter().map(|spec| spec.name.as_str()).collect();
            let (name, known) = (&tensor.name, known.join("`, `"));
            return Err(bad(
                endpoint,
                format!("there is no input `{name}`; expected `{known}`"),
            ));
        };
        spec.check(tensor)
            .map_err(|error| bad(endpoint, error.to_string()))?;
    }
    for spec in &interface.inputs {
        let came = tensors.iter().filter(|tensor| tensor.name == spec.name).count();
        if came > 1 {
            return Err(bad(
                endpoint,
                format!("input `{}` came {came} times; send it once", spec.name),
            ));
        }
        if came == 0 && !spec.optional {
            return Err(bad(endpoint, format!("input `{}` is missing", spec.name)));
        }
    }
    if interface.batches {
        check_rows(endpoint, tensors)?;
    }
    Ok(())
}

fn check_rows(endpoint: &EndpointName, tensors: &[Tensor]) -> Result<(), ServeError> {
    let mut rows = tensors.iter().map(|tensor| (tensor.rows(), &tensor.name));
    if let Some((first, name)) = rows.next()
        && let Some((other, odd)) = rows.find(|(rows, _)| *rows != first)
    {
        let message = format!("input `{odd}` has {other} rows, expected {first} as in `{name}`");
        return Err(bad(endpoint, message));
    }
    Ok(())
}

/// Refuses more rows than a deployment that names a largest batch takes.
pub(super) fn check_size(
    endpoint: &EndpointName,
    spec: &ServingSpec,
    interface: &Interface,
    payload: &Payload,
) -> Result<(), ServeError> {
    let Some(batching) = spec.batching.as_ref().filter(|batching| batching.max_rows > 1) else {
        return Ok(());
    };
    let rows = rows(interface, payload);
    if rows > batching.max_rows as usize {
        let most = batching.max_rows;
        return Err(bad(
            endpoint,
            format!("a batch of {rows} rows came, expected at most {most} (`batching.max_rows`)"),
        ));
    }
    Ok(())
}

/// Rows of a request: of its first tensor where the model takes batches, else 1.
pub(super) fn rows(interface: &Interface, payload: &Payload) -> usize {
    match payload {
        Payload::Tensors(tensors) if interface.batches => tensors.first().map_or(1, Tensor::rows),
        _ => 1,
    }
}
