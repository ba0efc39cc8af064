//! Several members' answers made one.

use bytes::Bytes;
use tidemill_core::ports::PortError;
use tidemill_core::servable::Payload;
use tidemill_core::spec::{Combine, EnsembleNode};
use tidemill_core::tensors::{Tensor, TensorData};

use super::servable::failed;
use super::tensors::{broken, numbers, width};

/// Combines the members that answered, each with its weight.
pub(super) fn combine(ensemble: &EnsembleNode, members: &[(Tensor, f64)]) -> Result<Payload, PortError> {
    let Some((first, _)) = members.first() else {
        return Err(failed("no member answered"));
    };
    let name = ensemble.name.as_ref().unwrap_or(&first.name);
    let concat = ensemble.combine == Combine::Concat;
    for (member, _) in members {
        let same = if concat {
            member.rows() == first.rows()
        } else {
            member.shape == first.shape
        };
        if !same {
            let message = format!(
                "member `{}` has shape {:?}, another {:?}",
                member.name, member.shape, first.shape
            );
            return Err(failed(message));
        }
    }
    let tensor = match ensemble.combine {
        Combine::Vote => vote(name, members)?,
        Combine::Concat => side_by_side(name, members)?,
        _ => {
            let columns: Result<Vec<Vec<f64>>, _> =
                members.iter().map(|(tensor, _)| numbers(tensor)).collect();
            let columns = columns?;
            let weights: Vec<f64> = members.iter().map(|(_, weight)| *weight).collect();
            let element = |place: usize| {
                let values = columns.iter().map(|column| column[place]);
                match ensemble.combine {
                    Combine::Max => values.fold(f64::NAN, f64::max),
                    Combine::Min => values.fold(f64::NAN, f64::min),
                    _ => {
                        let sum: f64 = values.zip(&weights).map(|(value, weight)| value * weight).sum();
                        sum / weights.iter().sum::<f64>()
                    }
                }
            };
            let values: Vec<f64> = (0..first.elements()).map(element).collect();
            Tensor::of_f64(name, first.shape.clone(), &values).map_err(broken)?
        }
    };
    Ok(Payload::Tensors(vec![tensor]))
}

/// An element's bytes; `None` where a text is missing.
fn element(tensor: &Tensor, place: usize) -> Option<Bytes> {
    match &tensor.data {
        TensorData::Fixed(bytes) => {
            let size = tensor.datatype.size().unwrap_or(1);
            Some(bytes.slice(place * size..(place + 1) * size))
        }
        TensorData::Strings(strings) => strings.get(place).cloned().flatten(),
    }
}

fn of_elements(
    name: &str,
    like: &Tensor,
    shape: Vec<usize>,
    elements: Vec<Option<Bytes>>,
) -> Result<Tensor, PortError> {
    if like.datatype.size().is_none() {
        return Tensor::strings(name, shape, elements).map_err(broken);
    }
    let bytes: Vec<u8> = elements.into_iter().flatten().flatten().collect();
    Tensor::fixed(name, like.datatype, shape, bytes.into()).map_err(broken)
}

fn same_datatype(members: &[(Tensor, f64)]) -> Result<(), PortError> {
    let first = members.first().map(|(tensor, _)| tensor.datatype);
    match members.iter().find(|(tensor, _)| Some(tensor.datatype) != first) {
        Some((odd, _)) => Err(failed(format!(
            "member `{}` is {}, another is not",
            odd.name,
            odd.datatype.name()
        ))),
        None => Ok(()),
    }
}

/// The value with the most weight behind it; of several the one that was given first. A missing text is no vote.
fn vote(name: &str, members: &[(Tensor, f64)]) -> Result<Tensor, PortError> {
    same_datatype(members)?;
    let first = &members[0].0;
    let winner = |place: usize| {
        let mut votes: Vec<(Bytes, f64)> = Vec::new();
        for (member, weight) in members {
            let Some(value) = element(member, place) else {
                continue;
            };
            match votes.iter_mut().find(|(other, _)| *other == value) {
                Some((_, sum)) => *sum += weight,
                None => votes.push((value, *weight)),
            }
        }
        let mut best: Option<(Bytes, f64)> = None;
        for vote in votes {
            if best.as_ref().is_none_or(|(_, most)| vote.1 > *most) {
                best = Some(vote);
            }
        }
        best.map(|(value, _)| value)
    };
    let winners = (0..first.elements()).map(winner).collect();
    of_elements(name, first, first.shape.clone(), winners)
}

/// The members' rows one beside the other.
fn side_by_side(name: &str, members: &[(Tensor, f64)]) -> Result<Tensor, PortError> {
    same_datatype(members)?;
    let first = &members[0].0;
    let mut all = Vec::new();
    for row in 0..first.rows() {
        for (member, _) in members {
            let width = width(member);
            all.extend((row * width..(row + 1) * width).map(|place| element(member, place)));
        }
    }
    let total: usize = members.iter().map(|(member, _)| width(member)).sum();
    of_elements(name, first, vec![first.rows(), total], all)
}
