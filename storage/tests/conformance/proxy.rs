//! Between the store and its PostgreSQL server: cuts connections, or lets them fall silent, when a batch is written.

use crate::postgres::Cluster;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// What the proxy does with the next batch.
pub const PASS: u8 = 0;
pub const CUT_BEFORE: u8 = 1;
/// It reaches the server, and nobody hears the answer.
pub const CUT_AFTER: u8 = 2;
/// Of each connection that is asked for more than a sign of life nothing is heard any more, and nobody is told.
pub const SILENT: u8 = 3;
/// The next batch passes and is answered; what its connection is asked later is not.
pub const SILENT_AFTER: u8 = 4;
/// Each BEGIN arrives a moment late.
pub const LATE_BEGIN: u8 = 5;
/// It reaches the server's socket, and the connection ends.
pub const CUT_ON_ITS_WAY: u8 = 6;
/// A bare Sync, which is what sqlx asks a connection of its pool before it uses it.
const SYNC: [u8; 5] = [b'S', 0, 0, 0, 4];
/// Only what begins a connection has no letter before its length.
const STARTUP: u8 = 0;

/// What the proxy does, where it leads, how many connections fell silent, and how much they were asked since.
pub struct Switch {
    pub next: AtomicU8,
    server: Mutex<PathBuf>,
    pub silent: AtomicUsize,
    pub unanswered: AtomicUsize,
}

impl Switch {
    pub fn set(&self, next: u8) {
        self.next.store(next, Ordering::SeqCst);
    }

    /// Whoever connects from now on comes there.
    pub fn lead_to(&self, cluster: &Cluster) {
        *self.server.lock().expect("not poisoned") = socket(cluster);
    }
}

fn socket(cluster: &Cluster) -> PathBuf {
    cluster.folder().join(".s.PGSQL.5432")
}

/// Forwards connections to the server's socket. Returns its port and its switch.
async fn proxy(cluster: &Cluster) -> (u16, Arc<Switch>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let (next, server) = (AtomicU8::new(PASS), Mutex::new(socket(cluster)));
    let switch = Arc::new(Switch { next, server, silent: AtomicUsize::new(0), unanswered: AtomicUsize::new(0) });
    let watched = switch.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = watched.server.lock().expect("not poisoned").clone();
            let server = UnixStream::connect(server).await.expect("the server is up");
            tokio::spawn(forward(client, server, watched.clone()));
        }
    });
    (port, switch)
}

/// The names of the statements that write a batch, over one connection.
#[derive(Default)]
struct Batches(Vec<Vec<u8>>);

impl Batches {
    /// Whether a batch is being written. `Parse` gives a statement its name, `Bind` asks for it by that.
    fn is_written_by(&mut self, asked: &[u8]) -> bool {
        if let [b'P', _, _, _, _, parse @ ..] = asked
            && contains(parse, b"entries_written")
        {
            let mut name = parse.split_inclusive(|byte| *byte == 0);
            self.0.extend(name.next().map(<[u8]>::to_vec));
        }
        asked.first() == Some(&b'B') && self.0.iter().any(|name| contains(asked, name))
    }
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|w| w.eq_ignore_ascii_case(word))
}

async fn forward(mut client: TcpStream, mut server: UnixStream, switch: Arc<Switch>) {
    let (mut is_silent, mut batches) = (false, Batches::default());
    let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(length @ 1..) = read else { return };
                let begins = asked[0] == STARTUP;
                let falls_silent =
                    switch.next.load(Ordering::SeqCst) == SILENT && !begins && asked[..length] != SYNC;
                if falls_silent && !is_silent {
                    switch.silent.fetch_add(1, Ordering::SeqCst);
                }
                is_silent |= falls_silent;
                if is_silent {
                    switch.unanswered.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                let is_late = switch.next.load(Ordering::SeqCst) == LATE_BEGIN;
                if is_late && !begins && contains(&asked[..length], b"begin") {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                let writes = batches.is_written_by(&asked[..length]);
                let action = if writes { switch.next.swap(PASS, Ordering::SeqCst) } else { PASS };
                if action == CUT_BEFORE {
                    return;
                }
                server.write_all(&asked[..length]).await.expect("the server reads");
                is_silent |= action == SILENT_AFTER;
                if action == CUT_AFTER {
                    let _ = server.read(&mut answered).await;
                    return;
                }
                if action == CUT_ON_ITS_WAY {
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&answered[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A store whose server is behind a proxy.
pub async fn behind_a_proxy(cluster: &Cluster, name: &str) -> (Store, Arc<Switch>) {
    let (port, switch) = proxy(cluster).await;
    let url = DatabaseUrl::parse(&format!("postgres://ringfence@127.0.0.1:{port}/{name}")).expect("a url");
    let keys_url = DatabaseUrl::sqlite(cluster.folder().join(format!("{name}.keys.db")));
    let keys = Keyring::open(&keys_url, &MasterKey::from_bytes(crate::MASTER)).await.expect("keys");
    (Store::open(&url, keys).await.expect("a store"), switch)
}
