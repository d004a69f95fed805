//! The newest committed entry of each account that writes, so that it need not be looked up. A row that is there never goes. If
//! somebody else wrote a newer one, ours has the same number, and the key refuses it: a hint that is stale costs a second try.

use super::encode::Newest;
use schema::id::AccountKey;
use std::collections::{BTreeMap, HashMap};

/// Of one connection, and gone with it: the next may lead to a database that has lost what this one had.
#[derive(Default)]
pub(super) struct Known {
    newest: HashMap<AccountKey, Newest>,
}

impl Known {
    /// Accounts known at most, some 10 MB; then it begins anew.
    const MOST: usize = 262_144;

    pub(super) fn of(&self, account: AccountKey) -> Option<Newest> {
        self.newest.get(&account).copied()
    }

    /// A batch was committed.
    pub(super) fn learn(&mut self, newest: BTreeMap<AccountKey, Newest>) {
        if self.newest.len() + newest.len() > Self::MOST {
            self.newest.clear();
        }
        self.newest.extend(newest);
    }
}
