//! The program's log on standard error. A thread of its own writes it, so that nobody waits for the disk or pipe behind it;
//! lines that find no room in the queue, or cannot be written, are counted and lost: a log is no reason to fail.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Lines that may wait to be written.
const LINES: usize = 16_384;

/// Those that found no room.
static QUEUE: OnceLock<ErrorCounter> = OnceLock::new();
/// Those that could not be written.
static UNWRITTEN: AtomicU64 = AtomicU64::new(0);

/// Begins to log, once a process. What waits is written when the value is dropped, within about a second.
pub(crate) fn start() -> WorkerGuard {
    let filter =
        EnvFilter::try_from_env("RINGFENCE_LOG").unwrap_or_else(|_| EnvFilter::new("info,ractor=warn,sqlx=warn"));
    let builder = NonBlockingBuilder::default().buffered_lines_limit(LINES).lossy(true).thread_name("log");
    let (queue, guard) = builder.finish(StandardError);
    let _ = QUEUE.set(queue.error_counter());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(queue).init();
    guard
}

/// Lines lost since the start.
pub(crate) fn lines_lost() -> u64 {
    let without_room = QUEUE.get().map_or(0, ErrorCounter::dropped_lines);
    UNWRITTEN.load(Ordering::Relaxed).saturating_add(u64::try_from(without_room).unwrap_or(u64::MAX))
}

/// Says something to whoever started the program. Unlike `eprintln!` it does not panic when nobody can read it.
pub(crate) fn complain(what: &str) {
    let _ = writeln!(io::stderr(), "ringfence: {what}");
}

/// Standard error, which takes everything.
struct StandardError;

impl Write for StandardError {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if io::stderr().write_all(line).is_err() {
            UNWRITTEN.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
