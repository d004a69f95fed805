//! Batches written to a real SQLite file whose disk is held: each sync waits until it is let go.

use crate::samples::{World, hand_over};
use crate::{DatabaseUrl, Journal, JournalOptions, Keyring, MasterKey, Store};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Databases whose disk is held, each with how many syncs it is to make yet.
static HELD: Mutex<BTreeMap<PathBuf, u32>> = Mutex::new(BTreeMap::new());
static CHANGED: Condvar = Condvar::new();

fn held() -> MutexGuard<'static, BTreeMap<PathBuf, u32>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Called before each sync.
pub(super) fn wait_for_disk(database: &Path) {
    let mut held = held();
    while let Some(syncs) = held.get_mut(database) {
        if let Some(left) = syncs.checked_sub(1) {
            *syncs = left;
            return;
        }
        held = CHANGED.wait(held).unwrap_or_else(PoisonError::into_inner);
    }
}

/// A disk that makes no sync unless it is told to; let go with the value.
struct Disk(PathBuf);

impl Disk {
    fn hold(database: &Path) -> Self {
        let path = std::fs::canonicalize(database).expect("it is there");
        held().insert(path.clone(), 0);
        Self(path)
    }

    fn sync_once(&self) {
        *held().get_mut(&self.0).expect("held") += 1;
        CHANGED.notify_all();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        held().remove(&self.0);
        CHANGED.notify_all();
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if is_so() {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
    panic!("not within 10 s: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_batch_is_written_ahead_of_the_disk_and_nobody_is_told_before_their_own_sync() {
    let folder = tempfile::tempdir().expect("a folder");
    let [path, keys] = ["data.db", "keys.db"].map(|name| folder.path().join(name));
    let keys = Keyring::open(&DatabaseUrl::sqlite(keys), &MasterKey::from_bytes([9; 32])).await.expect("keys");
    let store = Store::open(&DatabaseUrl::sqlite(path.clone()), keys).await.expect("a store");
    let mut world = World::new(store.clone(), 1).await;
    let mut credits = Vec::new();
    for name in ["ann", "ben", "cy", "dan"] {
        let key = world.account(name, 100).await;
        credits.push(world.actor(key).await.credit(&mut world, 1, "a", [0; 32]).1);
    }
    let (first, last) = (credits[0].account, credits.pop().expect("the fourth"));
    let other = Connection::open(&path).expect("opens");
    let credited = "select count(*) from entries where key = 'a'";
    let written = || other.query_row(credited, [], |row| row.get::<_, i64>(0)).expect("counted");

    // Each entry is a batch of its own.
    let journal = Journal::start(&store, JournalOptions { batch: 1, ..Default::default() });
    let disk = Disk::hold(&path);
    let told = hand_over(&journal, credits);
    let count = || told.lock().expect("not poisoned").len();
    for synced in 0..2 {
        let ahead = i64::try_from(synced + 2).expect("few");
        until("the next batch is written while one is synced", || written() >= ahead).await;
        sleep(Duration::from_millis(20)).await;
        assert_eq!((count(), written()), (synced, ahead), "told, and written: one ahead, no more");
        if synced == 0 {
            let read = timeout(Duration::from_millis(20), store.account(first)).await;
            assert!(read.is_err(), "nor does a reader hear of it");
        }
        disk.sync_once();
        until("whose batch is synced is told", || count() > synced).await;
    }
    sleep(Duration::from_millis(20)).await;
    assert_eq!((count(), written()), (2, 3), "the third is written, not synced");
    disk.sync_once();
    until("the third is told", || count() == 3).await;

    // With nobody behind it, one alone waits for its own sync, too.
    let told = hand_over(&journal, vec![last]);
    until("it is written", || written() == 4).await;
    assert!(told.lock().expect("not poisoned").is_empty());
    drop(disk);
    journal.flush().await;
    assert_eq!(told.lock().expect("not poisoned").len(), 1);
    let account = store.account(first).await.expect("readable").expect("there");
    assert_eq!(account.figures.total.0, 101);
    store.close().await;
}
