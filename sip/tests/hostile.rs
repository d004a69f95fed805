//! What do messages do that were made to break a parser: at each limit, cut anywhere, glued, with the header forms that have
//! broken SIP stacks for twenty years?

use bytes::Bytes;
use sip::message::limits::{
    MAX_CONTACTS, MAX_DATAGRAM, MAX_HEADER_LINE, MAX_HEADERS, MAX_PARAMS, MAX_ROUTES, MAX_START_LINE,
    MAX_STREAM_MESSAGE, MAX_TOKENS, MAX_URI, MAX_VIAS,
};
use sip::message::{Frame, Framer, HeaderName, Message, Problem};
use sip::sdp::{Description, MAX_ATTRIBUTES, MAX_FORMATS, MAX_LINE, MAX_MEDIA, MAX_SDP};

/// An OPTIONS with these header lines in the place of its own of the same beginning, or besides.
fn with(lines: &str, body: &str) -> String {
    format!(
        "OPTIONS sip:example.com SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKa\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\n\
         Call-ID: c\r\nCSeq: 1 OPTIONS\r\n{lines}Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn datagram(text: &str) -> Result<Message, Problem> {
    Message::parse_datagram(&Bytes::copy_from_slice(text.as_bytes())).map_err(|error| error.problem)
}

/// A text of exactly this length around a filling of `x`.
fn filled(length: usize, make: impl Fn(&str) -> String) -> String {
    let bare = make("").len();
    let text = make(&"x".repeat(length - bare));
    assert_eq!(text.len(), length);
    text
}

/// A body that makes the whole message this long.
fn sized(length: usize) -> String {
    let guess = length - with("", &"x".repeat(10_000)).len() + 10_000;
    let text = with("", &"x".repeat(guess));
    assert_eq!(text.len(), length);
    text
}

type Limit = (&'static str, usize, fn(usize) -> String, Problem, u16);

fn named(value: &str, times: usize) -> String {
    vec![value; times].join(", ")
}

fn params(count: usize) -> String {
    (0..count).map(|number| format!(";p{number}=x")).collect()
}

#[test]
fn each_limit_lets_its_last_pass_and_refuses_the_next() {
    use HeaderName as N;
    let cases: &[Limit] = &[
        ("datagram", MAX_DATAGRAM, sized, Problem::MessageTooLarge, 513),
        (
            "start line",
            MAX_START_LINE,
            |length| {
                let method = "M".repeat(length - " sip:example.com SIP/2.0".len());
                with("", "").replace("OPTIONS", &method)
            },
            Problem::StartLineTooLong,
            414,
        ),
        (
            "header line",
            MAX_HEADER_LINE,
            |length| with(&format!("{}\r\n", filled(length, |fill| format!("Z: {fill}"))), ""),
            Problem::HeaderLineTooLong,
            513,
        ),
        ("headers", MAX_HEADERS, |count| with(&"Z: y\r\n".repeat(count - 7), ""), Problem::TooManyHeaders, 513),
        (
            "Via",
            MAX_VIAS,
            |count| with(&format!("v: {}\r\n", named("SIP/2.0/UDP h", count - 1)), ""),
            Problem::TooMany(N::Via),
            513,
        ),
        (
            "Route",
            MAX_ROUTES,
            |count| with(&"Route: <sip:h;lr>\r\n".repeat(count), ""),
            Problem::TooMany(N::Route),
            513,
        ),
        (
            "Record-Route",
            MAX_ROUTES,
            |count| with(&format!("Record-Route: {}\r\n", named("<sip:h;lr>", count)), ""),
            Problem::TooMany(N::RecordRoute),
            513,
        ),
        (
            "Contact",
            MAX_CONTACTS,
            |count| with(&format!("m: {}\r\n", named("<sip:a@h>", count)), ""),
            Problem::TooMany(N::Contact),
            513,
        ),
        (
            "option tags",
            MAX_TOKENS,
            |count| with(&format!("Supported: {}\r\n", named("x", count)), ""),
            Problem::TooMany(N::Supported),
            513,
        ),
        (
            "request URI",
            MAX_URI,
            |length| with("", "").replace("sip:example.com", &filled(length, |fill| format!("sip:{fill}@example.com"))),
            Problem::RequestUri,
            400,
        ),
        (
            "URI",
            MAX_URI,
            |length| with("", "").replace("sip:b@h", &filled(length, |fill| format!("sip:b{fill}@h"))),
            Problem::Malformed(N::To),
            400,
        ),
        (
            "URI parameters",
            MAX_PARAMS,
            |count| with("", "").replace("sip:b@h", &format!("sip:b@h{}", params(count))),
            Problem::Malformed(N::To),
            400,
        ),
        (
            "header parameters",
            MAX_PARAMS,
            |count| with("", "").replace("<sip:b@h>", &format!("<sip:b@h>{}", params(count))),
            Problem::Malformed(N::To),
            400,
        ),
        (
            "Via parameters",
            MAX_PARAMS,
            |count| with("", "").replace(";branch=z9hG4bKa", &params(count)),
            Problem::Malformed(N::Via),
            400,
        ),
        (
            "Call-ID",
            256,
            |length| with("", "").replace("Call-ID: c", &format!("Call-ID: {}", "c".repeat(length))),
            Problem::Malformed(N::CallId),
            400,
        ),
        (
            "CSeq",
            (1 << 31) - 1,
            |number| with("", "").replace("CSeq: 1 ", &format!("CSeq: {number} ")),
            Problem::Malformed(N::CSeq),
            400,
        ),
        (
            "Max-Forwards",
            255,
            |hops| with(&format!("Max-Forwards: {hops}\r\n"), ""),
            Problem::Malformed(N::MaxForwards),
            400,
        ),
    ];
    for (what, most, make, problem, status) in cases {
        // The start line's method is CSeq's too.
        let passes = datagram(&make(*most));
        assert!(passes.is_ok(), "{what} of {most}: {passes:?}");
        assert_eq!(datagram(&make(most + 1)).expect_err(what), *problem, "{what} of {}", most + 1);
        assert_eq!(problem.status(), *status, "{what}");
    }
}

#[test]
fn a_stream_takes_messages_up_to_its_limit_and_is_lost_behind_it() {
    for (length, fits) in [(MAX_STREAM_MESSAGE, true), (MAX_STREAM_MESSAGE + 1, false)] {
        let mut framer = Framer::new();
        framer.push(sized(length).as_bytes());
        match framer.next_frame() {
            Ok(Some(Frame::Message(message))) => assert!(fits && message.is_request()),
            Err(error) => assert!(!fits && error.problem == Problem::MessageTooLarge && error.can_answer()),
            other => panic!("{other:?}"),
        }
    }
    // A head that never ends: the connection ends at the limit, not later.
    let mut framer = Framer::new();
    for pushed in 1..=MAX_STREAM_MESSAGE / 1024 {
        framer.push(&[b'x'; 1024]);
        assert_eq!(framer.next_frame().is_err(), pushed * 1024 >= MAX_STREAM_MESSAGE, "{pushed} KiB");
    }
}

#[test]
fn each_limit_of_a_session_description_lets_its_last_pass_and_refuses_the_next() {
    const HEAD: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n";
    let audio = |formats: usize| format!("m=audio 4 RTP/AVP{}\r\n", " 0".repeat(formats));
    let media = |count: usize| format!("{HEAD}{}", audio(1).repeat(count));
    let formats = |count: usize| format!("{HEAD}{}", audio(count));
    let attributes = |count: usize| format!("{HEAD}{}{}", audio(1), "a=x\r\n".repeat(count));
    let line = |length: usize| format!("{HEAD}{}{}\r\n", audio(1), filled(length, |fill| format!("a=x:{fill}")));
    let whole = |length: usize| {
        let lines = "a=x:".to_owned() + &"y".repeat(1_010) + "\r\n";
        let text = format!("{HEAD}{}{}", audio(1), lines.repeat(7));
        let rest = length - text.len() - 6;
        text + "a=x:" + &"y".repeat(rest) + "\r\n"
    };
    let check = |what: &str, most: usize, make: &dyn Fn(usize) -> String| {
        assert!(Description::parse(make(most).as_bytes()).is_ok(), "{what} of {most}");
        assert!(Description::parse(make(most + 1).as_bytes()).is_err(), "{what} of {}", most + 1);
    };
    check("media", MAX_MEDIA, &media);
    check("formats", MAX_FORMATS, &formats);
    check("attributes", MAX_ATTRIBUTES, &attributes);
    check("line", MAX_LINE, &line);
    check("whole", MAX_SDP, &whole);
}

/// A value each header may have.
fn value_of(name: HeaderName) -> &'static str {
    use HeaderName as N;
    match name {
        N::Via => "SIP/2.0/TCP h;branch=z9hG4bKa",
        N::From | N::To | N::Contact | N::ReferTo | N::ReferredBy => "<sip:a@h>;tag=1",
        N::Route | N::RecordRoute | N::Path | N::ServiceRoute => "<sip:h;lr>",
        N::CallId => "c",
        N::CSeq => "1 OPTIONS",
        N::ContentType => "text/plain",
        N::ContentLength => "0",
        N::MaxForwards | N::Expires | N::MinExpires | N::RSeq | N::MinSe | N::SessionExpires | N::RetryAfter => "70",
        _ => "x",
    }
}

/// A message whose field of this name is written so, every other one plainly.
fn with_field(name: HeaderName, written: &str) -> String {
    let mut text = String::from("OPTIONS sip:example.com SIP/2.0\r\n");
    let all = [HeaderName::Via, HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq];
    for required in all.into_iter().filter(|required| *required != name) {
        text += &format!("{required}: {}\r\n", value_of(required));
    }
    if name != HeaderName::ContentLength {
        text += "Content-Length: 0\r\n";
    }
    text + written + "\r\n"
}

/// White space before the colon once hid a header from a check and not from the code behind it (CVE-2020-28361).
#[test]
fn white_space_and_folding_around_a_colon_change_no_header() {
    for &name in HeaderName::ALL {
        let value = value_of(name);
        for between in [": ", ":", " : ", "\t:\t", "   :", ":\r\n ", " :\r\n\t  ", ":\r\n \r\n  "] {
            for spelt in [name.as_str().to_owned(), name.as_str().to_uppercase(), name.as_str().to_lowercase()] {
                let text = with_field(name, &format!("{spelt}{between}{value} \t\r\n"));
                let message = datagram(&text).unwrap_or_else(|problem| panic!("{problem} in {text:?}"));
                assert_eq!(message.text(name), Some(value), "{text:?}");
            }
        }
    }
    for (compact, name) in [("i", HeaderName::CallId), ("L ", HeaderName::ContentLength), ("V\t", HeaderName::Via)] {
        let text = with_field(name, &format!("{compact}: {}\r\n", value_of(name)));
        assert_eq!(datagram(&text).expect("read").text(name), Some(value_of(name)));
    }
}

#[test]
fn a_header_that_may_stand_once_is_refused_twice_however_it_is_spelt() {
    for &name in HeaderName::ALL.iter().filter(|name| name.is_single()) {
        let value = value_of(name);
        for second in [name.as_str().to_owned(), name.as_str().to_uppercase() + " \t", name.as_str().to_lowercase()] {
            let text = with_field(name, &format!("{name}: {value}\r\n{second}: {value}\r\n"));
            let error = Message::parse_datagram(&Bytes::from(text)).expect_err("twice");
            assert_eq!((error.problem, error.problem.status()), (Problem::Duplicate(name), 400));
            assert!(error.can_answer(), "{name}");
        }
    }
}

#[test]
fn broken_values_of_required_headers_are_answered_400_and_never_read() {
    use HeaderName as N;
    let cases: &[(HeaderName, &[&str])] = &[
        (
            N::From,
            &[
                "<sip:a@h>;tag=",
                "<sip:a@h>;tag",
                "<sip:a@h>;tag=\"\"",
                "<sip:a@h>;tag=a b",
                "<sip:a@h>;tag=1;tag=2",
                "",
                "<>",
                "sip:",
                "a",
                "<sip:a@h>, <sip:b@h>",
                "\"x",
                "\\",
                "<sip:a@[::g]>",
                "<sip:a@h:99999>",
                "<sip:%@h>",
                "<sip:a@h>;;",
            ],
        ),
        (
            N::To,
            &["<sip:a@h>;tag=", "<sip:a@h>;tag", "<sip:@h>", "<sip:a@>", "<sip:a@h:0>", "<sip:a@h:-1>", "<sip:a@h"],
        ),
        (
            N::CSeq,
            &[
                "",
                "1",
                "OPTIONS",
                "-1 OPTIONS",
                "+1 OPTIONS",
                "1OPTIONS",
                "2147483648 OPTIONS",
                "36893488147419103233 OPTIONS",
                "1 OPTIONS x",
                "0x1 OPTIONS",
                "1.0 OPTIONS",
                "１ OPTIONS",
            ],
        ),
        (N::CallId, &["", "a b", "a@b@c", "a\u{e9}", "a,b;c"]),
        (
            N::Via,
            &[
                "",
                "x",
                "SIP/2.0/UDP",
                "SIP/2.0/UDP ;branch=z9hG4bKa",
                "SIP/2.0/UDP h,",
                ",SIP/2.0/UDP h",
                "SIP/2.0/UDP h;branch=",
                "SIP/2.0/UDP h:",
                "SIP/2.0/UDP h:65536",
                "SIP/2.0/UDP [::1",
                "SIP/2.0/UDP h;branch=a;branch=b",
                "SIP/2.0/UDP h;;",
                "SIP//UDP h",
                "SIP/2.0/UDP h h2",
                "SIP/2.0/UDP \u{e9}",
                "SIP/2.0/UDP h;\"x\"=1",
                "SIP/2.0/UDP h;a=\"b",
            ],
        ),
        (N::MaxForwards, &["", "-1", "256", "1 1", "0x10", "99999999999999999999"]),
        (N::ContentLength, &["", "-1", "+0", "0,0", "0 0", "4294967296", "1"]),
        (N::ContentType, &["", "text", "/", "text/", "a b/c"]),
    ];
    for (name, values) in cases {
        for value in *values {
            let text = with_field(*name, &format!("{name}: {value}\r\n"));
            let error = Message::parse_datagram(&Bytes::from(text)).expect_err(value);
            assert_eq!((error.problem.status(), error.can_answer()), (400, true), "{name}: {value}");
            let answer = error.answer(([192, 0, 2, 1], 5060).into(), "tag").expect("answered");
            assert!(answer.starts_with(b"SIP/2.0 400 "));
        }
    }
}

/// A multipart body is one body to us, whatever stands in it.
#[test]
fn a_multipart_body_is_not_looked_into() {
    let body = "--b\r\nContent-Type: application/sdp\r\nContent-Length: 99999\r\n\r\nv=0\r\n--b\r\n--b\r\n--b--\r\n"
        .repeat(50);
    let text = with("", &body).replace("text/plain", "multipart/mixed;boundary=b");
    let message = datagram(&text).expect("read");
    assert!(message.body().len() == body.len() && !message.has_sdp());
}

/// One thing found in a stream, in words.
fn frames(framer: &mut Framer) -> Vec<String> {
    let mut out = Vec::new();
    loop {
        match framer.next_frame() {
            Ok(None) => return out,
            Ok(Some(Frame::Message(message))) => {
                out.push(format!("{} {} {}", message.method(), message.call_id(), message.body().len()));
            }
            Ok(Some(Frame::Refused(error))) => out.push(format!("refused {}", error.problem)),
            Ok(Some(Frame::Ping)) => out.push("ping".into()),
            Err(error) => {
                out.push(format!("lost {}", error.problem));
                return out;
            }
        }
    }
}

fn in_segments(segments: &[&[u8]]) -> (Vec<String>, bool) {
    let (mut framer, mut seen) = (Framer::new(), Vec::new());
    for segment in segments {
        framer.push(segment);
        seen.extend(frames(&mut framer));
        if seen.last().is_some_and(|last| last.starts_with("lost")) {
            return (seen, false);
        }
    }
    (seen, framer.is_idle())
}

/// The messages of RFC 4475 and some of our own.
fn stream_messages() -> Vec<(String, Vec<u8>)> {
    let folder = format!("{}/tests/torture", env!("CARGO_MANIFEST_DIR"));
    let mut all: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.display().to_string(), std::fs::read(&path).expect("a file")))
        .collect();
    all.sort();
    let own =
        ["\r\n\r\n".to_owned(), with("", ""), with("l : 0\r\n", ""), "\r\n".to_owned() + &with("", "\r\n\r\nSIP/2.0")];
    all.extend(own.into_iter().enumerate().map(|(at, text)| (format!("own {at}"), text.into_bytes())));
    all
}

#[test]
fn a_message_is_the_same_wherever_a_stream_cuts_it() {
    for (name, bytes) in stream_messages() {
        let whole = in_segments(&[&bytes]);
        for cut in 0..bytes.len() {
            let (head, tail) = bytes.split_at(cut);
            assert_eq!(in_segments(&[head, tail]), whole, "{name} cut at {cut}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(in_segments(&single), whole, "{name} byte by byte");
    }
}

/// The second one may be whatever it is, also what ends a stream or leaves it waiting.
#[test]
fn two_messages_glued_together_are_two_messages() {
    let all = stream_messages();
    let leaves_order = |bytes: &[u8]| in_segments(&[bytes]).1;
    let first_ones: Vec<_> = all.iter().filter(|(_, bytes)| leaves_order(bytes)).collect();
    assert!(first_ones.len() > 35, "only {} messages leave a stream in order", first_ones.len());
    assert!(all.len() > first_ones.len() + 5, "only {} of {} do not", all.len() - first_ones.len(), all.len());
    for (first_name, first) in first_ones {
        for (second_name, second) in &all {
            let glued = [first.as_slice(), second].concat();
            let (told, is_idle) = in_segments(&[second]);
            let expected = ([in_segments(&[first]).0, told].concat(), is_idle);
            for cut in [0, first.len() - 1, first.len(), (first.len() + 1).min(glued.len())] {
                let (head, tail) = glued.split_at(cut);
                assert_eq!(in_segments(&[head, tail]), expected, "{first_name} and {second_name} cut at {cut}");
            }
        }
    }
}

/// Each ping takes its own four bytes: a flood of them is read once, not once for each.
#[test]
fn a_flood_of_line_ends_is_so_many_pings() {
    let mut framer = Framer::new();
    framer.push("\r\n".repeat(32 * 1024).as_bytes());
    assert_eq!(frames(&mut framer).len(), 16 * 1024);
    assert!(framer.is_idle());
}
