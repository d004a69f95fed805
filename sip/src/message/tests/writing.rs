//! What is written, and that others read it.

use super::*;

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
fn the_length_of_a_request_is_known_before_it_is_written() {
    let via = Via::new(Transport::Tcp, "192.0.2.7", Some(5060), "z9hG4bKlast").expect("a Via");
    let requests = [0, 9, 10, 70, 255].map(|hops| complete_request().max_forwards(hops).cseq(u32::from(hops) * 1_000));
    let with_body = [1, 9, 10, 1_100, 60_000].map(|length| {
        let body = Bytes::from(vec![b'x'; length]);
        complete_request().header(HeaderName::Subject, &"s").body("text/plain", body)
    });
    for request in requests.into_iter().chain(with_body) {
        let expected = request.length_with(&via);
        assert_eq!(request.via(&via).build().expect("complete").len(), expected);
    }
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
    let mut challenger =
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

/// What we write, by what stands in it, and whether `rsip` 0.4.0 and `rsipstack` read it. We are right.
const DISAGREE: &[(&str, [bool; 2], &str)] = &[
    ("[2001:db8::", [false, true], "an IPv6 address in a URI (RFC 3261 §25.1, IPv6reference)"),
    (
        " NONSENSE\r\n",
        [false, false],
        "a method that they do not know, which we answer 501 (§25.1: every token is one)",
    ),
    (" refer\r\n", [false, false], "a method of another case, which they take for REFER (§7.1)"),
    ("<tel:", [false, true], "an address that is no SIP URI, of a To that we copy (§20.10, RFC 3966)"),
];

/// What other stacks make of what we write; all that the scripted tests of the core send is tried, too.
#[test]
fn other_stacks_read_what_we_write() {
    written().iter().for_each(read_by_other_stacks);
    // The list is true, and stands for nothing else.
    for (line, mark) in [
        ("To: <sip:b@biloxi.example>", None),
        ("To: <sip:b@[2001:db8::2]>", Some(0)),
        ("CSeq: 7 NONSENSE", Some(1)),
        ("CSeq: 7 refer", Some(2)),
        ("To: <tel:+447700900123>", Some(3)),
    ] {
        let expected = mark.map_or([true; 2], |number: usize| DISAGREE[number].1);
        assert_eq!(others_read(line), expected, "{line}");
    }
}

/// Whether the others read a request with this line in the place of its own.
fn others_read(line: &str) -> [bool; 2] {
    let bytes = complete_request().build().expect("built");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let is_its = |own: &&str| own.split(' ').next() == line.split(' ').next();
    let text = text.replace(text.split("\r\n").find(is_its).expect("a line like it"), line);
    let is_meant = |method: &str| line.strip_prefix("CSeq: 7 ").is_none_or(|meant| meant == method);
    let rsip = {
        use rsip::headers::ToTypedHeader;
        use rsip::prelude::HeadersExt;
        let read = rsip::SipMessage::try_from(text.as_bytes());
        read.is_ok_and(|theirs| {
            theirs.to_header().is_ok_and(|to| to.typed().is_ok())
                && theirs
                    .cseq_header()
                    .is_ok_and(|cseq| cseq.typed().is_ok_and(|cseq| is_meant(&cseq.method.to_string())))
        })
    };
    let rsipstack = {
        use rsipstack::sip::prelude::HeadersExt;
        let read = rsipstack::sip::SipMessage::try_from(text.as_bytes());
        read.is_ok_and(|theirs| {
            theirs.to_header().is_ok_and(|to| to.tag().is_ok())
                && theirs
                    .cseq_header()
                    .is_ok_and(|cseq| cseq.method().is_ok_and(|method| is_meant(&method.to_string())))
        })
    };
    [rsip, rsipstack]
}

/// They read what we wrote as we do.
pub(crate) fn read_by_other_stacks(bytes: &Bytes) {
    let ours = Message::parse_datagram(bytes).expect("our own");
    let shown = String::from_utf8_lossy(bytes);
    let marked = || DISAGREE.iter().filter(|(mark, ..)| shown.contains(mark)).map(|(_, reads, _)| reads);
    if marked().all(|[rsip, _]| *rsip) {
        let theirs = rsip::SipMessage::try_from(&bytes[..]);
        check_rsip(&ours, &theirs.unwrap_or_else(|error| panic!("rsip: {error} in {shown}")));
    }
    if marked().all(|[_, rsipstack]| *rsipstack) {
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
