//! The short way of the commonest request: JSON tensors of numbers for a model that takes only numbers. The values go from the text
//! straight into the columns. Anything out of the ordinary is left to the long way, which also finds the words for what is wrong.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tidemill_core::frame::{Column, Frame};

use super::tensors::frame_of_matrix;
use super::{Call, all_numeric};

/// A request that was ordinary.
pub(crate) struct Ordinary {
    pub rows: Frame,
    pub id: Option<String>,
}

#[derive(Deserialize)]
struct Request<'b> {
    #[serde(default)]
    id: Option<String>,
    #[serde(borrow)]
    inputs: Vec<Tensor<'b>>,
    /// What is wanted back is the long way's to read.
    #[serde(default)]
    outputs: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    parameters: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Tensor<'b> {
    #[serde(borrow)]
    name: Cow<'b, str>,
    shape: Shape,
    datatype: &'b str,
    data: Numbers,
    #[serde(default)]
    parameters: Option<IgnoredAny>,
}

/// Reads the body, if it is ordinary.
pub(crate) fn read(body: &[u8], call: &Call) -> Option<Ordinary> {
    let schema = &call.route.schema;
    if call.key.is_some() || !all_numeric(schema) {
        return None;
    }
    let request: Request<'_> = serde_json::from_slice(body).ok()?;
    if request.outputs.is_some_and(|outputs| !outputs.is_empty()) || request.parameters.is_some() {
        return None;
    }
    let floats =
        |tensor: &Tensor<'_>| matches!(tensor.datatype, "FP64" | "FP32") && tensor.parameters.is_none();
    if !request.inputs.iter().all(floats) {
        return None;
    }
    let features = &schema.features;
    let rows = match &request.inputs[..] {
        [tensor] if tensor.shape.width > 1 => {
            if tensor.shape.width != features.len() || tensor.shape.size() != Some(tensor.data.0.len()) {
                return None;
            }
            frame_of_matrix(schema, &tensor.data.0)?
        }
        inputs if inputs.len() == features.len() => {
            let mut columns = Vec::with_capacity(features.len());
            for (feature, tensor) in features.iter().zip(request.inputs) {
                if tensor.name != feature.name
                    || tensor.shape.width != 1
                    || tensor.shape.rows != tensor.data.0.len()
                {
                    return None;
                }
                columns.push(Column::Numeric(tensor.data.0));
            }
            Frame::new(Arc::clone(schema), columns).ok()?
        }
        _ => return None,
    };
    (rows.rows() > 0).then_some(Ordinary { rows, id: request.id })
}

/// A shape of one or two dimensions.
struct Shape {
    rows: usize,
    width: usize,
}

impl Shape {
    fn size(&self) -> Option<usize> {
        self.rows.checked_mul(self.width)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ShapeVisitor;
        impl<'de> Visitor<'de> for ShapeVisitor {
            type Value = Shape;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one or two sizes")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                let missing = || serde::de::Error::invalid_length(0, &"one or two sizes");
                let rows = seq.next_element()?.ok_or_else(missing)?;
                let width = seq.next_element()?.unwrap_or(1);
                if seq.next_element::<IgnoredAny>()?.is_some() {
                    return Err(missing());
                }
                Ok(Shape { rows, width })
            }
        }
        deserializer.deserialize_seq(ShapeVisitor)
    }
}

/// Numbers and nulls, flat or nested; a null is NaN.
struct Numbers(Vec<f64>);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut numbers = Vec::new();
        deserializer.deserialize_seq(NumbersVisitor(&mut numbers))?;
        Ok(Self(numbers))
    }
}

struct NumbersVisitor<'a>(&'a mut Vec<f64>);

impl<'de> DeserializeSeed<'de> for NumbersVisitor<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NumbersVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers")
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.push(f64::NAN);
        Ok(())
    }
    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.0.push(value as f64);
        Ok(())
    }
    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.0.push(value as f64);
        Ok(())
    }
    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.0.push(value);
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(NumbersVisitor(&mut *self.0))?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(serde::de::Error::custom("an object"))
    }
}
