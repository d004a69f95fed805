//! The admin socket of a running server, `data_dir/admin.sock`: commands reach the accounts' actors through it. One request
//! in a line of JSON, then lines of replies until it is closed. Only the server's own user may open it.

use crate::provision::Provisioned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

/// Longest request: a world file with its rate decks.
pub const REQUEST_MAX: u64 = 256 * 1024 * 1024;
/// Longest reply line.
const REPLY_MAX: u64 = 1024 * 1024;

/// What a command asks of a running server.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Create what a world file describes.
    Provision {
        /// The file's text.
        world: String,
        /// Rate deck files by the name in the world file.
        files: BTreeMap<String, String>,
    },
    /// Credit an account.
    Credit {
        /// Account id or SIP username.
        account: String,
        /// Decimal amount.
        amount: String,
        /// Idempotency key.
        key: String,
        /// For the statement.
        reason: String,
    },
    /// A SIP credential for the built-in test phone, made anew; development mode only.
    DemoPhone,
    /// Balance and live calls of an account as they change.
    Watch {
        /// Account id.
        account: String,
    },
    /// What failed again and again.
    Failures,
    /// The account's last call: CDR and ledger.
    LastCall {
        /// Account id.
        account: String,
    },
}

/// What the server says to it.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Accounts done and accounts in all.
    Progress(u64, u64),
    /// Provisioning is done.
    Provisioned(Provisioned),
    /// The credit is posted, or was under this key before.
    Credited {
        /// Available afterwards, with currency.
        available: String,
        /// The key was used before by the same request: nothing was posted now.
        repeated: bool,
    },
    /// Where and as whom the test phone calls.
    DemoPhone(DemoPhone),
    /// Balance and live calls now.
    Live(Live),
    /// Lines of text to show.
    Lines(Vec<String>),
    /// Why it was not done.
    Failed(String),
}

/// Where and as whom the test phone calls.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as named")]
pub struct DemoPhone {
    pub account: String,
    pub username: String,
    pub password: String,
    pub domain: String,
    pub server: SocketAddr,
}

/// Balance and live calls, as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as named")]
pub struct Live {
    pub currency: String,
    pub remaining: String,
    pub reserved: String,
    pub available: String,
    pub calls: Vec<LiveCall>,
}

/// A live call, as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as named")]
pub struct LiveCall {
    pub state: String,
    pub seconds: u64,
    pub cost: String,
}

/// The socket of a data folder.
#[must_use]
pub fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.sock")
}

/// A conversation with a running server.
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects; `None` when no server runs on this data folder.
    ///
    /// # Errors
    /// The socket is there but cannot be used.
    pub async fn connect(data_dir: &Path) -> std::io::Result<Option<Self>> {
        match UnixStream::connect(socket_path(data_dir)).await {
            Ok(stream) => Ok(Some(Self { stream: BufReader::new(stream) })),
            Err(error)
                if [std::io::ErrorKind::NotFound, std::io::ErrorKind::ConnectionRefused].contains(&error.kind()) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends the request.
    ///
    /// # Errors
    /// The server went away.
    pub async fn send(&mut self, request: &Request) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).await?;
        Ok(())
    }

    /// The next reply; `None` when the server has said all.
    ///
    /// # Errors
    /// The server went away or said nonsense.
    pub async fn reply(&mut self) -> anyhow::Result<Option<Reply>> {
        let mut line = Vec::new();
        (&mut self.stream).take(REPLY_MAX).read_until(b'\n', &mut line).await?;
        if line.is_empty() { Ok(None) } else { Ok(Some(serde_json::from_slice(&line)?)) }
    }
}
