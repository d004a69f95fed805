//! Whether a carrier has us registered (RFC 3261 §10.2), and when it is asked again. Pure: what happened and when goes in, what
//! to send comes out; the messages are written in `core/registering.rs`.

use schema::carrier::{REGISTER_S, TrunkDown};
use schema::entropy::Entropy;
use schema::time::Mono;
use std::time::Duration;

/// Between a failure and the next try: doubling from the first to the second (as RFC 5626 §4.5 has it), half of it or more.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(300));
/// A carrier that may have forgotten us is not asked sooner than this after it was asked before.
const DOUBT_AFTER: Duration = Duration::from_secs(10);
/// The longest Retry-After that is kept to.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);
/// The longest registration that is asked for, seconds: more in a 423 is a refusal.
pub(crate) const EXPIRES_MAX_S: u32 = *REGISTER_S.end();
/// However soon a registration ends, it is not refreshed sooner than this.
const REFRESH_MIN: Duration = Duration::from_secs(5);

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// Time has passed.
    Time,
    /// 2xx: for so many seconds; 0: it knows us no more.
    Accepted { expires_s: u32 },
    /// 423: at least so many seconds.
    TooBrief { min_s: u32 },
    /// Another answer, or none.
    Failed { down: TrunkDown, retry_after_s: Option<u32> },
    /// Something shows that the carrier may not know us any more.
    Doubted,
    /// We do not want to be registered any more.
    Leave,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send a REGISTER for so many seconds.
    Register { expires_s: u32 },
    /// Send a REGISTER for no seconds.
    Unregister,
    /// It is over: nothing more will be sent.
    Gone,
}

/// How far it is.
///
/// ```text
///          Time             Accepted
/// Waiting ──────► Asking ─────────────► Waiting (for the refresh)
///    ▲              │ Failed: back-off     │
///    └──────────────┘                      │ Leave
///                                          ▼
///                  Asking, Leave ──► Unregistering ──► Gone
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The next REGISTER leaves then.
    Waiting { next: Mono },
    /// A REGISTER is under way; `leaves`: its outcome is waited for only to end it.
    Asking { leaves: bool },
    /// The last REGISTER is under way.
    Unregistering,
    /// Nothing is to be done any more.
    Gone,
}

/// A registration with a carrier.
#[derive(Debug)]
pub(crate) struct Registration {
    stage: Stage,
    /// What is asked for.
    expires_s: u32,
    /// It holds until then.
    until: Option<Mono>,
    /// Why it does not.
    down: TrunkDown,
    /// Refused or unanswered in a row.
    failures: u32,
    /// When the last REGISTER left.
    asked: Option<Mono>,
    /// The carrier may have us registered: it said so, or said nothing.
    may_hold: bool,
    /// This request was sent again with the interval that a 423 named.
    raised: bool,
}

impl Registration {
    /// Not registered; the first REGISTER is due.
    pub(crate) fn new(expires_s: u32, now: Mono) -> Self {
        Self {
            stage: Stage::Waiting { next: now },
            expires_s: expires_s.clamp(1, EXPIRES_MAX_S),
            until: None,
            down: TrunkDown::Unregistered,
            failures: 0,
            asked: None,
            may_hold: false,
            raised: false,
        }
    }

    /// Why no calls can be sent; `None`: it is registered.
    pub(crate) fn down(&self) -> Option<TrunkDown> {
        self.until.is_none().then_some(self.down)
    }

    /// When [`Input::Time`] has something to do.
    pub(crate) fn next_time(&self) -> Option<Mono> {
        let next = match self.stage {
            Stage::Waiting { next } => Some(next),
            Stage::Asking { .. } => None,
            Stage::Unregistering | Stage::Gone => return None,
        };
        [next, self.until].into_iter().flatten().min()
    }

    /// Takes what happened.
    pub(crate) fn on(&mut self, input: Input, now: Mono, entropy: &mut Entropy) -> Option<Step> {
        if self.until.is_some_and(|until| until <= now) {
            self.until = None;
        }
        match (self.stage, input) {
            (Stage::Waiting { next }, Input::Time) => (next <= now).then(|| self.ask(now)),
            (Stage::Waiting { next }, Input::Doubted) => {
                self.stage = Stage::Waiting { next: self.doubted(next, now) };
                None
            }
            (Stage::Waiting { .. }, Input::Leave) => Some(self.leave()),
            (Stage::Asking { leaves: false }, Input::Accepted { expires_s }) => {
                self.accepted(expires_s, now, entropy);
                None
            }
            (Stage::Asking { leaves: false }, Input::TooBrief { min_s }) => self.too_brief(min_s, now, entropy),
            (Stage::Asking { leaves: false }, Input::Failed { down, retry_after_s }) => {
                self.failed(down, retry_after_s, now, entropy);
                None
            }
            (Stage::Asking { leaves: false }, Input::Leave) => {
                self.stage = Stage::Asking { leaves: true };
                None
            }
            (
                Stage::Asking { leaves: true },
                Input::Accepted { .. } | Input::TooBrief { .. } | Input::Failed { .. },
            ) => {
                self.may_hold |=
                    matches!(input, Input::Accepted { .. } | Input::Failed { down: TrunkDown::Silent, .. });
                Some(self.leave())
            }
            (Stage::Unregistering, Input::Accepted { .. } | Input::TooBrief { .. } | Input::Failed { .. }) => {
                self.stage = Stage::Gone;
                Some(Step::Gone)
            }
            _ => None,
        }
    }

    fn ask(&mut self, now: Mono) -> Step {
        (self.stage, self.asked, self.raised) = (Stage::Asking { leaves: false }, Some(now), false);
        Step::Register { expires_s: self.expires_s }
    }

    /// It is refreshed after 60 to 85 % of its time: not all trunks at once, and early enough for a second try.
    fn accepted(&mut self, expires_s: u32, now: Mono, entropy: &mut Entropy) {
        if expires_s == 0 {
            self.until = None;
            return self.failed(TrunkDown::Unregistered, None, now, entropy);
        }
        let lasts = Duration::from_secs(u64::from(expires_s.min(EXPIRES_MAX_S)));
        let share = u32::try_from(600 + entropy.below(250)).unwrap_or(600);
        self.until = Some(now + lasts);
        self.stage = Stage::Waiting { next: now + (lasts * share / 1_000).max(REFRESH_MIN) };
        (self.failures, self.may_hold) = (0, true);
        self.down = TrunkDown::Unregistered;
    }

    fn too_brief(&mut self, min_s: u32, now: Mono, entropy: &mut Entropy) -> Option<Step> {
        if self.raised || min_s <= self.expires_s || min_s > EXPIRES_MAX_S {
            self.failed(TrunkDown::RegistrationRefused, None, now, entropy);
            return None;
        }
        (self.expires_s, self.raised) = (min_s, true);
        Some(Step::Register { expires_s: min_s })
    }

    /// A registration that holds goes on to its end. What cannot become right by itself is asked the most seldom.
    fn failed(&mut self, down: TrunkDown, retry_after_s: Option<u32>, now: Mono, entropy: &mut Entropy) {
        let (first, longest) = BACK_OFF;
        let wait = match down {
            TrunkDown::CredentialsRefused | TrunkDown::OtherRealm | TrunkDown::NotAnswerable => longest,
            _ => longest.min(first * 2_u32.saturating_pow(self.failures.min(8))),
        };
        let wait = wait * u32::try_from(500 + entropy.below(501)).unwrap_or(1_000) / 1_000;
        let asked = Duration::from_secs(u64::from(retry_after_s.unwrap_or(0)));
        self.stage = Stage::Waiting { next: now + wait.max(asked.min(RETRY_AFTER_MAX)) };
        (self.down, self.failures) = (down, self.failures.saturating_add(1));
        self.may_hold |= down == TrunkDown::Silent;
    }

    fn doubted(&self, next: Mono, now: Mono) -> Mono {
        let is_worth_it = matches!(self.down, TrunkDown::Silent | TrunkDown::Unregistered);
        let soonest = self.asked.map_or(now, |asked| (asked + DOUBT_AFTER).max(now));
        if is_worth_it { next.min(soonest) } else { next }
    }

    fn leave(&mut self) -> Step {
        self.until = None;
        if self.may_hold {
            self.stage = Stage::Unregistering;
            Step::Unregister
        } else {
            self.stage = Stage::Gone;
            Step::Gone
        }
    }
}

#[cfg(test)]
mod tests;
