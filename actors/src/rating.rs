//! Which rate applies to a number: a rate deck as a trie of prefixes, and all decks and trunks as one immutable snapshot.
//! It knows nothing of accounts and balances. To change prices, a new snapshot replaces the old one; calls keep their rate.

use schema::carrier::Trunk;
use schema::id::{DeckId, DeckVersionId};
use schema::money::Currency;
use schema::rate::{RateApplied, RateTerms};
use schema::time::Timestamp;
use std::collections::BTreeMap;

/// A rate deck in memory.
pub struct Deck {
    name: String,
    version: DeckVersionId,
    currency: Currency,
    tax_included: bool,
    /// Node 0 is the root, the prefix without digits. A child index of 0 means none.
    nodes: Vec<Node>,
    lines: Vec<Line>,
}

#[derive(Clone, Default)]
struct Node {
    children: [u32; 10],
    /// Indices into `lines`: the lines of this prefix, which differ in their time.
    lines: Vec<u32>,
}

struct Line {
    prefix: Box<str>,
    destination: Box<str>,
    terms: RateTerms,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Deck {
    /// Builds the trie. Lines whose prefix is not made of digits never match.
    #[must_use]
    pub fn build(stored: &storage::Deck) -> Self {
        let mut deck = Self {
            name: stored.name.clone(),
            version: stored.version,
            currency: stored.currency,
            tax_included: stored.tax_included,
            nodes: vec![Node::default()],
            lines: Vec::with_capacity(stored.rates.len()),
        };
        for rate in &stored.rates {
            deck.insert(rate);
        }
        deck
    }

    fn insert(&mut self, rate: &storage::Rate) {
        if !rate.prefix.bytes().all(|b| b.is_ascii_digit()) {
            return;
        }
        let mut at = 0;
        for digit in rate.prefix.bytes().map(|b| usize::from(b - b'0')) {
            let next = self.nodes[at].children[digit] as usize;
            at = if next == 0 {
                let new = self.nodes.len();
                self.nodes.push(Node::default());
                self.nodes[at].children[digit] = u32::try_from(new).unwrap_or(0);
                new
            } else {
                next
            };
        }
        self.nodes[at].lines.push(u32::try_from(self.lines.len()).unwrap_or(u32::MAX));
        self.lines.push(Line {
            prefix: rate.prefix.as_str().into(),
            destination: rate.destination.as_str().into(),
            terms: rate.terms,
            from: rate.effective_from,
            until: rate.effective_until,
        });
    }

    /// The line with the longest prefix of `digits` (a number without plus) that is in effect at `at`.
    #[must_use]
    pub fn rate(&self, digits: &str, at: Timestamp) -> Option<RateApplied> {
        let mut node = &self.nodes[0];
        let mut found = self.effective(node, at);
        for digit in digits.bytes() {
            let child = node.children.get(usize::from(digit.wrapping_sub(b'0'))).copied().unwrap_or(0);
            if child == 0 {
                break;
            }
            node = &self.nodes[child as usize];
            found = self.effective(node, at).or(found);
        }
        found.map(|line| RateApplied {
            deck: self.name.as_str().into(),
            deck_version: self.version,
            prefix: line.prefix.clone(),
            destination: line.destination.clone(),
            terms: line.terms,
            tax_included: self.tax_included,
        })
    }

    fn effective(&self, node: &Node, at: Timestamp) -> Option<&Line> {
        let lines = node.lines.iter().filter_map(|&index| self.lines.get(index as usize));
        // Of several lines in effect the one that began last replaces the others.
        lines
            .filter(|l| l.from.is_none_or(|from| from <= at) && l.until.is_none_or(|until| at < until))
            .max_by_key(|l| l.from)
    }

    /// Of its prices.
    #[must_use]
    pub const fn currency(&self) -> Currency {
        self.currency
    }
}

/// All decks and trunks as of one moment.
#[derive(Default)]
pub struct Tariffs {
    /// By identity.
    pub decks: BTreeMap<DeckId, Deck>,
    /// In order of their names.
    pub trunks: Vec<Trunk>,
}

impl Tariffs {
    /// Builds the tries.
    #[must_use]
    pub fn build(decks: &[storage::Deck], mut trunks: Vec<Trunk>) -> Self {
        trunks.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        Self { decks: decks.iter().map(|deck| (deck.id, Deck::build(deck))).collect(), trunks }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use schema::money::{Micros, NanosPerMinute};
    use uuid::Uuid;

    pub(crate) fn line(prefix: &str, per_minute: i64) -> storage::Rate {
        storage::Rate {
            prefix: prefix.into(),
            destination: format!("destination {prefix}"),
            terms: RateTerms {
                per_minute: NanosPerMinute(per_minute),
                connect_fee: Micros(0),
                minimum_s: 0,
                increment_s: 1,
                grace_s: 0,
            },
            effective_from: None,
            effective_until: None,
        }
    }

    pub(crate) fn deck(id: u128, rates: Vec<storage::Rate>) -> storage::Deck {
        storage::Deck {
            id: DeckId(Uuid::from_u128(id)),
            name: format!("deck {id}"),
            currency: Currency::parse("EUR").expect("a currency"),
            tax_included: true,
            version: DeckVersionId(Uuid::from_u128(id + 1_000)),
            rates,
        }
    }

    const AT: Timestamp = Timestamp(1_000);

    #[test]
    fn the_longest_prefix_wins() {
        let deck = Deck::build(&deck(1, vec![line("44", 10), line("447", 20), line("4477009", 30), line("1", 5)]));
        for (digits, prefix) in
            [("441632960001", "44"), ("447911123456", "447"), ("447700900123", "4477009"), ("12125550123", "1")]
        {
            assert_eq!(deck.rate(digits, AT).map(|r| r.prefix), Some(prefix.into()), "{digits}");
        }
        assert_eq!(deck.rate("33612345678", AT), None);
    }

    #[test]
    fn a_line_counts_only_in_its_time() {
        let mut early = line("44", 10);
        early.effective_until = Some(Timestamp(500));
        let mut late = line("44", 20);
        late.effective_from = Some(Timestamp(500));
        let deck = Deck::build(&deck(1, vec![early, late, line("4", 1)]));
        let price = |at| deck.rate("447700900123", Timestamp(at)).map(|r| r.terms.per_minute.0);
        assert_eq!((price(499), price(500)), (Some(10), Some(20)));
        assert_eq!(deck.rate("4912345678", AT).map(|r| r.prefix), Some("4".into()));
    }

    proptest! {
        #[test]
        fn the_trie_finds_what_a_search_through_all_lines_finds(
            prefixes in proptest::collection::btree_set("[0-9]{1,6}", 0..40), digits in "[1-9][0-9]{6,14}",
        ) {
            let deck = Deck::build(&deck(1, prefixes.iter().map(|p| line(p, 1)).collect()));
            let longest = prefixes.iter().filter(|p| digits.starts_with(p.as_str())).max_by_key(|p| p.len()).cloned();
            prop_assert_eq!(deck.rate(&digits, AT).map(|r| r.prefix.into_string()), longest);
        }
    }
}
