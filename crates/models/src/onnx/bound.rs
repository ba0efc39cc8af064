//! Calls whose inputs and outputs lie in memory of the caller's choosing: for a GPU in pinned memory of the host, from and to which it
//! copies by itself.
//!
//! This is the one module beside the tree engine's vectors with unsafe code: ONNX Runtime hands out such memory as a pointer, and the
//! wrapper takes pinned memory for memory of the GPU, which it does not let read.
#![allow(unsafe_code)]

use std::collections::HashMap;

use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;
use ort::value::{DynTensor, DynValue, TensorElementType, ValueType};
use tidemill_core::tensors::{DataType, Tensor, TensorData, elements};

use super::device::Place;
use super::tensors::{ValueError, from_ort, to_ort};

/// So many buffers are kept: one for each input and shape. Batches come in few shapes.
const MOST_BUFFERS: usize = 32;

/// The memory of one session's calls.
pub(super) struct Bound {
    /// Of inputs, by name, datatype and shape.
    buffers: HashMap<(String, DataType, Vec<usize>), DynTensor>,
    allocator: Allocator,
    place: Place,
}

impl Bound {
    /// Pinned memory for a GPU; for the processor its own.
    pub fn new(session: &Session, place: Place) -> Result<Self, ort::Error> {
        Ok(Self {
            buffers: HashMap::new(),
            allocator: Allocator::new(session, memory(place, MemoryType::CPUInput)?)?,
            place,
        })
    }

    /// Answers `wanted`: the outputs' names, and what ONNX Runtime calls them.
    pub fn run(
        &mut self,
        session: &mut Session,
        inputs: &[(&str, &Tensor)],
        wanted: &[(&str, &str)],
    ) -> Result<Vec<Tensor>, ValueError> {
        let mut binding = session.create_binding()?;
        for (name, tensor) in inputs {
            match &tensor.data {
                TensorData::Strings(_) => binding.bind_input(*name, &to_ort(tensor)?)?,
                TensorData::Fixed(bytes) => {
                    let buffer = self.buffer(name, tensor)?;
                    fill(buffer, tensor.datatype, bytes);
                    binding.bind_input(*name, &*buffer)?;
                }
            }
        }
        let own = memory(self.place, MemoryType::CPUOutput)?;
        let plain = memory(Place::Cpu, MemoryType::CPUOutput)?;
        for (_, inside) in wanted {
            let outputs = session.outputs();
            let known = outputs.iter().find(|output| output.name() == *inside);
            let texts =
                known.is_some_and(|output| element(output.dtype()) == Some(TensorElementType::String));
            binding.bind_output_to_device(*inside, if texts { &plain } else { &own })?;
        }
        let outputs = session.run_binding(&binding)?;
        binding.synchronize_outputs()?;
        let read = wanted.iter().map(|(name, inside)| match outputs.get(inside) {
            Some(value) => self.read(name, value),
            None => Err(ValueError::Type(format!("output `{name}` did not come"))),
        });
        read.collect()
    }

    fn buffer(&mut self, name: &str, tensor: &Tensor) -> Result<&mut DynTensor, ValueError> {
        let key = (name.to_owned(), tensor.datatype, tensor.shape.clone());
        if self.buffers.len() >= MOST_BUFFERS && !self.buffers.contains_key(&key) {
            self.buffers.clear();
        }
        match self.buffers.entry(key) {
            std::collections::hash_map::Entry::Occupied(there) => Ok(there.into_mut()),
            std::collections::hash_map::Entry::Vacant(place) => {
                let kind = element_of(tensor.datatype)
                    .ok_or_else(|| ValueError::Type(tensor.datatype.name().to_owned()))?;
                let shape: Vec<i64> = tensor.shape.iter().map(|&extent| extent as i64).collect();
                Ok(place.insert(DynTensor::new(&self.allocator, kind, shape)?))
            }
        }
    }

    /// An output that lies in memory of ours.
    fn read(&self, name: &str, value: &DynValue) -> Result<Tensor, ValueError> {
        let (Some(kind), ValueType::Tensor { shape, .. }) = (element(value.dtype()), value.dtype()) else {
            return from_ort(name, value);
        };
        let Some((datatype, size)) = datatype_of(kind).and_then(|kind| Some((kind, kind.size()?))) else {
            return from_ort(name, value);
        };
        if self.place == Place::Cpu {
            return from_ort(name, value);
        }
        let extents: Vec<usize> = shape
            .iter()
            .map(|&extent| usize::try_from(extent).unwrap_or(0))
            .collect();
        let length = elements(&extents).unwrap_or(0) * size;
        let tensor = value.view().downcast::<ort::value::DynTensorValueType>()?;
        let bytes = if length == 0 {
            Vec::new()
        } else {
            // SAFETY: ONNX Runtime has bound this output to pinned memory, which the host may read, and has waited for the GPU; the
            // value has so many elements of that size, and lives until after the copy.
            unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), length) }.to_vec()
        };
        Tensor::fixed(name, datatype, extents, bytes.into())
            .map_err(|error| ValueError::Type(error.to_string()))
    }
}

fn memory(place: Place, kind: MemoryType) -> Result<MemoryInfo<'static>, ort::Error> {
    match place {
        Place::Cpu => MemoryInfo::new(
            AllocationDevice::CPU,
            0,
            AllocatorType::Device,
            MemoryType::Default,
        ),
        Place::Cuda(number) => MemoryInfo::new(
            AllocationDevice::CUDA_PINNED,
            i32::try_from(number).unwrap_or(i32::MAX),
            AllocatorType::Device,
            kind,
        ),
    }
}

fn fill(buffer: &mut DynTensor, datatype: DataType, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    // SAFETY: the buffer was made by ONNX Runtime for the shape and datatype of a tensor whose bytes have this very length, in memory
    // that the host may write (its own or pinned); it is borrowed for this alone, and no call is under way that reads it.
    let target = unsafe { std::slice::from_raw_parts_mut(buffer.data_ptr_mut().cast::<u8>(), bytes.len()) };
    if datatype == DataType::Bool {
        for (to, from) in target.iter_mut().zip(bytes) {
            *to = u8::from(*from != 0);
        }
    } else {
        target.copy_from_slice(bytes);
    }
}

fn element(kind: &ValueType) -> Option<TensorElementType> {
    match kind {
        ValueType::Tensor { ty, .. } => Some(*ty),
        _ => None,
    }
}

/// Datatypes of a fixed size, and ONNX Runtime's names of them.
const KINDS: [(DataType, TensorElementType); 13] = [
    (DataType::Bool, TensorElementType::Bool),
    (DataType::Uint8, TensorElementType::Uint8),
    (DataType::Uint16, TensorElementType::Uint16),
    (DataType::Uint32, TensorElementType::Uint32),
    (DataType::Uint64, TensorElementType::Uint64),
    (DataType::Int8, TensorElementType::Int8),
    (DataType::Int16, TensorElementType::Int16),
    (DataType::Int32, TensorElementType::Int32),
    (DataType::Int64, TensorElementType::Int64),
    (DataType::Fp16, TensorElementType::Float16),
    (DataType::Bf16, TensorElementType::Bfloat16),
    (DataType::Fp32, TensorElementType::Float32),
    (DataType::Fp64, TensorElementType::Float64),
];

fn element_of(datatype: DataType) -> Option<TensorElementType> {
    let found = KINDS.iter().find(|(own, _)| *own == datatype);
    found.map(|(_, kind)| *kind)
}

fn datatype_of(kind: TensorElementType) -> Option<DataType> {
    let found = KINDS.iter().find(|(_, theirs)| *theirs == kind);
    found.map(|(datatype, _)| *datatype)
}
