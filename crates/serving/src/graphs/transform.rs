//! Columns made other columns.

use bytes::Bytes;
use serde_json::Value;
use tidemill_core::ports::PortError;
use tidemill_core::servable::Payload;
use tidemill_core::spec::{ScaleSpec, TransformStep};
use tidemill_core::tensors::{DataType, Tensor, TensorData};

use super::tensors::{broken, numbers, tensors_of, width};

fn missing(name: &str, tensors: &[Tensor]) -> PortError {
    let known: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    let message = format!("there is no column `{name}`, but `{}`", known.join("`, `"));
    PortError::caller("graph_failed", message)
}

fn place(name: &str, tensors: &[Tensor]) -> Result<usize, PortError> {
    let found = tensors.iter().position(|tensor| tensor.name == name);
    found.ok_or_else(|| missing(name, tensors))
}

/// Replaces a column's numbers; its datatype stays where it holds fractions, else it becomes FP64.
fn map(tensors: &mut [Tensor], name: &str, change: impl Fn(f64) -> f64) -> Result<(), PortError> {
    let place = place(name, tensors)?;
    let tensor = &tensors[place];
    let values: Vec<f64> = numbers(tensor)?.into_iter().map(change).collect();
    let fractions = matches!(
        tensor.datatype,
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64
    );
    let datatype = if fractions {
        tensor.datatype
    } else {
        DataType::Fp64
    };
    tensors[place] = Tensor::of_numbers(name, datatype, tensor.shape.clone(), &values).map_err(broken)?;
    Ok(())
}

/// Puts a column in the place of the one of its name, or behind all.
fn put(tensors: &mut Vec<Tensor>, tensor: Tensor) {
    match tensors.iter_mut().find(|other| other.name == tensor.name) {
        Some(other) => *other = tensor,
        None => tensors.push(tensor),
    }
}

/// Runs the steps.
pub(super) fn transform(steps: &[TransformStep], payload: Payload) -> Result<Payload, PortError> {
    let mut tensors = tensors_of(payload)?;
    for step in steps {
        run(step, &mut tensors)?;
    }
    Ok(Payload::Tensors(tensors))
}

fn run(step: &TransformStep, tensors: &mut Vec<Tensor>) -> Result<(), PortError> {
    if !step.select.is_empty() {
        let chosen = step
            .select
            .iter()
            .map(|name| place(name, tensors).map(|place| tensors[place].clone()));
        *tensors = chosen.collect::<Result<_, _>>()?;
    }
    // All at once, so that two columns can change names.
    let renames = step
        .rename
        .iter()
        .map(|(from, to)| Ok((place(from, tensors)?, to)));
    for (place, to) in renames.collect::<Result<Vec<_>, PortError>>()? {
        tensors[place].name.clone_from(to);
    }
    for (name, datatype) in &step.cast {
        let place = place(name, tensors)?;
        tensors[place] = cast(&tensors[place], *datatype)?;
    }
    for (name, scale) in &step.scale {
        let (from, by) = match scale {
            ScaleSpec {
                mean: Some(mean),
                std: Some(std),
                ..
            } => (*mean, *std),
            ScaleSpec { min, max, .. } => {
                let min = min.unwrap_or(0.0);
                (min, max.unwrap_or(1.0) - min)
            }
        };
        map(tensors, name, |value| (value - from) / by)?;
    }
    for (name, bounds) in &step.clip {
        map(tensors, name, |value| {
            if value.is_nan() {
                return value;
            }
            let value = bounds.min.map_or(value, |min| value.max(min));
            bounds.max.map_or(value, |max| value.min(max))
        })?;
    }
    for (name, value) in &step.impute {
        impute(tensors, name, value)?;
    }
    if let Some(argmax) = &step.argmax {
        let source = &tensors[place(&argmax.of, tensors)?];
        let values = numbers(source)?;
        let best = values.chunks(width(source).max(1)).map(|row| {
            let best = row.iter().enumerate().filter(|(_, value)| !value.is_nan());
            // Of equal numbers the first.
            best.rev()
                .max_by(|a, b| a.1.total_cmp(b.1))
                .map_or(0, |(place, _)| place)
        });
        let best: Vec<usize> = best.collect();
        let rows = vec![best.len()];
        let tensor = if argmax.labels.is_empty() {
            let places: Vec<f64> = best.into_iter().map(|place| place as f64).collect();
            Tensor::of_numbers(&argmax.name, DataType::Int64, rows, &places)
        } else {
            let label = |place: usize| {
                argmax
                    .labels
                    .get(place)
                    .map(|label| Bytes::copy_from_slice(label.as_bytes()))
            };
            Tensor::strings(&argmax.name, rows, best.into_iter().map(label).collect())
        };
        put(tensors, tensor.map_err(broken)?);
    }
    if let Some(threshold) = &step.threshold {
        let source = &tensors[place(&threshold.of, tensors)?];
        let shape = source.shape.clone();
        let yes: Vec<bool> = numbers(source)?
            .into_iter()
            .map(|value| value >= threshold.at)
            .collect();
        let tensor = match threshold.labels.as_slice() {
            [below, above] => {
                let label =
                    |yes: bool| Some(Bytes::copy_from_slice(if yes { above } else { below }.as_bytes()));
                Tensor::strings(&threshold.name, shape, yes.into_iter().map(label).collect())
            }
            _ => {
                let values: Vec<f64> = yes.into_iter().map(|yes| f64::from(u8::from(yes))).collect();
                Tensor::of_numbers(&threshold.name, DataType::Bool, shape, &values)
            }
        };
        put(tensors, tensor.map_err(broken)?);
    }
    if let Some(softmax) = &step.softmax {
        let source = &tensors[place(&softmax.of, tensors)?];
        let mut values = numbers(source)?;
        for row in values.chunks_mut(width(source).max(1)) {
            // Without the largest taken away first, large numbers would overflow.
            let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            for value in row.iter_mut() {
                *value = (*value - largest).exp();
            }
            let sum: f64 = row.iter().sum();
            for value in row.iter_mut() {
                *value /= sum;
            }
        }
        let name = softmax.name.as_ref().unwrap_or(&softmax.of);
        let tensor = Tensor::of_f64(name, source.shape.clone(), &values).map_err(broken)?;
        put(tensors, tensor);
    }
    Ok(())
}

fn cast(tensor: &Tensor, to: DataType) -> Result<Tensor, PortError> {
    let (name, shape) = (tensor.name.as_str(), tensor.shape.clone());
    let cast = match (&tensor.data, to) {
        (TensorData::Strings(_), DataType::Bytes) => return Ok(tensor.clone()),
        (TensorData::Strings(strings), _) => {
            let number = |string: &Option<Bytes>| {
                let text = string.as_ref().and_then(|bytes| std::str::from_utf8(bytes).ok());
                text.and_then(|text| text.trim().parse().ok()).unwrap_or(f64::NAN)
            };
            let values: Vec<f64> = strings.iter().map(number).collect();
            Tensor::of_numbers(name, to, shape, &values)
        }
        (TensorData::Fixed(_), DataType::Bytes) => {
            let text = |number: f64| match tensor.datatype {
                _ if number.is_nan() => None,
                DataType::Bool => Some(Bytes::from_static(if number == 0.0 { b"false" } else { b"true" })),
                _ => Some(Bytes::from(number.to_string())),
            };
            Tensor::strings(name, shape, numbers(tensor)?.into_iter().map(text).collect())
        }
        (TensorData::Fixed(_), _) => Tensor::of_numbers(name, to, shape, &numbers(tensor)?),
    };
    cast.map_err(broken)
}

fn impute(tensors: &mut [Tensor], name: &str, value: &Value) -> Result<(), PortError> {
    let place = place(name, tensors)?;
    let wrong = |what: &str| {
        PortError::caller(
            "graph_failed",
            format!("column `{name}` is {what}, `{value}` does not fit it"),
        )
    };
    if let TensorData::Strings(strings) = &mut tensors[place].data {
        let text = value.as_str().ok_or_else(|| wrong("texts"))?;
        for string in strings.iter_mut().filter(|string| string.is_none()) {
            *string = Some(Bytes::copy_from_slice(text.as_bytes()));
        }
        return Ok(());
    }
    let number = value.as_f64().ok_or_else(|| wrong("numbers"))?;
    map(tensors, name, |value| if value.is_nan() { number } else { value })
}
