//! That no call is lost needlessly, whatever happens elsewhere: one that nothing concerned comes about, and lasts until somebody
//! ends it; one that was answered goes on behind a crash. What may end a call or keep it from coming about although nobody wants
//! that is noted here, with when it happened and whom it concerns. A datagram that is lost is no excuse: it is repeated.

use super::checker::{Checker, Known, terms};
use super::plan::AccountPlan;
use super::tally::Tally;
use super::tap::{BLeg, Observed};
use super::tariff::price;
use actors::account::holds::CUTOFF_LEAD;
use actors::call::machine::RING_TIMEOUT;
use schema::call::{Cdr, HangupSide, RefusalCode};
use schema::id::{AccountKey, CallId};
use schema::leg::HangupCause;
use schema::money::Micros;
use schema::rate::RateTerms;
use schema::time::Mono;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What fails is well again so much later: an actor rests, a trunk that was silent is left out for 30 s.
const AFTERMATH: Duration = Duration::from_secs(15);
/// Whoever is asked whether it is there, and cannot be reached, is given up so much later: asked each 30 s, awaited for 64·T1.
const GIVEN_UP: Duration = Duration::from_secs(75);
/// Whoever can pay for so much of a call may make it.
const SHORTEST: Duration = Duration::from_secs(1);
/// A session with a timer outlives so much time without a process.
const UNREFRESHED: Duration = Duration::from_secs(10);
/// What was decided is stored within this time.
const DECIDED: Duration = Duration::from_secs(1);
/// A call of which nothing is heard from the disk is given up within this time.
const AWAITED: Duration = Duration::from_secs(6);
/// A process takes up the calls of the one before within this time.
const TAKEN_UP: Duration = Duration::from_secs(5);

/// Whom something concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// All calls.
    All,
    /// Those of an account, or of its phone.
    Account(AccountKey),
    /// One.
    Call(CallId),
    /// Those to a carrier.
    Carrier(usize),
}

/// What a plan says of an account.
#[derive(Debug, Clone, Copy)]
pub struct Customer {
    /// Most calls at a time.
    pub live_calls: u32,
    /// Longest call.
    pub call_limit: Duration,
    /// Its phone comes back when its connection was lost.
    pub comes_back: bool,
}

/// Legs that a phone or a carrier ended, refused or did not know, by Call-ID, whether the server heard of it or not.
#[derive(Default)]
pub struct GaveUp(BTreeSet<Box<str>>);

impl GaveUp {
    /// A phone or a carrier sends something.
    pub fn note(&mut self, bytes: &[u8]) {
        if gives_up(bytes)
            && let Some(call_id) = header(bytes, b"\r\nCall-ID: ")
        {
            self.0.insert(call_id.into());
        }
    }
}

impl From<&AccountPlan> for Customer {
    fn from(plan: &AccountPlan) -> Self {
        Self {
            live_calls: plan.live_calls,
            call_limit: Duration::from_secs(plan.call_seconds.into()),
            comes_back: plan.registers,
        }
    }
}

/// What happened, and what phones and carriers wanted.
#[derive(Default)]
pub struct Needless {
    /// Accounts as planned.
    pub customers: BTreeMap<AccountKey, Customer>,
    /// Calls to these numbers have a session timer, which needs a process.
    pub timed: BTreeSet<Box<str>>,
    /// Nobody is refused for what all of them do.
    pub has_room: bool,
    /// Faults, from when until when.
    troubles: Vec<(Whom, Mono, Mono)>,
    /// Panics that wait for their moment, and how many struck.
    armed: Vec<Whom>,
    struck: usize,
    /// Processes that are to end, from when until another one has taken up all calls.
    restarts: Vec<(Mono, Mono)>,
    /// When they did, until the same: one that is to die at a step of the journal answers until then.
    deaths: Vec<(Mono, Mono)>,
    /// Legs that a phone or a carrier gave up.
    pub gave_up: GaveUp,
    /// What each account had to spend since when, and how many calls were live.
    means: BTreeMap<AccountKey, Vec<(Mono, Micros, usize)>>,
    /// When a call was asked for, and when it was over.
    began: BTreeMap<CallId, Mono>,
    over: BTreeMap<CallId, Mono>,
    /// Accounts of which a call was to be hung up, when.
    requests: Vec<(AccountKey, Mono)>,
}

impl Needless {
    /// Something goes wrong for a while.
    pub fn trouble(&mut self, whom: Whom, from: Mono, lasts: Duration) {
        match self.troubles.last_mut() {
            Some((last, _, until)) if *last == whom && *until >= from => *until = (*until).max(from + lasts),
            _ => self.troubles.push((whom, from, from + lasts)),
        }
    }

    /// Something fails now.
    pub fn fails(&mut self, whom: Whom, now: Mono) {
        self.trouble(whom, now, AFTERMATH);
    }

    /// The disk has a fault, which takes so long.
    pub fn disk(&mut self, now: Mono, stall: Duration) {
        self.trouble(Whom::All, now, stall + AFTERMATH);
    }

    /// Nobody reaches one of these for a while, or it has lost its connection.
    pub fn unreachable(&mut self, whom: Whom, now: Mono, lasts: Duration) {
        self.trouble(whom, now, lasts + GIVEN_UP);
    }

    /// Somebody will panic.
    pub fn arm(&mut self, whom: Whom) {
        self.armed.push(whom);
    }

    /// So many have panicked in this world.
    pub fn panicked(&mut self, now: Mono, count: usize) {
        if std::mem::replace(&mut self.struck, count) != count {
            self.armed.clone().into_iter().for_each(|whom| self.trouble(whom, now, AFTERMATH));
        }
    }

    /// The process is gone, and with it the faults that waited in it.
    pub fn ended(&mut self, now: Mono) {
        self.armed.clear();
        self.deaths.push((now, Mono(u64::MAX)));
    }

    /// The process will end.
    pub fn ends(&mut self, now: Mono) {
        if self.restarts.last().is_none_or(|(_, until)| *until < Mono(u64::MAX)) {
            self.restarts.push((now, Mono(u64::MAX)));
        }
    }

    /// The next one has taken up all calls.
    pub fn recovered(&mut self, now: Mono) {
        let ended = self.restarts.iter_mut().chain(&mut self.deaths);
        ended.for_each(|(_, until)| *until = (*until).min(now));
    }

    /// When each process that followed another one had taken up all calls; later than anything where it never did.
    pub fn recoveries(&self) -> impl Iterator<Item = Mono> {
        self.deaths.iter().map(|(_, over)| *over)
    }

    /// Whether there was no process then, or one that had not taken up all calls.
    #[must_use]
    pub fn was_recovering(&self, at: Mono) -> bool {
        self.deaths.iter().any(|(died, over)| (*died..=*over).contains(&at))
    }

    /// The actors are asked about a call.
    pub fn began(&mut self, now: Mono, call: CallId) {
        self.began.entry(call).or_insert(now);
    }

    /// What an account has to spend, as stored, and how many of its calls are live.
    pub fn has(&mut self, now: Mono, account: AccountKey, available: Micros, live: usize) {
        let means = self.means.entry(account).or_default();
        if means.last().is_none_or(|(_, before, calls)| (*before, *calls) != (available, live)) {
            means.push((now, available, live));
        }
    }

    /// Least to spend and most calls of an account about this moment.
    fn means_about(&self, account: AccountKey, at: Mono) -> Option<(Micros, usize)> {
        let means = self.means.get(&account)?;
        let first = means.partition_point(|(since, ..)| *since <= at).saturating_sub(1);
        let about = || means[first..].iter().take_while(|(since, ..)| *since <= at + DECIDED);
        Some((about().map(|(_, available, _)| *available).min()?, about().map(|(.., live)| *live).max()?))
    }

    /// A call is settled.
    pub fn over(&mut self, now: Mono, call: CallId) {
        self.over.entry(call).or_insert(now);
    }

    /// Whether a call was settled by then.
    #[must_use]
    pub fn was_over(&self, call: CallId, by: Mono) -> bool {
        self.over.get(&call).is_some_and(|over| *over <= by)
    }

    /// Whether a hang-up was asked for just before a leg ended.
    fn was_requested(&self, account: AccountKey, end: Mono) -> bool {
        self.requests.iter().any(|(whose, at)| *whose == account && *at <= end && end <= *at + AWAITED)
    }

    /// Whether the process in which a leg ended died before that call was settled: the next one finds a side gone.
    fn is_end_forgotten(&self, call: CallId, end: Mono) -> bool {
        self.deaths.iter().any(|(died, _)| end <= *died && !self.was_over(call, *died))
    }

    /// A call of this account is to be hung up.
    pub fn requested(&mut self, now: Mono, account: AccountKey) {
        self.requests.push((account, now));
    }

    fn is_unwanted(&self, call_id: Option<&str>) -> bool {
        call_id.is_some_and(|call_id| self.gave_up.0.contains(call_id))
    }

    fn concerns(&self, account: AccountKey, call: CallId, legs: &[BLeg], from: Mono, until: Mono) -> bool {
        let is_its = |whom: &Whom| match *whom {
            Whom::All => true,
            Whom::Account(key) => key == account,
            Whom::Call(id) => id == call,
            Whom::Carrier(number) => legs.iter().any(|leg| leg.carrier == number),
        };
        self.troubles.iter().any(|(whom, began, over)| is_its(whom) && *began <= until && from <= *over)
    }

    fn restarted_within(&self, from: Mono, until: Mono) -> bool {
        self.restarts.iter().any(|(began, over)| *began <= until && from <= *over + AFTERMATH)
    }
}

/// Whether whoever sends this does not want the call, or does not know of it.
fn gives_up(bytes: &[u8]) -> bool {
    let status = bytes.strip_prefix(b"SIP/2.0 ").and_then(|rest| std::str::from_utf8(rest.get(..3)?).ok());
    match status.and_then(|status| status.parse().ok()) {
        None => bytes.starts_with(b"BYE ") || bytes.starts_with(b"CANCEL "),
        // After a 422 it may be asked again (RFC 4028 §7.3).
        Some(401 | 407 | 422 | 491) => false,
        Some(408 | 481) => true,
        Some(status) => status >= 300_u16 && header(bytes, b"\r\nCSeq: ").is_some_and(|cseq| cseq.ends_with("INVITE")),
    }
}

fn header<'a>(bytes: &'a [u8], name: &[u8]) -> Option<&'a str> {
    let at = bytes.windows(name.len()).position(|part| part == name)? + name.len();
    let end = bytes[at..].iter().position(|byte| *byte == b'\r')?;
    std::str::from_utf8(&bytes[at..at + end]).ok()
}

/// What ended a call must have been wanted by somebody, or have a reason. `leg`: which was answered.
pub fn check(
    checker: &Checker,
    account: AccountKey,
    cdr: &Cdr,
    leg: Option<&BLeg>,
    tally: &mut Tally,
) -> Result<(), String> {
    let number = cdr.call.dialled.as_ref().map_or("", |dialled| dialled.expose());
    if checker.misbehaving.contains(number) {
        return Ok(());
    }
    let (seen, known) = (checker.seen(cdr.call.id), checker.known.get(&cdr.call.id));
    match (leg.and_then(|leg| Some((leg, leg.answered?))), seen, known) {
        (Some((leg, answered)), Some(seen), Some(known)) => lasts(checker, cdr, seen, known, (leg, answered), tally),
        (Some(_), ..) => Ok(()),
        (None, seen, _) => comes_about(checker, account, cdr, seen, tally),
    }
}

fn lasts(
    checker: &Checker,
    cdr: &Cdr,
    seen: &Observed,
    known: &Known,
    (leg, answered): (&BLeg, Mono),
    tally: &mut Tally,
) -> Result<(), String> {
    let (needless, call, account) = (&checker.needless, cdr.call.id, known.account);
    let Some(hangup) = &cdr.call.hangup else { return Err("nobody ended it".to_owned()) };
    let ends = [seen.a_end(), leg.bye].into_iter().flatten().filter(|end| *end >= answered);
    let Some(end) = ends.min() else { return Ok(()) };
    let by_caller = needless.is_unwanted(checker.tap.caller(call));
    let by_callee = needless.is_unwanted(Some(&leg.call_id));
    let talk = Duration::from_millis(cdr.talk_ms);
    let is = |cause: HangupCause| hangup.reason == cause.as_str();
    let customer = needless.customers.get(&account);
    let explained = if hangup.reason == "hung up" {
        if hangup.side == HangupSide::Caller { by_caller } else { by_callee }
    } else if is(HangupCause::FundsExhausted) {
        talk + CUTOFF_LEAD >= Duration::from_secs(known.paid_s)
    } else if is(HangupCause::DurationLimit) {
        customer.is_some_and(|customer| talk + CUTOFF_LEAD >= customer.call_limit)
    } else if is(HangupCause::Requested) {
        needless.requests.iter().any(|(whose, at)| *whose == account && *at <= end)
    } else {
        let is_lost = hangup.reason == "the connection was lost";
        let was_due = || {
            needless.was_requested(account, end) || was_cut_unheard(seen, known, customer, hangup.side, (answered, end))
        };
        by_caller || by_callee || (is_lost && needless.is_end_forgotten(call, end) && was_due())
    };
    let is_cut_short = is_lost_in_a_restart(checker, cdr, seen, known, answered, end);
    let excused = is_cut_short || needless.concerns(account, call, &seen.b_legs, end, end);
    let crossed = known.crashes.iter().any(|crash| (answered..=end).contains(crash));
    tally.add_if("answered calls that had to last", !excused);
    tally.add_if("answered calls that had to last across a restart", !excused && crossed);
    if explained || excused {
        return Ok(());
    }
    Err(format!("it was answered at {answered:?} and ended at {end:?} by {hangup:?}, and nobody wanted that"))
}

/// Whether a leg ended when what was paid, or the longest duration, was used up, and its caller cannot tell the next process that it
/// has heard: its connection went with the one that cut it, and it does not come back.
fn was_cut_unheard(
    seen: &Observed,
    known: &Known,
    customer: Option<&Customer>,
    side: HangupSide,
    (answered, end): (Mono, Mono),
) -> bool {
    let limit = customer.map_or(Duration::MAX, |customer| customer.call_limit);
    let boundary = Duration::from_secs(known.paid_s).min(limit);
    let is_away = seen.over_tcp && !customer.is_some_and(|customer| customer.comes_back);
    side == HangupSide::Caller && is_away && end.since(answered) + CUTOFF_LEAD >= boundary
}

/// Whether a call that was answered cannot go on in the next process.
fn is_lost_in_a_restart(
    checker: &Checker,
    cdr: &Cdr,
    seen: &Observed,
    known: &Known,
    answered: Mono,
    end: Mono,
) -> bool {
    let needless = &checker.needless;
    let number = cdr.call.dialled.as_ref().map_or("", |dialled| dialled.expose());
    let customer = needless.customers.get(&known.account);
    needless.deaths.iter().filter(|(died, _)| (answered..=end).contains(died)).any(|(died, over)| {
        let was_up = seen.confirmed.is_some_and(|confirmed| confirmed <= *died);
        let paid = answered + Duration::from_secs(known.paid_s);
        !was_up
            || paid <= *over + TAKEN_UP
            || (needless.timed.contains(number) && over.since(*died) > UNREFRESHED)
            || (seen.over_tcp && !customer.is_some_and(|customer| customer.comes_back))
            || known.rebooted && checker.wall.set_between(answered, Mono(u64::MAX)) != Default::default()
    })
}

/// A call that was not answered was refused by a carrier or given up by its phone, or there was no room or no money for it.
fn comes_about(
    checker: &Checker,
    account: AccountKey,
    cdr: &Cdr,
    seen: Option<&Observed>,
    tally: &mut Tally,
) -> Result<(), String> {
    let (needless, call) = (&checker.needless, cdr.call.id);
    let legs = seen.map_or(&[][..], |seen| &seen.b_legs);
    let Some(began) = needless.began.get(&call).copied() else { return Err("it was never asked for".to_owned()) };
    let refusal = cdr.call.explanation.refusal.as_ref().map(|refusal| refusal.code);
    // One whose beginning and end reached the disk together was never seen live.
    let unseen = if refusal.is_some() { began } else { began + AWAITED };
    let over = needless.over.get(&call).copied().unwrap_or(unseen);
    let means = needless.means_about(account, began);
    let has_no_answer = || cdr.call.hangup.as_ref().is_some_and(|end| end.reason == HangupCause::NoAnswer.as_str());
    let explained = match refusal {
        Some(RefusalCode::InsufficientBalance) => {
            let least = terms(&cdr.call).map(|terms| price(&RateTerms { grace_s: 0, ..terms }, SHORTEST));
            means.zip(least).is_none_or(|((available, _), least)| available < least)
        }
        Some(RefusalCode::TooManyCalls) => {
            let most = needless.customers.get(&account).map(|customer| customer.live_calls);
            means.zip(most).is_none_or(|((_, live), most)| live >= most as usize)
        }
        Some(RefusalCode::NoRoute | RefusalCode::Overloaded) => !needless.has_room,
        Some(_) => false,
        None => {
            let requested =
                needless.requests.iter().any(|(whose, at)| *whose == account && (began..=over).contains(at));
            let by_carrier = legs.last().is_some_and(|leg| needless.is_unwanted(Some(&leg.call_id)));
            let rang_long = has_no_answer() && over >= began + RING_TIMEOUT;
            let too_small = cdr.call.hangup.as_ref().is_some_and(|end| end.sip_code == Some(422));
            needless.is_unwanted(checker.tap.caller(call)) || by_carrier || too_small || rang_long || requested
        }
    };
    let carrier_away = needless
        .troubles
        .iter()
        .any(|(whom, since, until)| matches!(whom, Whom::Carrier(_)) && *since <= over && began <= *until);
    let excused =
        carrier_away || needless.concerns(account, call, legs, began, over) || needless.restarted_within(began, over);
    tally.add_if("calls that were not answered for a reason", !excused);
    if explained || excused {
        return Ok(());
    }
    let (hangup, attempts) = (&cdr.call.hangup, cdr.attempts);
    Err(format!("it did not come about: {refusal:?} {hangup:?}, {attempts} attempts, from {began:?} until {over:?}"))
}
