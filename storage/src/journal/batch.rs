//! Batches: what is written in one transaction, who is told afterwards, and who may not be written after a rejection.

use super::encode::{Encoded, encode};
use super::pace::Patience;
use super::vital::or_end;
use super::{Counts, Done, Item};
use crate::keyring::{Keyring, Subject};
use schema::id::AccountKey;
use schema::journal::{Entry, Outcome, Rejection};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};

/// What is written in one transaction, in the order of submission, and who is told afterwards.
pub(super) struct Batch<E> {
    entries: Vec<E>,
    slots: Vec<Slot>,
    flushes: Vec<oneshot::Sender<()>>,
}

struct Slot {
    account: AccountKey,
    ticket: u64,
    done: Done,
}

impl<E> Default for Batch<E> {
    fn default() -> Self {
        Self { entries: Vec::new(), slots: Vec::new(), flushes: Vec::new() }
    }
}

impl<E> Batch<E> {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.flushes.is_empty()
    }

    fn push(&mut self, account: AccountKey, ticket: u64, entry: E, done: Done) {
        self.entries.push(entry);
        self.slots.push(Slot { account, ticket, done });
    }
}

impl Batch<Entry> {
    /// Takes what waits, as it is; `None` when nothing can come any more.
    pub(super) async fn next(waiting: &mut mpsc::Receiver<Item>, limit: usize) -> Option<Self> {
        let mut batch = Self::default();
        batch.add(waiting.recv().await?);
        while batch.len() < limit {
            let Ok(item) = waiting.try_recv() else { break };
            batch.add(item);
        }
        Some(batch)
    }

    fn add(&mut self, item: Item) {
        match item {
            Item::Entry(ticket, entry, done) => self.push(entry.account, ticket, *entry, done),
            Item::Flush(reached) => self.flushes.push(reached),
        }
    }
}

/// A batch whose entries are being written: each slot with whether its entry may not be.
pub(super) struct Writing {
    slots: Vec<(Slot, bool)>,
    flushes: Vec<oneshot::Sender<()>>,
}

/// A batch whose outcome is known.
pub(super) struct Written {
    outcomes: Vec<(AccountKey, Done, Outcome)>,
    flushes: Vec<oneshot::Sender<()>>,
    fences: Arc<Mutex<BTreeMap<AccountKey, Fence>>>,
    counts: Arc<Counts>,
}

/// What may not be written of an account of which an entry was rejected.
#[derive(Default)]
struct Fence {
    /// Rejections that are known here and not told yet: until they are, nothing is written.
    untold: usize,
    /// Entries with a ticket below this were decided before the last rejection was told.
    below: u64,
}

/// After a rejection: which entries of an account were decided before it was told, in whichever batch they are. Telling runs
/// beside writing, so the two share them.
pub(super) struct Fences {
    counts: Arc<Counts>,
    of: Arc<Mutex<BTreeMap<AccountKey, Fence>>>,
}

fn lock(fences: &Mutex<BTreeMap<AccountKey, Fence>>) -> MutexGuard<'_, BTreeMap<AccountKey, Fence>> {
    fences.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fences {
    pub(super) fn new(counts: Arc<Counts>) -> Self {
        Self { counts, of: Arc::default() }
    }

    /// Parts the entries that may be written from who is told. Asked when the batch before is done with, not when the entry
    /// was collected: a rejection in the batch before concerns this one too.
    pub(super) fn admit<E>(&mut self, batch: Batch<E>) -> (Vec<E>, Writing) {
        let (mut admitted, mut slots) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        let mut fences = lock(&self.of);
        for (entry, slot) in batch.entries.into_iter().zip(batch.slots) {
            let fence = fences.get(&slot.account);
            let fenced = fence.is_some_and(|fence| fence.untold > 0 || slot.ticket < fence.below);
            if !fenced {
                fences.remove(&slot.account);
                admitted.push(entry);
            }
            slots.push((slot, fenced));
        }
        if !admitted.is_empty() {
            self.counts.batches.fetch_add(1, Ordering::Relaxed);
            self.counts.entries.fetch_add(admitted.len() as u64, Ordering::Relaxed);
        }
        (admitted, Writing { slots, flushes: batch.flushes })
    }

    /// Takes the outcomes of the admitted entries, in order.
    pub(super) fn conclude(&mut self, batch: Writing, outcomes: Vec<Outcome>) -> Written {
        let mut outcomes = outcomes.into_iter();
        let mut fences = lock(&self.of);
        let told = batch.slots.into_iter().map(|(slot, fenced)| {
            let outcome =
                if fenced { Err(Rejection::Fenced) } else { outcomes.next().expect("one outcome for each entry") };
            if outcome.is_err() {
                fences.entry(slot.account).or_default().untold += 1;
            }
            (slot.account, slot.done, outcome)
        });
        let (fences, counts) = (self.of.clone(), self.counts.clone());
        Written { outcomes: told.collect(), flushes: batch.flushes, fences, counts }
    }
}

impl Written {
    /// Tells everyone. A panic in one `done` is not the others' concern.
    pub(super) fn tell(self) {
        for (account, done, outcome) in self.outcomes {
            if outcome.is_err() {
                // Whatever was handed over until now was decided before anyone could know of the rejection.
                let mut fences = lock(&self.fences);
                let fence = fences.entry(account).or_default();
                fence.untold = fence.untold.saturating_sub(1);
                fence.below = self.counts.tickets.load(Ordering::Acquire);
            }
            if catch_unwind(AssertUnwindSafe(|| done(outcome))).is_err() {
                tracing::error!("an acknowledgement panicked");
            }
        }
        for reached in self.flushes {
            let _ = reached.send(());
        }
    }
}

/// Where the next batch is collected while the present one is written.
pub(super) struct Hopper {
    limit: usize,
    state: Mutex<State>,
    /// There is as much as the writer waits for.
    filled: Notify,
    /// There is room again.
    taken: Notify,
}

#[derive(Default)]
struct State {
    next: Batch<Encoded>,
    /// What the writer waits for; 0: it does not wait.
    wanted: usize,
    closed: bool,
}

impl Hopper {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default(), filled: Notify::new(), taken: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to the next batch; false while it is full.
    fn try_put(&self, add: impl FnOnce(&mut Batch<Encoded>)) -> bool {
        let mut state = self.state();
        if state.next.len() >= self.limit {
            return false;
        }
        add(&mut state.next);
        let enough = state.next.len() >= state.wanted || !state.next.flushes.is_empty();
        if state.wanted > 0 && enough {
            state.wanted = 0;
            self.filled.notify_one();
        }
        true
    }

    /// Adds to the next batch; waits while it is full.
    async fn put(&self, mut add: impl FnMut(&mut Batch<Encoded>)) {
        while !self.try_put(&mut add) {
            self.taken.notified().await;
        }
    }

    fn is_full(&self) -> bool {
        self.state().next.len() >= self.limit
    }

    fn close(&self) {
        self.state().closed = true;
        self.filled.notify_one();
    }

    /// Takes the next batch; `None` when nothing can come any more.
    pub(super) async fn take(&self) -> Option<Batch<Encoded>> {
        self.has_some().await.then(|| self.take_now())
    }

    /// As [`Self::take`]; when something is there it waits for more as long as is worth while.
    pub(super) async fn take_patiently(&self, patience: &mut Patience) -> Option<Batch<Encoded>> {
        if !self.has_some().await {
            return None;
        }
        self.linger(patience).await;
        Some(self.take_now())
    }

    /// Waits for something; false when nothing can come any more.
    async fn has_some(&self) -> bool {
        loop {
            {
                let mut state = self.state();
                if !state.next.is_empty() {
                    return true;
                }
                if state.closed {
                    return false;
                }
                state.wanted = 1;
            }
            self.filled.notified().await;
        }
    }

    fn take_now(&self) -> Batch<Encoded> {
        let mut state = self.state();
        state.wanted = 0;
        let next = std::mem::take(&mut state.next);
        drop(state);
        self.taken.notify_one();
        next
    }

    /// Waits for those who were just told: their next entries are worth a moment.
    async fn linger(&self, patience: &mut Patience) {
        if let Some((wanted, most)) = patience.linger() {
            patience.lingered(self.gather(wanted, most).await);
        }
    }

    /// Waits until so many are there or the time is over; not when somebody waits for the batch, or nothing can come any more.
    /// Whether they came.
    pub(super) async fn gather(&self, wanted: usize, most: Duration) -> bool {
        let wanted = wanted.min(self.limit);
        {
            let mut state = self.state();
            if state.next.len() >= wanted || !state.next.flushes.is_empty() || state.closed {
                return true;
            }
            state.wanted = wanted;
        }
        let came = tokio::time::timeout(most, self.filled.notified()).await.is_ok();
        self.state().wanted = 0;
        came
    }

    /// Entries in the next batch so far.
    pub(super) fn waiting(&self) -> usize {
        self.state().next.len()
    }
}

/// Where entries are sealed, encoded and put into the next batch: by whoever submits them, as long as their keys are at hand and
/// nobody waits in line, else by [`collect`]. So an account's entries keep their order: its own are in line, or none is.
#[derive(Clone)]
pub(super) struct Desk {
    hopper: Arc<Hopper>,
    keys: Keyring,
    line: Arc<AtomicUsize>,
}

impl Desk {
    pub(super) fn new(hopper: Arc<Hopper>, keys: Keyring) -> Self {
        Self { hopper, keys, line: Arc::default() }
    }

    /// Gives the entry back when it has to stand in line.
    pub(super) fn put(&self, ticket: u64, entry: Entry, done: Done) -> Option<(Entry, Done)> {
        let is_loaded = self.keys.is_loaded(Subject::Account(entry.account));
        if self.line.load(Ordering::Acquire) > 0 || !is_loaded || self.hopper.is_full() {
            return Some((entry, done));
        }
        let encoded = or_end("journal", || encode(&entry, &self.keys));
        let mut done = Some(done);
        let add = |batch: &mut Batch<Encoded>| {
            if let Some(done) = done.take() {
                batch.push(entry.account, ticket, encoded, done);
            }
        };
        // Others may have filled it meanwhile: then it is encoded once more, later.
        self.hopper.try_put(add);
        done.map(|done| (entry, done))
    }

    /// Somebody goes in line; not when that is full.
    pub(super) fn in_line<E>(&self, go: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        self.line.fetch_add(1, Ordering::AcqRel);
        go().inspect_err(|_| self.served())
    }

    fn served(&self) {
        self.line.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Takes entries from the queue, encodes and seals them, and puts them into the next batch. Ends with the queue.
pub(super) async fn collect(mut waiting: mpsc::Receiver<Item>, desk: Desk) {
    let Desk { hopper, keys, .. } = &desk;
    let _closing = Closing(hopper.clone());
    let mut items = Vec::with_capacity(64);
    while waiting.recv_many(&mut items, 64).await > 0 {
        for item in items.drain(..) {
            match item {
                Item::Entry(ticket, entry, done) => {
                    let subject = Subject::Account(entry.account);
                    if !keys.is_loaded(subject)
                        && let Err(error) = keys.load(&[subject]).await
                    {
                        tracing::error!(%error, "keys cannot be read");
                    }
                    let mut encoded = Some((encode(&entry, keys), done));
                    let add = |batch: &mut Batch<Encoded>| {
                        if let Some((encoded, done)) = encoded.take() {
                            batch.push(entry.account, ticket, encoded, done);
                        }
                    };
                    hopper.put(add).await;
                    desk.served();
                }
                Item::Flush(reached) => {
                    let mut reached = Some(reached);
                    hopper.put(|batch| batch.flushes.extend(reached.take())).await;
                }
            }
        }
    }
}

/// Nothing comes any more, however the collecting ended.
struct Closing(Arc<Hopper>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch of one entry, which is handed over now.
    fn handed_over(counts: &Counts) -> Batch<()> {
        let mut batch = Batch::default();
        batch.push(AccountKey(1), counts.tickets.fetch_add(1, Ordering::AcqRel), (), Box::new(|_| {}));
        batch
    }

    #[test]
    fn what_is_handed_over_before_a_rejection_is_told_is_not_written() {
        let counts = Arc::new(Counts::default());
        let mut fences = Fences::new(counts.clone());
        let (_, writing) = fences.admit(handed_over(&counts));
        let rejected = fences.conclude(writing, vec![Err(Rejection::Failed)]);
        // Its rejection is known to the writer, and not told yet.
        let (admitted, writing) = fences.admit(handed_over(&counts));
        assert!(admitted.is_empty());
        let late = handed_over(&counts);
        rejected.tell();
        fences.conclude(writing, Vec::new()).tell();
        let (admitted, writing) = fences.admit(late);
        assert!(admitted.is_empty());
        fences.conclude(writing, Vec::new()).tell();
        assert_eq!(fences.admit(handed_over(&counts)).0.len(), 1);
    }

    fn entry() -> Encoded {
        let (account, seq, last_call) = (AccountKey(1), schema::id::Seq(1), schema::id::CallNo(0));
        let (keys, at) = (Vec::new(), schema::time::Timestamp(0));
        Encoded { account, seq, at, keys, begins: false, last_call, rows: Err("a test") }
    }

    #[tokio::test(start_paused = true)]
    async fn who_lets_entries_gather_goes_on_when_there_are_enough() {
        let (hopper, begun) = (Hopper::new(512), tokio::time::Instant::now());
        let put = |count: usize| {
            for _ in 0..count {
                assert!(hopper.try_put(|batch| batch.push(AccountKey(1), 0, entry(), Box::new(|_| {}))));
            }
        };
        let most = Duration::from_millis(4);
        put(2);
        assert!(!hopper.gather(3, most).await);
        assert_eq!(begun.elapsed(), most, "too few");
        let (came, ()) = tokio::join!(hopper.gather(3, most), async { put(1) });
        assert!(came && hopper.gather(3, most).await, "enough came, and are there");
        assert_eq!(begun.elapsed(), most);
        let flush = async { assert!(hopper.try_put(|batch| batch.flushes.push(oneshot::channel().0))) };
        assert!(tokio::join!(hopper.gather(9, most), flush).0, "somebody waits for the batch");
        assert_eq!(begun.elapsed(), most);
        assert_eq!(hopper.take().await.map(|batch| batch.len()), Some(3));
        hopper.close();
        assert!(hopper.gather(3, most).await && hopper.take().await.is_none(), "nothing can come any more");
    }
}
