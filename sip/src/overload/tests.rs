//! The rules, and the controller against a queue: calls wait in line for something that completes so many a second.

use super::*;
use proptest::prelude::*;
use schema::entropy::Entropy;
use schema::time::Timestamp;
use std::collections::VecDeque;

const MS: u64 = 1_000;

/// What lies behind the admission: a line, and a server that completes what it can, each `lump` at once as a disk does: what is in
/// line when a commit begins, at its end.
struct Model {
    overload: Overload,
    entropy: Entropy,
    line: VecDeque<(CallId, Mono)>,
    /// In the commit under way.
    committing: Vec<(CallId, Mono)>,
    /// Calls completed a second.
    capacity: u64,
    /// Between two times at which calls complete.
    lump: Duration,
    /// How long a call takes though nobody else is in line.
    latency: Duration,
    now: Mono,
    /// Parts of a call (in millionths) that are offered and completed beyond whole ones.
    offer: u64,
    credit: u64,
    /// What refusals took of it: each a fiftieth of a call.
    spent: u64,
}

/// What came of a time under load.
#[derive(Debug, Default)]
struct Seen {
    completed: u64,
    refused: u64,
    longest: Duration,
}

impl Model {
    fn new(capacity: u64, lump_ms: u64) -> Self {
        Self {
            overload: Overload::new(1_000_000, true),
            entropy: Entropy::from_number(capacity),
            line: VecDeque::new(),
            committing: Vec::new(),
            capacity,
            lump: Duration::from_millis(lump_ms),
            latency: Duration::ZERO,
            now: Mono(1_000_000_000),
            offer: 0,
            credit: 0,
            spent: 0,
        }
    }

    /// Offers `rate` calls a second for so long; arrivals are irregular. Nothing is completed while it `stalls`.
    fn run(&mut self, rate: u64, ms: u64, stalls: bool) -> Seen {
        let mut seen = Seen::default();
        for _ in 0..ms {
            self.now = Mono(self.now.0 + MS);
            // Between none and twice as many as on average.
            self.offer += rate * self.entropy.below(2_001);
            while self.offer >= 1_000_000 {
                self.offer -= 1_000_000;
                self.offered(&mut seen);
            }
            if !stalls {
                self.serve(&mut seen);
            }
        }
        seen
    }

    fn offered(&mut self, seen: &mut Seen) {
        match self.overload.admit(true, self.now) {
            Ok(()) => {
                let call = CallId::generate(&mut self.entropy, Timestamp(0));
                self.overload.asked(call, self.now);
                self.line.push_back((call, self.now));
            }
            Err(_) => {
                seen.refused += 1;
                self.spent += 1_000_000 / 50;
            }
        }
    }

    fn serve(&mut self, seen: &mut Seen) {
        let lump = u64::try_from(self.lump.as_micros()).expect("short");
        if self.now.0 % lump >= MS {
            return;
        }
        // What is not used is lost: a server does not save its time.
        let credit = self.credit % 1_000_000 + self.capacity * lump;
        self.credit = credit.saturating_sub(self.spent);
        self.spent = self.spent.saturating_sub(credit);
        for (call, since) in std::mem::take(&mut self.committing) {
            self.overload.decided(call, since, self.now);
            seen.completed += 1;
            seen.longest = seen.longest.max(self.now.since(since));
        }
        while self.credit >= 1_000_000
            && let Some(next) = self.line.pop_front_if(|(_, since)| self.now.since(*since) >= self.latency)
        {
            self.credit -= 1_000_000;
            self.committing.push(next);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn many_times_too_many_calls_keep_the_goodput_and_a_bounded_delay(
        capacity in 100_u64..5_000,
        times in 2_u64..20,
        lump_ms in prop::sample::select(vec![1_u64, 5, 20]),
    ) {
        let mut model = Model::new(capacity, lump_ms);
        let quiet = model.run(capacity * 6 / 10, 3_000, false);
        prop_assert_eq!(quiet.refused, 0, "what can be carried is let in");
        // A step without any warning: what came in until it was noticed has to be carried.
        // It takes as long as the longest wait, and the wave behind it a second more.
        // What it may carry is less by what refusals take.
        let carried = (300 * times + 200) * 50 / (50 - times);
        let first = model.run(capacity * times, carried + 1_000, false);
        let most = |seen: &Seen, ms: u64| capacity * ms / 1_000 - seen.refused / 50;
        prop_assert!(first.completed >= most(&first, carried + 1_000) * 8 / 10, "{:?}", first);
        prop_assert!(first.longest <= Duration::from_millis(carried), "{:?}", first);
        // From then on.
        let then = model.run(capacity * times, 10_000, false);
        let (percent, bearable) = if lump_ms < 20 { (90, 170) } else { (80, 400) };
        prop_assert!(then.completed >= most(&then, 10_000) * percent / 100, "{:?}", then);
        prop_assert!(then.longest <= Duration::from_millis(bearable + 4 * lump_ms), "{:?}", then);
        prop_assert!(then.refused > 0);
        // When it is over nobody is refused any more.
        model.run(capacity * 6 / 10, 3_000, false);
        let after = model.run(capacity * 6 / 10, 3_000, false);
        prop_assert_eq!(after.refused, 0);
        prop_assert!(after.longest <= Duration::from_millis(50 + 4 * lump_ms), "{:?}", after);
    }
}

#[test]
fn a_slow_disk_is_not_taken_for_a_queue() {
    // Each call waits for one commit and a part of another.
    for (lump_ms, completed) in [(60, 5_700), (100, 5_400), (200, 4_200)] {
        let mut model = Model::new(2_000, lump_ms);
        model.run(300, 10_000, false);
        let then = model.run(300, 20_000, false);
        assert!(then.completed >= completed, "{lump_ms} ms: {then:?}");
    }
    for latency_ms in [60, 200, 350] {
        let mut model = Model { latency: Duration::from_millis(latency_ms), ..Model::new(2_000, 1) };
        model.run(300, 10_000, false);
        let then = model.run(300, 20_000, false);
        assert!(then.completed >= 4_800, "{latency_ms} ms: {then:?}");
        // Nor does it hide one.
        model.run(20_000, 10_000, false);
        let over = model.run(20_000, 10_000, false);
        assert!(over.completed >= (20_000 - over.refused / 50) * 8 / 10, "{latency_ms} ms: {over:?}");
        assert!(over.longest <= Duration::from_millis(latency_ms + 800), "{latency_ms} ms: {over:?}");
    }
}

#[test]
fn a_disk_that_becomes_slow_in_a_flood_carries_what_it_can_again() {
    let mut model = Model::new(2_000, 1);
    model.run(600, 5_000, false);
    model.run(20_000, 5_000, false);
    model.lump = Duration::from_millis(100);
    model.run(20_000, 10_000, false);
    let slow = model.run(20_000, 10_000, false);
    assert!(slow.completed >= 5_000, "{slow:?}");
}

#[test]
fn after_a_stall_calls_are_let_in_again_within_two_seconds() {
    let mut model = Model::new(1_000, 1);
    assert_eq!(model.run(600, 3_000, false).refused, 0);
    let stalled = model.run(600, 5_000, true);
    assert!(stalled.refused > 2_000 && model.line.len() < 600, "{stalled:?}, {} wait", model.line.len());
    model.run(600, 2_000, false);
    let after = model.run(600, 3_000, false);
    assert!(after.refused == 0 && after.longest < Duration::from_millis(50), "{after:?}");
}

#[test]
fn one_slow_account_is_not_the_nodes_concern() {
    let mut overload = Overload::new(1_000, true);
    let mut entropy = Entropy::from_number(1);
    let at = |ms: u64| Mono(1_000_000_000 + ms * MS);
    for n in 0..30 {
        // Seven wait for ever; others are decided about at once.
        if n < 7 {
            overload.asked(CallId::generate(&mut entropy, Timestamp(0)), at(n));
        }
        let (quick, now) = (CallId::generate(&mut entropy, Timestamp(0)), at(100 * n + 50));
        assert_eq!(overload.admit(true, now), Ok(()));
        overload.asked(quick, now);
        overload.decided(quick, now, now);
    }
    for n in 30..60 {
        assert_eq!(overload.admit(true, at(100 * n)), Ok(()), "seven are no queue");
    }
    for n in 6_000..6_007 {
        overload.asked(CallId::generate(&mut entropy, Timestamp(0)), at(n));
    }
    assert_eq!(overload.admit(true, at(6_250)), Ok(()), "nor seven more: the others were overtaken");
    overload.asked(CallId::generate(&mut entropy, Timestamp(0)), at(6_250));
    overload.admit(true, at(6_300)).expect("not noticed yet");
    overload.admit(true, at(6_450)).expect("few are let in");
    assert_eq!(overload.counts().limit, Some(50_000), "eight of eight in line are one");
}

#[test]
fn calls_that_wait_for_something_else_take_no_room() {
    let stuck = |model: &mut Model, calls: usize| {
        for _ in 0..calls {
            let call = CallId::generate(&mut model.entropy, Timestamp(0));
            model.overload.asked(call, model.now);
        }
    };
    // While more come than can be carried,
    let mut model = Model::new(400, 1);
    model.run(4_000, 5_000, false);
    stuck(&mut model, 60);
    model.run(4_000, 2_000, false);
    let then = model.run(4_000, 5_000, false);
    assert!(then.completed >= (2_000 - then.refused / 50) * 9 / 10, "{then:?}");
    assert!(then.longest <= Duration::from_millis(150), "{then:?}");
    // and where few do.
    for calls in [16, 256] {
        let mut model = Model::new(400, 1);
        model.run(5, 2_000, false);
        stuck(&mut model, calls);
        model.run(5, 3_000, false);
        let then = model.run(5, 5_000, false);
        assert!(then.completed >= 20 && then.refused == 0, "{calls}: {then:?}");
    }
}

#[test]
fn who_is_refused_at_once_does_not_hide_a_queue() {
    let mut model = Model::new(1_000, 1);
    let quick = |model: &mut Model, ms: u64| {
        let mut all = Seen::default();
        for _ in 0..ms / 10 {
            let call = CallId::generate(&mut model.entropy, Timestamp(0));
            model.overload.asked(call, model.now);
            model.overload.turned_down(call, model.now, model.now);
            let seen = model.run(8_000, 10, false);
            (all.completed, all.longest) = (all.completed + seen.completed, all.longest.max(seen.longest));
        }
        all
    };
    quick(&mut model, 5_000);
    let then = quick(&mut model, 5_000);
    assert!(then.completed >= 3_500 && then.longest <= Duration::from_millis(150), "{then:?}");
}

#[test]
fn a_disk_that_hangs_for_a_moment_costs_few_calls() {
    for (rate, most) in [(300, 40), (600, 160)] {
        let mut model = Model::new(1_000, 1);
        model.run(rate, 5_000, false);
        let stalled = model.run(rate, 400, true);
        let then = model.run(rate, 3_000, false);
        assert!(stalled.refused + then.refused <= most, "{rate}/s: {stalled:?}, {then:?}");
    }
}

#[test]
fn a_queue_before_the_edge_counts_as_one_behind_it() {
    let mut overload = Overload::new(1_000, true);
    let at = |ms: u64| Mono(1_000_000_000 + ms * MS);
    let (long, none) = (Duration::from_millis(80), Duration::ZERO);
    let mut interval = |from: u64, delays: [(Duration, Duration); 2]| {
        delays.into_iter().for_each(|(calls, others)| overload.waited(calls, others, at(from)));
        (overload.admit(true, at(from + 120)).is_ok(), overload.admit_registration(at(from + 120)).is_ok())
    };
    assert_eq!(interval(1_000, [(long, long), (none, none)]), (true, true), "it did not stand");
    assert_eq!(interval(2_000, [(none, long), (none, long)]), (true, false));
    assert_eq!(interval(3_000, [(none, none), (none, none)]), (true, true));
    let _ = interval(4_000, [(long, none), (long, none)]);
    assert_eq!(overload.counts().standing, long);
    assert_eq!(overload.counts().limit, Some(50_000), "nothing was completed");
}

#[test]
fn strangers_take_no_place_away_from_known_sources() {
    let mut overload = Overload::new(10, true);
    let (mut known, mut strangers) = (0, 0);
    for ms in 0..10_000 {
        let now = Mono(1_000_000_000 + ms * MS);
        // A thousand a second, and among them eight of customers.
        strangers += u32::from(overload.admit(false, now).is_ok());
        if ms % 125 == 0 {
            known += u32::from(overload.admit(true, now).is_ok());
        }
    }
    assert_eq!(known, 80);
    assert!((20..=30).contains(&strangers), "{strangers} had the rest");
}

#[test]
fn refusals_are_counted_by_reason_and_shown_once_a_second() {
    let mut overload = Overload::new(2, true);
    let at = |ms: u64| Mono(1_000_000_000 + ms * MS);
    let verdicts: Vec<_> = (0..4).map(|_| overload.admit(true, at(0))).collect();
    assert_eq!(verdicts, [Ok(()), Ok(()), Err(Reason::Rate), Err(Reason::Rate)]);
    assert_eq!(overload.refuse(Reason::Rate, at(0)).expect("the first is shown").rate, 1);
    for n in 0..50 {
        assert_eq!(overload.refuse(Reason::Rate, at(n * 20 - n)), None);
    }
    let shown = overload.refuse(Reason::Live, at(1_000)).expect("a second later");
    assert_eq!((shown.rate, shown.live), (50, 1));
    assert_eq!((overload.counts().rate, overload.counts().live), (51, 1));
}
