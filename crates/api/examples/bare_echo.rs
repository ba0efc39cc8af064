//! The baseline of `make bench-serving`: axum and nothing around it. It parses a JSON body and sends it back.
#![allow(clippy::print_stdout, clippy::unwrap_used)] // a program for the command line

use axum::routing::post;
use axum::serve::ListenerExt as _;
use axum::{Json, Router};

#[tokio::main]
async fn main() {
    let echo = |Json(body): Json<serde_json::Value>| async move { Json(body) };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
    axum::serve(listener, Router::new().route("/", post(echo)))
        .await
        .unwrap();
}
