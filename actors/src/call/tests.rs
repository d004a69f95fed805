//! The call machine as tables: what it is told, what it wants done.

mod phone;
mod random;
mod restart;

use super::protocol::{Input, Reply};
use crate::account::authorize::Authorized;
use crate::account::failover::NextAttempt;
use crate::account::settle::{Renewed, Settled};
use schema::call::{HangupSide, Refusal, RefusalCode};
use schema::leg::{EndCause, HangupCause, LegEvent};

use phone::*;

#[test]
fn a_call_rings_is_answered_and_hung_up() {
    let mut phone = start();
    phone.granted(1).wait(150).progress(1).wait(2_000).answered(1).stored(60).wait(30_000);
    phone.leg(LegEvent::Ended { leg: a(), cause: EndCause::Bye { q850: None } }).settled();
    assert_eq!(
        phone.said(),
        [
            "authorize?",
            "invite b1 60s",
            "ringing 150",
            "180 a",
            "answer?",
            "confirm b1",
            "accept a",
            "hang up b1 OtherLeg",
            "settle?",
            "finish"
        ]
    );
    assert_eq!(phone.hangup(), (HangupSide::Caller, None, "hung up"));
    assert_eq!(phone.end.as_ref().and_then(|e| e.post_dial_delay_ms), Some(150));
}

#[test]
fn a_refused_call_is_told_why_and_leaves_no_leg() {
    let mut phone = start();
    let refusal = Refusal { code: RefusalCode::InsufficientBalance, message: "no money".into() };
    phone.reply(Reply::Authorized(Authorized::Refused(refusal)));
    assert_eq!(phone.said(), ["authorize?", "reject a 402", "finish"]);
}

#[test]
fn an_authorization_without_answer_is_voided() {
    let mut phone = start();
    phone.reply(Reply::Unknown).reply(Reply::Settled(Settled::NotLive));
    assert_eq!(phone.said(), ["authorize?", "reject a 503", "settle?", "finish"]);
}

#[test]
fn a_carrier_fault_is_tried_elsewhere_up_to_four_times() {
    let mut phone = start();
    phone.granted(1);
    for attempt in 1..4 {
        phone.failed(attempt, 503).next(Some(attempt + 1));
    }
    phone.failed(4, 503).settled();
    assert_eq!(
        phone.said()[1..],
        [
            "invite b1 60s",
            "next after 1 503?",
            "invite b2 60s",
            "next after 2 503?",
            "invite b3 60s",
            "next after 3 503?",
            "invite b4 60s",
            "reject a 502",
            "settle?",
            "finish"
        ]
    );
    assert_eq!(phone.hangup(), (HangupSide::Carrier, Some(503), "Service Unavailable"));
}

#[test]
fn without_another_route_the_last_answer_counts() {
    let mut phone = start();
    phone.granted(1).failed(1, 504).next(None).settled();
    assert_eq!(phone.said()[2..], ["next after 1 504?", "reject a 504", "settle?", "finish"]);
}

#[test]
fn p2_a_call_that_may_not_be_shown_again_is_refused_with_that_reason() {
    let refused = || Refusal { code: RefusalCode::CallerIdUnverified, message: String::new() };
    let mut phone = start();
    phone.granted(1).failed(1, 503).reply(Reply::NextAttempt(NextAttempt::Refused(refused()))).settled();
    assert_eq!(phone.said()[2..], ["next after 1 503?", "reject a 403", "settle?", "finish"]);
    assert_eq!(phone.hangup(), (HangupSide::Service, Some(403), "caller ID not verified"));
    // The attempt that is only slow shows what was proved when it began.
    let mut phone = start();
    phone.granted(1).time_out().reply(Reply::NextAttempt(NextAttempt::Refused(refused()))).progress(1);
    assert_eq!(phone.said()[2..], ["next after 1 408?", "ringing 8000", "180 a"]);
}

#[test]
fn what_the_callee_decided_is_never_tried_elsewhere() {
    for (status, told) in
        [(486, 486), (600, 600), (603, 603), (607, 607), (608, 608), (404, 404), (302, 502), (403, 502)]
    {
        let mut phone = start();
        phone.granted(1).failed(1, status).settled();
        assert_eq!(phone.said()[2..], [format!("reject a {told}"), "settle?".into(), "finish".into()], "{status}");
    }
}

#[test]
fn after_a_ringing_nothing_is_tried_elsewhere() {
    let mut phone = start();
    phone.granted(1).progress(1).failed(1, 503).settled();
    assert_eq!(phone.said()[4..], ["reject a 502", "settle?", "finish"]);
    let mut phone = start();
    phone.granted(1).leg(LegEvent::Failed {
        leg: b(1),
        status: 503,
        q850: None,
        rang: true,
        redress: None,
        answered: false,
    });
    assert_eq!(phone.said()[2..], ["reject a 502", "settle?"]);
}

#[test]
fn a_183_without_media_and_a_forwarding_are_not_a_ringing() {
    let mut phone = start();
    phone.granted(1);
    phone.said();
    for status in [181, 182, 183] {
        phone.leg(LegEvent::Progress { leg: b(1), status, sdp: None, rings: false });
    }
    assert_eq!(phone.said(), ["181 a", "182 a", "183 a"]);
    assert_eq!(phone.due_in_ms(), Some(60_000), "it is at work, and not overtaken");
    phone.failed(1, 503).next(Some(2));
    assert_eq!(phone.said(), ["next after 1 503?", "invite b2 60s"]);
    // Early media is one, also when it cannot be passed on.
    phone.wait(500).leg(LegEvent::Progress { leg: b(2), status: 183, sdp: None, rings: true });
    assert_eq!(phone.said(), ["ringing 500", "183 a"]);
    phone.failed(2, 503).settled();
    assert_eq!(phone.said(), ["reject a 502", "settle?", "finish"]);
}

#[test]
fn a_silent_carrier_is_overtaken_after_eight_seconds_if_there_is_another() {
    let mut phone = start();
    phone.granted(1);
    assert_eq!(phone.due_in_ms(), Some(8_000));
    phone.time_out().next(Some(2));
    assert_eq!(phone.said()[2..], ["next after 1 408?", "hang up b1 NotWanted", "invite b2 52s"]);
    // What the overtaken attempt says later changes nothing; an answer of it is hung up.
    phone.failed(1, 487).answered(1);
    assert_eq!(phone.said(), ["hang up b1 NotWanted"]);
    phone.time_out().next(None).progress(2);
    assert_eq!(phone.said(), ["next after 2 408?", "ringing 16000", "180 a"]);
}

#[test]
fn nobody_answers_in_a_minute() {
    let mut phone = start();
    phone.granted(1).progress(1);
    assert_eq!(phone.due_in_ms(), Some(60_000));
    phone.time_out().failed(1, 487).settled();
    assert_eq!(phone.said()[4..], ["reject a 480", "hang up b1 NoAnswer", "settle?", "finish"]);
    assert_eq!(phone.hangup(), (HangupSide::Callee, Some(480), "no answer"));
}

#[test]
fn a_cancel_ends_the_other_leg_and_the_hold_within_two_seconds() {
    let mut phone = start();
    phone.granted(1).progress(1).leg(LegEvent::Cancelled { leg: a() });
    assert_eq!(phone.due_in_ms(), Some(2_000));
    phone.time_out().settled();
    assert_eq!(phone.said()[4..], ["hang up b1 Cancelled", "settle?", "finish"]);
    assert_eq!(phone.hangup(), (HangupSide::Caller, Some(487), "cancelled by the caller"));
    let mut phone = start();
    phone.granted(1).leg(LegEvent::Cancelled { leg: a() }).failed(1, 487);
    assert_eq!(phone.said()[2..], ["hang up b1 Cancelled", "settle?"]);
}

#[test]
fn a_caller_that_never_acknowledges_that_it_rings_has_not_cancelled() {
    let no_prack = LegEvent::Ended { leg: a(), cause: EndCause::NoPrack };
    let why = (HangupSide::Service, Some(504), "the caller's phone never acknowledged that it rings");
    let mut phone = start();
    phone.granted(1).progress(1).leg(no_prack.clone()).failed(1, 487).settled();
    assert_eq!(phone.said()[4..], ["hang up b1 NotWanted", "settle?", "finish"]);
    assert_eq!(phone.hangup(), why);
    // Its 200 waited for the PRACK.
    let mut phone = Phone::talking(60);
    phone.leg(no_prack).settled();
    assert_eq!(
        (phone.said(), phone.hangup()),
        (["hang up b1 OtherLeg", "settle?", "finish"].map(str::to_owned).into(), why)
    );
}

#[test]
fn whichever_of_cancel_and_answer_came_first_counts() {
    let mut phone = start();
    phone.granted(1).leg(LegEvent::Cancelled { leg: a() }).answered(1);
    assert_eq!(phone.said()[2..], ["hang up b1 Cancelled", "hang up b1 NotWanted", "settle?"]);
    assert!(phone.end.as_ref().is_some_and(|end| end.late_answer));
    // The answer first: while it is being stored the cancel waits in line.
    let mut phone = start();
    phone.granted(1).answered(1).leg(LegEvent::Cancelled { leg: a() });
    assert_eq!(phone.said()[2..], ["answer?"]);
    phone.stored(60);
    assert_eq!(phone.said(), ["confirm b1", "accept a", "hang up b1 OtherLeg", "settle?"]);
    assert!(phone.end.as_ref().is_some_and(|end| !end.late_answer));
}

#[test]
fn an_answer_that_was_ended_before_anybody_heard_it_costs_us_only() {
    let ended = |status| LegEvent::Failed { leg: b(1), status, q850: None, rang: false, redress: None, answered: true };
    // Across the cancel.
    let mut phone = start();
    phone.granted(1).leg(LegEvent::Cancelled { leg: a() }).leg(ended(487));
    assert_eq!(phone.said()[2..], ["hang up b1 Cancelled", "settle?"]);
    assert!(phone.end.as_ref().is_some_and(|end| end.late_answer && end.failed.is_none()));
    // With a session that nobody can use: nobody else is tried, or two carriers would charge.
    let mut phone = start();
    phone.granted(1).leg(ended(502));
    assert_eq!(phone.said()[2..], ["reject a 502", "settle?"]);
    assert!(phone.end.as_ref().is_some_and(|end| end.late_answer && end.failed.is_some()));
}

#[test]
fn an_answer_that_cannot_be_stored_is_not_charged() {
    for reply in [Reply::Unknown, Reply::Answered(None)] {
        let mut phone = start();
        phone.granted(1).answered(1).reply(reply);
        assert_eq!(phone.said()[3..], ["hang up b1 ServiceFailure", "hang up a ServiceFailure", "settle?"]);
        assert!(phone.end.as_ref().is_some_and(|end| end.late_answer));
    }
}

#[test]
fn c4_the_end_of_one_leg_ends_the_other() {
    let bye = EndCause::Bye { q850: Some(17) };
    for (ended, cause, told, side) in [
        (a(), bye, "hang up b1 OtherLeg", HangupSide::Caller),
        (b(1), bye, "hang up a OtherLeg", HangupSide::Callee),
        (a(), EndCause::NoAck, "hang up b1 OtherLeg", HangupSide::Service),
        (a(), EndCause::Lost, "hang up b1 OtherLeg", HangupSide::Caller),
        (b(1), EndCause::Lost, "hang up a OtherLeg", HangupSide::Callee),
    ] {
        let mut phone = Phone::talking(60);
        phone.leg(LegEvent::Ended { leg: ended, cause });
        assert_eq!(phone.said(), [told, "settle?"]);
        assert_eq!(phone.hangup().0, side);
        // The other leg's end, and a second BYE, change nothing.
        phone.leg(LegEvent::Ended { leg: a(), cause: EndCause::HungUp }).settled();
        assert_eq!(phone.said(), ["finish"]);
    }
}

#[test]
fn a_call_is_renewed_before_its_grant_ends() {
    let mut phone = Phone::talking(60);
    assert_eq!(phone.due_in_ms(), Some(40_000));
    phone.time_out().reply(Reply::Renewed(Renewed::Paid(funding(120, 60, 7_200, 1))));
    assert_eq!((phone.said(), phone.due_in_ms()), (vec!["renew 1?".to_owned()], Some(60_000)));
    phone.time_out();
    assert_eq!(phone.said(), ["renew 2?"]);
}

#[test]
fn c2_a_call_is_cut_when_the_grant_ends() {
    let mut phone = Phone::talking(60);
    phone.time_out().reply(Reply::Renewed(Renewed::NotAffordable));
    assert_eq!(phone.due_in_ms(), Some(19_500), "500 ms before the paid boundary");
    phone.time_out().settled();
    assert_eq!(
        phone.said(),
        ["renew 1?", "hang up a FundsExhausted", "hang up b1 FundsExhausted", "settle?", "finish"]
    );
    assert!(phone.end.as_ref().is_some_and(|end| end.cut));
    assert_eq!(phone.hangup(), (HangupSide::Service, None, "the balance ran out"));
}

#[test]
fn c2_a_renewal_without_answer_lets_the_call_end_in_time() {
    let mut phone = Phone::talking(1);
    assert_eq!(phone.due_in_ms(), Some(500));
    phone.time_out();
    assert_eq!((phone.said(), phone.due_in_ms()), (vec!["renew 1?".to_owned()], None));
    phone.wait(450).reply(Reply::Unknown);
    assert_eq!(phone.due_in_ms(), Some(0));
    phone.time_out();
    assert_eq!(phone.said(), ["hang up a FundsExhausted", "hang up b1 FundsExhausted", "settle?"]);
}

#[test]
fn c3_a_bye_that_waits_behind_a_renewal_comes_before_the_cut_off() {
    let mut phone = Phone::talking(1);
    phone.time_out();
    let bye_at = phone.wait(100).now;
    phone.wait(350).reply(Reply::Unknown);
    let asked_at = std::mem::replace(&mut phone.now, bye_at);
    phone.leg(LegEvent::Ended { leg: a(), cause: EndCause::Bye { q850: None } });
    phone.now = asked_at;
    assert_eq!(phone.said(), ["renew 1?", "hang up b1 OtherLeg", "settle?"]);
    assert_eq!(phone.hangup(), (HangupSide::Caller, None, "hung up"));
    assert_eq!(phone.end.as_ref().and_then(|end| end.at), Some(bye_at));
}

#[test]
fn c2_a_call_whose_renewal_cannot_be_written_runs_to_its_holds_end() {
    let mut phone = Phone::talking(60);
    let begun = phone.now.mono;
    let mut asked = 0;
    let end = loop {
        phone.time_out();
        match &phone.said()[..] {
            [renew] if renew == "renew 1?" => asked += 1,
            said => break said.to_vec(),
        }
        phone.reply(Reply::Unknown);
        assert_eq!(phone.said(), Vec::<String>::new(), "it goes on meanwhile");
    };
    assert_eq!(end, ["hang up a FundsExhausted", "hang up b1 FundsExhausted", "settle?"]);
    assert_eq!(phone.now.mono.since(begun), std::time::Duration::from_millis(59_500));
    assert!((5..60).contains(&asked), "asked {asked} times within half a minute");
}

#[test]
fn money_that_comes_free_extends_a_call_that_was_refused() {
    let mut phone = Phone::talking(60);
    phone.on(Input::FundsChanged);
    assert_eq!(phone.said(), Vec::<String>::new(), "it is not short of money");
    phone.time_out().reply(Reply::Renewed(Renewed::NotAffordable)).wait(5_000).on(Input::FundsChanged);
    phone.reply(Reply::Renewed(Renewed::Paid(funding(90, 30, 7_200, 1))));
    assert_eq!(phone.said(), ["renew 1?", "renew 1?"]);
    assert_eq!(phone.due_in_ms(), Some(30_000), "renewed half of its slice before its end");
}

#[test]
fn the_longest_duration_ends_a_call_whatever_is_paid() {
    let mut phone = start();
    phone.granted(1).answered(1).reply(Reply::Answered(Some(funding(60, 60, 45, 0))));
    assert_eq!(phone.due_in_ms(), Some(44_500));
    phone.time_out();
    assert_eq!(phone.hangup(), (HangupSide::Service, None, "the longest duration was reached"));
}

#[test]
fn a_hang_up_from_outside_ends_both_legs_in_any_state() {
    let mut phone = start();
    phone.granted(1).progress(1).on(Input::HangUp(HangupCause::Requested)).failed(1, 487).settled();
    assert_eq!(phone.said()[4..], ["hang up a Requested", "hang up b1 Requested", "settle?", "finish"]);
    let mut phone = Phone::talking(60);
    phone.on(Input::HangUp(HangupCause::Requested)).on(Input::HangUp(HangupCause::Requested)).settled();
    assert_eq!(phone.said(), ["hang up a Requested", "hang up b1 Requested", "settle?", "finish"]);
}

#[test]
fn settling_is_asked_again_until_it_is_answered() {
    let mut phone = Phone::talking(60);
    phone.leg(LegEvent::Ended { leg: a(), cause: EndCause::Bye { q850: None } });
    for pause in [1_000, 2_000, 4_000, 5_000, 5_000] {
        phone.reply(Reply::Unknown);
        assert_eq!(phone.due_in_ms(), Some(pause));
        phone.time_out();
    }
    phone.settled();
    assert!(phone.core.is_over());
    assert_eq!(phone.said().iter().filter(|s| *s == "settle?").count(), 6);
}

#[test]
fn a_call_without_an_offer_confirms_the_carrier_with_the_callers_answer() {
    let mut phone = start();
    let sdp = |text: &str| schema::leg::Sdp::new(text.into());
    let answered = |offers| LegEvent::Answered { leg: b(1), sdp: Some(sdp("x")), offers, checkpoint: checkpoint() };
    phone.granted(1).leg(answered(true)).stored(60);
    assert_eq!(phone.said()[2..], ["answer?", "accept a"], "both checkpoints are stored before the caller hears of it");
    let confirmed = || LegEvent::Confirmed { leg: a(), answer: Some(sdp("caller's")) };
    phone.leg(confirmed());
    assert_eq!(phone.said(), ["confirm b1 caller's"]);
    // A caller that cannot answer it ends both.
    let mut phone = start();
    phone.granted(1).leg(answered(true)).stored(60);
    phone.log.clear();
    phone.leg(LegEvent::Ended { leg: a(), cause: EndCause::NoSession }).leg(confirmed()).settled();
    assert_eq!(phone.said(), ["hang up b1 OtherLeg", "settle?", "finish"]);
    let why = "the caller's phone did not answer the offer of a session";
    assert_eq!(phone.hangup(), (HangupSide::Service, None, why));
}

#[test]
fn what_one_leg_offers_the_other_is_asked_and_its_answer_told() {
    let mut phone = Phone::talking(60);
    let sdp = |text: &str| schema::leg::Sdp::new(text.into());
    phone.leg(LegEvent::Offered { leg: a(), offer: sdp("hold") });
    phone.leg(LegEvent::OfferAnswered { leg: b(1), answer: Ok(sdp("held")) });
    phone.leg(LegEvent::Offered { leg: b(1), offer: sdp("codec") });
    phone.leg(LegEvent::OfferAnswered { leg: a(), answer: Err(488) });
    assert_eq!(phone.said(), ["offer b1 hold", "answer a Ok(\"held\")", "offer a codec", "answer b1 Err(488)"]);
    let key = |signal| schema::leg::Key { signal: schema::pii::Pii::new(signal), duration_ms: None };
    phone.leg(LegEvent::KeyPressed { leg: a(), key: key('5') });
    phone.leg(LegEvent::KeyPressed { leg: b(1), key: key('#') });
    assert_eq!(phone.said(), ["key b1 5", "key a #"]);
    // Of an attempt that lost nothing passes, nor of a call that is over; no timer is moved.
    phone.leg(LegEvent::Offered { leg: b(2), offer: sdp("x") });
    assert_eq!((phone.said(), phone.due_in_ms()), (vec![], Some(40_000)));
    phone.leg(LegEvent::Ended { leg: a(), cause: EndCause::Bye { q850: None } });
    phone.leg(LegEvent::Offered { leg: b(1), offer: sdp("x") }).settled();
    assert_eq!(phone.said(), ["hang up b1 OtherLeg", "settle?", "finish"]);
    // Before the answer, too.
    let mut phone = start();
    phone.granted(1).progress(1);
    phone.said();
    phone.leg(LegEvent::Offered { leg: b(1), offer: sdp("early") });
    phone.leg(LegEvent::OfferAnswered { leg: a(), answer: Ok(sdp("yes")) });
    phone.leg(LegEvent::Offered { leg: a(), offer: sdp("hold") });
    phone.leg(LegEvent::OfferAnswered { leg: b(1), answer: Err(491) });
    assert_eq!(phone.said(), ["offer a early", "answer b1 Ok(\"yes\")", "offer b1 hold", "answer a Err(491)"]);
}
