//! Looking ahead: what calls have cost so far, until when the shared money lasts, and when to warn.

use super::core::{AccountCore, Draft, Patch, terms};
use super::holds::CUTOFF_LEAD;
use schema::account::AccountFigures;
use schema::call::{Call, LegSide, LiveCall};
use schema::event::EventBody;
use schema::id::CallId;
use schema::ledger::Balance;
use schema::money::{Currency, Micros};
use schema::rate::RateTerms;
use schema::time::{Mono, Now, Timestamp};
use std::time::Duration;

/// Seconds left at which a customer is warned, the last first.
pub const WARNINGS_S: [u32; 3] = [10, 30, 60];

/// An answered call that draws on the account's money.
struct Drawing {
    call: CallId,
    talk: Duration,
    paid: Duration,
    paid_s: u64,
    held: Micros,
    terms: RateTerms,
}

/// Money that lasts longer than a hundred years lasts for ever; a date after the year 9999 cannot be written.
const FORESEEABLE: Duration = Duration::from_secs(100 * 365 * 86_400);

/// What makes a [`Balance`], summed over the live calls.
pub(super) struct BalanceParts {
    currency: Currency,
    figures: AccountFigures,
    accrued: Micros,
    burn: Micros,
    at: Timestamp,
}

impl BalanceParts {
    pub(super) const fn set_figures(&mut self, figures: &AccountFigures) {
        self.figures = *figures;
    }

    pub(super) fn into_balance(self) -> Balance {
        let Self { currency, figures, accrued, burn, at } = self;
        let remaining = figures.total - accrued;
        let left_us = i128::from(remaining.max_zero().0) * 60_000_000;
        let lasts = (burn.is_positive()).then(|| u64::try_from(left_us / i128::from(burn.0)).unwrap_or(u64::MAX));
        Balance {
            currency,
            total: figures.total,
            reserved: figures.held,
            available: figures.available(),
            accrued,
            remaining,
            burn_per_minute: burn,
            exhausts_at: lasts.map(Duration::from_micros).filter(|lasts| *lasts <= FORESEEABLE).map(|lasts| at + lasts),
        }
    }
}

impl AccountCore {
    /// The balance now. All figures are absolute.
    #[must_use]
    pub fn balance(&self, now: Now) -> Balance {
        self.balance_of(&self.figures, now)
    }

    pub(super) fn balance_of(&self, figures: &AccountFigures, now: Now) -> Balance {
        let mut parts = self.parts(self.live_calls(), now);
        parts.set_figures(figures);
        parts.into_balance()
    }

    pub(super) fn balance_without(&self, call: CallId, now: Now) -> BalanceParts {
        self.parts(self.live_calls().filter(|live| live.call.id != call), now)
    }

    fn parts<'a>(&self, live: impl Iterator<Item = &'a LiveCall>, now: Now) -> BalanceParts {
        let (currency, figures, at) = (self.profile.currency, self.figures, now.wall);
        let mut parts = BalanceParts { currency, figures, accrued: Micros::ZERO, burn: Micros::ZERO, at };
        for live in live {
            if let Some(talk) = self.talk(live, now) {
                let terms = terms(live);
                parts.accrued += cost_so_far(live, &terms, talk);
                parts.burn += Micros(terms.per_minute.0.div_euclid(1_000) + i64::from(terms.per_minute.0 % 1_000 != 0));
            }
        }
        parts
    }

    /// A live call as it is shown now: with its cost so far and its projected cut-off.
    pub(super) fn call_now(&self, live: &LiveCall, now: Now) -> Call {
        let mut call = live.call.clone();
        if let Some(talk) = self.talk(live, now) {
            let terms = terms(live);
            call.cost = cost_so_far(live, &terms, talk);
            call.billed_seconds = terms.billed_seconds(talk).min(live.paid_s);
            for leg in call.legs.iter_mut().filter(|leg| leg.side == LegSide::B) {
                leg.billed_seconds = call.billed_seconds;
                leg.cost = call.cost;
            }
        }
        call
    }

    /// All live calls as they are shown now, oldest first.
    #[must_use]
    pub fn calls_now(&self, now: Now) -> Vec<Call> {
        let funded = self.funded(now);
        let mut calls: Vec<_> = self.live_calls().collect();
        calls.sort_by_key(|live| live.no);
        let with_end = |live: &LiveCall| {
            let end = funded.iter().find(|(id, _)| *id == live.call.id).map(|(_, left)| now.wall + *left);
            Call { funded_until: end, ..self.call_now(live, now) }
        };
        calls.into_iter().map(with_end).collect()
    }

    /// For each answered call, how long until it will be cut if nothing changes: each draws on its own hold first and then,
    /// together with the others, on what is available.
    fn funded(&self, now: Now) -> Vec<(CallId, Duration)> {
        let mut drawing: Vec<Drawing> = self.live.values().filter_map(|live| self.drawing(live, now)).collect();
        drawing.sort_by_key(|d| (d.paid.saturating_sub(d.talk), d.call));
        let available = self.figures.available();
        let dry_at = pool_runs_dry(&drawing, available);
        let limit_s = u64::from(self.profile.limits.call_seconds);
        let alone = drawing.len() == 1;
        let end = |d: &Drawing| {
            let share = if alone { available } else { share(d, dry_at) };
            let funded_s = d.terms.affordable_s(d.held + share, limit_s).unwrap_or(0).max(d.paid_s).min(limit_s);
            (d.call, Duration::from_secs(funded_s).saturating_sub(CUTOFF_LEAD).saturating_sub(d.talk))
        };
        drawing.iter().map(end).collect()
    }

    fn drawing(&self, live: &LiveCall, now: Now) -> Option<Drawing> {
        let talk = self.talk(live, now)?;
        let paid = Duration::from_secs(live.paid_s);
        Some(Drawing { call: live.call.id, talk, paid, paid_s: live.paid_s, held: live.held, terms: terms(live) })
    }

    /// Warnings that are due: each call whose cut-off came within 60, 30 or 10 seconds, or went away again.
    #[must_use]
    pub fn warn(&self, now: Now) -> Option<Draft> {
        let mut events = Vec::new();
        let mut warned = Vec::new();
        for (call, left) in self.funded(now) {
            let level = level(left);
            if level == self.warned.get(&call).copied() || events.len() == 16 {
                continue;
            }
            let Some(live) = self.live.get(&call) else { continue };
            let shown = Call { funded_until: Some(now.wall + left), ..self.call_now(live, now) };
            events.push(EventBody::CallWarning { call: Box::new(shown), seconds_left: level });
            warned.push((call, level));
        }
        if events.is_empty() {
            return None;
        }
        let patch = Patch { warned, ..Patch::default() };
        Some(self.draft(now, self.figures, Vec::new(), events, patch))
    }

    /// When [`AccountCore::warn`] has to be asked next; `None` while no call is answered.
    #[must_use]
    pub fn next_warning(&self, now: Now) -> Option<Mono> {
        let next = |(call, left): (CallId, Duration)| {
            let level = level(left);
            if level != self.warned.get(&call).copied() {
                return Some(now.mono);
            }
            let below = WARNINGS_S.iter().rev().find(|s| level.is_none_or(|level| **s < level))?;
            Some(now.mono + left.saturating_sub(Duration::from_secs(u64::from(*below))))
        };
        self.funded(now).into_iter().filter_map(next).min()
    }
}

fn level(left: Duration) -> Option<u32> {
    WARNINGS_S.into_iter().find(|s| left <= Duration::from_secs(u64::from(*s)))
}

/// What a call has cost so far; never more than what is held for it, which is all that is certain to be paid.
fn cost_so_far(live: &LiveCall, terms: &RateTerms, talk: Duration) -> Micros {
    terms.charge(talk).min(live.held)
}

/// How long until the available money is used up by calls that have used up their holds; `drawing` is sorted by the end of
/// their holds. `None`: never.
fn pool_runs_dry(drawing: &[Drawing], available: Micros) -> Option<Duration> {
    // Money in nano-units times microseconds per minute, so that nothing is rounded on the way.
    const MINUTE_US: i128 = 60_000_000;
    let mut left = i128::from(available.0) * 1_000 * MINUTE_US;
    let (mut rate, mut at) = (0_i128, 0_i128);
    for d in drawing {
        let end = i128::try_from(d.paid.saturating_sub(d.talk).as_micros()).unwrap_or(i128::MAX);
        let used = rate * (end - at);
        if used > left {
            break;
        }
        left -= used;
        at = end;
        rate += i128::from(d.terms.per_minute.0);
    }
    (rate > 0).then(|| Duration::from_micros(u64::try_from(at + left / rate).unwrap_or(u64::MAX)))
}

/// What a call will have taken from the pool until it runs dry.
fn share(d: &Drawing, dry_at: Option<Duration>) -> Micros {
    let Some(dry_at) = dry_at else { return Micros(i64::MAX / 4) };
    let drawn = dry_at.saturating_sub(d.paid.saturating_sub(d.talk)).as_micros();
    let nanos = i128::from(d.terms.per_minute.0) * i128::try_from(drawn).unwrap_or(i128::MAX / i128::from(i64::MAX))
        / 60_000_000;
    Micros(i64::try_from(nanos / 1_000).unwrap_or(i64::MAX / 4))
}
