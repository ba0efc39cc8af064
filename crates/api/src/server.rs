//! Listening, and stopping without cutting anybody off.
//!
//! HTTP/1.1 and HTTP/2 (without TLS, by prior knowledge: gRPC) on one port. Nobody may hold a connection by sending slowly: [`Patience`]
//! says how long a head may take and a body may pause.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, Request, header};
use axum::{Extension, Router};
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tidemill_core::clock::real_sleep;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tower::Service as _;

/// Open requests have this long to end once the server is asked to stop.
const GRACE: Duration = Duration::from_secs(10);
/// After a connection could not be taken, because there are too many, the next is tried so much later.
const CROWDED: Duration = Duration::from_millis(50);
/// What a client may send ahead of its being read, on one stream and on a whole HTTP/2 connection. h2 ends connections on which small
/// frames pile up, and lets more of them pile up the larger the connection's window is: with sixteen times a stream's, one slow stream of
/// messages of 30 bytes and more does no harm to the others. (An adaptive window begins with 64 KiB for both, where 164 messages do.)
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 * STREAM_WINDOW;

/// How long the server waits for what a client sends.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// The head of a request has to come within this time, on a fresh connection and on one that was used before.
    pub head: Duration,
    /// A body may pause for so long.
    pub body_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            head: Duration::from_mins(1),
            body_pause: Duration::from_secs(30),
        }
    }
}

/// Tells endless answers that the server wants to stop.
#[derive(Clone, Debug)]
pub(crate) struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// Returns once the server wants to stop.
    pub(crate) async fn wait(mut self) {
        // An error means that the server is gone, which is the same.
        let _ = self.0.wait_for(|stopping| *stopping).await;
    }
}

/// Serves until `shutdown` is ready; then takes no new connections, ends event streams, and lets open requests end, for ten seconds
/// at most.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    serve_patiently(listener, router, Patience::default(), shutdown).await
}

/// As [`serve`], with another patience.
pub async fn serve_patiently(
    listener: TcpListener,
    router: Router,
    patience: Patience,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (stop, stopping) = watch::channel(false);
    let router = router.layer(Extension(Stopping(stopping.clone())));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(Some(patience.head))
        .max_concurrent_streams(1_024);
    let graceful = GracefulShutdown::new();

    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let stream = tokio::select! {
            () = &mut shutdown => break,
            stream = accept(&listener) => stream,
        };
        let service = hyper::service::service_fn({
            let router = router.clone();
            move |request: Request<Incoming>| router.clone().call(patient(request, patience.body_pause))
        });
        let (builder, watcher) = (builder.clone(), graceful.watcher());
        let stopping = Stopping(stopping.clone());
        tokio::spawn(async move {
            // hyper's own clock starts only once it knows which version of HTTP is spoken.
            let spoke = tokio::select! {
                spoke = speaks(&stream, patience.head) => spoke,
                () = stopping.wait() => false,
            };
            if !spoke {
                return;
            }
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            if let Err(error) = watcher.watch(connection.into_owned()).await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    // Kept until the process ends, so that a receiver never sees the channel close first.
    let _ = stop.send(true);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = real_sleep(GRACE) => {
            tracing::warn!(seconds = GRACE.as_secs(), "some requests did not end in time and were cut off");
        }
    }
    Ok(())
}

/// The next connection. What goes wrong with one is no reason to stop listening.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Small answers leave at once: waiting for more to send would cost a client that acknowledges late 40 ms a call.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot switch off Nagle's algorithm");
                }
                return stream;
            }
            Err(error) if gone_already(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken; raise the limit on open files if there are many");
                real_sleep(CROWDED).await;
            }
        }
    }
}

/// Whether enough came within `most` to tell HTTP/1.1 from HTTP/2, whose first words differ in their third byte at the latest.
async fn speaks(stream: &TcpStream, most: Duration) -> bool {
    const ENOUGH: usize = 3;
    let hear = async {
        let mut first = [0; ENOUGH];
        loop {
            match stream.peek(&mut first).await {
                Ok(0) | Err(_) => return false,
                Ok(ENOUGH) => return true,
                // What is there stays there, so a wait for more would be over at once.
                Ok(_) => real_sleep(CROWDED).await,
            }
        }
    };
    tokio::select! {
        heard = hear => heard,
        () = real_sleep(most) => false,
    }
}

fn gone_already(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

/// The request with a body that does not wait for ever. A gRPC stream may be silent as long as it likes: HTTP/2 asks whether the peer is
/// still there.
fn patient(request: Request<Incoming>, most: Duration) -> Request<Body> {
    let endless = is_grpc(request.headers());
    request.map(|body| {
        if endless || body.is_end_stream() {
            return Body::new(body);
        }
        Body::new(PatientBody {
            body,
            most,
            pause: None,
        })
    })
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// A body that is given up when nothing comes for a while. The timer is made only once a read has to wait.
struct PatientBody {
    body: Incoming,
    most: Duration,
    pause: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// Nothing came for a while.
#[derive(Debug, thiserror::Error)]
#[error("nothing came for {0:?}")]
struct Paused(Duration);

impl HttpBody for PatientBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.pause = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let most = self.most;
        let pause = self.pause.get_or_insert_with(|| Box::pin(real_sleep(most)));
        ready!(pause.as_mut().poll(context));
        Poll::Ready(Some(Err(Paused(most).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
