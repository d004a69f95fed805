//! Names under which transactions and dialogs are found in their tables.

use std::sync::Arc;

/// Names up to this length are put together beside the heap.
const USUAL: usize = 192;

/// A name in an ordered map. What differs most between two of them stands beside the pointer to all of it: going down the map compares
/// numbers, and follows a pointer only where it has found its place. The order is that of bytes, the same in every process: there is
/// no hash whose order somebody would see, or whose collisions somebody could choose.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    lead: u64,
    text: Arc<[u8]>,
}

impl Key {
    /// Made of these parts, a space behind each: a part holds none, or has a fixed length. `lead` is one of them; its last eight bytes count,
    /// since some write a number that grows.
    pub(crate) fn of(lead: &str, parts: &[&[u8]]) -> Self {
        let (mut usual, mut long) = ([b' '; USUAL], Vec::new());
        let length = parts.iter().map(|part| part.len() + 1).sum();
        let text = match usual.get_mut(..length) {
            Some(room) => room,
            None => {
                long.resize(length, b' ');
                &mut long[..]
            }
        };
        let mut at = 0;
        for part in parts {
            text[at..at + part.len()].copy_from_slice(part);
            at += part.len() + 1;
        }
        Self { lead: last_eight(lead), text: Arc::from(&*text) }
    }
}

/// The last eight bytes, in their order.
pub(crate) fn last_eight(text: &str) -> u64 {
    let last = text.as_bytes().rchunks(8).next().unwrap_or_default();
    last.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_by_all_of_their_bytes() {
        let lead = "01234567";
        let key = |lead: &str, text: &str| Key::of(lead, &[text.as_bytes()]);
        assert!(key(lead, "a") < key(lead, "b"), "behind the lead the text decides");
        assert!(key("b", "a") > key("a", "b") && key("", "z") < key("a", "a"), "the lead decides first");
        assert_eq!(key("A01234567", "x"), key("B01234567", "x"), "a lead has 8 bytes");
        assert_eq!(key(lead, "a"), key(lead, "a"));
        assert!(Key::of(lead, &[b"ab", b"c"]) != Key::of(lead, &[b"a", b"bc"]), "parts do not run together");
        for length in [USUAL - 2, USUAL - 1, USUAL, 4 * USUAL] {
            let (one, other) = ("x".repeat(length), "x".repeat(length - 1) + "y");
            assert!(key(lead, &one) == key(lead, &one) && key(lead, &one) < key(lead, &other), "{length}");
        }
    }
}
