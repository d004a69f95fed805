//! What the journal cannot do without: its threads, on PostgreSQL its tasks. When one of them panics nothing can be written any
//! more and nobody would be told, so callers would wait for ever: the process ends instead, and the next one recovers from
//! what is on disk.

use std::fs::File;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Ends the process when it is dropped by a panic, unless the runtime is ending: then its timers and connections panic in
/// whoever still uses them, and there is nobody left to wait.
struct Vital {
    name: &'static str,
    /// Closed when the runtime ends.
    runtime: oneshot::Sender<()>,
}

impl Vital {
    fn of(name: &'static str, runtime: &Handle) -> Self {
        let (lives, ended) = oneshot::channel();
        drop(runtime.spawn(async { drop(ended.await) }));
        Self { name, runtime: lives }
    }
}

impl Drop for Vital {
    fn drop(&mut self) {
        if !std::thread::panicking() || self.runtime.is_closed() {
            return;
        }
        panicked(self.name);
    }
}

fn panicked(name: &'static str) -> ! {
    end_process(&format!("the journal panicked ({name})"));
}

/// Ends the process at once. The reason goes to standard error past the log, whose lines may wait to be written. Unlike with
/// `eprintln!` it is no panic when nobody can read it.
pub(crate) fn end_process(why: &str) -> ! {
    let _ = writeln!(std::io::stderr(), "ringfence: {why}: ending, to recover from what is on disk");
    std::process::abort();
}

/// Brings what was written to a file to the disk. Ends the process when that fails: the kernel may have dropped what it could not
/// write, and would report success the next time.
pub(super) fn sync_or_end(file: &File, what: &str) {
    if let Err(error) = file.sync_data() {
        end_process(&format!("{what} cannot be written ({error})"));
    }
}

/// A part of the journal's work that somebody else does for it.
pub(super) fn or_end<T>(name: &'static str, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| panicked(name))
}

/// Runs a part of the journal on a thread of its own.
///
/// # Panics
/// When the system has no thread for it.
pub(super) fn start_thread(name: &'static str, runtime: &Handle, run: impl FnOnce() + Send + 'static) {
    let vital = Vital::of(name, runtime);
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _vital = vital;
        run();
    });
    drop(thread.expect("the system starts the journal's threads"));
}

/// Runs a part of the journal as a task of this runtime.
pub(super) fn start_task(
    name: &'static str,
    run: impl Future<Output = ()> + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    let vital = Vital::of(name, &Handle::current());
    tokio::spawn(async move {
        let _vital = vital;
        run.await;
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Output};
    use std::time::Duration;

    const CHILD: &str = "RINGFENCE_TEST_PANICS_IN";

    /// Runs the one test of this name again in a process of its own, which is told where to panic.
    fn in_a_child(test: &str, place: &str) -> Output {
        child(test, place).output().expect("it runs")
    }

    fn child(test: &str, place: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("this test's program"));
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD, place);
        command
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
    }

    #[test]
    fn a_panic_of_a_part_of_the_journal_ends_the_process_and_says_so() {
        let forever = || std::thread::sleep(Duration::from_secs(20));
        match std::env::var(CHILD).as_deref() {
            Ok("thread") => {
                let runtime = runtime();
                start_thread("journal-write", runtime.handle(), || panic!("a bug"));
                forever();
            }
            Ok("task") => runtime().block_on(async {
                drop(start_task("journal-write", async { panic!("a bug") }));
                forever();
            }),
            // The runtime ends first, as at the end of the program.
            Ok("ending") => {
                let runtime = runtime();
                let (ended, wait) = std::sync::mpsc::channel::<()>();
                start_thread("journal-write", runtime.handle(), move || {
                    let _ = wait.recv();
                    panic!("the runtime is gone");
                });
                drop(runtime);
                drop(ended);
                std::thread::sleep(Duration::from_millis(200));
            }
            _ => {
                let test = "journal::vital::tests::a_panic_of_a_part_of_the_journal_ends_the_process_and_says_so";
                for place in ["thread", "task"] {
                    let child = in_a_child(test, place);
                    let said = String::from_utf8_lossy(&child.stderr);
                    assert!(said.contains("ringfence: the journal panicked (journal-write): ending"), "{said}");
                    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.status), Some(6), "{said}");
                }
                let child = in_a_child(test, "ending");
                assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
            }
        }
    }

    #[test]
    fn the_process_ends_although_nobody_can_hear_why() {
        if std::env::var(CHILD).is_ok() {
            end_process("a test");
        }
        let test = "journal::vital::tests::the_process_ends_although_nobody_can_hear_why";
        let full = std::fs::File::options().write(true).open("/dev/full").expect("a device");
        let ended = child(test, "here").stderr(full).status().expect("it runs");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(6), "{ended}");
    }
}
