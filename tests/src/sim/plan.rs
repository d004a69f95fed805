//! What a seed chooses: accounts and their money, prices, the weather, and what is done to the world when.

use super::network::Weather;
use schema::entropy::Entropy;
use schema::money::{Micros, NanosPerMinute};
use schema::rate::RateTerms;
use schema::time::Mono;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use storage::memory::Unsynced;

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
    /// The disk acknowledges what it does not keep: the control experiment.
    pub lies: bool,
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
}

/// Something done to the world. Accounts, phones and carriers are named by their place in the plan.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each field is what its name says")]
pub enum Act {
    /// A phone calls a number that no other call has.
    Call { phone: usize, call: u64, number: Box<str> },
    /// A phone hangs up: CANCEL or BYE.
    HangUp { phone: usize, call: u64 },
    /// The `pick`-th live call of the account is hung up from the dashboard.
    Request { account: usize, pick: u64 },
    /// Money comes in. The same key may come again.
    TopUp { account: usize, amount: Micros, key: String },
    /// The account's actor panics.
    PanicAccount { account: usize },
    /// The actor of its `pick`-th live call panics.
    PanicCall { account: usize, pick: u64 },
    /// The next journal batch takes so much longer.
    Stall(Duration),
    /// So many journal batches fail.
    FailBatches(u32),
    /// So many reads and other writes fail.
    FailReads(u32),
    /// A carrier, or a phone, cannot be reached for a while.
    CutOff { phone: Option<usize>, carrier: usize, lasts: Duration },
    /// The process dies and another one starts later.
    Crash(Crash),
    /// All faults end, all phones hang up and leave.
    Heal,
    /// All live calls are hung up from the dashboard.
    HangUpAll,
}

/// How a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crash {
    /// So many datagrams and commands later,
    pub after: u64,
    /// or when this time is over.
    pub within: Duration,
    /// For how long there is no process.
    pub down: Duration,
    /// What becomes of a batch that was being written.
    pub unsynced: Unsynced,
    /// The machine boots: the monotonic clock begins anew.
    pub reboot: bool,
    /// So many reads of the next process fail, as soon as it has started.
    pub failing_reads: u32,
}

struct Draw {
    entropy: Entropy,
    acts: BTreeMap<(Mono, usize), Act>,
    /// When the last of them is done.
    until: Mono,
}

impl Draw {
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
    /// One account in fair weather, and what is done from the beginning on; then everything is well again.
    #[must_use]
    pub fn of_acts(opening: Micros, sync: Duration, acts: &[(Duration, Act)]) -> Self {
        let mut draw = Draw { entropy: Entropy::from_number(0), acts: BTreeMap::new(), until: BEGIN };
        acts.iter().for_each(|(after, act)| draw.act(BEGIN + *after, act.clone()));
        let end = recover(&mut draw, 1);
        let account = AccountPlan { opening, live_calls: 5, call_seconds: 7_200, registers: true };
        Self {
            accounts: vec![account, SENTINEL],
            retail: PER_SECOND,
            trunks: [(100, 100); 2],
            weather: Weather::FAIR,
            sync,
            lies: false,
            acts: draw.acts.into_iter().map(|((at, _), act)| (at, act)).collect(),
            end,
        }
    }

    /// The plan of a seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let entropy = Entropy::from_number(seed);
        let mut draw = Draw { entropy, acts: BTreeMap::new(), until: BEGIN };
        let within_ms = 20_000 + draw.below(70_000);
        let count = 1 + usize::try_from(draw.below(3)).unwrap_or(0);
        let mut accounts: Vec<_> = (0..count).map(|_| account(&mut draw)).collect();
        for phone in 0..count {
            calls(&mut draw, phone, within_ms);
            top_ups(&mut draw, phone, within_ms);
        }
        let faults = draw.below(16);
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
        let (weather, retail) = (weather(&mut draw), retail(&mut draw));
        let trunks = [(draw.pick(&[1, 2, 100]), draw.pick(&[1, 100])), (100, 100)];
        // Never at once: what is told before an entry is submitted has left before it is durable.
        let sync = Duration::from_millis(draw.pick(&[1, 2, 5, 20]));
        let end = recover(&mut draw, count);
        accounts.push(SENTINEL);
        let acts = draw.acts.into_iter().map(|((at, _), act)| (at, act)).collect();
        Self { accounts, retail, trunks, weather, sync, lies: false, acts, end }
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
const SENTINEL: AccountPlan =
    AccountPlan { opening: Micros(10_000_000), live_calls: 2, call_seconds: 7_200, registers: false };

fn account(draw: &mut Draw) -> AccountPlan {
    let cents = draw.pick(&[0, 1, 4, 15, 40, 100, 500]);
    AccountPlan {
        opening: Micros(cents * 10_000),
        live_calls: draw.pick(&[1, 2, 3, 5]),
        call_seconds: draw.pick(&[7_200, 7_200, 25, 90]),
        registers: draw.one_in(2),
    }
}

/// The last two digits say what the test carrier does.
fn behaviour(draw: &mut Draw) -> u64 {
    let first = draw.pick(&[0, 0, 0, 20, 40, 50, 60, 70, 80, 80, 90, 95]);
    if first == 80 { 80 + draw.below(10) } else { first }
}

fn calls(draw: &mut Draw, phone: usize, within_ms: u64) {
    for call in 0..1 + draw.below(4) {
        let digits = behaviour(draw);
        let number = format!("+4477{:06}{digits:02}", phone as u64 * 1_000 + call).into_boxed_str();
        let at = draw.moment(within_ms);
        draw.act(at, Act::Call { phone, call, number });
        let talk_ms = draw.pick(&[300, 3_000, 30_000, 100_000]);
        if !draw.one_in(3) {
            let at = at + Duration::from_millis(draw.below(talk_ms));
            draw.act(at, Act::HangUp { phone, call });
        }
        if draw.one_in(6) {
            let (at, pick) = (at + Duration::from_millis(draw.below(talk_ms)), draw.below(8));
            draw.act(at, Act::Request { account: phone, pick });
        }
    }
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
            down: Duration::from_millis(draw.pick(&[20, 300, 2_000, 12_000, 45_000])),
            unsynced: draw.pick(&[Unsynced::Lost, Unsynced::Kept]),
            reboot: draw.one_in(3),
            failing_reads: draw.pick(&[0, 0, 0, 1, 3]),
        };
        draw.act(at, Act::Crash(crash));
    }
}

/// Whether an act goes on without a server.
#[must_use]
pub const fn is_of_phone(act: &Act) -> bool {
    matches!(act, Act::Call { .. } | Act::HangUp { .. })
}

fn panics(draw: &mut Draw, accounts: usize, within_ms: u64) {
    for _ in 0..1 + draw.below(4) {
        let account = usize::try_from(draw.below(accounts as u64)).unwrap_or(0);
        let (at, pick) = (draw.moment(within_ms), draw.below(8));
        let act = if draw.one_in(2) { Act::PanicAccount { account } } else { Act::PanicCall { account, pick } };
        draw.act(at, act);
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
        draw.act(at, Act::CutOff { phone, carrier, lasts });
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
    // Per minute in tenths, connect fee in cents, first and further steps, grace.
    let terms = [(6, 0, 0, 1, 0), (6, 0, 0, 1, 0), (6, 0, 30, 6, 0), (6, 2, 0, 1, 3), (3, 0, 60, 60, 0)];
    let (tenths, cents, minimum_s, increment_s, grace_s) = draw.pick(&terms);
    RateTerms {
        per_minute: NanosPerMinute(tenths * 100_000_000),
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
    let number = format!("+4477{:06}00", sentinel as u64 * 1_000).into_boxed_str();
    draw.act(call, Act::Call { phone: sentinel, call: 0, number });
    draw.act(call + Duration::from_millis(7_500), Act::HangUp { phone: sentinel, call: 0 });
    heal + DRAIN
}
