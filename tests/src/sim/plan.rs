//! What a seed chooses: accounts and their money, prices, the weather, and what is done to the world when.

mod early;
mod manners;
mod overload;
mod pairs;
mod poison;

pub use overload::{Limits, Temper};

use super::manner::Manner;
use super::mischief::Mischief;
use super::network::{Cut, Weather};
use actors::faults::FaultPoint;
use schema::entropy::Entropy;
use schema::money::{Micros, NanosPerMinute};
use schema::rate::RateTerms;
use schema::time::Mono;
use schema::wrong::{self, Wrong};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use storage::memory::{Halt, Unsynced};

/// When a world begins, after its machine's boot.
pub const BEGIN: Mono = Mono(1_000_000);
/// From the last act of a plan until nothing may be left: the longest ringing of the test carrier (180 s), the time its
/// final answer is repeated (64·T1) and a margin.
const DRAIN: Duration = Duration::from_secs(230);

/// Everything a world does that is not decided by the program under test.
pub struct Plan {
    /// Its accounts, one phone each. The last one has money and calls once everything is well again.
    pub accounts: Vec<AccountPlan>,
    /// What customers pay.
    pub retail: RateTerms,
    /// Most channels of each trunk, and most calls a second.
    pub trunks: [(u32, u32); 2],
    /// The network until everything is well again.
    pub weather: Weather,
    /// How long a journal batch takes.
    pub sync: Duration,
    /// Which carriers speak TCP.
    pub carriers_over_tcp: [bool; 2],
    /// Which carriers ask for credentials.
    pub carriers_asking: [bool; 2],
    /// Which carriers send all their 18x reliably.
    pub carriers_ring_reliably: [bool; 2],
    /// Most that is let in.
    pub limits: Limits,
    /// Which trunks have TCP for what is large for UDP,
    pub large_over_tcp: [bool; 2],
    /// and which of them refuse it all the same.
    pub refuses_tcp: [bool; 2],
    /// Who behaves how in the call to a number.
    pub manners: BTreeMap<Box<str>, Manner>,
    /// What goes wrong in the call to a number.
    pub mischiefs: BTreeMap<Box<str>, Mischief>,
    /// What happens when, in order.
    pub acts: VecDeque<(Mono, Act)>,
    /// When everything must have come to rest.
    pub end: Mono,
}

/// An account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountPlan {
    /// Its first money.
    pub opening: Micros,
    /// Most calls at a time.
    pub live_calls: u32,
    /// Longest call in seconds.
    pub call_seconds: u32,
    /// Whether its phone registers.
    pub registers: bool,
    /// Whether its phone speaks TCP.
    pub over_tcp: bool,
    /// Whether its phone takes reliable provisional responses.
    pub takes_reliable: bool,
    /// What its phone does when it is refused.
    pub temper: Temper,
}

/// How much happens in a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// One account or two with a few calls within half a minute.
    Small,
    /// Up to three accounts with up to four calls each, within a minute and a half.
    Full,
}

/// Something done to the world. Accounts, phones and carriers are named by their place in the plan.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each field is what its name says")]
pub enum Act {
    /// A phone calls a number that no other call has.
    Call { phone: usize, call: u64, number: Box<str> },
    /// A phone offers another session: re-INVITE or, before the answer, UPDATE.
    Change { phone: usize, call: u64 },
    /// A phone hangs up: CANCEL or BYE.
    HangUp { phone: usize, call: u64 },
    /// The `pick`-th live call of the account is hung up from the dashboard.
    Request { account: usize, pick: u64 },
    /// Money comes in. The same key may come again.
    TopUp { account: usize, amount: Micros, key: String },
    /// The account's actor panics.
    PanicAccount { account: usize, point: FaultPoint },
    /// Three times the account's actor panics at a message of this kind.
    Poison { account: usize, kind: &'static str, point: FaultPoint },
    /// What waits for a message to panic at does so no more.
    Disarm,
    /// The actor of its `pick`-th live call panics.
    PanicCall { account: usize, pick: u64, point: FaultPoint },
    /// The actor of a trunk panics.
    PanicTrunk(usize),
    /// The supervisor of an account panics, and all actors below it end.
    PanicSupervisor { account: usize },
    /// The next journal batch takes so much longer.
    Stall(Duration),
    /// So many journal batches fail.
    FailBatches(u32),
    /// So many reads and other writes fail.
    FailReads(u32),
    /// A carrier, or a phone, cannot be reached for a while.
    CutOff { phone: Option<usize>, carrier: usize, cut: Cut, lasts: Duration },
    /// Their connection is reset.
    Reset { phone: Option<usize>, carrier: usize },
    /// The wall clock is set, by so many microseconds.
    SetClock(i64),
    /// The process is told to end (SIGTERM); the next one starts when it has.
    Drain,
    /// The process dies and another one starts later.
    Crash(Crash),
    /// All faults end, all phones hang up and leave.
    Heal,
    /// All live calls are hung up from the dashboard.
    HangUpAll,
}

impl Act {
    /// Whether calls may end by it that nobody wants to end.
    #[must_use]
    pub const fn disturbs(&self) -> bool {
        !matches!(
            self,
            Self::Call { .. }
                | Self::Change { .. }
                | Self::HangUp { .. }
                | Self::Request { .. }
                | Self::TopUp { .. }
                | Self::SetClock(_)
                | Self::Heal
                | Self::HangUpAll
        )
    }
}

/// How a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crash {
    /// So many datagrams and commands later,
    pub after: u64,
    /// or when this time is over,
    pub within: Duration,
    /// or when the journal is at this point.
    pub halt: Option<Halt>,
    /// For how long there is no process.
    pub down: Duration,
    /// What becomes of the batches that were being written.
    pub unsynced: Unsynced,
    /// The machine boots: the monotonic clock begins anew.
    pub reboot: bool,
    /// So many reads of the next process fail, as soon as it has started.
    pub failing_reads: u32,
}

/// The call of a carrier that offers.
const OFFERED_CALL: u64 = 850;
/// The call of a phone that vanishes.
const VANISHING_CALL: u64 = 800;
/// The call that shows that an account works again; others of its phone have lower numbers.
pub const LAST_CALL: u64 = 900;
/// The key of the money for it.
pub const AGAIN: &str = "again";

struct Draw {
    entropy: Entropy,
    size: Size,
    mischiefs: BTreeMap<Box<str>, Mischief>,
    acts: BTreeMap<(Mono, usize), Act>,
    /// When the last of them is done.
    until: Mono,
}

impl Draw {
    const fn new(entropy: Entropy, size: Size) -> Self {
        Self { entropy, size, mischiefs: BTreeMap::new(), acts: BTreeMap::new(), until: BEGIN }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.entropy.below(bound)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.entropy.below(from.len() as u64)).unwrap_or(0)]
    }

    fn moment(&mut self, within_ms: u64) -> Mono {
        BEGIN + Duration::from_millis(self.below(within_ms))
    }

    fn act(&mut self, at: Mono, act: Act) {
        self.until = self.until.max(at);
        self.acts.insert((at, self.acts.len()), act);
    }
}

impl Plan {
    /// Whether all calls that are made have room, in the server and in the trunks.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.limits == Limits::WIDE && self.trunks[0] == (100, 100)
    }

    /// One account in fair weather, and what is done from the beginning on; then everything is well again.
    #[must_use]
    pub fn of_acts(opening: Micros, sync: Duration, acts: &[(Duration, Act)]) -> Self {
        let mut draw = Draw::new(Entropy::from_number(0), Size::Small);
        acts.iter().for_each(|(after, act)| draw.act(BEGIN + *after, act.clone()));
        let end = recover(&mut draw, 1);
        let account = AccountPlan { opening, live_calls: 5, registers: true, ..SENTINEL };
        Self {
            accounts: vec![account, SENTINEL],
            retail: PER_SECOND,
            trunks: [(100, 100); 2],
            weather: Weather::FAIR,
            sync,
            carriers_over_tcp: [false; 2],
            carriers_asking: [false; 2],
            carriers_ring_reliably: [false; 2],
            limits: Limits::WIDE,
            large_over_tcp: [false; 2],
            refuses_tcp: [false; 2],
            manners: BTreeMap::new(),
            mischiefs: BTreeMap::new(),
            acts: draw.acts.into_iter().map(|((at, _), act)| (at, act)).collect(),
            end,
        }
    }

    /// The plan of a seed.
    #[must_use]
    pub fn of_seed(seed: u64, size: Size) -> Self {
        let mut draw = Draw::new(Entropy::from_number(seed), size);
        let (least_ms, spread_ms, most) = match size {
            Size::Small => (5_000, 20_000, 2),
            Size::Full => (20_000, 70_000, 3),
        };
        let within_ms = least_ms + draw.below(spread_ms);
        let count = 1 + usize::try_from(draw.below(most)).unwrap_or(0);
        let mut accounts: Vec<_> = (0..count).map(|_| account(&mut draw)).collect();
        let faults = draw.below(64);
        for phone in 0..count {
            calls(&mut draw, phone, within_ms, faults & 32 != 0);
            top_ups(&mut draw, phone, within_ms);
        }
        if faults & 1 != 0 {
            crashes(&mut draw, within_ms);
        }
        if faults & 2 != 0 {
            panics(&mut draw, count, within_ms);
        }
        if faults & 4 != 0 {
            disk_faults(&mut draw, within_ms);
        }
        if faults & 8 != 0 {
            cut_offs(&mut draw, count, within_ms);
        }
        if faults & 16 != 0 {
            settings_of_the_clock(&mut draw, within_ms);
        }
        let (weather, retail) = (weather(&mut draw), retail(&mut draw));
        let trunks = [(draw.pick(&[1, 2, 100]), draw.pick(&[1, 100])), (100, 100)];
        let carriers_over_tcp = draw.pick(&[[false; 2], [false; 2], [true, false], [true; 2]]);
        // Never at once: what is told before an entry is submitted has left before it is durable.
        let mut sync = Duration::from_millis(draw.pick(&[1, 2, 5, 20]));
        // From a stream of their own: without them a seed's world is what it was before there were such things.
        draw.entropy = Entropy::from_number(seed ^ 0x3262_3311_0000_0000);
        let mut carriers_ring_reliably = [false; 2];
        if draw.one_in(5) {
            carriers_ring_reliably = early::draw(&mut draw, &mut accounts, within_ms);
        }
        let mut limits = Limits::WIDE;
        if draw.one_in(10) {
            limits = overload::draw(&mut draw, &mut accounts, within_ms, &mut sync);
        }
        draw.entropy = Entropy::from_number(seed ^ 0x9a15_7a1c_0000_0000);
        // Whoever misbehaves answers the INVITE without credentials; and what goes over TCP reaches carriers rewritten.
        let asks = draw.mischiefs.is_empty() && carriers_over_tcp == [false; 2] && draw.one_in(4);
        let carriers_asking = if asks { draw.pick(&[[true, false], [true; 2]]) } else { [false; 2] };
        match draw.below(12) {
            0 => vanishing(&mut draw, count, within_ms),
            1 if !asks => offering(&mut draw, count, within_ms),
            _ => {}
        }
        draw.entropy = Entropy::from_number(seed ^ 0x7a12_0000_0000_0000);
        pairs::draw(&mut draw, count);
        draw.entropy = Entropy::from_number(seed ^ 0x4028_3264_0000_0000);
        let mut manners = BTreeMap::new();
        // A long call whose renewals are lost asks for the same one again and again: its world would stand still.
        if draw.one_in(8) && !wrong::chosen(Wrong::LostRenewal) {
            manners.extend(manners::timed(&mut draw, count, within_ms));
        }
        let (mut large_over_tcp, mut refuses_tcp) = ([false; 2], [false; 2]);
        if draw.one_in(12) {
            manners.extend(manners::offers(&mut draw, count, within_ms));
            large_over_tcp = carriers_over_tcp.map(|over_tcp| !over_tcp && !draw.one_in(3));
            refuses_tcp = large_over_tcp.map(|large| large && draw.one_in(3));
        }
        draw.entropy = Entropy::from_number(seed ^ 0x4028_0422_0000_0000);
        if draw.one_in(12) && !wrong::chosen(Wrong::LostRenewal) {
            manners.extend(manners::raised(&mut draw, count, within_ms));
        }
        draw.entropy = Entropy::from_number(seed ^ 0xd20d_0003_0000_0000);
        if draw.one_in(12) && !wrong::chosen(Wrong::LostRenewal) {
            poison::draw(&mut draw, count, within_ms);
        }
        // Its world would stand still, as with a long call.
        if !wrong::chosen(Wrong::LostRenewal) {
            await_poisoned(&mut draw, count);
        }
        let end = recover(&mut draw, count);
        accounts.push(SENTINEL);
        let acts = draw.acts.into_iter().map(|((at, _), act)| (at, act)).collect();
        let mischiefs = draw.mischiefs;
        Self {
            accounts,
            retail,
            trunks,
            weather,
            sync,
            carriers_over_tcp,
            carriers_asking,
            carriers_ring_reliably,
            limits,
            large_over_tcp,
            refuses_tcp,
            manners,
            mischiefs,
            acts,
            end,
        }
    }
}

/// A cent a second.
const PER_SECOND: RateTerms = RateTerms {
    per_minute: NanosPerMinute(600_000_000),
    connect_fee: Micros(0),
    minimum_s: 0,
    increment_s: 1,
    grace_s: 0,
};

/// Calls when all is well again: everything must work then.
const SENTINEL: AccountPlan = AccountPlan {
    opening: Micros(10_000_000),
    live_calls: 2,
    call_seconds: 7_200,
    registers: false,
    over_tcp: false,
    takes_reliable: false,
    temper: Temper::GivesUp,
};

fn account(draw: &mut Draw) -> AccountPlan {
    let cents = draw.pick(&[0, 1, 4, 15, 40, 100, 500]);
    AccountPlan {
        opening: Micros(cents * 10_000),
        live_calls: draw.pick(&[1, 2, 3, 5]),
        call_seconds: draw.pick(&[7_200, 7_200, 25, 90]),
        registers: draw.one_in(2),
        over_tcp: draw.one_in(3),
        ..SENTINEL
    }
}

/// The number that a call is to; its last two digits say what the test carrier does.
fn number(phone: usize, call: u64, digits: u64) -> Box<str> {
    format!("+4477{:06}{digits:02}", phone as u64 * 1_000 + call).into()
}

/// The last two digits say what the test carrier does.
fn behaviour(draw: &mut Draw) -> u64 {
    let first = draw.pick(&[0, 0, 0, 20, 40, 50, 60, 70, 80, 80, 90, 95]);
    if first == 80 { 80 + draw.below(10) } else { first }
}

fn calls(draw: &mut Draw, phone: usize, within_ms: u64, misbehave: bool) {
    let (most, talks_ms): (_, &[u64]) = match draw.size {
        Size::Small => (2, &[300, 3_000, 20_000]),
        Size::Full => (4, &[300, 3_000, 30_000, 100_000]),
    };
    for call in 0..1 + draw.below(most) {
        let mischief = (misbehave && draw.one_in(2)).then(|| draw.pick(&Mischief::ALL));
        let cancelled = mischief == Some(Mischief::AnswersCancelled);
        let digits = if cancelled { draw.pick(&[20, 40, 60]) } else { behaviour(draw) };
        let number = number(phone, call, digits);
        draw.mischiefs.extend(mischief.map(|mischief| (number.clone(), mischief)));
        let at = draw.moment(within_ms);
        draw.act(at, Act::Call { phone, call, number });
        let talk_ms = if cancelled { 1_500 } else { draw.pick(talks_ms) };
        if cancelled || !draw.one_in(3) {
            let at = at + Duration::from_millis(draw.below(talk_ms));
            draw.act(at, Act::HangUp { phone, call });
        }
        if draw.one_in(6) {
            let (at, pick) = (at + Duration::from_millis(draw.below(talk_ms)), draw.below(8));
            draw.act(at, Act::Request { account: phone, pick });
        }
    }
}

/// A call in which the carrier offers another session, and the phone too.
fn offering(draw: &mut Draw, count: usize, within_ms: u64) {
    let (phone, at) = (usize::try_from(draw.below(count as u64)).unwrap_or(0), draw.moment(within_ms));
    let number = number(phone, OFFERED_CALL, 0);
    draw.mischiefs.insert(number.clone(), Mischief::OffersTalking);
    draw.act(at, Act::TopUp { account: phone, amount: Micros(1_000_000), key: "before offers".to_owned() });
    let at = at + Duration::from_secs(1);
    draw.act(at, Act::Call { phone, call: OFFERED_CALL, number });
    for _ in 0..2 {
        let change = at + Duration::from_millis(draw.below(4_000));
        draw.act(change, Act::Change { phone, call: OFFERED_CALL });
    }
    let until = at + Duration::from_millis(2_000 + draw.below(8_000));
    draw.act(until, Act::HangUp { phone, call: OFFERED_CALL });
}

/// A call whose phone is gone from its ACK on.
fn vanishing(draw: &mut Draw, count: usize, within_ms: u64) {
    let (phone, at) = (usize::try_from(draw.below(count as u64)).unwrap_or(0), draw.moment(within_ms));
    let number = number(phone, VANISHING_CALL, 0);
    draw.mischiefs.insert(number.clone(), Mischief::PhoneVanishes);
    draw.act(at, Act::TopUp { account: phone, amount: Micros(2_000_000), key: "before it vanishes".to_owned() });
    draw.act(at + Duration::from_secs(1), Act::Call { phone, call: VANISHING_CALL, number });
    // Long enough to be missed.
    draw.until = draw.until + Duration::from_secs(100);
}

fn top_ups(draw: &mut Draw, account: usize, within_ms: u64) {
    for number in 0..draw.below(4) {
        let (at, amount) = (draw.moment(within_ms), Micros(10_000 * draw.pick(&[1, 5, 30, 200])));
        let key = format!("payment-{number}");
        draw.act(at, Act::TopUp { account, amount, key: key.clone() });
        if draw.one_in(2) {
            let at = at + Duration::from_millis(draw.below(20_000));
            draw.act(at, Act::TopUp { account, amount, key });
        }
    }
}

fn crashes(draw: &mut Draw, within_ms: u64) {
    let called: Vec<Mono> = draw.acts.iter().filter(|(_, a)| is_of_phone(a)).map(|((at, _), _)| *at).collect();
    for _ in 0..1 + draw.below(2) {
        // Half of them while something is going on.
        let at = if draw.one_in(2) { draw.moment(within_ms) } else { draw.pick(&called) };
        let at = at + Duration::from_millis(draw.below(300));
        let crash = Crash {
            after: draw.below(12),
            within: Duration::from_millis(50),
            halt: None,
            down: Duration::from_millis(draw.pick(&[20, 300, 2_000, 12_000, 45_000])),
            unsynced: draw.pick(&[Unsynced::Lost, Unsynced::Kept, Unsynced::Torn]),
            reboot: draw.one_in(3),
            failing_reads: draw.pick(&[0, 0, 0, 1, 3]),
        };
        match draw.below(6) {
            0 => draw.act(at, Act::Drain),
            // At a step of the journal.
            1 | 2 => {
                let batches = u32::try_from(draw.below(4)).unwrap_or(0);
                let halt = Some(Halt { batches, acknowledged: draw.one_in(2), behind: false });
                let within = Duration::from_secs(10);
                draw.act(at, Act::Crash(Crash { after: u64::MAX, within, halt, ..crash }));
            }
            _ => draw.act(at, Act::Crash(crash)),
        }
    }
}

/// Whether an act goes on without a server.
#[must_use]
pub const fn is_of_phone(act: &Act) -> bool {
    matches!(act, Act::Call { .. } | Act::Change { .. } | Act::HangUp { .. })
}

fn panics(draw: &mut Draw, accounts: usize, within_ms: u64) {
    for _ in 0..1 + draw.below(4) {
        let account = usize::try_from(draw.below(accounts as u64)).unwrap_or(0);
        let (at, pick) = (draw.moment(within_ms), draw.below(8));
        let point = draw.pick(&[FaultPoint::Received, FaultPoint::Decided, FaultPoint::Done]);
        let act = match draw.below(10) {
            0..=3 => Act::PanicAccount { account, point },
            4..=7 => Act::PanicCall { account, pick, point },
            8 => Act::PanicTrunk(usize::from(draw.one_in(2))),
            _ => Act::PanicSupervisor { account },
        };
        draw.act(at, act);
    }
}

/// Three panics by chance may meet the same settlement: then it waits until that is tried again (D20).
fn await_poisoned(draw: &mut Draw, accounts: usize) {
    for of in 0..accounts {
        let is_its = |act: &Act| matches!(act, Act::PanicAccount { account, .. } if *account == of);
        let panics: Vec<_> = draw.acts.iter().filter(|(_, act)| is_its(act)).map(|((at, _), _)| *at).collect();
        if let [_, _, .., last] = panics[..] {
            draw.until = draw.until.max(last + poison::STRUCK + poison::TRIED_AGAIN);
        }
    }
}

fn disk_faults(draw: &mut Draw, within_ms: u64) {
    for _ in 0..1 + draw.below(5) {
        let at = draw.moment(within_ms);
        let few = 1 + u32::try_from(draw.below(3)).unwrap_or(0);
        let act = match draw.below(3) {
            0 => Act::Stall(Duration::from_millis(draw.pick(&[50, 600, 2_500, 7_000]))),
            1 => Act::FailBatches(few),
            _ => Act::FailReads(few),
        };
        draw.act(at, act);
    }
}

fn cut_offs(draw: &mut Draw, phones: usize, within_ms: u64) {
    for _ in 0..1 + draw.below(3) {
        let at = draw.moment(within_ms);
        let phone = draw.one_in(2).then(|| usize::try_from(draw.below(phones as u64)).unwrap_or(0));
        let carrier = usize::from(draw.one_in(2));
        let lasts = Duration::from_millis(draw.pick(&[500, 4_000, 15_000, 40_000]));
        let cut = draw.pick(&[Cut::Whole, Cut::Deaf, Cut::Mute]);
        draw.act(at, Act::CutOff { phone, carrier, cut, lasts });
        if draw.one_in(2) {
            let at = draw.moment(within_ms);
            draw.act(at, Act::Reset { phone, carrier });
        }
    }
}

fn settings_of_the_clock(draw: &mut Draw, within_ms: u64) {
    const HOUR_US: i64 = 3_600_000_000;
    for _ in 0..1 + draw.below(3) {
        let at = draw.moment(within_ms);
        let by = draw.pick(&[HOUR_US, -HOUR_US, 30_000_000, -30_000_000, -2_000_000_000_000_000]);
        draw.act(at, Act::SetClock(by));
    }
}

fn weather(draw: &mut Draw) -> Weather {
    Weather {
        lost: draw.pick(&[0, 0, 20, 100]),
        twice: draw.pick(&[0, 20, 200]),
        late: draw.pick(&[0, 0, 20]),
        least_ms: draw.pick(&[1, 5, 40]),
        spread_ms: draw.pick(&[0, 3, 30]),
        late_ms: 2_000,
    }
}

fn retail(draw: &mut Draw) -> RateTerms {
    // Per minute in thousandths, connect fee in cents, first and further steps, grace.
    let terms = [
        (600, 0, 0, 1, 0),
        (600, 0, 0, 1, 0),
        (600, 0, 30, 6, 0),
        (600, 2, 0, 1, 3),
        (300, 0, 60, 60, 0),
        (317, 0, 0, 1, 0),
    ];
    let (thousandths, cents, minimum_s, increment_s, grace_s) = draw.pick(&terms);
    RateTerms {
        per_minute: NanosPerMinute(thousandths * 1_000_000),
        connect_fee: Micros(cents * 10_000),
        minimum_s,
        increment_s,
        grace_s,
    }
}

/// The end of a plan: all faults are over, everyone hangs up, and a last call shows that everything works.
fn recover(draw: &mut Draw, sentinel: usize) -> Mono {
    let heal = draw.until + Duration::from_secs(60);
    draw.act(heal, Act::Heal);
    draw.act(heal + Duration::from_secs(50), Act::HangUpAll);
    let call = heal + Duration::from_secs(80);
    let number = number(sentinel, 0, 0);
    draw.act(call, Act::Call { phone: sentinel, call: 0, number });
    draw.act(call + Duration::from_millis(7_500), Act::HangUp { phone: sentinel, call: 0 });
    // And every other account can be topped up and call. One after the other: few may be let in.
    for phone in 0..sentinel {
        let at = call + Duration::from_secs(10 + 8 * phone as u64);
        draw.act(at, Act::TopUp { account: phone, amount: Micros(5_000_000), key: AGAIN.to_owned() });
        let number = self::number(phone, LAST_CALL, 0);
        draw.act(at + Duration::from_secs(1), Act::Call { phone, call: LAST_CALL, number });
        draw.act(at + Duration::from_secs(6), Act::HangUp { phone, call: LAST_CALL });
    }
    heal + DRAIN
}
