//! Does a message made to be costly take longer than its size explains? Times are compared with that of an ordinary message in the
//! same run, byte for byte, so that neither the machine nor the build matters. A reader whose work grows with the square of the size
//! would be hundreds of times slower here. How long an ordinary kilobyte takes is printed and not checked: where it is below 10 us,
//! [`MOST`] times that keeps the largest message (64 KiB) below 10 ms.

#[path = "costly/messages.rs"]
mod costly;

use bytes::Bytes;
use costly::{costly, datagram, stream};
use sip::message::Message;
use sip::message::limits::{MAX_DATAGRAM, MAX_STREAM_MESSAGE};
use sip::sdp::Description;
use std::time::{Duration, Instant};

/// Most times that a byte may take of an ordinary message's.
const MOST: f64 = 15.0;
/// What a message may take whatever its size, in bytes of an ordinary one: some of the costly ones are short.
const BASE: usize = 1_000;

fn ordinary() -> Vec<u8> {
    let body = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8 101\r\n\
                a=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\na=sendrecv\r\n";
    format!(
        "INVITE sip:+447700900001@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK776asdhds;rport\r\n\
         Max-Forwards: 70\r\nFrom: \"Alice\" <sip:alice@example.com>;tag=1928301774\r\nTo: <sip:+447700900001@example.com>\r\n\
         Call-ID: a84b4c76e66710@192.0.2.1\r\nCSeq: 314159 INVITE\r\nContact: <sip:alice@192.0.2.1:5060;transport=udp>\r\n\
         User-Agent: phone 1.0\r\nAllow: INVITE, ACK, CANCEL, OPTIONS, BYE, INFO\r\nSupported: timer, 100rel, replaces\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The shortest of several times, so that what else the machine does counts little.
#[expect(clippy::disallowed_methods, reason = "a time is measured")]
fn shortest(read: &dyn Fn()) -> Duration {
    let once = || {
        let start = Instant::now();
        read();
        start.elapsed()
    };
    (0..3).map(|_| once()).min().expect("some")
}

/// Costly messages almost as large as allowed, their costly part over and over.
fn large(most: usize) -> Vec<(&'static str, Vec<u8>)> {
    let room = most - 1_000;
    let head = "OPTIONS sip:h SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKa\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\n\
                Call-ID: c\r\nCSeq: 1 OPTIONS\r\n";
    let of = |line: &str| format!("{head}{}Content-Length: 0\r\n\r\n", line.repeat(room / line.len())).into_bytes();
    vec![
        ("only short lines", of("a:\r\n")),
        ("only header names", of("Content-Length\t : 0\r\n")),
        ("only contacts", of("m: <sip:h>;q=0.1, \"\\\"\" <sip:h>\r\n")),
        ("only Vias", of("v: SIP / 2.0 / TCP h ; branch = a, SIP/2.0/TCP [::1]:5060\r\n")),
        ("one folded line", format!("{head}a:{}\r\n\r\n", "\r\n ".repeat(room / 3)).into_bytes()),
        ("no end", vec![b'\r'; room]),
        ("almost an end", b"\r\n\r".repeat(room / 3)),
    ]
}

#[test]
fn no_message_takes_longer_than_its_size_explains() {
    let ordinary = ordinary();
    let whole = Bytes::copy_from_slice(&ordinary);
    assert!(Message::parse_datagram(&whole).is_ok_and(|message| message.has_sdp()), "what is compared with is read");
    let per_byte = |time: Duration, size: usize| time.as_secs_f64() / size as f64;
    let many = |read: &dyn Fn()| per_byte(shortest(&|| (0..20).for_each(|_| read())), 20 * ordinary.len());
    let mut slow = Vec::new();
    let mut check = |what: &str, time: Duration, size: usize, compared: f64| {
        let times = per_byte(time, size + BASE) / compared;
        println!("{times:6.2} {what}");
        if times > MOST {
            slow.push(format!("a byte of {what} takes {times:.0} times that of an ordinary message"));
        }
    };
    let compared = many(&|| datagram(&whole));
    println!("an ordinary kilobyte takes {:.1} us", compared * 1_024.0 * 1e6);
    for (name, bytes) in costly().into_iter().chain(large(MAX_DATAGRAM)) {
        let bytes = Bytes::from(bytes);
        check(name, shortest(&|| datagram(&bytes)), bytes.len(), compared);
    }
    for segment in [1, 1_000, MAX_STREAM_MESSAGE] {
        let compared = many(&|| stream(&ordinary, segment));
        for (name, bytes) in costly().into_iter().chain(large(MAX_STREAM_MESSAGE)) {
            let time = shortest(&|| stream(&bytes, segment));
            check(&format!("{name} in segments of {segment}"), time, bytes.len(), compared);
        }
    }
    assert!(slow.is_empty(), "{}", slow.join("\n"));
}

#[test]
fn no_session_description_takes_longer_than_its_size_explains() {
    const HEAD: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n";
    let ordinary = format!("{HEAD}m=audio 4000 RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n");
    let read = |text: &str| (0..20).for_each(|_| drop(Description::parse(text.as_bytes())));
    let per_byte = |text: &str| shortest(&|| read(text)).as_secs_f64() / text.len() as f64;
    let compared = per_byte(&ordinary);
    for line in
        ["m=audio 4 RTP/AVP 0\r\n", "a=x\r\n", "a=rtpmap:0 PCMU/8000\r\n", "c=IN IP4 192.0.2.1\r\n", "\r\n", "=\r\n"]
    {
        let text = format!("{HEAD}m=audio 4 RTP/AVP 0\r\n{}", line.repeat(7_000 / line.len()));
        let times = per_byte(&text) / compared;
        assert!(times < MOST, "a byte of lines {line:?} takes {times:.0} times that of an ordinary description");
    }
}
