//! Batches: what is written in one transaction, who is told afterwards, and who may not be written after a rejection.

use super::encode::{Encoded, encode};
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
    pub(super) async fn take(&self, pace: &mut Pace) -> Option<Batch<Encoded>> {
        loop {
            {
                let mut state = self.state();
                if !state.next.is_empty() {
                    state.wanted = 0;
                    break;
                }
                if state.closed {
                    return None;
                }
                state.wanted = 1;
            }
            self.filled.notified().await;
        }
        self.linger(pace).await;
        let mut state = self.state();
        state.wanted = 0;
        let next = std::mem::take(&mut state.next);
        drop(state);
        self.taken.notify_one();
        Some(next)
    }

    /// Waits for those who were just told: on a slow disk their next entries are worth a moment.
    async fn linger(&self, pace: &mut Pace) {
        let Some((wanted, most)) = pace.linger() else { return };
        let wanted = wanted.min(self.limit);
        {
            let mut state = self.state();
            if state.next.len() >= wanted || !state.next.flushes.is_empty() || state.closed {
                return;
            }
            state.wanted = wanted;
        }
        let came = tokio::time::timeout(most, self.filled.notified()).await.is_ok();
        pace.lingered(came);
    }

    /// A batch was written and synced.
    pub(super) fn written(&self, pace: &mut Pace, commit: Commit) {
        if commit.entries > 0 {
            metrics::histogram!(COMMIT_SECONDS).record(commit.took);
        }
        pace.note(commit, self.state().next.len());
    }
}

/// Name of the metric: seconds from when a batch is taken until it is durable, or has failed.
const COMMIT_SECONDS: &str = "ringfence_journal_commit_seconds";

/// What writing a batch came to.
#[derive(Clone, Copy)]
pub(super) struct Commit {
    pub(super) entries: usize,
    pub(super) took: Duration,
    /// So much of it the writer worked; else it waited for the disk or the server.
    pub(super) worked: Duration,
}

/// Decides whether the writer waits a moment before it takes a batch. When callers wait for their answers, those of the batch
/// before come back together within less than a sync: without a moment's patience each would find the writer already gone, and
/// every batch would be half of what it could be. When they do not come back, it is tried ever less often.
///
/// A writer that works rather than waits gains nothing by larger batches: it goes on with half of them while the other half comes
/// back.
#[derive(Default)]
pub(super) struct Pace {
    /// How long the batch before took, and how many entries were in it.
    took: Duration,
    written: usize,
    /// Those who wait already.
    waiting: usize,
    /// Of those it told and those who waited meanwhile as many as are worth waiting for.
    wanted: usize,
    /// Batches until the next try, and how many after a try in vain.
    skip: u32,
    penalty: u32,
}

impl Pace {
    const SHORTEST: Duration = Duration::from_millis(1);
    const LONGEST: Duration = Duration::from_millis(2);
    const PENALTY_MAX: u32 = 256;
    /// Between the beginnings of two batches while entries come several at a time. A commit and the wake-ups around it cost as much
    /// as ten entries: at 400 calls/s a sixth of all processor time, for half a millisecond of an answer's.
    const BETWEEN: Duration = Duration::from_millis(2);
    /// So many are a batch whose commit costs little beside them.
    const PLENTY: usize = 64;

    /// A batch was written.
    fn note(&mut self, commit: Commit, waiting: usize) {
        let Commit { entries, took, worked } = commit;
        (self.took, self.written, self.waiting) = (took, entries, waiting);
        let present = entries + waiting;
        // One or two that have nothing more to say are no reason to wait for them.
        self.wanted = if worked > took / 2 { present / 2 } else { present * 7 / 8 };
    }

    /// How long to let entries gather before the next batch is looked at; nothing while they come one by one, or when there are
    /// plenty already.
    pub(super) fn pause(&self) -> Option<Duration> {
        let pause = Self::BETWEEN.saturating_sub(self.took);
        (self.written >= 2 && self.waiting < Self::PLENTY && !pause.is_zero()).then_some(pause)
    }

    /// For how many to wait, and how long at most.
    fn linger(&mut self) -> Option<(usize, Duration)> {
        let most = (self.took / 2).min(Self::LONGEST);
        if most < Self::SHORTEST || self.wanted < 2 {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        Some((self.wanted, most))
    }

    fn lingered(&mut self, came: bool) {
        self.penalty = if came { 0 } else { (self.penalty * 2).clamp(1, Self::PENALTY_MAX) };
        self.skip = self.penalty;
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
    fn entries_that_come_several_at_a_time_are_given_a_moment_to_gather() {
        let mut pace = Pace::default();
        assert_eq!(pace.pause(), None);
        let after = |pace: &mut Pace, took: u64, entries: usize, waiting: usize| {
            let took = Duration::from_micros(took);
            pace.note(Commit { entries, took, worked: Duration::ZERO }, waiting);
            pace.pause()
        };
        assert_eq!(after(&mut pace, 400, 1, 0), None, "one alone is answered at once");
        assert_eq!(after(&mut pace, 400, 2, 0), Some(Duration::from_micros(1_600)));
        assert_eq!(after(&mut pace, 400, 2, 63), Some(Duration::from_micros(1_600)));
        assert_eq!(after(&mut pace, 400, 2, 64), None, "plenty are there");
        assert_eq!(after(&mut pace, 1_999, 200, 0), Some(Duration::from_micros(1)));
        assert_eq!(after(&mut pace, 2_000, 200, 0), None);
    }

    #[test]
    fn a_writer_that_waits_for_its_disk_waits_for_nearly_all_and_one_that_works_for_half() {
        let mut pace = Pace::default();
        let mut after = |took: u64, worked: u64| {
            let [took, worked] = [took, worked].map(Duration::from_micros);
            pace.note(Commit { entries: 200, took, worked }, 56);
            pace.linger()
        };
        assert_eq!(after(3_000, 500), Some((224, Duration::from_micros(1_500))));
        assert_eq!(after(3_000, 2_000), Some((128, Duration::from_micros(1_500))));
        assert_eq!(after(1_900, 100), None, "a quick disk is not worth it");
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
}
