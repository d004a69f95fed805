//! In which order what arrived is handled: first all that belongs to calls and transactions under way, then what begins
//! something, INVITEs and others in turn, so that neither a flood of new calls nor one of registrations is in the way of a
//! BYE or of each other. Pure.

use super::wire::Arrival;
use crate::flow::Flow;
use crate::message::{Message, Method};
use crate::overload::QUEUE_MIN;
use schema::time::Mono;
use std::collections::VecDeque;
use std::time::Duration;

/// Requests of one kind that wait, and bytes of memory that they take; more are surplus.
const LINE_MAX: usize = 2_048;
const LINE_BYTES_MAX: usize = 8 << 20;

/// What an arrival is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A response, a request in a dialog or of a transaction, the end of a connection.
    UnderWay,
    NewCall,
    OtherNew,
}

fn kind_of(arrival: &Arrival) -> Kind {
    let Arrival::Message(_, message) = arrival else { return Kind::UnderWay };
    if !message.is_request() || message.to_tag().is_some() {
        return Kind::UnderWay;
    }
    match message.method() {
        Method::Ack | Method::Cancel | Method::Bye | Method::Prack => Kind::UnderWay,
        Method::Invite => Kind::NewCall,
        _ => Kind::OtherNew,
    }
}

/// Requests of one kind, in the order they came.
#[derive(Default)]
struct Line {
    waiting: VecDeque<(Mono, Flow, Message)>,
    bytes: usize,
}

impl Line {
    /// Gives it back when there is no room.
    fn put(&mut self, flow: Flow, message: Message, at: Mono) -> Option<Arrival> {
        // A datagram is small; of a stream more was read at once.
        let message = if flow.connection.is_some() { message.kept() } else { message };
        let bytes = self.bytes + message.size();
        if self.waiting.len() >= LINE_MAX || bytes > LINE_BYTES_MAX {
            return Some(Arrival::Message(flow, message));
        }
        self.bytes = bytes;
        self.waiting.push_back((at, flow, message));
        None
    }

    fn take(&mut self) -> Option<Arrival> {
        let (_, flow, message) = self.waiting.pop_front()?;
        self.bytes -= message.size();
        Some(Arrival::Message(flow, message))
    }

    /// Whether the INVITE that this CANCEL is for waits here.
    fn has_invite_of(&self, flow: Flow, cancel: &Message) -> bool {
        self.waiting.iter().any(|(_, from, invite)| *from == flow && invite.branch() == cancel.branch())
    }

    fn age(&self, now: Mono) -> Duration {
        let oldest = self.waiting.front().filter(|_| self.waiting.len() >= QUEUE_MIN);
        oldest.map_or(Duration::ZERO, |(at, ..)| now.since(*at))
    }
}

/// What waits to be handled.
#[derive(Default)]
pub(super) struct Inbox {
    calls: Line,
    others: Line,
    others_turn: bool,
}

impl Inbox {
    /// Takes what arrived at `at` or later; what is to be handled at once stays in `arrivals`, in its order. Gives the requests
    /// for which there is no room.
    pub(super) fn sort(&mut self, arrivals: &mut Vec<Arrival>, at: Mono) -> Vec<Arrival> {
        let mut surplus = Vec::new();
        for arrival in std::mem::take(arrivals) {
            let kind = kind_of(&arrival);
            match (kind, arrival) {
                // Nobody may cancel before an answer has come (RFC 3261 §9.1); who does it must not be overtaken.
                (Kind::UnderWay, Arrival::Message(flow, cancel))
                    if *cancel.method() == Method::Cancel
                        && cancel.is_request()
                        && self.calls.has_invite_of(flow, &cancel) =>
                {
                    surplus.extend(self.calls.put(flow, cancel, at));
                }
                (Kind::NewCall, Arrival::Message(flow, message)) => {
                    surplus.extend(self.calls.put(flow, message, at));
                }
                (Kind::OtherNew, Arrival::Message(flow, message)) => {
                    surplus.extend(self.others.put(flow, message, at));
                }
                (_, arrival) => arrivals.push(arrival),
            }
        }
        surplus
    }

    /// The next request that begins something.
    pub(super) fn next(&mut self) -> Option<Arrival> {
        self.others_turn = !self.others_turn;
        let (first, second) =
            if self.others_turn { (&mut self.others, &mut self.calls) } else { (&mut self.calls, &mut self.others) };
        first.take().or_else(|| second.take())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.waiting.is_empty() && self.others.waiting.is_empty()
    }

    /// How long the oldest INVITE and the oldest other request have waited; zero where too few wait to be a queue.
    pub(super) fn ages(&self, now: Mono) -> (Duration, Duration) {
        (self.calls.age(now), self.others.age(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::net::SocketAddr;

    fn flow(last: u8) -> Flow {
        Flow::udp(SocketAddr::from(([127, 0, 0, last], 5060)))
    }

    fn request(method: &str, call_id: &str, to_tag: &str, body: usize) -> Arrival {
        let text = format!(
            "{method} sip:x@localhost SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5100;branch=z9hG4bK{call_id}\r\nMax-Forwards: 70\r\nFrom: <sip:demo@localhost>;tag=a\r\nTo: <sip:y@localhost>{to_tag}\r\nCall-ID: {call_id}\r\nCSeq: 1 {method}\r\nContact: <sip:a@127.0.0.1>\r\nContent-Type: text/plain\r\nContent-Length: {body}\r\n\r\n{}",
            "x".repeat(body)
        );
        Arrival::Message(flow(1), Message::parse_datagram(&Bytes::from(text)).expect("valid"))
    }

    fn response() -> Arrival {
        let text = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bKr\r\nFrom: <sip:a@localhost>;tag=a\r\nTo: <sip:b@localhost>;tag=b\r\nCall-ID: r\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n";
        Arrival::Message(flow(1), Message::parse_datagram(&Bytes::from(text)).expect("valid"))
    }

    fn name(arrival: &Arrival) -> String {
        match arrival {
            Arrival::Message(_, message) if message.is_request() => {
                format!("{} {}", message.method().as_str(), message.call_id())
            }
            Arrival::Message(..) => "response".to_owned(),
            Arrival::Closed(_) | Arrival::Disconnected(..) => "closed".to_owned(),
            Arrival::Unreachable(..) => "unreachable".to_owned(),
            Arrival::Refused(..) => "refused".to_owned(),
        }
    }

    fn names(arrivals: &[Arrival]) -> Vec<String> {
        arrivals.iter().map(name).collect()
    }

    fn rest(inbox: &mut Inbox) -> Vec<String> {
        std::iter::from_fn(|| inbox.next()).map(|arrival| name(&arrival)).collect()
    }

    #[test]
    fn what_is_under_way_comes_first_and_new_calls_and_others_take_turns() {
        let mut inbox = Inbox::default();
        let mut arrivals = vec![
            request("INVITE", "i1", "", 0),
            request("REGISTER", "r1", "", 0),
            request("INVITE", "i2", "", 0),
            request("BYE", "b", ";tag=b", 0),
            request("REGISTER", "r2", "", 0),
            request("INVITE", "i3", "", 0),
            request("INVITE", "again", ";tag=b", 0),
            response(),
            request("ACK", "a", "", 0),
            request("CANCEL", "c", "", 0),
            request("PRACK", "p", ";tag=b", 0),
            Arrival::Closed(flow(2)),
            request("OPTIONS", "o", "", 0),
        ];
        assert!(inbox.sort(&mut arrivals, Mono(0)).is_empty());
        let first = ["BYE b", "INVITE again", "response", "ACK a", "CANCEL c", "PRACK p", "closed"];
        assert_eq!(names(&arrivals), first);
        let then = ["REGISTER r1", "INVITE i1", "REGISTER r2", "INVITE i2", "OPTIONS o", "INVITE i3"];
        assert_eq!(rest(&mut inbox), then);
        assert!(inbox.is_empty());
    }

    #[test]
    fn a_cancel_does_not_overtake_its_invite() {
        let mut inbox = Inbox::default();
        let mut arrivals = vec![request("INVITE", "one", "", 0), request("CANCEL", "one", "", 0)];
        inbox.sort(&mut arrivals, Mono(0));
        assert!(arrivals.is_empty());
        let mut later = vec![request("CANCEL", "one", "", 0), request("CANCEL", "other", "", 0)];
        inbox.sort(&mut later, Mono(0));
        assert_eq!(names(&later), ["CANCEL other"]);
        assert_eq!(rest(&mut inbox), ["INVITE one", "CANCEL one", "CANCEL one"]);
    }

    #[test]
    fn what_waits_is_bounded_in_number_and_bytes_and_a_bye_is_served_when_it_is_full() {
        let mut inbox = Inbox::default();
        let mut arrivals: Vec<_> = (0..LINE_MAX + 3).map(|n| request("INVITE", &format!("i{n}"), "", 0)).collect();
        arrivals.push(request("BYE", "b", ";tag=b", 0));
        arrivals.push(request("REGISTER", "r", "", 0));
        let surplus = inbox.sort(&mut arrivals, Mono(0));
        assert_eq!(names(&surplus), ["INVITE i2048", "INVITE i2049", "INVITE i2050"]);
        assert_eq!(names(&arrivals), ["BYE b"]);
        assert_eq!(rest(&mut inbox).len(), LINE_MAX + 1);

        let large = || request("INVITE", "large", "", 8_000);
        let Arrival::Message(_, message) = large() else { panic!() };
        let fit = LINE_BYTES_MAX / message.size();
        let mut arrivals: Vec<_> = (0..fit + 2).map(|_| large()).collect();
        assert_eq!(inbox.sort(&mut arrivals, Mono(0)).len(), 2);
        assert_eq!(rest(&mut inbox).len(), fit);
        assert!(inbox.sort(&mut vec![large()], Mono(0)).is_empty(), "there is room again");
    }

    #[test]
    fn a_few_that_wait_are_no_queue() {
        let mut inbox = Inbox::default();
        let now = Mono(1_000_000);
        for n in 0..QUEUE_MIN {
            assert_eq!(inbox.ages(now), (Duration::ZERO, Duration::ZERO));
            inbox.sort(&mut vec![request("INVITE", &format!("i{n}"), "", 0)], Mono(900_000));
        }
        assert_eq!(inbox.ages(now), (Duration::from_millis(100), Duration::ZERO));
    }
}
