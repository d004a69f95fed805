//! Who is calling or registering: the digest user decides, From is never believed.

use super::exchange::ServerKey;
use super::timers::Timer;
use super::{Core, Output};
use crate::digest::{Claim, Refusal, Scheme};
use crate::flow::Flow;
use crate::message::{HeaderName, Message, Method};
use schema::account::SipCredential;
use schema::edge::{CredentialLookup, EdgeEvent, Ticket};
use schema::id::CredentialId;
use schema::time::{Mono, Now};
use std::collections::BTreeMap;
use std::time::Duration;

/// A credential is looked up again after this.
const REMEMBER: Duration = Duration::from_secs(30);
/// Most credentials remembered.
const REMEMBERED_MAX: usize = 10_000;
/// A look-up takes no longer; then 503.
const LOOKUP_LIMIT: Duration = Duration::from_secs(2);

/// A request whose credential is being looked up.
struct Waiting {
    flow: Flow,
    key: ServerKey,
    request: Message,
    claim: Claim,
}

/// Credentials being looked up, and those found a short time ago.
#[derive(Default)]
pub(super) struct Lookups {
    last: u64,
    waiting: BTreeMap<Ticket, Waiting>,
    known: BTreeMap<Box<str>, (SipCredential, Mono)>,
}

impl Lookups {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    fn known(&self, username: &str, now: Mono) -> Option<&SipCredential> {
        self.known.get(username).filter(|(_, until)| *until > now).map(|(credential, _)| credential)
    }

    fn remember(&mut self, credential: SipCredential, now: Mono) {
        if self.known.len() >= REMEMBERED_MAX {
            self.known.retain(|_, (_, until)| *until > now);
        }
        if self.known.len() < REMEMBERED_MAX {
            self.known.insert(credential.username.clone(), (credential, now + REMEMBER));
        }
    }

    /// A credential was rotated or revoked.
    pub(super) fn forget(&mut self, id: CredentialId) {
        self.known.retain(|_, (credential, _)| credential.id != id);
    }
}

fn scheme_of(request: &Message) -> Scheme {
    match request.method() {
        Method::Register => Scheme::Www,
        _ => Scheme::Proxy,
    }
}

impl Core {
    /// Challenges the request, or finds out whose it is and goes on with it there.
    pub(super) fn authenticate(&mut self, flow: Flow, request: Message, key: ServerKey, now: Now) {
        let claim = match self.challenger.claim(&request, scheme_of(&request), flow.origin(), now.mono) {
            Ok(claim) => claim,
            Err(refusal) => return self.challenge(flow, &request, refusal, now),
        };
        if let Some(credential) = self.lookups.known(claim.username(), now.mono).cloned() {
            self.open_authenticating(&key, flow, &request, now);
            return self.check_secret(flow, request, &key, &claim, Some(&credential), now);
        }
        if self.lookups.waiting.len() >= self.config.lookups_max {
            return self.refuse_overloaded(flow, &request);
        }
        self.open_authenticating(&key, flow, &request, now);
        self.lookups.last += 1;
        let ticket = Ticket(self.lookups.last);
        self.output.push_back(Output::Edge(EdgeEvent::CredentialWanted { ticket, username: claim.username().into() }));
        self.timers.set(now.mono + LOOKUP_LIMIT, Timer::Lookup(ticket));
        self.lookups.waiting.insert(ticket, Waiting { flow, key, request, claim });
    }

    /// From here on the request has a transaction: an INVITE is told that we try.
    fn open_authenticating(&mut self, key: &ServerKey, flow: Flow, request: &Message, now: Now) {
        self.open_server(key, flow, request);
        if *request.method() == Method::Invite {
            self.respond(key, crate::message::ResponseBuilder::to_request(request, 100, None), now);
        }
    }

    /// Without state: a 401 or 407 costs us nothing, whoever sends the request.
    fn challenge(&mut self, flow: Flow, request: &Message, refusal: Refusal, now: Now) {
        if let Some(status) = refusal.status() {
            let response = self.response(request, status);
            return self.reply(flow, request, response);
        }
        let response = self.challenged(flow, request, refusal.is_stale(), now);
        self.reply(flow, request, response);
    }

    fn challenged(&mut self, flow: Flow, request: &Message, stale: bool, now: Now) -> crate::message::ResponseBuilder {
        let scheme = scheme_of(request);
        let values = self.challenger.challenge(&mut self.entropy, now.mono, flow.origin(), stale);
        let only_md5 = knows_one_challenge(request);
        let response = self.response(request, scheme.status());
        let offered = values.iter().filter(|value| !only_md5 || value.contains("algorithm=MD5"));
        offered.fold(response, |response, value| response.header(scheme.challenge_header(), value))
    }

    pub(super) fn on_credential(&mut self, ticket: Ticket, found: CredentialLookup, now: Now) {
        let Some(waiting) = self.lookups.waiting.remove(&ticket) else { return };
        let Waiting { flow, key, request, claim } = waiting;
        match found {
            CredentialLookup::Found(credential) => {
                self.lookups.remember((*credential).clone(), now.mono);
                self.check_secret(flow, request, &key, &claim, Some(&credential), now);
            }
            CredentialLookup::Unknown => self.check_secret(flow, request, &key, &claim, None, now),
            CredentialLookup::Unavailable => self.unavailable(&key, &request, now),
        }
    }

    pub(super) fn lookup_time(&mut self, ticket: Ticket, now: Now) {
        if let Some(waiting) = self.lookups.waiting.remove(&ticket) {
            self.unavailable(&waiting.key, &waiting.request, now);
        }
    }

    fn unavailable(&mut self, key: &ServerKey, request: &Message, now: Now) {
        let response = self.response(request, 503).header(HeaderName::RetryAfter, &5);
        self.respond(key, response, now);
    }

    fn check_secret(
        &mut self,
        flow: Flow,
        request: Message,
        key: &ServerKey,
        claim: &Claim,
        credential: Option<&SipCredential>,
        now: Now,
    ) {
        let secret = credential.map(|credential| credential.secret.expose());
        match (self.challenger.verify(claim, secret, now.mono), credential) {
            (Ok(()), Some(credential)) => {
                if flow.connection.is_some() {
                    self.output.push_back(Output::Trust(flow));
                }
                if *request.method() == Method::Register {
                    self.register(flow, &request, credential, now);
                } else {
                    self.invited(flow, request, key, credential, now);
                }
            }
            (refusal, _) => {
                let stale = refusal.is_err_and(Refusal::is_stale);
                let response = self.challenged(flow, &request, stale, now);
                self.respond(key, response, now);
            }
        }
    }
}

/// Phones that give up when any challenge names an algorithm they do not know, instead of taking the one they know
/// (RFC 3261 §22.3): baresip before version 2. They get MD5 alone.
fn knows_one_challenge(request: &Message) -> bool {
    let agent = request.text(HeaderName::UserAgent).unwrap_or_default();
    ["baresip v0.", "baresip v1."].iter().any(|known| agent.starts_with(known))
}
