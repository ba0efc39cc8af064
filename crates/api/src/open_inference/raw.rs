//! A body that is the bytes of a model's only input and nothing else: its name, datatype and shape are the model's.

use bytes::Bytes;
use serde_json::Map;
use tidemill_core::tensors::{DataType, Tensor, TensorData, TensorSpec};

use super::reading::Plan;
use crate::control_plane::App;
use crate::error::ApiError;
use crate::infer::ask::TensorRequest;
use crate::infer::tensors::Input;
use crate::infer::{Target, table};

/// The request, whose outputs are wanted as bytes too.
pub(super) async fn read(app: &App, target: &Target, body: Bytes) -> Result<(TensorRequest, Plan), ApiError> {
    let tensor = match target {
        Target::Table(call) => tensor(&table::inputs(&call.route), true, body)?,
        Target::Hosted(hosted) => {
            let hosting = app.serving().hosting();
            let (_, interface) = hosting.interface(&hosted.name, hosted.version).await?;
            tensor(&interface.inputs, interface.batches, body)?
        }
    };
    let request = TensorRequest {
        id: None,
        parameters: Map::new(),
        inputs: vec![Input::Typed(tensor)],
        outputs: Vec::new(),
        timeout: None,
    };
    let plan = Plan {
        binary: true,
        ..Plan::default()
    };
    Ok((request, plan))
}

fn refused(why: &str) -> ApiError {
    ApiError::bad_request(
        "bad_tensor",
        format!(
            "`Inference-Header-Content-Length` is 0, so the body is one tensor, but {why}: describe the inputs in JSON"
        ),
    )
}

fn tensor(inputs: &[TensorSpec], batches: bool, body: Bytes) -> Result<Tensor, ApiError> {
    let [spec] = inputs else {
        return Err(refused(&format!("the model has {} inputs", inputs.len())));
    };
    let shape = match spec.datatype.size() {
        // A byte string has no length before it here, so there can be only one.
        None => spec
            .shape
            .iter()
            .map(|&extent| extent.unsigned_abs() as usize)
            .collect(),
        Some(size) => shape(spec, batches, body.len(), size)?,
    };
    let data = match spec.datatype {
        DataType::Bytes => TensorData::Strings(vec![Some(body)]),
        _ => TensorData::Fixed(body),
    };
    let tensor = Tensor {
        name: spec.name.clone(),
        datatype: spec.datatype,
        shape,
        data,
    };
    tensor
        .check()
        .map_err(|error| ApiError::bad_request("bad_tensor", error.to_string()))?;
    Ok(tensor)
}

/// The shape of so many bytes: one extent that the model leaves open follows from them. Where more are open, the first, which counts rows,
/// is 1.
fn shape(spec: &TensorSpec, batches: bool, bytes: usize, size: usize) -> Result<Vec<usize>, ApiError> {
    let mut extents = spec.shape.clone();
    if batches && extents.iter().filter(|&&extent| extent < 0).count() > 1 {
        extents[0] = 1;
    }
    let open = extents.iter().filter(|&&extent| extent < 0).count();
    if open > 1 {
        return Err(refused(&format!(
            "input `{}` has shape {:?}",
            spec.name, spec.shape
        )));
    }
    let known = extents.iter().filter(|&&extent| extent >= 0);
    let known: usize = known
        .map(|&extent| usize::try_from(extent).unwrap_or(0))
        .product();
    let elements = bytes / size;
    let fits = bytes.is_multiple_of(size)
        && if open == 0 {
            elements == known
        } else {
            known > 0 && elements.is_multiple_of(known)
        };
    if !fits {
        return Err(refused(&format!(
            "{bytes} bytes do not fit shape {:?} of {}",
            spec.shape,
            spec.datatype.name()
        )));
    }
    let extent = |extent: i64| usize::try_from(extent).unwrap_or(elements / known.max(1));
    Ok(extents.into_iter().map(extent).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(datatype: DataType, shape: &[i64], batches: bool, bytes: usize) -> Result<Vec<usize>, String> {
        let spec = TensorSpec::new("x", datatype, shape.to_vec());
        let made = tensor(&[spec], batches, vec![0; bytes].into());
        made.map(|tensor| tensor.shape).map_err(|error| error.message)
    }

    #[test]
    fn the_bytes_say_how_long_the_open_extent_is() {
        assert_eq!(of(DataType::Fp32, &[-1, 3], true, 24).unwrap(), [2, 3]);
        assert_eq!(of(DataType::Fp32, &[2, 3], false, 24).unwrap(), [2, 3]);
        assert_eq!(of(DataType::Int8, &[-1, -1], true, 5).unwrap(), [1, 5]);
        assert_eq!(of(DataType::Bytes, &[-1], true, 5).unwrap(), [1]);
        assert_eq!(of(DataType::Bytes, &[-1, 1], true, 0).unwrap(), [1, 1]);
        for (datatype, shape, bytes) in [
            (DataType::Fp32, &[-1_i64, 3][..], 20),
            (DataType::Fp32, &[-1, 3], 25),
            (DataType::Fp32, &[2, 3], 12),
            (DataType::Fp32, &[0, -1], 12),
            (DataType::Fp32, &[-1, -1], 12),
        ] {
            let error = of(datatype, shape, false, bytes).unwrap_err();
            assert!(error.contains("describe the inputs in JSON"), "{error}");
        }
        assert!(of(DataType::Bytes, &[2], false, 4).is_err());
    }
}
