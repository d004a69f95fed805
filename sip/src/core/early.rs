//! Requests that came before their dialog was resumed: kept until it is, within limits.

use crate::flow::Flow;
use crate::message::Message;
use schema::time::Now;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Requests that wait at a time; more are dropped, and over UDP come again.
pub(super) const EARLY_MAX: usize = 10_000;
/// Bytes of memory that they take.
pub(super) const EARLY_BYTES_MAX: usize = 16 << 20;
/// Requests of one address, unless it is a trunk's, from which those of many calls come.
pub(super) const EARLY_SOURCE_MAX: usize = 256;

/// What waits, and when it came.
#[derive(Default)]
pub(super) struct Early {
    waiting: Vec<(Flow, Message, Now)>,
    bytes: usize,
    sources: BTreeMap<IpAddr, usize>,
}

impl Early {
    /// Keeps a request, if there is room. True when it is kept.
    pub(super) fn keep(&mut self, flow: Flow, request: Message, now: Now, is_trunk: bool) -> bool {
        let request = request.kept();
        let bytes = self.bytes + request.size();
        if self.waiting.len() >= EARLY_MAX || bytes > EARLY_BYTES_MAX {
            return false;
        }
        if !is_trunk {
            let of_source = self.sources.entry(flow.ip()).or_default();
            if *of_source >= EARLY_SOURCE_MAX {
                return false;
            }
            *of_source += 1;
        }
        self.bytes = bytes;
        self.waiting.push((flow, request, now));
        true
    }

    /// All of them, in the order they came.
    pub(super) fn into_waiting(self) -> Vec<(Flow, Message, Now)> {
        self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Frame, Framer};
    use bytes::Bytes;
    use std::net::SocketAddr;

    fn request(body: usize) -> Message {
        let text = format!(
            "BYE sip:x@localhost SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5100;branch=z9hG4bKz\r\nMax-Forwards: 70\r\nFrom: <sip:demo@localhost>;tag=a\r\nTo: <sip:y@localhost>;tag=b\r\nCall-ID: c\r\nCSeq: 1 BYE\r\nContent-Type: text/plain\r\nContent-Length: {body}\r\n\r\n{}",
            "x".repeat(body)
        );
        Message::parse_datagram(&Bytes::from(text)).expect("valid")
    }

    fn from(number: usize) -> Flow {
        let [.., b, c, d] = u32::try_from(number).expect("small").to_be_bytes();
        Flow::udp(SocketAddr::from(([10, b, c, d], 5060)))
    }

    #[test]
    fn no_address_takes_the_room_of_others_unless_it_is_a_trunk() {
        let (mut early, small) = (Early::default(), request(0));
        let kept = |early: &mut Early, flow, is_trunk| early.keep(flow, small.clone(), Now::default(), is_trunk);
        assert_eq!((0..EARLY_SOURCE_MAX + 5).filter(|_| kept(&mut early, from(1), false)).count(), EARLY_SOURCE_MAX);
        assert!(kept(&mut early, from(2), false));
        let left = EARLY_MAX - EARLY_SOURCE_MAX - 1;
        assert_eq!((0..EARLY_MAX).filter(|_| kept(&mut early, from(3), true)).count(), left);
        assert!(!kept(&mut early, from(4), false));
        assert_eq!(early.into_waiting().len(), EARLY_MAX);
    }

    #[test]
    fn what_waits_is_bounded_in_bytes() {
        let (mut early, large) = (Early::default(), request(8_000));
        let kept = (0..EARLY_MAX).filter(|n| early.keep(from(*n), large.clone(), Now::default(), false)).count();
        assert_eq!(kept, EARLY_BYTES_MAX / large.size());
    }

    #[test]
    fn what_waits_does_not_keep_what_was_read_with_it() {
        let mut framer = Framer::new();
        let one = |n| {
            format!(
                "BYE sip:x@localhost SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:5100;branch=z9hG4bK{n}\r\nMax-Forwards: 70\r\nFrom: <sip:demo@localhost>;tag=a\r\nTo: <sip:y@localhost>;tag=b\r\nCall-ID: c\r\nCSeq: 1 BYE\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n\r\nx"
            )
        };
        // A read of a stream is one allocation, which each body in it would keep as a whole.
        framer.push((0..50).map(one).collect::<String>().as_bytes());
        let mut early = Early::default();
        while let Ok(Some(Frame::Message(message))) = framer.next_frame() {
            assert!(early.keep(from(1), message, Now::default(), false));
        }
        let waiting = early.into_waiting();
        assert_eq!(waiting.len(), 50);
        assert!(waiting.iter().all(|(_, message, _)| message.body().is_unique()));
    }
}
