//! A phone with several flows (RFC 5626): a request that meets a flow which has failed leaves again by the next one, the newest
//! first, through the proxies of that one's Path (RFC 3327).

use super::Core;
use super::exchange::{Owner, Way};
use super::matching::ClientKey;
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

impl Core {
    /// Notes for which phone a request is whose leg is gone.
    pub(super) fn follow(&mut self, branch: &str, method: &Method, phone: Option<WhichPhone>) {
        if let Some(exchange) = self.clients.get_mut(&ClientKey::of(branch, method)) {
            exchange.phone = phone.map(Box::new);
        }
    }

    /// A 401, 407 or 430 to `request`. True when that has left again, and its answer is still to come.
    pub(super) fn leaves_again(&mut self, key: &ClientKey, request: &Message, refusal: &Message, now: Now) -> bool {
        if refusal.status() == Some(430) {
            self.flow_failed(key, now);
            return self.over_another_flow(key, request, now);
        }
        self.answer_challenge(key, request, refusal, now)
    }

    /// The flow of a request has failed, by its end or by a 430 of a proxy. True when it has left again by another one.
    fn over_another_flow(&mut self, key: &ClientKey, request: &Message, now: Now) -> bool {
        let Some(exchange) = self.clients.get_mut(key) else { return false };
        let (owner, own) = (exchange.owner, exchange.phone.take());
        let Way::Flow(failed) = exchange.way else { return false };
        let Some(phone) = own.map(|own| *own).or_else(|| self.phone_of(owner)) else { return false };
        let Some((flow, path)) = self.registrar.flow_besides(phone.0, phone.1.as_deref(), failed) else { return false };
        let path: Vec<NameAddr> = path.iter().filter_map(|hop| NameAddr::parse(hop.expose()).ok()).collect();
        let Some(via) = self.via(Way::Flow(flow), None) else { return false };
        let again = RequestBuilder::again(request, request.cseq().0).via(&via);
        let again = if path.is_empty() { again } else { again.through(&path) };
        let (branch, way) = (via.branch().unwrap_or_default(), Way::Flow(flow));
        let has_left = if *request.method() == Method::Invite {
            let invite = self.request_invite(way, branch, again, owner, now);
            let has_left = invite.is_some();
            if let Some(invite) = invite {
                self.invite_left_again(owner, invite);
            }
            has_left
        } else {
            self.request(way, branch, request.method().clone(), again, owner, now)
        };
        match owner.leg().and_then(|leg| self.legs.get_mut(&leg)) {
            Some(leg) => leg.way = way,
            None => self.follow(branch, request.method(), Some(phone)),
        }
        has_left
    }

    /// A proxy says that the phone is not behind it any more: that binding is over.
    fn flow_failed(&mut self, key: &ClientKey, now: Now) {
        let Some(exchange) = self.clients.get(key) else { return };
        let Way::Flow(failed) = exchange.way else { return };
        let phone = exchange.phone.as_deref().cloned().or_else(|| self.phone_of(exchange.owner));
        if let Some((credential, instance)) = phone {
            let changes = self.registrar.flow_failed(credential, instance.as_deref(), failed, now.wall);
            self.tell_bindings(changes);
        }
    }

    fn phone_of(&self, owner: Owner) -> Option<WhichPhone> {
        let phone = self.legs.get(&owner.leg()?)?.phone.as_ref()?;
        Some((phone.credential, phone.instance.clone()))
    }

    /// What was under way over this connection leaves by another one, or fails.
    pub(super) fn fail_flow(&mut self, flow: Flow, now: Now) {
        let over_it = self.clients.iter().filter(|(_, exchange)| exchange.way == Way::Flow(flow));
        let over_it: Vec<ClientKey> = over_it.map(|(key, _)| key.clone()).collect();
        for key in over_it {
            let request = self.clients.get(&key).and_then(|exchange| exchange.request());
            let has_left = request
                .filter(|request| request.is_request() && !request.is_ack() && *request.method() != Method::Cancel)
                .is_some_and(|request| self.over_another_flow(&key, &request, now));
            let Some(exchange) = self.clients.remove(&key).filter(|_| !has_left) else { continue };
            match exchange.owner {
                // The phone is asked again when it comes back.
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
