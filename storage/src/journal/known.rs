//! What was committed last of the accounts that write, so that it need not be looked for. A row that is there never goes, and
//! whoever wrote another one meanwhile has taken its number, which the key refuses then: a hint that is wrong costs a look.

use super::encode::Newest;
use schema::id::AccountKey;
use std::collections::{BTreeMap, HashMap};

/// Of one connection, and gone with it: the next may lead to a database that has lost what this one had.
#[derive(Default)]
pub(super) struct Known {
    of: HashMap<AccountKey, Newest>,
}

impl Known {
    /// Accounts known at most, some 10 MB; then it begins anew.
    const MOST: usize = 262_144;

    pub(super) fn of(&self, account: AccountKey) -> Option<Newest> {
        self.of.get(&account).copied()
    }

    /// A batch was committed.
    pub(super) fn learn(&mut self, newest: BTreeMap<AccountKey, Newest>) {
        if self.of.len() + newest.len() > Self::MOST {
            self.of.clear();
        }
        self.of.extend(newest);
    }
}
