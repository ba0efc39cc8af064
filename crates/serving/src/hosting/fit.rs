//! Whether a payload fits what the model says it takes.

use tidemill_core::ids::EndpointName;
use tidemill_core::servable::{Interface, Payload};
use tidemill_core::spec::ServingSpec;
use tidemill_core::tensors::{DataType, Tensor, TensorSpec};

use crate::error::ServeError;

fn bad(endpoint: &EndpointName, message: String) -> ServeError {
    ServeError::Payload {
        endpoint: endpoint.clone(),
        message,
    }
}

/// Gives what is asked of a model of tables the form that it declares, where nothing is lost by that: one matrix of all its columns becomes
/// columns, numbers of any datatype become those of double precision, and a column of shape `[rows, 1]` one of `[rows]`.
pub(super) fn adapt(
    endpoint: &EndpointName,
    interface: &Interface,
    payload: &mut Payload,
) -> Result<(), ServeError> {
    let Payload::Tensors(tensors) = payload else {
        return Ok(());
    };
    if !interface.columns {
        return Ok(());
    }
    let all_numbers = interface
        .inputs
        .iter()
        .all(|spec| spec.datatype == DataType::Fp64);
    if let [matrix] = &tensors[..]
        && let [rows, width] = matrix.shape[..]
        && (width > 1 || interface.inputs.len() == 1)
        && all_numbers
        && let Some(values) = matrix.to_f64()
    {
        let expected = interface.inputs.len();
        if width != expected {
            let (name, shape) = (&matrix.name, &matrix.shape);
            return Err(bad(
                endpoint,
                format!(
                    "input `{name}` has shape {shape:?}, expected [rows, {expected}]: the columns in the model's order; or one tensor a \
                     column"
                ),
            ));
        }
        let column = |(place, spec): (usize, &TensorSpec)| {
            let column: Vec<f64> = values.iter().skip(place).step_by(width).copied().collect();
            Tensor::of_f64(spec.name.clone(), vec![rows], &column)
        };
        let columns: Result<Vec<Tensor>, _> = interface.inputs.iter().enumerate().map(column).collect();
        *tensors = columns.map_err(|error| bad(endpoint, error.to_string()))?;
        return Ok(());
    }
    for tensor in tensors {
        let in_form = tensor.shape.len() == 1 && matches!(tensor.datatype, DataType::Fp64 | DataType::Bytes);
        let spec = || interface.inputs.iter().find(|spec| spec.name == tensor.name);
        let Some(spec) = (!in_form).then(spec).flatten() else {
            continue;
        };
        if let [rows, 1] = tensor.shape[..]
            && spec.shape.len() == 1
        {
            tensor.shape = vec![rows];
        }
        if spec.datatype == DataType::Fp64
            && tensor.datatype != DataType::Fp64
            && let Some(values) = tensor.to_f64()
        {
            let name = std::mem::take(&mut tensor.name);
            let shape = std::mem::take(&mut tensor.shape);
            *tensor =
                Tensor::of_f64(name, shape, &values).map_err(|error| bad(endpoint, error.to_string()))?;
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn table(datatypes: &[DataType]) -> Interface {
        let inputs = datatypes.iter().zip(["a", "b"]);
        Interface {
            inputs: inputs
                .map(|(datatype, name)| TensorSpec::new(name, *datatype, vec![-1]))
                .collect(),
            columns: true,
            batches: true,
            ..Interface::default()
        }
    }

    fn taken(interface: &Interface, tensors: Vec<Tensor>) -> Result<Vec<Tensor>, String> {
        let endpoint = EndpointName::new("m");
        let mut payload = Payload::Tensors(tensors);
        let adapted = adapt(&endpoint, interface, &mut payload);
        adapted
            .and_then(|()| check(&endpoint, interface, &payload))
            .map_err(|error| error.to_string())?;
        match payload {
            Payload::Tensors(tensors) => Ok(tensors),
            Payload::Body { .. } => Err("a body".to_owned()),
        }
    }

    #[test]
    fn a_table_is_asked_by_one_matrix_of_any_numbers_under_any_name() {
        let numbers = table(&[DataType::Fp64, DataType::Fp64]);
        for datatype in [
            DataType::Fp32,
            DataType::Fp64,
            DataType::Int64,
            DataType::Uint8,
            DataType::Fp16,
        ] {
            let matrix = Tensor::of_numbers("input-0", datatype, vec![3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
            let columns = taken(&numbers, vec![matrix.unwrap()]).unwrap();
            assert_eq!((columns[0].name.as_str(), columns[1].name.as_str()), ("a", "b"));
            assert_eq!(columns[0].to_f64().unwrap(), [1.0, 3.0, 5.0]);
            assert_eq!(columns[1].to_f64().unwrap(), [2.0, 4.0, 6.0]);
        }
        let wide = Tensor::of_f32("x", vec![1, 3], &[1.0; 3]).unwrap();
        let error = taken(&numbers, vec![wide.clone()]).unwrap_err();
        assert!(error.contains("has shape [1, 3], expected [rows, 2]"), "{error}");
        let mixed = table(&[DataType::Fp64, DataType::Bytes]);
        let error = taken(&mixed, vec![wide]).unwrap_err();
        assert!(error.contains("there is no input `x`"), "{error}");
        let one = table(&[DataType::Fp64]);
        let column = Tensor::of_f32("x", vec![2, 1], &[1.0, 2.0]).unwrap();
        assert_eq!(taken(&one, vec![column]).unwrap()[0].shape, [2]);
    }

    #[test]
    fn columns_may_be_of_any_numbers_and_have_a_dimension_of_one() {
        let mixed = table(&[DataType::Fp64, DataType::Bytes]);
        let a = Tensor::fixed("a", DataType::Bool, vec![2, 1], vec![1, 0].into()).unwrap();
        let b = Tensor::strings("b", vec![2, 1], vec![Some("x".into()), None]).unwrap();
        let columns = taken(&mixed, vec![b.clone(), a]).unwrap();
        assert_eq!(columns[0].shape, [2]);
        assert_eq!(
            (&columns[1].shape[..], columns[1].to_f64().unwrap()),
            (&[2][..], vec![1.0, 0.0])
        );
        // A text is no number, and a number no text.
        let a = Tensor::strings("a", vec![2], vec![Some("1".into()), None]).unwrap();
        assert!(
            taken(&mixed, vec![a, b])
                .unwrap_err()
                .contains("datatype BYTES, expected FP64")
        );
    }
}
