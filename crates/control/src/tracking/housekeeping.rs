//! What a tracking server does from time to time without being asked.

use std::time::Duration;

use tidemill_core::clock::real_sleep;

use super::Tracking;

/// How often runs are looked for that have fallen silent.
const TURN: Duration = Duration::from_mins(1);
/// How many turns pass between two sweeps of the artifact store: once a day.
const SWEEP_EVERY: u32 = 24 * 60;

impl Tracking {
    async fn sweep_whole_store(&self) -> super::Result<()> {
        self.wandb_forget_blobs().await?;
        self.sweep_artifacts().await.map(|_| ())
    }

    /// Declares silent runs crashed and frees objects that no name stands for, for ever.
    pub async fn keep_house(&self) {
        for turn in 0_u32.. {
            if let Err(error) = self.wandb_expire().await {
                tracing::warn!(%error, "cannot look for runs that have fallen silent; it is tried again");
            }
            if let Err(error) = self.wandb_end_artifacts().await {
                tracing::warn!(%error, "cannot delete artifacts whose time is over; it is tried again");
            }
            // First soon after the start, which may follow a crash.
            if turn % SWEEP_EVERY == 1
                && let Err(error) = self.sweep_whole_store().await
            {
                tracing::warn!(%error, "cannot sweep the artifact store; it is tried again tomorrow");
            }
            if turn % SWEEP_EVERY == 0
                && let Err(error) = self.sweep_uploads().await
            {
                tracing::warn!(%error, "cannot end forgotten uploads to a bucket; it is tried again tomorrow");
            }
            real_sleep(TURN).await;
        }
    }
}
