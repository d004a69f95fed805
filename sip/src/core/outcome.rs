//! What came of our requests is told to whoever they were sent for.

use super::Core;
use super::exchange::Owner;
use super::peers::Way;
use crate::flow::{Destination, Flow, Unreached};
use crate::message::Message;
use schema::time::Now;

impl Core {
    /// Every request under way to this destination has failed.
    pub(super) fn on_unreachable(&mut self, destination: Destination, why: Unreached, now: Now) {
        let failed = self.clients.over(Way::To(destination));
        let failed: Vec<_> = failed.map(|(key, exchange)| (key.clone(), exchange.owner, exchange.asked)).collect();
        self.acknowledge_over_udp(destination);
        for (key, owner, asked) in failed {
            let gone = self.clients.remove(&key);
            // Of an offer that was dropped meanwhile nobody waits for the outcome.
            if let Owner::Offer(leg) = owner
                && !self.is_its_offer(leg, gone.and_then(|gone| gone.request()).as_ref())
            {
                continue;
            }
            if self.send_over_udp(owner, asked, now) {
                continue;
            }
            if let Owner::Probe(trunk, gateway) = owner {
                self.on_probe_unreached(trunk, gateway, why);
            }
            self.on_no_answer(owner, 503, now);
        }
    }

    pub(super) fn on_answer(&mut self, flow: Flow, owner: Owner, response: &Message, now: Now) {
        match owner {
            Owner::Leg(leg) => self.on_invite_answer(flow, leg, response, now),
            Owner::Probe(trunk, gateway) => self.on_probe_answer(trunk, gateway, now),
            Owner::Register(number) => self.on_register_answer(number, response, now),
            Owner::Pulse(leg) => self.on_pulse_answer(leg, response.status().unwrap_or(0), now),
            Owner::Offer(leg) => self.on_offer_answer(flow, leg, response, now),
            Owner::Prack(leg) => {
                if response.status().unwrap_or(0) >= 200 {
                    self.on_prack_outcome(leg);
                }
            }
            Owner::Refresh(leg) => self.on_refresh_outcome(leg, Some(response), now),
            Owner::Bye(leg) => self.on_bye_outcome(leg, response.status(), now),
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
