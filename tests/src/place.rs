//! The real `ringfence` program in a folder of its own.

use crate::port::{lasting_port, lasts};
use crate::program::{Outcome, Program};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// The longest that a command may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// Every listener, by the environment variable of its key.
pub const LISTENERS: [(&str, &str); 6] = [
    ("RINGFENCE_HTTP__LISTEN", "http.listen"),
    ("RINGFENCE_METRICS__LISTEN", "metrics.listen"),
    ("RINGFENCE_SIP__UDP", "sip.udp"),
    ("RINGFENCE_SIP__TCP", "sip.tcp"),
    ("RINGFENCE_SIP__TLS__LISTEN", "sip.tls.listen"),
    ("RINGFENCE_TEST_CARRIER", "test_carrier"),
];

/// A rate deck of 0.60 a minute for the numbers of fiction.
pub const SHOP_DECK: &str = "\
prefix,destination,rate_per_minute,connect_fee,minimum_s,increment_s,grace_s,effective_from,effective_until
1555,Fiction US,0.60,0,0,1,0,,
";
/// What a carrier charges for them; cheaper than the built-in one, which would end with the program.
pub const COST_DECK: &str = "\
prefix,destination,rate_per_minute,connect_fee,minimum_s,increment_s,grace_s,effective_from,effective_until
1555,Fiction US,0.0001,0,0,1,0,,
";

/// A folder in which the program is run: its data lies in `data`, its listeners are on free ports.
pub struct Place {
    /// Goes when the test ends.
    pub folder: TempDir,
    /// Further environment variables of [`Place::command`], by name.
    pub environment: BTreeMap<&'static str, String>,
    runs: AtomicU32,
}

impl Default for Place {
    fn default() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { folder, environment: BTreeMap::new(), runs: AtomicU32::new(0) }
    }
}

impl Place {
    /// The program with these arguments, as a new terminal would start it.
    ///
    /// # Panics
    /// When the program was not built.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bare(Command::new(built()));
        command.args(arguments);
        for (name, _) in LISTENERS {
            command.env(name, "127.0.0.1:0");
        }
        command.envs(&self.environment);
        command
    }

    /// As [`Place::command`], with only what its arguments say.
    ///
    /// # Panics
    /// When the program was not built.
    #[must_use]
    pub fn configured(&self, arguments: &[&str]) -> Command {
        let mut command = self.bare(Command::new(built()));
        command.args(arguments);
        command
    }

    /// As [`Place::configured`], under `strace`, whose arguments come first. The child is the program itself.
    ///
    /// # Panics
    /// When the program was not built.
    #[must_use]
    pub fn traced(&self, strace: &[&str], arguments: &[&str]) -> Command {
        let mut command = self.bare(Command::new("strace"));
        command.args(["-D", "-f", "-o", "/dev/null"]).args(strace).arg(built()).args(arguments);
        command
    }

    /// As [`Place::configured`], with an output and a log that cannot be written: their disk is full.
    ///
    /// # Panics
    /// When the program was not built.
    #[must_use]
    pub fn unheard(&self, arguments: &[&str]) -> Command {
        let mut command = self.bare(Command::new("sh"));
        command.args(["-c", "exec \"$0\" \"$@\" >/dev/full 2>/dev/full"]).arg(built()).args(arguments);
        command
    }

    /// In this folder, without the configuration of whoever runs the tests.
    fn bare(&self, mut command: Command) -> Command {
        command.current_dir(self.folder.path());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RINGFENCE_")) {
            command.env_remove(name);
        }
        command
    }

    /// Starts a command.
    #[must_use]
    pub fn start(&self, mut command: Command) -> Program {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        Program::start(&mut command, self.folder.path(), &format!("run{run}"))
    }

    /// Starts the program again with the SIP listeners that its screen showed, and waits until it is ready.
    ///
    /// # Panics
    /// When the screen shows none, or others may have them.
    pub async fn start_again(&self, screen: &str) -> Program {
        let address = |transport| {
            let address = listener(screen, transport);
            assert!(lasts(address.port()), "serve_to_restart");
            address
        };
        let mut server = self.start(self.with_sip_on(["UDP", "TCP", "TLS"].map(address)));
        server.until("ready", |said| said.contains("To begin anew")).await;
        server
    }

    /// As [`Place::command`] without arguments, with listeners for SIP over UDP, TCP and TLS on these addresses.
    fn with_sip_on(&self, addresses: [SocketAddr; 3]) -> Command {
        let mut command = self.command(&[]);
        for ((variable, _), address) in LISTENERS[2..5].iter().zip(addresses) {
            command.env(variable, address.to_string());
        }
        command
    }

    /// Runs the program with these arguments to its end.
    pub async fn run(&self, arguments: &[&str]) -> Outcome {
        self.start(self.command(arguments)).ended(PATIENCE).await
    }

    /// Runs it; what it printed. It has to succeed.
    ///
    /// # Panics
    /// When it fails.
    pub async fn succeed(&self, arguments: &[&str]) -> String {
        let outcome = self.run(arguments).await;
        assert_eq!(outcome.code, Some(0), "{arguments:?}: {}{}", outcome.stdout, outcome.stderr);
        outcome.stdout
    }

    /// Runs it; the one line that it said. It has to fail with this code.
    ///
    /// # Panics
    /// When it does not, or says more.
    pub async fn fail(&self, arguments: &[&str], code: i32) -> String {
        one_line(self.run(arguments).await, code)
    }

    /// A development server that is ready.
    pub async fn serve(&self) -> Program {
        Self::ready(self.start(self.command(&[]))).await
    }

    /// As [`Place::serve`]; [`Place::start_again`] finds its ports free.
    pub async fn serve_to_restart(&self) -> Program {
        let address = |()| SocketAddr::from(([127, 0, 0, 1], lasting_port()));
        Self::ready(self.start(self.with_sip_on([(); 3].map(address)))).await
    }

    async fn ready(mut server: Program) -> Program {
        server
            .until("ready", |said| said.contains("The passwords are shown this once") || said.contains("To begin anew"))
            .await;
        server
    }

    /// Keeps the folder for whoever looks into a failure.
    #[must_use]
    pub fn keep(self) -> PathBuf {
        self.folder.keep()
    }

    /// A file in the folder.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    /// The database of the data folder, opened past the program.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn database(&self) -> Connection {
        let path = self.folder.path().join("data/ringfence.db");
        assert!(path.exists(), "there is a database");
        Connection::open(path).expect("opens")
    }

    /// How many rows each table has.
    ///
    /// # Panics
    /// When there is no database.
    #[must_use]
    pub fn rows(&self) -> Vec<(String, i64)> {
        let database = self.database();
        let mut tables =
            database.prepare("select name from sqlite_master where type = 'table' order by name").expect("listed");
        let names = tables.query_map([], |row| row.get::<_, String>(0)).expect("listed");
        let count = |name: String| {
            let sql = format!("select count(*) from \"{name}\"");
            let rows = database.query_row(&sql, [], |row| row.get(0)).expect("counted");
            (name, rows)
        };
        names.map(|name| count(name.expect("a name"))).collect()
    }
}

/// The one line on standard error of a command that failed with this code.
///
/// # Panics
/// When it did not, or said more.
#[must_use]
pub fn one_line(outcome: Outcome, code: i32) -> String {
    let said = outcome.stderr.trim_end();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(code), ""), "{said}");
    assert!(said.starts_with("ringfence: ") && !said.contains('\n'), "one line: {said:?}");
    said.to_owned()
}

/// The address that a screen shows of a SIP listener, by its transport.
///
/// # Panics
/// When it shows none.
#[must_use]
pub fn listener(screen: &str, transport: &str) -> SocketAddr {
    let named = format!("({transport})");
    let line = screen.lines().find(|line| line.contains("SIP server") && line.contains(&named)).expect("a listener");
    line.split_whitespace().find_map(|word| word.parse().ok()).expect("an address")
}

/// The program: the one that the environment names, or that beside this one or, for a test, beside its folder `deps`. A test
/// run of the whole workspace builds it.
fn built() -> PathBuf {
    if let Some(path) = std::env::var_os("TESTED_PROGRAM") {
        return path.into();
    }
    let this = std::env::current_exe().expect("this program");
    let places = this.ancestors().skip(1).take(2).map(|folder| folder.join("ringfence"));
    let found = places.into_iter().find(|path| path.is_file());
    found.expect("build it first: cargo build -p ringfence")
}
