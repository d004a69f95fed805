//! What is known of a live call outside its actor.

use crate::account::settle::CallEnd;
use crate::admission::Live;
use crate::call::protocol::Progress;
use schema::call::{Call, CallState};
use schema::leg::LegId;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;

/// Most messages that wait for one call, as far as they can be done without. What ends a leg always comes through.
const CALL_QUEUE_MAX: u32 = 256;

/// What is known of a call outside its actor, and outlives it: where it is between its durable states, how it ended once that
/// is settled, how many messages wait for it. Written by its actor, read by whoever shows it.
pub(crate) struct ProgressCell {
    shown: AtomicU64,
    end: OnceLock<Arc<CallEnd>>,
    /// How it is billed should its actor fail while it asks both sides whether they were there.
    doubt: OnceLock<Arc<CallEnd>>,
    /// Legs that have ended, a bit for each attempt; the A-leg's is the first.
    ended: AtomicU32,
    leg_ended: Notify,
    waiting: AtomicU32,
    /// It counts among the node's live calls until it is settled.
    _live: Live,
}

impl ProgressCell {
    pub(crate) fn new(live: Live) -> Self {
        Self {
            shown: AtomicU64::new(0),
            end: OnceLock::new(),
            doubt: OnceLock::new(),
            ended: AtomicU32::new(0),
            leg_ended: Notify::new(),
            waiting: AtomicU32::new(0),
            _live: live,
        }
    }

    pub(crate) fn set(&self, progress: Progress) {
        let coded = match progress {
            Progress::Ringing { post_dial_delay_ms } => 1 << 32 | u64::from(post_dial_delay_ms),
            Progress::Ending => 2 << 32,
        };
        self.shown.store(coded, Ordering::Release);
    }

    /// Shows a live call as it is now.
    pub(crate) fn show(&self, call: &mut Call) {
        let coded = self.shown.load(Ordering::Acquire);
        match coded >> 32 {
            1 if call.state == CallState::Routing => {
                call.state = CallState::Ringing;
                call.post_dial_delay_ms = Some(coded as u32);
            }
            2 if !call.state.is_over() => call.state = CallState::Ending,
            _ => {}
        }
    }

    /// From now on nothing its legs tell changes anything: this is how it ended, whatever becomes of its actor.
    pub(crate) fn set_end(&self, end: &Arc<CallEnd>) {
        self.set(Progress::Ending);
        let _ = self.end.set(end.clone());
    }

    /// How it ended, once its account is asked to settle it.
    pub(crate) fn end(&self) -> Option<&Arc<CallEnd>> {
        self.end.get()
    }

    /// Both sides are asked whether they were there: how it is billed when nobody is left to hear of it.
    pub(crate) fn set_doubt(&self, end: Arc<CallEnd>) {
        let _ = self.doubt.set(end);
    }

    /// How it is billed when its actor has failed; `None`: it was not over.
    pub(crate) fn known_end(&self) -> Option<&Arc<CallEnd>> {
        self.end().or_else(|| self.doubt.get())
    }

    /// A leg has ended: its BYE has come or gone.
    pub(crate) fn note_ended(&self, leg: LegId) {
        self.ended.fetch_or(bit_of(leg), Ordering::AcqRel);
        self.leg_ended.notify_waiters();
    }

    /// Waits until these legs, by [`bit_of`], have ended.
    pub(crate) async fn ended(&self, legs: u32) {
        loop {
            let notified = self.leg_ended.notified();
            if self.ended.load(Ordering::Acquire) & legs == legs {
                return;
            }
            notified.await;
        }
    }

    /// A message for the call's actor is about to be sent. False: too many wait, and this one can be done without.
    pub(crate) fn queue(&self, can_be_dropped: bool) -> bool {
        let before = self.waiting.fetch_add(1, Ordering::AcqRel);
        let queued = before < CALL_QUEUE_MAX || !can_be_dropped;
        if !queued {
            self.unqueue();
        }
        queued
    }

    /// Whether messages wait for the call's actor, or it has one in hand.
    pub(crate) fn has_work(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// The call's actor is done with a message.
    pub(crate) fn unqueue(&self) {
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A leg among those of its call.
pub(crate) const fn bit_of(leg: LegId) -> u32 {
    1_u32.wrapping_shl(leg.attempt as u32)
}
