//! Streams of gRPC over real connections, beside what others do on the same connection.

use std::time::Duration;

use futures::StreamExt as _;
use hyper::Request;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tidemill_api::serve;
use tokio::net::{TcpListener, TcpStream};

use crate::fake::App;
use crate::grpc::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use crate::grpc::{count, double, proto};

/// A server, and the one connection to it.
async fn connected() -> SendRequest<tonic::body::Body> {
    let app = App::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, app.router, std::future::pending()));
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

#[tokio::test]
async fn a_callers_time_holds_for_each_request_of_a_stream() {
    let sender = connected().await;
    let service = tower::service_fn(move |request: Request<tonic::body::Body>| {
        let mut sender = sender.clone();
        async move { sender.send_request(request).await }
    });
    let origin = "http://127.0.0.1".parse().unwrap();
    let mut client = GrpcInferenceServiceClient::with_origin(service, origin);
    for (header, value) in [("x-tidemill-timeout-ms", "150"), ("grpc-timeout", "150m")] {
        let requests = futures::stream::iter([count("quick", 2), count("slow", 900)]);
        let mut request = tonic::Request::new(requests);
        request.metadata_mut().insert(header, value.parse().unwrap());
        let watch = tidemill_core::clock::Stopwatch::start();
        let replies = client.model_stream_infer(request).await.unwrap().into_inner();
        let replies: Vec<_> = replies.map(Result::unwrap).collect().await;
        assert!(
            watch.elapsed() < Duration::from_millis(800),
            "{:?}",
            watch.elapsed()
        );
        let errors: Vec<&str> = replies
            .iter()
            .filter(|reply| !reply.error_message.is_empty())
            .map(|reply| reply.error_message.as_str())
            .collect();
        assert!(
            matches!(errors[..], [error] if error.contains("within the request's time")),
            "{header}: {errors:?}"
        );
    }
}

#[tokio::test]
async fn a_stream_that_is_far_ahead_of_its_answers_does_not_end_the_connection() {
    const MESSAGES: usize = 1_500;
    let sender = connected().await;
    let service = tower::service_fn(move |request: Request<tonic::body::Body>| {
        let mut sender = sender.clone();
        async move { sender.send_request(request).await }
    });
    let origin = "http://127.0.0.1".parse().unwrap();
    let mut client = GrpcInferenceServiceClient::with_origin(service, origin);
    let (sent, all_sent) = tokio::sync::oneshot::channel();
    let mut sent = Some(sent);
    // Each message a frame of its own: what waits for nothing would be sent together.
    let requests = futures::stream::unfold(0, move |i| {
        let sent = (i == MESSAGES).then(|| sent.take()).flatten();
        async move {
            tokio::task::yield_now().await;
            if let Some(sent) = sent {
                sent.send(()).unwrap();
                // The stream stays open.
                std::future::pending::<()>().await;
            }
            Some((count(&i.to_string(), 150), i + 1))
        }
    });
    let mut replies = client
        .model_stream_infer(requests.boxed())
        .await
        .unwrap()
        .into_inner();
    let sending = tokio::time::timeout(Duration::from_secs(10), all_sent);
    sending.await.expect("they are read as they come").unwrap();
    let answer = client.model_infer(double("beside")).await.unwrap().into_inner();
    assert_eq!(answer.id, "beside");
    for _ in 0..3 {
        let reply: proto::ModelStreamInferResponse = replies.next().await.unwrap().unwrap();
        assert_eq!(reply.error_message, "");
    }
}
