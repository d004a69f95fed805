//! A part of the running journal panics.

use crate::samples::World;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use storage::{Journal, JournalOptions};

/// Names the child's folder.
const CHILD: &str = "RINGFENCE_TEST_FOLDER_OF_THE_CHILD";

/// An acknowledgement's panic is caught by the journal; one of what is thrown then is not.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a bug in the journal");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_journal_panics_the_process_ends_and_nobody_waits() {
    let Some(folder) = std::env::var_os(CHILD) else {
        // The child has no time to take its folder away.
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(std::env::current_exe().expect("this test's program"));
        command.args(["--exact", "panics::when_the_journal_panics_the_process_ends_and_nobody_waits", "--nocapture"]);
        let child = command.env(CHILD, folder.path()).output().expect("it runs");
        let said = String::from_utf8_lossy(&child.stderr);
        assert!(said.contains("ringfence: the journal panicked (journal-tell): ending, to recover"), "{said}");
        assert_eq!(child.status.signal(), Some(6), "{said}");
        return;
    };
    let store = crate::sqlite(folder.as_ref()).await;
    let mut world = World::new(store.clone(), 1).await;
    let key = world.account("ann", 10).await;
    let mut ann = world.actor(key).await;
    let entry = ann.credit(&mut world, 5, "k", [1; 32]).1;
    let journal = Journal::start(&store, JournalOptions::default());
    journal.submit(entry, Box::new(|_| std::panic::panic_any(Bomb))).expect("room");
    let limit = std::time::Duration::from_secs(20);
    drop(tokio::time::timeout(limit, std::future::pending::<()>()).await);
}
