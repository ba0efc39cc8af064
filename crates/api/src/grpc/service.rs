//! Every call of the Open Inference Protocol.

use std::collections::HashMap;

use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::proto::grpc_inference_service_server::GrpcInferenceService;
use super::proto::{self, log_settings_request, log_settings_response, trace_setting_response};
use super::{convert, infer, stopping, timeout};
use crate::control_plane::App;
use crate::infer::describe::{check_load_parameters, describe, extensions, index, set_loaded, statistics};
use crate::infer::settings::{self, Setting};
use crate::infer::shared;

pub(super) struct Service(pub App);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(&self, _: Request<proto::ServerLiveRequest>) -> Answer<proto::ServerLiveResponse> {
        Ok(Response::new(proto::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<proto::ServerReadyRequest>,
    ) -> Answer<proto::ServerReadyResponse> {
        let ready = self.0.ready();
        Ok(Response::new(proto::ServerReadyResponse { ready }))
    }

    async fn model_ready(
        &self,
        request: Request<proto::ModelReadyRequest>,
    ) -> Answer<proto::ModelReadyResponse> {
        let asked = request.into_inner();
        let target = infer::target(&self.0, asked.name, &asked.version);
        let ready = target.and_then(|target| target.check_ready(&self.0)).is_ok();
        Ok(Response::new(proto::ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<proto::ServerMetadataRequest>,
    ) -> Answer<proto::ServerMetadataResponse> {
        Ok(Response::new(proto::ServerMetadataResponse {
            name: "tidemill".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: extensions(&self.0).into_iter().map(str::to_owned).collect(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<proto::ModelMetadataRequest>,
    ) -> Answer<proto::ModelMetadataResponse> {
        let asked = request.into_inner();
        let target = infer::target(&self.0, asked.name, &asked.version)?;
        let model = describe(&self.0, target).await?;
        Ok(Response::new(convert::metadata(model)))
    }

    async fn model_infer(
        &self,
        request: Request<proto::ModelInferRequest>,
    ) -> Answer<proto::ModelInferResponse> {
        let within = timeout(request.metadata());
        let response = infer::one(&self.0, request.into_inner(), within).await?;
        Ok(Response::new(response))
    }

    type ModelStreamInferStream = BoxStream<'static, Result<proto::ModelStreamInferResponse, Status>>;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<proto::ModelInferRequest>>,
    ) -> Answer<Self::ModelStreamInferStream> {
        let within = timeout(request.metadata());
        let stop = stopping(request.extensions());
        let answers = infer::streamed(self.0.clone(), request.into_inner(), within, stop);
        Ok(Response::new(answers))
    }

    async fn model_config(
        &self,
        request: Request<proto::ModelConfigRequest>,
    ) -> Answer<proto::ModelConfigResponse> {
        let asked = request.into_inner();
        let target = infer::target(&self.0, asked.name, &asked.version)?;
        let config = convert::config(describe(&self.0, target).await?);
        Ok(Response::new(proto::ModelConfigResponse { config: Some(config) }))
    }

    async fn model_statistics(
        &self,
        request: Request<proto::ModelStatisticsRequest>,
    ) -> Answer<proto::ModelStatisticsResponse> {
        let asked = request.into_inner();
        let target = if asked.name.is_empty() {
            None
        } else {
            Some(infer::target(&self.0, asked.name, &asked.version)?)
        };
        let all = statistics(&self.0, target.as_ref())?;
        Ok(Response::new(proto::ModelStatisticsResponse {
            model_stats: all.into_iter().map(convert::statistics).collect(),
        }))
    }

    async fn repository_index(
        &self,
        request: Request<proto::RepositoryIndexRequest>,
    ) -> Answer<proto::RepositoryIndexResponse> {
        let listed = index(&self.0, request.get_ref().ready).into_iter();
        let models = listed.map(|one| proto::repository_index_response::ModelIndex {
            name: one.name.to_string(),
            version: one.version,
            state: one.state.name().to_owned(),
            reason: one.reason,
        });
        Ok(Response::new(proto::RepositoryIndexResponse {
            models: models.collect(),
        }))
    }

    async fn repository_model_load(
        &self,
        request: Request<proto::RepositoryModelLoadRequest>,
    ) -> Answer<proto::RepositoryModelLoadResponse> {
        let asked = request.into_inner();
        check_load_parameters(asked.parameters.keys().map(String::as_str))?;
        set_loaded(&self.0, &asked.model_name.into(), true).await?;
        Ok(Response::new(proto::RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<proto::RepositoryModelUnloadRequest>,
    ) -> Answer<proto::RepositoryModelUnloadResponse> {
        set_loaded(&self.0, &request.into_inner().model_name.into(), false).await?;
        Ok(Response::new(proto::RepositoryModelUnloadResponse {}))
    }

    async fn system_shared_memory_status(
        &self,
        request: Request<proto::SystemSharedMemoryStatusRequest>,
    ) -> Answer<proto::SystemSharedMemoryStatusResponse> {
        use proto::system_shared_memory_status_response::RegionStatus;
        let name = request.into_inner().name;
        let mut regions = HashMap::new();
        if let Some(memory) = self.0.shared_memory() {
            for region in memory.list((!name.is_empty()).then_some(name.as_str()))? {
                let status = RegionStatus {
                    name: region.name.clone(),
                    key: region.key.clone(),
                    offset: region.offset,
                    byte_size: region.byte_size,
                };
                regions.insert(region.name.clone(), status);
            }
        }
        Ok(Response::new(proto::SystemSharedMemoryStatusResponse { regions }))
    }

    async fn system_shared_memory_register(
        &self,
        request: Request<proto::SystemSharedMemoryRegisterRequest>,
    ) -> Answer<proto::SystemSharedMemoryRegisterResponse> {
        let asked = request.into_inner();
        let memory = shared::of(&self.0)?;
        memory.register(&asked.name, &asked.key, asked.offset, asked.byte_size)?;
        Ok(Response::new(proto::SystemSharedMemoryRegisterResponse {}))
    }

    async fn system_shared_memory_unregister(
        &self,
        request: Request<proto::SystemSharedMemoryUnregisterRequest>,
    ) -> Answer<proto::SystemSharedMemoryUnregisterResponse> {
        let name = request.into_inner().name;
        if let Some(memory) = self.0.shared_memory() {
            memory.unregister((!name.is_empty()).then_some(name.as_str()));
        }
        Ok(Response::new(proto::SystemSharedMemoryUnregisterResponse {}))
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<proto::CudaSharedMemoryStatusRequest>,
    ) -> Answer<proto::CudaSharedMemoryStatusResponse> {
        Ok(Response::new(proto::CudaSharedMemoryStatusResponse::default()))
    }

    async fn cuda_shared_memory_register(
        &self,
        _: Request<proto::CudaSharedMemoryRegisterRequest>,
    ) -> Answer<proto::CudaSharedMemoryRegisterResponse> {
        Err(shared::no_cuda().into())
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<proto::CudaSharedMemoryUnregisterRequest>,
    ) -> Answer<proto::CudaSharedMemoryUnregisterResponse> {
        Ok(Response::new(proto::CudaSharedMemoryUnregisterResponse {}))
    }

    async fn trace_setting(
        &self,
        request: Request<proto::TraceSettingRequest>,
    ) -> Answer<proto::TraceSettingResponse> {
        let asked = request.into_inner();
        if !asked.model_name.is_empty() {
            infer::target(&self.0, asked.model_name, "")?;
        }
        for (name, wanted) in &asked.settings {
            let known = settings::TRACE.iter().find(|(known, _)| known == name);
            let same = known.is_some_and(|(_, values)| wanted.value.is_empty() || wanted.value == **values);
            if !same {
                return Err(settings::fixed(name).into());
            }
        }
        let setting = |(name, values): (&str, &[&str])| {
            let value = values.iter().map(|&value| value.to_owned()).collect();
            (name.to_owned(), trace_setting_response::SettingValue { value })
        };
        Ok(Response::new(proto::TraceSettingResponse {
            settings: settings::TRACE.into_iter().map(setting).collect(),
        }))
    }

    async fn log_settings(
        &self,
        request: Request<proto::LogSettingsRequest>,
    ) -> Answer<proto::LogSettingsResponse> {
        use log_settings_request::setting_value::ParameterChoice as Asked;
        use log_settings_response::setting_value::ParameterChoice as Told;
        let current = settings::log();
        for (name, wanted) in request.into_inner().settings {
            let known = current
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value);
            let same = match (known, wanted.parameter_choice) {
                (Some(Setting::Flag(a)), Some(Asked::BoolParam(b))) => *a == b,
                (Some(Setting::Level(a)), Some(Asked::Uint32Param(b))) => *a == b,
                (Some(Setting::Text(a)), Some(Asked::StringParam(b))) => **a == b,
                (Some(_), None) => true,
                _ => false,
            };
            if !same {
                return Err(settings::fixed(&name).into());
            }
        }
        let told = |(name, value): (&'static str, Setting)| {
            let choice = match value {
                Setting::Flag(flag) => Told::BoolParam(flag),
                Setting::Level(level) => Told::Uint32Param(level),
                Setting::Text(text) => Told::StringParam(text.to_owned()),
            };
            let value = log_settings_response::SettingValue {
                parameter_choice: Some(choice),
            };
            (name.to_owned(), value)
        };
        Ok(Response::new(proto::LogSettingsResponse {
            settings: current.into_iter().map(told).collect(),
        }))
    }
}
