//! Who is calling or registering: the digest user decides, From is never believed.

use super::matching::ServerKey;
use super::timers::Timer;
use super::{Core, Output};
use crate::digest::{Claim, Refusal, Scheme};
use crate::flow::Flow;
use crate::guard::Verdict;
use crate::message::{HeaderName, Message, Method, ResponseBuilder};
use crate::overload::Reason;
use schema::account::SipCredential;
use schema::edge::{CredentialLookup, EdgeEvent, Ticket};
use schema::id::CredentialId;
use schema::time::{Mono, Now};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// A credential is looked up again after this.
const REMEMBER: Duration = Duration::from_secs(30);
/// Most credentials remembered.
const REMEMBERED_MAX: usize = 10_000;
/// A look-up takes no longer; then 503.
const LOOKUP_LIMIT: Duration = Duration::from_secs(2);
/// A refusal leaves so long after its request came, however soon it was certain: a credential that is found takes longer to read
/// than one that is not. Longer than a look-up takes, shorter than T1.
pub(super) const REFUSAL: Duration = Duration::from_millis(100);

/// A request whose credential is being looked up.
struct Waiting {
    flow: Flow,
    key: ServerKey,
    request: Message,
    claim: Claim,
    since: Mono,
    stage: Stage,
    /// False when a credential was revoked since the question: the answer may be older than that.
    may_remember: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Asked,
    /// It is known that the answer is a refusal, which is not due yet.
    Refused,
    /// Its caller has given up and knows that. It waits to be counted, should it be a wrong guess.
    Withdrawn,
}

/// Credentials being looked up, and those found a short time ago.
#[derive(Default)]
pub(super) struct Lookups {
    last: u64,
    waiting: BTreeMap<Ticket, Waiting>,
    known: BTreeMap<Box<str>, (Arc<SipCredential>, Mono)>,
    /// Those known, in the order they are forgotten.
    order: VecDeque<(Mono, Box<str>)>,
}

impl Lookups {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    fn known(&self, username: &str, now: Mono) -> Option<Arc<SipCredential>> {
        self.known.get(username).filter(|(_, until)| *until > now).map(|(credential, _)| credential.clone())
    }

    fn remember(&mut self, credential: Arc<SipCredential>, now: Mono) {
        while let Some((until, _)) = self.order.front()
            && (*until <= now || self.order.len() >= REMEMBERED_MAX)
        {
            let Some((until, username)) = self.order.pop_front() else { break };
            if self.known.get(&username).is_some_and(|(_, known_until)| *known_until == until) {
                self.known.remove(&username);
            }
        }
        let until = now + REMEMBER;
        self.order.push_back((until, credential.username.clone()));
        self.known.insert(credential.username.clone(), (credential, until));
    }

    /// A credential was rotated or revoked.
    pub(super) fn forget(&mut self, id: CredentialId) {
        self.known.retain(|_, (credential, _)| credential.id != id);
        self.waiting.values_mut().for_each(|waiting| waiting.may_remember = false);
    }

    /// Whose request of this transaction waits.
    fn of(&self, key: &ServerKey) -> Option<Ticket> {
        self.waiting.iter().find(|(_, waiting)| waiting.key == *key).map(|(ticket, _)| *ticket)
    }
}

impl Core {
    /// Why there is no room to look up who sends this: phones that register leave half of it to calls, and new calls leave an
    /// eighth to what belongs to calls.
    fn lookups_are_full_for(&self, request: &Message) -> Option<Reason> {
        let most = self.config.lookups_max;
        let (room, reason) = match request.method() {
            _ if request.to_tag().is_some() => (most, Reason::Queue),
            Method::Register => (most / 2, Reason::Registrations),
            _ => (most - most / 8, Reason::Queue),
        };
        (self.lookups.waiting.len() >= room).then_some(reason)
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
            Err(refusal) => return self.challenge_if_admitted(flow, &request, refusal, now),
        };
        // Who answers a challenge at once was let in with it.
        if !claim.is_prompt(now.mono)
            && let Err(reason) = self.admit(flow, &request, now)
        {
            return self.shed(flow, &request, reason, now);
        }
        if self.guard.attempt(flow.peer, claim.username(), now.mono) != Verdict::Pass {
            return self.refuse_for_now(flow, &request);
        }
        // A digest is computed also when there is nothing to compare: a name that is known takes no longer than another.
        let known = self.lookups.known(claim.username(), now.mono);
        let secret = known.as_ref().map(|credential| credential.secret.expose());
        match (self.challenger.verify(&claim, secret, now.mono), known) {
            (Ok(()), Some(credential)) => {
                self.open_authenticating(&key, flow, &request, now);
                return self.authenticated(flow, request, &key, &credential, now);
            }
            // Rotated a moment ago, or wrong: it is looked up again, which takes as long as it does for an unknown name.
            (Ok(()) | Err(Refusal::Wrong), _) => {}
            (Err(refusal), _) => return self.challenge_if_admitted(flow, &request, refusal, now),
        }
        if let Some(reason) = self.lookups_are_full_for(&request) {
            return self.shed(flow, &request, reason, now);
        }
        self.open_authenticating(&key, flow, &request, now);
        self.lookups.last += 1;
        let ticket = Ticket(self.lookups.last);
        self.output.push_back(Output::Edge(EdgeEvent::CredentialWanted { ticket, username: claim.username().into() }));
        self.timers.set(now.mono + LOOKUP_LIMIT, Timer::Lookup(ticket));
        let waiting = Waiting { flow, key, request, claim, since: now.mono, stage: Stage::Asked, may_remember: true };
        self.lookups.waiting.insert(ticket, waiting);
    }

    /// From here on the request has a transaction: an INVITE is told that we try.
    fn open_authenticating(&mut self, key: &ServerKey, flow: Flow, request: &Message, now: Now) {
        self.open_server(key, flow, request, now);
        if *request.method() == Method::Invite {
            self.respond(key, ResponseBuilder::to_request(request, 100, None), now);
        }
    }

    fn challenge_if_admitted(&mut self, flow: Flow, request: &Message, refusal: Refusal, now: Now) {
        let admitted = if refusal.status().is_none() { self.admit(flow, request, now) } else { Ok(()) };
        match admitted {
            Ok(()) => self.challenge(flow, request, refusal, now.mono),
            Err(reason) => self.shed(flow, request, reason, now),
        }
    }

    /// Without state: a 401 or 407 costs us nothing, whoever sends the request.
    fn challenge(&mut self, flow: Flow, request: &Message, refusal: Refusal, now: Mono) {
        let response = match refusal.status() {
            Some(status) => self.response(request, status),
            None => self.challenged(flow, request, refusal.is_stale(), now),
        };
        self.reply(flow, request, response);
    }

    fn challenged(&mut self, flow: Flow, request: &Message, stale: bool, now: Mono) -> ResponseBuilder {
        let scheme = scheme_of(request);
        let values = self.challenger.challenge(&mut self.entropy, now, flow.origin(), stale);
        let only_md5 = knows_one_challenge(request);
        let response = self.response(request, scheme.status());
        let offered = values.iter().filter(|value| !only_md5 || value.contains("algorithm=MD5"));
        offered.fold(response, |response, value| response.header(scheme.challenge_header(), value))
    }

    pub(super) fn on_credential(&mut self, ticket: Ticket, found: CredentialLookup, now: Now) {
        let Some(waiting) = self.lookups.waiting.remove(&ticket) else { return };
        let credential = match found {
            CredentialLookup::Found(credential) => Some(Arc::new(*credential)),
            CredentialLookup::Unknown => None,
            CredentialLookup::Unavailable => return self.unavailable(&waiting, now),
        };
        let secret = credential.as_ref().map(|credential| credential.secret.expose());
        match (self.challenger.verify(&waiting.claim, secret, now.mono), &credential) {
            // A guess counts, whether or not its answer is still wanted.
            (Err(Refusal::Wrong), _) => {
                self.guard.failed(waiting.flow.ip(), waiting.claim.username(), now.mono);
                if waiting.stage != Stage::Withdrawn {
                    self.timers.set(waiting.since + REFUSAL, Timer::Lookup(ticket));
                    self.lookups.waiting.insert(ticket, Waiting { stage: Stage::Refused, ..waiting });
                }
            }
            _ if waiting.stage == Stage::Withdrawn => {}
            (Ok(()), Some(credential)) => {
                let Waiting { flow, key, request, may_remember, .. } = waiting;
                if may_remember {
                    self.lookups.remember(credential.clone(), now.mono);
                }
                self.authenticated(flow, request, &key, credential, now);
            }
            (refusal, _) => self.challenge_again(&waiting, refusal.is_err_and(Refusal::is_stale), now),
        }
    }

    fn challenge_again(&mut self, waiting: &Waiting, stale: bool, now: Now) {
        let response = self.challenged(waiting.flow, &waiting.request, stale, now.mono);
        self.respond(&waiting.key, response, now);
    }

    /// The caller takes an INVITE back whose credential is still being looked up. It waits on for that: to guess and to take it back
    /// at once would else be a way to guess for nothing.
    pub(super) fn withdraw_lookup(&mut self, key: &ServerKey, now: Now) {
        let Some(ticket) = self.lookups.of(key) else { return };
        let Some(waiting) = self.lookups.waiting.remove(&ticket) else { return };
        if waiting.stage != Stage::Withdrawn {
            let response = self.response(&waiting.request, 487);
            self.respond(key, response, now);
        }
        self.lookups.waiting.insert(ticket, Waiting { stage: Stage::Withdrawn, ..waiting });
    }

    pub(super) fn lookup_time(&mut self, ticket: Ticket, now: Now) {
        match self.lookups.waiting.remove(&ticket) {
            Some(waiting) if waiting.stage == Stage::Refused => self.challenge_again(&waiting, false, now),
            Some(waiting) => self.unavailable(&waiting, now),
            None => {}
        }
    }

    fn unavailable(&mut self, waiting: &Waiting, now: Now) {
        if waiting.stage == Stage::Withdrawn {
            return;
        }
        let response = self.response(&waiting.request, 503).header(HeaderName::RetryAfter, &5_u64);
        self.respond(&waiting.key, response, now);
    }

    /// It is known who sends the request.
    fn authenticated(&mut self, flow: Flow, request: Message, key: &ServerKey, credential: &SipCredential, now: Now) {
        self.guard.succeeded(flow.peer, &credential.username, now.mono);
        if flow.connection.is_some() {
            self.output.push_back(Output::Trust(flow));
        }
        match request.method() {
            Method::Register => self.register(flow, &request, credential, now),
            _ if request.to_tag().is_some() => self.authenticated_in_dialog(flow, &request, credential.id, now),
            _ => self.invited(flow, request, key, credential, now),
        }
    }
}

/// Phones that give up when any challenge names an algorithm they do not know, instead of taking the one they know
/// (RFC 3261 §22.3): baresip before version 2. They get MD5 alone.
fn knows_one_challenge(request: &Message) -> bool {
    let agent = request.text(HeaderName::UserAgent).unwrap_or_default();
    ["baresip v0.", "baresip v1."].iter().any(|known| agent.starts_with(known))
}
