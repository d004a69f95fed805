//! What waits to be written to one connection, limited in bytes: a burst of short messages is no sign of a peer that reads slowly.

use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use tokio::sync::mpsc;

/// Where messages are put.
pub(super) struct Outbox {
    queue: mpsc::UnboundedSender<Bytes>,
    waiting: Arc<AtomicUsize>,
    is_known: Arc<AtomicBool>,
}

/// Where its connection takes them.
pub(super) struct Queued {
    queue: mpsc::UnboundedReceiver<Bytes>,
    waiting: Arc<AtomicUsize>,
    is_known: Arc<AtomicBool>,
}

/// The two ends of one.
pub(super) fn outbox() -> (Outbox, Queued) {
    let ((sender, receiver), waiting, is_known) = (mpsc::unbounded_channel(), Arc::default(), Arc::default());
    let outbox = Outbox { queue: sender, waiting: Arc::clone(&waiting), is_known: Arc::clone(&is_known) };
    (outbox, Queued { queue: receiver, waiting, is_known })
}

impl Outbox {
    /// Tells the other end that its peer is known.
    pub(super) fn know(&self) {
        self.is_known.store(true, Relaxed);
    }

    /// False when it is not taken: with it more than `most` bytes would wait, or the connection is over. One alone is always
    /// taken.
    pub(super) fn put(&self, bytes: Bytes, most: usize) -> bool {
        let length = bytes.len();
        let before = self.waiting.fetch_add(length, AcqRel);
        let is_taken = (before == 0 || before + length <= most) && self.queue.send(bytes).is_ok();
        if !is_taken {
            self.waiting.fetch_sub(length, AcqRel);
        }
        is_taken
    }
}

impl Queued {
    /// Whether the peer is known.
    pub(super) fn is_known(&self) -> bool {
        self.is_known.load(Relaxed)
    }

    /// The next one; `None` when the other end is gone and all is taken.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        let bytes = self.queue.recv().await?;
        self.waiting.fetch_sub(bytes.len(), AcqRel);
        Some(bytes)
    }
}
