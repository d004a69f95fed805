//! A private PostgreSQL cluster: made in a temporary folder, on a Unix socket there, ended with the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running PostgreSQL server and its folder.
pub struct Cluster {
    server: Option<Child>,
    folder: tempfile::TempDir,
}

/// Debian's place for the newest PostgreSQL that is installed.
fn binaries() -> PathBuf {
    let mut found: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|path| path.join("initdb").exists() && path.join("postgres").exists())
        .collect();
    found.sort();
    found.pop().expect("PostgreSQL is not installed: these tests need Debian's package postgresql-15")
}

/// PostgreSQL refuses to run as root: then its own user runs it.
fn command(program: &Path) -> Command {
    let root = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout == b"0\n");
    let mut command = Command::new("setpriv");
    if root {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    // The server ends even when the test is killed.
    command.args(["--pdeathsig", "QUIT"]).arg(program);
    command
}

impl Cluster {
    /// Makes one and starts it.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    pub async fn start() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let bin = binaries();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777))
            .expect("open to the server's user");
        let data = folder.path().join("data");
        let made = command(&bin.join("initdb"))
            .args(["--no-sync", "--auth=trust", "--username=ringfence", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data)
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut cluster = Self { server: None, folder };
        cluster.launch();
        cluster.create_database("ready").await;
        cluster
    }

    /// Starts the server on what is there.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn launch(&mut self) {
        let folder = self.folder.path();
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).expect("a log");
        let server = command(&binaries().join("postgres"))
            .arg("-D")
            .arg(folder.join("data"))
            .arg("-k")
            .arg(folder)
            .args(["-c", "listen_addresses=", "-c", "max_connections=200", "-c", "shared_buffers=32MB"])
            // Nobody pulls the plug on a test's cluster; durability is tested elsewhere.
            .args(["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "autovacuum=off"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.server = Some(server.expect("postgres runs"));
    }

    /// Sends a signal to the server and to each of its processes.
    pub fn signal(&self, name: &str) {
        let Some(server) = &self.server else { return };
        let kill = format!("kill -{name} {id} $(cat /proc/{id}/task/{id}/children)", id = server.id());
        let _ = Command::new("sh").args(["-c", &kill]).stderr(Stdio::null()).status();
    }

    /// Ends the server without letting it finish anything, as `pg_ctl stop -m immediate` does.
    pub fn stop(&mut self) {
        self.signal("QUIT");
        // One that is held up does not notice otherwise.
        self.signal("CONT");
        if let Some(mut server) = self.server.take() {
            let _ = server.wait();
        }
    }

    /// Where files of a test may lie.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// As a `database.url`.
    ///
    /// # Panics
    /// When the folder has an unusual name.
    pub fn url(&self, database: &str) -> String {
        let socket = self.folder.path().to_str().expect("a plain path").replace('/', "%2F");
        format!("postgres://ringfence@{socket}/{database}")
    }

    /// Makes a database; waits for the server, 30 seconds at most.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn create_database(&self, name: &str) {
        use sqlx::{Connection, PgConnection};
        for _ in 0..300 {
            if let Ok(mut connection) = PgConnection::connect(&self.url("postgres")).await {
                let text = sqlx::AssertSqlSafe(format!("create database {name}"));
                sqlx::raw_sql(text).execute(&mut connection).await.expect("a database is created");
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        panic!("the server does not answer: {log}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}
