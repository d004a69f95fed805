//! What is seen of admission: who is refused because it is too much, that nothing is kept of that, and that what is in a dialog is
//! served all the same (D44, D46).

use super::tally::Tally;
use schema::id::CallId;
use schema::time::Mono;
use sip::message::{HeaderName, Message, Method};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// How the tag of a 503 begins of which nothing is kept.
const NOTHING_KEPT: &str = "r";
/// What is answered so soon after a refusal is answered while calls are refused.
const MEANWHILE: Duration = Duration::from_secs(1);

/// A request in a dialog that waits for its answer.
struct Asked {
    at: Mono,
    from: SocketAddr,
    method: Method,
    has_offer: bool,
}

/// Looks at requests and their answers.
#[derive(Default)]
pub struct Admission {
    /// Branch of the newest INVITE of each A-leg, by Call-ID.
    newest: BTreeMap<Box<str>, Box<str>>,
    /// Branches of INVITEs that were refused and have not come again.
    refused: BTreeSet<Box<str>>,
    refused_at: Option<Mono>,
    /// Calls that were let in.
    let_in: BTreeSet<CallId>,
    asked: BTreeMap<(Box<str>, Box<str>), Asked>,
    /// Those whose connection is gone: nobody waits there, but it may have its answer when it comes again.
    left: BTreeSet<(Box<str>, Box<str>)>,
    /// Since when this process knows all dialogs of the one before: what is of none that it knows waits until then.
    knows_since: Option<Mono>,
    /// Those that have their answer: what comes of them again is absorbed, of an INVITE without a word (RFC 6026).
    answered: BTreeSet<(Box<str>, Box<str>)>,
}

fn key(message: &Message) -> (Box<str>, Box<str>) {
    (message.branch().unwrap_or_default().into(), message.method().as_str().into())
}

impl Asked {
    /// How long whoever asks may have to wait: a BYE for its call to be settled, an offer for the other leg.
    const fn within(&self) -> Duration {
        Duration::from_secs(match self.method {
            Method::Bye => 6,
            _ if self.has_offer => 27,
            _ => 2,
        })
    }
}

impl Admission {
    /// A request reaches the server.
    pub fn received(&mut self, now: Mono, from: SocketAddr, from_carrier: bool, message: &Message) {
        if !message.is_request() || message.is_ack() || *message.method() == Method::Cancel {
            return;
        }
        if message.to_tag().is_some() {
            let (key, method, has_offer) = (key(message), message.method().clone(), message.has_sdp());
            if !self.answered.contains(&key) {
                self.asked.entry(key).or_insert(Asked { at: now, from, method, has_offer });
            }
        } else if *message.method() == Method::Invite && !from_carrier {
            let branch = message.branch().unwrap_or_default();
            self.refused.remove(branch);
            self.newest.insert(message.call_id().into(), branch.into());
        }
    }

    /// The server sends a response; what is wrong with it.
    pub fn sent(&mut self, now: Mono, message: &Message, tally: &mut Tally) -> Result<(), String> {
        let status = message.status().filter(|status| *status >= 200);
        let Some(status) = status else { return Ok(()) };
        let asked = if self.asked.is_empty() { None } else { self.asked.remove_entry(&key(message)) };
        if let Some(key) = self.left.take(&key(message)) {
            self.answered.insert(key);
        }
        let is_meanwhile = self.refused_at.is_some_and(|at| now.since(at) <= MEANWHILE);
        if let Some((key, Asked { method, .. })) = asked {
            self.answered.insert(key);
            if status == 503 {
                return Err(format!("D46: a {} in a dialog is answered 503", method.as_str()));
            }
            tally.add_if("BYEs served while calls are refused", is_meanwhile && method == Method::Bye && status == 200);
            tally.add_if("offers served while calls are refused", is_meanwhile && method == Method::Invite);
            return Ok(());
        }
        if status != 503 || *message.method() != Method::Invite {
            return Ok(());
        }
        if message.text(HeaderName::RetryAfter).is_none() {
            return Err("D46: a call is refused by 503, and not told when to come back".to_owned());
        }
        if message.to_tag().is_some_and(|tag| tag.starts_with(NOTHING_KEPT)) {
            self.refused_at = Some(now);
            self.refused.insert(message.branch().unwrap_or_default().into());
        }
        Ok(())
    }

    /// An ACK or a BYE's answer is served: told by what follows.
    pub fn confirmed(&self, now: Mono, tally: &mut Tally) {
        let is_meanwhile = self.refused_at.is_some_and(|at| now.since(at) <= MEANWHILE);
        tally.add_if("ACKs taken while calls are refused", is_meanwhile);
    }

    /// The actors are asked about a call of the A-leg with this Call-ID.
    pub fn let_in(&mut self, call: CallId, call_id: Option<&str>) -> Result<(), String> {
        self.let_in.insert(call);
        let branch = call_id.and_then(|call_id| self.newest.get(call_id));
        if branch.is_some_and(|branch| self.refused.contains(branch)) {
            return Err(format!("D44: {call} was refused by 503 and goes on"));
        }
        Ok(())
    }

    /// Whether the actors were ever asked about a call: of others there may be no row.
    #[must_use]
    pub fn was_let_in(&self, call: CallId) -> bool {
        self.let_in.contains(&call)
    }

    /// Requests in dialogs that wait for too long.
    #[must_use]
    pub fn unanswered(&self, now: Mono) -> Option<String> {
        let known = self.knows_since?;
        let (_, late) = self.asked.iter().find(|(_, asked)| now.since(asked.at.max(known)) > asked.within())?;
        Some(format!("D46: a {} in a dialog is not answered within {:?}", late.method.as_str(), late.within()))
    }

    /// A connection is gone, and with it whoever waits there.
    pub fn closed(&mut self, peer: SocketAddr) {
        for (key, _) in self.asked.extract_if(.., |_, asked| asked.from == peer) {
            self.left.insert(key);
        }
    }

    /// The process is told that all dialogs of the one before are resumed.
    pub fn recovered(&mut self, now: Mono) {
        self.knows_since.get_or_insert(now);
    }

    /// Another process: nobody remembers what was asked before.
    pub fn restarted(&mut self) {
        self.knows_since = None;
        self.asked.clear();
        self.answered.clear();
        self.left.clear();
        self.refused.clear();
    }
}
