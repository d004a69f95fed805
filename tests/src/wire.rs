//! What passes over the wire, seen from outside the server: when each call was answered and when it ended, on each side.

use bytes::Bytes;
use schema::time::{Clock, Mono, Timestamp};
use sip::demo::{Actions, Endpoint};
use sip::message::{Message, Method};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

/// Who keeps the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "as named")]
pub enum Side {
    Caller,
    Callee,
}

/// What one side saw of a call. Sent messages are noted before they leave, received ones after they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Talk {
    /// The first INVITE.
    pub invited: Option<Timestamp>,
    /// The first 100: one with credentials has come, and the server is at it.
    pub tried: Option<Timestamp>,
    /// The first 200 to it.
    pub answered: Option<Timestamp>,
    /// The first ACK of that.
    pub confirmed: Option<Timestamp>,
    /// A final refusal, the digest challenge aside.
    pub refused: Option<u16>,
    /// When that came.
    pub refused_at: Option<Timestamp>,
    /// Its Retry-After in seconds.
    pub retry_after_s: Option<u32>,
    /// The first BYE that this side sent.
    pub bye_sent: Option<Timestamp>,
    /// The first BYE that the server sent.
    pub bye_received: Option<Timestamp>,
    /// The first final response to the BYE that this side sent, with its status.
    pub bye_answered: Option<(Timestamp, u16)>,
}

impl Talk {
    /// Whether it is known to be over.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.bye_received.is_some() || self.bye_answered.is_some() || self.refused.is_some()
    }

    /// Whether both talk: answered, and nobody hung up.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.answered.is_some() && self.bye_sent.is_none() && self.bye_received.is_none()
    }
}

/// Every call seen, by side and number dialled: a number is dialled once. A cheap handle.
#[derive(Clone, Default)]
pub struct Wire(Arc<Mutex<Record>>);

#[derive(Default)]
struct Record {
    numbers: BTreeMap<(Side, String), String>,
    talks: BTreeMap<(Side, String), Talk>,
}

impl Wire {
    fn lock(&self) -> MutexGuard<'_, Record> {
        self.0.lock().expect("no test panics with it")
    }

    /// Notes a message; `sent`: by this side.
    pub fn saw(&self, side: Side, at: Timestamp, sent: bool, message: &Message) {
        let mut record = self.lock();
        let call = (side, message.call_id().to_owned());
        let is_request = message.is_request();
        if is_request && *message.method() == Method::Invite && message.to_tag().is_none() {
            let user = message.request_uri().and_then(sip::message::Uri::user_decoded).unwrap_or_default();
            record.numbers.insert(call.clone(), user.trim_start_matches('+').to_owned());
        }
        let Some(number) = record.numbers.get(&call).cloned() else { return };
        let talk = record.talks.entry((side, number)).or_default();
        let status = message.status();
        match (message.method(), status) {
            (Method::Invite, None) => _ = talk.invited.get_or_insert(at),
            (Method::Invite, Some(100)) => _ = talk.tried.get_or_insert(at),
            (Method::Invite, Some(200..=299)) => _ = talk.answered.get_or_insert(at),
            (Method::Invite, Some(status @ 300..)) if ![401, 407, 491].contains(&status) => {
                talk.refused.get_or_insert(status);
                talk.refused_at.get_or_insert(at);
                talk.retry_after_s = talk.retry_after_s.or(message.retry_after());
            }
            (Method::Ack, None) if talk.answered.is_some() => _ = talk.confirmed.get_or_insert(at),
            (Method::Bye, None) if sent => _ = talk.bye_sent.get_or_insert(at),
            (Method::Bye, None) => _ = talk.bye_received.get_or_insert(at),
            (Method::Bye, Some(status @ 200..)) if !sent => {
                talk.bye_answered.get_or_insert((at, status));
            }
            _ => {}
        }
    }

    /// Notes what SIPp wrote down as a caller.
    ///
    /// # Panics
    /// When the text is not one of its message logs.
    pub fn read_sipp(&self, log: &str) {
        for piece in log.split("----------------------------------------------- ").skip(1) {
            let (head, rest) = piece.split_once("\n\n").expect("a message after its head");
            let mut lines = head.lines();
            let at = lines.next().expect("a time").trim().replacen(' ', "T", 1) + "Z";
            let at = Timestamp::parse_rfc3339(&at).expect("SIPp writes RFC 3339 times");
            let what = lines.next().unwrap_or_default();
            let sent = what.contains("sent");
            let length = what.split(|c: char| !c.is_ascii_digit()).find_map(|word| word.parse().ok());
            let bytes = Bytes::copy_from_slice(&rest.as_bytes()[..rest.len().min(length.unwrap_or(0))]);
            if let Ok(message) = Message::parse_datagram(&bytes) {
                self.saw(Side::Caller, at, sent, &message);
            }
        }
    }

    /// The calls that one side saw, by number.
    #[must_use]
    pub fn talks(&self, side: Side) -> BTreeMap<String, Talk> {
        let record = self.lock();
        let of_side = record.talks.iter().filter(|((of, _), _)| *of == side);
        of_side.map(|((_, number), talk)| (number.clone(), *talk)).collect()
    }

    /// How many calls one side believes to be up.
    #[must_use]
    pub fn up(&self, side: Side) -> usize {
        self.lock().talks.iter().filter(|((of, _), talk)| *of == side && talk.is_up()).count()
    }

    /// When the first call was answered that was begun at or after a moment.
    #[must_use]
    pub fn first_answer_since(&self, since: Timestamp) -> Option<Timestamp> {
        let record = self.lock();
        let callers = record.talks.iter().filter(|((of, _), _)| *of == Side::Caller);
        let begun = callers.filter(|(_, talk)| talk.invited.is_some_and(|at| at >= since));
        begun.filter_map(|(_, talk)| talk.answered).min()
    }
}

/// An endpoint whose messages are noted.
pub struct Recorded<E> {
    endpoint: E,
    side: Side,
    wire: Wire,
    clock: Clock,
}

impl<E: Endpoint> Recorded<E> {
    /// Notes what `endpoint` sends and receives.
    #[must_use]
    pub fn new(endpoint: E, side: Side, wire: Wire) -> Self {
        Self { endpoint, side, wire, clock: ringfence::clock::system() }
    }

    fn note(&self, sent: bool, datagram: &Bytes) {
        if let Ok(message) = Message::parse_datagram(datagram) {
            self.wire.saw(self.side, (self.clock)().wall, sent, &message);
        }
    }

    fn note_sent(&self, before: usize, actions: &Actions<E::Event>) {
        actions.datagrams[before..].iter().for_each(|(_, datagram)| self.note(true, datagram));
    }
}

impl<E: Endpoint> Endpoint for Recorded<E> {
    type Command = E::Command;
    type Event = E::Event;

    fn on_command(&mut self, command: E::Command, now: Mono, actions: &mut Actions<E::Event>) {
        let before = actions.datagrams.len();
        self.endpoint.on_command(command, now, actions);
        self.note_sent(before, actions);
    }

    fn on_datagram(&mut self, datagram: &Bytes, source: SocketAddr, now: Mono, actions: &mut Actions<E::Event>) {
        self.note(false, datagram);
        let before = actions.datagrams.len();
        self.endpoint.on_datagram(datagram, source, now, actions);
        self.note_sent(before, actions);
    }

    fn on_time(&mut self, now: Mono, actions: &mut Actions<E::Event>) {
        let before = actions.datagrams.len();
        self.endpoint.on_time(now, actions);
        self.note_sent(before, actions);
    }

    fn next_time(&self) -> Option<Mono> {
        self.endpoint.next_time()
    }
}
