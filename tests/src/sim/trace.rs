//! What happened in a world, in order, as one running hash; printed as text when asked for.

use schema::time::Mono;
use std::io::Write as _;

/// FNV-1a over everything noted. Nothing in it may come from a hasher, a pointer or a process-global counter.
pub struct Trace {
    hash: u64,
    print: bool,
}

impl Trace {
    /// Nothing has happened yet. `print`: each note is also a line on standard output.
    #[must_use]
    pub const fn new(print: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, print }
    }

    /// The hash of everything so far.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// Notes a short text.
    pub fn note(&mut self, at: Mono, text: &str) {
        self.add(at, text.as_bytes());
        self.line(at, || text.to_owned());
    }

    /// Notes bytes, which are shown as `text` says.
    pub fn bytes(&mut self, at: Mono, bytes: &[u8], text: impl FnOnce() -> String) {
        self.add(at, bytes);
        self.line(at, text);
    }

    /// A line that is shown and not hashed.
    pub fn line(&self, at: Mono, text: impl FnOnce() -> String) {
        if self.print {
            // Whoever reads may have seen enough.
            let _ = writeln!(std::io::stdout(), "{:>8}.{:03} {}", at.0 / 1_000_000, at.0 / 1_000 % 1_000, text());
        }
    }

    fn add(&mut self, at: Mono, bytes: &[u8]) {
        let length = (bytes.len() as u64).to_le_bytes();
        for byte in at.0.to_le_bytes().into_iter().chain(length).chain(bytes.iter().copied()) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
