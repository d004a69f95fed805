//! Calls after a restart, and until when one is billed of which a side was lost.

use super::phone::*;
use crate::account::settle::{CallEnd, Renewed};
use crate::call::machine::CallCore;
use crate::call::protocol::{Action, Ask, Input, Reply, TakenUp};
use proptest::prelude::*;
use schema::call::{HangupSide, LiveCall};
use schema::id::CallNo;
use schema::leg::{Dialogs, EndCause, HangupCause, LegEvent};
use schema::money::Micros;
use schema::time::{BootId, ClockReading, Mono, Now, Timestamp};
use std::time::Duration;

const NOW: Now = Now { mono: Mono(500_000_000), wall: Timestamp(1_700_000_000_000_000) };
const BYE: EndCause = EndCause::Bye { q850: None };

fn stored(paid_s: u64, talk_s: Option<u64>) -> TakenUp {
    let live = LiveCall {
        no: CallNo(1),
        credential: None,
        call: ended_call(),
        held: Micros(0),
        hold_step: 2,
        paid_s,
        attempt: Some(running(3)),
        caller_id: None,
        needs_tls: false,
        answered: None,
        late_answer: false,
        proof_of_life: None,
    };
    let talk = talk_s.map(Duration::from_secs);
    let grant = talk.is_none().then(|| grant(3, paid_s, 7_200));
    TakenUp { live, funding: funding(paid_s, paid_s, 7_200, 2), talk, at: NOW.mono, grant }
}

fn resumed(paid_s: u64, talk_s: Option<u64>) -> Phone {
    resumed_after(0, paid_s, talk_s)
}

/// By an actor that began so many milliseconds after the talk was measured.
fn resumed_after(ms: u64, paid_s: u64, talk_s: Option<u64>) -> Phone {
    taken_up(stored(paid_s, talk_s), NOW.after(Duration::from_millis(ms)))
}

fn taken_up(taken: TakenUp, now: Now) -> Phone {
    let dialogs = Dialogs { a_leg: Some(checkpoint()), b_leg: Some(checkpoint()), answer_sdp: None };
    let (core, actions) = CallCore::resume(taken, dialogs, 7, now);
    let mut phone = Phone { core, now, log: Vec::new(), end: None, proof: None };
    phone.note(actions);
    phone
}

/// Both sides have answered their probes.
fn alive(phone: &mut Phone) -> &mut Phone {
    phone.leg(LegEvent::Alive { leg: a() }).leg(LegEvent::Alive { leg: b(3) })
}

fn end(phone: &Phone) -> &CallEnd {
    phone.end.as_ref().expect("settled")
}

#[test]
fn after_a_restart_a_call_goes_on_with_its_timers_and_asks_whether_both_are_there() {
    let mut phone = resumed(60, Some(35));
    assert_eq!(phone.said(), ["probe a", "probe b3"]);
    assert_eq!(phone.due_in_ms(), Some(5_000));
    phone.time_out();
    assert_eq!(phone.said(), ["renew 3?"]);
    // Shortly after the answer the caller is told again instead: its ACK answers.
    assert_eq!(resumed(60, Some(31)).said(), ["accept a", "probe b3"]);
}

#[test]
fn c2_how_long_taking_up_takes_is_part_of_the_call() {
    assert_eq!(resumed_after(2_000, 60, Some(35)).due_in_ms(), Some(3_000));
}

#[test]
fn a_call_that_had_ended_before_the_restart_is_billed_to_its_last_proof_of_life() {
    for lost in [a(), b(3)] {
        let mut phone = resumed(60, Some(35));
        phone.said();
        let other = if lost == a() { "hang up b3 OtherLeg" } else { "hang up a OtherLeg" };
        phone.leg(LegEvent::Ended { leg: lost, cause: EndCause::Lost });
        assert_eq!(phone.said(), [other, "settle?"]);
        assert_eq!(end(&phone).at, None);
    }
}

/// Answered 10 s ago, and nothing was heard since: the process before may have refused the caller, and that was lost with it.
fn resumed_unheard() -> Phone {
    let mut taken = stored(60, Some(10));
    let answered = ClockReading { wall: NOW.wall, mono: NOW.mono, boot: BootId(1) };
    (taken.live.answered, taken.live.proof_of_life) = (Some(answered), Some(answered));
    taken_up(taken, NOW)
}

#[test]
fn c3_a_call_whose_caller_may_never_have_heard_its_answer_is_not_charged_when_it_is_lost() {
    let lost = |leg| LegEvent::Ended { leg, cause: EndCause::Lost };
    // Found gone at once, while nobody asks for it, or while the call ends.
    let mut found_gone = resumed_unheard();
    found_gone.leg(lost(a()));
    let mut unwatched = resumed_unheard();
    unwatched.leg(LegEvent::Unwatched { leg: a() }).leg(lost(a()));
    let mut ending = resumed_unheard();
    ending.on(Input::HangUp(HangupCause::Requested)).leg(lost(a()));
    let mut other_side = resumed_unheard();
    other_side.leg(lost(b(3)));
    for phone in [found_gone, unwatched, ending, other_side] {
        assert!(end(&phone).late_answer && end(&phone).at.is_some());
    }
}

#[test]
fn c3_a_caller_that_shows_that_it_has_heard_is_charged_when_a_side_is_lost() {
    let lost = |leg| LegEvent::Ended { leg, cause: EndCause::Lost };
    let mut alive = resumed_unheard();
    alive.leg(LegEvent::Alive { leg: a() }).leg(lost(b(3)));
    let mut hangs_up = resumed_unheard();
    hangs_up.leg(LegEvent::Ended { leg: a(), cause: BYE }).leg(lost(b(3)));
    let mut is_cut = resumed_unheard();
    is_cut.on(Input::HangUp(HangupCause::Requested));
    is_cut.leg(LegEvent::Ended { leg: a(), cause: EndCause::HungUp }).leg(lost(b(3)));
    for phone in [alive, hangs_up, is_cut] {
        assert!(!end(&phone).late_answer && end(&phone).at.is_none());
    }
}

#[test]
fn a_caller_that_is_lost_later_is_billed_to_its_last_sign_of_life() {
    let mut phone = resumed(600, Some(35));
    alive(&mut phone).wait(30_000).leg(LegEvent::Alive { leg: a() });
    let last = phone.now;
    phone.wait(64_000).leg(LegEvent::Ended { leg: a(), cause: EndCause::Lost });
    assert_eq!(end(&phone).at, Some(last));
    assert_eq!(phone.hangup(), (HangupSide::Caller, None, "the connection was lost"));
    // Before its first probe the answer is its last sign of life.
    let mut phone = Phone::talking(60);
    let answered = phone.now;
    phone.wait(20_000).leg(LegEvent::Ended { leg: a(), cause: EndCause::Lost });
    assert_eq!(end(&phone).at, Some(answered));
}

#[test]
fn a_caller_whom_nobody_asks_is_billed_to_its_last_renewal_when_it_is_lost() {
    for after_restart in [false, true] {
        let mut phone = if after_restart { resumed(60, Some(35)) } else { Phone::unwatched(60) };
        if after_restart {
            phone.leg(LegEvent::Unwatched { leg: a() }).leg(LegEvent::Unwatched { leg: b(3) });
        }
        phone.said();
        phone.wait(if after_restart { 5_000 } else { 40_000 }).time_out();
        assert_eq!(phone.proof, Some(phone.now), "a renewal tells that it was up");
        phone.reply(Reply::Renewed(Renewed::Paid(funding(120, 60, 7_200, 3))));
        phone.leg(LegEvent::Ended { leg: a(), cause: EndCause::Lost });
        assert_eq!(end(&phone).at, None, "what is stored decides");
    }
}

#[test]
fn one_side_that_hangs_up_does_not_prove_that_the_other_was_there() {
    for (outcome, known) in [(EndCause::HungUp, true), (EndCause::Lost, false)] {
        let mut phone = resumed(60, Some(35));
        phone.said();
        phone.leg(LegEvent::Alive { leg: a() }).leg(LegEvent::Ended { leg: a(), cause: BYE });
        let at = phone.now;
        assert_eq!(phone.said(), ["hang up b3 OtherLeg"], "what the other says to its BYE is awaited");
        phone.wait(900).leg(LegEvent::Ended { leg: b(3), cause: outcome }).settled();
        assert_eq!(phone.said(), ["settle?", "finish"]);
        assert_eq!(end(&phone).at, known.then_some(at));
    }
    // Known to be there: nothing is waited for.
    let mut phone = resumed(60, Some(35));
    alive(&mut phone).leg(LegEvent::Ended { leg: b(3), cause: BYE });
    assert_eq!(end(&phone).at, Some(phone.now));
}

#[test]
fn a_bye_that_is_the_first_word_of_a_leg_may_be_repeated_from_before_the_restart() {
    for (gone, other) in [(a(), "hang up b3 OtherLeg"), (b(3), "hang up a OtherLeg")] {
        let mut phone = resumed(60, Some(35));
        phone.said();
        phone.leg(LegEvent::Ended { leg: gone, cause: BYE });
        assert_eq!(phone.said(), [other, "settle?"]);
        assert_eq!(end(&phone).at, None);
        assert_eq!(phone.hangup().2, "the connection was lost");
        // The same when it crosses ours.
        let mut phone = resumed(60, Some(90));
        phone.time_out().leg(LegEvent::Ended { leg: gone, cause: BYE });
        assert_eq!(end(&phone).at, None);
        // Nobody repeats one for longer than 32 s.
        let mut phone = resumed(600, Some(35));
        phone.wait(32_000).leg(LegEvent::Ended { leg: gone, cause: BYE });
        let at = phone.now;
        phone.wait(10).leg(LegEvent::Ended { leg: if gone == a() { b(3) } else { a() }, cause: EndCause::HungUp });
        assert_eq!(end(&phone).at, Some(at));
    }
}

#[test]
fn a_leg_that_shows_itself_while_the_call_ends_was_there() {
    let mut phone = resumed(60, Some(90));
    phone.time_out();
    let at = phone.now;
    phone.leg(LegEvent::Alive { leg: a() }).leg(LegEvent::Ended { leg: a(), cause: BYE });
    phone.leg(LegEvent::Ended { leg: b(3), cause: EndCause::HungUp });
    assert_eq!(end(&phone).at, Some(at));
}

#[test]
fn c2_a_call_past_its_grant_is_ended_at_once_and_billed_when_it_is_known_whether_it_was_up() {
    for (outcome, known) in [(EndCause::HungUp, true), (EndCause::Lost, false)] {
        let mut phone = resumed(60, Some(90));
        assert_eq!(phone.due_in_ms(), Some(0));
        phone.said();
        phone.time_out();
        let at = phone.now;
        assert_eq!(phone.said(), ["hang up a FundsExhausted", "hang up b3 FundsExhausted"]);
        phone.leg(LegEvent::Ended { leg: b(3), cause: EndCause::HungUp });
        assert!(phone.said().is_empty());
        phone.leg(LegEvent::Ended { leg: a(), cause: outcome });
        assert_eq!(phone.said(), ["settle?"]);
        assert_eq!((end(&phone).at, end(&phone).cut), (known.then_some(at), false));
    }
}

#[test]
fn an_outcome_that_never_comes_is_not_waited_for_for_ever() {
    let mut phone = resumed(60, Some(35));
    phone.on(Input::HangUp(HangupCause::Requested));
    assert_eq!(phone.due_in_ms(), Some(100_000));
    phone.said();
    phone.answered(2);
    assert_eq!(phone.said(), ["hang up b2 NotWanted"]);
    phone.time_out().settled();
    assert_eq!(phone.said(), ["settle?", "finish"]);
    assert_eq!(end(&phone).at, None);
}

#[test]
fn a_call_that_was_ringing_is_taken_back() {
    let mut phone = resumed(60, None);
    assert_eq!(phone.said(), ["take back a and b3"]);
    assert_eq!(phone.due_in_ms(), Some(2_000));
    phone.failed(3, 487).settled();
    assert_eq!(phone.said(), ["settle?", "finish"]);
    assert_eq!(phone.hangup(), (HangupSide::Service, Some(503), "the service failed"));
    assert_eq!(end(&phone).failed.as_ref().map(|failed| failed.sip_code), Some(487));
    let mut phone = resumed(60, None);
    phone.time_out().settled();
    assert!(phone.core.is_over(), "a carrier that says nothing is not waited for");
}

/// The proof of a renewal that is asked now.
fn proof_of(actions: &[Action]) -> Option<Option<Now>> {
    actions.iter().find_map(|action| match action {
        Action::Ask(Ask::Renew { proof, .. }) => Some(*proof),
        _ => None,
    })
}

proptest! {
    /// Whatever the legs tell and when: what a renewal proves, and what a lost call is billed to, is never later than the
    /// caller's last sign of life, and nothing at all before both sides have given one.
    #[test]
    fn nothing_is_proved_but_by_signs_of_life(steps in proptest::collection::vec((0..4_u8, 0..15_000_u64), 1..40)) {
        let mut phone = resumed(60, Some(35));
        let (mut caller, mut callee, mut paid, mut step) = (None, false, 60, 2);
        for (what, ms) in steps {
            phone.wait(ms.min(u64::try_from(phone.due_in_ms().unwrap_or(0)).unwrap_or(0)));
            let proved = caller.filter(|_| callee);
            match what {
                0 => { phone.leg(LegEvent::Alive { leg: a() }); caller = Some(phone.now); }
                1 => { phone.leg(LegEvent::Alive { leg: b(3) }); callee = true; }
                2 if phone.core.next_timer().is_some_and(|at| at <= phone.now.mono) => {
                    let actions = phone.core.on(Input::TimeOut, phone.now);
                    let Some(proof) = proof_of(&actions) else { continue };
                    prop_assert_eq!(proof, proved);
                    (paid, step) = (paid + 60, step + 1);
                    phone.reply(Reply::Renewed(Renewed::Paid(funding(paid, 60, 7_200, step))));
                }
                3 if ms < 1_000 => {
                    phone.leg(LegEvent::Ended { leg: a(), cause: EndCause::Lost });
                    prop_assert_eq!(end(&phone).at, proved);
                    return Ok(());
                }
                _ => {}
            }
        }
    }
}
