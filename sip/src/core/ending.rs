//! How a leg ends: hung up, given up, or its phone out of reach.

use super::Core;
use super::exchange::Owner;
use super::leg::{Answer, Leg, Stage};
use super::peers::{Bound, Way};
use super::timers::Timer;
use crate::flow::Flow;
use crate::message::{HeaderName, Method, Reason};
use crate::transaction::GIVE_UP;
use schema::id::CredentialId;
use schema::leg::{EndCause, HangupCause, LegEvent, LegId};
use schema::time::{Mono, Now};
use std::time::Duration;

/// An ended dialog answers a repeated BYE for 64·T1; this many are remembered at most.
const ENDED_MAX: usize = 100_000;
/// An incoming INVITE that nobody decides about is answered after this (as timer C of RFC 3261 §16.6); whoever decides
/// has shorter limits of its own.
const UNDECIDED_MAX: Duration = Duration::from_secs(180);
/// How often legs are looked through for those that nobody cares about.
const SWEEP: Duration = Duration::from_secs(30);

/// A leg that is over, its BYE not sent: the phone's connection is gone.
pub(super) struct Parked {
    leg: Leg,
    cause: Option<HangupCause>,
    until: Mono,
}

/// Why a leg ends, in its BYE or CANCEL (RFC 3326). A carrier, and through it the person called, learns nothing of how the
/// customer's account stands, or who hung up how.
pub(super) fn reason(cause: HangupCause, is_customers: bool) -> Reason {
    match cause {
        _ if is_customers => Reason::q850(cause.q850().into(), cause.as_str()),
        HangupCause::NoAnswer => Reason::q850(cause.q850().into(), "call cleared"),
        _ => Reason::q850(16, "call cleared"),
    }
}

impl Core {
    /// Ends a leg in whatever state it is.
    pub(super) fn hang_up(&mut self, id: LegId, cause: HangupCause, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        match &leg.stage {
            Stage::Incoming(_) => {
                let status = match cause {
                    HangupCause::ServiceFailure => 500,
                    HangupCause::NoAnswer => 480,
                    _ => 487,
                };
                self.reject(id, status, Some(cause.as_str()), None, now);
            }
            Stage::Outgoing(_) => self.withdraw(id, cause, now),
            // A BYE must wait for the ACK (RFC 3261 §15).
            Stage::Up if leg.ok.as_ref().is_some_and(|ok| ok.kind != Answer::Refresh) => {
                leg.hang_up.get_or_insert(cause);
            }
            Stage::Answered { cseq, .. } => {
                let cseq = *cseq;
                self.acknowledge_unwanted(id, cseq);
                self.end_up(id, cause, now);
            }
            Stage::Up => self.end_up(id, cause, now),
        }
    }

    /// Hangs up a leg that is up. Of one that may be gone since the restart the end is told when its BYE is answered.
    pub(super) fn end_up(&mut self, id: LegId, cause: HangupCause, now: Now) {
        let in_doubt = self.legs.get(&id).is_some_and(|leg| leg.pulse.in_doubt);
        self.bye(id, Some(cause), now);
        if !in_doubt {
            self.tell(LegEvent::Ended { leg: id, cause: EndCause::HungUp }, now);
        }
    }

    /// Sends BYE and forgets the leg. A phone whose connection is gone gets it when it comes back within 64·T1.
    pub(super) fn bye(&mut self, id: LegId, cause: Option<HangupCause>, now: Now) {
        // The ACK is first, wherever it goes.
        self.end_search(id);
        let Some(mut leg) = self.forget_leg(id, now) else { return };
        leg.set_way(self.way_of(&leg));
        if matches!(leg.way(), Way::Gone(_)) {
            let until = now.mono + GIVE_UP;
            self.timers.set(until, Timer::Leg(id));
            self.parked.insert(id, Parked { leg, cause, until });
        } else {
            self.send_bye(id, leg, cause, now);
        }
    }

    fn send_bye(&mut self, id: LegId, mut leg: Leg, cause: Option<HangupCause>, now: Now) {
        let mut bye = leg.dialog.request(Method::Bye);
        if let Some(cause) = cause {
            bye = bye.header(HeaderName::Reason, &reason(cause, leg.phone.is_some()));
        }
        bye = self.by_path_of_leg(&leg, leg.way(), bye);
        let owner = if leg.pulse.in_doubt { Owner::Bye(id) } else { Owner::Nobody };
        let way = leg.way();
        let phone = leg.phone.map(|phone| Box::new((phone.credential, phone.instance)));
        let is_kept = self.request_alone(way, None, bye, owner, (leg.carrier, phone), now);
        if leg.pulse.in_doubt && !is_kept {
            self.on_bye_outcome(id, None, now);
        }
    }

    /// Where a leg's requests go now.
    pub(super) fn way_of(&self, leg: &Leg) -> Way {
        match (leg.way(), &leg.phone) {
            (Way::Gone(_), Some(phone)) => {
                self.registrar.flow_of(phone.credential, phone.instance.as_deref()).map_or(leg.way(), Way::Flow)
            }
            (way, _) => way,
        }
    }

    /// A phone of this credential has just registered: what waited for it leaves.
    pub(super) fn phone_came_back(&mut self, credential: CredentialId, now: Now) {
        let is_its = |parked: &Parked| parked.leg.phone.as_ref().is_some_and(|phone| phone.credential == credential);
        let its: Vec<LegId> = self.parked.iter().filter(|(_, parked)| is_its(parked)).map(|(id, _)| *id).collect();
        for id in its {
            let Some(way) = self.parked.get(&id).map(|parked| self.way_of(&parked.leg)) else { continue };
            if !matches!(way, Way::Gone(_))
                && let Some(Parked { mut leg, cause, .. }) = self.parked.remove(&id)
            {
                leg.set_way(way);
                self.send_bye(id, leg, cause, now);
            }
        }
        self.greet_phones(credential, now);
    }

    /// The phone did not come back.
    pub(super) fn parked_time(&mut self, id: LegId, now: Now) {
        if self.parked.get(&id).is_some_and(|parked| parked.until <= now.mono)
            && let Some(parked) = self.parked.remove(&id)
            && parked.leg.pulse.in_doubt
        {
            self.on_bye_outcome(id, None, now);
        }
    }

    /// The leg is over; its dialog answers repeated BYEs for a while.
    pub(super) fn forget_leg(&mut self, id: LegId, now: Now) -> Option<Leg> {
        let mut leg = self.legs.remove(&id)?;
        if let Stage::Incoming(incoming) = &leg.stage {
            self.overload.withdrawn(id.call, incoming.since);
        }
        if let Some(change) = leg.change.take() {
            self.drop_change(change, now);
        }
        self.dialogs.remove(leg.dialog.our_tag(), id);
        if let Some(phone) = &leg.phone {
            self.stop_waiting_for(phone.credential, id);
        }
        if matches!(leg.stage, Stage::Up | Stage::Answered { .. }) && self.ended.len() < ENDED_MAX {
            let (until, key) = (now.mono + GIVE_UP, leg.dialog.key());
            self.ended.insert(key.clone(), id.call);
            self.ended_order.push_back((until, key));
            self.arm_ended();
        }
        Some(leg)
    }

    /// One timer for all of them: the first one ends first.
    fn arm_ended(&mut self) {
        let first = self.ended_order.front().map(|(until, _)| *until);
        self.timers.arm(&mut self.ended_armed, first, || Timer::Ended);
    }

    pub(super) fn ended_time(&mut self, now: Now) {
        self.ended_armed = None;
        while self.ended_order.front().is_some_and(|(until, _)| *until <= now.mono) {
            if let Some((_, key)) = self.ended_order.pop_front() {
                self.ended.remove(&key);
            }
        }
        self.arm_ended();
    }

    /// A connection is over. Whoever was ringing us over it has given up; a call that is up goes on, and the phone is found by
    /// its next registration or request.
    pub(super) fn on_flow_closed(&mut self, flow: Flow, now: Now) {
        let Some(connection) = flow.connection else { return };
        self.registrar.connection_closed(connection);
        self.fail_flow(flow, now);
        for id in self.legs.over(Way::Flow(flow)).map(|(id, _)| *id).collect::<Vec<_>>() {
            self.legs.lead(&id, Way::Gone(flow.protocol));
            let Some(leg) = self.legs.get_mut(&id) else { continue };
            // Its 200 is repeated wherever the phone comes back.
            if let Some(ok) = leg.ok.as_mut().filter(|ok| ok.way == Way::Flow(flow)) {
                ok.way = Way::Gone(flow.protocol);
            }
            if let Stage::Incoming(incoming) = &leg.stage {
                let key = incoming.key.clone();
                self.close_server(&key);
                self.forget_leg(id, now);
                self.tell(LegEvent::Cancelled { leg: id }, now);
            }
        }
    }

    pub(super) fn arm_sweep(&mut self, now: Now) {
        if !std::mem::replace(&mut self.sweeping, true) {
            self.timers.set(now.mono + SWEEP, Timer::Sweep);
        }
    }

    /// Ends the legs that wait for a command which will never come: whoever had to give it is gone.
    pub(super) fn sweep_time(&mut self, now: Now) {
        self.sweeping = false;
        let forgotten = |leg: &Leg| match &leg.stage {
            Stage::Incoming(incoming) => now.mono.since(incoming.since) >= UNDECIDED_MAX,
            Stage::Answered { since, .. } => now.mono.since(*since) >= GIVE_UP,
            Stage::Outgoing(_) | Stage::Up => false,
        };
        let ids: Vec<LegId> = self.legs.iter().filter(|(_, leg)| forgotten(leg)).map(|(id, _)| *id).collect();
        for id in ids {
            if self.legs.get(&id).is_some_and(|leg| matches!(leg.stage, Stage::Incoming(_))) {
                self.reject(id, 504, None, None, now);
                self.tell(LegEvent::Cancelled { leg: id }, now);
            } else {
                self.hang_up(id, HangupCause::ServiceFailure, now);
            }
        }
        if !self.legs.is_empty() {
            self.arm_sweep(now);
        }
    }
}
