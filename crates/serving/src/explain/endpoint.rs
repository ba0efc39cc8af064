//! Explaining the answers of an endpoint of the loop. Nothing of it is recorded: no row is predicted for anybody.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tidemill_core::frame::{Column, FeatureSchema, Frame, Task};
use tidemill_core::ids::VersionNumber;
use tidemill_core::ports::{Model, PortError};
use tidemill_core::servable::Payload;
use tidemill_core::spec::ExplainMethod;
use tidemill_core::tensors::{DataType, Tensor, TensorData, TensorError, TensorSpec};

use super::{ExplainOptions, Explanation, ROWS_AT_ONCE, by_asking, inputs_of};
use crate::error::ServeError;
use crate::graphs::answer_tensors;
use crate::inputs;
use crate::routing::{Deployment, Route};

/// Explains what a version would answer to `rows`: the champion if none is named.
pub(crate) async fn explain(
    route: &Route,
    version: Option<VersionNumber>,
    rows: Frame,
    options: &ExplainOptions,
) -> Result<(VersionNumber, Explanation), ServeError> {
    let deployment = chosen(route, version)?;
    let failed = |source| ServeError::Model {
        endpoint: route.endpoint.clone(),
        version: deployment.version,
        source,
    };
    inputs::check_nulls(route.inputs, &rows)?;
    let features = Arc::clone(&deployment.model.signature().features);
    let tensors = tensors_of(&rows, &features).map_err(|error| ServeError::Internal(error.to_string()))?;
    let output = output_of(route);
    if options.method == ExplainMethod::Auto {
        let model = Arc::clone(&deployment.model);
        let own = off_thread(move || model.contributions(&rows))
            .await
            .map_err(failed)?;
        if let Some(own) = own {
            let explanation = Explanation::of_model(own, inputs_of(&tensors), &output);
            return Ok((deployment.version, explanation));
        }
    }
    let asks = |tensors| asked(Arc::clone(&deployment.model), tensors);
    let outputs = [output];
    let explanation = by_asking(tensors, &outputs, options, ROWS_AT_ONCE, &asks).await;
    Ok((deployment.version, explanation.map_err(failed)?))
}

fn chosen(route: &Route, version: Option<VersionNumber>) -> Result<&Arc<Deployment>, ServeError> {
    let endpoint = route.endpoint.clone();
    match version {
        None => route.champion.as_ref().ok_or(ServeError::NoModel { endpoint }),
        Some(version) => {
            let found = route
                .deployments()
                .find(|deployment| deployment.version == version);
            found.ok_or_else(|| ServeError::UnknownVersion {
                endpoint,
                version,
                loaded: route.versions(),
            })
        }
    }
}

fn output_of(route: &Route) -> TensorSpec {
    let (name, width) = match route.task {
        Task::Binary => ("probability", None),
        Task::Regression => ("prediction", None),
        Task::Multiclass => ("probabilities", Some(route.classes.len())),
    };
    let mut shape = vec![-1];
    shape.extend(width.map(|width| width as i64));
    let mut spec = TensorSpec::new(name, DataType::Fp64, shape);
    spec.labels = route.classes.to_vec();
    spec
}

fn asked(model: Arc<dyn Model>, tensors: Vec<Tensor>) -> BoxFuture<'static, Result<Payload, PortError>> {
    Box::pin(off_thread(move || {
        let internal = |message: String| PortError::internal("internal", message);
        let rows = frame_of(&model.signature().features, &tensors);
        let rows = rows.map_err(internal)?;
        let count = rows.rows();
        let scores = model.predict(&rows)?;
        let answer = answer_tensors(&scores, count).map_err(|error| internal(error.to_string()))?;
        Ok(Payload::Tensors(answer))
    }))
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PortError> + Send + 'static,
) -> Result<T, PortError> {
    let thread = tokio::task::spawn_blocking(work).await;
    thread.unwrap_or_else(|error| {
        Err(PortError::internal(
            "internal",
            format!("explaining failed: {error}"),
        ))
    })
}

/// The columns that a model reads, in its order, each as a tensor.
fn tensors_of(rows: &Frame, features: &FeatureSchema) -> Result<Vec<Tensor>, TensorError> {
    let read = features.features.iter().filter_map(|feature| {
        let place = rows.schema().index_of(&feature.name)?;
        Some((feature, rows.columns().get(place)?))
    });
    let tensors = read.map(|(feature, column)| {
        let shape = vec![rows.rows()];
        match column {
            Column::Numeric(numbers) => Tensor::of_f64(&feature.name, shape, numbers),
            Column::Categorical(texts) => {
                let text = |text: &Option<Arc<str>>| {
                    text.as_ref().map(|text| Bytes::copy_from_slice(text.as_bytes()))
                };
                Tensor::strings(&feature.name, shape, texts.iter().map(text).collect())
            }
        }
    });
    tensors.collect()
}

/// What [`tensors_of`] made a column of, mixed meanwhile.
fn frame_of(schema: &Arc<FeatureSchema>, tensors: &[Tensor]) -> Result<Frame, String> {
    let column = |tensor: &Tensor| match &tensor.data {
        TensorData::Fixed(_) => Column::Numeric(tensor.to_f64().unwrap_or_default()),
        TensorData::Strings(texts) => {
            let text = |text: &Option<Bytes>| {
                text.as_ref()
                    .map(|text| String::from_utf8_lossy(text).as_ref().into())
            };
            Column::Categorical(texts.iter().map(text).collect())
        }
    };
    Frame::new(Arc::clone(schema), tensors.iter().map(column).collect()).map_err(|error| error.to_string())
}
