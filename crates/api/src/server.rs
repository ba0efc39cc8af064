//! Listening, and stopping without cutting anybody off.

use std::future::Future;
use std::io;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use axum::{Extension, Router};
use tidemill_core::clock::real_sleep;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Open requests have this long to end once the server is asked to stop.
const GRACE: Duration = Duration::from_secs(10);

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
    let (stop, stopping) = watch::channel(false);
    let router = router.layer(Extension(Stopping(stopping.clone())));
    let announced = async move {
        shutdown.await;
        let _ = stop.send(true);
        // Kept until the process ends, so that a receiver never sees the channel close first.
        stop.closed().await;
    };
    let graceful = Stopping(stopping.clone()).wait();
    let out_of_patience = async {
        Stopping(stopping).wait().await;
        real_sleep(GRACE).await;
    };
    let announcer = tokio::spawn(announced);
    // Small answers leave at once: waiting for more to send would cost a client that acknowledges late 40 ms a call.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot switch off Nagle's algorithm");
        }
    });
    let served = axum::serve(listener, router).with_graceful_shutdown(graceful);
    let result = tokio::select! {
        result = served.into_future() => result,
        () = out_of_patience => {
            tracing::warn!(seconds = GRACE.as_secs(), "some requests did not end in time and were cut off");
            Ok(())
        }
    };
    announcer.abort();
    result
}
