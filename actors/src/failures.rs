//! What is remembered of failures, outside the actors that failed: who rests and for how long ([`crate::restarts`]), which
//! messages are set aside ([`crate::poison`]), and what the operator is told of it. A death is counted where the actor
//! unwinds, by [`Handling`]: its senders may have asked a successor before its supervisor hears of it.

use crate::context::Context;
use crate::poison::{Poison, SetAside, Subject, Work};
use crate::restarts::{Policy, Restarts};
use schema::id::{AccountKey, CallId, TrunkId};
use schema::time::{Mono, Now};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Accounts are spread over so many supervisors: ractor's links of one supervisor are one lock.
pub(crate) const ACCOUNT_SUPERVISORS: usize = 64;

/// A rest up to this long is waited for by whoever asks; during a longer one they are told at once.
pub(crate) const REST_WAITED_FOR: Duration = Duration::from_secs(1);

/// An account: its first failure costs nobody anything.
const ACCOUNTS: Policy = Policy {
    free: 1,
    first: Duration::from_millis(10),
    longest: Duration::from_secs(10),
    quiet: Duration::from_secs(10),
    intensity: 50,
    window: Duration::from_secs(10),
};

/// The calls of an account: a call is never restarted, so what rests is the beginning of new ones.
const CALLS: Policy = Policy { free: 3, first: Duration::from_millis(100), intensity: 100, ..ACCOUNTS };

/// A trunk.
const TRUNKS: Policy = ACCOUNTS;

/// A supervisor: everybody below it waits for it, so it never rests; beyond its intensity the root gives up.
const SUPERVISORS: Policy = Policy { free: u32::MAX, longest: Duration::ZERO, intensity: 10, ..ACCOUNTS };

/// A supervisor below the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Supervisor {
    Accounts(usize),
    Trunks,
}

/// The memory of failures.
pub(crate) struct Failures {
    accounts: Vec<Mutex<Restarts<AccountKey>>>,
    calls: Mutex<Restarts<AccountKey>>,
    trunks: Mutex<Restarts<TrunkId>>,
    supervisors: Mutex<Restarts<Supervisor>>,
    poison: Mutex<Poison>,
    /// Some message killed lately or is set aside; else nobody need ask.
    poisoned: AtomicBool,
    panics: AtomicU64,
}

impl Default for Failures {
    fn default() -> Self {
        Self {
            accounts: (0..ACCOUNT_SUPERVISORS).map(|_| Mutex::new(Restarts::new(ACCOUNTS))).collect(),
            calls: Mutex::new(Restarts::new(CALLS)),
            trunks: Mutex::new(Restarts::new(TRUNKS)),
            supervisors: Mutex::new(Restarts::new(SUPERVISORS)),
            poison: Mutex::default(),
            poisoned: AtomicBool::new(false),
            panics: AtomicU64::new(0),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The supervisor of an account.
pub(crate) fn shard(key: AccountKey) -> usize {
    usize::try_from(key.0.rem_euclid(ACCOUNT_SUPERVISORS as i64)).unwrap_or(0)
}

impl Failures {
    /// How long an account still rests.
    pub(crate) fn account_rests(&self, key: AccountKey, now: Mono) -> Duration {
        lock(&self.accounts[shard(key)]).rest(key, now)
    }

    fn account_failed(&self, key: AccountKey, now: Mono) {
        let shard = shard(key);
        let (rest, beyond) = {
            let mut restarts = lock(&self.accounts[shard]);
            (restarts.failed(key, now), restarts.news(now))
        };
        if rest > REST_WAITED_FOR {
            tracing::error!(account = key.0, rest_ms = millis(rest), "an account failed again and again: it rests");
        }
        if beyond == Some(true) {
            tracing::error!(shard, "too many accounts of one supervisor fail: each that fails now rests at once");
        }
    }

    /// A call failed. Its account's new calls may rest for a while.
    fn call_failed(&self, account: AccountKey, now: Mono) {
        let (rest, news) = {
            let mut calls = lock(&self.calls);
            (calls.failed(account, now), calls.news(now))
        };
        if rest > REST_WAITED_FOR {
            let rest_ms = millis(rest);
            tracing::error!(
                account = account.0,
                rest_ms,
                "an account's calls fail again and again: new ones are refused"
            );
        }
        tell_of_calls(news);
    }

    /// Whether new calls of an account are let in as far as failures go.
    pub(crate) fn allow_call(&self, account: AccountKey, now: Mono) -> bool {
        let (news, allowed) = {
            let mut calls = lock(&self.calls);
            (calls.news(now), !calls.is_beyond(now) && calls.rest(account, now).is_zero())
        };
        tell_of_calls(news);
        allowed
    }

    /// Whether so many calls failed lately that no new ones are let in.
    pub(crate) fn calls_are_beyond(&self, now: Mono) -> bool {
        lock(&self.calls).is_beyond(now)
    }

    /// A trunk failed. Gives how long it rests.
    pub(crate) fn trunk_failed(&self, trunk: TrunkId, now: Mono) -> Duration {
        lock(&self.trunks).failed(trunk, now)
    }

    /// A supervisor failed. True when there were too many such failures to go on.
    pub(crate) fn supervisor_failed(&self, supervisor: Supervisor, now: Mono) -> bool {
        let mut supervisors = lock(&self.supervisors);
        supervisors.failed(supervisor, now);
        supervisors.is_beyond(now)
    }

    fn killed(&self, subject: Subject, work: Work, now: Now) {
        let set_aside = lock(&self.poison).died(subject, work, now);
        self.poisoned.store(true, Ordering::Release);
        if set_aside {
            metrics::counter!("ringfence_messages_set_aside_total", "kind" => work.kind).increment(1);
            tracing::error!(%subject, %work, "a message killed its actor three times and is set aside");
        }
    }

    /// Whether a message may be set aside: one look without a lock, the usual answer is no.
    fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    fn handled(&self, subject: Subject, work: Work) {
        if self.is_poisoned() {
            let mut poison = lock(&self.poison);
            poison.handled(subject, work);
            self.poisoned.store(!poison.is_empty(), Ordering::Release);
        }
    }

    /// Messages that are set aside.
    pub(crate) fn set_aside(&self, now: Now) -> Vec<SetAside> {
        lock(&self.poison).list(now)
    }

    /// Panics since the start; accounts and trunks that rest now, and accounts whose calls do; supervisors beyond their
    /// intensity.
    pub(crate) fn counts(&self, now: Mono) -> (u64, usize, usize) {
        let of_accounts = self.accounts.iter().map(|restarts| {
            let restarts = lock(restarts);
            (restarts.resting(now), usize::from(restarts.is_beyond(now)))
        });
        let (mut resting, mut beyond) = of_accounts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let (calls, trunks) = (lock(&self.calls), lock(&self.trunks));
        resting += calls.resting(now) + trunks.resting(now);
        beyond += usize::from(calls.is_beyond(now)) + usize::from(trunks.is_beyond(now));
        (self.panics.load(Ordering::Relaxed), resting, beyond)
    }
}

fn tell_of_calls(news: Option<bool>) {
    match news {
        Some(true) => tracing::error!("too many calls fail: no new ones are let in for a while"),
        Some(false) => tracing::info!("calls are let in again"),
        None => {}
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What an actor has in hand. It stands on the stack of whoever handles it: when that unwinds, the death is counted.
pub(crate) struct Handling<'a> {
    ctx: &'a Context,
    whose: Whose,
    work: Option<Work>,
}

/// Who handles.
#[derive(Clone, Copy)]
pub(crate) enum Whose {
    Account(AccountKey),
    Call(AccountKey, CallId),
    Trunk(TrunkId),
}

impl<'a> Handling<'a> {
    /// `work`: as what it is known; without it a death is counted, but no message blamed.
    pub(crate) const fn begin(ctx: &'a Context, whose: Whose, work: Option<Work>) -> Self {
        Self { ctx, whose, work }
    }

    /// Whether it killed three times before: then it must not be handled.
    pub(crate) fn is_set_aside(&self) -> bool {
        let failures = &self.ctx.failures;
        let Some(work) = self.work.filter(|_| failures.is_poisoned()) else { return false };
        lock(&failures.poison).refuses(self.whose.subject(), work, self.ctx.now())
    }
}

impl Whose {
    pub(crate) const fn subject(self) -> Subject {
        match self {
            Self::Account(key) => Subject::Account(key),
            Self::Call(_, call) => Subject::Call(call),
            Self::Trunk(trunk) => Subject::Trunk(trunk),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Account(_) => "account",
            Self::Call(..) => "call",
            Self::Trunk(_) => "trunk",
        }
    }
}

impl Drop for Handling<'_> {
    fn drop(&mut self) {
        let failures = &self.ctx.failures;
        if !std::thread::panicking() {
            if let Some(work) = self.work {
                failures.handled(self.whose.subject(), work);
            }
            return;
        }
        let now = self.ctx.now();
        failures.panics.fetch_add(1, Ordering::Relaxed);
        let kind = self.work.map_or("unknown", |work| work.kind);
        metrics::counter!("ringfence_actor_panics_total", "actor" => self.whose.name(), "message" => kind).increment(1);
        match self.whose {
            Whose::Account(key) => failures.account_failed(key, now.mono),
            // A call is not restarted: no message of it comes twice.
            Whose::Call(account, call) => {
                tracing::error!(call_id = %call, message = kind, "a call's actor panicked: the call ends");
                return failures.call_failed(account, now.mono);
            }
            // Its supervisor starts it again.
            Whose::Trunk(_) => {}
        }
        if let Some(work) = self.work {
            failures.killed(self.whose.subject(), work, now);
        }
    }
}
