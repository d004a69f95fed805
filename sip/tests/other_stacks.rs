//! Where do `rsip` 0.4.0 and `rsipstack` disagree with us about the messages of RFC 4475, and who is right?

use bytes::Bytes;
use sip::message::Message;
use std::collections::BTreeMap;

/// A message accepted or not by: us, rsip, rsipstack. Those that all three agree on are not listed.
const DISAGREE: &[(&str, [bool; 3], &str)] = &[
    // Valid; one of them cannot read it.
    ("wsinv", [true, false, true], "we: white space around the colon and in Via is allowed (RFC 3261 §7.3.1, §25.1)"),
    ("intmeth", [true, false, false], "we: every token is a method, a quoted pair holds any character (§25.1)"),
    ("esc01", [true, false, true], "we: an escaped colon is a character of the user part (§25.1)"),
    ("esc02", [true, false, false], "we: a percent sign is a character of tokens (§25.1)"),
    ("longreq", [true, false, true], "we: white space before the colon of Via (§7.3.1)"),
    ("dblreq", [true, false, true], "we: what follows the body in a datagram is ignored (§18.3)"),
    ("semiuri", [true, false, true], "we: a semicolon is a character of the user part (§25.1)"),
    ("unkscm", [true, false, true], "we: a Request-URI of an unknown scheme is answered 416 (§8.2.2.1)"),
    ("unksm2", [true, false, true], "we: To, From and Contact may have other schemes (§20.10)"),
    // Invalid; at least one of them reads it. They look at each header when asked only, so most of these pass them.
    ("badinv01", [false, true, true], "we: empty Via parameters are an error (RFC 4475 §3.1.2.1)"),
    ("clerr", [false, true, true], "we: a datagram shorter than its Content-Length is answered 400 (RFC 3261 §18.3)"),
    ("ncl", [false, true, true], "we: a negative Content-Length is an error (RFC 4475 §3.1.2.3)"),
    ("quotbal", [false, true, true], "we: an open quote is an error (RFC 4475 §3.1.2.6)"),
    ("ltgtruri", [false, true, true], "we: a Request-URI has no angle brackets (RFC 4475 §3.1.2.7)"),
    ("trws", [false, false, true], "we and rsip: a request line ends in its version (RFC 4475 §3.1.2.10)"),
    ("escruri", [false, false, true], "we and rsip: a Request-URI has no headers; the RFC allows to ignore them too"),
    ("regbadct", [false, true, true], "we: a URI with headers needs its brackets (RFC 4475 §3.1.2.13)"),
    ("badaspec", [false, false, true], "we and rsip; the RFC allows to mend it too (RFC 4475 §3.1.2.14)"),
    ("baddn", [false, true, true], "all: it is an error, and the RFC allows to mend it (RFC 4475 §3.1.2.15)"),
    ("badvers", [false, false, true], "we and rsip: another version is answered 505 (RFC 4475 §3.1.2.16)"),
    ("mismatch01", [false, true, true], "we: CSeq has the request's method (RFC 3261 §8.1.1.5)"),
    ("multi01", [false, true, true], "we: To, From, Call-ID and CSeq stand once (RFC 4475 §3.3.8)"),
    ("mcl01", [false, true, true], "we: two lengths are none (RFC 4475 §3.3.9)"),
    ("inv2543", [false, true, true], "all: RFC 3261 §8.1.1.8 wants a Contact, RFC 2543 did not"),
];

fn rsip_reads(bytes: &Bytes) -> bool {
    use rsip::headers::ToTypedHeader;
    use rsip::prelude::HeadersExt;
    let Ok(message) = rsip::SipMessage::try_from(&bytes[..]) else { return false };
    message.via_header().is_ok_and(|via| via.typed().is_ok())
        && message.from_header().is_ok_and(|from| from.typed().is_ok())
        && message.to_header().is_ok_and(|to| to.typed().is_ok())
        && message.cseq_header().is_ok_and(|cseq| cseq.typed().is_ok())
        && message.call_id_header().is_ok()
}

fn rsipstack_reads(bytes: &Bytes) -> bool {
    use rsipstack::sip::prelude::HeadersExt;
    let Ok(message) = rsipstack::sip::SipMessage::try_from(&bytes[..]) else { return false };
    message.via_header().is_ok()
        && message.from_header().is_ok_and(|from| from.tag().is_ok())
        && message.to_header().is_ok_and(|to| to.tag().is_ok())
        && message.cseq_header().is_ok_and(|cseq| cseq.seq().is_ok())
        && message.call_id_header().is_ok()
}

#[test]
fn each_disagreement_about_a_message_is_listed_with_who_is_right() {
    let folder = format!("{}/tests/torture", env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).expect("the folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let bytes = Bytes::from(std::fs::read(&path).expect("a file"));
        let theirs = std::panic::catch_unwind(|| [rsip_reads(&bytes), rsipstack_reads(&bytes)]);
        let [rsip, rsipstack] = theirs.unwrap_or_else(|_| panic!("another stack panics on {name}"));
        let ours = Message::parse_datagram(&bytes).is_ok();
        if [rsip, rsipstack] != [ours; 2] {
            found.insert(name, [ours, rsip, rsipstack]);
        }
    }
    let listed: BTreeMap<_, _> = DISAGREE.iter().map(|(name, reads, _)| ((*name).to_owned(), *reads)).collect();
    assert_eq!(found, listed);
}
