//! What is seen of reliable provisional responses (RFC 3262) on both legs: that those of carriers are acknowledged once and at
//! once, that callers are sent one at a time until they acknowledge it, and no longer.

use super::tally::Tally;
use bytes::Bytes;
use schema::time::Mono;
use sip::message::{Message, Method};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// A caller that does not acknowledge is refused after 64·T1 (§3), as far as a timer and a moment tell.
const GIVEN_UP: Duration = Duration::from_secs(33);
/// So long after the INVITE a carrier's leg is there in any case, whatever was heard of it (64·T1).
const SURELY_THERE: Duration = Duration::from_secs(30);
const RELIABLE: &str = "100rel";

/// Call-ID and tag of an early dialog.
type Dialog = (Box<str>, Box<str>);

/// What a caller's INVITE says.
#[derive(Clone, Copy)]
struct Asks {
    takes: bool,
    requires: bool,
    /// When it came last: who repeats it is sent the last 18x again, acknowledged or not (RFC 3261 §17.2.1).
    at: Mono,
}

/// A caller's early dialog.
#[derive(Default)]
struct Caller {
    peer: Option<SocketAddr>,
    outstanding: Option<Outstanding>,
    /// The last that was acknowledged.
    last: Option<u32>,
    finished: bool,
}

struct Outstanding {
    rseq: u32,
    has_session: bool,
    bytes: Bytes,
    since: Mono,
}

/// A carrier's leg whose INVITE this process has sent.
struct Carrier {
    at: SocketAddr,
    invited: Mono,
    /// Branches of its INVITE. What answers another is of the process before, and matches no transaction (RFC 3261 §17.1.3).
    invites: BTreeSet<Box<str>>,
    /// It was answered, or is withdrawn.
    finished: bool,
    /// The last response in order of each fork.
    forks: BTreeMap<Box<str>, u32>,
    acknowledged: BTreeSet<(Box<str>, u32)>,
    /// Branches of our PRACKs.
    pracks: BTreeSet<Box<str>>,
    /// A response that is not acknowledged.
    waiting: Option<(Box<str>, u32)>,
}

/// See the file.
#[derive(Default)]
pub struct Ringing {
    asks: BTreeMap<Box<str>, Asks>,
    callers: BTreeMap<Dialog, Caller>,
    /// RSeq in each PRACK of callers, by its dialog and CSeq.
    pracks: BTreeMap<(Dialog, u32), u32>,
    carriers: BTreeMap<Box<str>, Carrier>,
    /// How many of them, and of the callers, wait for something.
    waiting: usize,
    /// A-legs that ended before they had acknowledged the session of an 18x, so that they could not be told of an answer; by Call-ID.
    unheard: BTreeSet<Box<str>>,
}

fn is_reliable(message: &Message) -> Option<u32> {
    message.rseq().filter(|_| message.require().any(|tag| tag.eq_ignore_ascii_case(RELIABLE)))
}

fn dialog(message: &Message) -> Dialog {
    (message.call_id().into(), message.to_tag().unwrap_or_default().into())
}

impl Ringing {
    /// A message reaches the server.
    pub fn received(&mut self, now: Mono, from_carrier: bool, message: &Message, tally: &mut Tally) {
        match (from_carrier, message.method(), message.is_request()) {
            (true, Method::Invite, false) => self.of_carrier(message, tally),
            (false, Method::Invite, true) if message.to_tag().is_none() => {
                let requires = message.require().any(|tag| tag == RELIABLE);
                let takes = requires || message.supported().any(|tag| tag == RELIABLE);
                self.asks.insert(message.call_id().into(), Asks { takes, requires, at: now });
            }
            (false, Method::Prack, true) => {
                if let Some(rack) = message.rack() {
                    self.pracks.insert((dialog(message), message.cseq().0), rack.rseq);
                }
            }
            _ => {}
        }
    }

    fn of_carrier(&mut self, message: &Message, tally: &mut Tally) {
        let Some(leg) = self.carriers.get_mut(message.call_id()) else { return };
        // A challenge or too short a session is not its end: it leaves once more.
        leg.finished |= message.status().is_some_and(|status| status >= 200 && !matches!(status, 401 | 407 | 422));
        if !leg.invites.contains(message.branch().unwrap_or_default()) {
            return;
        }
        let (Some(rseq), Some(tag)) = (is_reliable(message), message.to_tag()) else { return };
        let last = leg.forks.get(tag).copied();
        let is_next = last.is_none_or(|last| last + 1 == rseq);
        tally.add(if is_next { "reliable 18x of carriers" } else { "reliable 18x of carriers repeated" });
        if is_next {
            leg.forks.insert(tag.into(), rseq);
            self.waiting += usize::from(leg.waiting.replace((tag.into(), rseq)).is_none());
        }
    }

    /// The server sends a message; what is wrong with it.
    pub fn sent(
        &mut self,
        now: Mono,
        to: SocketAddr,
        to_carrier: bool,
        message: &Message,
        bytes: &Bytes,
        tally: &mut Tally,
    ) -> Result<(), String> {
        match (to_carrier, message.method(), message.is_request()) {
            (true, Method::Invite, true) if message.to_tag().is_none() => {
                let leg = self.carriers.entry(message.call_id().into()).or_insert_with(|| Carrier {
                    at: to,
                    invited: now,
                    invites: BTreeSet::new(),
                    finished: false,
                    forks: BTreeMap::new(),
                    acknowledged: BTreeSet::new(),
                    pracks: BTreeSet::new(),
                    waiting: None,
                });
                leg.invites.insert(message.branch().unwrap_or_default().into());
                Ok(())
            }
            (true, Method::Cancel, true) => {
                if let Some(leg) = self.carriers.get_mut(message.call_id()) {
                    leg.finished = true;
                }
                Ok(())
            }
            (true, Method::Prack, true) => self.acknowledges(message),
            (false, Method::Invite, false) => self.tells_caller(now, to, message, bytes, tally),
            (false, Method::Prack, false) => self.acknowledged(message),
            _ => Ok(()),
        }
    }

    /// A PRACK to a carrier.
    fn acknowledges(&mut self, prack: &Message) -> Result<(), String> {
        let Some(leg) = self.carriers.get_mut(prack.call_id()) else {
            return Err("RFC 3262: a PRACK belongs to no INVITE".to_owned());
        };
        if !leg.pracks.insert(prack.branch().unwrap_or_default().into()) {
            return Ok(());
        }
        let rseq = prack.rack().map(|rack| rack.rseq).unwrap_or_default();
        let what = (prack.to_tag().unwrap_or_default().into(), rseq);
        if leg.waiting.as_ref() == Some(&what) {
            leg.waiting = None;
            self.waiting -= 1;
        }
        if leg.forks.get(&what.0) != Some(&rseq) || !leg.acknowledged.insert(what) {
            return Err(format!("RFC 3262: a PRACK acknowledges response {rseq} out of order, or again"));
        }
        Ok(())
    }

    /// A response to a caller's INVITE.
    fn tells_caller(
        &mut self,
        now: Mono,
        to: SocketAddr,
        message: &Message,
        bytes: &Bytes,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let status = message.status().unwrap_or(0);
        let Some(asks) = self.asks.get(message.call_id()).copied() else { return Ok(()) };
        let Some(rseq) = message.rseq() else {
            if status >= 200 {
                return self.finished(message, status);
            }
            let is_bare = asks.requires && status > 100;
            return if is_bare { Err(format!("RFC 3262: a {status} is not reliable as required")) } else { Ok(()) };
        };
        if !asks.takes {
            return Err(format!("RFC 3262: a reliable {status} is sent to who takes none"));
        }
        let caller = self.callers.entry(dialog(message)).or_default();
        caller.peer = Some(to);
        if asks.at == now && (caller.finished || caller.last == Some(rseq)) {
            return Ok(());
        }
        if caller.finished {
            return Err(format!("RFC 3262: a reliable {status} follows the final response"));
        }
        match &caller.outstanding {
            Some(known) if known.rseq == rseq => {
                tally.add("reliable 18x to phones repeated");
                let is_same = known.bytes == *bytes;
                return if is_same { Ok(()) } else { Err(format!("RFC 3262: response {rseq} is repeated otherwise")) };
            }
            Some(known) => {
                return Err(format!("RFC 3262: response {rseq} is sent before {} is acknowledged", known.rseq));
            }
            None => {}
        }
        if caller.last.is_some_and(|last| last + 1 != rseq) {
            let last = caller.last.unwrap_or_default();
            return Err(format!("RFC 3262: response {rseq} is sent after {last} was acknowledged"));
        }
        tally.add("reliable 18x to phones");
        let has_session = message.has_sdp();
        caller.outstanding = Some(Outstanding { rseq, has_session, bytes: bytes.clone(), since: now });
        self.waiting += 1;
        Ok(())
    }

    fn finished(&mut self, message: &Message, status: u16) -> Result<(), String> {
        let Some(caller) = self.callers.get_mut(&dialog(message)) else { return Ok(()) };
        // Of a re-INVITE's, too.
        let was_finished = std::mem::replace(&mut caller.finished, true);
        let Some(outstanding) = caller.outstanding.take() else { return Ok(()) };
        self.waiting -= 1;
        if status >= 300 && outstanding.has_session {
            self.unheard.insert(message.call_id().into());
        }
        if status < 300 && outstanding.has_session && !was_finished {
            return Err("RFC 3262: a 200 is sent before the session of an 18x is acknowledged".to_owned());
        }
        Ok(())
    }

    /// A response to a caller's PRACK.
    fn acknowledged(&mut self, response: &Message) -> Result<(), String> {
        if response.status() != Some(200) {
            return Ok(());
        }
        let key = (dialog(response), response.cseq().0);
        let (Some(rseq), Some(caller)) = (self.pracks.get(&key), self.callers.get_mut(&key.0)) else { return Ok(()) };
        if let Some(known) = caller.outstanding.take_if(|known| known.rseq == *rseq) {
            caller.last = Some(known.rseq);
            self.waiting -= 1;
        }
        Ok(())
    }

    /// What waits for too long, after everything that has arrived was handled.
    pub fn look(&mut self, now: Mono) -> Option<String> {
        if self.waiting == 0 {
            return None;
        }
        for leg in self.carriers.values_mut().filter(|leg| leg.waiting.is_some()) {
            let (_, rseq) = leg.waiting.take()?;
            self.waiting -= 1;
            if !leg.finished && now.since(leg.invited) < SURELY_THERE {
                return Some(format!("RFC 3262: response {rseq} of a carrier is not acknowledged"));
            }
        }
        let is_late = |known: &Outstanding| now.since(known.since) > GIVEN_UP;
        let late = self.callers.values_mut().find(|caller| caller.outstanding.as_ref().is_some_and(is_late))?;
        late.outstanding = None;
        self.waiting -= 1;
        Some("RFC 3262: a caller that acknowledges nothing is not refused".to_owned())
    }

    /// Whether a caller could not be told of an answer, because it had acknowledged nothing.
    #[must_use]
    pub fn was_unheard(&self, call_id: &str) -> bool {
        self.unheard.contains(call_id)
    }

    /// A connection is gone, or cannot be opened: what was under way on it has ended without a word.
    pub fn closed(&mut self, peer: SocketAddr) {
        let mut ended = 0;
        self.callers.retain(|_, caller| {
            let is_its = caller.peer == Some(peer) && !caller.finished;
            ended += usize::from(is_its && caller.outstanding.is_some());
            !is_its
        });
        self.waiting -= ended;
        self.carriers.values_mut().filter(|leg| leg.at == peer).for_each(|leg| leg.finished = true);
    }

    /// Another process: it knows nothing of what was under way.
    pub fn restarted(&mut self) {
        self.callers.clear();
        self.pracks.clear();
        self.carriers.clear();
        self.waiting = 0;
    }
}
