//! Legs of calls that were up when the process before this one ended.

use super::incoming::with_sdp;
use super::leg::{Leg, Pending200};
use super::{Core, dispatch::ALLOW, exchange::Way};
use crate::dialog::{Dialog, StoredInvite};
use crate::flow::Flow;
use crate::message::{HeaderName, Malformed, Message, Method, NameAddr, RequestBuilder, ResponseBuilder, Via};
use crate::transaction::{GIVE_UP, Repetition, T2};
use schema::leg::{Checkpoint, EndCause, LegEvent, LegId, Sdp};
use schema::time::Now;

impl Core {
    /// Keeps a request of an unknown dialog while dialogs are resumed. Gives it back when none will be.
    pub(super) fn wait_for_dialog(&mut self, flow: Flow, request: Message, now: Now) -> Option<Message> {
        let Some(early) = &mut self.early else { return Some(request) };
        if early.len() < EARLY_MAX {
            early.push((flow, request, now));
        }
        None
    }

    /// Whether dialogs are resumed still.
    pub(super) const fn is_recovering(&self) -> bool {
        self.early.is_some()
    }

    /// All dialogs are resumed: what waited for them is taken, in order, as of when it came.
    pub(super) fn recovered(&mut self) {
        for (flow, request, at) in self.early.take().unwrap_or_default() {
            self.on_request(flow, request, at);
        }
    }

    /// Takes up an answered dialog again. Nothing is sent: the other side need not notice.
    pub(super) fn resume(&mut self, id: LegId, checkpoint: &Checkpoint, now: Now) {
        if self.legs.contains_key(&id) {
            return;
        }
        match Leg::resumed(checkpoint) {
            Ok(leg) => {
                self.dialogs.insert(leg.dialog.key(), id);
                self.legs.insert(id, leg);
            }
            Err(Malformed) => self.tell(LegEvent::Ended { leg: id, cause: EndCause::Lost }, now),
        }
    }

    /// The 200 of an A-leg that was answered shortly before the restart: it may never have left, or its ACK not have come. A
    /// caller that has it acknowledges it again (RFC 3261 §13.2.2.4). Over a connection it went with the connection.
    pub(super) fn accept_again(&mut self, id: LegId, sdp: Option<&Sdp>, now: Now) {
        let Some(invite) = self.legs.get_mut(&id).and_then(|leg| leg.unconfirmed.take()) else { return };
        let body = self.describe(id, sdp);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let (Way::Flow(flow), Ok(invite)) = (leg.way, invite_of(&leg.dialog, &invite)) else { return };
        let response = ResponseBuilder::to_request(&invite, 200, leg.dialog.local.tag())
            .record_route()
            .contact(&leg.contact)
            .header(HeaderName::Allow, &ALLOW);
        let Ok(bytes) = with_sdp(response, body).build() else { return };
        let (cseq, repeat, give_up) = (invite.cseq().0, Repetition::from(now.mono, T2), now.mono + GIVE_UP);
        leg.ok = Some(Pending200 { bytes: bytes.clone(), flow, cseq, is_first: true, repeat, give_up });
        self.send(Way::Flow(flow), bytes);
        self.arm_leg(id);
    }
}

/// Requests that wait for their dialog at a time; more are dropped, and over UDP come again.
const EARLY_MAX: usize = 10_000;

/// An INVITE to us as far as its responses need it.
///
/// # Errors
/// When what was stored cannot be written.
fn invite_of(dialog: &Dialog, stored: &StoredInvite) -> Result<Message, Malformed> {
    let mut invite = RequestBuilder::new(Method::Invite, dialog.local.uri.clone())
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
