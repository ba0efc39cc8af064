//! Requests that a replica answers before its first caller's.

use tidemill_core::ports::PortError;
use tidemill_core::servable::{CallContext, Payload, Servable};
use tidemill_core::spec::WarmupSpec;
use tidemill_core::tensors::{DataType, Tensor};

/// Asks a model for zeros before its first caller does.
pub(super) async fn warm(model: &dyn Servable, warmup: &[WarmupSpec]) -> Result<(), PortError> {
    for request in warmup {
        let inputs = &model.interface().inputs;
        let tensors = inputs.iter().filter(|spec| !spec.optional).map(|spec| {
            let extent = |(place, &extent): (usize, &i64)| match usize::try_from(extent) {
                Ok(extent) => extent,
                Err(_) if place == 0 && model.interface().batches => request.rows.max(1) as usize,
                Err(_) => 1,
            };
            let shape: Vec<usize> = spec.shape.iter().enumerate().map(extent).collect();
            let elements: usize = shape.iter().product();
            match spec.datatype.size() {
                Some(size) => {
                    Tensor::fixed(&spec.name, spec.datatype, shape, vec![0; elements * size].into())
                }
                None => {
                    debug_assert_eq!(spec.datatype, DataType::Bytes);
                    Tensor::strings(&spec.name, shape, vec![Some(bytes::Bytes::new()); elements])
                }
            }
        });
        let tensors: Result<Vec<Tensor>, _> = tensors.collect();
        let tensors = tensors.map_err(|error| PortError::caller("model_manifest", error.to_string()))?;
        for _ in 0..request.count {
            model
                .call(Payload::Tensors(tensors.clone()), &CallContext::default())
                .await?;
        }
    }
    Ok(())
}
