//! Random calls: whatever is told in whatever order, each call asks one thing at a time and ends once.

use crate::account::authorize::Authorized;
use crate::account::failover::NextAttempt;
use crate::account::settle::{Renewed, Settled};
use crate::call::protocol::{Input, Reply};
use proptest::prelude::*;
use schema::call::{Refusal, RefusalCode};
use schema::leg::{EndCause, HangupCause, LegEvent};
use schema::time::Mono;
use std::time::Duration;

use super::phone::*;

#[derive(Debug, Clone)]
enum Told {
    Progress(u8),
    Answered(u8),
    Failed(u8, u16),
    Ended(bool, u8),
    Cancelled,
    Keep,
    HangUp,
    Funds,
    TimeOut,
    Wait(u64),
    /// 0: unknown; 1: no; else yes.
    Reply(u8),
}

fn told() -> impl Strategy<Value = Told> {
    let attempt = 1..5_u8;
    let status = prop::sample::select(vec![302_u16, 404, 408, 486, 487, 500, 503, 603]);
    prop_oneof![
        1 => attempt.clone().prop_map(Told::Progress),
        1 => attempt.clone().prop_map(Told::Answered),
        1 => (attempt.clone(), status).prop_map(|(a, s)| Told::Failed(a, s)),
        1 => (any::<bool>(), attempt).prop_map(|(a, n)| Told::Ended(a, n)),
        1 => Just(Told::Cancelled),
        1 => Just(Told::Keep),
        1 => Just(Told::HangUp),
        1 => Just(Told::Funds),
        3 => Just(Told::TimeOut),
        2 => (0..9_000_u64).prop_map(Told::Wait),
        6 => (0..6_u8).prop_map(Told::Reply),
    ]
}

/// The account's answer to what was asked last.
fn reply_to(asked: &str, how: u8, paid: &mut u64) -> Reply {
    if how == 0 {
        return Reply::Unknown;
    }
    if asked == "authorize?" {
        let refused = Refusal { code: RefusalCode::NoRoute, message: String::new() };
        return Reply::Authorized(if how == 1 {
            Authorized::Refused(refused)
        } else {
            Authorized::Granted(Box::new(grant(1, *paid, 120)))
        });
    }
    if let Some(rest) = asked.strip_prefix("next after ") {
        let failed = rest.split(' ').next().and_then(|n| n.parse::<u8>().ok()).unwrap_or(1);
        let refused = Refusal { code: RefusalCode::CallerIdUnverified, message: String::new() };
        return Reply::NextAttempt(match how {
            1 => NextAttempt::NoRoute,
            2 => NextAttempt::Refused(refused),
            _ => NextAttempt::Granted(Box::new(grant(failed + 1, *paid, 120))),
        });
    }
    if asked == "answer?" {
        return Reply::Answered((how != 1).then(|| funding(*paid, *paid, 120, 0)));
    }
    if let Some(rest) = asked.strip_prefix("renew ") {
        let step = rest.trim_end_matches('?').parse().unwrap_or(1);
        if how == 1 {
            return Reply::Renewed(Renewed::NotAffordable);
        }
        *paid += 20;
        return Reply::Renewed(Renewed::Paid(funding(*paid, 20, 120, step)));
    }
    Reply::Settled(if how == 1 { Settled::NotLive } else { Settled::Done(Box::new(ended_call())) })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
    #[test]
    fn every_call_asks_one_thing_at_a_time_and_ends_once(inputs in proptest::collection::vec(told(), 1..60)) {
        let mut phone = start();
        let mut paid = 20;
        let mut talking_since: Option<Mono> = None;
        let outstanding = |log: &[String]| log.iter().filter(|l| l.ends_with('?')).count();
        let (mut answered, mut replies) = (0, 0);
        let drain = inputs.len();
        // After the random part every question is answered and every timer fires, so that each call comes to its end.
        for step in inputs.into_iter().chain((0..400).map(|n| if n % 2 == 0 { Told::Reply(2) } else { Told::TimeOut })).take(drain + 400) {
            if phone.core.is_over() { break; }
            let asked = phone.log.iter().rev().find(|l| l.ends_with('?')).cloned();
            let is_asking = outstanding(&phone.log) > replies;
            match step {
                Told::Progress(n) => { phone.progress(n); }
                Told::Answered(n) => { phone.answered(n); }
                Told::Failed(n, status) => { phone.failed(n, status); }
                Told::Ended(true, _) => { phone.leg(LegEvent::Ended { leg: a(), cause: EndCause::Bye { q850: None } }); }
                Told::Ended(false, n) => { phone.leg(LegEvent::Ended { leg: b(n), cause: EndCause::Lost }); }
                Told::Cancelled => { phone.leg(LegEvent::Cancelled { leg: a() }); }
                Told::Keep => { phone.leg(LegEvent::Checkpointed { leg: a(), checkpoint: checkpoint() }); }
                Told::HangUp => { phone.on(Input::HangUp(HangupCause::Requested)); }
                Told::Funds => { phone.on(Input::FundsChanged); }
                Told::Wait(ms) if phone.due_in_ms().is_none_or(|due| u128::from(ms) < due) && !is_asking => { phone.wait(ms); }
                Told::Wait(_) => {}
                Told::TimeOut => if phone.core.next_timer().is_some() { phone.time_out(); },
                Told::Reply(how) => if is_asking {
                    let reply = reply_to(&asked.expect("asked"), how, &mut paid);
                    replies += 1;
                    phone.reply(reply);
                },
            }
            prop_assert!(outstanding(&phone.log) <= replies + 1, "one question at a time: {:?}", phone.log);
            let accepted = phone.log.iter().filter(|l| *l == "accept a").count();
            prop_assert!(accepted <= 1);
            if accepted > answered { answered = accepted; talking_since = Some(phone.now.mono); }
            // C2: while it talks it is within what is paid.
            if let Some(since) = talking_since
                && !phone.core.is_ending()
            {
                prop_assert!(phone.now.mono.since(since) <= Duration::from_secs(paid.min(120)));
            }
        }
        prop_assert!(phone.core.is_over(), "{:?}", phone.log);
        prop_assert_eq!(phone.log.iter().filter(|l| *l == "finish").count(), 1);
        // C1: no INVITE before a grant. C4: every leg that was invited was answered and ended, or failed, or was hung up.
        let first_invite = phone.log.iter().position(|l| l.starts_with("invite"));
        prop_assert!(first_invite.is_none_or(|at| at > 0 && phone.log[0] == "authorize?"));
        if answered == 1 {
            prop_assert!(phone.log.iter().any(|l| l.starts_with("hang up")));
            prop_assert!(phone.log.iter().any(|l| l == "settle?"));
        }
    }
}
