//! The task that hands waiting calls to the replicas of a version.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidemill_core::clock::real_sleep;

use super::replicas::Slot;
use super::version::{Version, duration};

/// A wait shorter than this is not worth a timer.
const SHORTEST_WAIT: Duration = Duration::from_micros(500);
/// While no slot is free, whether there are replicas at all is looked at this often.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);

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
        let Some(slot) = slot(&version).await else {
            continue;
        };
        let max_rows = version.max_rows();
        if let Some(batching) = &version.spec.batching {
            wait_for_more(&version, max_rows, duration(batching.max_delay)).await;
        }
        let longest = version.limit.longest_wait();
        let taken = version.queue.take(max_rows, longest);
        for pending in taken.over {
            // Who has gone away was counted when it went.
            if !pending.reply.is_closed() {
                let error = match longest {
                    Some(_) => version.overloaded("more comes than can be answered, and it waited long"),
                    None => version.late("it waited too long for its turn"),
                };
                let _ = pending.reply.send(Err(error));
            }
        }
        if !taken.batch.is_empty() {
            tokio::spawn(Arc::clone(&version).answer_batch(slot, taken.batch));
        }
        version.scale_out();
    }
}

/// A slot of a replica; `None` if there is none to be had, and all who waited were told so. The last replica may have gone to sleep
/// between the look of a caller and its place in line: then it is loaded again.
async fn slot(version: &Arc<Version>) -> Option<Slot> {
    loop {
        if version.replicas.count() == 0
            && let Err(error) = version.load_first().await
        {
            version.turn_away(&error);
            return None;
        }
        tokio::select! {
            slot = version.replicas.take() => return Some(slot),
            () = real_sleep(LOOK_AGAIN) => {}
        }
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
