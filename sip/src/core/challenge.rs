//! A carrier asks who we are (RFC 3261 §22, RFC 7616, RFC 8760): the same request leaves once more with credentials, in a new
//! transaction of the same dialog. Only carriers are answered, each for its own trunk: a customer's leg has none, so a phone
//! that challenges us gets nothing.
//!
//! The branch of an answer follows from the request before it. So a call that rang when the process ended can be withdrawn: its
//! INVITE is repeated byte for byte, the challenge is answered again, and the carrier finds the transaction that rings.

use super::Core;
use super::change::Change;
use super::departure::Departure;
use super::exchange::{Owner, SentInvite};
use super::leg::Stage;
use super::matching::ClientKey;
use super::peers::{Bound, Way};
use crate::digest::Challenge;
use crate::message::{HeaderName, Message, Method, RequestBuilder};
use ring::digest::{Context, SHA256};
use schema::carrier::{TrunkDown, TrunkLogin};
use schema::entropy::hex;
use schema::id::TrunkId;
use schema::leg::LegId;
use schema::time::Now;
use std::net::IpAddr;
use std::sync::Arc;

/// Most answers to one request: a proxy's challenge, that of the server behind it, and one more for a nonce that was too old.
const ANSWERS_MAX: u8 = 3;

/// The carrier at the far end of a leg, and what it has asked for in this dialog.
#[derive(Debug, Clone)]
pub(super) struct Carrier {
    pub(super) trunk: TrunkId,
    /// Where the call went.
    at: Option<IpAddr>,
    /// None before it has asked for anything.
    answers: Option<Box<Answers>>,
}

impl Carrier {
    pub(super) const fn of(trunk: TrunkId) -> Self {
        Self { trunk, at: None, answers: None }
    }

    /// Of a call that went to this address.
    pub(super) fn called(trunk: TrunkId, at: Option<IpAddr>) -> Self {
        Self { at, ..Self::of(trunk) }
    }

    pub(super) const fn at(&self) -> Option<IpAddr> {
        self.at
    }

    /// In which it was answered in this dialog. It stays the only one: whoever is called could ask in another.
    fn realm(&self) -> Option<&str> {
        self.answers.as_ref()?.heard.first().map(|heard| heard.challenge.realm())
    }

    fn hear(&mut self, challenge: Challenge, cnonce: String) {
        self.answers.get_or_insert_default().hear(challenge, cnonce);
    }

    /// Adds the credentials that were asked for so far.
    fn sign(&mut self, login: &TrunkLogin, request: RequestBuilder) -> RequestBuilder {
        match &mut self.answers {
            Some(answers) => answers.sign(login, request),
            None => request,
        }
    }

    /// Adds the credentials of the INVITE to its ACK.
    fn in_ack(&self, ack: RequestBuilder) -> RequestBuilder {
        let credentials = self.answers.iter().flat_map(|answers| &answers.invite);
        credentials.fold(ack, |ack, (name, value)| ack.header(*name, value))
    }
}

/// What was asked for under one Call-ID: later requests answer it without being asked (RFC 3261 §22.3).
#[derive(Debug, Clone, Default)]
struct Answers {
    /// The newest challenge of each header pair.
    heard: Vec<Heard>,
    /// The credentials of the last INVITE: its ACK has the same (§22.1).
    invite: Vec<(HeaderName, Box<str>)>,
}

/// A challenge, and what its answers have in common.
#[derive(Debug, Clone)]
struct Heard {
    challenge: Challenge,
    cnonce: Box<str>,
    /// Of its nonce.
    uses: u32,
}

/// How often a request was answered for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked {
    answers: u8,
    /// A nonce that was too old was answered already.
    stale: bool,
}

impl Asked {
    /// Whether `challenge` may be answered after `request` met it. The same credentials are not sent twice: only a nonce that
    /// was too old, or was not of this request's own challenge, is replaced, once.
    fn once_more(self, challenge: &Challenge, request: &Message) -> Option<Self> {
        let is_stale = challenge.is_stale();
        let is_new = match challenge.nonce_answered_in(request) {
            None => true,
            Some(_) if is_stale => !self.stale,
            Some(nonce) => self.answers == 0 && !challenge.has_nonce(&nonce),
        };
        let again = Self { answers: self.answers + 1, stale: self.stale || is_stale };
        (is_new && self.answers < ANSWERS_MAX).then_some(again)
    }
}

impl Answers {
    fn hear(&mut self, challenge: Challenge, cnonce: String) {
        self.heard.retain(|known| known.challenge.scheme() != challenge.scheme());
        self.heard.push(Heard { challenge, cnonce: cnonce.into(), uses: 0 });
    }

    fn sign(&mut self, login: &TrunkLogin, mut request: RequestBuilder) -> RequestBuilder {
        let mut all = Vec::with_capacity(self.heard.len());
        for Heard { challenge, cnonce, uses } in &mut self.heard {
            *uses += 1;
            let (method, uri) = (request.method().as_str(), request.uri().as_str());
            let value = challenge.answer(&login.username, login.password.expose(), method, uri, cnonce, *uses);
            request = request.header(challenge.scheme().credentials_header(), &value);
            all.push((challenge.scheme().credentials_header(), value.into_boxed_str()));
        }
        if *request.method() == Method::Invite {
            self.invite = all;
        }
        request
    }
}

/// What to do about a challenge. `realm`: the only one that is answered.
///
/// # Errors
/// Why it is not answered.
fn decide(
    realm: Option<&str>,
    asked: Asked,
    request: &Message,
    response: &Message,
) -> Result<(Challenge, Asked), TrunkDown> {
    let is_wanted = |challenge: &Challenge| realm.is_none_or(|realm| realm == challenge.realm());
    if Challenge::all_of(response).next().is_none() {
        return Err(TrunkDown::NotAnswerable);
    }
    let challenge = Challenge::strongest(Challenge::all_of(response).filter(is_wanted)).ok_or(TrunkDown::OtherRealm)?;
    let asked = asked.once_more(&challenge, request).ok_or(TrunkDown::CredentialsRefused)?;
    Ok((challenge, asked))
}

/// Branch of the transaction in which this request leaves once more, after a challenge or a 422.
pub(super) fn branch_after(request: &Message) -> String {
    let mut hash = Context::new(&SHA256);
    for part in [request.call_id(), request.from_tag().unwrap_or_default(), request.branch().unwrap_or_default()] {
        hash.update(part.as_bytes());
        hash.update(b"\0");
    }
    format!("z9hG4bK{}", hex(&hash.finish().as_ref()[..12]))
}

impl Core {
    /// A 401 or 407 to `request`: answers it when it is a carrier's. True when the request has left again; then its answer is
    /// still to come.
    pub(super) fn answer_challenge(
        &mut self,
        key: &ClientKey,
        request: &Message,
        response: &Message,
        now: Now,
    ) -> bool {
        let Some(exchange) = self.clients.get_mut(key) else { return false };
        let (owner, asked, moves, own) = (exchange.owner, exchange.asked, exchange.moves, exchange.carrier.take());
        let (way, usual) = (exchange.way(), exchange.usual_way());
        let carrier = own.or_else(|| self.carrier_of(owner).cloned().map(Box::new));
        let Some(mut carrier) = carrier.filter(|_| self.is_wanted_still(owner)) else { return false };
        if !self.may_be_told(owner, &carrier, way) {
            return false;
        }
        let login = self.login_for(owner, carrier.trunk);
        let heard = carrier.realm().filter(|_| !matches!(owner, Owner::Register(_)));
        let decided = match &login {
            Some(login) => decide(login.realm.as_deref().or(heard), asked, request, response).map(|one| (login, one)),
            None => Err(TrunkDown::NotAnswerable),
        };
        match decided {
            // Whoever is called may have said it: the carrier's own realm is another.
            Err(TrunkDown::OtherRealm) if heard.is_some() => false,
            Ok((login, (challenge, asked))) => {
                carrier.hear(challenge, self.entropy.hex::<16>());
                self.send_again(owner, usual, (asked, moves), login, carrier, request, now)
            }
            Err(down) => {
                self.not_answered(owner, carrier.trunk, down, now);
                false
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "each is a part of the transaction before it")]
    fn send_again(
        &mut self,
        owner: Owner,
        usual: Way,
        (asked, moves): (Asked, u8),
        login: &TrunkLogin,
        mut carrier: Box<Carrier>,
        request: &Message,
        now: Now,
    ) -> bool {
        let branch = branch_after(request);
        let cseq = self.next_cseq(owner).unwrap_or(request.cseq().0 + 1);
        let again = carrier.sign(login, RequestBuilder::again(request, cseq));
        let trunk = Some(carrier.trunk);
        let Some(departure) = self.departure(trunk, usual, Some(&branch), again, owner) else { return false };
        let carrier = match self.carrier_of(owner) {
            Some(place) => {
                *place = *carrier;
                None
            }
            None => Some(carrier),
        };
        self.begin_again(Departure { asked, moves, carrier, ..departure }, Some(cseq), now)
    }

    /// Whether this way leads to the carrier itself: where the call went, or to a gateway of the trunk. A dialog may lead elsewhere,
    /// to whoever was called, and what is said to a carrier is said to nobody else.
    fn is_at_carrier(&self, carrier: &Carrier, way: Way) -> bool {
        let is_its = |ip: IpAddr| carrier.at == Some(ip) || self.is_gateway_of(carrier.trunk, ip);
        way.peer().is_some_and(|peer| is_its(peer.ip()))
    }

    /// Whether whoever is there may be told who we are: the carrier, or its registrar, to which we go by ourselves.
    fn may_be_told(&self, owner: Owner, carrier: &Carrier, way: Way) -> bool {
        matches!(owner, Owner::Register(_)) || self.is_at_carrier(carrier, way)
    }

    /// The carrier on whose leg, or at which, something is asked.
    pub(super) fn carrier_of(&mut self, owner: Owner) -> Option<&mut Carrier> {
        match owner {
            Owner::Register(number) => self.registrations.carrier(number),
            // With a BYE, whose leg is gone, the carrier goes; of a probe any answer will do.
            _ => self.legs.get_mut(&owner.leg()?)?.carrier.as_deref_mut(),
        }
    }

    fn login_for(&self, owner: Owner, trunk: TrunkId) -> Option<Arc<TrunkLogin>> {
        match owner {
            Owner::Register(number) => self.registrations.login(number),
            _ => self.probes.login(trunk),
        }
    }

    /// CSeq of the next request; `None` when the dialog is not known any more.
    pub(super) fn next_cseq(&mut self, owner: Owner) -> Option<u32> {
        let cseq = match owner {
            Owner::Register(number) => self.registrations.cseq(number)?,
            _ => &mut self.legs.get_mut(&owner.leg()?)?.dialog.local_cseq,
        };
        *cseq += 1;
        Some(*cseq)
    }

    /// Whether anybody still wants what was asked. A call that is withdrawn after a restart may ring at the carrier.
    pub(super) fn is_wanted_still(&self, owner: Owner) -> bool {
        let stage_of = |leg: LegId| self.legs.get(&leg).map(|leg| (&leg.stage, &leg.change));
        match owner {
            Owner::Leg(leg) => match stage_of(leg) {
                Some((Stage::Outgoing(outgoing), _)) => outgoing.unwanted.is_none() || outgoing.is_repeated,
                _ => false,
            },
            Owner::Offer(leg) => stage_of(leg).and_then(|(_, change)| change.as_ref()).is_some_and(Change::is_wanted),
            _ => true,
        }
    }

    /// The INVITE is another one now: to it a CANCEL belongs.
    pub(super) fn invite_left_again(&mut self, owner: Owner, invite: SentInvite) {
        match owner {
            Owner::Leg(leg) => {
                if let Some(Stage::Outgoing(outgoing)) = self.legs.get_mut(&leg).map(|leg| &mut leg.stage) {
                    (outgoing.invite, outgoing.provisional, outgoing.cancelled) = (invite, false, false);
                }
            }
            Owner::Offer(leg) => {
                if let Some(change) = self.legs.get_mut(&leg).and_then(|leg| leg.change.as_mut()) {
                    change.left_again(invite);
                }
            }
            _ => {}
        }
    }

    /// An early UPDATE has another CSeq now.
    pub(super) fn update_left_again(&mut self, owner: Owner, cseq: u32) {
        if let Owner::Offer(leg) = owner
            && let Some(change) = self.legs.get_mut(&leg).and_then(|leg| leg.change.as_mut())
        {
            change.update_left_again(cseq);
        }
    }

    fn not_answered(&mut self, owner: Owner, trunk: TrunkId, down: TrunkDown, now: Now) {
        match owner {
            Owner::Leg(_) => self.trunk_refuses(trunk, down, now),
            Owner::Register(number) => self.registrations.refused(number, down),
            _ => {}
        }
    }

    /// With the credentials that were asked for in its dialog before, where it goes to the carrier.
    pub(super) fn signed(&mut self, owner: Owner, way: Way, request: RequestBuilder) -> RequestBuilder {
        let Some(carrier) = self.carrier_of(owner).filter(|carrier| carrier.answers.is_some()) else {
            return request;
        };
        let mut carrier = carrier.clone();
        let request = self.signed_by(&mut carrier, owner, way, request);
        if let Some(place) = self.carrier_of(owner) {
            *place = carrier;
        }
        request
    }

    /// As [`Core::signed`], for a request whose leg is gone.
    pub(super) fn signed_by(
        &self,
        carrier: &mut Carrier,
        owner: Owner,
        way: Way,
        request: RequestBuilder,
    ) -> RequestBuilder {
        match self.login_for(owner, carrier.trunk).filter(|_| self.may_be_told(owner, carrier, way)) {
            Some(login) => carrier.sign(&login, request),
            None => request,
        }
    }

    /// An ACK with the credentials of its INVITE, where it goes to the carrier.
    pub(super) fn signed_ack(&self, carrier: Option<&Carrier>, way: Way, ack: RequestBuilder) -> RequestBuilder {
        match carrier.filter(|carrier| self.is_at_carrier(carrier, way)) {
            Some(carrier) => carrier.in_ack(ack),
            None => ack,
        }
    }
}
