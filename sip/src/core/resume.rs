//! Legs of calls that were up when the process before this one ended.

use super::incoming::with_sdp;
use super::leg::{Answer, Leg, Pending200, Stage};
use super::liveness::Pulse;
use super::matching::ServerKey;
use super::peers::{Bound, Way};
use super::session_timer::SessionTimer;
use super::{Core, dispatch::ALLOW};
use crate::dialog::{Dialog, Stored, StoredInvite};
use crate::flow::Flow;
use crate::message::{HeaderName, Malformed, Message, Method, NameAddr, Reason, RequestBuilder, ResponseBuilder, Via};
use schema::leg::{Checkpoint, EndCause, HangupCause, Invite, LegEvent, LegId, Sdp, TakeBack};
use schema::time::Now;

impl Core {
    /// Keeps a request of an unknown dialog while dialogs are resumed. Gives it back when none will be.
    pub(super) fn wait_for_dialog(&mut self, flow: Flow, request: Message, now: Now) -> Option<Message> {
        let is_trunk = self.is_trunk(flow);
        let Some(early) = &mut self.early else { return Some(request) };
        if !early.keep(flow, request, now, is_trunk) {
            tracing::debug!("a request that waits for its dialog is dropped: too many do");
        }
        None
    }

    /// Whether dialogs are resumed still.
    pub(super) const fn is_recovering(&self) -> bool {
        self.early.is_some()
    }

    /// All dialogs are resumed: what waited for them is taken, in order, as of when it came.
    pub(super) fn recovered(&mut self) {
        for (flow, request, at) in self.early.take().unwrap_or_default().into_waiting() {
            self.on_request(flow, request, at);
        }
    }

    /// Takes up an answered dialog again. Nothing is sent: the other side need not notice.
    pub(super) fn resume(&mut self, id: LegId, checkpoint: &Checkpoint, now: Now) {
        if self.legs.contains_key(&id) {
            return;
        }
        match Leg::resumed(checkpoint, now.wall) {
            Ok(mut leg) => {
                if let Stage::Answered { since, .. } = &mut leg.stage {
                    *since = now.mono;
                    self.arm_sweep(now);
                }
                leg.pulse = Pulse::in_doubt();
                if let (Way::To(destination), Some(host)) = (leg.way(), &leg.server) {
                    leg.set_way(Way::To(self.named(destination, host)));
                }
                self.resume_timer(&mut leg, now);
                self.dialogs.insert(leg.dialog.our_tag(), id);
                self.legs.insert(id, leg);
                self.arm_leg(id);
            }
            Err(Malformed) => self.tell(LegEvent::Ended { leg: id, cause: EndCause::Lost }, now),
        }
    }

    /// The 200 of an A-leg that was answered shortly before the restart: it may never have left, or its ACK not have come. A
    /// caller that has it acknowledges it again (RFC 3261 §13.2.2.4). Over TCP and TLS it waits for the phone to come back.
    pub(super) fn accept_again(&mut self, id: LegId, sdp: Option<&Sdp>, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Some(invite) = leg.unconfirmed.take() else {
            // It was acknowledged: the other leg's ACK may have been lost with the process before.
            let answer = leg.remote_sdp.clone().filter(|_| leg.offerless);
            if answer.is_some() {
                self.tell(LegEvent::Confirmed { leg: id, answer }, now);
            }
            return self.probe_leg(id, now);
        };
        let body = self.describe(id, sdp);
        let Some(leg) = self.legs.get(&id) else { return };
        let way = self.way_of(leg);
        let Ok(invite) = invite_of(&leg.dialog, &invite) else { return };
        let response = ResponseBuilder::to_request(&invite, 200, leg.dialog.local.tag())
            .record_route()
            .contact(&leg.contact)
            .header(HeaderName::Allow, &ALLOW);
        let response = SessionTimer::in_response(leg.timer.as_ref(), response);
        let Ok(bytes) = with_sdp(response, body).build() else { return };
        let cseq = invite.cseq().0;
        let Way::Flow(flow) = way else { return self.hold_answer(id, bytes, cseq, now) };
        let first = Pending200::first(bytes.clone(), flow, cseq, leg.offerless, now.mono);
        self.legs.lead(&id, way);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.ok = Some(Box::new(Pending200 { kind: Answer::Again, ..first }));
        self.send(way, bytes);
        self.arm_leg(id);
    }

    /// Ends a call that rang when the process before this one ended. The INVITE is the same byte for byte, so the carrier takes
    /// it for a repetition, or for the first when that never left, and says something that allows a CANCEL.
    pub(super) fn take_back(&mut self, call: TakeBack, now: Now) {
        let TakeBack { leg, checkpoint, invite, retry_after_s } = call;
        if let Some(invite) = invite {
            let offer = Stored::read(&checkpoint).ok().and_then(|stored| stored.remote_sdp);
            let id = invite.leg;
            let caller = Leg::resumed(&checkpoint, now.wall).map(|leg| leg.way().protocol());
            self.invite(Invite { offer: offer.map(|sdp| Sdp::new(sdp.into())), ..*invite }, caller.ok(), now);
            if let Some(Stage::Outgoing(outgoing)) = self.legs.get_mut(&id).map(|leg| &mut leg.stage) {
                outgoing.is_repeated = true;
            }
            self.withdraw(id, HangupCause::ServiceFailure, now);
        }
        if self.refuse_again(&checkpoint, retry_after_s, now).is_err() {
            tracing::warn!(call_id = %leg.call, "a caller that was ringing cannot be told that its call is over");
        }
    }

    /// The final answer of an INVITE that the process before left without one, repeated until its ACK. Over a connection the
    /// caller has given up with the connection.
    ///
    /// # Errors
    /// When what was stored cannot be read.
    fn refuse_again(&mut self, checkpoint: &Checkpoint, retry_after_s: u32, now: Now) -> Result<(), Malformed> {
        let leg = Leg::resumed(checkpoint, now.wall)?;
        let Way::Flow(flow) = self.way_of(&leg) else { return Ok(()) };
        let invite = invite_of(&leg.dialog, leg.unconfirmed.as_ref().ok_or(Malformed)?)?.with_source(flow.peer);
        let key = ServerKey::of(&invite, &Method::Invite);
        if self.servers.contains_key(&key) {
            return Ok(());
        }
        let cause = HangupCause::ServiceFailure;
        let response = ResponseBuilder::to_request(&invite, 503, leg.dialog.local.tag())
            .header(HeaderName::Reason, &Reason::sip(503, cause.as_str()))
            .header(HeaderName::RetryAfter, &retry_after_s);
        self.open_server(&key, flow, &invite, now);
        self.respond(&key, response, now);
        Ok(())
    }
}

/// An INVITE to us as far as its responses need it.
///
/// # Errors
/// When what was stored cannot be written.
fn invite_of(dialog: &Dialog, stored: &StoredInvite) -> Result<Message, Malformed> {
    let mut invite = RequestBuilder::new(Method::Invite, dialog.local.uri()?)
        .from(&dialog.remote)
        .to(&dialog.local)
        .call_id(&dialog.call_id)
        .cseq(stored.cseq)
        .contact(&NameAddr::new(dialog.target.clone()));
    for via in &stored.vias {
        invite = invite.via(&Via::parse(via)?);
    }
    for route in &dialog.routes {
        invite = invite.header(HeaderName::RecordRoute, route);
    }
    let bytes = invite.build().map_err(|_| Malformed)?;
    Message::parse_datagram(&bytes).map_err(|_| Malformed)
}
