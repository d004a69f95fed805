//! The carrier hangs up.

use super::{Call, Carrier, CarrierEvent, Out, State};
use crate::demo::{Repeat, address_in};
use crate::message::{HeaderName, Message, Method, RequestBuilder, Transport, Uri, Via};
use bytes::Bytes;
use schema::time::Mono;
use std::net::SocketAddr;

impl Carrier {
    pub(super) fn hang_up(&mut self, number: u64, now: Mono, out: &mut Out) {
        let branch = format!("z9hG4bK{}", self.entropy.hex::<8>());
        let Some(call) = self.calls.get_mut(&number) else { return };
        let Some((to, bye)) = bye_of(call, self.address, &branch) else { return };
        let mut repeat = Repeat::up_to_t2(now);
        let at = repeat.next(now);
        out.datagrams.push((to, bye.clone()));
        call.state = State::HangingUp { bye, repeat };
        self.wait(number, at);
    }

    pub(super) fn on_response(&mut self, response: &Message, now: Mono, out: &mut Out) {
        // Our only requests are BYEs: From and To are swapped against the INVITE.
        let key = format!("{} {}", response.call_id(), response.to_tag().unwrap_or("")).into_boxed_str();
        let Some(&number) = self.keys.get(&key) else { return };
        let is_final = response.status().is_some_and(|status| status >= 200);
        let hanging_up = self.calls.get(&number).is_some_and(|call| matches!(call.state, State::HangingUp { .. }));
        if is_final && hanging_up {
            self.counts.ended += 1;
            out.events.push(CarrierEvent::Ended { by_carrier: true });
            self.over(number, now);
        }
    }
}

/// Where requests of the dialog go: the first route, else the caller's Contact; and that Contact.
pub(super) fn target_of(call: &Call) -> Option<(SocketAddr, Uri)> {
    let contact = call.invite.contact()?.uri;
    let hop = call.invite.record_routes().into_iter().next().map_or_else(|| contact.clone(), |route| route.uri);
    // A name: the INVITE's source has to do.
    Some((address_in(&hop).or(call.invite.source())?, contact))
}

fn bye_of(call: &Call, own: SocketAddr, branch: &str) -> Option<(SocketAddr, Bytes)> {
    let (to, contact) = target_of(call)?;
    let host = Uri::of_address(None, own);
    let via = Via::new(Transport::Udp, host.host(), Some(own.port()), branch).ok()?;
    let from = call.invite.to().with_tag(&call.to_tag).ok()?;
    let mut builder = RequestBuilder::new(Method::Bye, contact)
        .via(&via)
        .from(&from)
        .to(&call.invite.from())
        .call_id(call.invite.call_id())
        .cseq(1)
        .header(HeaderName::Reason, &crate::message::Reason::q850(16, "Normal call clearing"));
    for route in call.invite.record_routes() {
        builder = builder.route(&route);
    }
    Some((to, builder.build().ok()?))
}
