//! A phone with several flows (RFC 5626): a request that meets a flow which has failed leaves again by the next one, the newest
//! first, through the proxies of that one's Path (RFC 3327). That a flow has failed shows by the end of its connection, by a 430,
//! and by silence, over UDP by nothing else.

use super::Core;
use super::departure::Departure;
use super::exchange::{ClientExchange, Owner};
use super::leg::{Leg, Phone};
use super::matching::ClientKey;
use super::peers::{Bound, Way, reply_flow};
use crate::flow::Flow;
use crate::message::{Message, Method, NameAddr, RequestBuilder};
use schema::id::CredentialId;
use schema::leg::LegId;
use schema::time::Now;

/// A phone: its credential and `+sip.instance`. Of one without an instance nobody knows which flows are its own.
pub(super) type WhichPhone = (CredentialId, Option<Box<str>>);

impl Owner {
    /// The leg in whose dialog it is, while that is there.
    pub(super) const fn leg(self) -> Option<LegId> {
        match self {
            Self::Leg(leg)
            | Self::Offer(leg)
            | Self::Prack(leg)
            | Self::Refresh(leg)
            | Self::Pulse(leg)
            | Self::Key(leg) => Some(leg),
            Self::Probe(..) | Self::Register(_) | Self::Bye(_) | Self::Nobody => None,
        }
    }
}

/// How often a request leaves by another flow: with 64·T1 for each it comes to an end whatever the phone registers meanwhile.
const MOVES_MAX: u8 = 2;

impl Core {
    /// A 401, 407, 422 or 430 to `request`. True when that has left again, and its answer is still to come.
    pub(super) fn leaves_again(&mut self, key: &ClientKey, request: &Message, refusal: &Message, now: Now) -> bool {
        match refusal.status() {
            Some(430) => {
                self.flow_failed(key, now);
                self.over_another_flow(key, request, now)
            }
            Some(422) => self.asks_longer(key, request, refusal, now),
            _ => self.answer_challenge(key, request, refusal, now),
        }
    }

    /// The flow of a request has failed, by its end or by a 430 of a proxy. True when it has left again by another one.
    fn over_another_flow(&mut self, key: &ClientKey, request: &Message, now: Now) -> bool {
        let Some(exchange) = self.clients.get_mut(key).filter(|exchange| exchange.moves < MOVES_MAX) else {
            return false;
        };
        let (owner, own, moves) = (exchange.owner, exchange.phone.take(), exchange.moves + 1);
        let Way::Flow(failed) = exchange.way() else { return false };
        let Some(phone) = own.map(|own| *own).or_else(|| self.phone_of(owner)) else { return false };
        let Some(flow) = self.registrar.flow_besides(phone.0, phone.1.as_deref(), failed) else { return false };
        let again = self.by_path_of(&phone, flow, RequestBuilder::again(request, request.cseq().0));
        let way = Way::Flow(flow);
        let Some(departure) = self.departure(None, way, None, again, owner) else { return false };
        let at = owner.leg().and_then(|id| Some((id, self.legs.get(&id)?.way())));
        let phone = at.is_none().then(|| Box::new(phone));
        let has_left = self.begin_again(Departure { moves, phone, ..departure }, None, now);
        match at {
            // It was heard elsewhere meanwhile.
            Some((_, Way::Flow(at))) if at != failed => {}
            Some((id, _)) => self.legs.lead(&id, way),
            None => {}
        }
        has_left
    }

    /// A request of this owner's leg, once that goes by another flow than its dialog began with: through the proxies of that one's
    /// Path. The dialog's own may be gone, or know the phone no more.
    pub(super) fn by_path(&self, owner: Owner, way: Way, request: RequestBuilder) -> RequestBuilder {
        match owner.leg().and_then(|id| self.legs.get(&id)) {
            Some(leg) => self.by_path_of_leg(leg, way, request),
            None => request,
        }
    }

    /// As [`Core::by_path`], of a leg that is in no table.
    pub(super) fn by_path_of_leg(&self, leg: &Leg, way: Way, request: RequestBuilder) -> RequestBuilder {
        match (way, &leg.phone) {
            (Way::Flow(flow), Some(phone)) if leg.has_moved || way != leg.way() => {
                self.by_path_of(&(phone.credential, phone.instance.clone()), flow, request)
            }
            _ => request,
        }
    }

    /// Without a Path the dialog's proxies stay: they may be on the way all the same.
    fn by_path_of(&self, phone: &WhichPhone, flow: Flow, request: RequestBuilder) -> RequestBuilder {
        let path = self.registrar.path_of(phone.0, phone.1.as_deref(), flow);
        let hops: Vec<_> = path.iter().filter_map(|hop| NameAddr::parse(hop.expose()).ok()).collect();
        if hops.is_empty() { request } else { request.through(&hops) }
    }

    /// A proxy says that the phone is not behind it any more: that binding is over.
    fn flow_failed(&mut self, key: &ClientKey, now: Now) {
        let Some(Way::Flow(failed)) = self.clients.get(key).map(ClientExchange::way) else { return };
        if let Some((credential, instance)) = self.phone_under_way(key) {
            let changes = self.registrar.flow_failed(credential, instance.as_deref(), failed, now.wall);
            self.tell_bindings(changes);
        }
    }

    fn phone_of(&self, owner: Owner) -> Option<WhichPhone> {
        let phone = self.legs.get(&owner.leg()?)?.phone.as_ref()?;
        Some((phone.credential, phone.instance.clone()))
    }

    /// Nothing final came of a request within 64·T1.
    pub(super) fn on_silence(&mut self, key: &ClientKey, owner: Owner, now: Now) {
        if !self.leaves_silence(key, owner, now) {
            self.on_no_answer(owner, 408, now);
        }
    }

    /// Nothing was heard of a request. By silence, and over UDP by nothing else, a flow ends: where the phone has another one its
    /// calls go on by that. True when the request has left again.
    fn leaves_silence(&mut self, key: &ClientKey, owner: Owner, now: Now) -> bool {
        let Some(exchange) = self.clients.get(key).filter(|exchange| !exchange.is_heard) else { return false };
        let Way::Flow(silent) = exchange.way() else { return false };
        let Some(phone) = self.phone_under_way(key) else { return false };
        let Some(other) = self.registrar.flow_besides(phone.0, phone.1.as_deref(), silent) else { return false };
        self.registrar.flow_silent(phone.0, phone.1.as_deref(), silent);
        self.legs_follow(&phone, silent, other, now);
        let has_left = self.is_worth_another_flow(owner) && self.leaves_elsewhere(key, now);
        self.clients.remove(key);
        self.requests_follow(&phone, silent, now);
        has_left
    }

    /// A phone has registered one of its flows over UDP from another address: its calls go on there.
    pub(super) fn flow_moved(&mut self, phone: &WhichPhone, from: Flow, to: Flow, now: Now) {
        self.legs_follow(phone, from, to, now);
        self.requests_follow(phone, from, now);
    }

    fn legs_follow(&mut self, phone: &WhichPhone, from: Flow, to: Flow, now: Now) {
        let is_phone = |of: &Phone| of.credential == phone.0 && of.instance == phone.1;
        let is_its = |leg: &Leg| leg.phone.as_deref().is_some_and(is_phone);
        let over_it = self.legs.over(Way::Flow(from)).filter(|(_, leg)| is_its(leg));
        for id in over_it.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.legs.moved_to(&id, to, to);
            let ok = self.legs.get_mut(&id).and_then(|leg| leg.ok.as_mut());
            if let Some(ok) = ok.filter(|ok| ok.way == Way::Flow(from)) {
                ok.way = Way::Flow(to);
            }
            self.tell_checkpoint(id, now);
        }
    }

    fn requests_follow(&mut self, phone: &WhichPhone, from: Flow, now: Now) {
        for key in self.under_way_over(Way::Flow(from)) {
            let owner = self.clients.get(&key).filter(|exchange| !exchange.is_heard).map(|exchange| exchange.owner);
            let follows = owner.is_some_and(|owner| self.is_worth_another_flow(owner))
                && self.phone_under_way(&key).as_ref() == Some(phone);
            if follows && self.leaves_elsewhere(&key, now) {
                self.clients.remove(&key);
            }
        }
    }

    /// Whether a request is worth sending late. A key would be pressed in another menu.
    fn is_worth_another_flow(&self, owner: Owner) -> bool {
        self.is_wanted_still(owner) && !matches!(owner, Owner::Key(_))
    }

    /// A phone has sent this request. Gives where those to it go: by the flow it has registered, else as an answer goes.
    pub(super) fn phone_heard(&mut self, credential: CredentialId, flow: Flow, request: &Message) -> Flow {
        let is_its_flow = self.registrar.instance_at(credential, flow).is_some();
        let way = if is_its_flow { flow } else { reply_flow(flow, request) };
        self.registrar.flow_heard(credential, way);
        way
    }

    /// The phone to which a request is under way.
    fn phone_under_way(&self, key: &ClientKey) -> Option<WhichPhone> {
        let exchange = self.clients.get(key)?;
        exchange.phone.as_deref().cloned().or_else(|| self.phone_of(exchange.owner))
    }

    /// In the order of their CSeq: a dialog takes no other.
    pub(super) fn under_way_over(&self, way: Way) -> Vec<ClientKey> {
        let over_it = self.clients.over(way);
        let cseq = |exchange: &ClientExchange| exchange.request().map(|request| request.cseq().0);
        let mut over_it: Vec<_> = over_it.map(|(key, exchange)| (cseq(exchange), key.clone())).collect();
        over_it.sort();
        over_it.into_iter().map(|(_, key)| key).collect()
    }

    /// True when what is under way has left again by another flow. A probe is asked anew instead, and each without an answer
    /// counts: else a phone could put off its end for ever.
    fn leaves_elsewhere(&mut self, key: &ClientKey, now: Now) -> bool {
        let no_probe = self.clients.get(key).filter(|exchange| !matches!(exchange.owner, Owner::Pulse(_)));
        let request = no_probe.and_then(|exchange| exchange.request());
        request
            .filter(|request| request.is_request() && !request.is_ack() && *request.method() != Method::Cancel)
            .is_some_and(|request| self.over_another_flow(key, &request, now))
    }

    /// What was under way over this connection leaves by another one, or fails.
    pub(super) fn fail_flow(&mut self, flow: Flow, now: Now) {
        for key in self.under_way_over(Way::Flow(flow)) {
            let has_left = self.leaves_elsewhere(&key, now);
            let Some(exchange) = self.clients.remove(&key).filter(|_| !has_left) else { continue };
            match exchange.owner {
                // The phone is asked again, by another flow or when it comes back; each question counts.
                Owner::Pulse(leg) => self.pulse_lost_its_way(leg, now),
                Owner::Offer(leg) => self.on_offer_unanswered(leg, 480, now),
                Owner::Prack(leg) => self.on_prack_outcome(leg),
                Owner::Refresh(leg) => self.on_refresh_outcome(leg, None, now),
                Owner::Bye(leg) => self.on_bye_outcome(leg, None, now),
                Owner::Register(number) => self.on_register_unanswered(number, now),
                Owner::Leg(_) | Owner::Probe(..) | Owner::Key(_) | Owner::Nobody => {}
            }
        }
    }
}
