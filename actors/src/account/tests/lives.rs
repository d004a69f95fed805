//! Random lives of an account: the invariants hold after every step.

use crate::account::core::terms;
use crate::account::settle::{CallEnd, Renewed};
use proptest::prelude::*;
use schema::call::LegSide;
use schema::money::Micros;
use std::collections::BTreeSet;

use super::MOBILE;
use super::world::*;

#[derive(Debug, Clone)]
enum Step {
    Authorize(u32),
    Answer(u32),
    Renew(u32),
    End {
        call: u32,
        cut: bool,
        late: bool,
        known: bool,
    },
    Credit {
        amount: i64,
        key: u8,
    },
    Warn,
    Pass(u64),
    /// The process is killed: everything not in the rows is gone.
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let call = 0..8_u32;
    let step = prop_oneof![
        3 => call.clone().prop_map(Step::Authorize),
        3 => call.clone().prop_map(Step::Answer),
        4 => call.clone().prop_map(Step::Renew),
        2 => (call, any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(call, cut, late, known)| Step::End { call, cut, late: late && !cut, known }),
        1 => (-300_000..900_000_i64, 0..6_u8).prop_map(|(amount, key)| Step::Credit { amount, key }),
        1 => Just(Step::Warn),
        3 => (0..70_000_u64).prop_map(Step::Pass),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..80)
}

fn take(w: &mut World, step: Step, credited: &mut i64) {
    match step {
        Step::Authorize(call) => {
            let _ = w.authorize(&w.request(call, MOBILE));
        }
        Step::Answer(call) => {
            w.answer(call);
        }
        Step::Renew(call) => {
            w.renew(call);
        }
        Step::End { call, cut, late, known } => {
            let end = CallEnd { at: known.then_some(w.now), cut, late_answer: late, ..hung_up(w.now) };
            w.settle(call, &end);
        }
        Step::Credit { amount, key } => {
            if w.credit(amount, &key.to_string(), key) == Ok(false) {
                *credited += amount;
            }
        }
        Step::Warn => {
            let draft = w.core.warn(w.now);
            w.write(draft);
        }
        Step::Pass(ms) => w.pass(ms),
        Step::Crash => w.core = w.rows.load(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn the_invariants_hold_in_every_life_of_an_account(total in 0..3_000_000_i64, steps in steps()) {
        let mut w = world(total);
        w.rows.profile.limits.calls_per_minute = 1_000;
        w.core = w.rows.load();
        let mut credited = total;
        for step in steps {
            take(&mut w, step, &mut credited);
            let (rows, figures) = (&w.rows, w.core.figures());
            // L1
            prop_assert!(!figures.available().is_negative() && !figures.held.is_negative());
            // A3: memory and rows say the same.
            prop_assert_eq!(figures, &rows.figures);
            prop_assert!(w.core.live_calls().eq(w.rows.load().live_calls()));
            // Holds: what is held is what the live calls hold, and that pays their paid seconds.
            prop_assert_eq!(figures.held, rows.live.values().map(|l| l.held).sum::<Micros>());
            prop_assert!(rows.live.values().all(|l| l.held == terms(l).price(l.paid_s)));
            // L2: posted money is what was credited less what was charged; charges never exceed it.
            let charged: Micros = rows.cdrs.iter().map(|c| c.charged).sum();
            prop_assert_eq!(figures.total, Micros(credited) - charged);
            prop_assert!(charged <= Micros(credited));
            // C3: one charge for each answered call that ended, none for others.
            for cdr in &rows.cdrs {
                let transfers: Vec<_> = rows.transfers.iter().filter(|t| t.call == Some(cdr.no)).collect();
                let answered = cdr.call.answered_at.is_some();
                prop_assert!(transfers.len() <= 1 && (!answered || transfers.len() == 1));
                prop_assert_eq!(transfers.iter().map(|t| t.amount).sum::<Micros>(), cdr.charged);
            }
            let numbers: BTreeSet<_> = rows.cdrs.iter().map(|c| c.no).collect();
            prop_assert_eq!(numbers.len(), rows.cdrs.len());
            let view = w.core.view(w.now);
            prop_assert!(view.balance.accrued <= view.balance.reserved);
            prop_assert!(!view.balance.remaining.is_negative());
        }
    }

    #[test]
    fn nothing_usable_is_left_over_when_all_calls_end_for_want_of_money(total in 50_000..3_000_000_i64, calls in 1..6_u32) {
        let mut w = world(total);
        for call in 0..calls {
            let _ = w.authorize(&w.request(call, MOBILE));
        }
        for call in 0..calls {
            w.answer(call);
        }
        // Each call renews until it is refused, in turn; none ends before.
        let mut short = 0;
        while short < calls {
            short = 0;
            for call in 0..calls {
                match w.renew(call) {
                    Renewed::Paid(_) => {}
                    Renewed::NotAffordable | Renewed::LimitReached | Renewed::NotLive => short += 1,
                }
            }
        }
        prop_assert!(w.core.figures().available() < Micros(10_000), "less than one billing step");
        prop_assert_eq!(w.rows.live.values().flat_map(|l| &l.call.legs).filter(|l| l.side == LegSide::A).count(), 0);
    }
}
