//! What is seen on the wire in front of the server: which calls were answered and when each leg ended, whatever the program
//! under test believes. It reads messages as they pass; from the program it takes only which call a message is about.

use super::checker::NO_ACK;
use super::mischief::FORK;
use super::sessions::Peer;
use schema::id::CallId;
use schema::time::Mono;
use sip::message::{Message, Method, Uri};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Bound;

/// A leg towards a carrier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BLeg {
    /// Call-ID of its INVITE.
    pub call_id: Box<str>,
    /// The carrier's tag in its first 200.
    pub tag: Option<Box<str>>,
    /// Further 200s with other tags.
    pub forks: BTreeMap<Box<str>, Fork>,
    /// Which carrier it went to.
    pub carrier: usize,
    /// When its first 200 came.
    pub answered: Option<Mono>,
    /// When that was acknowledged.
    pub acknowledged: Option<Mono>,
    /// When its first BYE passed, either way, or its carrier said that there is no such call.
    pub bye: Option<Mono>,
    /// Whether its carrier answered ours, or sent one.
    pub bye_answered: bool,
    /// When this process sent one first.
    pub bye_sent: Option<Mono>,
    /// When its carrier's BYE came to this process first.
    pub bye_came: Option<Mono>,
    /// Its carrier's BYE came over a connection.
    pub bye_over_tcp: bool,
    /// CSeq number of our newest BYE.
    pub own_bye: Option<u32>,
    /// The BYE that passed first was ours,
    bye_is_ours: bool,
    /// and this the CSeq number of the newest one that processes before this one sent, none of which was answered.
    bye_before: Option<u32>,
    /// Its INVITE left over a connection, and nothing was heard of it yet.
    waits_over_tcp: bool,
    /// When that connection ended: the attempt failed then as by a 503 (RFC 3261 §8.1.3.1).
    pub lost: Option<Mono>,
}

/// A 200 of somebody else than who answered first: it is acknowledged and ended at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// When it came.
    pub answered: Mono,
    /// We have acknowledged it,
    pub acknowledged: bool,
    /// and one side has sent a BYE.
    pub ended: bool,
}

/// A call as it was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Its attempts, in order.
    pub b_legs: Vec<BLeg>,
    /// When the caller was sent its 200.
    pub accepted: Option<Mono>,
    /// When it was told so last: again after a restart.
    pub told: Option<Mono>,
    /// When the caller acknowledged that. Until then no BYE may be sent to it (RFC 3261 §15).
    pub acknowledged: Option<Mono>,
    /// When it did so first, in whichever process.
    pub confirmed: Option<Mono>,
    /// CSeq numbers of its re-INVITEs that were refused: their ACKs acknowledge no answer.
    refused: BTreeSet<u32>,
    /// Its INVITE was refused, before it was told any answer.
    pub turned_down: bool,
    /// When the first BYE of the caller's leg passed, either way, or the caller said that there is no such call.
    pub a_bye: Option<Mono>,
    /// When this process sent one first, or was to.
    pub a_bye_sent: Option<Mono>,
    /// CSeq number of our newest BYE to the caller.
    pub a_own_bye: Option<u32>,
    /// The BYE that passed first was ours,
    a_bye_is_ours: bool,
    /// and this the CSeq number of the newest one that processes before this one sent.
    a_bye_before: Option<u32>,
    /// When the first BYE of this process left for the caller.
    a_bye_again: Option<Mono>,
    /// A far end answered in its dialog to another process than the one that had sent it a BYE: that reached nobody.
    pub goes_on: bool,
    /// When a process sent it one first over a connection, with which it may be lost.
    pub a_bye_over_tcp: Option<Mono>,
    /// The caller or a carrier said to this process that there is no such call.
    pub is_gone: bool,
    /// When the caller's BYE came to this process first.
    pub a_bye_came: Option<Mono>,
    /// When the caller's phone last answered in its dialog whether it is there.
    pub a_alive: Option<Mono>,
    /// CSeq number of what it answered.
    pub a_alive_cseq: Option<u32>,
    /// The caller speaks TCP.
    pub over_tcp: bool,
    /// When the caller's CANCEL came, before the 200.
    pub cancelled: Option<Mono>,
    /// When the connection ended over which the caller waited for its 200: it has given up.
    pub deserted: Option<Mono>,
}

impl BLeg {
    fn note_bye(&mut self, now: Mono, tag: Option<&str>) {
        match tag.and_then(|tag| self.forks.get_mut(tag)) {
            Some(fork) => fork.ended = true,
            None => drop(self.bye.get_or_insert(now)),
        }
    }

    /// It answers in its dialog: whether a BYE of ours before that did not reach it. Only another process asks after one.
    fn goes_on(&mut self, cseq: u32) -> bool {
        let goes_on = self.own_bye.is_some_and(|bye| bye < cseq);
        if goes_on {
            (self.bye, self.own_bye) = (None, None);
            (self.bye_is_ours, self.bye_before) = (false, None);
        }
        goes_on
    }

    /// See [`Observed::caller_went_on`]. A fork takes every BYE: that tells nothing.
    fn went_on(&mut self, cseq: u32, tag: Option<&str>) -> bool {
        let is_its = tag.is_some() && tag == self.tag.as_deref() && tag != Some(FORK);
        let went_on = is_its && self.bye_sent.is_some() && self.bye_before.is_some_and(|bye| bye < cseq);
        if went_on {
            self.bye = [self.bye_sent, self.bye_came].into_iter().flatten().min();
            self.bye_before = None;
        }
        went_on
    }
}

impl Observed {
    /// See [`BLeg::goes_on`].
    fn caller_goes_on(&mut self, cseq: u32) {
        if self.a_own_bye.is_some_and(|bye| bye < cseq) {
            (self.a_bye, self.a_own_bye, self.a_bye_over_tcp) = (None, None, None);
            (self.a_bye_is_ours, self.a_bye_before) = (false, None);
            self.goes_on = true;
        }
    }

    /// It takes a BYE as one of a call that is up (else 481, RFC 3261 §15.1.2): those of processes before reached nobody.
    fn caller_went_on(&mut self, cseq: u32) {
        if self.a_bye_before.is_some_and(|bye| bye < cseq) && self.a_bye_again.is_some() {
            self.a_bye = self.a_bye_again;
            self.a_bye_over_tcp = self.a_bye_over_tcp.and(self.a_bye_again);
            self.a_bye_before = None;
            self.goes_on = true;
        }
    }

    /// The attempt with this Call-ID.
    #[must_use]
    pub fn b_leg(&self, call_id: &str) -> Option<&BLeg> {
        self.b_legs.iter().find(|leg| &*leg.call_id == call_id)
    }

    /// When the caller's leg ended.
    #[must_use]
    pub fn a_end(&self) -> Option<Mono> {
        [self.a_bye, self.cancelled].into_iter().flatten().min()
    }
}

/// What passed that the checker must look at now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is what its name says")]
pub enum Notable {
    /// The first INVITE of an attempt leaves for a carrier.
    Invite { call: CallId, call_id: Box<str>, shown: Box<str> },
    /// A caller is sent its 200.
    Accept { call: CallId },
    /// An INVITE of an unknown Call-ID leaves for a carrier, and no call has it sent.
    Unordered,
    /// The BYE of a leg, which came then, is answered 200.
    ByeAnswered { call: CallId, call_id: Box<str>, from_carrier: bool, came: Mono },
}

/// The tap.
#[derive(Default)]
pub struct Tap {
    calls: BTreeMap<CallId, Observed>,
    /// The number dialled in each A-leg, by Call-ID.
    dialled: BTreeMap<Box<str>, Box<str>>,
    /// A-legs over a connection, by Call-ID.
    over_tcp: BTreeSet<Box<str>>,
    /// Where the caller of each A-leg is, by Call-ID.
    peers: BTreeMap<Box<str>, SocketAddr>,
    /// The newest call of each A-leg, by Call-ID.
    newest: BTreeMap<Box<str>, CallId>,
    /// Calls whose CANCEL came before an INVITE left for them: it leaves when the hold is durable, and may be answered.
    cancelled_early: BTreeSet<CallId>,
    /// The A-leg of each call.
    callers: BTreeMap<CallId, Box<str>>,
    /// How the server writes it down; its tag is in there.
    dialogs: BTreeMap<CallId, Box<str>>,
    /// A-legs by Call-ID and the server's tag.
    a_legs: BTreeMap<(Box<str>, Box<str>), CallId>,
    /// B-legs by Call-ID.
    b_legs: BTreeMap<Box<str>, CallId>,
    /// Accepted calls that are not known to be over.
    open: BTreeSet<CallId>,
}

/// A walk over calls while they change.
pub struct Walk(Option<CallId>);

impl Walk {
    /// The next one.
    pub fn next(&mut self, tap: &Tap) -> Option<CallId> {
        let from = self.0.map_or(Bound::Unbounded, Bound::Excluded);
        self.0 = tap.open.range((from, Bound::Unbounded)).next().copied();
        self.0
    }
}

fn is_success_of_invite(message: &Message) -> bool {
    *message.method() == Method::Invite && matches!(message.status(), Some(200..=299))
}

/// Whether somebody says that there is no such call any more.
fn is_gone(message: &Message) -> bool {
    message.status() == Some(481) && matches!(message.method(), Method::Options | Method::Bye | Method::Invite)
}

fn tag(text: Option<&str>) -> Box<str> {
    text.unwrap_or_default().into()
}

impl Tap {
    /// The calls seen, by identity.
    #[must_use]
    pub const fn calls(&self) -> &BTreeMap<CallId, Observed> {
        &self.calls
    }

    /// The accepted calls that are not closed.
    #[must_use]
    pub const fn open(&self) -> Walk {
        Walk(None)
    }

    /// The call is over and settled.
    pub fn close(&mut self, call: CallId) {
        self.open.remove(&call);
    }

    /// The server took an INVITE for this number to be this call; `dialog` is how it writes its dialog down. Gives the Call-ID: a
    /// number may be dialled again.
    pub fn invited(&mut self, call: CallId, number: &str, dialog: &str) -> Option<&str> {
        let mut of_number = self.dialled.iter().filter(|(_, dialled)| ***dialled == *number);
        let (call_id, _) = of_number.find(|(call_id, _)| dialog.contains(&***call_id))?;
        self.newest.insert(call_id.clone(), call);
        self.callers.insert(call, call_id.clone());
        self.dialogs.insert(call, dialog.into());
        Some(call_id)
    }

    /// The Call-ID of a call's A-leg.
    #[must_use]
    pub fn caller(&self, call: CallId) -> Option<&str> {
        self.callers.get(&call).map(|call_id| &**call_id)
    }

    /// The call of the leg with this Call-ID.
    #[must_use]
    pub fn call_of(&self, call_id: &str) -> Option<CallId> {
        let caller = || self.callers.iter().find(|(_, caller)| ***caller == *call_id).map(|(call, _)| *call);
        self.b_legs.get(call_id).copied().or_else(caller)
    }

    /// A connection is over, and with it what callers waited for over it, and what a carrier was asked over it.
    pub fn closed(&mut self, now: Mono, peer: SocketAddr, carrier: Option<usize>) {
        let legs = self.calls.values_mut().flat_map(|seen| &mut seen.b_legs);
        for leg in legs.filter(|leg| leg.waits_over_tcp && Some(leg.carrier) == carrier) {
            (leg.waits_over_tcp, leg.lost) = (false, Some(now));
        }
        for (call, call_id) in &self.callers {
            let waited = self.over_tcp.contains(call_id) && self.peers.get(call_id) == Some(&peer);
            if let Some(seen) = self.calls.get_mut(call).filter(|seen| waited && seen.accepted.is_none()) {
                seen.deserted.get_or_insert(now);
            }
        }
    }

    /// A message reaches the server.
    pub fn received(&mut self, now: Mono, from: Peer, message: &Message) {
        if from.carrier.is_some() {
            return self.received_from_carrier(now, from.over_tcp, message);
        }
        match message.method() {
            Method::Invite if message.is_request() && message.to_tag().is_none() => {
                let number = message.request_uri().and_then(Uri::user_decoded).unwrap_or_default();
                self.dialled.insert(message.call_id().into(), number.into_boxed_str());
                self.peers.insert(message.call_id().into(), from.address);
            }
            Method::Cancel if message.is_request() => {
                let Some(call) = self.newest.get(message.call_id()).copied() else { return };
                match self.calls.get_mut(&call) {
                    Some(seen) if seen.accepted.is_none() => {
                        seen.cancelled.get_or_insert(now);
                    }
                    Some(_) => {}
                    None => {
                        self.cancelled_early.insert(call);
                    }
                }
            }
            Method::Ack => {
                let cseq = message.cseq().0;
                let seen = self.a_leg(message.call_id(), message.to_tag());
                if let Some(seen) = seen.filter(|seen| !seen.refused.contains(&cseq)) {
                    seen.acknowledged.get_or_insert(now);
                    seen.confirmed.get_or_insert(now);
                }
            }
            Method::Bye if message.is_request() => {
                self.a_bye(now, message.call_id(), message.to_tag());
                if let Some(seen) = self.a_leg(message.call_id(), message.to_tag()) {
                    seen.a_bye_came.get_or_insert(now);
                }
            }
            Method::Bye if message.status() == Some(200) => {
                if let Some(seen) = self.a_leg(message.call_id(), message.from_tag()) {
                    seen.caller_went_on(message.cseq().0);
                }
            }
            Method::Options if message.status() == Some(200) => {
                if let Some(seen) = self.a_leg(message.call_id(), message.from_tag()) {
                    // Of an answer that arrives twice the first one counts.
                    let cseq = Some(message.cseq().0);
                    if std::mem::replace(&mut seen.a_alive_cseq, cseq) != cseq {
                        seen.a_alive = Some(now);
                    }
                    seen.caller_goes_on(message.cseq().0);
                }
            }
            _ if is_gone(message) => {
                self.a_bye(now, message.call_id(), message.from_tag());
                if let Some(seen) = self.a_leg(message.call_id(), message.from_tag()) {
                    seen.is_gone = true;
                }
            }
            _ => {}
        }
    }

    fn received_from_carrier(&mut self, now: Mono, over_tcp: bool, message: &Message) {
        let is_bye = message.is_request() && *message.method() == Method::Bye;
        if !message.is_request()
            && *message.method() == Method::Invite
            && let Some(leg) = self.b_leg(message.call_id())
        {
            leg.waits_over_tcp = false;
        }
        if *message.method() == Method::Bye
            && !matches!(message.status(), Some(401 | 407))
            && let Some(leg) = self.b_leg(message.call_id())
        {
            leg.bye_answered = true;
        }
        let (cseq, _) = message.cseq();
        let goes_on = |leg: &mut BLeg| match message.method() {
            Method::Options => leg.goes_on(cseq),
            Method::Bye => leg.went_on(cseq, message.to_tag()),
            _ => false,
        };
        if message.status() == Some(200) && self.b_leg(message.call_id()).is_some_and(goes_on) {
            let seen = self.b_legs.get(message.call_id()).and_then(|call| self.calls.get_mut(call));
            seen.into_iter().for_each(|seen| seen.goes_on = true);
        }
        if !is_bye && !is_gone(message) && !is_success_of_invite(message) {
            return;
        }
        let Some(leg) = self.b_leg(message.call_id()) else { return };
        if is_bye {
            leg.note_bye(now, message.from_tag());
            if leg.tag.as_deref() == message.from_tag() {
                leg.bye_came.get_or_insert(now);
                leg.bye_over_tcp |= over_tcp;
            }
        } else if is_gone(message) {
            leg.note_bye(now, message.to_tag());
            let seen = self.b_legs.get(message.call_id()).and_then(|call| self.calls.get_mut(call));
            seen.into_iter().for_each(|seen| seen.is_gone = true);
        } else if let Some(tag) = message.to_tag() {
            leg.answered.get_or_insert(now);
            let first = leg.tag.get_or_insert_with(|| tag.into());
            if **first != *tag {
                leg.forks.entry(tag.into()).or_insert(Fork { answered: now, acknowledged: false, ended: false });
            }
        }
    }

    /// The server sends a message, on behalf of this call if it is known.
    pub fn sent(
        &mut self,
        now: Mono,
        carrier: Option<usize>,
        message: &Message,
        call: Option<CallId>,
        over_tcp: bool,
    ) -> Option<Notable> {
        let (is_request, call_id, to_carrier) = (message.is_request(), message.call_id(), carrier.is_some());
        match message.method() {
            Method::Invite if to_carrier && is_request && !self.b_legs.contains_key(call_id) => {
                let Some((call, carrier)) = call.zip(carrier) else { return Some(Notable::Unordered) };
                self.b_legs.insert(call_id.into(), call);
                let leg = BLeg {
                    call_id: call_id.into(),
                    tag: None,
                    forks: BTreeMap::new(),
                    carrier,
                    answered: None,
                    acknowledged: None,
                    bye: None,
                    bye_answered: false,
                    bye_sent: None,
                    bye_came: None,
                    bye_over_tcp: false,
                    own_bye: None,
                    bye_is_ours: false,
                    bye_before: None,
                    waits_over_tcp: over_tcp,
                    lost: None,
                };
                let over_tcp = self.callers.get(&call).is_some_and(|call_id| self.over_tcp.contains(call_id));
                let seen = self.calls.entry(call).or_default();
                seen.b_legs.push(leg);
                seen.over_tcp |= over_tcp;
                if self.cancelled_early.remove(&call) {
                    seen.cancelled = Some(now);
                }
                let shown = message.from().uri.user_decoded().unwrap_or_default().into();
                Some(Notable::Invite { call, call_id: call_id.into(), shown })
            }
            Method::Invite if to_carrier && is_request && message.to_tag().is_none() => {
                if let Some(leg) = self.b_leg(call_id) {
                    leg.waits_over_tcp = over_tcp;
                }
                None
            }
            Method::Invite if !to_carrier && over_tcp && message.status() == Some(100) => {
                self.over_tcp.extend(self.dialled.get_key_value(call_id).map(|(call_id, _)| call_id.clone()));
                None
            }
            Method::Invite if !to_carrier && is_success_of_invite(message) => {
                let call = call.or_else(|| self.told_for_the_first_time(message))?;
                self.a_legs.insert((call_id.into(), tag(message.to_tag())), call);
                self.open.insert(call);
                let seen = self.calls.entry(call).or_default();
                seen.accepted.get_or_insert(now);
                seen.over_tcp = over_tcp;
                (seen.told, seen.acknowledged) = (Some(now), None);
                Some(Notable::Accept { call })
            }
            Method::Invite if !to_carrier && message.status().is_some_and(|status| status >= 300) => {
                if let Some(seen) = self.a_leg(call_id, message.to_tag()) {
                    seen.refused.insert(message.cseq().0);
                } else if let Some(seen) = call.and_then(|call| self.calls.get_mut(&call)) {
                    seen.turned_down |= seen.accepted.is_none();
                }
                None
            }
            Method::Ack if to_carrier => {
                if let (Some(leg), Some(to)) = (self.b_leg(call_id), message.to_tag()) {
                    if leg.tag.as_deref() == Some(to) {
                        leg.acknowledged.get_or_insert(now);
                    } else if let Some(fork) = leg.forks.get_mut(to) {
                        fork.acknowledged = true;
                    }
                }
                None
            }
            Method::Bye if is_request && to_carrier => {
                if let Some(leg) = self.b_leg(call_id) {
                    leg.bye_is_ours |= leg.bye.is_none() && leg.tag.as_deref() == message.to_tag();
                    leg.note_bye(now, message.to_tag());
                    if leg.tag.as_deref() == message.to_tag() {
                        leg.bye_sent.get_or_insert(now);
                        leg.own_bye = leg.own_bye.max(Some(message.cseq().0));
                    }
                }
                None
            }
            Method::Bye if is_request => {
                if let Some(seen) = self.a_leg(call_id, message.from_tag()) {
                    seen.a_bye_is_ours |= seen.a_bye.is_none();
                    seen.a_bye.get_or_insert(now);
                    seen.a_bye_again.get_or_insert(now);
                    seen.a_bye_sent.get_or_insert(now);
                    seen.a_own_bye = seen.a_own_bye.max(Some(message.cseq().0));
                    seen.a_bye_over_tcp = seen.a_bye_over_tcp.or(over_tcp.then_some(now));
                }
                None
            }
            Method::Bye if message.status() == Some(200) => self.bye_answered(to_carrier, message),
            _ => None,
        }
    }

    /// Whether a process that ends now may leave a carrier with a call: our BYE of the last 64·T1 was not answered yet.
    #[must_use]
    pub fn ends_under_way(&self, now: Mono) -> bool {
        let waits = |leg: &BLeg| leg.bye.is_some_and(|bye| now <= bye + NO_ACK) && !leg.bye_answered;
        self.calls.values().flat_map(|seen| &seen.b_legs).any(waits)
    }

    fn bye_answered(&mut self, from_carrier: bool, answer: &Message) -> Option<Notable> {
        let call_id = answer.call_id();
        let (call, came, own) = if from_carrier {
            let call = *self.b_legs.get(call_id)?;
            let leg = self.b_leg(call_id).filter(|leg| leg.tag.as_deref() == answer.from_tag())?;
            (call, leg.bye_came?, leg.bye_sent)
        } else {
            let call = *self.a_legs.get(&(call_id.into(), tag(answer.to_tag())))?;
            let seen = self.calls.get(&call)?;
            (call, seen.a_bye_came?, seen.a_bye_sent)
        };
        // Where we are ending the leg, or were ending the call already, it tells nothing new.
        let seen = self.calls.get(&call)?;
        let sent = seen.b_legs.iter().map(|leg| leg.bye_sent).chain([seen.a_bye_sent]).flatten().min();
        let is_news = own.is_none() && !seen.is_gone && sent.is_none_or(|sent| sent >= came);
        // All BYEs of a call are answered together: the first one tells of its end, and they wait no longer than that one.
        let came = seen.b_legs.iter().filter_map(|leg| leg.bye_came).chain(seen.a_bye_came).fold(came, Mono::min);
        is_news.then(|| Notable::ByeAnswered { call, call_id: call_id.into(), from_carrier, came })
    }

    /// The caller's leg is to be ended; its BYE may have to wait for its phone.
    pub fn hangs_up(&mut self, now: Mono, call: CallId) {
        if let Some(seen) = self.calls.get_mut(&call) {
            seen.a_bye_sent.get_or_insert(now);
        }
    }

    /// Another process begins.
    pub fn restarted(&mut self) {
        for seen in self.calls.values_mut() {
            (seen.a_bye_sent, seen.a_bye_came, seen.is_gone) = (None, None, false);
            seen.a_bye_before = seen.a_own_bye.filter(|_| seen.a_bye_is_ours);
            seen.a_bye_again = None;
            for leg in &mut seen.b_legs {
                leg.bye_before = leg.own_bye.filter(|_| leg.bye_is_ours && !leg.bye_answered);
                (leg.bye_sent, leg.bye_came) = (None, None);
            }
        }
    }

    /// The call of a 200 that nobody has sent yet: after a restart it waits for the phone to come back, which may have sent the INVITE
    /// anew meanwhile.
    fn told_for_the_first_time(&self, answer: &Message) -> Option<CallId> {
        let (call_id, own) = (answer.call_id(), answer.to_tag()?);
        if self.a_legs.contains_key(&(call_id.into(), tag(Some(own)))) {
            return None;
        }
        let mut of_call_id = self.callers.iter().filter(|(_, caller)| ***caller == *call_id).map(|(call, _)| *call);
        of_call_id.find(|call| self.dialogs.get(call).is_some_and(|dialog| dialog.contains(own)))
    }

    fn b_leg(&mut self, call_id: &str) -> Option<&mut BLeg> {
        let call = self.b_legs.get(call_id)?;
        self.calls.get_mut(call)?.b_legs.iter_mut().find(|leg| &*leg.call_id == call_id)
    }

    fn a_leg(&mut self, call_id: &str, server_tag: Option<&str>) -> Option<&mut Observed> {
        let call = self.a_legs.get(&(call_id.into(), tag(server_tag)))?;
        self.calls.get_mut(call)
    }

    fn a_bye(&mut self, now: Mono, call_id: &str, server_tag: Option<&str>) {
        if let Some(seen) = self.a_leg(call_id, server_tag) {
            seen.a_bye.get_or_insert(now);
        }
    }
}
