//! B-legs: our INVITE, built from typed fields only, from the first message to the ACK of its 200.

use super::Core;
use super::acknowledging::with_body;
use super::challenge::Carrier;
use super::departure::way_of_ack;
use super::ending::reason;
use super::exchange::{ClientExchange, Owner};
use super::incoming::text_of;
use super::leg::{Leg, Outgoing, Stage};
use super::matching::ClientKey;
use super::names::next_way;
use super::offer::{is_usable, usable_sdp};
use super::peers::{Bound, Way};
use super::probe::target_uri;
use super::session_timer::{SessionTimer, TIMER};
use super::told::Told;
use crate::dialog::Dialog;
use crate::flow::{Flow, Protocol};
use crate::message::{
    AddressParts, AddressText, HeaderName, Malformed, Message, Method, NameAddr, RequestBuilder, Uri,
};
use crate::sdp::{Description, Keys, Origin};
use crate::transaction::GIVE_UP;
use bytes::Bytes;
use schema::entropy::Entropy;
use schema::leg::{AttemptIds, HangupCause, Invite, LegEvent, LegId};
use schema::number::Presentation;
use schema::target::TrunkGateway;
use schema::time::Now;
use schema::wrong::{self, Wrong};
use std::time::Duration;

/// Host of an anonymous From (RFC 3323 §4.1.1.3).
const ANONYMOUS: &str = "anonymous.invalid";
/// A target that has not even said 100 after so long has failed, when the call is withdrawn then: a server sends it within
/// 200 ms (RFC 3261 §17.2.1).
const UNRESPONSIVE: Duration = Duration::from_secs(4);
/// The longest address of a card, in bytes.
const REDRESS_BYTES: usize = 256;
/// What we do within a dialog that we began, for Allow.
pub(super) const ALLOW_IN_DIALOG: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, PRACK, UPDATE, INFO";

/// An INVITE about to be sent, and what its leg keeps of it.
struct Draft {
    request: RequestBuilder,
    dialog: Dialog,
    contact: AddressText,
    origin: Origin,
    told: Option<Told>,
}

impl Core {
    /// Begins an outgoing leg. `caller`: how the caller is there, when its leg is not here any more.
    pub(super) fn invite(&mut self, invite: Invite, caller: Option<Protocol>, now: Now) {
        let id = invite.leg;
        if self.legs.contains_key(&id) {
            return;
        }
        if let Err(status) = self.try_invite(&invite, caller, now) {
            self.tell_failed(id, status, false, false, now);
        }
    }

    /// # Errors
    /// The status that stands for why nothing was sent: 503 when something in it cannot be written in SIP, 488 when no stream of
    /// its offer may take this way.
    fn try_invite(&mut self, invite: &Invite, caller: Option<Protocol>, now: Now) -> Result<(), u16> {
        let host = invite.name.as_ref().map(|name| &name.host);
        let way = Way::To(self.destination(invite.gateway, host));
        let offer = self.readable_offer(invite, way, caller)?;
        let draft = self.draft(invite, way, offer).map_err(|Malformed| 503_u16)?;
        let outgoing = self.send_draft(invite, way, draft.request, now).map_err(|Malformed| 503_u16)?;
        let stage = Stage::Outgoing(Box::new(outgoing));
        let mut leg = Leg::new(stage, draft.dialog, draft.contact, way, draft.origin);
        leg.carrier = Some(Box::new(Carrier::called(invite.trunk, Some(invite.gateway.address.ip()))));
        leg.offerless = invite.offer.is_none();
        leg.local_sdp = draft.told;
        leg.server = host.cloned();
        self.dialogs.insert(leg.dialog.our_tag(), invite.leg);
        self.legs.insert(invite.leg, leg);
        self.arm_leg(invite.leg);
        self.arm_sweep(now);
        Ok(())
    }

    /// The INVITE without its Via, and the dialog that it begins.
    fn draft(&self, invite: &Invite, way: Way, offer: Option<(Description<'_>, Keys)>) -> Result<Draft, Malformed> {
        let mut entropy = entropy_of(&invite.ids);
        let contact = AddressText::from(&self.contact(way, &entropy.hex::<8>()).ok_or(Malformed)?);
        let (local, remote, target) = self.addresses(invite)?;
        let dialog = Dialog {
            call_id: invite.ids.call_id.clone(),
            local: AddressText::from(&local.with_tag(&invite.ids.from_tag)?),
            remote: AddressText::from(&remote),
            local_cseq: invite.ids.cseq,
            remote_cseq: None,
            target: target.clone(),
            routes: Box::default(),
        };
        let origin = Origin::fresh(&mut entropy);
        let request = RequestBuilder::new(Method::Invite, target)
            .from(&dialog.local)
            .to(&dialog.remote)
            .call_id(&dialog.call_id)
            .cseq(invite.ids.cseq)
            .contact(&contact)
            .header(HeaderName::Allow, &ALLOW_IN_DIALOG)
            .header(HeaderName::Supported, &supported(invite.offer.is_some()));
        let request = SessionTimer::proposed(request);
        let (sdp, keys) = offer.map(|(offer, keys)| (self.rewritten(&offer, origin, keys), keys)).unzip();
        let told = invite.offer.clone().zip(sdp.as_ref()).zip(keys);
        let told = told.map(|((theirs, sdp), keys)| Told::fresh(sdp, theirs, keys));
        let request = with_body(self.with_privacy(request, invite)?, sdp);
        Ok(Draft { request, dialog, contact, origin, told })
    }

    /// What the caller offers, and whether its keys may leave this way.
    ///
    /// # Errors
    /// 503 when it cannot be read, 488 when nothing of it may.
    fn readable_offer<'a>(
        &self,
        invite: &'a Invite,
        way: Way,
        caller: Option<Protocol>,
    ) -> Result<Option<(Description<'a>, Keys)>, u16> {
        let Some(offer) = &invite.offer else { return Ok(None) };
        let description = Description::parse(offer.expose().as_bytes()).map_err(|_| 503_u16)?;
        let over = caller.filter(|caller| *caller != Protocol::Tls).unwrap_or(way.protocol());
        let keys = self.media_keys(invite.leg.call, over);
        if description.passes_nothing(keys) { Err(488) } else { Ok(Some((description, keys))) }
    }

    fn send_draft(
        &mut self,
        invite: &Invite,
        way: Way,
        request: RequestBuilder,
        now: Now,
    ) -> Result<Outgoing, Malformed> {
        let owner = Owner::Leg(invite.leg);
        let departure = self.departure(Some(invite.trunk), way, Some(&invite.ids.branch), request, owner);
        let sent = departure.and_then(|departure| self.begin_invite(departure, now)).ok_or(Malformed)?;
        Ok(Outgoing {
            invite: sent,
            provisional: false,
            rang: false,
            unwanted: None,
            cancelled: false,
            is_repeated: false,
            forks: Vec::new(),
            pracks: 0,
            trunk: invite.trunk,
            gateway: invite.gateway,
            since: now.mono,
            until: now.mono + Duration::from_secs(u64::from(invite.ring_timeout_s)),
        })
    }

    /// From, To and Request-URI. A withheld number leaves no trace in them.
    fn addresses(&self, invite: &Invite) -> Result<(NameAddr, NameAddr, Uri), Malformed> {
        let from = match &invite.presentation {
            Presentation::Shown(number) => {
                NameAddr::new(Uri::sip(Some(number.number().as_str()), &self.config.domain, None)?)
            }
            Presentation::Withheld(_) => {
                NameAddr::new(Uri::sip(Some("anonymous"), ANONYMOUS, None)?).with_display("Anonymous")?
            }
        };
        let destination = invite.destination.as_str();
        let address = match &invite.name {
            Some(name) => TrunkGateway::Named(name.clone()),
            None => TrunkGateway::At(invite.gateway),
        };
        let target = target_uri(Some(destination), &address, invite.gateway)?;
        let to = NameAddr::new(Uri::sip(Some(destination), target.host(), None)?);
        Ok((from, to, target))
    }

    /// Privacy and, over trusted trunks only, the asserted identity (RFC 3323, RFC 3325).
    fn with_privacy(&self, request: RequestBuilder, invite: &Invite) -> Result<RequestBuilder, Malformed> {
        let Presentation::Withheld(number) = &invite.presentation else { return Ok(request) };
        let request = request.header(HeaderName::Privacy, &"id");
        if !invite.trusted {
            return Ok(request);
        }
        let identity = NameAddr::new(Uri::sip(Some(number.number().as_str()), &self.config.domain, None)?);
        Ok(request.header(HeaderName::PAssertedIdentity, &identity))
    }

    /// A response to the INVITE.
    pub(super) fn on_invite_answer(&mut self, flow: Flow, id: LegId, response: &Message, now: Now) {
        let status = response.status().unwrap_or(0);
        if let Some(Stage::Outgoing(outgoing)) = self.legs.get(&id).map(|leg| &leg.stage) {
            let (trunk, gateway) = (outgoing.trunk, outgoing.gateway);
            self.gateway_speaks(trunk, gateway, now);
        }
        match status {
            100..=199 => self.on_provisional(id, status, response, now),
            200..=299 => self.on_success(flow, id, response, now),
            _ => self.on_failure(id, status, response, now),
        }
    }

    fn on_provisional(&mut self, id: LegId, status: u16, response: &Message, now: Now) {
        let was_answered = self.legs.get(&id).is_some_and(Leg::is_answered_early);
        let is_news = self.take_provisional(id, response, now);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Leg { stage: Stage::Outgoing(outgoing), remote_sdp, offerless, .. } = leg else { return };
        outgoing.provisional = true;
        if outgoing.unwanted.is_some() {
            return self.cancel(id, now);
        }
        if !is_news || !(180..=189).contains(&status) {
            return;
        }
        let trunk = outgoing.trunk;
        // Neither a 183 alone nor a forwarding says that anybody hears it.
        let rings = status == 180 || response.has_sdp();
        outgoing.rang |= rings;
        // There is one answer to an offer, and what came reliably is not changed by a later response (RFC 3261 §13.2.1). Without
        // an offer of ours it would be one if it were reliable, which is not asked for.
        let sdp = usable_sdp(response).filter(|_| !*offerless && !was_answered);
        if sdp.is_some() {
            remote_sdp.clone_from(&sdp);
        }
        self.trunk_serves(trunk, now);
        self.tell(LegEvent::Progress { leg: id, status, sdp, rings }, now);
    }

    pub(super) fn on_success(&mut self, flow: Flow, id: LegId, response: &Message, now: Now) {
        let Some(leg) = self.legs.get(&id) else { return self.end_stray(flow, response, now) };
        match &leg.stage {
            Stage::Outgoing(outgoing) if outgoing.unwanted.is_none() => self.on_first_success(id, response, now),
            Stage::Outgoing(outgoing) => {
                // It was answered while our CANCEL was on its way: the call is not wanted.
                let (cause, rang) = (outgoing.unwanted, outgoing.rang);
                self.end_unwanted(id, leg.way(), response, now);
                self.forget_leg(id, now);
                let status = if cause == Some(HangupCause::NoAnswer) { 408 } else { 487 };
                self.tell_failed(id, status, rang, true, now);
            }
            _ if leg.dialog.remote.tag() != response.to_tag() => {
                // Not by the way of the fork that was taken, which may lead elsewhere.
                self.end_unwanted(id, self.way_of_invite(response).unwrap_or(leg.way()), response, now);
            }
            Stage::Up if wrong::chosen(Wrong::EndedByRepetition) => self.lost(id, true, now),
            // Repeated: our ACK was lost, or went with the process before this one, or is still waiting for the commit.
            stage => match (leg.ack.as_deref().cloned(), leg.way()) {
                (Some(ack), way) => self.send(way_of_ack(way, &ack), ack),
                (None, _) if matches!(stage, Stage::Up) => {
                    let told = leg.told(self.config.sdp_address).filter(|_| leg.offerless);
                    let answer = told.map(|told| Bytes::copy_from_slice(&told));
                    self.acknowledge(id, response.cseq().0, answer);
                }
                (None, _) => {}
            },
        }
    }

    /// Ends the fork of a leg that sent this 200. Its call went this way.
    fn end_unwanted(&mut self, id: LegId, way: Way, response: &Message, now: Now) {
        let Some(leg) = self.legs.get(&id) else { return };
        let (dialog, carrier, offerless) = (leg.dialog.confirmed_by(response), leg.carrier.clone(), leg.offerless);
        let way = next_way(&dialog, way);
        self.end_answered(dialog, way, carrier, offerless, response, now);
    }

    /// Where the INVITE of a response went, as long as its transaction takes further answers (RFC 6026 §7.2).
    fn way_of_invite(&self, response: &Message) -> Option<Way> {
        self.clients.get(&ClientKey::of(response.branch()?, &Method::Invite)).map(ClientExchange::way)
    }

    fn on_first_success(&mut self, id: LegId, response: &Message, now: Now) {
        let Some(way) = self.legs.get(&id).map(Bound::way) else { return };
        if let Some(trunk) = self.trunk_of(Owner::Leg(id)) {
            self.trunk_serves(trunk, now);
        }
        let keys = self.media_keys(id.call, way.protocol());
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let is_told = leg.take_early_answer(response);
        // An offer is answered in the 200, or before it in a 18x.
        let is_usable = match response.has_sdp() && !is_told {
            true => is_usable(response.body(), keys),
            false => leg.remote_sdp.is_some(),
        };
        if !is_usable {
            self.end_unwanted(id, way, response, now);
            self.forget_leg(id, now);
            return self.tell_failed(id, 502, true, true, now);
        }
        let is_other = leg.dialog.remote.tag().is_some() && leg.dialog.remote.tag() != response.to_tag();
        let dropped = leg.change.take_if(|_| is_other);
        leg.dialog = leg.dialog.confirmed_by(response);
        leg.stage = Stage::Answered { cseq: response.cseq().0, since: now.mono };
        if response.has_sdp() && !is_told {
            leg.remote_sdp = text_of(response.body());
        }
        leg.timer = SessionTimer::agreed(response, None, now.mono);
        self.find_way(id, now);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let (sdp, offers) = (leg.remote_sdp.clone(), leg.offerless);
        let checkpoint = leg.checkpoint(self.config.sdp_address, now.wall);
        leg.local_sdp.as_mut().map(Told::is_stored);
        leg.is_unsaved = false;
        self.arm_leg(id);
        // It was another fork's, which is over.
        if let Some(change) = dropped {
            self.drop_change(change, now);
        }
        self.tell(LegEvent::Answered { leg: id, sdp, offers, checkpoint }, now);
    }

    fn on_failure(&mut self, id: LegId, status: u16, response: &Message, now: Now) {
        let Some(Leg { stage: Stage::Outgoing(outgoing), .. }) = self.legs.get(&id) else { return };
        let (trunk, gateway, is_refused) = (outgoing.trunk, outgoing.gateway, status == 503);
        let status = match outgoing.unwanted {
            Some(HangupCause::NoAnswer) => 408,
            Some(_) => 487,
            None => status,
        };
        let rang = outgoing.rang;
        if status == 403
            && let Some(trunk) = self.legs.get(&id).and_then(|leg| leg.carrier.as_ref()).map(|carrier| carrier.trunk)
        {
            self.doubt_trunk(trunk, now);
        }
        let q850 = q850_of(response);
        let redress = [603, 607, 608].contains(&status).then(|| redress(response)).flatten();
        self.forget_leg(id, now);
        if is_refused {
            self.target_failed(trunk, gateway, now);
        }
        self.tell(LegEvent::Failed { leg: id, status, q850, rang, redress, answered: false }, now);
    }

    /// What the carrier did not say itself.
    fn tell_failed(&mut self, leg: LegId, status: u16, rang: bool, answered: bool, now: Now) {
        self.tell(LegEvent::Failed { leg, status, q850: None, rang, redress: None, answered }, now);
    }

    /// Nothing final came in time, or the gateway cannot be reached.
    pub(super) fn on_invite_unanswered(&mut self, id: LegId, status: u16, now: Now) {
        let Some(Leg { stage: Stage::Outgoing(outgoing), .. }) = self.legs.get(&id) else { return };
        let rang = outgoing.rang;
        if outgoing.unwanted.is_none() {
            let (trunk, gateway) = (outgoing.trunk, outgoing.gateway);
            self.target_failed(trunk, gateway, now);
        }
        self.forget_leg(id, now);
        self.tell_failed(id, status, rang, false, now);
    }

    /// It rang long enough, or its CANCEL was not answered.
    pub(super) fn outgoing_time(&mut self, id: LegId, now: Now) {
        let Some(Leg { stage: Stage::Outgoing(outgoing), .. }) = self.legs.get_mut(&id) else { return };
        if outgoing.unwanted.is_none() {
            return self.withdraw(id, HangupCause::NoAnswer, now);
        }
        let branch = outgoing.invite.branch.clone();
        let status = if outgoing.unwanted == Some(HangupCause::NoAnswer) { 408 } else { 487 };
        self.drop_client(&branch);
        self.on_invite_unanswered(id, status, now);
    }

    /// The leg is not wanted any more: CANCEL, as soon as a provisional response allows it (RFC 3261 §9.1).
    pub(super) fn withdraw(&mut self, id: LegId, cause: HangupCause, now: Now) {
        let Some(Leg { stage: Stage::Outgoing(outgoing), .. }) = self.legs.get_mut(&id) else { return };
        if outgoing.unwanted.is_some() {
            return;
        }
        outgoing.unwanted = Some(cause);
        outgoing.until = now.mono + GIVE_UP;
        let may_cancel = outgoing.provisional;
        let (trunk, gateway) = (outgoing.trunk, outgoing.gateway);
        if !may_cancel && now.mono.since(outgoing.since) >= UNRESPONSIVE {
            self.target_failed(trunk, gateway, now);
        }
        if may_cancel {
            self.cancel(id, now);
        }
        self.arm_leg(id);
    }

    fn cancel(&mut self, id: LegId, now: Now) {
        let Some(Leg { stage: Stage::Outgoing(outgoing), .. }) = self.legs.get_mut(&id) else { return };
        if std::mem::replace(&mut outgoing.cancelled, true) {
            return;
        }
        let Some(invite) = outgoing.invite.read() else { return };
        let mut cancel = RequestBuilder::cancel(&invite);
        if let Some(cause) = outgoing.unwanted {
            cancel = cancel.header(HeaderName::Reason, &reason(cause, false));
        }
        let (branch, way) = (outgoing.invite.branch.clone(), outgoing.invite.way);
        self.request_cancel(way, &branch, cancel, now);
    }

    /// Drops an INVITE that will never be answered (no provisional response after our CANCEL was wanted).
    fn drop_client(&mut self, branch: &str) {
        self.clients.remove(&ClientKey::of(branch, &Method::Invite));
    }
}

/// What our INVITE says it takes. Without an offer no reliable responses: the first would hold the carrier's (RFC 3262 §5), and its
/// PRACK the caller's answer, which is known with its ACK only.
const fn supported(has_offer: bool) -> &'static str {
    if has_offer { "timer, 100rel" } else { TIMER }
}

/// Randomness that belongs to one attempt. It comes from the attempt's identifiers, so that an INVITE repeated after a crash
/// is the same byte for byte, and nothing the A-leg does changes what the B-leg is sent.
fn entropy_of(ids: &AttemptIds) -> Entropy {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    for part in [&ids.call_id, &ids.from_tag, &ids.branch] {
        hash.update(part.as_bytes());
        hash.update(b"\0");
    }
    let mut seed = [0; 32];
    seed.copy_from_slice(hash.finish().as_ref());
    Entropy::from_seed(seed)
}

/// Q.850 cause of a Reason header.
pub(super) fn q850_of(message: &Message) -> Option<u8> {
    let reason = message.reasons().find(|reason| reason.protocol.eq_ignore_ascii_case("Q.850"))?;
    u8::try_from(reason.cause?).ok().filter(|cause| *cause <= 127)
}

/// Where a blocked caller can complain: the card that a network names in Call-Info (RFC 8688 §3.2). A Contact says nothing of that:
/// it is where the person called, or the carrier's equipment, is.
fn redress(response: &Message) -> Option<String> {
    let cards = response.values(HeaderName::CallInfo).flatten().filter_map(|value| AddressParts::parse(value).ok());
    let is_card = |of: &str| of.eq_ignore_ascii_case("jwscard");
    let mut uris = cards.filter(|card| card.params.value("purpose").is_some_and(is_card)).map(|card| card.uri);
    uris.find(|uri| uri.starts_with("https://") && uri.len() <= REDRESS_BYTES).map(str::to_owned)
}
