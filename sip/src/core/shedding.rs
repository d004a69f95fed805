//! What is refused because it is too much: new calls and registrations, never what belongs to a call that is up. Without state,
//! and before a digest is computed.

use super::Core;
use super::leg::Stage;
use super::matching::ServerKey;
use crate::flow::Flow;
use crate::message::{HeaderName, Message, Method};
use crate::overload::Reason;
use schema::leg::{LegCommand, LegId};
use schema::time::Now;

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

    /// 503 and when to come back.
    pub(super) fn shed(&mut self, flow: Flow, request: &Message, reason: Reason, now: Now) {
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
        self.refuse_for_now(flow, request);
    }

    /// 503 with Retry-After, spread over 5 to 14 s, so that they do not all come back at once.
    pub(super) fn refuse_for_now(&mut self, flow: Flow, request: &Message) {
        let wait = 5 + self.entropy.below(10);
        let response = self.response(request, 503).header(HeaderName::RetryAfter, &wait);
        self.reply(flow, request, response);
    }

    /// A call's actor has decided about it: how long that took shows how much the node has to do.
    pub(super) fn note_decision(&mut self, command: &LegCommand, now: Now) {
        let (call, is_decided) = match command {
            LegCommand::Invite(invite) => (invite.leg.call, true),
            // Refused by whoever has no time either.
            LegCommand::Reject { leg, status: 503, .. } => (leg.call, false),
            LegCommand::Reject { leg, .. } | LegCommand::HangUp { leg, .. } => (leg.call, true),
            _ => return,
        };
        if let Some(Stage::Incoming { since, .. }) = self.legs.get(&LegId::a(call)).map(|leg| &leg.stage) {
            let since = *since;
            if is_decided {
                self.overload.decided(call, since, now.mono);
            } else {
                self.overload.withdrawn(call, since);
            }
        }
    }
}
