//! What is read, and what is refused.

use super::*;

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
        (INVITE.replace("To: Bob <sip:bob@biloxi.example>\n", ""), Problem::Missing(N::To), true),
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
fn a_byte_that_is_not_utf_8_is_refused_only_where_it_matters() {
    let busy = "SIP/2.0 486 Occup~\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\nTo: \"Andr~\" <sip:b@h>;tag=2\nFrom: Ren~e <sip:a@h>;tag=1\nCall-ID: c\nCSeq: 1 INVITE\nP-Asserted-Identity: \"Jos~ ~\" <sip:~@h>\nReason: SIP;cause=486;text=\"~\"\nContact: <sip:b@h2>\nContent-Length: 0\n\n";
    let message = Message::parse_datagram(&latin(busy)).expect("readable");
    assert_eq!((message.status(), message.from_tag(), message.to_tag()), (Some(486), Some("1"), Some("2")));
    assert_eq!((message.from().uri.as_str(), message.from().display.as_deref()), ("sip:a@h", Some("Ren_e")));
    assert_eq!(message.contacts()[0].uri.as_str(), "sip:b@h2");
    let invite = INVITE.replace("Max-Forwards: 70", "Max-Forwards: 70\nUser-Agent: t~l~phone\nX: ~");
    for named in ["Alice~ <", "\"Alice~\" <", "~ <"] {
        let message = Message::parse_datagram(&latin(&invite.replace("Alice <", named))).expect("readable");
        assert_eq!((message.from().uri.as_str(), message.body().len()), ("sip:alice@atlanta.example", 4), "{named}");
        let answer = ResponseBuilder::to_request(&message, 200, Some("x")).build().expect("answerable");
        assert!(Message::parse_datagram(&answer).is_ok());
    }
    for (is, was) in [
        ("pc33.atlanta.example;b~", "pc33.atlanta.example;b"),
        ("z9hG4bK~", "z9hG4bK"),
        ("<sip:~alice@atlanta", "<sip:alice@atlanta"),
        ("tag=~", "tag="),
        ("<sip:bob@biloxi.example>;x=~", "<sip:bob@biloxi.example>"),
        ("a84b~", "a84b"),
        ("314159 INV~", "314159 INV"),
        ("<sip:alice@~pc33", "<sip:alice@pc33"),
        ("sip:b~ob@biloxi.example SIP", "sip:bob@biloxi.example SIP"),
        ("Max-Forwards: 70\nRoute: <sip:h;lr>;~", "Max-Forwards: 70"),
        ("Max-Forwards: 70\nPrivacy: id~", "Max-Forwards: 70"),
    ] {
        let error = Message::parse_datagram(&latin(&invite.replace(was, is))).expect_err(is);
        assert_eq!((error.problem, error.can_answer()), (Problem::IllegalCharacter, true), "{is}");
    }
    for (is, was, problem) in [
        ("Content-Length: ~4", "Content-Length: 4", Problem::IllegalCharacter),
        ("Conte~t-Length: 4", "Content-Length: 4", Problem::HeaderLine),
        ("Call-ID: ~a\nX~: ", "Call-ID: ", Problem::HeaderLine),
        ("INV~ITE sip", "INVITE sip", Problem::IllegalCharacter),
    ] {
        assert_eq!(Message::parse_datagram(&latin(&invite.replace(was, is))).expect_err(is).problem, problem, "{is}");
    }
    let code = busy.replace("486 Occup", "4~6 Occup");
    assert_eq!(Message::parse_datagram(&latin(&code)).expect_err("no status").problem, Problem::StartLine);
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
fn debug_and_errors_show_nothing_personal() {
    let text = format!("{:?} {:?}", read(INVITE), datagram(&crlf(&INVITE.replace("314159", "x"))));
    for secret in ["alice", "bob", "atlanta", "a84b"] {
        assert!(!text.contains(secret), "{text}");
    }
}
