//! What happened in worlds, counted by name: a simulator is worth what it makes happen.

use std::collections::BTreeMap;
use std::fmt;

/// Counts by what they count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    /// It happened.
    pub fn add(&mut self, what: &'static str) {
        self.add_if(what, true);
    }

    /// It happened, or not: then it is named all the same.
    pub fn add_if(&mut self, what: &'static str, happened: bool) {
        self.add_many(what, u64::from(happened));
    }

    /// It happened so often.
    pub fn add_many(&mut self, what: &'static str, count: u64) {
        *self.0.entry(what).or_default() += count;
    }

    /// How often it happened.
    #[must_use]
    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// Adds what happened elsewhere.
    pub fn merge(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }
}

/// One line of "count name".
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (what, count)) in self.0.iter().enumerate() {
            write!(f, "{}{count} {what}", if number == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
