//! The `ringfence` program: reads the command line, does one thing, says how it went.

use clap::Parser as _;
use ringfence::cli::Cli;
use std::process::ExitCode;
use tokio::runtime::{Builder, Runtime};

/// A fifth less processor time per call than with the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One thread fewer than there are processors, at least one, or as many as `TOKIO_WORKER_THREADS` says: the SIP thread and the
/// journal's writer have their own, and a second worker that has no processor only wakes, looks for work and sleeps (on two
/// processors a sixth of all time).
fn runtime() -> std::io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        builder.worker_threads(processors.saturating_sub(1).max(1));
    }
    builder.on_thread_start(work_in_batches).enable_all().build()
}

/// A worker that is woken waits until the thread that woke it has done its own work or used up its time, unless a processor is free,
/// and finds more to do at once (`SCHED_BATCH`). Where ten times too many calls come an eighth more of them are carried
/// (`tests/bench/overload`). The threads of the SIP side and of SQLite's journal are as ever: they are started from the main thread,
/// whose policy they inherit. One that was chosen from outside stays.
#[expect(unsafe_code, reason = "the system's own calls; no library here has them without changing the priority, too")]
fn work_in_batches() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: both are about the calling thread (0); what is pointed to is read only, and outlives the call.
    unsafe {
        if libc::sched_getscheduler(0) == libc::SCHED_OTHER {
            // A system that refuses it is a little slower.
            libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters);
        }
    }
}

fn main() -> ExitCode {
    match runtime() {
        Ok(runtime) => runtime.block_on(ringfence::commands::run(Cli::parse())),
        Err(error) => {
            eprintln!("ringfence: its threads cannot be started: {error}");
            ExitCode::FAILURE
        }
    }
}
