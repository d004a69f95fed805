//! Who may ask for something before it is known who it is: limits per source, bans, scanners. Pure.
//!
//! A source is an IPv4 address or an IPv6 /64. What counts against one is only what it sent provably itself: failed
//! authentications answer a nonce that was given to that very source, and a scanner's name came over a connection. The rate of
//! requests can be forged over UDP; so a source from which a right answer came not long ago is free of it, and nobody elsewhere
//! can take its place away. Many may share such a source, so it is never banned: guesses there slow whoever gave no right answer
//! from there. What cannot be told apart is slowed together: whoever guesses at an owner's own address can slow the owner's phone
//! there while it comes by a new port, and sees by that which names live there. From elsewhere nobody can.

mod known;
mod network;
mod table;

pub use network::{Network, NetworkError};

use known::Known;
use schema::edge::Binding;
use schema::time::Mono;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use table::Table;

/// Rules, per source.
#[derive(Debug, Clone)]
pub struct GuardLimits {
    /// Requests a second outside dialogs that a source may send of which nothing is known; twice as many at once.
    pub requests_per_second: u32,
    /// Sources without any limit: one's own machines, and all of loopback in development.
    pub exempt: Arc<[Network]>,
}

impl Default for GuardLimits {
    fn default() -> Self {
        Self { requests_per_second: 20, exempt: Arc::new([]) }
    }
}

/// What counts against a source of which nothing is known within [`FAILURES_IN`] until it is banned.
const FAILURES_MAX: u32 = 10;
/// A failed authentication may be somebody's mistake; a program that looks for open servers is none.
const FAILED: u32 = 1;
const SCANNED: u32 = 3;
const FAILURES_IN: Duration = Duration::from_secs(300);
/// The first ban; each further one is twice as long.
const BAN: Duration = Duration::from_secs(600);
const BAN_MAX: Duration = Duration::from_secs(86_400);
/// So long after a ban the next one is still twice as long.
const BAN_REMEMBERED: Duration = Duration::from_secs(86_400);
/// Failed authentications of one username, from wherever, until strangers to it have to wait.
const ACCOUNT: Patience = Patience { failures: 20, within: Duration::from_secs(3_600) };
/// The same at one source that has customers: somebody's phone has the wrong password.
const PAIR: Patience = Patience { failures: 10, within: FAILURES_IN };
/// The same of all usernames together that never gave a right answer at such a source.
const NEWCOMERS: Patience = Patience { failures: 100, within: FAILURES_IN };
/// Of one username at a source where its own right answers come from: whoever else comes from there has to wait.
const OWN: Patience = Patience { failures: 100, within: FAILURES_IN };
/// Between two tries of those that have to wait.
const PACE: Duration = Duration::from_secs(30);
/// Most sources and most usernames, also at a source, with something to remember.
const SOURCES_MAX: usize = 65_536;
const ACCOUNTS_MAX: usize = 50_000;
/// User agents of programs that look for open servers, in lower case.
const SCANNERS: [&str; 6] = ["friendly-scanner", "sipvicious", "sipcli", "vaxsipuseragent", "pplsip", "sundayddr"];

/// Where something came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source(u64, bool);

impl Source {
    pub(crate) fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self(u64::from(u32::from(ip)), false),
            IpAddr::V6(ip) => Self(u64::try_from(u128::from(ip) >> 64).unwrap_or_default(), true),
        }
    }
}

/// What becomes of a request, or of an answer to a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is handled.
    Pass,
    /// It is not answered.
    Drop(Why),
    /// Its sender is to come back later.
    Slow,
}

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    Scanner,
    Banned,
    Rate,
}

/// What was decided since the start; `banned_sources` is how many are banned or have something to remember now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GuardCounts {
    /// Requests of scanners.
    pub scanners: u64,
    /// Requests beyond the rate.
    pub rate: u64,
    /// Requests of banned sources.
    pub banned: u64,
    /// Bans pronounced.
    pub bans: u64,
    /// Failed authentications.
    pub failures: u64,
    /// Usernames at which strangers, and sources at which newcomers, had to begin to wait: somebody guesses passwords.
    pub accounts_slowed: u64,
    /// Tries told to come back later.
    pub slowed: u64,
    /// Sources remembered now.
    pub sources: usize,
}

/// Failures within a time that begins with the first.
#[derive(Debug, Clone, Copy)]
struct Failures {
    since: Mono,
    count: u32,
}

impl Failures {
    const fn none(now: Mono) -> Self {
        Self { since: now, count: 0 }
    }

    fn add(&mut self, weight: u32, within: Duration, now: Mono) -> u32 {
        if self.since + within <= now {
            *self = Self::none(now);
        }
        self.count += weight;
        self.count
    }
}

/// A source of which something is remembered.
#[derive(Debug, Clone, Copy)]
struct Record {
    /// When its allowance is full again: one request moves it on by a part of a second.
    full_at: Mono,
    failures: Failures,
    banned_until: Mono,
    /// Length of the last ban, while that counts.
    ban: Duration,
}

impl Record {
    const fn new(now: Mono) -> Self {
        Self { full_at: now, failures: Failures::none(now), banned_until: Mono(0), ban: Duration::ZERO }
    }

    /// From when on it says no more than that there is none.
    fn forgettable(&self) -> Mono {
        let failed = if self.failures.count > 0 { self.failures.since + FAILURES_IN } else { Mono(0) };
        let banned = if self.ban.is_zero() { Mono(0) } else { self.banned_until + BAN_REMEMBERED };
        self.full_at.max(failed).max(banned)
    }

    fn fail(&mut self, weight: u32, now: Mono) -> bool {
        if self.failures.add(weight, FAILURES_IN, now) < FAILURES_MAX || self.banned_until > now {
            return false;
        }
        let again = self.banned_until + BAN_REMEMBERED > now && !self.ban.is_zero();
        self.ban = if again { (self.ban * 2).min(BAN_MAX) } else { BAN };
        self.banned_until = now + self.ban;
        self.failures = Failures::none(now);
        true
    }
}

/// So many failures within a time, and tries have to wait.
#[derive(Debug, Clone, Copy)]
struct Patience {
    failures: u32,
    within: Duration,
}

/// What failed of one kind of guesses.
#[derive(Debug, Clone, Copy)]
struct Guesses {
    failures: Failures,
    next_try: Mono,
}

/// The guesses at each of something, such as usernames.
struct Guessed<K> {
    rows: Table<K, Guesses>,
    patience: Patience,
}

impl<K: Ord + Clone> Guessed<K> {
    const fn new(most: usize, patience: Patience) -> Self {
        Self { rows: Table::new(most), patience }
    }

    /// When a try at it may be made; `None`: at any time.
    fn next_try(&self, key: &K, now: Mono) -> Option<Mono> {
        let guesses = self.rows.peek(key)?;
        let is_slow =
            guesses.failures.count >= self.patience.failures && guesses.failures.since + self.patience.within > now;
        is_slow.then_some(guesses.next_try)
    }

    /// A try is made: the next one has to wait.
    fn tried(&mut self, key: &K, now: Mono) {
        if let Some(guesses) = self.rows.peek(key).copied() {
            self.put(key.clone(), Guesses { next_try: now + PACE, ..guesses }, now);
        }
    }

    /// A try failed; true when those after it have to wait, and those before had not.
    fn failed(&mut self, key: K, now: Mono) -> bool {
        let fresh = Guesses { failures: Failures::none(now), next_try: now };
        let mut guesses = self.rows.peek(&key).copied().unwrap_or(fresh);
        let is_last = guesses.failures.add(FAILED, self.patience.within, now) == self.patience.failures;
        self.put(key, guesses, now);
        is_last
    }

    fn put(&mut self, key: K, guesses: Guesses, now: Mono) {
        self.rows.put(key, guesses, guesses.failures.since + self.patience.within, now);
    }
}

/// The rules and what they remember.
pub(crate) struct Guard {
    limits: GuardLimits,
    sources: Table<Source, Record>,
    accounts: Guessed<Box<str>>,
    /// At sources that have customers: by username, and of all together.
    pairs: Guessed<(Source, Box<str>)>,
    newcomers: Guessed<Source>,
    /// At a username from where its own right answers come.
    own: Guessed<(Source, Box<str>)>,
    known: Known,
    counts: GuardCounts,
}

impl Guard {
    pub(crate) fn new(limits: GuardLimits) -> Self {
        Self {
            limits,
            sources: Table::new(SOURCES_MAX),
            accounts: Guessed::new(ACCOUNTS_MAX, ACCOUNT),
            pairs: Guessed::new(ACCOUNTS_MAX, PAIR),
            newcomers: Guessed::new(SOURCES_MAX, NEWCOMERS),
            own: Guessed::new(ACCOUNTS_MAX, OWN),
            known: Known::default(),
            counts: GuardCounts::default(),
        }
    }

    pub(crate) fn counts(&self) -> GuardCounts {
        GuardCounts { sources: self.sources.len(), ..self.counts }
    }

    fn is_exempt(&self, ip: IpAddr) -> bool {
        self.limits.exempt.iter().any(|network| network.contains(ip))
    }

    /// A request outside a dialog that belongs to no transaction. `is_trunk` says whether its source is a carrier.
    pub(crate) fn request(&mut self, ip: IpAddr, agent: Option<&str>, is_trunk: bool, now: Mono) -> Verdict {
        let verdict = self.judge(ip, agent, is_trunk, now);
        match verdict {
            Verdict::Drop(Why::Scanner) => self.counts.scanners += 1,
            Verdict::Drop(Why::Banned) => self.counts.banned += 1,
            Verdict::Drop(Why::Rate) => self.counts.rate += 1,
            Verdict::Pass | Verdict::Slow => {}
        }
        verdict
    }

    fn judge(&mut self, ip: IpAddr, agent: Option<&str>, is_trunk: bool, now: Mono) -> Verdict {
        if agent.is_some_and(is_scanner) {
            return Verdict::Drop(Why::Scanner);
        }
        if is_trunk || self.is_exempt(ip) {
            return Verdict::Pass;
        }
        let source = Source::of(ip);
        // Whatever somebody does there, others come from there too.
        if self.known.has(source, now) {
            return Verdict::Pass;
        }
        let record = self.sources.peek(&source).copied();
        if record.is_some_and(|record| record.banned_until > now) {
            return Verdict::Drop(Why::Banned);
        }
        let mut record = record.unwrap_or_else(|| Record::new(now));
        let per_second = u64::from(self.limits.requests_per_second.max(1));
        let full_at = record.full_at.max(now) + Duration::from_micros(1_000_000 / per_second);
        if full_at > now + Duration::from_secs(2) {
            return Verdict::Drop(Why::Rate);
        }
        record.full_at = full_at;
        self.sources.put(source, record, record.forgettable(), now);
        Verdict::Pass
    }

    /// Whether a right answer came from this source not long ago, or it is one of our own machines.
    pub(crate) fn knows(&self, ip: IpAddr, now: Mono) -> bool {
        self.is_exempt(ip) || self.known.has(Source::of(ip), now)
    }

    /// Somebody is about to show that it is `username`: [`Verdict::Slow`] when too many tried that in vain, or too much was tried
    /// where it comes from, and this is not from where its owner comes.
    pub(crate) fn attempt(&mut self, peer: SocketAddr, username: &str, now: Mono) -> Verdict {
        let source = Source::of(peer.ip());
        let home = self.known.port_of(source, username, now);
        if self.is_exempt(peer.ip()) || home == Some(peer.port()) {
            return Verdict::Pass;
        }
        let (account, pair) = (Box::from(username), (source, Box::from(username)));
        if home.is_some() {
            return self.attempt_beside(&pair, now);
        }
        let [of_account, of_pair, of_newcomers] = [
            self.accounts.next_try(&account, now),
            self.pairs.next_try(&pair, now),
            self.newcomers.next_try(&source, now),
        ];
        if self.waits([of_account, of_pair, of_newcomers], now) {
            return Verdict::Slow;
        }
        of_account.inspect(|_| self.accounts.tried(&account, now));
        of_pair.inspect(|_| self.pairs.tried(&pair, now));
        of_newcomers.inspect(|_| self.newcomers.tried(&source, now));
        Verdict::Pass
    }

    /// From where the owner comes, and not over the flow of its last right answer: it may be somebody who shares the address.
    fn attempt_beside(&mut self, own: &(Source, Box<str>), now: Mono) -> Verdict {
        let of_own = self.own.next_try(own, now);
        if self.waits([of_own], now) {
            return Verdict::Slow;
        }
        of_own.inspect(|_| self.own.tried(own, now));
        Verdict::Pass
    }

    /// Whether one of these times of a next try is still to come.
    fn waits<const N: usize>(&mut self, next_tries: [Option<Mono>; N], now: Mono) -> bool {
        let waits = next_tries.into_iter().flatten().any(|next| next > now);
        self.counts.slowed += u64::from(waits);
        waits
    }

    /// The answer to a nonce that this source was given is wrong.
    pub(crate) fn failed(&mut self, ip: IpAddr, username: &str, now: Mono) {
        self.counts.failures += 1;
        if self.is_exempt(ip) {
            return;
        }
        let source = Source::of(ip);
        self.counts.accounts_slowed += u64::from(self.accounts.failed(username.into(), now));
        if !self.known.has(source, now) {
            self.count_against(source, FAILED, now);
        } else if self.known.has_user(source, username, now) {
            self.counts.accounts_slowed += u64::from(self.own.failed((source, username.into()), now));
        } else {
            self.counts.accounts_slowed += u64::from(self.pairs.failed((source, username.into()), now));
            self.counts.accounts_slowed += u64::from(self.newcomers.failed(source, now));
        }
    }

    /// A scanner's request came over a connection: nobody has forged where it is from.
    pub(crate) fn scanned(&mut self, ip: IpAddr, now: Mono) {
        let source = Source::of(ip);
        if !self.is_exempt(ip) && !self.known.has(source, now) {
            self.count_against(source, SCANNED, now);
        }
    }

    fn count_against(&mut self, source: Source, weight: u32, now: Mono) {
        let mut record = self.sources.peek(&source).copied().unwrap_or_else(|| Record::new(now));
        self.counts.bans += u64::from(record.fail(weight, now));
        self.sources.put(source, record, record.forgettable(), now);
    }

    /// The answer is right.
    pub(crate) fn succeeded(&mut self, peer: SocketAddr, username: &str, now: Mono) {
        if !self.is_exempt(peer.ip()) {
            self.known.note(Source::of(peer.ip()), peer.port(), username, now);
        }
    }

    /// A phone was registered before a restart: it gave a right answer from there.
    pub(crate) fn restored(&mut self, binding: &Binding, username: &str, now: Mono) {
        let address = binding.source.expose().split(' ').nth(1).and_then(|text| text.parse::<SocketAddr>().ok());
        if let Some(address) = address {
            self.succeeded(address, username, now);
        }
    }
}

fn is_scanner(agent: &str) -> bool {
    let agent = agent.to_ascii_lowercase();
    SCANNERS.iter().any(|scanner| agent.contains(scanner))
}

#[cfg(test)]
mod tests;
