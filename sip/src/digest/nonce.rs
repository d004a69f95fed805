//! Stateless nonces, and the small table that refuses a nonce count used before (RFC 7616 §3.3, §5.4).

use ring::hmac;
use schema::entropy::Entropy;
use schema::time::Mono;
use std::collections::BTreeMap;
use subtle::ConstantTimeEq;

/// Seconds a nonce is good for.
pub(super) const LIFE_S: u32 = 60;
/// Most nonces whose counts are kept: 8,700 authenticated requests a second with a nonce each.
const MAX_COUNTED: usize = 1 << 19;
const RANDOM: usize = 8;
const MAC: usize = 18;
const LENGTH: usize = 4 + RANDOM + MAC;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Stands in [`VALUES`] for what is no letter of [`ALPHABET`].
const NO_LETTER: u8 = 64;
/// Place of each byte in [`ALPHABET`].
const VALUES: [u8; 256] = {
    let mut values = [NO_LETTER; 256];
    let mut at = 0;
    while at < NO_LETTER {
        values[ALPHABET[at as usize] as usize] = at;
        at += 1;
    }
    values
};

/// Characters of a nonce: [`LENGTH`] is a multiple of 3, so base64url needs no padding.
pub(super) const TEXT_LENGTH: usize = LENGTH / 3 * 4;

/// What identifies a nonce: when it was made (monotonic seconds), and its random bytes.
pub(super) type NonceKey = (u32, [u8; RANDOM]);

pub(super) fn seconds(now: Mono) -> u32 {
    u32::try_from(now.0 / 1_000_000).unwrap_or(u32::MAX)
}

fn mac(key: &hmac::Key, nonce: NonceKey, origin: &[u8]) -> [u8; MAC] {
    let mut context = hmac::Context::with_key(key);
    context.update(&nonce.0.to_be_bytes());
    context.update(&nonce.1);
    context.update(origin);
    let mut out = [0; MAC];
    out.copy_from_slice(&context.sign().as_ref()[..MAC]);
    out
}

/// base64url(time | random | HMAC(time | random | origin)).
pub(super) fn make(key: &hmac::Key, entropy: &mut Entropy, now: Mono, origin: &[u8]) -> String {
    let nonce = (seconds(now), entropy.bytes());
    let mut bytes = [0; LENGTH];
    bytes[..4].copy_from_slice(&nonce.0.to_be_bytes());
    bytes[4..4 + RANDOM].copy_from_slice(&nonce.1);
    bytes[4 + RANDOM..].copy_from_slice(&mac(key, nonce, origin));
    encode(&bytes)
}

/// The nonce's key when we made it, with this key and for this origin.
pub(super) fn check(key: &hmac::Key, text: &str, origin: &[u8]) -> Option<NonceKey> {
    let bytes = decode(text)?;
    let nonce = (
        u32::from_be_bytes(bytes[..4].try_into().expect("four bytes")),
        bytes[4..4 + RANDOM].try_into().expect("as long as the random part"),
    );
    bool::from(mac(key, nonce, origin).ct_eq(&bytes[4 + RANDOM..])).then_some(nonce)
}

fn encode(bytes: &[u8; LENGTH]) -> String {
    let mut out = String::with_capacity(TEXT_LENGTH);
    for three in bytes.chunks_exact(3) {
        let word = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for shift in [18, 12, 6, 0] {
            out.push(char::from(ALPHABET[(word >> shift & 63) as usize]));
        }
    }
    out
}

fn decode(text: &str) -> Option<[u8; LENGTH]> {
    if text.len() != TEXT_LENGTH {
        return None;
    }
    let mut out = [0; LENGTH];
    for (four, three) in text.as_bytes().chunks_exact(4).zip(out.chunks_exact_mut(3)) {
        let mut word = 0_u32;
        for byte in four {
            let value = VALUES[usize::from(*byte)];
            if value == NO_LETTER {
                return None;
            }
            word = word << 6 | u32::from(value);
        }
        three.copy_from_slice(&word.to_be_bytes()[1..]);
    }
    Some(out)
}

/// Counts seen of one nonce: the highest, and which of the 64 up to it.
#[derive(Clone, Copy)]
struct Window {
    highest: u32,
    seen: u64,
}

/// Nonce counts of nonces still alive. Bounded; an entry leaves with its nonce's life.
#[derive(Default)]
pub(super) struct NonceCounts(BTreeMap<NonceKey, Window>);

impl NonceCounts {
    /// Takes a count that was not used before. Only counts of correct answers come here, so that only holders of a secret
    /// fill the table.
    pub(super) fn take(&mut self, nonce: NonceKey, nc: u32, now: Mono) -> bool {
        self.expire(now);
        if nc == 0 || (self.0.len() >= MAX_COUNTED && !self.0.contains_key(&nonce)) {
            return false;
        }
        let window = self.0.entry(nonce).or_insert(Window { highest: 0, seen: 0 });
        if nc > window.highest {
            window.seen = window.seen.checked_shl(nc - window.highest).unwrap_or(0) | 1;
            window.highest = nc;
            return true;
        }
        let Some(bit) = 1_u64.checked_shl(window.highest - nc) else { return false };
        let fresh = window.seen & bit == 0;
        window.seen |= bit;
        fresh
    }

    fn expire(&mut self, now: Mono) {
        let now = seconds(now);
        while let Some(first) = self.0.first_entry() {
            if first.key().0.saturating_add(LIFE_S) >= now {
                return;
            }
            first.remove();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const S: u64 = 1_000_000;

    #[test]
    fn a_nonce_is_ours_only_with_the_same_key_and_origin() {
        let mut entropy = Entropy::from_number(1);
        let (key, other) = (
            hmac::Key::new(hmac::HMAC_SHA256, &entropy.bytes::<32>()),
            hmac::Key::new(hmac::HMAC_SHA256, &entropy.bytes::<32>()),
        );
        let nonce = make(&key, &mut entropy, Mono(7 * S), b"origin");
        assert_eq!(nonce.len(), TEXT_LENGTH);
        assert_eq!(check(&key, &nonce, b"origin").map(|(at, _)| at), Some(7));
        assert_eq!(check(&key, &nonce, b"elsewhere"), None);
        assert_eq!(check(&other, &nonce, b"origin"), None);
        for at in 0..nonce.len() {
            let mut forged = nonce.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(check(&key, std::str::from_utf8(&forged).expect("ASCII"), b"origin"), None);
        }
        for text in ["", "short", &"=".repeat(TEXT_LENGTH), &"é".repeat(TEXT_LENGTH / 2)] {
            assert_eq!(check(&key, text, b"origin"), None);
        }
    }

    #[test]
    fn counts_leave_with_their_nonce() {
        let mut counts = NonceCounts::default();
        for second in 0..200_u32 {
            assert!(counts.take((second, [0; 8]), 1, Mono(u64::from(second) * S)));
            assert!(counts.len() <= 62);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_count_passes_twice(list in proptest::collection::vec(0_u32..150, 1..200)) {
            let (mut counts, mut passed) = (NonceCounts::default(), BTreeSet::new());
            let mut highest = 0;
            for nc in list {
                let taken = counts.take((0, [0; 8]), nc, Mono(0));
                if taken {
                    proptest::prop_assert!(passed.insert(nc));
                } else {
                    proptest::prop_assert!(nc == 0 || passed.contains(&nc) || nc + 64 <= highest);
                }
                highest = highest.max(nc);
            }
        }
    }
}
