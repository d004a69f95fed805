//! The gate between an account's provisional state and everyone outside: effects (publish, reply) run only after the journal
//! entry they depend on is committed, in the order of the entries (invariant A2). It stands outside the actor, so what was
//! submitted is still acknowledged to its callers when the actor panics.

use schema::id::Seq;
use schema::journal::{Outcome, Rejection};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Why something was not carried out; nothing of it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotDone {
    /// The journal's queue, or the line of those who wait for it, is full.
    Overloaded,
    /// Its entry, or one before it, was rejected.
    Rejected(Rejection),
    /// The message killed its actor three times: it is not handled any more.
    SetAside,
}

/// Runs once, after the commit or the rejection it waits for. Quick, never blocks.
pub(crate) type Effect = Box<dyn FnOnce(Result<(), NotDone>) + Send>;

/// Most effects waiting; more are told [`NotDone::Overloaded`].
const WAITING_MAX: usize = 16_384;

pub(crate) struct CommitGate {
    inner: Mutex<Inner>,
    /// The actor handles a message.
    in_hand: AtomicBool,
    /// An entry is acknowledged, or a message was handled.
    acknowledged: Notify,
}

/// An actor handles a message until this is dropped, be it by a panic.
pub(crate) struct InHand(Arc<CommitGate>);

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.in_hand.store(false, Ordering::Release);
        self.0.acknowledged.notify_waiters();
    }
}

struct Inner {
    /// The last entry handed to the journal.
    submitted: Seq,
    /// The last entry of which the outcome is known.
    acknowledged: Seq,
    /// Once an entry was rejected nothing after it is valid.
    rejected: Option<Rejection>,
    waiting: VecDeque<(Seq, Effect)>,
}

impl CommitGate {
    /// The gate of an account that was loaded as of entry `seq`.
    pub(crate) fn new(seq: Seq) -> Self {
        let inner = Inner { submitted: seq, acknowledged: seq, rejected: None, waiting: VecDeque::new() };
        Self { inner: Mutex::new(inner), in_hand: AtomicBool::new(false), acknowledged: Notify::new() }
    }

    /// To be dropped after all else of the message: whoever waits for its answer knows of a panic before it is counted.
    pub(crate) fn in_hand(self: &Arc<Self>) -> InHand {
        self.in_hand.store(true, Ordering::Relaxed);
        InHand(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers the effect of an entry that is about to be submitted. False when an entry before it was rejected: then it must
    /// not be, since a successor that loads the account may not meet it. The effect is told that it is fenced.
    pub(crate) fn expect(&self, seq: Seq, effect: Effect) -> bool {
        {
            let mut inner = self.lock();
            if inner.rejected.is_none() {
                inner.submitted = seq;
                inner.waiting.push_back((seq, effect));
                return true;
            }
        }
        // Not what the first one was rejected for: the successor may well take this one.
        effect(Err(NotDone::Rejected(Rejection::Fenced)));
        false
    }

    /// The journal did not take the entry: its effect comes back.
    pub(crate) fn withdraw(&self, seq: Seq) -> Option<Effect> {
        let mut inner = self.lock();
        inner.submitted = Seq(seq.0 - 1);
        let last = inner.waiting.pop_back_if(|(waiting, _)| *waiting == seq);
        last.map(|(_, effect)| effect)
    }

    /// Runs an effect when entry `seq` is committed; at once when it is.
    pub(crate) fn after(&self, seq: Seq, effect: Effect) {
        let outcome = {
            let mut inner = self.lock();
            match &inner.rejected {
                Some(rejection) => Err(NotDone::Rejected(rejection.clone())),
                None if inner.acknowledged >= seq => Ok(()),
                None if inner.waiting.len() >= WAITING_MAX => Err(NotDone::Overloaded),
                None => {
                    inner.waiting.push_back((seq, effect));
                    return;
                }
            }
        };
        effect(outcome);
    }

    /// Tells what became of entry `seq`, and runs what waited for it. True when this is the first rejection.
    pub(crate) fn done(&self, seq: Seq, outcome: &Outcome) -> bool {
        let mut ready = VecDeque::new();
        let first_rejection = {
            let mut inner = self.lock();
            inner.acknowledged = inner.acknowledged.max(seq);
            while inner.waiting.front().is_some_and(|(waiting, _)| *waiting <= seq) {
                ready.extend(inner.waiting.pop_front());
            }
            match outcome {
                Err(rejection) if inner.rejected.is_none() => {
                    inner.rejected = Some(rejection.clone());
                    true
                }
                _ => false,
            }
        };
        for (_, effect) in ready {
            effect(outcome.clone().map_err(NotDone::Rejected));
        }
        self.acknowledged.notify_waiters();
        first_rejection
    }

    /// Whether every entry submitted is acknowledged.
    pub(crate) fn is_quiet(&self) -> bool {
        let inner = self.lock();
        inner.acknowledged >= inner.submitted
    }

    /// Whether every entry submitted is acknowledged, and no message is in hand that a panic may be counted of.
    pub(crate) fn is_over(&self) -> bool {
        self.is_quiet() && !self.in_hand.load(Ordering::Acquire)
    }

    /// Waits for that: only then may a successor load the account.
    pub(crate) async fn over(&self) {
        loop {
            let notified = self.acknowledged.notified();
            if self.is_over() {
                return;
            }
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noting(log: &Arc<Mutex<Vec<String>>>, name: &str) -> Effect {
        let (log, name) = (log.clone(), name.to_owned());
        Box::new(move |outcome| log.lock().expect("no panic").push(format!("{name} {}", outcome.is_ok())))
    }

    #[test]
    fn a2_effects_wait_for_their_entry_in_order() {
        let (gate, log) = (CommitGate::new(Seq(5)), Arc::default());
        gate.after(Seq(5), noting(&log, "read 5"));
        assert!(gate.expect(Seq(6), noting(&log, "entry 6")));
        gate.after(Seq(6), noting(&log, "read 6"));
        assert!(gate.expect(Seq(7), noting(&log, "entry 7")));
        assert_eq!(*log.lock().expect("no panic"), ["read 5 true"]);
        assert!(!gate.is_quiet());
        assert!(!gate.done(Seq(6), &Ok(())));
        assert!(!gate.done(Seq(7), &Ok(())));
        assert!(gate.is_quiet());
        assert_eq!(log.lock().expect("no panic")[1..], ["entry 6 true", "read 6 true", "entry 7 true"]);
    }

    #[test]
    fn after_a_rejection_nothing_is_true_any_more() {
        let (gate, log) = (CommitGate::new(Seq(0)), Arc::default());
        assert!(gate.expect(Seq(1), noting(&log, "entry 1")));
        assert!(gate.expect(Seq(2), noting(&log, "entry 2")));
        gate.after(Seq(2), noting(&log, "read 2"));
        assert!(gate.done(Seq(1), &Err(Rejection::Failed)));
        assert!(!gate.is_quiet());
        gate.after(Seq(0), noting(&log, "read 0"));
        assert!(!gate.expect(Seq(3), noting(&log, "entry 3")), "the actor has not heard yet");
        assert!(!gate.done(Seq(2), &Err(Rejection::Fenced)));
        assert!(gate.is_quiet());
        let told = ["entry 1 false", "read 0 false", "entry 3 false", "entry 2 false", "read 2 false"];
        assert_eq!(*log.lock().expect("no panic"), told);
    }

    #[test]
    fn a_successor_waits_until_the_message_in_hand_is_done_with() {
        let gate = Arc::new(CommitGate::new(Seq(0)));
        let in_hand = gate.in_hand();
        assert!(gate.is_quiet() && !gate.is_over());
        drop(in_hand);
        assert!(gate.is_over());
    }

    #[test]
    fn an_entry_that_the_journal_did_not_take_is_withdrawn() {
        let (gate, log) = (CommitGate::new(Seq(0)), Arc::default());
        assert!(gate.expect(Seq(1), noting(&log, "entry 1")));
        assert!(gate.withdraw(Seq(1)).is_some());
        assert!(gate.is_quiet());
    }
}
