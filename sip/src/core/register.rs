//! REGISTER: the phone's request, the registrar's decision, the answer.

use super::exchange::reply_flow;
use super::matching::ServerKey;
use super::timers::Timer;
use super::{Core, Output};
use crate::flow::{Flow, Protocol};
use crate::message::{HeaderName, Message};
use crate::registrar::{Ask, Decision, Registration};
use schema::account::SipCredential;
use schema::edge::{BindingChange, EdgeEvent};
use schema::time::{Mono, Now};

/// More registrations within a second are a storm.
const STORM: u32 = 50;

/// How many register at the moment.
#[derive(Default)]
pub(super) struct Registering {
    second: u64,
    count: u32,
}

impl Registering {
    /// Counts one, and says whether it came with very many others.
    fn is_storm(&mut self, now: Mono) -> bool {
        let second = now.0 / 1_000_000;
        if std::mem::replace(&mut self.second, second) != second {
            self.count = 0;
        }
        self.count += 1;
        self.count > STORM
    }
}

impl Core {
    pub(super) fn on_register(&mut self, flow: Flow, request: Message, key: ServerKey, now: Now) {
        if self.is_barred(flow) {
            return self.refuse(flow, &request, 403);
        }
        let status = self.check_target(&request).err().or_else(|| {
            let host_is_ours = self.config.is_ours(request.to().uri.host());
            (!host_is_ours).then_some(404)
        });
        if let Some(status) = status {
            return self.refuse(flow, &request, status);
        }
        if let Some(response) = self.unsupported_extensions(&request) {
            return self.reply(flow, &request, response);
        }
        self.authenticate(flow, request, key, now);
    }

    /// The REGISTER is authenticated.
    pub(super) fn register(&mut self, flow: Flow, request: &Message, credential: &SipCredential, now: Now) {
        // The address-of-record is the digest user's own, and no other (RFC 3261 §10.3 step 4).
        if request.to().uri.user_decoded().as_deref() != Some(&*credential.username) {
            return self.answer_status(flow, request, 403, now);
        }
        let shorter_permille = self.spread(now);
        let registration = Registration {
            credential: credential.id,
            account: credential.account,
            flow: reply_flow(flow, request),
            call_id: request.call_id(),
            cseq: request.cseq().0,
            default_s: if flow.protocol == Protocol::Udp { 300 } else { 3_600 },
            shorter_permille,
            asks: asks(request),
        };
        match self.registrar.register(&registration, now.wall) {
            Decision::Refused(status) => {
                let mut response = self.response(request, status);
                if status == 423 {
                    response = response.header(HeaderName::MinExpires, &crate::registrar::EXPIRES_MIN_S);
                }
                self.answer(flow, request, response, now);
            }
            Decision::Registered { contacts, changes } => {
                let response = self.response(request, 200);
                let response =
                    contacts.iter().fold(response, |response, contact| response.header(HeaderName::Contact, contact));
                self.answer(flow, request, response, now);
                self.tell_bindings(changes);
                self.arm_bindings(now);
                self.phone_came_back(credential.id, now);
            }
        }
    }

    /// By how many thousandths this registration is made shorter: up to a tenth while very many come.
    fn spread(&mut self, now: Now) -> u32 {
        if self.registering.is_storm(now.mono) { u32::try_from(self.entropy.below(101)).unwrap_or(0) } else { 0 }
    }

    pub(super) fn tell_bindings(&mut self, changes: Vec<BindingChange>) {
        for change in changes {
            self.output.push_back(Output::Edge(EdgeEvent::BindingChanged(Box::new(change))));
        }
    }

    pub(super) fn bindings_time(&mut self, now: Now) {
        self.bindings_armed = None;
        let changes = self.registrar.expire(now.wall);
        self.tell_bindings(changes);
        self.arm_bindings(now);
    }

    pub(super) fn arm_bindings(&mut self, now: Now) {
        let next = self.registrar.next_expiry().map(|at| now.mono + at.since(now.wall));
        self.timers.arm(&mut self.bindings_armed, next, || Timer::Bindings);
    }
}

/// What the Contacts ask for.
fn asks(request: &Message) -> Ask {
    if request.is_contact_wildcard() {
        return Ask::RemoveAll { expires_s: request.expires() };
    }
    let default = request.expires();
    let contacts = request.contacts().into_iter().map(|contact| {
        let expires = contact.expires_s().or(default);
        (contact, expires)
    });
    Ask::Contacts(contacts.collect())
}
