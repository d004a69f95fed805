//! Does reading a message take more memory than four times its size? An allocator that counts stands in for the usual one, so this
//! test has a program of its own.

#[path = "costly/messages.rs"]
mod costly;

use bytes::Bytes;
use costly::{costly, datagram, stream};
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

fn check(what: &str, size: usize, peak: usize) {
    let most = 4 * size + BASE;
    assert!(peak <= most, "{what} of {size} bytes takes {peak}, more than {most}");
}

fn torture() -> Vec<(String, Vec<u8>)> {
    let folder = format!("{}/tests/torture", env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(&folder).expect("the folder").map(|entry| entry.expect("an entry").path());
    entries.map(|path| (path.display().to_string(), std::fs::read(&path).expect("a file"))).collect()
}

/// One test, since the allocator counts for the whole program.
#[test]
fn reading_takes_at_most_four_times_the_size_of_what_is_read() {
    let own = costly().into_iter().map(|(name, bytes)| (name.to_owned(), bytes));
    for (name, bytes) in own.chain(torture()) {
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
        let text = format!("{head}{body}");
        let taken = peak(|| drop(Description::parse(text.as_bytes())));
        check("a session description", text.len(), taken);
    }
}
