//! What SQLite's readers may tell. The journal's commits are visible a moment before the disk has them (they are synced beside the
//! writer), and what was read of them and told must not be gone after a power failure: whoever reads waits for the disk.

use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// How far the journal's commits have come: those that may be visible, and those that are durable.
#[derive(Debug)]
pub(crate) struct Durable {
    visible: AtomicU64,
    durable: watch::Sender<u64>,
}

impl Default for Durable {
    fn default() -> Self {
        Self { visible: AtomicU64::new(0), durable: watch::Sender::new(0) }
    }
}

impl Durable {
    /// A commit begins: it is visible from now on at the earliest.
    pub(crate) fn commits(&self) {
        self.visible.fetch_add(1, Ordering::SeqCst);
    }

    /// The last commit that began.
    pub(crate) fn last(&self) -> u64 {
        self.visible.load(Ordering::SeqCst)
    }

    /// Commits up to this one are durable, or came to nothing.
    pub(crate) fn reached(&self, commit: u64) {
        self.durable.send_if_modified(|durable| {
            let further = commit > *durable;
            *durable = commit.max(*durable);
            further
        });
    }

    /// Returns when all that was visible is durable.
    pub(crate) async fn all(&self) {
        let visible = self.last();
        if *self.durable.borrow() < visible {
            // It cannot fail: the sender is here.
            let _ = self.durable.subscribe().wait_for(|durable| *durable >= visible).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Db;
    use crate::url::DatabaseUrl;
    use futures_util::FutureExt as _;
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test]
    async fn a_reader_waits_for_what_was_visible_when_it_read_and_no_longer() {
        let durable = Durable::default();
        assert_eq!(durable.all().now_or_never(), Some(()));
        durable.commits();
        let mut first = Box::pin(durable.all());
        assert_eq!((&mut first).now_or_never(), None);
        durable.commits();
        let mut second = Box::pin(durable.all());
        assert_eq!((&mut second).now_or_never(), None);
        durable.reached(1);
        assert_eq!((first.now_or_never(), (&mut second).now_or_never()), (Some(()), None));
        durable.reached(durable.last());
        durable.reached(1);
        assert_eq!((second.now_or_never(), durable.all().now_or_never()), (Some(()), Some(())));
    }

    #[tokio::test]
    async fn nothing_is_read_that_the_disk_does_not_have() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = DatabaseUrl::Sqlite(folder.path().join("ringfence.db"));
        let db = Db::open(&url).await.expect("opened");
        let Db::Sqlite(sqlite) = &db else { unreachable!("it is SQLite") };
        sqlite.durable.commits();
        // As many as there are connections: whoever waits for the disk has given its own back.
        let snapshots = [(); 4].map(|()| db.in_snapshot(async |tx| tx.fetch("select 1", Vec::new()).await));
        let mut snapshots = Box::pin(futures_util::future::join_all(snapshots));
        assert!(timeout(Duration::from_millis(20), &mut snapshots).await.is_err());
        assert!(timeout(Duration::from_millis(20), db.fetch("select 1", Vec::new())).await.is_err());
        let looked_up = timeout(Duration::from_secs(5), db.look_up("select 1", Vec::new())).await;
        assert!(looked_up.is_ok(), "what others wrote is at hand");
        sqlite.durable.reached(1);
        let read = timeout(Duration::from_secs(5), snapshots).await.expect("it is durable");
        assert!(read.into_iter().all(|read| read.is_ok()));
        assert!(timeout(Duration::from_secs(5), db.fetch("select 1", Vec::new())).await.is_ok());
        db.close().await;
    }
}
