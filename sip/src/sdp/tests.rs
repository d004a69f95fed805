//! Descriptions of real phones, refused ones, and what passes to the other leg.

use super::*;
use std::net::{Ipv4Addr, SocketAddr};

const OURS: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

const PHONE: &str = "v=0
o=alice+447700900123 1700000000 1700000001 IN IP4 10.9.8.7
s=Alice's phone
i=about alice
u=http://alice.example
e=alice@example.org
p=+44 7700 900123
c=IN IP4 10.9.8.7
b=AS:100
t=0 0
a=tool:phone 1.2
a=ice-lite
a=sendrecv
a=group:BUNDLE 0
m=audio 40000 RTP/AVP 0 101
i=alice's microphone
b=AS:64
a=rtpmap:0 PCMU/8000
a=rtpmap:101 telephone-event/8000
a=rtpmap:99 alice/8000
a=fmtp:101 0-15
a=label:alice
a=mid:0
a=ssrc:1 cname:alice@10.9.8.7
a=ptime:20
a=ptime:alice
a=sendonly
a=rtcp:40001 IN IP4 10.9.8.7
a=rtcp-mux
a=rtcp:40001 IN IP4 alices-laptop.home
a=rtcp:40001 IN IP4 192.168.1.77
a=rtcp:40001 IN IP4 192.0.2.1
a=rtcp:alice
a=ice-ufrag:abcd
a=ice-ufrag:alice@home
a=ice-pwd:aliceslaptop
a=ice-pwd:alices/laptop+0123456789
a=ice-options:trickle alices-laptop ice2
a=ice-options:alices-laptop
a=setup:actpass
a=setup:alice
a=fingerprint:sha-256 AB:cd:01
a=fingerprint:sha-256 alice
a=fingerprint:alice AB:CD
a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:a+b/c=|2^20|1:4;inline:d KDR=1
a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:a user=alice
a=crypto:1 AES_CM_128_HMAC_SHA1_80 alice
a=crypto:alice AES_CM_128_HMAC_SHA1_80 inline:a
a=rtpmap:101 alice's phone/8000
a=rtpmap:101 telephone-event/alice
a=rtpmap:0 L16/8000/2
a=rtpmap:0 L16/8000/2/alice
a=fmtp:101 álice
a=candidate:1 1 UDP 1 alices-laptop.local 40000 typ host
a=candidate:1 1 UDP 1 192.168.1.77 40000 typ host
a=candidate:1 1 UDP 1 169.254.3.4 40000 typ host
a=candidate:1 1 UDP 1 172.16.0.9 40000 typ host
a=candidate:1 1 UDP 1 100.64.0.9 40000 typ host
a=candidate:1 1 UDP 1 127.0.0.1 40000 typ host
a=candidate:1 1 UDP 1 fd00::77 40000 typ host
a=candidate:1 1 UDP 1 fe80::77 40000 typ host
a=candidate:1 1 UDP 1 ::ffff:10.1.1.1 40000 typ host
a=candidate:1 1 UDP 1 198.51.100.9 40000 typ alice
a=candidate:1 alice UDP 1 198.51.100.9 40000 typ host
a=candidate:1 1 UDP alice 198.51.100.9 40000 typ host
a=candidate:1 1 TCP 1 2001:db8::9 9 typ host tcptype active
a=candidate:1 1 TCP 1 2001:db8::9 9 typ host tcptype alice
a=candidate:1 1 UDP 2130706431 10.9.8.7 40000 typ srflx raddr 192.168.1.77 rport 5555 generation 0 ufrag alice
a=candidate:broken
a=x-alice:1
m=image 40002 udptl t38
a=T38FaxVersion:0
m=video 0 RTP/AVP 31
";

fn rewritten(text: &str, placement: Placement) -> String {
    let description = Description::parse(text.as_bytes()).expect("well-formed");
    description.rewrite(Origin { id: 42, version: 3 }, OURS, Keys::Pass, |_, _| placement)
}

#[test]
fn only_what_is_listed_passes_to_the_other_leg() {
    let expected = "v=0
o=- 42 3 IN IP4 203.0.113.7
s=-
t=0 0
a=ice-lite
a=sendrecv
m=audio 40000 RTP/AVP 0 101
c=IN IP4 10.9.8.7
a=rtpmap:0 PCMU/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-15
a=ptime:20
a=sendonly
a=rtcp:40001 IN IP4 10.9.8.7
a=rtcp-mux
a=rtcp:40001
a=rtcp:40001
a=rtcp:40001 IN IP4 192.0.2.1
a=ice-ufrag:abcd
a=ice-pwd:alices/laptop+0123456789
a=ice-options:trickle ice2
a=setup:actpass
a=fingerprint:sha-256 AB:cd:01
a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:a+b/c=|2^20|1:4;inline:d KDR=1
a=rtpmap:0 L16/8000/2
a=candidate:1 1 TCP 1 2001:db8::9 9 typ host tcptype active
a=candidate:1 1 UDP 2130706431 10.9.8.7 40000 typ srflx raddr 0.0.0.0 rport 9
m=image 0 udptl t38
c=IN IP4 203.0.113.7
m=video 0 RTP/AVP 31
c=IN IP4 203.0.113.7
";
    assert_eq!(rewritten(PHONE, Placement::AsGiven).replace("\r\n", "\n"), expected);
    // In clear the key, too, stays behind.
    let description = Description::parse(PHONE.as_bytes()).expect("well-formed");
    let in_clear = description.rewrite(Origin { id: 42, version: 3 }, OURS, Keys::Withheld, |_, _| Placement::AsGiven);
    let without: String = expected.split_inclusive('\n').filter(|line| !line.starts_with("a=crypto")).collect();
    assert_eq!(in_clear.replace("\r\n", "\n"), without);
}

/// RFC 8839 §5.1. pjsip's is its host's private address in hexadecimal.
#[test]
fn foundations_are_our_own_and_equal_where_theirs_are() {
    let candidates = "a=candidate:Hc0a8014d 1 UDP 1 192.0.2.1 9 typ host
a=candidate:broken
a=candidate:Xdropped 1 UDP 1 192.0.2.3 9 typ host tcptype none
a=candidate:Sc0a8014d 1 UDP 1 192.0.2.2 9 typ srflx raddr 192.168.1.77 rport 9
a=candidate:Hc0a8014d 2 UDP 1 192.0.2.1 10 typ host
";
    let text = format!(
        "v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\nc=IN IP4 192.0.2.1\nt=0 0\nm=audio 9 RTP/AVP 0\n{candidates}m=video 9 RTP/AVP 31\na=candidate:Sc0a8014d 1 UDP 1 192.0.2.2 11 typ srflx\n"
    );
    let written = rewritten(&text, Placement::AsGiven);
    let foundations: Vec<_> =
        written.lines().filter_map(|line| line.strip_prefix("a=candidate:")?.split(' ').next()).collect();
    assert_eq!(foundations, ["1", "2", "1", "2"], "{written}");
    assert!(!written.contains("c0a8014d"));
}

#[test]
fn streams_of_which_none_passes_are_told_from_streams_that_are_off() {
    let passes = |media: &str| {
        let text = format!("v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\nc=IN IP4 192.0.2.1\nt=0 0\n{media}");
        !Description::parse(text.as_bytes()).expect("well-formed").passes_nothing(Keys::Pass)
    };
    assert!(passes("") && passes("m=audio 0 RTP/AVP 0\n") && passes("m=audio 9 RTP/AVP 0\nm=image 9 udptl t38\n"));
    assert!(!passes("m=image 9 udptl t38\n") && !passes("m=audio 0 RTP/AVP 0\nm=image 9 udptl t38\n"));
}

/// RFC 3264 §6, RFC 4568 §5.1.2, RFC 5763 §5.
#[test]
fn an_offer_of_ours_becomes_the_answer_to_an_offer_that_changes_nothing() {
    let keys = "a=crypto:1 S1 inline:x\na=crypto:2 S2 inline:y\n";
    let cases = [
        ("m=audio 9 RTP/AVP 0\n", "m=audio 0 RTP/AVP 0\n", "m=audio 0 RTP/AVP 0\n"),
        ("m=audio 9 RTP/AVP 0\n", "m=audio 8 RTP/AVP 0\n", "m=audio 9 RTP/AVP 0\n"),
        ("m=audio 9 RTP/AVP 0\n", "a=inactive\nm=audio 8 RTP/AVP 0\n", "m=audio 9 RTP/AVP 0\na=inactive\n"),
        ("m=audio 9 RTP/AVP 0\n", "m=audio 8 RTP/AVP 0\na=recvonly\n", "m=audio 9 RTP/AVP 0\na=sendonly\n"),
        ("a=sendonly\nm=audio 9 RTP/AVP 0\n", "m=audio 8 RTP/AVP 0\na=recvonly\n", "a=sendonly\nm=audio 9 RTP/AVP 0\n"),
        ("m=audio 9 RTP/AVP 0\na=sendonly\n", "m=audio 8 RTP/AVP 0\na=sendonly\n", "m=audio 9 RTP/AVP 0\na=inactive\n"),
        ("KEYS", "m=audio 8 RTP/SAVP 0\na=crypto:2 S2 inline:z\n", "m=audio 9 RTP/SAVP 0\na=crypto:2 S2 inline:y\n"),
        ("KEYS", "m=audio 8 RTP/SAVP 0\na=crypto:3 S2 inline:z\n", "KEYS"),
        (
            "a=setup:actpass\nm=audio 9 RTP/AVP 0\na=setup:actpass\n",
            "m=audio 8 RTP/AVP 0\na=setup:active\n",
            "a=setup:passive\nm=audio 9 RTP/AVP 0\na=setup:passive\n",
        ),
        (
            "m=audio 9 RTP/AVP 0\na=setup:actpass\n",
            "a=setup:passive\nm=audio 8 RTP/AVP 0\n",
            "m=audio 9 RTP/AVP 0\na=setup:active\n",
        ),
        (
            "m=audio 9 RTP/AVP 0\na=setup:active\n",
            "m=audio 8 RTP/AVP 0\na=setup:actpass\n",
            "m=audio 9 RTP/AVP 0\na=setup:active\n",
        ),
        ("m=audio 9 RTP/AVP 0\na=setup:actpass\n", "m=audio 8 RTP/AVP 0\n", "m=audio 9 RTP/AVP 0\na=setup:actpass\n"),
    ];
    for (ours, theirs, expected) in cases {
        let whole = |rest: &str| {
            let rest = rest.replace("KEYS", &format!("m=audio 9 RTP/SAVP 0\n{keys}"));
            format!("v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\nc=IN IP4 192.0.2.1\nt=0 0\n{rest}")
        };
        let (ours, theirs, expected) = (whole(ours), whole(theirs), whole(expected));
        let parse = |text| Description::parse(text).expect("well-formed");
        let mut answer = parse(ours.as_bytes());
        answer.answer(&parse(theirs.as_bytes()));
        assert!(answer == parse(expected.as_bytes()), "{ours}\n{theirs}\n{expected}");
    }
}

#[test]
fn nothing_of_the_other_side_remains_when_media_are_anchored() {
    let relay: SocketAddr = "203.0.113.7:30000".parse().expect("an address");
    let text = rewritten(PHONE, Placement::Anchored(relay));
    for secret in ["alice", "10.9.8.7", "192.168", "4000", "900123", "ice", "rtcp"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert!(text.contains("m=audio 30000 RTP/AVP 0 101\r\nc=IN IP4 203.0.113.7\r\n"));
    assert!(text.contains("a=rtpmap:101 telephone-event/8000\r\n") && text.contains("a=sendonly\r\n"));
    assert!(!text.contains("sendrecv"), "the medium's own direction goes before the session's");
}

#[test]
fn each_session_has_an_origin_of_its_own() {
    let mut entropy = Entropy::from_number(3);
    let texts: Vec<_> = (0..2).map(|_| rewrite(PHONE.as_bytes(), &mut entropy, OURS).expect("well-formed")).collect();
    assert_ne!(texts[0], texts[1]);
    let origin = Origin::fresh(&mut entropy);
    assert_eq!((origin.version, origin.next().version, origin.next().id), (1, 2, origin.id));
}

#[test]
fn the_address_of_a_medium_is_its_own_or_the_sessions() {
    let six = "v=0\no=- 1 1 IN IP6 ::1\ns=-\nc=IN IP4 1.2.3.4\nt=0 0\nr=1 2 3\nt=1 2\nm=audio 9 RTP/SAVP 0\nc=IN IP6 2001:db8::1\nm=audio 9 RTP/AVP 0";
    let description = Description::parse(six.as_bytes()).expect("well-formed");
    let addresses: Vec<_> =
        description.media.iter().map(|m| description.address_of(m).map(|a| a.to_string())).collect();
    assert_eq!(addresses, [Some("2001:db8::1".to_owned()), Some("1.2.3.4".to_owned())]);
    assert!(description.has_audio());
    let audio = audio(Origin { id: 1, version: 1 }, "[::1]:4000".parse().expect("an address"));
    assert!(Description::parse(audio.as_bytes()).expect("our own").has_audio());
}

#[test]
fn broken_descriptions_are_refused_by_name() {
    let base = "v=0\no=- 1 1 IN IP4 1.2.3.4\ns=-\nc=IN IP4 1.2.3.4\nt=0 0\nm=audio 9 RTP/AVP 0\n";
    assert!(Description::parse(base.as_bytes()).is_ok());
    let value = |line, kind| SdpError::Value { line, kind };
    let order = |line, kind| SdpError::Order { line, kind };
    let cases = [
        ("".to_owned(), SdpError::Line { line: 1 }),
        ("v=0\n".to_owned(), SdpError::Missing { kind: 'o' }),
        (base.replace("v=0", "v=1"), value(1, 'v')),
        (base.replace("v=0\n", ""), SdpError::Missing { kind: 'v' }),
        (base.replace("s=-\n", ""), SdpError::Missing { kind: 's' }),
        (base.replace("s=-", "s="), value(3, 's')),
        (base.replace("s=-", "s=-\ns=-"), order(4, 's')),
        (base.replace("o=- 1 1 IN", "o=- x 1 IN"), value(2, 'o')),
        (base.replace("1 1 IN IP4 1.2.3.4", "1 1 IN IP4"), value(2, 'o')),
        (base.replace("c=IN IP4 1.2.3.4", "c=IN IP4 1.2.3"), value(4, 'c')),
        (base.replace("c=IN IP4 1.2.3.4", "c=IN IP4 224.2.36.42/127"), value(4, 'c')),
        (base.replace("c=IN IP4 1.2.3.4", "c=IN IP6 1.2.3.4"), value(4, 'c')),
        (base.replace("c=IN IP4 1.2.3.4\n", ""), SdpError::Missing { kind: 'c' }),
        (base.replace("t=0 0", "t=0"), value(5, 't')),
        (base.replace("m=audio 9", "m=audio 70000"), value(6, 'm')),
        (base.replace("m=audio 9", "m=audio -9"), value(6, 'm')),
        (base.replace("m=audio 9", "m=audio +9"), value(6, 'm')),
        (base.replace("RTP/AVP 0", "RTP/AVP"), value(6, 'm')),
        (base.replace("s=-", "s=\u{1}"), SdpError::IllegalCharacter),
        (base.replace("s=-", "s -"), SdpError::Line { line: 3 }),
        (base.replace("s=-", "S=-"), SdpError::Line { line: 3 }),
        (base.replace("t=0 0", "t=0 0\nx=1"), order(6, 'x')),
        (format!("{base}a=:x\n"), value(7, 'a')),
        (format!("{base}t=0 0\n"), order(7, 't')),
        (format!("{base}a=x\nc=IN IP4 1.1.1.1\n"), order(8, 'c')),
        (format!("{base}a={}\n", "x".repeat(MAX_LINE)), SdpError::Line { line: 7 }),
        (format!("{base}{}", "a=x\n".repeat(MAX_ATTRIBUTES + 1)), SdpError::TooMany { what: "attributes" }),
        (format!("{base}{}", "m=audio 9 RTP/AVP 0\n".repeat(MAX_MEDIA)), SdpError::TooMany { what: "media" }),
        (base.replace("AVP 0", &format!("AVP{}", " 0".repeat(MAX_FORMATS + 1))), SdpError::TooMany { what: "formats" }),
        ("v=0\n".repeat(MAX_SDP), SdpError::TooLarge),
    ];
    for (text, expected) in cases {
        assert_eq!(Description::parse(text.as_bytes()).err(), Some(expected), "{:.200}", text);
    }
    assert_eq!(Description::parse(b"v=0\n\xff").err(), Some(SdpError::IllegalCharacter));
}

proptest::proptest! {
    #[test]
    fn what_is_written_is_read_and_written_the_same(lines in proptest::collection::vec("(rtpmap|fmtp|candidate|rtcp|label|ssrc|sendrecv|ptime|x)(:[ -~]{0,40})?", 0..10), port in 0_u16.., anchored in proptest::bool::ANY) {
        let attributes: String = lines.iter().map(|line| format!("a={line}\r\n")).collect();
        let text = format!("v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\ns=-\r\nc=IN IP4 1.2.3.4\r\nt=0 0\r\n{attributes}m=audio {port} RTP/AVP 0 8\r\n{attributes}");
        let placement = if anchored { Placement::Anchored("203.0.113.7:9".parse().unwrap()) } else { Placement::AsGiven };
        let once = rewritten(&text, placement);
        proptest::prop_assert_eq!(&rewritten(&once, placement), &once);
        proptest::prop_assert!(!once.contains("label") && !once.contains("ssrc"));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), text in "([vosctma]=[ -~]{0,20}\n){0,12}") {
        let _ = Description::parse(&bytes);
        if let Ok(description) = Description::parse(text.as_bytes()) {
            let _ = description.rewrite(Origin { id: 1, version: 1 }, OURS, Keys::Pass, |_, _| Placement::AsGiven);
        }
    }
}
