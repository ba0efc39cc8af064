//! The task that hands waiting calls to the replicas of a version.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidemill_core::clock::real_sleep;

use super::version::{Version, duration};

/// A wait shorter than this is not worth a timer.
const SHORTEST_WAIT: Duration = Duration::from_micros(500);

/// Hands waiting calls to replicas until there are none.
pub(super) async fn pump(version: Arc<Version>) {
    loop {
        if version.queue.waiting() == 0 {
            version.pumping.store(false, Ordering::Release);
            // Somebody may have come between the look and the word; whoever sets the flag first goes on.
            if version.queue.waiting() == 0 || version.pumping.swap(true, Ordering::AcqRel) {
                return;
            }
        }
        let slot = version.replicas.take().await;
        let max_rows = version.max_rows();
        if let Some(batching) = &version.spec.batching {
            wait_for_more(&version, max_rows, duration(batching.max_delay)).await;
        }
        let taken = version.queue.take(max_rows);
        for pending in taken.over {
            let _ = pending
                .reply
                .send(Err(version.late("it waited too long for its turn")));
        }
        if !taken.batch.is_empty() {
            tokio::spawn(Arc::clone(&version).answer_batch(slot, taken.batch));
        }
        version.scale_out();
    }
}

async fn wait_for_more(version: &Version, max_rows: usize, limit: Duration) {
    let wait = version.patience.wait(limit);
    if wait < SHORTEST_WAIT {
        return;
    }
    let full = async {
        while version.queue.rows() < max_rows {
            version.queue.arrival().await;
        }
    };
    tokio::select! {
        () = full => {}
        () = real_sleep(wait) => {}
    }
}
