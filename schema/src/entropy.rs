//! Randomness as data: a seeded generator that a core owns. The shell seeds it from the operating system, tests from a
//! number, so that the same seed gives the same trace.

use crate::time::Timestamp;
use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};
use uuid::Uuid;

/// A cryptographic generator (ChaCha12) whose output is a function of its seed.
pub struct Entropy(ChaCha12Rng);

impl Entropy {
    /// From 32 bytes of the operating system's randomness.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ChaCha12Rng::from_seed(seed))
    }

    /// From a small number: for tests and the simulator.
    #[must_use]
    pub fn from_number(seed: u64) -> Self {
        Self(ChaCha12Rng::seed_from_u64(seed))
    }

    /// A new generator whose stream is independent of what this one gives later.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::from_seed(self.bytes())
    }

    /// `N` random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.0.fill_bytes(&mut out);
        out
    }

    /// A uniformly distributed number.
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`; 0 when `bound` is 0. The bias is below 2⁻³² for bounds under 2³².
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.u64() % bound }
    }

    /// `N` random bytes in lower-case hexadecimal (2·N characters): SIP tags, branches and Call-IDs.
    pub fn hex<const N: usize>(&mut self) -> String {
        hex(&self.bytes::<N>())
    }

    /// A random word of `length` characters of `[A-Za-z0-9]` (5.95 bits each): passwords and tokens shown once.
    pub fn word(&mut self, length: usize) -> String {
        const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let mut out = String::with_capacity(length);
        while out.len() < length {
            let at = usize::from(self.bytes::<1>()[0] & 63);
            if let Some(&letter) = LETTERS.get(at) {
                out.push(letter as char);
            }
        }
        out
    }

    /// A UUIDv7 (RFC 9562 §5.7) of the given time.
    pub fn uuid_v7(&mut self, at: Timestamp) -> Uuid {
        let millis = u64::try_from(at.as_millis()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &self.bytes()).into_uuid()
    }
}

impl std::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entropy")
    }
}

/// Bytes in lower-case hexadecimal, two characters each.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)] as char);
        out.push(DIGITS[usize::from(byte & 15)] as char);
    }
    out
}
