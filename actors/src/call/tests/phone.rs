//! A call machine with a log of what it wants done.

use crate::account::authorize::{Authorized, CallRequest, Funding, Grant};
use crate::account::caller_id::CallerChoice;
use crate::account::failover::NextAttempt;
use crate::account::settle::{CallEnd, Settled};
use crate::call::machine::CallCore;
use crate::call::protocol::{Action, Ask, CallersSide, Input, Progress, Reply};
use crate::routing::tests::trunk;
use schema::call::{Attempt, Call, CallMode, CallState, Explanation, HangupSide, LegSide};
use schema::carrier::{Gateway, GatewayTransport};
use schema::id::{CallId, CallNo};
use schema::leg::{AttemptIds, Checkpoint, LegCommand, LegEvent, LegId};
use schema::money::{Currency, Micros};
use schema::number::{E164, Presentation, PresentedNumber, ServiceNumber};
use schema::pii::Pii;
use schema::rate::RateTerms;
use schema::time::{Mono, Now, Timestamp};
use std::time::Duration;
use uuid::Uuid;

pub(super) const CALL: CallId = CallId(Uuid::from_u128(9));

pub(super) struct Phone {
    pub(super) core: CallCore,
    pub(super) now: Now,
    pub(super) log: Vec<String>,
    pub(super) end: Option<CallEnd>,
    /// The proof of life that its last renewal told.
    pub(super) proof: Option<Now>,
}

pub(super) fn start() -> Phone {
    start_with(true)
}

fn start_with(is_watched: bool) -> Phone {
    let now = Now { mono: Mono(1_000_000_000), wall: Timestamp(1_700_000_000_000_000) };
    let request = CallRequest {
        call: CALL,
        mode: CallMode::Softphone,
        credential: None,
        dialled: Pii::new("+447700900123".into()),
        caller_id: CallerChoice::Default,
        withhold: false,
        needs_tls: false,
        a_leg: None,
        at: now,
    };
    let (core, actions) = CallCore::begin(request, CallersSide { offer: None, is_watched }, 7);
    let mut phone = Phone { core, now, log: Vec::new(), end: None, proof: None };
    phone.note(actions);
    phone
}

pub(super) fn number() -> E164 {
    E164::parse("+447700900123").expect("valid")
}

pub(super) fn grant(attempt: u8, paid_s: u64, limit_s: u64) -> Grant {
    Grant { attempt: running(attempt), ..grant_of(paid_s, limit_s) }
}

pub(super) fn grant_of(paid_s: u64, limit_s: u64) -> Grant {
    Grant {
        no: CallNo(1),
        attempt: running(1),
        trusted: false,
        destination: number(),
        presentation: Presentation::Shown(PresentedNumber::service(&ServiceNumber(number()))),
        funding: funding(paid_s, paid_s, limit_s, 0),
    }
}

pub(super) const fn funding(paid_s: u64, slice_s: u64, limit_s: u64, step: u32) -> Funding {
    Funding { paid_s, slice_s, limit_s, step }
}

pub(super) fn running(number: u8) -> Attempt {
    let trunk = trunk(u128::from(number), 1);
    Attempt {
        number,
        trunk: trunk.id,
        carrier: trunk.name,
        gateway: Gateway { transport: GatewayTransport::Udp, address: ([127, 0, 0, 1], 5070).into() },
        name: None,
        tried: Vec::new(),
        ids: AttemptIds { call_id: "c".into(), from_tag: "t".into(), branch: "b".into(), cseq: 1 },
        cost: RateTerms::FREE,
        cost_currency: trunk.currency,
        started_at: Timestamp(0),
    }
}

pub(super) fn ended_call() -> Call {
    Call {
        id: CALL,
        state: CallState::Ended,
        mode: CallMode::Softphone,
        dialled: None,
        destination: None,
        presented_number: None,
        withheld: false,
        attestation: None,
        started_at: Timestamp(0),
        answered_at: None,
        ended_at: None,
        currency: Currency::parse("EUR").expect("a currency"),
        cost: Micros(0),
        billed_seconds: 0,
        legs: Vec::new(),
        funded_until: None,
        route: None,
        post_dial_delay_ms: None,
        hangup: None,
        explanation: Explanation::default(),
    }
}

pub(super) fn leg(leg: LegId) -> String {
    match leg.side {
        LegSide::A => "a".into(),
        LegSide::B => format!("b{}", leg.attempt),
    }
}

pub(super) fn checkpoint() -> Checkpoint {
    Checkpoint { state: Pii::new("dialog".into()) }
}

pub(super) fn b(attempt: u8) -> LegId {
    LegId::b(CALL, attempt)
}

pub(super) fn a() -> LegId {
    LegId::a(CALL)
}

impl Phone {
    pub(super) fn note(&mut self, actions: Vec<Action>) {
        for action in actions {
            let line = match action {
                Action::Leg(LegCommand::Invite(invite)) => {
                    format!("invite {} {}s", leg(invite.leg), invite.ring_timeout_s)
                }
                Action::Leg(LegCommand::Progress { leg: to, status, .. }) => format!("{status} {}", leg(to)),
                Action::Leg(LegCommand::Accept { leg: to, .. }) => format!("accept {}", leg(to)),
                Action::Leg(LegCommand::Reject { leg: to, status, .. }) => format!("reject {} {status}", leg(to)),
                Action::Leg(LegCommand::Confirm { leg: to, answer }) => {
                    let answer = answer.map_or_else(String::new, |sdp| format!(" {}", sdp.expose()));
                    format!("confirm {}{answer}", leg(to))
                }
                Action::Leg(LegCommand::HangUp { leg: to, cause }) => format!("hang up {} {cause:?}", leg(to)),
                Action::Leg(LegCommand::Resume { leg: to, .. }) => format!("resume {}", leg(to)),
                Action::Leg(LegCommand::Settled { .. }) => "settled".into(),
                Action::Leg(LegCommand::Probe { leg: to }) => format!("probe {}", leg(to)),
                Action::Leg(LegCommand::Offer { leg: to, offer }) => format!("offer {} {}", leg(to), offer.expose()),
                Action::Leg(LegCommand::AnswerOffer { leg: to, answer }) => {
                    format!("answer {} {:?}", leg(to), answer.as_ref().map(|sdp| sdp.expose()))
                }
                Action::Leg(LegCommand::PressKey { leg: to, key }) => {
                    format!("key {} {}", leg(to), key.signal.expose())
                }
                Action::Leg(LegCommand::TakeBack(call)) => {
                    let invite = call.invite.map_or_else(String::new, |invite| format!(" and {}", leg(invite.leg)));
                    format!("take back {}{invite}", leg(call.leg))
                }
                Action::Ask(Ask::Authorize(_)) => "authorize?".into(),
                Action::Ask(Ask::NextAttempt(failed)) => {
                    format!("next after {} {}?", failed.number, failed.sip_code)
                }
                Action::Ask(Ask::Answer(_)) => "answer?".into(),
                Action::Ask(Ask::Renew { step, proof, .. }) => {
                    self.proof = proof;
                    format!("renew {step}?")
                }
                Action::Ask(Ask::Settle(end)) => {
                    self.end = Some((*end).clone());
                    "settle?".into()
                }
                Action::Keep(side, _) => format!("keep {side:?}"),
                Action::Show(Progress::Ringing { post_dial_delay_ms }) => format!("ringing {post_dial_delay_ms}"),
                Action::Show(Progress::Ending) | Action::Note(_) => continue,
                Action::Finish(_) => "finish".into(),
            };
            self.log.push(line);
        }
    }

    pub(super) fn on(&mut self, input: Input) -> &mut Self {
        let actions = self.core.on(input, self.now);
        self.note(actions);
        self
    }

    pub(super) fn leg(&mut self, event: LegEvent) -> &mut Self {
        self.on(Input::Leg(event))
    }

    pub(super) fn reply(&mut self, reply: Reply) -> &mut Self {
        self.on(Input::Reply(reply))
    }

    pub(super) fn granted(&mut self, attempt: u8) -> &mut Self {
        self.reply(Reply::Authorized(Authorized::Granted(Box::new(grant(attempt, 60, 7_200)))))
    }

    pub(super) fn next(&mut self, attempt: Option<u8>) -> &mut Self {
        let next = attempt.map_or(NextAttempt::NoRoute, |n| NextAttempt::Granted(Box::new(grant(n, 60, 7_200))));
        self.reply(Reply::NextAttempt(next))
    }

    pub(super) fn progress(&mut self, attempt: u8) -> &mut Self {
        self.leg(LegEvent::Progress { leg: b(attempt), status: 180, sdp: None, rings: true })
    }

    pub(super) fn answered(&mut self, attempt: u8) -> &mut Self {
        self.leg(LegEvent::Answered { leg: b(attempt), sdp: None, offers: false, checkpoint: checkpoint() })
    }

    pub(super) fn failed(&mut self, attempt: u8, status: u16) -> &mut Self {
        self.leg(LegEvent::Failed { leg: b(attempt), status, q850: None, rang: false, redress: None, answered: false })
    }

    pub(super) fn stored(&mut self, paid_s: u64) -> &mut Self {
        self.reply(Reply::Answered(Some(funding(paid_s, paid_s, 7_200, 0))))
    }

    pub(super) fn settled(&mut self) -> &mut Self {
        self.reply(Reply::Settled(Settled::Done(Box::new(ended_call()))))
    }

    pub(super) fn wait(&mut self, ms: u64) -> &mut Self {
        self.now = self.now.after(Duration::from_millis(ms));
        self
    }

    /// Lets time pass to the next timer and tells the machine.
    pub(super) fn time_out(&mut self) -> &mut Self {
        let at = self.core.next_timer().expect("a timer is set");
        self.now = self.now.after(at.since(self.now.mono));
        self.on(Input::TimeOut)
    }

    pub(super) fn due_in_ms(&self) -> Option<u128> {
        self.core.next_timer().map(|at| at.since(self.now.mono).as_millis())
    }

    pub(super) fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    pub(super) fn talking(paid_s: u64) -> Self {
        start().talks(paid_s)
    }

    /// Of a caller whom nobody asks whether it is there.
    pub(super) fn unwatched(paid_s: u64) -> Self {
        start_with(false).talks(paid_s)
    }

    fn talks(self, paid_s: u64) -> Self {
        let mut phone = self;
        phone.granted(1).answered(1).stored(paid_s);
        phone.log.clear();
        phone
    }

    pub(super) fn hangup(&self) -> (HangupSide, Option<u16>, &str) {
        let hangup = &self.end.as_ref().expect("settled").hangup;
        (hangup.side, hangup.sip_code, hangup.reason.as_str())
    }
}
