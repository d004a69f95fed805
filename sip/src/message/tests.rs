//! Messages read, refused, written and read back.

use super::*;
use std::net::SocketAddr;

fn datagram(text: &str) -> Result<Message, ParseError> {
    Message::parse_datagram(&Bytes::copy_from_slice(text.as_bytes()))
}

fn crlf(text: &str) -> String {
    text.replace('\n', "\r\n")
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

/// RFC 4475 §3.1.1.1.
const TORTUOUS: &str = "INVITE sip:vivekg@chair-dnrc.example.com;unknownparam SIP/2.0
TO :
 sip:vivekg@chair-dnrc.example.com ;   tag    = 1918181833n
from   : \"J Rosenberg \\\\\\\"\"       <sip:jdrosen@example.com>
  ;
  tag = 98asjd8
MaX-fOrWaRdS: 0068
Call-ID: wsinv.ndaksdj@192.0.2.1
Content-Length   : 150
cseq: 0009
  INVITE
Via  : SIP  /   2.0
 /UDP
    192.0.2.2;branch=390skdjuw
s :
NewFangledHeader:   newfangled value
 continued newfangled value
UnknownHeaderWithUnusualValue: ;;,,;;,;
Content-Type: application/sdp
Route:
 <sip:services.example.com;lr;unknownwith=value;unknown-no-value>
v:  SIP  / 2.0  / TCP     spindle.example.com   ;
  branch  =   z9hG4bK9ikj8  ,
 SIP  /    2.0   / UDP  192.168.255.111   ; branch=
 z9hG4bK30239
m:\"Quoted string \\\"\\\"\" <sip:jdrosen@example.com> ; newparam =
      newvalue ;
  secondparam ; q = 0.33

v=0
o=mhandley 29739 7272939 IN IP4 192.0.2.3
s=-
c=IN IP4 192.0.2.4
t=0 0
m=audio 49217 RTP/AVP 0 12
m=video 3227 RTP/AVP 31
a=rtpmap:31 LPC
";

/// RFC 4475 §3.1.1.2, control characters in quoted pairs included.
const WIDE: &str = "!interesting-Method0123456789_*+`.%indeed'~ sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com SIP/2.0
Via: SIP/2.0/TCP host1.example.com;branch=z9hG4bK-.!%66*_+`'~
To: \"BEL:\\\u{7} NUL:\\\u{0} DEL:\\\u{7f}\" <sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*@example.com>
From: token1~` token2'+_ token3*%!.- <sip:mundane@example.com>;fromParam''~+*_!.-%=\"\u{440}\u{430}\u{431}\u{43e}\u{442}\u{430}\u{44e}\u{449}\u{438}\u{439}\";tag=_token~1'+`*%!-.
Call-ID: intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{
CSeq: 139122385 !interesting-Method0123456789_*+`.%indeed'~
Max-Forwards: 255
extensionHeader-!.%*+_`'~:\u{feff}\u{5927}\u{505c}\u{96fb}
Content-Length: 0

";

#[test]
fn a_plain_request_is_read_into_its_parts() {
    let message = read(INVITE).with_source(source());
    assert!(message.is_request() && !message.is_ack());
    assert_eq!((message.method(), message.status()), (&Method::Invite, None));
    assert_eq!(message.request_uri().map(Uri::as_str), Some("sip:bob@biloxi.example"));
    assert_eq!((message.from_tag(), message.to_tag()), (Some("1928301774"), None));
    assert_eq!(message.call_id(), "a84b4c76e66710@pc33.atlanta.example");
    assert_eq!(message.cseq(), (314_159, &Method::Invite));
    assert_eq!((message.branch(), message.sent_by()), (Some("z9hG4bK776"), ("pc33.atlanta.example", None)));
    assert_eq!((message.top_via().received(), message.top_via().rport()), (Some(source().ip()), Some(Some(4321))));
    assert_eq!((message.max_forwards(), message.expires()), (Some(70), None));
    assert_eq!(message.contacts().len(), 1);
    assert!(message.has_sdp());
    assert_eq!(&message.body()[..], b"v=0\r");
}

#[test]
fn the_tortuous_invite_of_rfc_4475_is_read() {
    let message = read(TORTUOUS);
    assert_eq!((message.to_tag(), message.from_tag()), (Some("1918181833n"), Some("98asjd8")));
    assert_eq!(message.from().display.as_deref(), Some("J Rosenberg \\\""));
    assert_eq!((message.max_forwards(), message.cseq().0), (Some(68), 9));
    let branches: Vec<_> = message.vias().iter().map(|via| via.branch().map(str::to_owned)).collect();
    assert_eq!(branches, ["390skdjuw", "z9hG4bK9ikj8", "z9hG4bK30239"].map(|b| Some(b.to_owned())));
    assert_eq!(message.routes()[0].uri.param("lr"), Some(""));
    assert_eq!(message.contacts()[0].params.value("q"), Some("0.33"));
    assert_eq!(message.body().len(), 150);
}

#[test]
fn the_wide_range_of_characters_of_rfc_4475_is_read() {
    let message = read(WIDE);
    assert!(matches!(message.method(), Method::Other(token) if token.starts_with('!')));
    assert_eq!(message.to().display.as_deref(), Some("BEL: NUL: DEL:"));
    assert_eq!(message.from_tag(), Some("_token~1'+`*%!-."));
    let answer = ResponseBuilder::to_request(&message, 405, Some("x")).build().expect("answerable");
    assert_eq!(Message::parse_datagram(&answer).expect("readable").call_id(), message.call_id());
}

#[test]
fn valid_oddities_of_rfc_4475_are_read() {
    let escaped = "INVITE sip:sips%3Auser%40example.com@example.net SIP/2.0
To: sip:%75se%72@example.com
From: <sip:I%20have%20spaces@example.net>;tag=938
Max-Forwards: 87
i: esc01.239409asdfakjkn23onasd0-3234
CSeq: 234234 INVITE
Via: SIP/2.0/UDP host5.example.net;branch=z9hG4bKkdjuw
C: application/sdp
Contact: <sip:cal%6Cer@host5.example.net;%6C%72;n%61me=v%61lue%25%34%31>
Content-Length: 0

";
    assert_eq!(read(escaped).to().uri.user_decoded().as_deref(), Some("user"));
    let nulls = "REGISTER sip:example.com SIP/2.0
To: sip:null-%00-null@example.com
From: sip:null-%00-null@example.com;tag=839923423
Max-Forwards: 70
Call-ID: escnull.39203ndfvkjdasfkq3w4otrq0adsfdfnavd
CSeq: 14398234 REGISTER
Via: SIP/2.0/UDP host5.example.com;branch=z9hG4bKkdjuw
Contact: <sip:%00@host5.example.com>
Contact: <sip:%00%00@host5.example.com>
L:0

";
    assert_eq!(read(nulls).contacts().len(), 2);
    let no_reason = "SIP/2.0 100 \nVia: SIP/2.0/UDP 192.0.2.105;branch=z9hG4bK2398ndaoe\nCall-ID: noreason.asndj203insdf99223ndf\nCSeq: 35 INVITE\nFrom: <sip:user@example.com>;tag=39ansfi3\nTo: <sip:user@example.edu>;tag=902jndnke3\nContent-Length: 0\nContact: <sip:user@host105.example.com>\n\n";
    assert_eq!(read(no_reason).status(), Some(100));
    let percent = "RE%47IST%45R sip:registrar.example.com SIP/2.0
To: \"%Z%45\" <sip:resource@example.com>
From: \"%Z%45\" <sip:resource@example.com>;tag=f232jadfj23
Call-ID: esc02.asdfnqwo34rq23i34jrjasdcnl23nrlknsdf
Via: SIP/2.0/TCP host.example.com;branch=z9hG4bK209%fzsnel234
CSeq: 29344 RE%47IST%45R
Max-Forwards: 70
Contact: <sip:alias1@host1.example.com>
C%6Fntact: <sip:alias2@host2.example.com>
Contact: <sip:alias3@host3.example.com>
l: 0

";
    assert_eq!(read(percent).contacts().len(), 2);
}

#[test]
fn the_body_ends_where_content_length_says() {
    let spaced = read(&INVITE.replace("Content-Length: 4", "Content-Length  : 3"));
    assert_eq!(&spaced.body()[..], b"v=0");
    let compact = read(&INVITE.replace("Content-Length: 4", "l:2"));
    assert_eq!(&compact.body()[..], b"v=");
    let missing = read(&INVITE.replace("Content-Length: 4\n", ""));
    assert_eq!(&missing.body()[..], b"v=0\r\n");
    let cases = [
        ("Content-Length: 99", Problem::ContentLength),
        ("Content-Length: -1", Problem::Malformed(HeaderName::ContentLength)),
        ("Content-Length: +4", Problem::Malformed(HeaderName::ContentLength)),
        ("Content-Length: 4, 4", Problem::Malformed(HeaderName::ContentLength)),
        ("Content-Length: 0x4", Problem::Malformed(HeaderName::ContentLength)),
        ("Content-Length:", Problem::Malformed(HeaderName::ContentLength)),
        ("Content-Length: 99999999999999999999", Problem::Malformed(HeaderName::ContentLength)),
        ("Content-Length: 4\nContent-Length: 4", Problem::Duplicate(HeaderName::ContentLength)),
        ("Content-Length: 4\nl : 0", Problem::Duplicate(HeaderName::ContentLength)),
    ];
    for (line, expected) in cases {
        let text = crlf(&INVITE.replace("Content-Length: 4", line));
        let error = datagram(&text).expect_err(line);
        assert_eq!((error.problem, error.can_answer()), (expected, true), "{line}");
        let answer = error.answer(source(), "t").expect("a request is answered");
        assert!(answer.starts_with(b"SIP/2.0 400 Bad Request\r\n"));
    }
}

#[test]
fn each_broken_rule_has_its_name_and_is_answered_where_allowed() {
    use HeaderName as N;
    let cases = [
        (INVITE.replace("CSeq: 314159 INVITE\n", ""), Problem::Missing(N::CSeq), false),
        (INVITE.replace("To: Bob <sip:bob@biloxi.example>\n", ""), Problem::Missing(N::To), false),
        (INVITE.replace("Contact: <sip:alice@pc33.atlanta.example>\n", ""), Problem::Missing(N::Contact), true),
        (INVITE.replace("Content-Type: application/sdp\n", ""), Problem::Missing(N::ContentType), true),
        (INVITE.replace("314159 INVITE", "314159 BYE"), Problem::MethodMismatch, true),
        (INVITE.replace("314159", "2147483648"), Problem::Malformed(N::CSeq), true),
        (INVITE.replace("314159", "36893488147419103232"), Problem::Malformed(N::CSeq), true),
        (INVITE.replace("Bob <", "Bob, x <"), Problem::Malformed(N::To), true),
        (INVITE.replace("tag=1928301774", "tag="), Problem::Malformed(N::From), true),
        (INVITE.replace("a84b4c76e66710@", "a84b@4c@"), Problem::Malformed(N::CallId), true),
        (INVITE.replace("sip:bob@biloxi.example SIP", "<sip:bob@biloxi.example> SIP"), Problem::RequestUri, true),
        (INVITE.replace("sip:bob@biloxi.example SIP", "sip:bob@biloxi.example; lr SIP"), Problem::RequestUri, true),
        (INVITE.replace("sip:bob@biloxi.example SIP", "sip:bob@biloxi.example?Route=x SIP"), Problem::RequestUri, true),
        (INVITE.replace("INVITE sip", "INVITE  sip"), Problem::RequestUri, true),
        (INVITE.replace("SIP/2.0\nVia", "SIP/7.0\nVia"), Problem::Version, true),
        (INVITE.replace("SIP/2.0\nVia", "HTTP/1.1\nVia"), Problem::StartLine, true),
        (INVITE.replace("SIP/2.0\nVia", "SIP/2.0 \nVia"), Problem::StartLine, true),
        (invite_with("To: <sip:x@y>\n"), Problem::Duplicate(N::To), true),
        (invite_with("t : <sip:x@y>\n"), Problem::Duplicate(N::To), true),
        (invite_with("Max-Forwards: 1\nMax-Forwards: 2\n"), Problem::Duplicate(N::MaxForwards), true),
        (invite_with("Max-Forwards: 256\n"), Problem::Malformed(N::MaxForwards), true),
        (invite_with("Expires: 4294967296\n"), Problem::Malformed(N::Expires), true),
        (invite_with("Require: 100rel, ,x\n"), Problem::Malformed(N::Require), true),
        (invite_with("Route: sip:a@b\n"), Problem::Malformed(N::Route), true),
        (invite_with("no colon\n"), Problem::HeaderLine, true),
        (invite_with(": empty name\n"), Problem::HeaderLine, true),
        (invite_with("Contact: *\n"), Problem::Malformed(N::Contact), true),
        (invite_with(&format!("X: {}\n", "a".repeat(limits::MAX_HEADER_LINE))), Problem::HeaderLineTooLong, true),
        (invite_with(&"X: y\n".repeat(limits::MAX_HEADERS)), Problem::TooManyHeaders, false),
        (invite_with(&"Via: SIP/2.0/UDP h\n".repeat(limits::MAX_VIAS)), Problem::TooMany(N::Via), true),
        (invite_with(&"Route: <sip:h;lr>\n".repeat(limits::MAX_ROUTES + 1)), Problem::TooMany(N::Route), true),
        (
            INVITE.replace("bob@biloxi.example SIP", &format!("{}@h SIP", "b".repeat(5_000))),
            Problem::StartLineTooLong,
            true,
        ),
    ];
    for (text, expected, answered) in cases {
        let error = datagram(&crlf(&text)).expect_err("must be refused");
        assert_eq!((error.problem, error.can_answer()), (expected, answered), "{}", &text[..text.len().min(400)]);
        if let Some(answer) = error.answer(source(), "tag1") {
            let head = format!("SIP/2.0 {} ", expected.status());
            assert!(answer.starts_with(head.as_bytes()));
            assert!(String::from_utf8_lossy(&answer).contains("received=192.0.2.9"));
        }
    }
}

#[test]
fn bytes_that_are_no_message_are_dropped_silently() {
    let ack = crlf(&INVITE.replace("INVITE", "ACK").replace("To: Bob <sip:bob@biloxi.example>", "To: Bob <"));
    let cases: [(&[u8], Problem); 11] = [
        (b"", Problem::Empty),
        (b"\r\n\r\n", Problem::Empty),
        (b"\0\0\0\0", Problem::Truncated),
        (b"INVITE sip:a@b SIP/2.0\r\nVia: x\r\n", Problem::Truncated),
        (b"INVITE sip:a@b SIP/2.0\nVia: x\n\n", Problem::Truncated),
        (b"INVITE sip:a@b SIP/2.0\r\nVia: x\nTo: y\r\n\r\n", Problem::LineEnding),
        (b"INVITE sip:a@b SIP/2.0\r\nVia: x\rTo: y\r\n\r\n", Problem::LineEnding),
        (b"INVITE sip:a@b SIP/2.0\r\nVia: x\0y\r\n\r\n", Problem::IllegalCharacter),
        (b"INVITE sip:a@b SIP/2.0\r\nVia: \xff\r\n\r\n", Problem::IllegalCharacter),
        (b"SIP/2.0 4294967301 better not break\r\nVia: x\r\n\r\n", Problem::StartLine),
        (ack.as_bytes(), Problem::Malformed(HeaderName::To)),
    ];
    for (bytes, expected) in cases {
        let error = Message::parse_datagram(&Bytes::copy_from_slice(bytes)).expect_err("must be refused");
        assert_eq!((error.problem, error.can_answer()), (expected, false), "{}", String::from_utf8_lossy(bytes));
    }
    let response = "SIP/2.0 200 OK\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\nTo: <sip:a@b>\nFrom: <sip:a@b>\nCall-ID: a\nCSeq: x INVITE\n\n";
    assert!(!datagram(&crlf(response)).expect_err("bad CSeq").can_answer());
    assert_eq!(
        problem(&INVITE.replace("Via: SIP/2.0/UDP pc33", "Via: SIP/2.0 pc33")),
        Problem::Malformed(HeaderName::Via)
    );
}

#[test]
fn a_response_copies_what_belongs_to_the_request() {
    let text = invite_with(
        "Via: SIP/2.0/UDP p1;branch=z9hG4bKb, SIP/2.0/UDP p2;branch=z9hG4bKc\nTimestamp: 54\nRecord-Route: <sip:p2;lr>, <sip:p1;lr>\n",
    );
    let request = read(&text).with_source(source());
    let contact = NameAddr::new(Uri::sip(Some("x"), "example.com", None).expect("a URI"));
    let built = ResponseBuilder::to_request(&request, 200, Some("abc"))
        .record_route()
        .contact(&contact)
        .build()
        .expect("built");
    let response = Message::parse_datagram(&built).expect("readable");
    assert_eq!(
        (response.status(), response.to_tag(), response.from_tag()),
        (Some(200), Some("abc"), Some("1928301774"))
    );
    assert_eq!((response.call_id(), response.cseq()), (request.call_id(), request.cseq()));
    assert_eq!(response.vias(), request.vias());
    assert_eq!(response.record_routes(), request.record_routes());
    assert!(response.text(HeaderName::Timestamp).is_none());
    let trying = ResponseBuilder::to_request(&request, 100, None).build().expect("built");
    let trying = Message::parse_datagram(&trying).expect("readable");
    assert_eq!((trying.to_tag(), trying.text(HeaderName::Timestamp)), (None, Some("54")));
    assert!(trying.record_routes().is_empty());
}

#[test]
fn an_ack_and_a_cancel_share_the_hop_of_their_invite() {
    let invite = read(&invite_with("Route: <sip:p1;lr>\nMax-Forwards: 70\n"));
    let busy = ResponseBuilder::to_request(&invite, 486, Some("b")).build().expect("built");
    let busy = Message::parse_datagram(&busy).expect("readable");
    let ack = Message::parse_datagram(&RequestBuilder::ack_of_failure(&invite, &busy).build().expect("built"))
        .expect("readable");
    let cancel = Message::parse_datagram(&RequestBuilder::cancel(&invite).build().expect("built")).expect("readable");
    assert_eq!((ack.to_tag(), cancel.to_tag()), (Some("b"), None));
    for (message, method) in [(ack, Method::Ack), (cancel, Method::Cancel)] {
        assert_eq!(message.cseq(), (314_159, &method));
        assert_eq!(message.vias(), vec![invite.top_via()]);
        assert_eq!((message.request_uri(), message.call_id()), (invite.request_uri(), invite.call_id()));
        assert_eq!(message.routes(), invite.routes());
    }
}

fn complete_request() -> RequestBuilder {
    let uri = Uri::sip(Some("+447700900123"), "example.com", Some(5070)).expect("a URI");
    let via = Via::new(Transport::Udp, "192.0.2.1", Some(5060), "z9hG4bKabc").expect("a Via");
    let from = NameAddr::new(Uri::sip(Some("a"), "example.org", None).expect("a URI")).with_tag("1").expect("a tag");
    let to = NameAddr::new(uri.clone());
    RequestBuilder::new(Method::Invite, uri).via(&via).from(&from).to(&to).call_id("abc").cseq(7).contact(&from)
}

#[test]
fn no_value_can_add_a_line_to_what_we_write() {
    for value in ["x\r\nEvil: y", "x\ny", "x\ry", "\0", ""] {
        let built = complete_request().header(HeaderName::Subject, &value).build();
        assert_eq!(built, Err(BuildError::Illegal(HeaderName::Subject)), "{value:?}");
    }
    assert_eq!(
        complete_request().header(HeaderName::Via, &"SIP/2.0/UDP h").build(),
        Err(BuildError::Illegal(HeaderName::Via))
    );
    assert_eq!(complete_request().header(HeaderName::Other, &"x").build(), Err(BuildError::Illegal(HeaderName::Other)));
    assert_eq!(complete_request().call_id("a\r\nb").build(), Err(BuildError::Illegal(HeaderName::CallId)));
    assert_eq!(complete_request().cseq(1 << 31).build(), Err(BuildError::Illegal(HeaderName::CSeq)));
    let large = Bytes::from(vec![b'x'; limits::MAX_STREAM_MESSAGE]);
    assert_eq!(complete_request().body("text/plain", large).build(), Err(BuildError::TooLarge));
    let bare = RequestBuilder::new(Method::Bye, Uri::sip(None, "h", None).expect("a URI")).build();
    assert_eq!(bare, Err(BuildError::Missing(HeaderName::Via)));
    let request = read(INVITE);
    assert!(ResponseBuilder::to_request(&request, 200, Some("a\r\nb")).build().is_err());
}

#[test]
fn debug_and_errors_show_nothing_personal() {
    let text = format!("{:?} {:?}", read(INVITE), datagram(&crlf(&INVITE.replace("314159", "x"))));
    for secret in ["alice", "bob", "atlanta", "a84b"] {
        assert!(!text.contains(secret), "{text}");
    }
}

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
    assert!(whole.is_idle());
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
fn a_message_as_large_as_the_limit_passes_a_stream_byte_by_byte() {
    let head = crlf(&INVITE.replace("v=0\n", "").replace("Content-Length: 4", "Content-Length: 64000"));
    let mut framer = Framer::new();
    for byte in head.bytes().chain(std::iter::repeat_n(b'x', 64_000)) {
        assert!(matches!(framer.next_frame(), Ok(None)));
        framer.push(&[byte]);
    }
    assert_eq!(frames(&mut framer), ["INVITE 64000"]);
}

/// Messages as we write them: each kind of header once.
fn written() -> Vec<Bytes> {
    use schema::entropy::Entropy;
    let sdp = crate::sdp::audio(crate::sdp::Origin { id: 1, version: 1 }, source());
    let invite = complete_request()
        .header(HeaderName::Supported, &"timer, replaces")
        .header(HeaderName::Allow, &"INVITE, ACK, BYE, CANCEL, OPTIONS")
        .header(HeaderName::Privacy, &"id")
        .body("application/sdp", sdp.into())
        .build()
        .expect("built");
    let six = Via::new(Transport::Tls, "[2001:db8::1]", Some(5061), "z9hG4bKsix").expect("a Via");
    let uri =
        Uri::sips(Some("al ice"), "[2001:db8::2]", Some(5061)).expect("a URI").with_param("lr", None).expect("a flag");
    let odd =
        NameAddr::new(uri.clone()).with_display("J \"Q\" \\ Smith, é").expect("clean").with_tag("x.1").expect("a tag");
    let bye = RequestBuilder::new(Method::Bye, uri.clone())
        .via(&six)
        .route(&NameAddr::new(uri))
        .from(&odd)
        .to(&odd)
        .call_id("0123456789abcdef")
        .cseq(2_147_483_647)
        .header(HeaderName::Reason, &Reason::q850(16, "Normal call clearing"))
        .build()
        .expect("built");
    let request = Message::parse_datagram(&invite).expect("our own").with_source(source());
    let early = ResponseBuilder::to_request(&request, 183, Some("early")).contact(&odd).build().expect("built");
    let mut entropy = Entropy::from_number(1);
    let challenger =
        crate::digest::Challenger::new(&mut entropy, "example.com", &[], &[crate::digest::Algorithm::Sha256])
            .expect("a realm");
    let origin = crate::digest::Origin::Address(source().ip());
    let mut challenge = ResponseBuilder::to_request(&request, 407, Some("t"));
    for value in challenger.challenge(&mut entropy, schema::time::Mono(0), origin, true) {
        challenge = challenge.header(HeaderName::ProxyAuthenticate, &value);
    }
    let challenge = challenge.build().expect("built");
    let answer =
        crate::digest::Challenge::best_of(&Message::parse_datagram(&challenge).expect("our own")).expect("one");
    let answer = answer.answer("alice", "secret", "INVITE", "sip:example.com", "c", 1);
    let again =
        complete_request().cseq(8).expires(60).header(HeaderName::ProxyAuthorization, &answer).build().expect("built");
    let refusal = ParseError::with_request(Problem::Version, request).answer(source(), "t").expect("answerable");
    vec![invite, bye, early, challenge, again, refusal]
}

/// What other stacks make of what we write. They agree but for this, where we are right:
/// `rsip` 0.4.0 cannot read an IPv6 address in a Request-URI (RFC 3261 §25.1 `IPv6reference`).
#[test]
fn other_stacks_read_what_we_write() {
    for bytes in written() {
        let ours = Message::parse_datagram(&bytes).expect("our own");
        let shown = String::from_utf8_lossy(&bytes);
        match rsip::SipMessage::try_from(&bytes[..]) {
            Ok(theirs) => check_rsip(&ours, &theirs),
            Err(error) => assert!(shown.contains("[2001:db8::2]"), "rsip: {error} in {shown}"),
        }
        let theirs = rsipstack::sip::SipMessage::try_from(&bytes[..]);
        check_rsipstack(&ours, &theirs.unwrap_or_else(|error| panic!("rsipstack: {error} in {shown}")));
    }
}

fn check_rsip(ours: &Message, theirs: &rsip::SipMessage) {
    use rsip::headers::ToTypedHeader;
    use rsip::prelude::{HasHeaders, HeadersExt, UntypedHeader};
    assert_eq!(theirs.is_request(), ours.is_request());
    assert_eq!(theirs.call_id_header().expect("Call-ID").value(), ours.call_id());
    let cseq = theirs.cseq_header().expect("CSeq").typed().expect("typed");
    assert_eq!((cseq.seq, cseq.method.to_string()), (ours.cseq().0, ours.method().to_string()));
    let via = theirs.via_header().expect("Via").typed().expect("typed");
    assert_eq!(via.branch().map(|branch| branch.to_string()).as_deref(), ours.branch());
    assert_eq!((via.transport.to_string(), via.uri.host_with_port.port.map(u16::from)), {
        let via = ours.top_via();
        (via.transport.as_str().to_owned(), via.port)
    });
    for (theirs, ours) in [
        (theirs.from_header().expect("From").typed().expect("typed").tag().map(ToString::to_string), ours.from_tag()),
        (theirs.to_header().expect("To").typed().expect("typed").tag().map(ToString::to_string), ours.to_tag()),
    ] {
        assert_eq!(theirs.as_deref(), ours);
    }
    assert_eq!(theirs.headers().iter().count(), ours.head.fields.len());
    assert_eq!(theirs.body()[..], ours.body()[..]);
}

fn check_rsipstack(ours: &Message, theirs: &rsipstack::sip::SipMessage) {
    use rsipstack::sip::SipMessage;
    use rsipstack::sip::prelude::HeadersExt;
    let body = match theirs {
        SipMessage::Request(request) => request.body(),
        SipMessage::Response(response) => response.body(),
    };
    assert_eq!((theirs.is_request(), &body[..]), (ours.is_request(), &ours.body()[..]));
    assert_eq!(theirs.call_id_header().expect("Call-ID").value(), ours.call_id());
    assert_eq!(theirs.via_header().expect("Via").value(), ours.top_via().to_string());
    assert_eq!(theirs.cseq_header().expect("CSeq").seq().expect("a number"), ours.cseq().0);
    let tags = (theirs.from_header().expect("From").tag(), theirs.to_header().expect("To").tag());
    let text = |tag: Option<rsipstack::sip::uri::Tag>| tag.map(|tag| tag.to_string());
    assert_eq!(text(tags.0.expect("readable")).as_deref(), ours.from_tag());
    assert_eq!(text(tags.1.expect("readable")).as_deref(), ours.to_tag());
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        let _ = Message::parse_datagram(&Bytes::from(bytes.clone()));
        let mut framer = Framer::new();
        framer.push(&bytes);
        while let Ok(Some(_)) = framer.next_frame() {}
    }

    #[test]
    fn a_damaged_message_never_panics_and_its_answer_is_readable(at in 0_usize..420, byte in 0_u8..=255, remove in 0_usize..8) {
        let mut bytes = crlf(&invite_with("v: SIP/2.0/UDP p1;branch=z9hG4bKb\nRequire: a, b\nReason: SIP;cause=1\n")).into_bytes();
        let at = at % bytes.len();
        let end = (at + remove).min(bytes.len());
        bytes.splice(at..end, [byte]);
        match Message::parse_datagram(&Bytes::from(bytes)) {
            Ok(message) => {
                let message = message.with_source(source());
                let built = ResponseBuilder::to_request(&message, 200, Some("t")).record_route().build().expect("a message read can be answered");
                let response = Message::parse_datagram(&built).expect("our answer is readable");
                proptest::prop_assert_eq!(response.vias(), message.vias());
                let _ = (message.contacts(), message.routes(), message.reasons().count(), message.allow().count());
            }
            Err(error) => {
                if let Some(answer) = error.answer(source(), "t") {
                    proptest::prop_assert!(answer.windows(4).filter(|w| w == b"\r\n\r\n").count() == 1);
                }
            }
        }
    }

    #[test]
    fn a_request_written_is_read_back(user in "\\PC{1,40}", display in "\\PC{0,30}", cseq in 0_u32..(1 << 31), body in "\\PC{0,200}") {
        let uri = Uri::sip(Some(&user), "example.com", None).expect("a URI");
        let via = Via::new(Transport::Tls, "[2001:db8::1]", None, "z9hG4bKx").expect("a Via");
        let from = NameAddr::new(uri.clone()).with_display(&display).expect("printable").with_tag("f").expect("a tag");
        let built = RequestBuilder::new(Method::Message, uri.clone())
            .via(&via).from(&from).to(&NameAddr::new(uri.clone())).call_id("c").cseq(cseq).body("text/plain", Bytes::from(body.clone())).build().expect("built");
        let message = Message::parse_datagram(&built).expect("readable");
        proptest::prop_assert_eq!(message.request_uri(), Some(&uri));
        proptest::prop_assert_eq!(message.from(), from);
        proptest::prop_assert_eq!(message.cseq(), (cseq, &Method::Message));
        proptest::prop_assert_eq!(&message.body()[..], body.as_bytes());
        let mut framer = Framer::new();
        framer.push(&built);
        proptest::prop_assert!(matches!(framer.next_frame(), Ok(Some(Frame::Message(_)))));
    }
}
