//! Endpoints of the loop as nodes: their rows are guarded, answered and recorded like any request's.

use std::sync::Arc;

use bytes::Bytes;
use tidemill_core::clock::Stopwatch;
use tidemill_core::frame::{Frame, Scores, Task};
use tidemill_core::servable::{Deadline, Payload};
use tidemill_core::tensors::{DataType, Tensor, TensorData, TensorError};

use crate::error::ServeError;
use crate::guard::{RawColumn, RawValue, coerce_by};
use crate::hosting::Call;
use crate::routing::Route;
use crate::server::{InferRequest, Server};

/// The endpoint's answer, in the tensors that the protocols give too.
pub(super) async fn ask(server: &Server, route: &Arc<Route>, call: Call) -> Result<Payload, ServeError> {
    let rows = rows(route, call.payload)?;
    let keys = match &call.context.key {
        Some(key) => vec![Some(Arc::clone(key)); rows.rows()],
        None => Vec::new(),
    };
    let answered = server.predict(InferRequest {
        endpoint: route.endpoint.clone(),
        // A graph may ask an endpoint twice in a request, so its id is not the caller's.
        request_id: None,
        rows,
        keys,
        received: call.received,
        version: call.version,
        deadline: call.timeout.map(|left| Deadline::after(Stopwatch::start(), left)),
    });
    let response = match call.timeout {
        None => answered.await?,
        Some(left) => {
            let late = tidemill_core::clock::real_sleep(left);
            tokio::select! {
                response = answered => response?,
                () = late => return Err(ServeError::DeadlinePassed {
                    endpoint: route.endpoint.clone(),
                    stage: "a graph asked it, and its time ran out",
                }),
            }
        }
    };
    answer_tensors(&response.scores, response.ids.len())
        .map_err(|error| ServeError::Internal(error.to_string()))
        .map(|mut outputs| {
            let ids = response
                .ids
                .iter()
                .map(|id| Some(Bytes::copy_from_slice(id.as_str().as_bytes())));
            outputs.push(Tensor {
                name: "prediction_id".to_owned(),
                datatype: DataType::Bytes,
                shape: vec![response.ids.len()],
                data: TensorData::Strings(ids.collect()),
            });
            Payload::Tensors(outputs)
        })
}

/// The rows of a table that tensors hold, by the endpoint's own rules.
pub(super) fn rows(route: &Route, payload: Payload) -> Result<Frame, ServeError> {
    let bad = |message: String| ServeError::Payload {
        endpoint: route.endpoint.clone(),
        message,
    };
    let Payload::Tensors(tensors) = payload else {
        return Err(bad("it takes columns, a body came".to_owned()));
    };
    let known = |tensor: &&Tensor| {
        route
            .schema
            .features
            .iter()
            .any(|feature| feature.name == tensor.name)
    };
    let columns = tensors.iter().filter(known).map(|tensor| {
        if tensor.elements() != tensor.rows() {
            let (name, shape) = (&tensor.name, &tensor.shape);
            return Err(bad(format!(
                "input `{name}` has shape {shape:?}, expected one value a row"
            )));
        }
        Ok(RawColumn {
            name: tensor.name.clone(),
            values: raw(tensor),
        })
    });
    let columns: Vec<RawColumn> = columns.collect::<Result<_, _>>()?;
    Ok(coerce_by(route.inputs, &route.schema, columns)?)
}

/// An answer in the tensors that the protocols give too.
pub(crate) fn answer_tensors(scores: &Scores, rows: usize) -> Result<Vec<Tensor>, TensorError> {
    let values = scores.values();
    Ok(match scores {
        Scores::Multiclass { classes, .. } => {
            let width = classes.len().max(1);
            let label = |row: usize| {
                scores
                    .label(row)
                    .map(|class| Bytes::copy_from_slice(class.as_bytes()))
            };
            vec![
                Tensor::of_f64("probabilities", vec![rows, width], values)?,
                Tensor::strings("label", vec![rows], (0..rows).map(label).collect())?,
            ]
        }
        Scores::Binary(_) | Scores::Regression(_) => {
            let name = if scores.task() == Task::Binary {
                "probability"
            } else {
                "prediction"
            };
            vec![Tensor::of_f64(name, vec![rows], values)?]
        }
    })
}

fn raw(tensor: &Tensor) -> Vec<RawValue> {
    match &tensor.data {
        TensorData::Strings(strings) => {
            let text = |string: &Option<Bytes>| match string {
                Some(bytes) => RawValue::Text(String::from_utf8_lossy(bytes).into()),
                None => RawValue::Null,
            };
            strings.iter().map(text).collect()
        }
        TensorData::Fixed(_) => {
            let value = |number: f64| match tensor.datatype {
                _ if number.is_nan() => RawValue::Null,
                DataType::Bool => RawValue::Bool(number != 0.0),
                _ => RawValue::Number(number),
            };
            tensor
                .to_f64()
                .unwrap_or_default()
                .into_iter()
                .map(value)
                .collect()
        }
    }
}
