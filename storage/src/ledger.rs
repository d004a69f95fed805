//! Transfers that were posted.

use crate::error::StoreError;
use crate::store::{Backend, Store, page};
use schema::id::{AccountKey, Seq, TransferId};
use schema::ledger::Transfer;
use schema::time::Timestamp;

/// A transfer's place in its account's ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LedgerCursor {
    /// The journal entry that posted it.
    pub seq: Seq,
    /// Its place among what that entry moved (holds, transfers, ends of calls), from 0.
    pub position: u16,
}

/// A transfer as it stands in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostedTransfer {
    /// Its place.
    pub cursor: LedgerCursor,
    /// When it was posted.
    pub at: Timestamp,
    /// What was posted.
    pub transfer: Transfer,
}

impl Store {
    /// An account's transfers, newest first, before the place `before`, at most `limit` (1,000).
    ///
    /// # Errors
    /// The store failed.
    pub async fn ledger_page(
        &self,
        account: AccountKey,
        before: Option<LedgerCursor>,
        limit: u32,
    ) -> Result<Vec<PostedTransfer>, StoreError> {
        let before = before.unwrap_or(LedgerCursor { seq: Seq(i64::MAX), position: 0 });
        match &self.backend {
            Backend::Sql(sql) => sql.ledger_page(account, before, page(limit)).await,
            Backend::Memory(disk) => disk.read(|t| {
                let Some(account) = t.accounts.get(&account) else { return Vec::new() };
                account.transfers.range(..before).rev().take(page(limit)).map(|(_, posted)| posted.clone()).collect()
            }),
        }
    }

    /// A transfer by its identity.
    ///
    /// # Errors
    /// The store failed.
    pub async fn transfer(&self, id: TransferId) -> Result<Option<(AccountKey, PostedTransfer)>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.transfer(id).await,
            Backend::Memory(disk) => disk.read(|t| {
                let &(key, cursor) = t.transfer_ids.get(&id)?;
                Some((key, t.accounts.get(&key)?.transfers.get(&cursor)?.clone()))
            }),
        }
    }

    /// The transfer that took an idempotency key of an account.
    ///
    /// # Errors
    /// The store failed.
    pub async fn transfer_by_key(&self, account: AccountKey, key: &str) -> Result<Option<PostedTransfer>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.transfer_by_key(account, key).await,
            Backend::Memory(disk) => disk.read(|t| {
                let account = t.accounts.get(&account)?;
                account.transfers.get(account.keys.get(key)?).cloned()
            }),
        }
    }
}
