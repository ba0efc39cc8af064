//! Tensors row by row.

use tidemill_core::ports::PortError;
use tidemill_core::servable::Payload;
use tidemill_core::tensors::{Tensor, TensorError};

use super::servable::failed;

pub(super) fn broken(error: TensorError) -> PortError {
    failed(error.to_string())
}

/// Elements a row.
pub(super) fn width(tensor: &Tensor) -> usize {
    tensor.elements().checked_div(tensor.rows()).unwrap_or(0)
}

/// A tensor's elements as numbers.
pub(super) fn numbers(tensor: &Tensor) -> Result<Vec<f64>, PortError> {
    tensor.to_f64().ok_or_else(|| {
        let name = &tensor.name;
        PortError::caller("graph_failed", format!("`{name}` is texts, numbers are needed"))
    })
}

/// The tensors of a payload.
pub(super) fn tensors_of(payload: Payload) -> Result<Vec<Tensor>, PortError> {
    match payload {
        Payload::Tensors(tensors) => Ok(tensors),
        Payload::Body { .. } => Err(PortError::caller("graph_failed", "it needs columns, a body came")),
    }
}

/// A tensor whose rows come from several, all of one kind: `from[row]` says which.
pub(super) fn pick(sources: &[&Tensor], from: &[usize]) -> Result<Tensor, PortError> {
    let mut parts = Vec::new();
    let mut row = 0;
    while row < from.len() {
        let run = from[row..]
            .iter()
            .take_while(|source| **source == from[row])
            .count();
        let source = sources
            .get(from[row])
            .ok_or_else(|| failed("a row has no source"))?;
        parts.push(source.slice_rows(row, row + run).map_err(broken)?);
        row += run;
    }
    let parts: Vec<&Tensor> = parts.iter().collect();
    Tensor::concat_rows(&parts).map_err(broken)
}

/// The answers of several branches, row by row.
pub(super) fn pick_answers(answers: &[&Payload], from: &[usize]) -> Result<Payload, PortError> {
    let mut all = Vec::with_capacity(answers.len());
    for answer in answers {
        let Payload::Tensors(tensors) = answer else {
            return Err(failed("rows go several ways, and one of them answered a body"));
        };
        all.push(tensors);
    }
    let Some(first) = all.first() else {
        return Err(failed("no way answered"));
    };
    let tensors = first.iter().map(|tensor| {
        let name = &tensor.name;
        let same = |tensors: &&Vec<Tensor>| tensors.iter().position(|other| other.name == *name);
        let places: Option<Vec<usize>> = all.iter().map(same).collect();
        let places = places.ok_or_else(|| {
            failed(format!("rows go several ways, and not all of them have the output `{name}`; name the same `outputs` for each"))
        })?;
        let sources: Vec<&Tensor> = all.iter().zip(places).map(|(tensors, place)| &tensors[place]).collect();
        if let Some(odd) = sources.iter().find(|source| source.rows() != from.len()) {
            return Err(failed(format!("output `{name}` has {} rows for {}", odd.rows(), from.len())));
        }
        pick(&sources, from)
    });
    tensors.collect::<Result<_, _>>().map(Payload::Tensors)
}
