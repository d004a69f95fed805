//! REGISTER: the phone's request, the registrar's decision, the answer.

use super::matching::ServerKey;
use super::peers::reply_flow;
use super::timers::{Timer, Timers};
use super::{Core, Output};
use crate::flow::Flow;
use crate::message::{HeaderName, Malformed, Message, NameAddr};
use crate::registrar::{Ask, Decision, Moved, Registration};
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

/// Option tag of RFC 3327.
pub(super) const PATH: &str = "path";
/// Option tag of RFC 5626.
pub(super) const OUTBOUND: &str = "outbound";
/// How often a phone shows that its flow is there, seconds; a connection is closed after 120 s of silence.
const FLOW_TIMER_S: u32 = 100;
/// The same over UDP, which a NAT forgets after 30 s; it is what RFC 5626 §4.4 has a phone do that is told nothing.
const FLOW_TIMER_UDP_S: u32 = 29;
/// Most proxies between us and a phone.
const HOPS_MAX: usize = 8;
/// Bytes of them all.
const HOPS_BYTES_MAX: usize = 2_048;

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
        match path_of(&request) {
            Err(Malformed) => return self.refuse(flow, &request, 400),
            // Whoever does not know of it would be told of a path that it cannot judge (RFC 3327 §5.3).
            Ok(path) if !path.is_empty() && !supports(&request, PATH) => {
                let response = self.response(&request, 420).header(HeaderName::Unsupported, &PATH);
                return self.reply(flow, &request, response);
            }
            Ok(path) if wants_outbound(&request) && !reaches_first_hop(&request, &path) => {
                return self.refuse(flow, &request, 439);
            }
            Ok(_) => {}
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
        let outbound = wants_outbound(request);
        let is_stream = flow.protocol.is_reliable();
        let registration = Registration {
            credential: credential.id,
            account: credential.account,
            // A flow is what the request came by, whatever its Via says.
            flow: if outbound { flow } else { reply_flow(flow, request) },
            call_id: request.call_id(),
            cseq: request.cseq().0,
            default_s: if is_stream { 3_600 } else { 300 },
            shorter_permille,
            asks: asks(request),
            outbound,
            path: path_of(request).unwrap_or_default(),
        };
        match self.registrar.register(&registration, now) {
            Decision::Refused(status) => {
                let mut response = self.response(request, status);
                if status == 423 {
                    response = response.header(HeaderName::MinExpires, &crate::registrar::EXPIRES_MIN_S);
                }
                self.answer(flow, request, response, now);
            }
            Decision::Registered { contacts, changes, moved } => {
                let mut response = self.response(request, 200);
                for hop in &registration.path {
                    response = response.header(HeaderName::Path, hop);
                }
                if outbound {
                    let flow_timer_s = if is_stream { FLOW_TIMER_S } else { FLOW_TIMER_UDP_S };
                    response =
                        response.header(HeaderName::Require, &OUTBOUND).header(HeaderName::FlowTimer, &flow_timer_s);
                }
                let response =
                    contacts.iter().fold(response, |response, contact| response.header(HeaderName::Contact, contact));
                self.answer(flow, request, response, now);
                self.tell_bindings(changes);
                self.arm_bindings();
                if let Some(Moved { instance, from }) = moved {
                    self.flow_moved(&(credential.id, Some(instance)), from, flow, now);
                }
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
        if !Timers::fires(&mut self.bindings_armed, now.mono) {
            return;
        }
        let changes = self.registrar.expire(now);
        self.tell_bindings(changes);
        self.arm_bindings();
    }

    pub(super) fn arm_bindings(&mut self) {
        let next = self.registrar.next_expiry();
        self.timers.arm(&mut self.bindings_armed, next, || Timer::Bindings);
    }
}

/// Proxies that the phone is behind, the nearest first (RFC 3327).
///
/// # Errors
/// One of them cannot be read, or there are too many.
fn path_of(request: &Message) -> Result<Vec<NameAddr>, Malformed> {
    let hops: Vec<_> = request.values(HeaderName::Path).take(HOPS_MAX + 1).collect();
    let size: usize = hops.iter().flatten().map(|hop| hop.len()).sum();
    if hops.len() > HOPS_MAX || size > HOPS_BYTES_MAX {
        return Err(Malformed);
    }
    hops.into_iter().map(|hop| NameAddr::parse(hop?)).collect()
}

fn supports(request: &Message, tag: &str) -> bool {
    request.supported().chain(request.require()).any(|known| known.eq_ignore_ascii_case(tag))
}

/// Whether several flows are asked for (RFC 5626 §6).
fn wants_outbound(request: &Message) -> bool {
    let contacts = request.contacts();
    let has = |name: &str| contacts.iter().any(|contact| contact.params.value(name).is_some());
    supports(request, OUTBOUND) && has("reg-id") && has("+sip.instance")
}

/// Whether the phone's first hop keeps its flow: we are that, or the proxy next to the phone says so.
fn reaches_first_hop(request: &Message, path: &[NameAddr]) -> bool {
    request.vias().len() == 1 || path.last().is_some_and(|edge| edge.uri.param("ob").is_some())
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
