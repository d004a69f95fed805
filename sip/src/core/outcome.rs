//! What came of our requests is told to whoever they were sent for.

use super::Core;
use super::exchange::{ClientExchange, Owner};
use super::leg::Stage;
use super::matching::ClientKey;
use super::peers::Way;
use crate::flow::{Destination, Flow, Unreached};
use crate::message::Message;
use schema::time::Now;

impl Core {
    /// No connection to this destination comes up: what is under way to it has failed.
    pub(super) fn on_unreachable(&mut self, destination: Destination, why: Unreached, now: Now) {
        let failed = self.under_way_over(Way::To(destination));
        let is_large = |key: &ClientKey| self.clients.get(key).is_some_and(|exchange| exchange.is_large);
        let was_large = failed.iter().any(is_large);
        let had_ack = self.acknowledge_over_udp(destination);
        if why == Unreached::NoConnection && (was_large || had_ack) {
            self.note_refusal(destination, now);
        }
        for key in failed {
            let Some(gone) = self.take_failed(&key) else { continue };
            let owner = gone.owner;
            if self.send_over_udp(gone, now) {
                continue;
            }
            if let Owner::Probe(trunk, gateway) = owner {
                self.on_probe_unreached(trunk, gateway, why);
            }
            self.on_no_answer(owner, 503, now);
        }
    }

    /// The connection to this destination is over, and what was on its way may be lost with it (RFC 3261 §18.4). A request other
    /// than INVITE leaves once more, the same to the branch: whoever has it already takes it for a repetition. An INVITE of which
    /// nothing was heard has failed as by a 503 (§8.1.3.1), so that its call goes elsewhere at once. What leaves in vain twice because
    /// it is large leaves over UDP.
    pub(super) fn on_disconnected(&mut self, destination: Destination, now: Now) {
        let way = Way::To(destination);
        for key in self.under_way_over(way) {
            let Some(exchange) = self.clients.get(&key).filter(|exchange| !self.is_withdrawn(exchange.owner)) else {
                continue;
            };
            let leaves = !exchange.is_invite() && self.is_wanted_still(exchange.owner);
            let again = self.clients.get_mut(&key).filter(|_| leaves).and_then(ClientExchange::once_more);
            if let Some(bytes) = again {
                self.send(way, bytes);
            } else if let Some(gone) = self.take_failed(&key) {
                let (owner, is_invite) = (gone.owner, gone.is_invite());
                if is_invite || gone.is_heard || !self.send_over_udp(gone, now) {
                    self.on_no_answer(owner, 503, now);
                }
            }
        }
    }

    /// The INVITE of a call that goes nowhere else any more: should it have arrived, what is said to it allows the CANCEL.
    fn is_withdrawn(&self, owner: Owner) -> bool {
        let Owner::Leg(id) = owner else { return false };
        let stage = self.legs.get(&id).map(|leg| &leg.stage);
        matches!(stage, Some(Stage::Outgoing(outgoing)) if outgoing.unwanted.is_some())
    }

    /// Takes away what will not be answered. `None`: an INVITE that has arrived, since whoever rings is not left alone with it (RFC
    /// 3263 §4.3): its response comes by a connection of the peer's own, or the call's limits end it. Or nobody waits for the
    /// outcome, as of an offer that was dropped meanwhile.
    fn take_failed(&mut self, key: &ClientKey) -> Option<ClientExchange> {
        self.clients.get(key).filter(|exchange| !(exchange.is_invite() && exchange.is_heard))?;
        let gone = self.clients.remove(key)?;
        match gone.owner {
            Owner::Offer(leg) if !self.is_its_offer(leg, gone.request().as_ref()) => None,
            _ => Some(gone),
        }
    }

    pub(super) fn on_answer(&mut self, flow: Flow, owner: Owner, response: &Message, now: Now) {
        let status = response.status().unwrap_or(0);
        match owner {
            // Any proxy on the way may have said it: nobody has answered (RFC 4320 §4.1).
            Owner::Pulse(_) | Owner::Refresh(_) | Owner::Bye(_) | Owner::Prack(_) if status < 200 => {}
            Owner::Leg(leg) => self.on_invite_answer(flow, leg, response, now),
            Owner::Probe(trunk, gateway) => self.on_probe_answer(trunk, gateway, now),
            Owner::Register(number) => self.on_register_answer(number, response, now),
            Owner::Pulse(leg) => self.on_pulse_answer(leg, status, now),
            Owner::Offer(leg) => self.on_offer_answer(flow, leg, response, now),
            Owner::Prack(leg) => self.on_prack_outcome(leg),
            Owner::Refresh(leg) => self.on_refresh_outcome(leg, Some(response), now),
            Owner::Bye(leg) => self.on_bye_outcome(leg, Some(status), now),
            Owner::Key(_) | Owner::Nobody => {}
        }
    }

    pub(super) fn on_no_answer(&mut self, owner: Owner, status: u16, now: Now) {
        match owner {
            Owner::Leg(leg) => self.on_invite_unanswered(leg, status, now),
            Owner::Probe(trunk, gateway) => self.on_probe_unanswered(trunk, gateway, now),
            Owner::Register(number) => self.on_register_unanswered(number, now),
            Owner::Pulse(leg) => self.on_pulse_unanswered(leg, status, now),
            Owner::Offer(leg) => self.on_offer_unanswered(leg, status, now),
            Owner::Prack(leg) => self.on_prack_outcome(leg),
            Owner::Refresh(leg) => self.on_refresh_outcome(leg, None, now),
            Owner::Bye(leg) => self.on_bye_outcome(leg, None, now),
            Owner::Key(_) | Owner::Nobody => {}
        }
    }
}
