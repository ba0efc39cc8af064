//! gRPC's own health protocol. The server as a whole is the service without a name.

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::health_proto::health_check_response::ServingStatus;
use super::health_proto::health_server::Health as Protocol;
use super::health_proto::{HealthCheckRequest, HealthCheckResponse};
use super::{INFERENCE, stopping};
use crate::control_plane::App;

pub(super) struct Health(pub App);

impl Health {
    fn status(&self, service: &str) -> Result<HealthCheckResponse, Status> {
        if !matches!(service, "" | INFERENCE | super::HEALTH) {
            return Err(Status::not_found(format!("there is no service `{service}` here")));
        }
        let status = if self.0.ready() {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        Ok(HealthCheckResponse {
            status: status.into(),
        })
    }
}

#[tonic::async_trait]
impl Protocol for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.status(&request.get_ref().service).map(Response::new)
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    /// Says how it is now, and then nothing more until the server stops.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let now = self
            .status(&request.get_ref().service)
            .unwrap_or(HealthCheckResponse {
                status: ServingStatus::ServiceUnknown.into(),
            });
        let stopping = stopping(request.extensions());
        let last = futures::stream::once(async move {
            stopping.await;
            Ok(HealthCheckResponse {
                status: ServingStatus::NotServing.into(),
            })
        });
        let told = futures::stream::iter([Ok(now)]).chain(last);
        Ok(Response::new(told.boxed()))
    }
}
