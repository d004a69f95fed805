//! Does reading a message take more memory than four times its size? An allocator that counts stands in for the usual one, so this
//! test has a program of its own.

#[path = "costly/messages.rs"]
mod costly;

use bytes::Bytes;
use costly::{costly, datagram, stream};
use sip::digest::Challenge;
use sip::message::{Message, NameAddr, Uri, Via};
use sip::sdp::Description;

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

fn described(what: &str, bytes: &[u8]) {
    check(what, bytes.len(), peak(|| drop(Description::parse(bytes))));
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
    for (name, bytes) in files("fuzz/corpus/authorization") {
        let value = String::from_utf8_lossy(&bytes).replace(['\r', '\n'], " ");
        let whole = Bytes::from(format!(
            "SIP/2.0 401 Unauthorized\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:a@h>;tag=2\r\n\
             Call-ID: c\r\nCSeq: 1 REGISTER\r\nWWW-Authenticate: {value}\r\nContent-Length: 0\r\n\r\n"
        ));
        let taken = peak(|| drop(Message::parse_datagram(&whole).map(|message| Challenge::best_of(&message))));
        check(&format!("{name}, a challenge,"), whole.len(), taken);
    }
}
