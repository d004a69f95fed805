//! A-legs: an INVITE to us, from the first message to the ACK of its 200.

use super::change::Change;
use super::leg::{Answer, Incoming, Leg, Pending200, Phone, Stage};
use super::matching::{MergeKey, ServerKey};
use super::offer::{is_usable, usable_sdp};
use super::peers::{Bound, Way};
use super::reliable::{Reliable, requires_reliable};
use super::session_timer::SessionTimer;
use super::timers::{Timer, Timers};
use super::told::Told;
use super::wish::{caller_id_wish, lacks_privacy, wants_privacy};
use super::{Core, dialled::dialled, dispatch::ALLOW};
use crate::dialog::Dialog;
use crate::flow::{Flow, Protocol};
use crate::message::{self, AddressText, HeaderName, Message, Method, NameAddr, ResponseBuilder, Scheme, Uri};
use crate::overload::Reason;
use crate::sdp::{self, Description, Keys, Origin};
use bytes::Bytes;
use schema::account::SipCredential;
use schema::id::{CallId, CredentialId};
use schema::leg::{EndCause, HangupCause, Invited, LegEvent, LegId, Sdp};
use schema::pii::Pii;
use schema::time::Now;

/// Why an offer is refused whose media are encrypted with keys that came in clear.
const KEYS_IN_CLEAR: &str = "keys of media (SDES) need TLS";
/// Why an offer is refused of which no stream passes.
const NOTHING_PASSES: &str = "no audio, video or text over RTP";

impl Core {
    /// An INVITE outside a dialog.
    pub(super) fn on_invite(&mut self, flow: Flow, request: Message, key: ServerKey, now: Now) {
        if self.is_trunk(flow) {
            // Carriers do not call in: there is nobody to ring.
            return self.refuse(flow, &request, 404);
        }
        if self.is_barred(flow) {
            return self.refuse(flow, &request, 403);
        }
        if let Err(status) = self.check_target(&request) {
            return self.refuse(flow, &request, status);
        }
        if let Err(words) = self.dialled(&request) {
            let response = self.response(&request, 484).header(HeaderName::Reason, &message::Reason::sip(484, words));
            return self.reply(flow, &request, response);
        }
        if let Some(response) = self.unsupported_extensions(&request) {
            return self.reply(flow, &request, response);
        }
        if let Some(words) = lacks_privacy(&request) {
            // RFC 3323 §5.
            let response = self.response(&request, 500).header(HeaderName::Reason, &message::Reason::sip(500, words));
            return self.reply(flow, &request, response);
        }
        if let Some(response) = self.interval_too_small(&request) {
            return self.reply(flow, &request, response);
        }
        if !request.body().is_empty() && !request.has_sdp() {
            let response = self.unsupported_body(&request);
            return self.reply(flow, &request, response);
        }
        if !accepts_sdp(&request) {
            return self.refuse(flow, &request, 406);
        }
        if self.invites.contains(&MergeKey::of(&request)) {
            return self.refuse(flow, &request, 482);
        }
        if self.is_full_of_legs() {
            return self.shed(flow, &request, Reason::Live, now);
        }
        self.authenticate(flow, request, key, now);
    }

    /// # Errors
    /// Why what it asks for cannot be dialled.
    fn dialled(&self, invite: &Message) -> Result<String, &'static str> {
        let uri = invite.request_uri().ok_or("no number")?;
        dialled(uri, |host| self.config.is_ours(host))
    }

    /// The INVITE is authenticated: a new A-leg.
    pub(super) fn invited(
        &mut self,
        flow: Flow,
        invite: Message,
        key: &ServerKey,
        credential: &SipCredential,
        now: Now,
    ) {
        let from = invite.from();
        match self.incoming_leg(flow, &invite, &from, key, credential.id, now) {
            Ok(leg) => {
                let id = LegId::a(CallId::generate(&mut self.entropy, now.wall));
                let event = Invited {
                    leg: id,
                    account: credential.account,
                    credential: credential.id,
                    dialled: Pii::new(self.dialled(&invite).unwrap_or_default()),
                    wanted_caller_id: caller_id_wish(&invite, &from.uri, &credential.username),
                    withhold: wants_privacy(&invite, &from),
                    // Over anything else it would not be usable.
                    needs_tls: flow.protocol == Protocol::Tls
                        && invite.has_sdp()
                        && !is_usable(invite.body(), Keys::Withheld),
                    offer: leg.remote_sdp.clone(),
                    is_watched: !self.config.dialog_probe.is_zero(),
                    checkpoint: leg.checkpoint(self.config.sdp_address, now.wall),
                };
                if let Some(exchange) = self.servers.get_mut(key) {
                    exchange.leg = Some(id);
                }
                self.dialogs.insert(leg.dialog.our_tag(), id);
                self.legs.insert(id, leg);
                self.arm_sweep(now);
                self.overload.asked(id.call, now.mono);
                self.tell(LegEvent::Invited(Box::new(event)), now);
            }
            Err(status) => {
                let mut response = self.response(&invite, status);
                if status == 488 {
                    let needs_keys = is_usable(invite.body(), Keys::Pass);
                    let words = if needs_keys { KEYS_IN_CLEAR } else { NOTHING_PASSES };
                    response = response.header(HeaderName::Reason, &message::Reason::sip(status, words));
                }
                self.respond(key, response, now);
            }
        }
    }

    /// # Errors
    /// The status to answer with: a session description that cannot be read or of which nothing would pass.
    fn incoming_leg(
        &mut self,
        flow: Flow,
        invite: &Message,
        from: &NameAddr,
        key: &ServerKey,
        credential: CredentialId,
        now: Now,
    ) -> Result<Leg, u16> {
        let offerless = !invite.has_sdp();
        let keys = if flow.protocol == Protocol::Tls { Keys::Pass } else { Keys::Withheld };
        if !offerless && !is_usable(invite.body(), keys) {
            return Err(if Description::parse(invite.body()).is_err() { 400 } else { 488 });
        }
        let tag = self.entropy.hex::<8>();
        let dialog = Dialog::of_invite(invite, from, &tag).map_err(|_| 400_u16)?;
        // A random user, so that legs cannot be linked.
        let user = self.entropy.hex::<8>();
        let contact = match invite.request_uri().map(Uri::scheme) {
            // All of the way is over TLS, and so is what comes back (RFC 3261 §12.1.1, §26.2.2).
            Some(Scheme::Sips) if flow.protocol != Protocol::Tls => return Err(416),
            Some(Scheme::Sips) => self.contact_sips(flow, &user),
            _ => self.contact(Way::Flow(flow), &user),
        };
        let contact = contact.ok_or(500_u16)?;
        let reply = self.phone_heard(credential, flow, invite);
        let instance = self.registrar.instance_at(credential, reply).map(Box::from);
        let incoming = Incoming { key: key.clone(), invite: invite.clone(), since: now.mono };
        let stage = Stage::Incoming(Box::new(incoming));
        let origin = Origin::fresh(&mut self.entropy);
        let mut leg = Leg::new(stage, dialog, AddressText::from(&contact), Way::Flow(reply), origin);
        leg.phone = Some(Box::new(Phone { credential, instance, ip: flow.ip() }));
        leg.offerless = offerless;
        leg.remote_sdp = sdp_of(invite);
        leg.reliable = Reliable::wanted_by(invite, self.first_rseq());
        leg.timer = SessionTimer::asked(invite, None, now.mono);
        Ok(leg)
    }

    /// A number to count reliable responses from, 1 to 2³¹ - 1 (RFC 3262 §3).
    fn first_rseq(&mut self) -> u32 {
        u32::try_from(1 + self.entropy.below((1 << 31) - 1)).unwrap_or(1)
    }

    /// Our Contact on a leg that goes this way.
    pub(super) fn contact(&self, way: Way, user: &str) -> Option<NameAddr> {
        let protocol = way.protocol();
        let advertised = self.config.advertised(protocol, way.is_ipv6())?;
        let uri = Uri::sip(Some(user), &advertised.host, Some(advertised.port)).ok()?;
        let transport = match protocol {
            Protocol::Udp => return Some(NameAddr::new(uri)),
            Protocol::Tcp => "tcp",
            Protocol::Tls => "tls",
        };
        Some(NameAddr::new(uri.with_param("transport", Some(transport)).ok()?))
    }

    fn contact_sips(&self, flow: Flow, user: &str) -> Option<NameAddr> {
        let advertised = self.config.advertised(flow.protocol, flow.ip().is_ipv6())?;
        Some(NameAddr::new(Uri::sips(Some(user), &advertised.host, Some(advertised.port)).ok()?))
    }

    /// The session description for this leg out of what another leg sent: built anew by an allow-list.
    pub(super) fn describe(&mut self, leg: LegId, theirs: Option<&Sdp>) -> Option<Bytes> {
        let theirs = theirs?;
        let description = Description::parse(theirs.expose().as_bytes()).ok()?;
        if let Some(leg) = self.legs.get_mut(&leg).filter(|leg| leg.local_sdp.is_some()) {
            leg.origin = leg.origin.next();
        }
        self.write_session(leg, &description, Some(theirs))
    }

    /// Writes a leg's session description and notes it; `theirs`: of which it is the description as it is.
    pub(super) fn write_session(
        &mut self,
        id: LegId,
        description: &Description,
        theirs: Option<&Sdp>,
    ) -> Option<Bytes> {
        let (ours, keys) = self.written(description, id, self.legs.get(&id)?);
        let told = theirs.map_or_else(|| Told::Text(Box::from(&*ours)), |theirs| Told::Of(theirs.clone(), keys));
        self.legs.get_mut(&id)?.local_sdp = Some(told);
        Some(ours)
    }

    /// A 18x.
    pub(super) fn progress(&mut self, id: LegId, status: u16, sdp: Option<&Sdp>, now: Now) {
        if !(180..=189).contains(&status)
            || !self.legs.get(&id).is_some_and(|leg| matches!(leg.stage, Stage::Incoming(_)))
        {
            return;
        }
        let Some(leg) = self.legs.get(&id) else { return };
        let Stage::Incoming(incoming) = &leg.stage else { return };
        if leg.reliable.is_some() {
            return self.progress_reliably(id, status, sdp, now);
        }
        if requires_reliable(&incoming.invite) {
            // It would have to hold our offer, which is not known yet: the caller hears the answer only.
            return;
        }
        let body = self.describe_again(id, sdp);
        let Some(leg) = self.legs.get(&id) else { return };
        let Stage::Incoming(incoming) = &leg.stage else { return };
        let Incoming { key, invite, .. } = &**incoming;
        let response = with_sdp(provisional(invite, status, &leg.dialog, &leg.contact), body);
        let key = key.clone();
        self.respond(&key, response, now);
    }

    /// The 200. It is repeated until its ACK, over every transport (RFC 3261 §13.3.1.4).
    pub(super) fn accept(&mut self, id: LegId, sdp: Option<&Sdp>, now: Now) {
        if !self.legs.get(&id).is_some_and(|leg| matches!(leg.stage, Stage::Incoming(_))) {
            return self.accept_again(id, sdp, now);
        }
        if !self.may_accept(id, sdp) {
            return;
        }
        let body = self.describe_answer(id, sdp);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Stage::Incoming(incoming) = &leg.stage else { return };
        let Incoming { key, invite, .. } = &**incoming;
        let response = ResponseBuilder::to_request(invite, 200, leg.dialog.local.tag())
            .record_route()
            .contact(&leg.contact)
            .header(HeaderName::Allow, &ALLOW);
        let response = SessionTimer::in_response(leg.timer.as_ref(), response);
        let (key, cseq) = (key.clone(), invite.cseq().0);
        let Ok(bytes) = with_sdp(response, body).build() else { return };
        let Way::Flow(flow) = leg.way() else { return };
        leg.ok = Some(Box::new(Pending200::first(bytes.clone(), flow, cseq, leg.offerless, now.mono)));
        leg.stage = Stage::Up;
        if let Some(timer) = &mut leg.timer {
            timer.restart(now.mono);
        }
        self.respond_bytes(&key, bytes, now);
        self.arm_leg(id);
    }

    /// A final failure.
    pub(super) fn reject(
        &mut self,
        id: LegId,
        status: u16,
        reason: Option<&str>,
        retry_after_s: Option<u32>,
        now: Now,
    ) {
        let Some(leg) = self.legs.get(&id) else { return };
        let Stage::Incoming(incoming) = &leg.stage else { return };
        let Incoming { key, invite, .. } = &**incoming;
        let status = if (400..=699).contains(&status) { status } else { 500 };
        let mut response = ResponseBuilder::to_request(invite, status, leg.dialog.local.tag());
        if let Some(text) = reason {
            response = response.header(HeaderName::Reason, &message::Reason::sip(status, text));
        }
        if let Some(seconds) = retry_after_s {
            response = response.header(HeaderName::RetryAfter, &seconds);
        }
        let key = key.clone();
        self.respond(&key, response, now);
        self.forget_leg(id, now);
    }

    pub(super) fn on_cancel(&mut self, flow: Flow, cancel: &Message, now: Now) {
        let invite_key = ServerKey::of(cancel, &Method::Invite);
        let Some(leg) = self.servers.get(&invite_key).map(|exchange| exchange.leg) else {
            return self.refuse(flow, cancel, 481);
        };
        // The CANCEL succeeds whatever becomes of the INVITE (RFC 3261 §9.2).
        let tag = leg.and_then(|id| self.legs.get(&id)).and_then(|leg| leg.dialog.local.tag().map(str::to_owned));
        let tag = tag.unwrap_or_else(|| self.tag_of(cancel));
        self.answer(flow, cancel, ResponseBuilder::to_request(cancel, 200, Some(&tag)), now);
        let Some(id) = leg else {
            self.withdraw_lookup(&invite_key, now);
            return self.withdraw_offer(cancel, &invite_key, now);
        };
        let Some(Leg { stage: Stage::Incoming(incoming), dialog, .. }) = self.legs.get(&id) else { return };
        let response = ResponseBuilder::to_request(&incoming.invite, 487, dialog.local.tag());
        let key = incoming.key.clone();
        self.respond(&key, response, now);
        self.forget_leg(id, now);
        self.tell(LegEvent::Cancelled { leg: id }, now);
    }

    /// The ACK of a 2xx of ours.
    pub(super) fn on_ack(&mut self, ack: &Message, now: Now) {
        let Some(id) = self.leg_of(ack) else { return };
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if leg.dialog.remote.tag() != ack.from_tag() || leg.ok.as_ref().is_none_or(|ok| ok.cseq != ack.cseq().0) {
            return;
        }
        let Some(ok) = leg.ok.take() else { return };
        let hang_up = leg.hang_up.take();
        match (ok.kind, ok.offers) {
            (Answer::Refresh, true) => self.on_answer_in_ack(id, ack, now),
            (Answer::Refresh, false) => {}
            (_, offers) => {
                let answer = usable_sdp(ack).filter(|_| offers);
                if offers && answer.is_none() && hang_up.is_none() {
                    return self.without_session(id, now);
                }
                self.confirmed(id, answer, now);
            }
        }
        match hang_up {
            Some(cause) => self.end_up(id, cause, now),
            None => self.end_early(id, now),
        }
    }

    /// The caller has our 200. With its answer to the offer in that the other leg's ACK may leave.
    fn confirmed(&mut self, id: LegId, answer: Option<Sdp>, now: Now) {
        if let (Some(leg), Some(answer)) = (self.legs.get_mut(&id), &answer) {
            leg.remote_sdp = Some(answer.clone());
            leg.is_unsaved = true;
        }
        self.tell(LegEvent::Confirmed { leg: id, answer }, now);
        // A phone acknowledges a 200 that it hears again even when its dialog is over (RFC 3261 §13.2.2.4).
        if self.legs.get(&id).is_some_and(|leg| leg.pulse.in_doubt) {
            self.probe_leg(id, now);
        } else {
            self.heard(id, now);
        }
        self.save_early_changes(id, now);
    }

    /// The ACK has no answer to the offer of our 200: there is no session, so no call.
    fn without_session(&mut self, id: LegId, now: Now) {
        self.bye(id, Some(HangupCause::ServiceFailure), now);
        self.tell(LegEvent::Ended { leg: id, cause: EndCause::NoSession }, now);
    }

    pub(super) fn leg_time(&mut self, id: LegId, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return self.parked_time(id, now) };
        if !Timers::fires(&mut leg.armed, now.mono) {
            return;
        }
        if leg.change.as_ref().and_then(Change::next_time).is_some_and(|at| at <= now.mono) {
            self.change_time(id, now);
        }
        if self.legs.get(&id).is_some_and(|leg| leg.is_session_due(now.mono)) {
            self.timer_time(id, now);
        }
        self.reliable_time(id, now);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if let Some(ok) = &mut leg.ok {
            if ok.give_up <= now.mono {
                return self.unacknowledged(id, now);
            }
            if ok.repeat.take(now.mono) {
                let (way, bytes) = (ok.way, ok.bytes.clone());
                let way = if matches!(way, Way::Gone(_)) {
                    self.legs.get(&id).map_or(way, |leg| self.way_of(leg))
                } else {
                    way
                };
                self.send(way, bytes);
            }
        } else if leg.pulse.is_due(now.mono) {
            self.pulse_time(id, now);
        } else if let Stage::Outgoing(outgoing) = &leg.stage
            && outgoing.until <= now.mono
        {
            self.outgoing_time(id, now);
        }
        self.arm_leg(id);
    }

    pub(super) fn arm_leg(&mut self, id: LegId) {
        if let Some(leg) = self.legs.get_mut(&id) {
            let next = leg.next_time();
            self.timers.arm(&mut leg.armed, next, || Timer::Leg(id));
        }
    }
}

/// A 18x with which the caller has an early dialog.
pub(super) fn provisional(invite: &Message, status: u16, dialog: &Dialog, contact: &AddressText) -> ResponseBuilder {
    ResponseBuilder::to_request(invite, status, dialog.local.tag()).record_route().contact(contact)
}

pub(super) fn with_sdp(response: ResponseBuilder, body: Option<Bytes>) -> ResponseBuilder {
    match body {
        Some(body) => response.body(sdp::CONTENT_TYPE, body),
        None => response,
    }
}

/// Whether an answer may hold a session description: without Accept it may (RFC 3261 §20.1).
fn accepts_sdp(invite: &Message) -> bool {
    let is_sdp = |range: &str| {
        let media = range.split(';').next().unwrap_or(range).trim();
        ["application/sdp", "application/*", "*/*"].iter().any(|known| media.eq_ignore_ascii_case(known))
    };
    invite.text(HeaderName::Accept).is_none() || invite.values(HeaderName::Accept).flatten().any(is_sdp)
}

pub(super) fn sdp_of(message: &Message) -> Option<Sdp> {
    message.has_sdp().then(|| text_of(message.body())).flatten()
}

pub(super) fn text_of(body: &[u8]) -> Option<Sdp> {
    std::str::from_utf8(body).ok().map(|text| Pii::new(text.into()))
}
