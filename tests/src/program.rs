//! A program that a test starts. What it says goes to files; it ends with the value at the latest.

use std::fs::{DirEntry, File};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long anything expected of a program may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// The signal that nothing can handle.
const SIGKILL: i32 = 9;

/// A running program.
pub struct Program {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Exit code; `None`: ended by a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Program {
    /// Starts it. `name` is that of its output files in `folder`.
    ///
    /// # Panics
    /// When it cannot be started: its Debian package is missing.
    #[must_use]
    pub fn start(command: &mut Command, folder: &Path, name: &str) -> Self {
        let (stdout, stderr) = (folder.join(format!("{name}.out")), folder.join(format!("{name}.err")));
        let file = |path: &Path| File::create(path).expect("a file for the output");
        let command = command.stdin(Stdio::piped()).stdout(file(&stdout)).stderr(file(&stderr));
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, stdout, stderr }
    }

    /// What it has written to standard output.
    #[must_use]
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// What it has written to standard error.
    #[must_use]
    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// Waits until its standard output is as wanted.
    ///
    /// # Panics
    /// When it does not come true, or the program has ended.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&str) -> bool) {
        self.until_file(what, self.stdout.clone(), wanted).await;
    }

    /// As [`Program::until`], of standard error.
    ///
    /// # Panics
    /// When it does not come true, or the program has ended.
    pub async fn until_stderr(&mut self, what: &str, wanted: impl Fn(&str) -> bool) {
        self.until_file(what, self.stderr.clone(), wanted).await;
    }

    async fn until_file(&mut self, what: &str, file: PathBuf, wanted: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Asked before its output is read, so that nothing said last is missed.
            let ended = self.child.try_wait().expect("a child").is_some();
            if wanted(&text(&file)) {
                return;
            }
            let late = Instant::now() > deadline;
            assert!(!ended && !late, "not {what}; it said:\n{}\n{}", self.stdout(), self.stderr());
            sleep(PAUSE).await;
        }
    }

    /// How its threads are scheduled (field 41 of `/proc/PID/task/TID/stat`), by their names.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn policies(&self) -> Vec<(String, u32)> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let stat = |thread: std::io::Result<DirEntry>| {
            let stat = text(&thread.expect("a thread").path().join("stat"));
            let (name, fields) = stat.rsplit_once(')').expect("a name");
            let policy = fields.split_whitespace().nth(38).expect("enough fields").parse().expect("a number");
            (name.split_once('(').expect("a name").1.to_owned(), policy)
        };
        threads.map(stat).collect()
    }

    /// Types a line.
    ///
    /// # Panics
    /// When it does not read.
    pub fn type_line(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).expect("the program reads");
    }

    /// Asks it to end, as `kill` does.
    ///
    /// # Panics
    /// When it has ended already.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it has ended already.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        let killed = Command::new("sh").args(["-c", &kill]).status();
        assert!(killed.expect("a shell").success(), "it has ended already; it said:\n{}", self.stderr());
    }

    /// Ends it as a power cut would: it has no time for anything.
    ///
    /// # Errors
    /// It had ended before: how, and what it said.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn kill(mut self) -> Result<(), String> {
        let _ = self.child.kill();
        self.was_killed()
    }

    /// Whether it ended because it was killed, and not by itself: an exit and a signal of its own (an abort) are its fault.
    ///
    /// # Errors
    /// How it ended, and what it said.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn was_killed(&mut self) -> Result<(), String> {
        let status = self.child.wait().expect("a child");
        let is_so = status.signal() == Some(SIGKILL);
        is_so.then_some(()).ok_or_else(|| format!("it was not killed ({status}); it said:\n{}", self.stderr()))
    }

    /// Whether it has ended by itself.
    ///
    /// # Panics
    /// When it cannot be asked.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// When it does not within `limit`.
    pub async fn ended(mut self, limit: Duration) -> Outcome {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return Outcome { code: status.code(), stdout: self.stdout(), stderr: self.stderr() };
            }
            let late = Instant::now() > deadline;
            assert!(!late, "it has not ended within {limit:?}; it said:\n{}\n{}", self.stdout(), self.stderr());
            sleep(PAUSE).await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
