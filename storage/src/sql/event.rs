//! Events in SQL.

use super::account::count;
use super::{SqlStore, values};
use crate::error::StoreError;
use crate::event::{EventRow, flatten};
use crate::keyring::{Class, Subject};
use schema::event::{AccountEvent, EventCursor};
use schema::id::{AccountKey, Seq};
use schema::time::Timestamp;

/// Accounts whose events are purged in one transaction.
const PURGE_RANGE: i64 = 1_000;

impl SqlStore {
    pub(crate) async fn events_after(
        &self,
        account: AccountKey,
        after: EventCursor,
        limit: usize,
    ) -> Result<Vec<AccountEvent>, StoreError> {
        let subject = Subject::Account(account);
        self.keys.load(&[subject]).await?;
        // Entries without events give nothing: read on past them. The row of the cursor itself may give nothing either.
        let text = "select seq, at, payload from events where account_key = $1 and seq >= $2 and count > 0 order by seq limit $3";
        let mut rows = Vec::new();
        for mut row in self.db.fetch(text, values![account.0, after.seq.0, count(limit) + 1]).await? {
            let (seq, at, payload) = (Seq(row.int()?), Timestamp(row.int()?), row.bytes()?);
            let opened = self.keys.unseal_json(subject, Class::Calls, "events.payload", &payload)?;
            rows.extend(opened.map(|bodies| EventRow { seq, at, bodies }));
        }
        Ok(flatten(rows.into_iter(), after, limit))
    }

    pub(crate) async fn oldest_event(&self, account: AccountKey) -> Result<Option<EventCursor>, StoreError> {
        let row = self.db.fetch_one("select min(seq) from events where account_key = $1", values![account.0]).await?;
        let Some(mut row) = row else { return Ok(None) };
        Ok(row.opt_int()?.map(|seq| EventCursor { seq: Seq(seq), index: 0 }))
    }

    pub(crate) async fn purge_events(&self, older_than: Timestamp, keep: u32) -> Result<u64, StoreError> {
        let last = self.db.fetch_one("select max(key) from accounts", values![]).await?;
        let last = last.map(|mut row| row.opt_int()).transpose()?.flatten().unwrap_or(0);
        let text = "delete from events where account_key > $1 and account_key <= $2 and (at < $3 or seq <= \
                    (select seq from accounts where key = events.account_key) - $4)";
        let mut removed = 0;
        for after in (0..last).step_by(usize::try_from(PURGE_RANGE).unwrap_or(1)) {
            removed += self.db.execute(text, values![after, after + PURGE_RANGE, older_than.0, keep]).await?;
        }
        Ok(removed)
    }
}
