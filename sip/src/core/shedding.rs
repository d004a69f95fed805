//! What is refused because it is too much: new calls and registrations, never what belongs to a call that is up. Without state,
//! and before a digest is computed.

use super::leg::Stage;
use super::matching::ServerKey;
use super::{Core, Output};
use crate::flow::Flow;
use crate::guard::Verdict;
use crate::message::{Glance, HeaderName, Message, Method, ResponseBuilder, acknowledged};
use crate::overload::{Overload, Reason};
use schema::id::CallId;
use schema::leg::{LegCommand, LegId};
use schema::time::{Mono, Now};
use std::net::SocketAddr;

/// How the tag of a 503 begins of which nothing is kept, so that its ACK is known by it. Other tags of ours are hexadecimal.
const NOTHING_KEPT: &str = "r";

impl Core {
    /// Whether the table of transactions has no room for this request: its last eighth is for what belongs to calls.
    pub(super) fn is_full_for(&self, request: &Message) -> bool {
        let most = self.config.transactions_max;
        let is_new = request.to_tag().is_none() && *request.method() != Method::Cancel;
        self.servers.len() >= if is_new { most - most / 8 } else { most }
    }

    /// Whether whoever sends this may go on to show who it is. Requests in dialogs always may. Strangers leave half of what is let
    /// in at once to sources that are known: a flood of forged INVITEs takes no place away from them.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn admit(&mut self, flow: Flow, request: &Message, now: Now) -> Result<(), Reason> {
        match request.method() {
            _ if request.to_tag().is_some() => Ok(()),
            Method::Invite => self.overload.admit(self.guard.knows(flow.ip(), now.mono), now.mono),
            Method::Register => self.overload.admit_registration(now.mono),
            _ => Ok(()),
        }
    }

    /// A request for which there was no room to wait; unless it is a repetition of one that is handled.
    pub(super) fn on_surplus(&mut self, flow: Flow, request: &Message, now: Now) {
        let key = ServerKey::of(request, request.method());
        if self.servers.contains_key(&key) {
            return self.server_repeated(&key, now);
        }
        if self.is_let_in(flow, request, now) {
            self.shed(flow, request, Reason::Queue, now);
        }
    }

    /// While more calls come than are let in: refuses a call at first sight, before its datagram is read, or takes the ACK of
    /// a 503 of which nothing is kept. False: it is to be read.
    pub fn turn_away(&mut self, source: SocketAddr, datagram: &[u8], now: Now) -> bool {
        let is_full = self.is_full_of_legs();
        if !is_full && !self.overload.is_thinning(now.mono) {
            return false;
        }
        if acknowledged(datagram).is_some_and(|tag| tag.starts_with(NOTHING_KEPT)) {
            return true;
        }
        let flow = Flow::udp(source);
        let Some(glance) = Glance::of(datagram).filter(|_| !self.is_trunk(flow) && !self.is_barred(flow)) else {
            return false;
        };
        let key = glance.branch().and_then(|branch| ServerKey::unique(branch, glance.sent_by(), &Method::Invite));
        // A repetition, or one of a kind that no longer is.
        if key.is_none_or(|key| self.servers.contains_key(&key)) {
            return false;
        }
        let known = self.guard.knows(flow.ip(), now.mono);
        let looked_at = if is_full { Err(Reason::Live) } else { self.overload.look_at(known, now.mono) };
        let Err(reason) = looked_at else { return false };
        if self.guard.request(flow.ip(), glance.user_agent(), false, now.mono) == Verdict::Pass {
            self.note_shed(reason, now);
            let tag = self.tag_for([glance.call_id(), glance.from_tag().unwrap_or_default(), ""], glance.branch());
            let refusal = glance.refusal(source, &format!("{NOTHING_KEPT}{tag}"), self.retry_after());
            let back = glance.response_address(source).map_or(flow, Flow::udp);
            self.output.extend(refusal.map(|bytes| Output::Send(back, bytes)));
        }
        true
    }

    /// Whether no further leg has room.
    pub(super) fn is_full_of_legs(&self) -> bool {
        self.legs.len() >= self.config.legs_max
    }

    /// 503 and when to come back.
    pub(super) fn shed(&mut self, flow: Flow, request: &Message, reason: Reason, now: Now) {
        self.note_shed(reason, now);
        self.refuse_for_now(flow, request);
    }

    fn note_shed(&mut self, reason: Reason, now: Now) {
        if let Some(since) = self.overload.refuse(reason, now.mono) {
            let standing_ms = since.standing.as_millis();
            tracing::warn!(
                live = since.live,
                rate = since.rate,
                delay = since.delay,
                queue = since.queue,
                registrations = since.registrations,
                standing_ms,
                "too much to do: refused with 503"
            );
        }
    }

    /// 503 with Retry-After, of which nothing is kept.
    pub(super) fn refuse_for_now(&mut self, flow: Flow, request: &Message) {
        let tag = format!("{NOTHING_KEPT}{}", self.tag_of(request));
        let wait = self.retry_after();
        let response = ResponseBuilder::to_request(request, 503, Some(&tag)).header(HeaderName::RetryAfter, &wait);
        self.reply(flow, request, response);
    }

    /// Spread over 5 to 14 s, so that they do not all come back at once.
    fn retry_after(&mut self) -> u64 {
        5 + self.entropy.below(10)
    }

    /// A call's actor has decided about it: how long that took shows how much the node has to do.
    pub(super) fn note_decision(&mut self, command: &LegCommand, now: Now) {
        let (call, note): (_, fn(&mut Overload, CallId, Mono, Mono)) = match command {
            LegCommand::Invite(invite) => (invite.leg.call, Overload::decided),
            // Refused by whoever has no time either; accepted where nobody else is asked.
            LegCommand::Reject { leg, status: 503, .. } | LegCommand::Accept { leg, .. } => {
                (leg.call, |overload, call, since, _| overload.withdrawn(call, since))
            }
            LegCommand::Reject { leg, .. } | LegCommand::HangUp { leg, .. } => (leg.call, Overload::turned_down),
            _ => return,
        };
        if let Some(Stage::Incoming(incoming)) = self.legs.get(&LegId::a(call)).map(|leg| &leg.stage) {
            note(&mut self.overload, call, incoming.since, now.mono);
        }
    }
}
