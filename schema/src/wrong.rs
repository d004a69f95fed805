//! Wrong versions of the program, one branch each at the place where the mistake would be made. The simulator chooses one at
//! run time and must notice it; so it is known that it would notice.
//!
//! They exist with the feature `wrong-versions` only, which nothing but the `tests` package turns on. Without it
//! [`chosen`] is the constant `false`, and the branches are compiled to nothing.

/// A mistake that could have been made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wrong {
    /// Effects of an entry (replies, commands, events) do not wait for its commit.
    AckBeforeCommit,
    /// A batch is acknowledged without having been synced.
    SkippedSync,
    /// A batch that is written while another one is synced is acknowledged with that one.
    OneSyncForTwo,
    /// Of two batches in flight the later one becomes durable first.
    SyncedOutOfOrder,
    /// A BYE that comes again settles its call again.
    DoubleCapture,
    /// A call that is cancelled before its answer keeps its hold.
    HoldKeptOnCancel,
    /// A reserve looks at the balance, not at what other calls hold of it.
    ReserveBlind,
    /// Prices are computed with floats.
    FloatRounding,
    /// A renewal is told to its call, and nothing of it is written.
    LostRenewal,
    /// The cut-off comes after the paid boundary.
    LateCutOff,
    /// The cut-off comes while there is money left.
    EarlyCutOff,
    /// A call leaves two records.
    CdrTwice,
    /// Idempotency keys are not looked at.
    IdempotencyIgnored,
    /// Events of one entry are published in reverse.
    EventOrderBroken,
    /// The first live call is not taken up after a restart.
    RecoveryForgets,
    /// A call that was taken up, and whose caller is gone, is settled while its other leg goes on.
    LegForgotten,
    /// A session that nobody refreshes goes on.
    TimerIgnored,
    /// Answered calls are ended at a restart, though they could go on.
    RecoveryHangsUp,
    /// A 200 of a carrier that comes again ends its call.
    EndedByRepetition,
}

impl Wrong {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::AckBeforeCommit,
        Self::SkippedSync,
        Self::OneSyncForTwo,
        Self::SyncedOutOfOrder,
        Self::DoubleCapture,
        Self::HoldKeptOnCancel,
        Self::ReserveBlind,
        Self::FloatRounding,
        Self::LostRenewal,
        Self::LateCutOff,
        Self::EarlyCutOff,
        Self::CdrTwice,
        Self::IdempotencyIgnored,
        Self::EventOrderBroken,
        Self::RecoveryForgets,
        Self::LegForgotten,
        Self::TimerIgnored,
        Self::RecoveryHangsUp,
        Self::EndedByRepetition,
    ];
}

/// Whether this thread runs this wrong version.
#[cfg(not(feature = "wrong-versions"))]
#[inline(always)]
#[must_use]
pub const fn chosen(_: Wrong) -> bool {
    false
}

/// Whether this thread runs this wrong version.
#[cfg(feature = "wrong-versions")]
#[must_use]
pub fn chosen(wrong: Wrong) -> bool {
    CHOSEN.get() == Some(wrong)
}

#[cfg(feature = "wrong-versions")]
thread_local! {
    static CHOSEN: std::cell::Cell<Option<Wrong>> = const { std::cell::Cell::new(None) };
}

/// Chooses the version that this thread runs from now on; `None`: the right one.
#[cfg(feature = "wrong-versions")]
pub fn choose(wrong: Option<Wrong>) {
    CHOSEN.set(wrong);
}
