//! Where a model's work is done.

use tidemill_core::ports::PortError;
use tidemill_core::servable::Work;

/// Runs what a model of this kind does where it holds nobody up.
pub(super) async fn off_thread<T: Send + 'static>(
    work: Work,
    future: impl Future<Output = Result<T, PortError>> + Send + 'static,
) -> Result<T, PortError> {
    match work {
        Work::Light | Work::Remote => future.await,
        Work::Heavy => {
            let handle = tokio::runtime::Handle::current();
            let thread = tokio::task::spawn_blocking(move || handle.block_on(future));
            thread.await.unwrap_or_else(|error| {
                let message = format!("the model's thread failed: {error}");
                Err(PortError::internal("model_broken", message))
            })
        }
    }
}
