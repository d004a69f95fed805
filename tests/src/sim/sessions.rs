//! What is seen of sessions on the wire: that one with a timer (RFC 4028) is over when nobody refreshes it, that an offer is
//! answered wherever it stands, and that what is large for UDP goes over TCP where a trunk has that.

use super::checker::NO_ACK;
use super::tally::Tally;
use schema::time::Mono;
use sip::message::{HeaderName, Message, Method};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// Requests over this many bytes are large for UDP (RFC 3261 §18.1.1).
const UDP_MAX: usize = 1_300;
/// Whoever has refused TCP is sent what is large over UDP for so long.
const TCP_REFUSED_FOR: Duration = Duration::from_secs(340);

/// The transaction of an INVITE over UDP is there so long in any case (64·T1).
const SURELY_KNOWN: Duration = Duration::from_secs(30);
const UNANSWERED: &str = "RFC 3261 §13.2.2.4: the offer of a 200 is not answered in its ACK";

/// A leg with a session timer.
struct Timed {
    peer: SocketAddr,
    is_carrier: bool,
    over_tcp: bool,
    interval: Duration,
    refreshed: Mono,
    /// CSeq number of our request whose 2xx agreed it.
    asked: Option<u32>,
}

/// An INVITE of ours without an offer.
struct Offerless {
    cseq: u32,
    /// When it left first.
    since: Mono,
    over_tcp: bool,
    /// Its 200 has one.
    has_offer: bool,
}

/// See the file.
#[derive(Default)]
pub struct Sessions {
    /// Which trunks have TCP for large requests.
    pub large_over_tcp: [bool; 2],
    /// By Call-ID.
    timed: BTreeMap<Box<str>, Timed>,
    /// 2xx that were seen: Call-ID, CSeq number, whether the far end sent them.
    seen: BTreeSet<(Box<str>, u32, bool)>,
    /// CSeq numbers of INVITEs without an offer, by Call-ID: of callers,
    callers: BTreeMap<Box<str>, u32>,
    /// and those to carriers.
    carriers: BTreeMap<Box<str>, Offerless>,
    /// Legs whose BYE we have sent, by Call-ID.
    ended: BTreeSet<Box<str>>,
    /// An ACK without the answer to an offer has left then.
    unanswered: BTreeMap<Box<str>, Mono>,
    /// When this process's requests in a dialog left first, by Call-ID and CSeq number.
    asked: BTreeMap<(Box<str>, u32), Mono>,
    /// The Min-SE of 422s to requests in a dialog, with the CSeq number of the newest, by Call-ID.
    min_se: BTreeMap<Box<str>, (u32, u64)>,
    /// When each carrier was last sent over TCP what is large.
    tried_tcp: [Option<Mono>; 2],
}

/// Where a message comes from or goes to.
#[derive(Clone, Copy)]
#[expect(missing_docs, reason = "each field is what its name says")]
pub struct Peer {
    pub address: SocketAddr,
    pub carrier: Option<usize>,
    pub over_tcp: bool,
}

impl Sessions {
    /// A message reaches the server.
    pub fn received(&mut self, now: Mono, from: Peer, message: &Message, tally: &mut Tally) {
        let (is_request, call_id) = (message.is_request(), message.call_id());
        match message.method() {
            Method::Bye if is_request => {
                self.timed.remove(call_id);
            }
            _ if message.status() == Some(481) => {
                self.timed.remove(call_id);
            }
            Method::Invite if is_request && from.carrier.is_none() && message.to_tag().is_none() => {
                if message.has_sdp() {
                    self.callers.remove(call_id);
                } else {
                    self.callers.insert(call_id.into(), message.cseq().0);
                }
            }
            Method::Invite | Method::Update if message.status() == Some(422) => {
                let cseq = message.cseq().0;
                // Nobody hears one whose transaction is over (RFC 3261 §17.1.3).
                if self.asked.get(&(call_id.into(), cseq)).is_none_or(|left| now >= *left + NO_ACK) {
                    return;
                }
                let least = self.min_se.entry(call_id.into()).or_default();
                *least = (cseq.max(least.0), seconds(message, HeaderName::MinSe).unwrap_or(0).max(least.1));
            }
            // Repeated after a crash it was a new one for its carrier, which had given its 200 up (RFC 3261 §13.3.1.4).
            Method::Invite
                if from.carrier.is_some()
                    && message.status().is_some_and(|status| status >= 300 && !matches!(status, 401 | 407))
                    && self.timed.get(call_id).is_some_and(|timed| timed.asked == Some(message.cseq().0)) =>
            {
                self.timed.remove(call_id);
            }
            Method::Invite | Method::Update if is_success(message) => {
                let taken = self.min_se.get(call_id).is_some_and(|(cseq, _)| message.cseq().0 > *cseq);
                tally.add_if("refreshes taken after a 422", taken);
                if let Some(invite) = self.carriers.get_mut(call_id).filter(|invite| invite.cseq == message.cseq().0) {
                    invite.has_offer |= message.has_sdp();
                }
                self.agreed(now, from, message, true, tally);
            }
            _ => {}
        }
    }

    /// The server sends a message of so many bytes; what is wrong with it.
    pub fn sent(
        &mut self,
        now: Mono,
        to: Peer,
        message: &Message,
        length: usize,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let (is_request, call_id, cseq) = (message.is_request(), message.call_id(), message.cseq().0);
        if let Some(carrier) = to.carrier.filter(|_| is_request && to.over_tcp && length > UDP_MAX) {
            self.tried_tcp[carrier] = Some(now);
        }
        match message.method() {
            Method::Bye if is_request => {
                self.ended.insert(call_id.into());
                self.unanswered.remove(call_id);
                let ended = self.timed.remove(call_id);
                let is_expired = |timed: &Timed| now >= timed.refreshed + timed.interval * 2 / 3;
                tally.add_if("sessions that expired", ended.as_ref().is_some_and(is_expired));
                Ok(())
            }
            Method::Invite | Method::Update if is_request && message.to_tag().is_some() => {
                self.asked.entry((call_id.into(), cseq)).or_insert(now);
                let Some((refused, least)) = self.min_se.get(call_id).copied() else { return Ok(()) };
                let asks = seconds(message, HeaderName::SessionExpires);
                let names = seconds(message, HeaderName::MinSe);
                if cseq > refused && asks.is_some_and(|asks| asks < least || names != Some(least)) {
                    return Err(format!(
                        "RFC 4028 §7.4: {asks:?} s are asked for, {names:?} named, after a 422 of {least}"
                    ));
                }
                Ok(())
            }
            Method::Invite if is_request && message.to_tag().is_none() => {
                if !message.has_sdp() {
                    let over_tcp = to.over_tcp;
                    let before = self.carriers.get(call_id).filter(|invite| invite.cseq == cseq);
                    let since = before.map_or(now, |invite| invite.since);
                    self.carriers.insert(call_id.into(), Offerless { cseq, since, over_tcp, has_offer: false });
                }
                self.size(now, to, length, tally)
            }
            Method::Invite | Method::Update if is_success(message) => {
                self.agreed(now, to, message, false, tally);
                let lacks_offer = self.callers.get(call_id) == Some(&cseq) && !message.has_sdp();
                if lacks_offer {
                    Err("RFC 3261 §13.3.1: a 200 has no offer, as its INVITE".to_owned())
                } else {
                    Ok(())
                }
            }
            Method::Ack if to.carrier.is_some() => {
                let invite = self.carriers.get(call_id).filter(|invite| invite.cseq == cseq && invite.has_offer);
                let Some(invite) = invite else { return Ok(()) };
                tally.add_if("offers of carriers answered in the ACK", message.has_sdp());
                if message.has_sdp() {
                    return Ok(());
                }
                // Once its transaction is over nobody knows of an INVITE whose leg is ended.
                if !invite.over_tcp && now <= invite.since + SURELY_KNOWN {
                    return Err(UNANSWERED.to_owned());
                }
                if !self.ended.contains(call_id) {
                    self.unanswered.insert(call_id.into(), now);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn size(&self, now: Mono, to: Peer, length: usize, tally: &mut Tally) -> Result<(), String> {
        let Some(carrier) = to.carrier.filter(|carrier| length > UDP_MAX && self.large_over_tcp[*carrier]) else {
            return Ok(());
        };
        tally.add(if to.over_tcp { "large INVITEs over TCP" } else { "large INVITEs over UDP in the end" });
        if !to.over_tcp && self.tried_tcp[carrier].is_none_or(|tried| now > tried + TCP_REFUSED_FOR) {
            return Err(format!("RFC 3261 §18.1.1: an INVITE of {length} bytes leaves over UDP"));
        }
        Ok(())
    }

    /// A 2xx says how long the session lasts without a refresh. `is_theirs`: the far end sent it.
    fn agreed(&mut self, now: Mono, peer: Peer, message: &Message, is_theirs: bool, tally: &mut Tally) {
        let call_id = message.call_id();
        // What answers us behind our BYE agrees to nothing.
        if is_theirs && self.ended.contains(call_id) {
            return;
        }
        // Of one that is repeated only the first counts.
        if !self.seen.insert((call_id.into(), message.cseq().0, is_theirs)) {
            return;
        }
        let Some(interval_s) = seconds(message, HeaderName::SessionExpires) else {
            self.timed.remove(call_id);
            return;
        };
        let interval = Duration::from_secs(interval_s);
        let Peer { address, carrier, over_tcp } = peer;
        let (is_carrier, asked) = (carrier.is_some(), is_theirs.then(|| message.cseq().0));
        let timed = Timed { peer: address, is_carrier, over_tcp, interval, refreshed: now, asked };
        let is_refresh = self.timed.insert(call_id.into(), timed).is_some();
        tally.add(match (is_refresh, is_theirs, carrier.is_some()) {
            (false, _, false) => "session timers of phones",
            (false, _, true) => "session timers of carriers",
            (true, true, _) => "sessions refreshed by us",
            (true, false, false) => "sessions refreshed by phones",
            (true, false, true) => "sessions refreshed by carriers",
        });
    }

    /// What should be over, in a process that has known all calls since `up_since`.
    pub fn look(&mut self, now: Mono, up_since: Mono) -> Option<String> {
        if self.unanswered.values().any(|at| *at < now) {
            self.unanswered.clear();
            return Some(UNANSWERED.to_owned());
        }
        let is_over = |timed: &Timed| now > timed.refreshed.max(up_since) + timed.interval;
        let call_id = self.timed.iter().find(|(_, timed)| is_over(timed))?.0.clone();
        let timed = self.timed.remove(&call_id)?;
        Some(format!("RFC 4028: the session of {call_id}, refreshed at {:?}, goes on", timed.refreshed))
    }

    /// A phone's connection is gone: nothing can be said to it until it comes back.
    pub fn closed(&mut self, peer: SocketAddr) {
        self.timed.retain(|_, timed| timed.is_carrier || timed.peer != peer);
    }

    /// Another process, which knows the legs of calls that are live.
    pub fn restarted(&mut self, is_live: impl Fn(&str) -> bool) {
        self.timed.retain(|call_id, timed| is_live(call_id) && (timed.is_carrier || !timed.over_tcp));
        self.carriers.clear();
        self.asked.clear();
        self.min_se.clear();
        self.unanswered.clear();
    }
}

fn seconds(message: &Message, name: HeaderName) -> Option<u64> {
    message.text(name)?.split(';').next()?.trim().parse().ok()
}

/// A 2xx that may have a session timer.
fn is_success(message: &Message) -> bool {
    matches!(message.status(), Some(200..=299))
}
