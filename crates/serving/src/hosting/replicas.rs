//! The replicas of a version: loaded, used, added under load and taken away again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tidemill_core::clock::Stopwatch;
use tidemill_core::servable::{Interface, Servable};
use tokio::sync::Notify;

/// A loaded model. Dropped when nobody uses it any more, which ends what it runs on.
#[derive(Debug)]
pub(super) struct Replica {
    pub model: Arc<dyn Servable>,
    pub interface: Arc<Interface>,
    busy: AtomicUsize,
    idle_since: Mutex<Stopwatch>,
}

impl Replica {
    pub fn new(model: Arc<dyn Servable>) -> Self {
        let interface = Arc::new(model.interface().clone());
        Self {
            model,
            interface,
            busy: AtomicUsize::new(0),
            idle_since: Mutex::new(Stopwatch::start()),
        }
    }

    /// How long it has had nothing to do; `None` while it works.
    pub fn idle(&self) -> Option<Duration> {
        let since = self.idle_since.lock().unwrap_or_else(PoisonError::into_inner);
        (self.busy.load(Ordering::Acquire) == 0).then(|| since.elapsed())
    }

    /// It was just asked something, though no slot was taken.
    pub fn touch(&self) {
        let mut since = self.idle_since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = Stopwatch::start();
    }

    fn try_take(self: &Arc<Self>, freed: &Arc<Notify>) -> Option<Slot> {
        let most = self.model.concurrency().max(1);
        let taken = self
            .busy
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |busy| {
                (busy < most).then_some(busy + 1)
            });
        taken.is_ok().then(|| Slot {
            replica: Arc::clone(self),
            freed: Arc::clone(freed),
        })
    }
}

/// The right to ask a replica something.
#[derive(Debug)]
pub(super) struct Slot {
    pub replica: Arc<Replica>,
    freed: Arc<Notify>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut since = self
            .replica
            .idle_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *since = Stopwatch::start();
        drop(since);
        self.replica.busy.fetch_sub(1, Ordering::AcqRel);
        self.freed.notify_one();
    }
}

/// All replicas of a version.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    all: ArcSwap<Vec<Arc<Replica>>>,
    freed: Arc<Notify>,
    next: AtomicU64,
}

impl Replicas {
    pub fn count(&self) -> usize {
        self.all.load().len()
    }

    /// One of them, for what needs no slot.
    pub fn any(&self) -> Option<Arc<Replica>> {
        let all = self.all.load();
        match all.len() {
            0 => None,
            1 => Some(Arc::clone(&all[0])),
            count => {
                let turn = self.next.fetch_add(1, Ordering::Relaxed);
                Some(Arc::clone(&all[turn as usize % count]))
            }
        }
    }

    /// A slot of the least busy replica, if one is free.
    pub fn try_take(&self) -> Option<Slot> {
        let all = self.all.load();
        let mut by_work: Vec<&Arc<Replica>> = all.iter().collect();
        by_work.sort_by_key(|replica| replica.busy.load(Ordering::Acquire));
        by_work
            .into_iter()
            .find_map(|replica| replica.try_take(&self.freed))
    }

    /// A slot, as soon as one is free.
    pub async fn take(&self) -> Slot {
        loop {
            let freed = self.freed.notified();
            if let Some(slot) = self.try_take() {
                return slot;
            }
            freed.await;
        }
    }

    /// How many calls they can work on at once.
    pub fn slots(&self) -> usize {
        let all = self.all.load();
        all.iter().fold(0_usize, |sum, replica| {
            sum.saturating_add(replica.model.concurrency())
        })
    }

    /// How many calls they work on.
    pub fn busy(&self) -> usize {
        let all = self.all.load();
        all.iter()
            .map(|replica| replica.busy.load(Ordering::Acquire))
            .sum()
    }

    /// Bytes of memory.
    pub fn memory(&self) -> u64 {
        self.all.load().iter().map(|replica| replica.model.memory()).sum()
    }

    pub fn add(&self, replica: Arc<Replica>) {
        self.all.rcu(|all| {
            let mut next = Vec::clone(all);
            next.push(Arc::clone(&replica));
            next
        });
        self.freed.notify_one();
    }

    /// Takes one that has been idle for this long away, unless no more than `keep` are left. Returns whether one went.
    pub fn remove_idle(&self, keep: usize, idle: Duration) -> bool {
        let mut removed = false;
        self.all.rcu(|all| {
            removed = false;
            let mut next = Vec::clone(all);
            if next.len() > keep {
                let old = next
                    .iter()
                    .position(|replica| replica.idle().is_some_and(|for_| for_ >= idle));
                if let Some(place) = old {
                    next.remove(place);
                    removed = true;
                }
            }
            next
        });
        removed
    }

    /// Takes all away; calls under way end on theirs.
    pub fn clear(&self) {
        self.all.store(Arc::default());
    }
}
