//! Events in SQL.

use super::account::count;
use super::{SqlStore, values};
use crate::error::StoreError;
use crate::event::{EventRow, Payload, flatten};
use crate::keyring::{Class, Subject};
use schema::call::Cdr;
use schema::event::{AccountEvent, EventBody, EventCursor};
use schema::id::{AccountKey, Seq};
use schema::time::Timestamp;
use std::ops::RangeInclusive;

/// Accounts that are looked at in one statement.
const PURGE_ACCOUNTS: i64 = 1_000;

/// Entries whose events are purged in one transaction.
const PURGE_ENTRIES: i64 = 1_000;

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
        let text = "select seq, entries.at, payload, record from entries join events on events.id = entries.id \
                    left join cdrs on cdrs.account_key = entries.account_key and cdrs.no = call_no and leg is null \
                    where entries.account_key = $1 and seq >= $2 and position = 0 order by seq limit $3";
        let mut rows = Vec::new();
        for mut row in self.db.fetch(text, values![account.0, after.seq.0, count(limit) + 1]).await? {
            let (seq, at, payload) = (Seq(row.int()?), Timestamp(row.int()?), row.bytes()?);
            let opened = self.keys.unseal_json(subject, Class::Calls, "events.payload", &payload)?;
            let Some(payload): Option<Payload<EventBody>> = opened else { continue };
            let record = row.opt_bytes()?.filter(|_| payload.needs_record());
            let cdr = match record {
                Some(record) => self.keys.unseal_json::<Cdr>(subject, Class::Calls, "cdrs.record", &record)?,
                None => None,
            };
            rows.push(EventRow { seq, at, bodies: payload.bodies(cdr.map(|cdr| cdr.call))? });
        }
        Ok(flatten(rows.into_iter(), after, limit))
    }

    pub(crate) async fn oldest_event(&self, account: AccountKey) -> Result<Option<EventCursor>, StoreError> {
        let text = "select events_from from accounts \
                    where key = $1 and events_from <= (select max(seq) from entries where account_key = $1)";
        let row = self.db.fetch_one(text, values![account.0]).await?;
        row.map(|mut row| Ok(EventCursor { seq: Seq(row.int()?), index: 0 })).transpose()
    }

    pub(crate) async fn purge_events(&self, young: RangeInclusive<Timestamp>, keep: u32) -> Result<u64, StoreError> {
        let (mut purged, mut after) = (0, 0);
        loop {
            let mut due = Vec::new();
            let page = self.db.fetch(FLOORS, values![after, young.start().0, PURGE_ACCOUNTS, young.end().0]).await?;
            if page.is_empty() {
                return Ok(purged);
            }
            for mut row in page {
                let (account, from, newest, first_young) = (row.int()?, row.int()?, row.int()?, row.int()?);
                let to = first_young.max(newest - i64::from(keep) + 1);
                due.extend((from < to).then_some(Due { account, from, to }));
                after = account;
            }
            purged += self.purge(due).await?;
        }
    }

    /// In transactions of at most so many entries.
    async fn purge(&self, mut due: Vec<Due>) -> Result<u64, StoreError> {
        let mut purged = 0;
        while !due.is_empty() {
            let (mut tx, mut room) = (self.db.write().await?, PURGE_ENTRIES);
            while let Some(next) = due.last_mut().filter(|_| room > 0) {
                let to = next.to.min(next.from + room);
                let gone = "delete from events where id in (select id from entries where account_key = $1 and seq >= $2 and seq < $3)";
                tx.execute(gone, values![next.account, next.from, to]).await?;
                tx.execute("update accounts set events_from = $2 where key = $1", values![next.account, to]).await?;
                room -= to - next.from;
                purged += (to - next.from).unsigned_abs();
                next.from = to;
                if next.from == next.to {
                    due.pop();
                }
            }
            tx.commit().await?;
        }
        Ok(purged)
    }
}

/// Entries of an account whose events are to be purged: from, and up to but not with.
struct Due {
    account: i64,
    from: i64,
    to: i64,
}

/// Of the next accounts above a key: from where their events are kept, the newest entry, and the first kept one that is young
/// enough, or the one to come. Each account is found by its newest entry and by those that are to be purged now: those that were
/// are not seen again.
const FLOORS: &str = "\
    select account, events_from, newest, coalesce((select e.seq from entries e where e.account_key = a.account \
        and e.seq >= events_from and e.at between $2 and $4 order by e.seq limit 1), newest + 1) from (\
            select key as account, events_from, \
                coalesce((select max(e.seq) from entries e where e.account_key = accounts.key), 0) as newest \
            from accounts where key > $1 order by key limit $3) as a order by account";
