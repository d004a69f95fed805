//! Figures of all actors, for `/metrics` and for tests.

use crate::context::Context;
use crate::system::Actors;
use std::sync::atomic::{AtomicU64, Ordering};

/// Figures for `/metrics`. Those of the past count since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Calls that have an actor.
    pub live_calls: usize,
    /// Accounts in memory.
    pub loaded_accounts: usize,
    /// Accounts whose events somebody subscribes to.
    pub event_hubs: usize,
    /// Accounts whose figures somebody watches.
    pub watches: usize,
    /// Entries waiting for the journal.
    pub journal_depth: usize,
    /// Calls let in.
    pub calls_admitted: u64,
    /// Calls turned away by the node's limits.
    pub calls_shed: u64,
    /// Decisions refused because the journal was full.
    pub journal_full: u64,
    /// Actors that failed, by a panic or because an entry was rejected.
    pub restarts: u64,
    /// Those of them that panicked while they handled something.
    pub panics: u64,
    /// Accounts and trunks that failed again and again and rest now, and accounts whose new calls do.
    pub resting: usize,
    /// Supervisors that see more failures than their intensity allows.
    pub beyond_intensity: usize,
    /// Messages that are set aside now; see [`Actors::set_aside`].
    pub set_aside: usize,
    /// Calls that are over and not settled yet, and that no actor cares for.
    pub unsettled_calls: usize,
    /// Rows of calls and bindings that could not be read at the start.
    pub unreadable_rows: u64,
    /// Messages to calls that were dropped because too many waited.
    pub messages_dropped: u64,
    /// Messages handled by account actors.
    pub account_messages: u64,
    /// Messages handled by call actors.
    pub call_messages: u64,
}

impl Actors {
    /// Figures for `/metrics`.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let Context { directory, hubs, watches, journal, tally, failures, unsettled, .. } = &*self.ctx;
        let now = self.ctx.now();
        let (panics, resting, beyond_intensity) = failures.counts(now.mono);
        let past = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            live_calls: directory.calls_len(),
            loaded_accounts: directory.accounts_len(),
            event_hubs: hubs.len(),
            watches: watches.len(),
            journal_depth: journal.depth(),
            calls_admitted: past(&tally.calls_admitted),
            calls_shed: past(&tally.calls_shed),
            journal_full: past(&tally.journal_full),
            restarts: past(&tally.restarts),
            panics,
            resting,
            beyond_intensity,
            set_aside: failures.set_aside(now).len(),
            unsettled_calls: unsettled.len(),
            unreadable_rows: past(&tally.unreadable_rows),
            messages_dropped: past(&tally.messages_dropped),
            account_messages: past(&tally.account_messages),
            call_messages: past(&tally.call_messages),
        }
    }
}
