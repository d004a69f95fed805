//! Whether the far end of an answered leg is still there: in-dialog OPTIONS (RFC 5057 §5.1), and what its silence means.
//!
//! A customer's phone is asked every [`CoreConfig::dialog_probe`](super::CoreConfig::dialog_probe) in which nothing was heard
//! of it; after a restart both sides of a call are asked at once. A 481 or 408 ends the leg, as do two questions without an
//! answer, each asked by one of the phone's flows after the other; every other final answer shows that somebody is there. That is
//! more lenient than RFC 5057 §5.1: there are phones that refuse OPTIONS in a dialog with whatever they have, 404 among it. A phone
//! whose connection is gone is waited for.

use super::Core;
use super::exchange::Owner;
use super::leg::{Answer, Pending200};
use super::peers::Way;
use crate::message::Method;
use crate::transaction::{GIVE_UP, earliest};
use bytes::Bytes;
use schema::id::CredentialId;
use schema::leg::{EndCause, HangupCause, LegEvent, LegId};
use schema::time::{Mono, Now};
use std::time::Duration;

/// Probes without an answer until a leg counts as lost.
const MISSES_MAX: u8 = 2;
/// A leg that was asked so often and never answered is lost, too, though its connection ended each time before it had to.
const ASKED_MAX: u8 = 4;
/// Signs of life are told no more often than this.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// When the transaction table is full a probe is tried again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// What is known of the far end.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// When it is asked next.
    pub(super) due: Option<Mono>,
    /// It was resumed, and nothing was heard since.
    pub(super) in_doubt: bool,
    asking: bool,
    misses: u8,
    /// How often it was asked and has not answered, whatever became of its connections.
    asked: u8,
    told: Option<Mono>,
    /// Its phone is not connected, and waited for.
    absence: Option<Box<Absence>>,
}

/// A phone is waited for.
#[derive(Debug)]
struct Absence {
    until: Mono,
    /// A 200 that waits for it, with its CSeq.
    unsent: Option<(Bytes, u32)>,
}

impl Pulse {
    /// Of a leg after a restart.
    pub(super) fn in_doubt() -> Self {
        Self { in_doubt: true, ..Self::default() }
    }

    fn absent_until(&self) -> Option<Mono> {
        self.absence.as_ref().map(|absence| absence.until)
    }

    pub(super) fn next_time(&self) -> Option<Mono> {
        earliest(self.due, self.absent_until())
    }

    pub(super) fn is_due(&self, now: Mono) -> bool {
        self.next_time().is_some_and(|at| at <= now)
    }
}

impl Core {
    /// Asks a leg now. Where nobody is asked, it counts as there.
    pub(super) fn probe_leg(&mut self, id: LegId, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if !self.config.dialog_probe.is_zero() {
            leg.pulse.due = Some(now.mono);
            self.arm_leg(id);
        } else if std::mem::take(&mut leg.pulse.in_doubt) {
            self.tell(LegEvent::Unwatched { leg: id }, now);
        }
    }

    /// A probe is due, or the phone did not come back.
    pub(super) fn pulse_time(&mut self, id: LegId, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if leg.pulse.absent_until().is_some_and(|until| until <= now.mono) {
            return self.lost(id, true, now);
        }
        if leg.pulse.due.take().is_some() && leg.is_up() && !leg.pulse.asking {
            if leg.pulse.asked >= ASKED_MAX {
                return self.lost(id, true, now);
            }
            self.ask(id, now);
        }
    }

    fn ask(&mut self, id: LegId, now: Now) {
        let Some(way) = self.legs.get(&id).map(|leg| self.way_of(leg)) else { return };
        if matches!(way, Way::Gone(_)) {
            return self.wait_for_phone(id, now);
        }
        self.legs.lead(&id, way);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.pulse.asking = true;
        let options = leg.dialog.request(Method::Options);
        let is_kept = self.request(way, options, Owner::Pulse(id), now);
        let Some(pulse) = self.legs.get_mut(&id).map(|leg| &mut leg.pulse) else { return };
        if is_kept {
            pulse.asked += 1;
        } else {
            pulse.asking = false;
            pulse.due = Some(now.mono + AGAIN);
        }
    }

    pub(super) fn on_pulse_answer(&mut self, id: LegId, status: u16, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.pulse.asking = false;
        match status {
            481 => self.lost(id, false, now),
            408 => self.lost(id, true, now),
            _ => self.heard(id, now),
        }
    }

    /// No answer came; 503: it could not be sent.
    pub(super) fn on_pulse_unanswered(&mut self, id: LegId, status: u16, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.pulse.asking = false;
        leg.pulse.misses += 1;
        if leg.pulse.misses >= MISSES_MAX {
            return self.lost(id, true, now);
        }
        // What cannot be reached now has as much time to come back as one that is silent.
        let wait = if status == 503 { GIVE_UP } else { Duration::ZERO };
        leg.pulse.due = Some(now.mono + wait);
        self.arm_leg(id);
    }

    /// The connection over which it was asked is gone.
    pub(super) fn pulse_lost_its_way(&mut self, id: LegId, now: Now) {
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.pulse.asking = false;
            leg.pulse.due = Some(now.mono);
            self.arm_leg(id);
        }
    }

    /// The far end is there.
    pub(super) fn heard(&mut self, id: LegId, now: Now) {
        let every = self.config.dialog_probe;
        let Some(leg) = self.legs.get_mut(&id).filter(|_| !every.is_zero()) else { return };
        let is_customer = leg.phone.is_some();
        let pulse = &mut leg.pulse;
        (pulse.misses, pulse.asked) = (0, 0);
        pulse.due = is_customer.then(|| now.mono + every);
        let was_in_doubt = std::mem::replace(&mut pulse.in_doubt, false);
        let is_news = pulse.told.is_some_and(|told| now.mono.since(told) >= TELL_EVERY);
        let tells = was_in_doubt || (is_customer && is_news);
        if tells || pulse.told.is_none() {
            pulse.told = Some(now.mono);
        }
        if tells {
            self.tell(LegEvent::Alive { leg: id }, now);
        }
        self.arm_leg(id);
    }

    /// The far end is gone. Whoever may still believe in the call is sent a BYE.
    pub(super) fn lost(&mut self, id: LegId, may_listen: bool, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.pulse.in_doubt = false;
        if may_listen {
            self.bye(id, Some(HangupCause::ServiceFailure), now);
        } else {
            self.forget_leg(id, now);
        }
        self.tell(LegEvent::Ended { leg: id, cause: EndCause::Lost }, now);
    }

    /// What became of the BYE of a leg that was not known to be there.
    pub(super) fn on_bye_outcome(&mut self, id: LegId, status: Option<u16>, now: Now) {
        let cause = match status {
            None | Some(408 | 481) => EndCause::Lost,
            Some(_) => EndCause::HungUp,
        };
        self.tell(LegEvent::Ended { leg: id, cause }, now);
    }

    /// Sends the 200 of a leg when its phone comes back.
    pub(super) fn hold_answer(&mut self, id: LegId, bytes: Bytes, cseq: u32, now: Now) {
        self.wait_for_phone(id, now);
        if let Some(absence) = self.legs.get_mut(&id).and_then(|leg| leg.pulse.absence.as_mut()) {
            absence.unsent = Some((bytes, cseq));
        }
    }

    /// Waits for the phone of a leg to come back, 64·T1 from the first time on.
    pub(super) fn wait_for_phone(&mut self, id: LegId, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Some(phone) = &leg.phone else { return };
        let until = now.mono + GIVE_UP;
        leg.pulse.absence.get_or_insert_with(|| Box::new(Absence { until, unsent: None }));
        self.absent.entry(phone.credential).or_default().insert(id);
        self.arm_leg(id);
    }

    /// Nobody waits for the phone of this leg any more. True when somebody did.
    pub(super) fn stop_waiting_for(&mut self, credential: CredentialId, id: LegId) -> bool {
        let Some(legs) = self.absent.get_mut(&credential) else { return false };
        let did = legs.remove(&id);
        if legs.is_empty() {
            self.absent.remove(&credential);
        }
        did
    }

    /// A phone of this credential can be reached again: what its legs have to say leaves.
    pub(super) fn greet_phones(&mut self, credential: CredentialId, now: Now) {
        for id in self.absent.get(&credential).cloned().unwrap_or_default() {
            self.phone_is_there(id, now);
        }
    }

    /// What waits for the phone of this leg leaves, if there is a way now.
    pub(super) fn phone_is_there(&mut self, id: LegId, now: Now) {
        let Some(leg) = self.legs.get(&id) else { return };
        let (way, credential) = (self.way_of(leg), leg.phone.as_ref().map(|phone| phone.credential));
        let (Way::Flow(flow), Some(credential)) = (way, credential) else { return };
        if !self.stop_waiting_for(credential, id) {
            return;
        }
        self.legs.lead(&id, way);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let unsent = leg.pulse.absence.take().and_then(|absence| absence.unsent);
        match unsent {
            Some((bytes, cseq)) => {
                let first = Pending200::first(bytes.clone(), flow, cseq, leg.offerless, now.mono);
                leg.ok = Some(Box::new(Pending200 { kind: Answer::Again, ..first }));
                self.send(way, bytes);
            }
            None => {
                leg.pulse.due.get_or_insert(now.mono);
            }
        }
        self.arm_leg(id);
    }

    /// The ACK of a 200 did not come in time. After a restart that is no proof that nobody is there: it may have come before.
    pub(super) fn unacknowledged(&mut self, id: LegId, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let (ok, hang_up) = (leg.ok.take(), leg.hang_up.take());
        match (ok.map(|ok| ok.kind), hang_up) {
            (Some(Answer::Again), Some(cause)) => self.end_up(id, cause, now),
            (Some(Answer::Again), None) => self.probe_leg(id, now),
            _ => {
                self.bye(id, Some(HangupCause::ServiceFailure), now);
                self.tell(LegEvent::Ended { leg: id, cause: EndCause::NoAck }, now);
            }
        }
    }
}
