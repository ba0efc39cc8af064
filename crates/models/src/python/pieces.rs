//! An answer in pieces on its way to a caller who may read slowly: how many pieces and bytes wait for it is bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tidemill_core::ports::PortError;
use tidemill_core::servable::Payload;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Bytes that wait, 64 MiB in units of a KiB. A piece that is larger waits alone.
const ROOM: usize = 64 << 10;
const UNIT: usize = 1 << 10;

/// An answer, or a piece of one.
pub(super) type Answer = Result<Payload, PortError>;

/// A piece, and the room that it takes while it waits.
type Piece = (Answer, Option<OwnedSemaphorePermit>);

/// Where the pieces of an answer go.
#[derive(Debug, Clone)]
pub(super) struct Receiving {
    pieces: mpsc::Sender<Piece>,
    room: Arc<Semaphore>,
    /// Set when the answer is whole: pieces that end without it were cut off.
    whole: Arc<AtomicBool>,
}

/// The pieces of an answer, as they come.
#[derive(Debug)]
pub(super) struct Pieces {
    rest: mpsc::Receiver<Piece>,
    whole: Arc<AtomicBool>,
}

/// Both ends of an answer of which at most so many pieces wait.
pub(super) fn pieces(most: usize) -> (Receiving, Pieces) {
    let (sender, rest) = mpsc::channel(most);
    let whole = Arc::new(AtomicBool::new(false));
    let receiving = Receiving {
        pieces: sender,
        room: Arc::new(Semaphore::new(ROOM)),
        whole: Arc::clone(&whole),
    };
    (receiving, Pieces { rest, whole })
}

fn units(bytes: usize) -> u32 {
    bytes.div_ceil(UNIT).clamp(1, ROOM) as u32
}

impl Receiving {
    /// Takes a piece of so many bytes without waiting; true if the caller reads too slowly for that.
    pub fn is_too_slow_for(&self, bytes: usize, piece: Payload) -> bool {
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(units(bytes)) else {
            return true;
        };
        let taken = self.pieces.try_send((Ok(piece), Some(room)));
        matches!(taken, Err(mpsc::error::TrySendError::Full(_)))
    }

    /// Takes a piece of so many bytes when there is room, or drops it when the caller leaves.
    pub async fn take(&self, bytes: usize, piece: Payload) {
        let taken = async {
            // The room is never closed.
            if let Ok(room) = Arc::clone(&self.room).acquire_many_owned(units(bytes)).await {
                let _ = self.pieces.send((Ok(piece), Some(room))).await;
            }
        };
        tokio::select! {
            () = taken => {}
            () = self.pieces.closed() => {}
        }
    }

    /// There are no more.
    pub fn end(&self) {
        self.whole.store(true, Ordering::Release);
    }

    /// The last piece; a caller who reads slowly holds up nobody.
    pub fn end_with(self, last: Answer) {
        self.end();
        if let Err(mpsc::error::TrySendError::Full(last)) = self.pieces.try_send((last, None)) {
            tokio::spawn(async move { self.pieces.send(last).await });
        }
    }
}

impl Pieces {
    /// The next one, which then makes room for others.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Answer>> {
        let next = self.rest.poll_recv(context);
        next.map(|next| next.map(|(piece, _)| piece))
    }

    /// Once there are no more: whether that was all.
    pub fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece() -> Payload {
        Payload::Body {
            content_type: String::new(),
            bytes: bytes::Bytes::new(),
        }
    }

    #[tokio::test]
    async fn bytes_that_wait_are_bounded_and_a_piece_larger_than_that_waits_alone() {
        let (to, mut from) = pieces(1_000);
        assert!(!to.is_too_slow_for(2 << 30, piece()));
        assert!(to.is_too_slow_for(1, piece()));
        std::future::poll_fn(|context| from.poll_next(context))
            .await
            .unwrap()
            .unwrap();
        for _ in 0..64 {
            assert!(!to.is_too_slow_for(1 << 20, piece()));
        }
        assert!(to.is_too_slow_for(1, piece()));
        // Whoever waits for room is let go when the caller leaves.
        let waiting = to.take(1, piece());
        drop(from);
        waiting.await;
    }
}
