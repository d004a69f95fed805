//! Events to subscribers without a gap. A hub stands outside the account's actor, so it survives panics and passivation, and
//! exists only while somebody subscribes. A subscriber reads storage up to the present, then the hub's small ring; when it
//! was slower than the ring it reads storage again.

use dashmap::DashMap;
use futures_util::Stream;
use schema::event::{AccountEvent, EventBody, EventCursor};
use schema::id::{AccountKey, Seq};
use schema::time::Timestamp;
use schema::wrong::{self, Wrong};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use storage::{Store, StoreError};
use tokio::sync::watch;

/// Events kept for subscribers that are nearly up to date.
const RING: usize = 256;
/// Events read from storage at once.
const PAGE: u32 = 200;

/// What a subscriber gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventItem {
    /// An event, in order.
    Event(AccountEvent),
    /// What happened after the asked place is no longer kept: take a snapshot; events after this cursor follow.
    SnapshotRequired(EventCursor),
}

/// The hubs of all accounts that somebody subscribes to.
#[derive(Default)]
pub(crate) struct Hubs(DashMap<AccountKey, Arc<Hub>>);

struct Hub {
    ring: Mutex<Ring>,
    /// Changes with every publication.
    published: watch::Sender<u64>,
}

#[derive(Default)]
struct Ring {
    events: VecDeque<AccountEvent>,
    /// The last event that subscribers can only find in storage.
    evicted: EventCursor,
    subscribers: usize,
}

impl Hub {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hubs {
    /// Whether anybody subscribes; if not, an entry's events need not be kept for [`Hubs::publish`].
    pub(crate) fn is_heard(&self, account: AccountKey) -> bool {
        self.0.contains_key(&account)
    }

    /// Publishes a committed entry's events. `last` is the place of its last one; `events` are `None` when nobody
    /// subscribed at the time of the decision: whoever did since finds them in storage.
    pub(crate) fn publish(
        &self,
        account: AccountKey,
        at: Timestamp,
        last: EventCursor,
        events: Option<Vec<EventBody>>,
    ) {
        let Some(hub) = self.0.get(&account).map(|hub| hub.clone()) else { return };
        {
            let mut ring = hub.ring();
            match events {
                None => ring.evicted = ring.evicted.max(last),
                Some(bodies) => {
                    let mut events: Vec<_> = (0_u16..).zip(bodies).collect();
                    if wrong::chosen(Wrong::EventOrderBroken) {
                        events.reverse();
                    }
                    let events = events.into_iter();
                    ring.events.extend(events.map(|(index, body)| AccountEvent {
                        cursor: EventCursor { seq: last.seq, index },
                        at,
                        body,
                    }));
                    while ring.events.len() > RING {
                        if let Some(old) = ring.events.pop_front() {
                            ring.evicted = ring.evicted.max(old.cursor);
                        }
                    }
                }
            }
        }
        hub.published.send_modify(|version| *version = version.wrapping_add(1));
    }

    fn subscribe(self: &Arc<Self>, account: AccountKey) -> Subscription {
        let hub = self
            .0
            .entry(account)
            .or_insert_with(|| Arc::new(Hub { ring: Mutex::default(), published: watch::Sender::new(0) }));
        hub.ring().subscribers += 1;
        let hub = hub.clone();
        Subscription { hubs: self.clone(), account, published: hub.published.subscribe(), hub }
    }

    /// Accounts that somebody subscribes to.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A subscriber's hold on a hub; the last one frees it.
struct Subscription {
    hubs: Arc<Hubs>,
    account: AccountKey,
    hub: Arc<Hub>,
    published: watch::Receiver<u64>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.ring().subscribers -= 1;
        self.hubs.0.remove_if(&self.account, |_, hub| hub.ring().subscribers == 0);
    }
}

/// The events of an account from `after`, without end. `present` gives the place of the last committed event.
pub(crate) fn events<P>(
    hubs: &Arc<Hubs>,
    store: Store,
    account: AccountKey,
    after: Option<EventCursor>,
    present: P,
) -> impl Stream<Item = EventItem> + Send + use<P>
where
    P: Future<Output = EventCursor> + Send + 'static,
{
    // The hub exists before the present is asked for: whatever is committed later goes through it.
    let subscription = hubs.subscribe(account);
    let start = async move {
        let present = present.await;
        let reader = |cursor| Reader { subscription, store, account, cursor, behind: true, ready: VecDeque::new() };
        match after {
            None => (None, reader(present)),
            Some(after) => {
                let mut reader = reader(after);
                if reader.is_kept(after, present).await {
                    return (None, reader);
                }
                reader.cursor = present;
                (Some(EventItem::SnapshotRequired(present)), reader)
            }
        }
    };
    let rest = |(first, reader): (Option<EventItem>, Reader)| {
        let first = futures_util::stream::iter(first);
        let events =
            futures_util::stream::unfold(reader, |mut reader| async move { Some((reader.next().await, reader)) });
        futures_util::StreamExt::chain(first, events)
    };
    futures_util::StreamExt::flat_map(futures_util::stream::once(start), rest)
}

struct Reader {
    subscription: Subscription,
    store: Store,
    account: AccountKey,
    /// The last event given.
    cursor: EventCursor,
    /// Storage may have events that the ring has not.
    behind: bool,
    ready: VecDeque<AccountEvent>,
}

/// What reading storage has shown.
enum Read {
    /// What follows, or that nothing does.
    On,
    /// That some of what follows is no longer kept.
    Purged,
    /// Nothing: it could not be read.
    Failed,
}

impl Reader {
    /// Whether everything after `after` can still be read.
    async fn is_kept(&self, after: EventCursor, present: EventCursor) -> bool {
        if after > present {
            return false;
        }
        match self.store.oldest_event(self.account).await {
            Ok(Some(oldest)) => after.seq.0 >= oldest.seq.0 - 1,
            Ok(None) => after >= present,
            Err(_) => false,
        }
    }

    async fn next(&mut self) -> EventItem {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.cursor = event.cursor;
                return EventItem::Event(event);
            }
            self.subscription.published.borrow_and_update();
            if self.behind {
                match self.read_storage().await {
                    Read::On => {}
                    Read::Purged => return EventItem::SnapshotRequired(self.cursor),
                    // What the ring has may not be what comes next.
                    Read::Failed => continue,
                }
            }
            self.behind = !self.read_ring();
            if self.ready.is_empty() && !self.behind {
                // The sender lives as long as the subscription.
                let _ = self.subscription.published.changed().await;
            }
        }
    }

    /// Reads on from storage. When a purge has passed the cursor, the cursor moves to what is kept.
    async fn read_storage(&mut self) -> Read {
        let evicted = self.subscription.hub.ring().evicted;
        match self.page().await {
            Ok((events, oldest)) => {
                let kept_from = oldest.map_or(evicted, |oldest| EventCursor { seq: Seq(oldest.seq.0 - 1), index: 0 });
                if kept_from.seq > self.cursor.seq {
                    self.cursor = kept_from;
                    return Read::Purged;
                }
                if events.is_empty() {
                    self.cursor = self.cursor.max(evicted);
                }
                self.ready.extend(events);
            }
            Err(error) => {
                tracing::warn!(%error, "events could not be read");
                tokio::time::sleep(Duration::from_secs(1)).await;
                return Read::Failed;
            }
        }
        Read::On
    }

    /// Events after the cursor, and the oldest that is kept, asked last: so a purge between the two is noticed.
    async fn page(&self) -> Result<(Vec<AccountEvent>, Option<EventCursor>), StoreError> {
        let events = self.store.events_after(self.account, self.cursor, PAGE).await?;
        Ok((events, self.store.oldest_event(self.account).await?))
    }

    /// False when the ring lost what comes next.
    fn read_ring(&mut self) -> bool {
        if !self.ready.is_empty() {
            return false;
        }
        let ring = self.subscription.hub.ring();
        if ring.evicted > self.cursor {
            return false;
        }
        self.ready.extend(ring.events.iter().filter(|event| event.cursor > self.cursor).cloned());
        true
    }
}
