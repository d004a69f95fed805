//! The account's rules: tables for each rung of the ladder and each kind of end.

mod lives;
mod world;

use super::authorize::{CallRequest, QuoteRequest};
use super::caller_id::CallerChoice;
use super::core::Market;
use super::failover::{AttemptFailed, NextAttempt};
use super::ledger::CreditRefused;
use super::settle::{CallEnd, Renewed};
use schema::account::{AccountStatus, CallerId, Limits};
use schema::call::{CallState, LegSide, RefusalCode};
use schema::carrier::{Gateway, GatewayTransport, TrunkDown, TrunkState};
use schema::event::EventBody;
use schema::id::TrunkId;
use schema::journal::Change;
use schema::leg::{CallerIdWish, Dialogs};
use schema::money::{Micros, NanosPerMinute};
use schema::number::E164;
use schema::pii::Pii;
use schema::target::{Server, Targets};
use schema::time::{BootId, Mono, Now};
use std::time::Duration;
use uuid::Uuid;

use world::*;

const MOBILE: &str = "07700900123";

#[test]
fn a_call_is_held_answered_renewed_and_charged_once() {
    let mut w = world(10_000_000);
    let grant = w.authorize(&w.request(1, MOBILE)).expect("granted");
    assert_eq!((grant.funding.paid_s, w.core.figures().held), (60, Micros(600_000)));
    assert_eq!(grant.destination.as_str(), "+447700900123");
    assert_eq!(grant.attempt.carrier, "carrier 1");
    w.pass(5_000);
    assert!(w.answer(1));
    w.pass(40_000);
    assert!(matches!(w.renew(1), Renewed::Paid(f) if f.paid_s == 120));
    w.pass(30_400);
    let view = w.core.view(w.now);
    assert_eq!((view.balance.accrued, view.balance.remaining), (Micros(710_000), Micros(9_290_000)));
    assert_eq!(view.live_calls[0].cost, Micros(710_000));
    let call = w.settle(1, &hung_up(w.now)).expect("settled");
    assert_eq!((call.cost, call.billed_seconds, call.state), (Micros(710_000), 71, CallState::Ended));
    assert_eq!((w.core.figures().total, w.core.figures().held), (Micros(9_290_000), Micros(0)));
    let transfer = &w.rows.transfers[0];
    assert_eq!(
        (w.rows.transfers.len(), transfer.amount, transfer.customer_delta()),
        (1, Micros(710_000), Micros(-710_000))
    );
    assert_eq!(transfer.carrier_cost.map(|c| c.amount), Some(Micros(355_000)));
    assert_eq!((w.rows.cdrs.len(), w.rows.cdrs[0].talk_ms), (1, 70_400));
    assert!(w.settle(1, &hung_up(w.now)).is_none(), "c3: settled once");
    assert_eq!(w.rows.transfers.len(), 1);
}

#[test]
fn an_answered_call_costs_three_entries_and_ten_rows() {
    let mut w = world(10_000_000);
    let seq = w.core.seq();
    w.authorize(&w.request(1, MOBILE)).expect("granted");
    w.answer(1);
    w.pass(10_000);
    w.settle(1, &hung_up(w.now));
    assert_eq!((w.core.seq().0 - seq.0, w.rows.row_writes), (3, 10));
}

#[test]
fn dialogs_are_written_when_they_change_and_a_renewal_does_not_write_them() {
    let mut w = world(10_000_000);
    w.authorize(&w.request(1, MOBILE)).expect("granted");
    let of = |a: bool, b: bool| {
        let leg = |there: bool| there.then(checkpoint);
        Some(Dialogs { a_leg: leg(a), b_leg: leg(b), answer_sdp: None })
    };
    assert_eq!(w.rows.dialogs.values().next().cloned(), of(true, false));
    w.answer(1);
    assert_eq!(w.rows.dialogs.values().next().cloned(), of(true, true));
    w.pass(40_000);
    let is_dialogs = |change: &Change| matches!(change, Change::DialogsChanged(..));
    let (_, renewal) = w.core.renew(call_id(1), 1, Some(w.now), w.now);
    assert!(!renewal.expect("decided").entry.changes.iter().any(is_dialogs));
    let session = w.core.checkpoint(call_id(1), LegSide::B, &checkpoint(), w.now).expect("decided").entry;
    assert_eq!((session.changes.len(), session.changes.iter().all(is_dialogs)), (1, true), "the state stays as it is");
    assert_eq!(session.row_writes(), 2, "its own and the call's");
}

#[test]
fn each_rung_of_the_ladder_refuses_with_its_reason_and_a_record() {
    type Change = fn(&mut World, &mut CallRequest);
    let cases: [(&str, Change, RefusalCode); 17] = [
        (MOBILE, |w, _| w.rows.figures.status = AccountStatus::Suspended, RefusalCode::AccountNotActive),
        (MOBILE, |w, _| w.rows.figures.status = AccountStatus::Pending, RefusalCode::AccountNotActive),
        (MOBILE, |w, _| w.rows.caller_ids.clear(), RefusalCode::CallerIdMissing),
        (
            MOBILE,
            |_, r| r.caller_id = CallerChoice::Wanted(CallerIdWish::From(Pii::new("+447700900002".into()))),
            RefusalCode::CallerIdUnverified,
        ),
        ("999", |_, _| {}, RefusalCode::EmergencyNotSupported),
        ("112", |w, _| w.rows.figures.status = AccountStatus::Suspended, RefusalCode::EmergencyNotSupported),
        ("+112", |w, _| w.rows.caller_ids.clear(), RefusalCode::EmergencyNotSupported),
        ("+449098790123", |_, _| {}, RefusalCode::DestinationNotPermitted),
        ("alice", |_, _| {}, RefusalCode::DestinationInvalid),
        (MOBILE, |w, _| w.rows.profile.limits.live_calls = 0, RefusalCode::TooManyCalls),
        (MOBILE, |w, _| w.rows.profile.limits.calls_per_minute = 0, RefusalCode::TooFast),
        ("+12125550123", |_, _| {}, RefusalCode::NoRate),
        (
            MOBILE,
            |w, _| w.rows.profile.limits.rate_per_minute = Some(NanosPerMinute(599_999_999)),
            RefusalCode::DestinationNotPermitted,
        ),
        ("+4930123456", |_, _| {}, RefusalCode::NoRoute),
        (
            MOBILE,
            |w, _| w.trunks.values_mut().for_each(|t| t.state = TrunkState::down(TrunkDown::Silent)),
            RefusalCode::Unavailable,
        ),
        (MOBILE, |w, _| w.trunks.values_mut().for_each(|t| t.free_channels = 0), RefusalCode::Unavailable),
        (MOBILE, |w, _| w.rows.figures.total = Micros(9_999), RefusalCode::InsufficientBalance),
    ];
    for (dialled, change, expected) in cases {
        let mut w = world(10_000_000);
        let mut request = w.request(1, dialled);
        change(&mut w, &mut request);
        w.core = w.rows.load();
        assert_eq!(w.authorize(&request).err(), Some(expected), "{dialled}");
        let record = &w.rows.cdrs[0].call;
        assert_eq!((record.state, w.rows.figures.held), (CallState::Refused, Micros(0)));
        assert_eq!(record.explanation.refusal.as_ref().map(|r| r.code), Some(expected));
        assert_eq!(record.presented_number, None);
        let quote_request = QuoteRequest { destination: request.dialled.clone(), caller_id: None, withhold: false };
        let market = Market { tariffs: &w.tariffs, trunks: &w.trunks };
        if matches!(request.caller_id, CallerChoice::Default) {
            let quote = w.core.quote(&quote_request, &market, w.now);
            assert_eq!(quote.explanation.refusal.map(|r| r.code), Some(expected), "a quote says the same");
        }
    }
}

#[test]
fn after_a_boot_with_a_clock_that_is_ahead_a_call_costs_at_most_what_was_paid() {
    let mut w = world(10_000_000);
    w.authorize(&w.request(1, MOBILE)).expect("granted");
    assert!(w.answer(1));
    w.core = w.rows.load_in(BootId(99));
    let hours = std::time::Duration::from_secs(7_200);
    w.now = Now { mono: Mono(1_000_000), wall: w.now.wall + hours };
    let call = w.settle(1, &hung_up(w.now)).expect("settled");
    assert_eq!((call.billed_seconds, call.cost), (60, Micros(600_000)));
    assert_eq!((w.rows.cdrs[0].talk_ms, w.rows.cdrs[0].loss), (60_000, Micros(0)));
    // Nor when its end is unknown and the last proof that it was up is of that clock.
    w.authorize(&w.request(2, MOBILE)).expect("granted");
    assert!(w.answer(2));
    w.core = w.rows.load_in(BootId(100));
    w.now = Now { mono: Mono(1_000_000), wall: w.now.wall + hours };
    assert!(matches!(w.renew(2), Renewed::Paid(f) if f.paid_s == 120));
    let call = w.settle(2, &CallEnd { at: None, ..hung_up(w.now) }).expect("settled");
    assert_eq!((call.billed_seconds, call.cost), (120, Micros(1_200_000)));
}

#[test]
fn a_phone_that_dials_without_end_leaves_so_many_refusals_a_minute() {
    type Change = fn(&mut World);
    let cases: [(Change, RefusalCode); 3] = [
        (|w| w.rows.caller_ids.clear(), RefusalCode::CallerIdMissing),
        (|w| w.rows.figures.total = Micros(0), RefusalCode::InsufficientBalance),
        (
            |w| {
                let limits = &mut w.rows.profile.limits;
                (limits.live_calls, limits.calls_per_minute) = (1_000, 2);
            },
            RefusalCode::TooFast,
        ),
    ];
    for (change, expected) in cases {
        let mut w = world(10_000_000);
        change(&mut w);
        w.core = w.rows.load();
        let redial = |w: &mut World, calls: std::ops::Range<u32>| {
            let answers = calls.map(|call| w.authorize(&w.request(call, MOBILE)).err()).collect::<Vec<_>>();
            assert!(answers.contains(&Some(expected)) && answers.last().is_some_and(Option::is_some), "{expected:?}");
            w.rows.cdrs.len()
        };
        let recorded = w.rows.profile.limits.calls_per_minute.max(10) as usize;
        let records = redial(&mut w, 0..200);
        assert!((1..=recorded).contains(&records), "{expected:?}: {records} of 200");
        w.pass(62_000);
        assert!(redial(&mut w, 200..400) > records, "{expected:?}: and so again a minute later");
    }
}

#[test]
fn standing_is_asked_before_the_number_and_the_number_before_the_money() {
    let mut w = world(0);
    w.rows.figures.status = AccountStatus::Closed;
    w.core = w.rows.load();
    assert_eq!(w.authorize(&w.request(1, "12")).err(), Some(RefusalCode::AccountNotActive));
    assert_eq!(
        w.authorize(&w.request(2, "999")).err(),
        Some(RefusalCode::EmergencyNotSupported),
        "who needs help is told"
    );
    let mut w = world(0);
    assert_eq!(w.authorize(&w.request(1, "12")).err(), Some(RefusalCode::DestinationInvalid));
    assert_eq!(w.authorize(&w.request(2, MOBILE)).err(), Some(RefusalCode::InsufficientBalance));
}

#[test]
fn limits_count_live_calls_and_calls_per_minute() {
    let mut w = world(100_000_000);
    w.rows.profile.limits = Limits { live_calls: 2, calls_per_minute: 3, call_seconds: 7_200, rate_per_minute: None };
    w.core = w.rows.load();
    assert!(w.authorize(&w.request(1, MOBILE)).is_ok());
    assert!(w.authorize(&w.request(2, MOBILE)).is_ok());
    assert_eq!(w.authorize(&w.request(3, MOBILE)).err(), Some(RefusalCode::TooManyCalls));
    w.settle(1, &hung_up(w.now));
    assert_eq!(w.authorize(&w.request(4, MOBILE)).err(), Some(RefusalCode::TooFast));
    w.pass(61_000);
    assert!(w.authorize(&w.request(5, MOBILE)).is_ok());
}

#[test]
fn a_question_asked_twice_changes_nothing() {
    let mut w = world(10_000_000);
    let request = w.request(1, MOBILE);
    let first = w.authorize(&request).expect("granted");
    let seq = w.core.seq();
    assert_eq!(w.authorize(&request).expect("granted").no, first.no);
    w.answer(1);
    assert!(w.answer(1));
    let before = w.core.seq();
    assert_eq!(before, seq.next());
    assert!(matches!(w.renew(1), Renewed::Paid(_)));
    let (again, draft) = w.core.renew(call_id(1), 1, Some(w.now), w.now);
    assert!(matches!(again, Renewed::Paid(f) if f.paid_s == 120) && draft.is_none());
}

#[test]
fn a_call_given_up_before_its_authorization_is_never_granted() {
    let mut w = world(10_000_000);
    assert!(w.settle(1, &hung_up(w.now)).is_none());
    assert_eq!(w.authorize(&w.request(1, MOBILE)).err(), Some(RefusalCode::Unavailable));
    assert_eq!(w.core.figures().held, Micros(0));
}

/// A target of the first carrier's name.
fn target(last: u8) -> Gateway {
    Gateway { transport: GatewayTransport::Udp, address: ([192, 0, 2, last], 5060).into() }
}

/// The first carrier has a name that leads to these targets, the first preferred.
fn with_name(w: &mut World, last: &[u8]) {
    let first = &mut w.tariffs.trunks[0];
    first.gateway = "sip.example.com".parse().expect("a name");
    let server = |(rank, last): (usize, &u8)| Server { rank: rank as u16, weight: 0, gateways: vec![target(*last)] };
    let targets = Targets::new(last.iter().enumerate().map(server).collect());
    let state = TrunkState { down: None, targets: Some(targets.into()) };
    w.trunks.get_mut(&first.id).expect("known").state = state;
}

#[test]
fn the_targets_of_a_name_are_tried_one_after_the_other_and_each_is_stored_before_its_invite() {
    let next = |w: &mut World, number, sip_code| {
        let market = Market { tariffs: &w.tariffs, trunks: &w.trunks };
        let failed = AttemptFailed { number, sip_code };
        let (next, draft) = w.core.next_attempt(call_id(1), &failed, ids(), &market, w.now);
        w.write(draft);
        // What is not in the rows is forgotten.
        w.core = w.rows.load();
        match next {
            NextAttempt::Granted(grant) => {
                let stored = w.core.live_call(call_id(1)).and_then(|live| live.attempt.clone());
                assert_eq!(stored.as_ref(), Some(&grant.attempt), "the next hop is stored");
                Some((grant.attempt.carrier, grant.attempt.gateway, grant.attempt.name.is_some()))
            }
            NextAttempt::NoRoute | NextAttempt::Refused(_) | NextAttempt::NotLive => None,
        }
    };
    let mut w = world(10_000_000);
    with_name(&mut w, &[1, 2, 3]);
    let grant = w.authorize(&w.request(1, MOBILE)).expect("granted");
    assert_eq!((grant.attempt.gateway, grant.attempt.name.is_some()), (target(1), true));
    let first = || String::from("carrier 1");
    assert_eq!(next(&mut w, 1, 503), Some((first(), target(2), true)));
    // The name leads elsewhere meanwhile; what was tried is not tried again.
    with_name(&mut w, &[2, 1, 4]);
    assert_eq!(next(&mut w, 2, 408), Some((first(), target(4), true)));
    let other = next(&mut w, 3, 503).expect("another carrier");
    assert_eq!((other.0.as_str(), other.2), ("carrier 2", false));
    assert_eq!(next(&mut w, 4, 503), None);
    let outcomes: Vec<String> = w
        .rows
        .live
        .values()
        .next()
        .expect("live")
        .call
        .explanation
        .candidates
        .iter()
        .map(|c| format!("{} {}", c.carrier, c.outcome))
        .collect();
    assert_eq!(
        outcomes[..3],
        ["carrier 1 503 Service Unavailable", "carrier 1 408 Request Timeout", "carrier 1 503 Service Unavailable"]
    );
    // What a carrier decided for itself is not asked of its other servers.
    let mut w = world(10_000_000);
    with_name(&mut w, &[1, 2]);
    w.authorize(&w.request(1, MOBILE)).expect("granted");
    assert_eq!(next(&mut w, 1, 500).map(|other| other.0), Some(String::from("carrier 2")));
}

#[test]
fn a_failed_attempt_leaves_a_record_and_the_next_route() {
    let mut w = world(10_000_000);
    w.authorize(&w.request(1, MOBILE)).expect("granted");
    let next = |w: &mut World, number| {
        let market = Market { tariffs: &w.tariffs, trunks: &w.trunks };
        let failed = AttemptFailed { number, sip_code: 503 };
        let (next, draft) = w.core.next_attempt(call_id(1), &failed, ids(), &market, w.now);
        let written = draft.is_some();
        w.write(draft);
        (next, written)
    };
    let (second, written) = next(&mut w, 1);
    assert!(matches!(&second, NextAttempt::Granted(g) if g.attempt.carrier == "carrier 2" && g.attempt.number == 2));
    assert!(written);
    let (again, written) = next(&mut w, 1);
    assert!(matches!(again, NextAttempt::Granted(g) if g.attempt.number == 2) && !written);
    assert!(matches!(next(&mut w, 2), (NextAttempt::NoRoute, false)));
    let end = CallEnd { failed: Some(AttemptFailed { number: 2, sip_code: 486 }), ..hung_up(w.now) };
    let call = w.settle(1, &end).expect("settled");
    let outcomes: Vec<_> = call.explanation.candidates.iter().map(|c| c.outcome.as_str()).collect();
    assert_eq!(outcomes, ["503 Service Unavailable", "486 Busy Here"]);
    assert_eq!((w.rows.cdrs[0].attempts, w.rows.transfers.len()), (2, 0), "unanswered: a CDR without a transfer");
}

#[test]
fn p2_a_number_whose_proof_ends_between_two_attempts_is_not_shown_again() {
    let asked = |w: &World, number| {
        let market = Market { tariffs: &w.tariffs, trunks: &w.trunks };
        w.core.next_attempt(call_id(1), &AttemptFailed { number, sip_code: 503 }, ids(), &market, w.now)
    };
    let refused = |(next, draft): (NextAttempt, Option<_>)| match next {
        NextAttempt::Refused(refusal) => assert!(refusal.code == RefusalCode::CallerIdUnverified && draft.is_none()),
        other => panic!("{other:?}"),
    };
    for answer_was_lost in [false, true] {
        let mut w = world(10_000_000);
        w.rows.caller_ids[0].expires_at = Some(w.now.wall + Duration::from_secs(5));
        // Once there is another default, the call still shows what it began with, or nothing.
        w.rows.caller_ids[1] = CallerId { number: w.rows.caller_ids[1].number.clone(), ..w.rows.caller_ids[0].clone() };
        (w.rows.caller_ids[1].expires_at, w.rows.caller_ids[1].is_default) = (None, false);
        w.core = w.rows.load();
        let request = w.request(1, MOBILE);
        w.authorize(&request).expect("granted");
        if answer_was_lost {
            let (next, draft) = asked(&w, 1);
            w.write(draft);
            let NextAttempt::Granted(grant) = next else { panic!("{next:?}") };
            assert_eq!(grant.presentation.number().number().as_str(), "+447700900001");
        }
        (w.rows.caller_ids[0].is_default, w.rows.caller_ids[1].is_default) = (false, true);
        w.core = w.rows.load();
        let again = w.authorize(&request).expect("granted before");
        assert_eq!(again.presentation.number().number().as_str(), "+447700900001");
        w.pass(5_000);
        refused(asked(&w, 1));
        assert_eq!(w.authorize(&request).err(), Some(RefusalCode::CallerIdUnverified));
    }
}

/// Attempts of a call whose media's keys leave over TLS only: the cheapest trunk is on UDP, and would have to refuse.
#[test]
fn a_call_with_keys_of_media_takes_trunks_over_tls_alone() {
    for (name, trunk) in [("udp:192.0.2.1:5060", None), ("tls:192.0.2.1:5061", Some(2))] {
        let mut w = world(10_000_000);
        w.tariffs.trunks[1].gateway = name.parse().expect("a gateway");
        let request = CallRequest { needs_tls: true, ..w.request(1, MOBILE) };
        let granted = w.authorize(&request).map(|grant| grant.attempt.trunk);
        assert_eq!(granted, trunk.map(|n| TrunkId(Uuid::from_u128(n))).ok_or(RefusalCode::NoRoute));
        if trunk.is_some() {
            let market = Market { tariffs: &w.tariffs, trunks: &w.trunks };
            let failed = AttemptFailed { number: 1, sip_code: 503 };
            let (next, _) = w.core.next_attempt(call_id(1), &failed, ids(), &market, w.now);
            assert!(matches!(next, NextAttempt::NoRoute), "the one that is left is on UDP");
        }
    }
}

/// A trusted carrier was told it: whoever asks later which number that was finds it.
#[test]
fn the_number_behind_a_withheld_call_stands_in_its_record() {
    for withhold in [false, true] {
        let mut w = world(10_000_000);
        w.tariffs.trunks.iter_mut().for_each(|trunk| trunk.trusted = true);
        w.authorize(&CallRequest { withhold, ..w.request(1, MOBILE) }).expect("granted");
        w.settle(1, &hung_up(w.now));
        let cdr = &w.rows.cdrs[0];
        let [shown, withheld] =
            [&cdr.call.presented_number, &cdr.withheld_number].map(|number| number.as_ref().map(E164::as_str));
        let number = Some("+447700900001");
        assert_eq!((shown, withheld), if withhold { (None, number) } else { (number, None) });
    }
}

#[test]
fn a_late_answer_costs_us_but_not_the_customer() {
    let mut w = world(10_000_000);
    w.authorize(&w.request(1, MOBILE)).expect("granted");
    w.settle(1, &CallEnd { late_answer: true, ..hung_up(w.now) });
    assert_eq!((w.rows.cdrs[0].charged, w.rows.transfers[0].amount), (Micros(0), Micros(0)));
    assert!(w.rows.transfers[0].carrier_cost.is_some());
    assert_eq!(w.core.figures().total, Micros(10_000_000));
}

#[test]
fn a_late_answer_that_is_settled_after_a_restart_costs_us_too() {
    let mut w = world(10_000_000);
    w.authorize(&w.request(1, MOBILE)).expect("granted");
    w.answer(1);
    let late = CallEnd { late_answer: true, ..hung_up(w.now) };
    let draft = w.core.keep_end(call_id(1), &late, w.now);
    w.write(draft);
    let live = w.core.live_call(call_id(1)).expect("live").clone();
    assert!(live.late_answer && live.answered.is_none());
    let after = CallEnd { late_answer: live.late_answer, ..hung_up(w.now) };
    w.settle(1, &after);
    assert_eq!(
        (w.rows.cdrs[0].charged, w.rows.transfers.len()),
        (Micros(0), 1),
        "C3: an answered call has its transfer"
    );
    assert!(w.rows.transfers[0].carrier_cost.is_some());
}

#[test]
fn after_a_restart_the_charge_is_bounded_by_hold_and_available_money() {
    let mut w = world(700_000);
    w.authorize(&w.request(1, MOBILE)).expect("granted");
    w.answer(1);
    w.pass(100_000);
    let call = w.settle(1, &hung_up(w.now)).expect("settled");
    assert_eq!((call.cost, call.billed_seconds), (Micros(700_000), 70));
    assert_eq!((w.rows.cdrs[0].loss, w.rows.transfers[0].loss), (Micros(300_000), Micros(300_000)));
    assert_eq!(w.core.figures().total, Micros(0));
    // With an unknown end the last proof of life counts.
    let mut w = world(10_000_000);
    w.authorize(&w.request(1, MOBILE)).expect("granted");
    w.answer(1);
    w.pass(40_000);
    w.renew(1);
    w.pass(30_000);
    let call = w.settle(1, &CallEnd { at: None, ..hung_up(w.now) }).expect("settled");
    assert_eq!(call.billed_seconds, 40);
}

#[test]
fn a_call_that_we_cut_is_billed_at_most_its_grant() {
    let mut w = world(600_000);
    w.authorize(&w.request(1, MOBILE)).expect("granted");
    w.answer(1);
    assert_eq!(w.renew(1), Renewed::NotAffordable);
    w.pass(60_700);
    let call = w.settle(1, &CallEnd { cut: true, ..hung_up(w.now) }).expect("settled");
    assert_eq!((call.cost, w.rows.cdrs[0].loss), (Micros(600_000), Micros(0)));
}

#[test]
fn l4_a_key_credits_once() {
    let mut w = world(0);
    assert_eq!(w.credit(500_000, "k", 1), Ok(false));
    assert_eq!(w.credit(500_000, "k", 1), Ok(true));
    // Before the commit the rows do not know the key yet; the core does.
    let stored = std::mem::take(&mut w.rows.transfers);
    assert_eq!(w.credit(500_000, "k", 1), Ok(true));
    assert_eq!(w.credit(500_000, "k", 2), Err(CreditRefused::Conflict));
    w.rows.transfers = stored;
    assert_eq!(w.credit(600_000, "k", 2), Err(CreditRefused::Conflict));
    assert_eq!(w.core.figures().total, Micros(500_000));
    assert_eq!(w.credit(-500_001, "less", 1), Err(CreditRefused::InsufficientBalance));
    assert_eq!(w.credit(-500_000, "less", 1), Ok(false));
    assert_eq!(w.credit(0, "nothing", 1), Err(CreditRefused::Amount));
    assert_eq!(w.credit(1, "", 1), Err(CreditRefused::Key));
}

#[test]
fn a_projection_counts_the_shared_money_and_a_top_up_withdraws_the_warning() {
    let mut w = world(900_000);
    w.authorize(&w.request(1, MOBILE)).expect("granted");
    w.answer(1);
    let until = |w: &World| w.core.calls_now(w.now)[0].funded_until.expect("answered").since(w.now.wall).as_millis();
    assert_eq!(until(&w), 89_500);
    let levels = |w: &mut World| {
        let draft = w.core.warn(w.now);
        let levels: Vec<_> = draft
            .iter()
            .flat_map(|d| &d.entry.events)
            .map(|event| match event {
                EventBody::CallWarning { seconds_left, .. } => *seconds_left,
                other => panic!("{other:?}"),
            })
            .collect();
        w.write(draft);
        levels
    };
    assert_eq!(levels(&mut w), []);
    assert_eq!(w.core.next_warning(w.now).map(|at| at.since(w.now.mono).as_millis()), Some(29_500));
    w.pass(29_500);
    assert_eq!(levels(&mut w), [Some(60)]);
    assert_eq!(levels(&mut w), []);
    w.pass(10_500);
    assert!(matches!(w.renew(1), Renewed::Paid(f) if f.paid_s == 90));
    assert_eq!(until(&w), 49_500, "a renewal moves money, it adds none");
    w.pass(20_000);
    assert_eq!(levels(&mut w), [Some(30)]);
    w.credit(600_000, "top-up", 1).expect("posted");
    assert_eq!(until(&w), 89_500, "a top-up extends the call at once");
    assert_eq!(levels(&mut w), [None]);
    // Two calls share what is available.
    w.authorize(&w.request(2, MOBILE)).expect("granted");
    w.answer(2);
    let ends: Vec<_> = w.core.calls_now(w.now).iter().map(|c| c.funded_until.expect("answered")).collect();
    let total: u128 = ends.iter().map(|end| end.since(w.now.wall).as_millis() + 500).sum();
    assert!((88_000..=90_000).contains(&total), "{total}");
}

#[test]
fn a_free_call_needs_no_renewals_and_leaves_a_charge_of_nothing() {
    let mut w = world(0);
    let grant = w.authorize(&w.request(1, "+33612345678")).expect("granted");
    assert_eq!((grant.funding.paid_s, w.core.figures().held), (7_200, Micros(0)));
    w.answer(1);
    w.pass(1_000);
    w.settle(1, &hung_up(w.now));
    assert_eq!((w.rows.transfers.len(), w.rows.transfers[0].amount), (1, Micros(0)));
}
