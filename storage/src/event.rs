//! Durable events: what subscribers read after a reconnect.

use crate::error::StoreError;
use crate::journal::{Movement, charged_call, movements};
use crate::store::{Backend, Store, page};
use schema::call::{Call, Cdr};
use schema::event::{AccountEvent, EventBody, EventCursor};
use schema::id::{AccountKey, CallNo, Seq};
use schema::journal::{Change, Entry};
use schema::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a moment may lie ahead of the clock.
const CLOCK_ERROR: Duration = Duration::from_secs(3_600);

/// The events of one journal entry, as the rows keep them.
#[derive(Debug, Clone)]
pub(crate) struct EventRow {
    pub(crate) seq: Seq,
    pub(crate) at: Timestamp,
    pub(crate) bodies: Vec<EventBody>,
}

/// What an entry told of, as it is stored. A call that is over stands in its record: it is not written twice.
#[derive(Serialize, Deserialize)]
pub(crate) struct Payload<Body> {
    /// All but that one.
    told: Vec<Body>,
    /// The place of the event that tells of the call whose record the entry's first row ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    over: Option<u16>,
}

impl<'e> Payload<&'e EventBody> {
    pub(crate) fn of(entry: &'e Entry) -> Self {
        let over = recorded(entry).and_then(|cdr| entry.events.iter().position(|event| tells_of(event, &cdr.call)));
        let told = entry.events.iter().enumerate().filter(|(place, _)| Some(*place) != over);
        Self { told: told.map(|(_, event)| event).collect(), over: over.and_then(|place| u16::try_from(place).ok()) }
    }
}

impl Payload<EventBody> {
    /// Whether the call's record is needed to read it.
    pub(crate) const fn needs_record(&self) -> bool {
        self.over.is_some()
    }

    /// All events, with the call of its record.
    ///
    /// # Errors
    /// The record is not there.
    pub(crate) fn bodies(self, over: Option<Call>) -> Result<Vec<EventBody>, StoreError> {
        let mut bodies = self.told;
        if let Some(place) = self.over {
            let missing = || StoreError::unreadable("events.payload", "a call without its record");
            let (place, call) = (usize::from(place), over.ok_or_else(missing)?);
            if place > bodies.len() {
                return Err(missing());
            }
            bodies.insert(place, EventBody::CallChanged(Box::new(call)));
        }
        Ok(bodies)
    }
}

/// The record of the call that an entry's first row ends.
fn recorded(entry: &Entry) -> Option<&Cdr> {
    let over: CallNo = match movements(entry).next()? {
        Movement::Transfer(transfer) => charged_call(transfer)?,
        Movement::Ended(call) => call,
        Movement::Hold(_) => return None,
    };
    entry.changes.iter().find_map(|change| match change {
        Change::CallEnded(cdr) if cdr.no == over => Some(&**cdr),
        _ => None,
    })
}

fn tells_of(event: &EventBody, call: &Call) -> bool {
    matches!(event, EventBody::CallChanged(told) if **told == *call)
}

/// The events of `rows` after `after`, at most `limit`.
pub(crate) fn flatten(rows: impl Iterator<Item = EventRow>, after: EventCursor, limit: usize) -> Vec<AccountEvent> {
    rows.flat_map(|row| {
        let place = move |index| EventCursor { seq: row.seq, index };
        (0_u16..).zip(row.bodies).map(move |(index, body)| AccountEvent { cursor: place(index), at: row.at, body })
    })
    .filter(|event| event.cursor > after)
    .take(limit)
    .collect()
}

/// The place of the last of an entry's `count` events.
pub(crate) fn last_cursor(seq: Seq, count: usize) -> EventCursor {
    EventCursor { seq, index: u16::try_from(count.saturating_sub(1)).unwrap_or(u16::MAX) }
}

impl Store {
    /// An account's events after `after`, in order, at most `limit` (1,000).
    ///
    /// # Errors
    /// The store failed.
    pub async fn events_after(
        &self,
        account: AccountKey,
        after: EventCursor,
        limit: u32,
    ) -> Result<Vec<AccountEvent>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.events_after(account, after, page(limit)).await,
            Backend::Memory(disk) => disk.read(|t| {
                let Some(account) = t.accounts.get(&account) else { return Vec::new() };
                flatten(account.events.range(after.seq..).map(|(_, row)| row.clone()), after, page(limit))
            }),
        }
    }

    /// The first event of an account that is still kept. Later ones follow without a gap, and so does everything after the
    /// entry before it: a subscriber needs a snapshot only when its cursor's seq is below `oldest.seq - 1`.
    ///
    /// # Errors
    /// The store failed.
    pub async fn oldest_event(&self, account: AccountKey) -> Result<Option<EventCursor>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.oldest_event(account).await,
            Backend::Memory(disk) => disk.read(|t| {
                let (seq, _) = t.accounts.get(&account)?.events.first_key_value()?;
                Some(EventCursor { seq: *seq, index: 0 })
            }),
        }
    }

    /// Removes of each account the events up to its first entry decided at `older_than` or later, and all but those of its last
    /// `keep` entries. An entry of a moment that is still to come, more than an hour after `now`, was decided under a clock that was
    /// wrong: it keeps nothing (D57). In short transactions. Returns of how many entries.
    ///
    /// # Errors
    /// The store failed; what was removed before stays removed.
    pub async fn purge_events(&self, older_than: Timestamp, now: Timestamp, keep: u32) -> Result<u64, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.purge_events(older_than..=now + CLOCK_ERROR, keep).await,
            Backend::Memory(disk) => disk.write(|t| {
                let (young, mut removed) = (older_than..=now + CLOCK_ERROR, 0);
                for account in t.accounts.values_mut() {
                    let before = account.events.len();
                    let bound = account.figures.seq.0 - i64::from(keep);
                    let kept = account.events.iter().find(|(seq, row)| young.contains(&row.at) && seq.0 > bound);
                    let from = kept.map_or(account.figures.seq.next(), |(seq, _)| *seq);
                    account.events = account.events.split_off(&from);
                    removed += (before - account.events.len()) as u64;
                }
                Ok(removed)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schema::account::AccountStatus;

    #[test]
    fn an_event_without_its_record_is_not_read() {
        let stored = |over| Payload { told: vec![EventBody::AccountChanged(AccountStatus::Active)], over };
        assert_eq!(stored(None).bodies(None).expect("whole").len(), 1);
        assert!(stored(Some(0)).needs_record() && stored(Some(0)).bodies(None).is_err());
    }
}
