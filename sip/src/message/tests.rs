//! Messages read, refused, written and read back.

mod reading;
mod streams;
mod writing;

pub(crate) use writing::read_by_other_stacks;

use super::*;
use std::net::SocketAddr;

fn datagram(text: &str) -> Result<Message, ParseError> {
    Message::parse_datagram(&Bytes::copy_from_slice(text.as_bytes()))
}

fn crlf(text: &str) -> String {
    text.replace('\n', "\r\n")
}

/// Latin-1 in place of the marks `~` of a text.
fn latin(text: &str) -> Bytes {
    Bytes::from(crlf(text).bytes().map(|byte| if byte == b'~' { 0xe9 } else { byte }).collect::<Vec<_>>())
}

fn read(text: &str) -> Message {
    datagram(&crlf(text)).unwrap_or_else(|error| panic!("{error} in {text}"))
}

fn problem(text: &str) -> Problem {
    datagram(&crlf(text)).err().unwrap_or_else(|| panic!("accepted: {text}")).problem
}

fn source() -> SocketAddr {
    "192.0.2.9:4321".parse().expect("an address")
}

const INVITE: &str = "INVITE sip:bob@biloxi.example SIP/2.0
Via: SIP/2.0/UDP pc33.atlanta.example;branch=z9hG4bK776;rport
Max-Forwards: 70
To: Bob <sip:bob@biloxi.example>
From: Alice <sip:alice@atlanta.example>;tag=1928301774
Call-ID: a84b4c76e66710@pc33.atlanta.example
CSeq: 314159 INVITE
Contact: <sip:alice@pc33.atlanta.example>
Content-Type: application/sdp
Content-Length: 4

v=0
";

fn invite_with(lines: &str) -> String {
    INVITE.replace("Max-Forwards: 70\n", lines)
}
