//! Does reading a message take more memory than four times its size? An allocator that counts stands in for the usual one, so this
//! test has a program of its own.

#[path = "costly/messages.rs"]
mod costly;

use bytes::Bytes;
use costly::{costly, datagram, stream};
use schema::entropy::Entropy;
use schema::time::Mono;
use sip::digest::{Algorithm, Challenge, Challenger, Origin, Scheme};
use sip::message::{Message, NameAddr, Uri, Via};
use sip::sdp::{self, Description};
use std::net::{IpAddr, Ipv4Addr};

#[global_allocator]
static COUNTING: dhat::Alloc = dhat::Alloc;

/// What a message of any size may take besides: the tables of its head, one list of parameters.
const BASE: usize = 2 * 1024;

/// Most bytes in use at a time while `read` runs, beyond those before it.
fn peak(read: impl FnOnce()) -> usize {
    let profiler = dhat::Profiler::builder().testing().build();
    read();
    let stats = dhat::HeapStats::get();
    drop(profiler);
    stats.max_bytes
}

/// A session description, read alone and written for the other leg.
fn described(what: &str, bytes: &[u8]) {
    let mut entropy = Entropy::from_number(1);
    check(what, bytes.len(), peak(|| drop(Description::parse(bytes))));
    let taken = peak(|| drop(sdp::rewrite(bytes, &mut entropy, Ipv4Addr::LOCALHOST.into())));
    check(&format!("{what}, written,"), bytes.len(), taken);
}

/// Credentials, read as the edge does; a nonce of ours in the place of `@`, so that what stands behind it is reached. True when all
/// of them was read.
fn claimed(challenger: &mut Challenger, what: &str, credentials: &str) -> bool {
    let (origin, now) = (Origin::Address(IpAddr::from([192, 0, 2, 1])), Mono(1_000_000_000));
    let offered = challenger.challenge(&mut Entropy::from_number(2), now, origin, false);
    let nonce = offered[0].split('"').nth(3).expect("a nonce");
    let credentials = credentials.replace('@', nonce);
    let whole = Bytes::from(format!(
        "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\r\nFrom: <sip:a@example.com>;tag=1\r\n\
         To: <sip:a@example.com>\r\nCall-ID: c\r\nCSeq: 1 REGISTER\r\nAuthorization: {credentials}\r\nContent-Length: 0\r\n\r\n"
    ));
    let mut is_read = false;
    let taken = peak(|| {
        let claim = Message::parse_datagram(&whole).map(|message| challenger.claim(&message, Scheme::Www, origin, now));
        is_read = matches!(claim, Ok(Ok(_)));
    });
    check(&format!("{what}, credentials,"), whole.len(), taken);
    is_read
}

fn check(what: &str, size: usize, peak: usize) {
    let most = 4 * size + BASE;
    assert!(peak <= most, "{what} of {size} bytes takes {peak}, more than {most}");
}

/// The files of a folder of this crate.
fn files(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = format!("{}/{folder}", env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(&folder).expect("the folder").map(|entry| entry.expect("an entry").path());
    entries.map(|path| (path.display().to_string(), std::fs::read(&path).expect("a file"))).collect()
}

/// One test, since the allocator counts for the whole program.
#[test]
fn reading_takes_at_most_four_times_the_size_of_what_is_read() {
    let own = costly().into_iter().map(|(name, bytes)| (name.to_owned(), bytes));
    let found = ["tests/torture", "fuzz/corpus/message", "fuzz/corpus/framing", "fuzz/corpus/core"].map(files);
    assert!(found.iter().all(|files| !files.is_empty()));
    for (name, bytes) in own.chain(found.into_iter().flatten()) {
        let whole = Bytes::copy_from_slice(&bytes);
        let taken = peak(|| datagram(&whole));
        check(&format!("{name}, a datagram,"), bytes.len(), taken);
        for segment in [bytes.len(), 1_000] {
            let taken = peak(|| stream(&bytes, segment));
            check(&format!("{name}, a stream in segments of {segment},"), bytes.len(), taken);
        }
    }
    let head = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4 RTP/AVP 0\r\n";
    for body in [
        "a=x\r\n".repeat(64),
        "m=a 0 x 0\r\n".repeat(7),
        format!("m=a 0 x{}\r\n", " 0".repeat(32)),
        "a=a:b\r\n".repeat(60),
    ] {
        described("a session description", format!("{head}{body}").as_bytes());
    }
    for (name, bytes) in files("fuzz/corpus/sdp") {
        described(&name, &bytes);
    }
    for (name, bytes) in files("fuzz/corpus/uri") {
        let text = String::from_utf8_lossy(&bytes);
        for (what, taken) in [
            ("URI", peak(|| drop(Uri::parse(&text)))),
            ("address", peak(|| drop(NameAddr::parse(&text)))),
            ("Via", peak(|| drop(Via::parse(&text)))),
        ] {
            check(&format!("{name}, a {what},"), text.len(), taken);
        }
    }
    let algorithms = [Algorithm::Sha256, Algorithm::Md5];
    let challenger = Challenger::new(&mut Entropy::from_number(1), "example.com", &["example.com"], &algorithms);
    let mut challenger = challenger.expect("a realm");
    let usual = "Digest username=\"alice\", realm=\"example.com\", nonce=\"@\", uri=\"sip:example.com\", qop=auth, algorithm=SHA-256";
    let long = format!("{usual}, response=\"{}\", nc=00000001, cnonce=\"{}\"", "0".repeat(64), "\\c".repeat(256));
    assert!(claimed(&mut challenger, "a long cnonce", &long));
    for (what, credentials) in [
        ("parameters", format!("{usual}{}", ", a=b".repeat(30))),
        ("many parameters", format!("{usual}{}", ", a=b".repeat(2_000))),
        ("a long URI", usual.replace("sip:example.com", &format!("sip:{}@example.com", "\\a".repeat(2_000)))),
        ("many credentials", format!("{usual}\r\nAuthorization: ").repeat(50) + usual),
        ("credentials of others", vec![usual.replace("example.com", "h"); 50].join("\r\nAuthorization: ")),
    ] {
        claimed(&mut challenger, what, &credentials);
    }
    let mut read = 0;
    for (name, bytes) in files("fuzz/corpus/authorization") {
        let value = String::from_utf8_lossy(&bytes).replace(['\r', '\n'], " ");
        read += u32::from(claimed(&mut challenger, &name, &String::from_utf8_lossy(&bytes)));
        let whole = Bytes::from(format!(
            "SIP/2.0 401 Unauthorized\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:a@h>;tag=2\r\n\
             Call-ID: c\r\nCSeq: 1 REGISTER\r\nWWW-Authenticate: {value}\r\nContent-Length: 0\r\n\r\n"
        ));
        let taken = peak(|| drop(Message::parse_datagram(&whole).map(|message| Challenge::best_of(&message))));
        check(&format!("{name}, a challenge,"), whole.len(), taken);
    }
    assert!(read > 0, "some of the corpus is read to its end");
}
