//! Messages cut out of a stream.

use super::*;

fn frames(framer: &mut Framer) -> Vec<String> {
    let mut out = Vec::new();
    loop {
        match framer.next_frame() {
            Ok(None) => return out,
            Ok(Some(Frame::Message(message))) => out.push(format!("{} {}", message.method(), message.body().len())),
            Ok(Some(Frame::Refused(error))) => out.push(format!("refused {}", error.problem)),
            Ok(Some(Frame::Ping)) => out.push("ping".to_owned()),
            Err(error) => {
                out.push(format!("fatal {}", error.problem));
                return out;
            }
        }
    }
}

#[test]
fn a_stream_is_cut_the_same_way_wherever_its_segments_end() {
    let bye = INVITE.replace("INVITE", "BYE").replace("Content-Length: 4", "l : 5");
    let refused = INVITE.replace("tag=1928301774", "tag=").replace("Content-Length: 4", "Content-Length: 5");
    let invite = INVITE.replace("Content-Length: 4", "Content-Length: 5");
    let stream = crlf(&format!("\n\n{invite}\n{bye}\n\n{refused}{invite}"));
    let expected = ["ping", "INVITE 5", "BYE 5", "ping", "refused malformed From", "INVITE 5"];
    let mut whole = Framer::new();
    whole.push(stream.as_bytes());
    assert_eq!(frames(&mut whole), expected);
    assert!(
        whole.is_idle() && whole.unfinished() == Unfinished { came: 0, takes: 0 },
        "nothing is kept between messages"
    );
    // Nor of what stands before the beginning of the next one.
    for rest in ["\r", "INVITE", &stream[..stream.len() - 3]] {
        let mut framer = Framer::new();
        framer.push(stream.repeat(20).as_bytes());
        framer.push(rest.as_bytes());
        frames(&mut framer);
        let Unfinished { came, takes } = framer.unfinished();
        assert!(came >= 1 && came <= takes && takes <= 2_000, "{came}, {takes}");
    }
    for size in 1..200 {
        let mut framer = Framer::new();
        let mut seen = Vec::new();
        for segment in stream.as_bytes().chunks(size) {
            framer.push(segment);
            seen.extend(frames(&mut framer));
        }
        assert_eq!(seen, expected, "segments of {size} bytes");
    }
    for cut in 0..stream.len() {
        let (mut framer, mut seen) = (Framer::new(), Vec::new());
        for segment in [&stream[..cut], &stream[cut..]] {
            framer.push(segment.as_bytes());
            seen.extend(frames(&mut framer));
        }
        assert_eq!(seen, expected, "cut at {cut}");
    }
}

#[test]
fn a_stream_whose_next_message_cannot_be_found_is_lost() {
    let cases = [
        (INVITE.replace("Content-Length: 4\n", ""), "fatal Content-Length missing", true),
        (INVITE.replace("Content-Length: 4", "Content-Length: -4"), "fatal malformed Content-Length", true),
        (INVITE.replace("Content-Length: 4", "Content-Length: 4\nl: 5"), "fatal Content-Length repeated", true),
        (INVITE.replace("Content-Length: 4", "Content-Length: 70000"), "fatal message too large", true),
        (INVITE.replace("Content-Length: 4", "Content-Length 4"), "fatal malformed header line", true),
        ("GET / HTTP/1.1 x\nHost: y\n\n".to_owned(), "fatal Content-Length missing", false),
        ("\u{16}\u{3}\u{1} TLS\n\n".to_owned(), "fatal illegal character in the header section", false),
        ("x".repeat(limits::MAX_STREAM_MESSAGE), "fatal message too large", false),
    ];
    for (text, expected, answered) in cases {
        let mut framer = Framer::new();
        framer.push(crlf(&text).as_bytes());
        let error = framer.next_frame().expect_err(expected);
        assert_eq!(
            (format!("fatal {}", error.problem).as_str(), error.can_answer()),
            (expected, answered),
            "{:.300}",
            text
        );
        framer.push(crlf(INVITE).as_bytes());
        assert!(framer.next_frame().is_err());
    }
}

#[test]
fn a_byte_that_is_not_utf_8_does_not_end_a_stream() {
    let named = INVITE.replace("Alice", "Andr~").replace("Content-Length: 4", "X: ~\nContent-Length: 5");
    let refused = INVITE.replace("a84b", "a84~").replace("Content-Length: 4", "Content-Length: 5");
    let bye = INVITE.replace("INVITE", "BYE").replace("Content-Length: 4", "Content-Length: 5");
    let mut framer = Framer::new();
    framer.push(&latin(&format!("{named}{refused}{bye}")));
    assert_eq!(frames(&mut framer), ["INVITE 5", "refused illegal character in the header section", "BYE 5"]);
    // What may have said how long the message is.
    for (is, was) in [("Content-L~ngth: 1", "Max-Forwards: 70"), ("Content-Length: 4~", "Content-Length: 4")] {
        let mut framer = Framer::new();
        framer.push(&latin(&INVITE.replace(was, is)));
        assert!(framer.next_frame().is_err(), "{is}");
    }
}

#[test]
fn a_message_as_large_as_the_limit_passes_a_stream_byte_by_byte() {
    let head = crlf(&INVITE.replace("v=0\n", "").replace("Content-Length: 4", "Content-Length: 64000"));
    let mut framer = Framer::new();
    for byte in head.bytes().chain(std::iter::repeat_n(b'x', 64_000)) {
        assert!(matches!(framer.next_frame(), Ok(None)));
        framer.push(&[byte]);
    }
    assert_eq!(frames(&mut framer), ["INVITE 64000"]);
}

/// RFC 3261 §7.5: they are nothing, so a peer that sends one too many has not begun its next message.
#[test]
fn line_ends_between_messages_begin_none() {
    let mut framer = Framer::new();
    for (bytes, is_idle) in [(&b"\r"[..], true), (b"\n", true), (b"\r", true), (b"\n", true), (b"\r\nI", false)] {
        framer.push(bytes);
        while framer.next_frame().expect("a frame or more is needed").is_some() {}
        assert_eq!(framer.is_idle(), is_idle, "{bytes:?}");
    }
}
