//! The Open Inference Protocol over gRPC, and gRPC's health, through the same router.

use std::collections::HashMap;

use axum::body::Body;
use axum::http::Request as HttpRequest;
use futures::StreamExt as _;
use tonic::{Code, Request};
use tower::ServiceExt as _;
use tower::util::MapRequest;

use crate::fake::{ADMIN_PASSWORD, App};

#[allow(clippy::all, clippy::pedantic, dead_code)]
pub(crate) mod proto {
    include!(concat!(env!("OUT_DIR"), "/inference.rs"));
}
#[allow(clippy::all, clippy::pedantic, dead_code)]
mod health_proto {
    include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
}

use proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use proto::infer_parameter::ParameterChoice;
use proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};

type Wire = MapRequest<axum::Router, fn(HttpRequest<tonic::body::Body>) -> HttpRequest<Body>>;
type Client = GrpcInferenceServiceClient<Wire>;

fn wire(app: &App) -> Wire {
    app.router.clone().map_request(|request| request.map(Body::new))
}

fn client(app: &App) -> Client {
    GrpcInferenceServiceClient::new(wire(app))
}

fn parameter(choice: ParameterChoice) -> proto::InferParameter {
    proto::InferParameter {
        parameter_choice: Some(choice),
    }
}

fn floats(values: &[f32]) -> bytes::Bytes {
    values
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect::<Vec<u8>>()
        .into()
}

fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        ..InferInputTensor::default()
    }
}

pub(crate) fn double(id: &str) -> proto::ModelInferRequest {
    proto::ModelInferRequest {
        model_name: "double".to_owned(),
        id: id.to_owned(),
        inputs: vec![input("x", "FP32", &[1, 3])],
        raw_input_contents: vec![floats(&[1.0, 2.0, 3.0])],
        ..proto::ModelInferRequest::default()
    }
}

pub(crate) fn count(id: &str, n: i32) -> proto::ModelInferRequest {
    let contents = proto::InferTensorContents {
        int_contents: vec![n],
        ..proto::InferTensorContents::default()
    };
    proto::ModelInferRequest {
        model_name: "count".to_owned(),
        id: id.to_owned(),
        inputs: vec![InferInputTensor {
            contents: Some(contents),
            ..input("count", "INT32", &[1])
        }],
        ..proto::ModelInferRequest::default()
    }
}

#[tokio::test]
async fn health_metadata_and_configuration_are_told() {
    let app = App::new();
    let mut client = client(&app);
    assert!(
        client
            .server_live(proto::ServerLiveRequest {})
            .await
            .unwrap()
            .into_inner()
            .live
    );
    assert!(
        client
            .server_ready(proto::ServerReadyRequest {})
            .await
            .unwrap()
            .into_inner()
            .ready
    );
    let server = client
        .server_metadata(proto::ServerMetadataRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(server.name, "tidemill");
    assert!(server.extensions.contains(&"statistics".to_owned()));
    let ready = async |name: &str, version: &str| {
        let asked = proto::ModelReadyRequest {
            name: name.to_owned(),
            version: version.to_owned(),
        };
        client
            .clone()
            .model_ready(asked)
            .await
            .unwrap()
            .into_inner()
            .ready
    };
    assert!(ready("double", "").await && ready("flights", "3").await);
    assert!(!ready("double", "9").await && !ready("nobody", "").await && !ready("empty", "").await);
    let asked = proto::ModelMetadataRequest {
        name: "double".to_owned(),
        version: String::new(),
    };
    let model = client.model_metadata(asked).await.unwrap().into_inner();
    assert_eq!(
        (model.versions, model.inputs[0].shape.clone()),
        (vec!["2".to_owned(), "3".to_owned()], vec![-1, 3])
    );
    let asked = proto::ModelConfigRequest {
        name: "double".to_owned(),
        version: String::new(),
    };
    let config = client
        .model_config(asked)
        .await
        .unwrap()
        .into_inner()
        .config
        .unwrap();
    assert_eq!(
        (config.max_batch_size, config.input[0].dims.clone()),
        (64, vec![3])
    );
    assert_eq!(config.input[0].data_type, i32::from(proto::DataType::TypeFp32));

    let mut health = health_proto::health_client::HealthClient::new(wire(&app));
    let check = |service: &str| health_proto::HealthCheckRequest {
        service: service.to_owned(),
    };
    assert_eq!(health.check(check("")).await.unwrap().into_inner().status, 1);
    assert_eq!(
        health.check(check("nobody")).await.unwrap_err().code(),
        Code::NotFound
    );
    app.fake.ready.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(health.check(check("")).await.unwrap().into_inner().status, 2);
}

#[tokio::test]
async fn tensors_go_raw_or_typed_and_come_back_raw() {
    let app = App::new();
    let mut client = client(&app);
    let answer = client.model_infer(double("q1")).await.unwrap().into_inner();
    assert_eq!(
        (
            answer.model_name.as_str(),
            answer.model_version.as_str(),
            answer.id.as_str()
        ),
        ("double", "3", "q1")
    );
    assert_eq!(
        (answer.outputs[0].name.as_str(), answer.outputs[0].shape.clone()),
        ("y", vec![1, 3])
    );
    assert_eq!(answer.raw_output_contents, [floats(&[2.0, 4.0, 6.0])]);

    let mut typed = double("");
    typed.raw_input_contents.clear();
    typed.inputs[0].contents = Some(proto::InferTensorContents {
        fp32_contents: vec![0.5, 1.0, 9.0],
        ..proto::InferTensorContents::default()
    });
    typed.outputs = vec![InferRequestedOutputTensor {
        name: "y".to_owned(),
        parameters: HashMap::from([(
            "classification".to_owned(),
            parameter(ParameterChoice::Int64Param(1)),
        )]),
    }];
    let answer = client.model_infer(typed).await.unwrap().into_inner();
    assert_eq!(&answer.raw_output_contents[0][4..], b"18.000000:2");

    // An endpoint of the loop.
    let flights = proto::ModelInferRequest {
        model_name: "flights".to_owned(),
        inputs: vec![input("distance", "FP64", &[1]), input("carrier", "BYTES", &[1])],
        raw_input_contents: vec![
            250.0_f64.to_le_bytes().to_vec().into(),
            b"\x02\0\0\0UA".to_vec().into(),
        ],
        ..proto::ModelInferRequest::default()
    };
    let answer = client.model_infer(flights).await.unwrap().into_inner();
    assert_eq!(answer.outputs[0].name, "probability");
    assert_eq!(answer.raw_output_contents[0], 0.25_f64.to_le_bytes().to_vec());
    assert!(answer.parameters.contains_key("at"));
}

#[tokio::test]
async fn errors_have_grpcs_codes() {
    let app = App::new();
    let mut client = client(&app);
    let with = |change: &dyn Fn(&mut proto::ModelInferRequest)| {
        let mut request = double("");
        change(&mut request);
        request
    };
    let cases = [
        (
            with(&|r| r.model_name = "nobody".to_owned()),
            Code::NotFound,
            "there is no endpoint `nobody`",
        ),
        (
            with(&|r| r.model_version = "9".to_owned()),
            Code::NotFound,
            "does not serve version 9",
        ),
        (
            with(&|r| r.model_version = "x".to_owned()),
            Code::InvalidArgument,
            "version `x` is not a number",
        ),
        (
            with(&|r| r.inputs[0].datatype = "FP64".to_owned()),
            Code::InvalidArgument,
            "expected 24 bytes",
        ),
        (
            with(&|r| r.inputs[0].datatype = "FP8".to_owned()),
            Code::InvalidArgument,
            "datatype `FP8`",
        ),
        (
            with(&|r| r.inputs[0].shape = vec![-1, 3]),
            Code::InvalidArgument,
            "expected sizes of 0 or more",
        ),
        (
            with(&|r| r.inputs[0].name = "z".to_owned()),
            Code::InvalidArgument,
            "there is no input `z`",
        ),
        (
            with(&|r| r.raw_input_contents.clear()),
            Code::InvalidArgument,
            "0 bytes, expected 12",
        ),
        (
            with(&|r| r.raw_input_contents.push(floats(&[]))),
            Code::InvalidArgument,
            "1 tensors more",
        ),
        (
            with(&|r| r.inputs[0].contents = Some(proto::InferTensorContents::default())),
            Code::InvalidArgument,
            "send one",
        ),
        (count("", 1), Code::InvalidArgument, "ask by `ModelStreamInfer`"),
        (
            proto::ModelInferRequest {
                model_name: "fails".to_owned(),
                ..proto::ModelInferRequest::default()
            },
            Code::Internal,
            "the model is broken",
        ),
    ];
    for (request, code, expected) in cases {
        let error = client.model_infer(request).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(
            error.message().contains(expected),
            "{}\n  not {expected}",
            error.message()
        );
    }
    let narrow = proto::ModelInferRequest {
        model_name: "identity".to_owned(),
        inputs: vec![InferInputTensor {
            contents: Some(proto::InferTensorContents {
                int_contents: vec![300],
                ..proto::InferTensorContents::default()
            }),
            ..input("INT8", "INT8", &[1])
        }],
        ..proto::ModelInferRequest::default()
    };
    let error = client.model_infer(narrow).await.unwrap_err();
    assert_eq!(error.message(), "input `INT8`: `300` does not fit INT8");

    // No such call, and a call that is none.
    let path = "/inference.GRPCInferenceService/Nothing";
    let request = HttpRequest::post(path).header("content-type", "application/grpc");
    let reply = app.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(reply.header("grpc-status"), "12");
    let reply = app.post(path, serde_json::json!({})).await;
    assert_eq!((reply.status.as_u16(), reply.header("grpc-status")), (200, "3"));
}

#[tokio::test]
async fn a_stream_answers_each_request_with_one_or_many_and_errors_do_not_end_it() {
    let app = App::new();
    let mut client = client(&app);
    let mut last_wanted = count("many", 3);
    let wish = parameter(ParameterChoice::BoolParam(true));
    last_wanted
        .parameters
        .insert("triton_enable_empty_final_response".to_owned(), wish);
    let mut wrong = double("wrong");
    wrong.inputs[0].name = "z".to_owned();
    let requests = vec![
        double("one"),
        wrong,
        double("two"),
        last_wanted,
        count("none", 0),
        count("below", -1),
        count("five", 5),
    ];
    let replies = client
        .model_stream_infer(futures::stream::iter(requests))
        .await
        .unwrap()
        .into_inner();
    let replies: Vec<_> = replies.map(Result::unwrap).collect().await;
    let of = |id: &str| -> Vec<&proto::ModelStreamInferResponse> {
        let named =
            |reply: &&proto::ModelStreamInferResponse| reply.infer_response.as_ref().unwrap().id == id;
        replies.iter().filter(named).collect()
    };
    let is_last = |reply: &proto::ModelStreamInferResponse| {
        let parameters = &reply.infer_response.as_ref().unwrap().parameters;
        parameters["triton_final_response"].parameter_choice == Some(ParameterChoice::BoolParam(true))
    };
    assert!(is_last(of("one")[0]) && is_last(of("two")[0]));
    assert_eq!(of("one").len() + of("two").len(), 2);
    assert!(of("wrong")[0].error_message.contains("there is no input `z`"));
    let many = of("many");
    assert_eq!(many.len(), 4, "three numbers and the end");
    assert!(!is_last(many[2]) && is_last(many[3]));
    assert!(many[3].infer_response.as_ref().unwrap().outputs.is_empty());
    let numbers: Vec<&[u8]> = many[..3]
        .iter()
        .map(|r| &r.infer_response.as_ref().unwrap().raw_output_contents[0][..])
        .collect();
    assert_eq!(numbers, [0.0_f64, 1.0, 2.0].map(f64::to_le_bytes));
    assert!(of("none").is_empty());
    assert!(of("below")[0].error_message.contains("a count is not below 0"));
    assert_eq!(
        of("five")
            .iter()
            .filter(|r| r.error_message.contains("four is too many"))
            .count(),
        1
    );
    // Answers of models that give one come in the order of their requests.
    let place = |id: &str| {
        replies
            .iter()
            .position(|r| r.infer_response.as_ref().unwrap().id == id)
            .unwrap()
    };
    assert!(place("one") < place("two"));
}

#[tokio::test]
async fn the_repository_statistics_and_settings_are_there() {
    let app = App::new();
    let mut client = client(&app);
    client.model_infer(double("")).await.unwrap();
    let asked = proto::ModelStatisticsRequest {
        name: "double".to_owned(),
        version: "3".to_owned(),
    };
    let stats = client
        .model_statistics(asked)
        .await
        .unwrap()
        .into_inner()
        .model_stats;
    assert_eq!((stats.len(), stats[0].inference_count), (1, 1));
    let all = client
        .model_statistics(proto::ModelStatisticsRequest::default())
        .await
        .unwrap();
    assert!(all.into_inner().model_stats.len() > 5);
    let index = client
        .repository_index(proto::RepositoryIndexRequest::default())
        .await
        .unwrap();
    assert!(
        index
            .into_inner()
            .models
            .iter()
            .any(|one| one.name == "grades" && one.state == "READY")
    );

    let name = || "double".to_owned();
    let unload = proto::RepositoryModelUnloadRequest {
        model_name: name(),
        ..proto::RepositoryModelUnloadRequest::default()
    };
    client.repository_model_unload(unload).await.unwrap();
    assert_eq!(
        client.model_infer(double("")).await.unwrap_err().code(),
        Code::Unavailable
    );
    let load = || proto::RepositoryModelLoadRequest {
        model_name: name(),
        ..proto::RepositoryModelLoadRequest::default()
    };
    client.repository_model_load(load()).await.unwrap();
    client.model_infer(double("")).await.unwrap();
    let nobody = proto::RepositoryModelLoadRequest {
        model_name: "nobody".to_owned(),
        ..load()
    };
    assert_eq!(
        client.repository_model_load(nobody).await.unwrap_err().code(),
        Code::NotFound
    );

    let trace = client
        .trace_setting(proto::TraceSettingRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(trace.settings["trace_level"].value, ["OFF"]);
    let level = proto::trace_setting_request::SettingValue {
        value: vec!["TIMESTAMPS".to_owned()],
    };
    let change = proto::TraceSettingRequest {
        settings: HashMap::from([("trace_level".to_owned(), level)]),
        model_name: String::new(),
    };
    assert_eq!(
        client.trace_setting(change).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let log = client
        .log_settings(proto::LogSettingsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(log.settings.contains_key("log_verbose_level"));
    let status = client
        .cuda_shared_memory_status(proto::CudaSharedMemoryStatusRequest::default())
        .await;
    assert!(status.unwrap().into_inner().regions.is_empty());
    let register = proto::SystemSharedMemoryRegisterRequest::default();
    let error = client.system_shared_memory_register(register).await.unwrap_err();
    assert!(error.message().contains("--shared-memory"), "{error}");
}

#[tokio::test]
async fn users_say_who_they_are_in_metadata_as_over_http() {
    let app = App::with_users("READ").await;
    let mut client = client(&app);
    assert!(
        client.server_live(proto::ServerLiveRequest {}).await.is_ok(),
        "probes need no user"
    );
    assert_eq!(
        client.model_infer(double("")).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    let signed = |message: proto::ModelInferRequest| {
        use base64::Engine as _;
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("admin:{ADMIN_PASSWORD}"));
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("authorization", format!("Basic {basic}").parse().unwrap());
        request
    };
    client.model_infer(signed(double(""))).await.unwrap();
    let load = proto::RepositoryModelLoadRequest {
        model_name: "double".to_owned(),
        ..proto::RepositoryModelLoadRequest::default()
    };
    assert_eq!(
        client.repository_model_load(load).await.unwrap_err().code(),
        Code::Unauthenticated
    );
}
