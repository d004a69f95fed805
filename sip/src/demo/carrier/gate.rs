//! A test carrier that does not know its customers by their address: it asks for credentials, and may want to be registered with.

use super::{Carrier, CarrierEvent, Out, refuse, reply};
use crate::digest::{Algorithm, Challenger, Origin, Scheme, ha1};
use crate::message::{HeaderName, Malformed, Message, Method, ResponseBuilder};
use schema::account::Ha1;
use schema::entropy::Entropy;
use schema::pii::Pii;
use schema::time::Mono;
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// Transactions remembered: a repetition is not asked again.
const PASSED_MAX: usize = 10_000;

/// What the carrier wants of whoever calls over it.
#[derive(Debug, Clone)]
pub struct CarrierLogin {
    /// Digest username.
    pub username: String,
    /// Its password.
    pub password: Pii<String>,
    /// Digest realm.
    pub realm: String,
    /// Algorithms asked for, most preferred first.
    pub algorithms: Vec<Algorithm>,
    /// Calls are taken only from who is registered; the shortest registration, and how long one is granted, in seconds.
    pub registers_s: Option<(u32, u32)>,
}

/// The gate in front of a carrier.
pub(super) struct Gate {
    username: Box<str>,
    secret: Ha1,
    challenger: Challenger,
    registers_s: Option<(u32, u32)>,
    registered: Option<Mono>,
    /// Transactions let through, oldest first.
    passed: BTreeSet<Box<str>>,
    order: VecDeque<Box<str>>,
}

/// What becomes of a REGISTER.
pub(super) enum Registered {
    Until,
    Left,
}

impl Gate {
    /// # Errors
    /// The realm cannot be one, or no algorithm is given.
    pub(super) fn new(login: &CarrierLogin, entropy: &mut Entropy) -> Result<Self, Malformed> {
        Ok(Self {
            username: login.username.as_str().into(),
            secret: ha1(&login.username, &login.realm, login.password.expose()),
            challenger: Challenger::new(entropy, &login.realm, &[], &login.algorithms)?,
            registers_s: login.registers_s,
            registered: None,
            passed: BTreeSet::new(),
            order: VecDeque::new(),
        })
    }

    /// The registration is lost.
    pub(super) fn forget(&mut self) {
        self.registered = None;
    }

    /// Nonces given out so far are too old.
    pub(super) fn rotate(&mut self, entropy: &mut Entropy) {
        self.challenger.rotate(entropy);
    }

    /// The answer to a request that is not let through: a challenge, or another refusal.
    pub(super) fn refusal(
        &mut self,
        request: &Message,
        source: SocketAddr,
        tag: &str,
        now: Mono,
        entropy: &mut Entropy,
    ) -> Option<ResponseBuilder> {
        let scheme = if *request.method() == Method::Register { Scheme::Www } else { Scheme::Proxy };
        let key = format!("{} {}", request.branch().unwrap_or_default(), request.method()).into_boxed_str();
        if self.passed.contains(&key) {
            return None;
        }
        let origin = Origin::Address(source.ip());
        let claimed = self.challenger.claim(request, scheme, origin, now).and_then(|claim| {
            let secret = (*claim.username() == *self.username).then_some(&self.secret);
            self.challenger.verify(&claim, secret, now)
        });
        let refusal = match claimed {
            Ok(()) => {
                let is_register = *request.method() == Method::Register;
                let is_in_dialog = request.to_tag().is_some();
                if self.registers_s.is_some() && !is_register && !is_in_dialog && !self.is_registered(now) {
                    return Some(ResponseBuilder::to_request(request, 403, Some(tag)));
                }
                self.note(key);
                return None;
            }
            Err(refusal) => refusal,
        };
        let status = refusal.status().unwrap_or(scheme.status());
        let response = ResponseBuilder::to_request(request, status, Some(tag));
        let values = self.challenger.challenge(entropy, now, origin, refusal.is_stale());
        Some(values.iter().fold(response, |response, value| response.header(scheme.challenge_header(), value)))
    }

    fn note(&mut self, key: Box<str>) {
        self.passed.insert(key.clone());
        self.order.push_back(key);
        if self.order.len() > PASSED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.passed.remove(&oldest);
        }
    }

    pub(super) fn is_registered(&self, now: Mono) -> bool {
        self.registered.is_some_and(|until| until > now)
    }

    /// An authenticated REGISTER: the answer to it, and what it changed.
    pub(super) fn register(
        &mut self,
        request: &Message,
        tag: &str,
        now: Mono,
    ) -> (ResponseBuilder, Option<Registered>) {
        let respond = |status| ResponseBuilder::to_request(request, status, Some(tag));
        let Some((least_s, granted_s)) = self.registers_s else { return (respond(405), None) };
        let contacts = request.contacts();
        let Some(contact) = contacts.first() else { return (respond(400), None) };
        let asked_s = contact.expires_s().or_else(|| request.expires()).unwrap_or(3_600);
        if asked_s == 0 {
            self.registered = None;
            return (respond(200), Some(Registered::Left));
        }
        if asked_s < least_s {
            return (respond(423).header(HeaderName::MinExpires, &least_s), None);
        }
        let until = now + Duration::from_secs(u64::from(granted_s.min(asked_s)));
        self.registered = Some(until);
        let response = respond(200).contact(contact).header(HeaderName::Expires, &granted_s.min(asked_s));
        (response, Some(Registered::Until))
    }
}

impl Carrier {
    /// As this one, but it asks for credentials.
    ///
    /// # Errors
    /// The realm cannot be one, or no algorithm is given.
    pub fn asking(mut self, login: &CarrierLogin) -> Result<Self, Malformed> {
        self.gate = Some(Gate::new(login, &mut self.entropy)?);
        Ok(self)
    }

    /// Whether a request is let in; one that is not is answered.
    pub(super) fn is_let_in(&mut self, request: &Message, source: SocketAddr, now: Mono, out: &mut Out) -> bool {
        let is_open = matches!(request.method(), Method::Ack | Method::Cancel)
            || (*request.method() == Method::Options && request.to_tag().is_none());
        let Some(gate) = self.gate.as_mut().filter(|_| !is_open) else { return true };
        let tag = self.entropy.hex::<8>();
        let Some(refusal) = gate.refusal(request, source, &tag, now, &mut self.entropy) else { return true };
        self.counts.challenged += 1;
        out.events.push(CarrierEvent::Challenged);
        refusal.build().into_iter().for_each(|response| reply(request, response, out));
        false
    }

    pub(super) fn on_register(&mut self, request: &Message, now: Mono, out: &mut Out) {
        let tag = self.entropy.hex::<8>();
        let Some(gate) = &mut self.gate else { return refuse(request, 405, &tag, out) };
        let (response, changed) = gate.register(request, &tag, now);
        response.build().into_iter().for_each(|response| reply(request, response, out));
        out.events.extend(changed.map(|changed| match changed {
            Registered::Until => CarrierEvent::Registered,
            Registered::Left => CarrierEvent::Unregistered,
        }));
    }
}
