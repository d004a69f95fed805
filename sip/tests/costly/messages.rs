//! Messages made to be costly, for the tests that count what they cost.

use bytes::Bytes;
use sip::message::{Frame, Framer, HeaderName, Message};

/// What the core reads of a message.
fn look_at(message: &Message) {
    let _ = (message.from(), message.to(), message.top_via(), message.call_id().len());
    let _ = (message.max_forwards(), message.expires(), message.has_sdp());
    let _ = (message.require().count(), message.supported().count(), message.allow().count());
    for list in [HeaderName::Contact, HeaderName::Route, HeaderName::RecordRoute] {
        let _ = message.values(list).count();
    }
}

/// Reads a datagram as the edge does.
pub(crate) fn datagram(bytes: &Bytes) {
    match Message::parse_datagram(bytes) {
        Ok(message) => look_at(&message),
        Err(error) => drop(error.answer(([192, 0, 2, 1], 5060).into(), "tag")),
    }
}

/// Reads a stream that comes in segments of this length.
pub(crate) fn stream(bytes: &[u8], segment: usize) {
    let mut framer = Framer::new();
    for part in bytes.chunks(segment) {
        framer.push(part);
        while let Ok(Some(frame)) = framer.next_frame() {
            if let Frame::Message(message) = &frame {
                look_at(message);
            }
        }
    }
}

fn request(lines: &str) -> Vec<u8> {
    format!(
        "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKa\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\n\
         Call-ID: c\r\nCSeq: 1 REGISTER\r\n{lines}Content-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// Latin-1 in place of the marks `~`.
fn latin(bytes: Vec<u8>) -> Vec<u8> {
    bytes.into_iter().map(|byte| if byte == b'~' { 0xe9 } else { byte }).collect()
}

/// Messages made to be costly: whatever one byte can make us note.
pub(crate) fn costly() -> Vec<(&'static str, Vec<u8>)> {
    let params = |count: usize| (0..count).map(|number| format!(";{number}")).collect::<String>();
    vec![
        ("many short lines", request(&"a:\r\n".repeat(15_000))),
        ("as many lines as allowed", request(&"a:\r\n".repeat(100))),
        ("folds", request(&format!("a:{}\r\n", "\r\n ".repeat(2_000)))),
        ("Vias", request(&"v:SIP/2.0/T h\r\n".repeat(60))),
        ("Vias of one line", request(&format!("v:{}\r\n", vec!["SIP/2.0/T h;1;2;3"; 60].join(",")))),
        ("too many Vias", request(&"v:SIP/2.0/T h\r\n".repeat(120))),
        ("parameters", request(&format!("m:<sip:h>{}\r\n", params(32)))),
        ("URI parameters", request(&format!("m:<sip:h{}>\r\n", params(32)))),
        ("contacts with parameters", request(&format!("m:<sip:h>{0},<sip:h>{0},<sip:h>{0}\r\n", params(32)))),
        ("option tags", request(&format!("k:{}\r\n", vec!["x"; 64].join(",")))),
        ("commas", request(&format!("k:{}\r\n", ",".repeat(8_000)))),
        ("quotes", request(&format!("m:\"{}\" <sip:h>\r\n", "\\\"".repeat(4_000)))),
        ("lines that are not UTF-8", latin(request(&"a:~\r\n".repeat(100)))),
        ("a line that is not UTF-8", latin(request(&format!("a:{}\r\n", "~x".repeat(4_000))))),
        ("line ends", b"\r\n".repeat(8_000)),
        ("a start line", format!("{} sip:h SIP/2.0\r\n\r\n", "M".repeat(60_000)).into_bytes()),
        ("a body", {
            let mut bytes = request("c:text/plain\r\n");
            let length = bytes.len() - 5;
            bytes.truncate(length);
            bytes.extend_from_slice(b"60000\r\n\r\n");
            bytes.extend_from_slice(&[b'x'; 60_000]);
            bytes
        }),
    ]
}
