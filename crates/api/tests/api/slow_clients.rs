//! Clients that send slowly, or nothing at all, lose their connection and nobody else's time.

use std::time::Duration;

use tidemill_api::{Patience, serve_patiently};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::fake::App;

const PATIENCE: Patience = Patience {
    head: Duration::from_millis(200),
    body_pause: Duration::from_millis(200),
};

struct Served {
    address: std::net::SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn served() -> Served {
    let app = App::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(serve_patiently(listener, app.router, PATIENCE, async move {
        let _ = stopped.await;
    }));
    Served {
        address,
        stop: Some(stop),
        task,
    }
}

async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut read)).await;
    // A reset is an end too.
    assert!(end.is_ok(), "the connection is closed in time");
    read
}

#[tokio::test]
async fn a_head_that_never_ends_and_a_client_that_says_nothing_are_cut_off() {
    let mut server = served().await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut one_byte = TcpStream::connect(server.address).await.unwrap();
    one_byte.write_all(b"P").await.unwrap();
    let mut loris = TcpStream::connect(server.address).await.unwrap();
    loris
        .write_all(b"GET /v2 HTTP/1.1\r\nhost: 127.0.0.1\r\n")
        .await
        .unwrap();
    for header in 0..3 {
        tidemill_core::clock::real_sleep(Duration::from_millis(50)).await;
        let _ = loris.write_all(format!("x-{header}: 1\r\n").as_bytes()).await;
    }
    until_closed(&mut silent).await;
    until_closed(&mut one_byte).await;
    let said = until_closed(&mut loris).await;
    assert!(
        !said.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&said)
    );
    server.stop.take().unwrap().send(()).unwrap();
    server.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_body_that_pauses_too_long_is_an_error_and_others_are_answered_meanwhile() {
    let mut server = served().await;
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(
        b"POST /v2/models/flights/infer HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{",
    )
    .await
    .unwrap();
    let mut quick = TcpStream::connect(server.address).await.unwrap();
    quick
        .write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let answer = until_closed(&mut quick).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    let answer = String::from_utf8(until_closed(&mut slow).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("nothing came for 200ms"), "{answer}");
    server.stop.take().unwrap().send(()).unwrap();
    server.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_never_spoke_does_not_hold_up_the_end() {
    let mut server = served().await;
    let _silent = TcpStream::connect(server.address).await.unwrap();
    tidemill_core::clock::real_sleep(Duration::from_millis(20)).await;
    server.stop.take().unwrap().send(()).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(2), server.task).await;
    ended.expect("it stops at once").unwrap().unwrap();
}
