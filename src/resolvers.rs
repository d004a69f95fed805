//! Which DNS servers are asked: those that are configured, or those that the system names at the time.

use crate::dns::Dns;
use sip::locate::Families;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Where the system names its servers.
const SYSTEM: &str = "/etc/resolv.conf";
/// Between two looks at it.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Knows whom to ask.
pub(crate) enum Resolvers {
    /// The operator says so.
    Configured(Dns),
    /// As the system says. A network that comes up late, or a move to another one, changes that while we run.
    System { file: PathBuf, families: Families, seen: Mutex<Seen> },
}

/// The system's file as it was when it was looked at last.
#[derive(Default)]
pub(crate) struct Seen {
    at: Option<Instant>,
    content: Vec<u8>,
    /// Of the newest content that names a server.
    dns: Option<Dns>,
}

impl Resolvers {
    /// Of these servers, or with none of the system's.
    ///
    /// # Errors
    /// They cannot be used.
    pub(crate) fn new(servers: &[SocketAddr], families: Families) -> anyhow::Result<Self> {
        Ok(match servers {
            [] => Self::of_file(Path::new(SYSTEM), families),
            servers => Self::Configured(Dns::of_servers(servers, families)?),
        })
    }

    fn of_file(file: &Path, families: Families) -> Self {
        Self::System { file: file.to_owned(), families, seen: Mutex::default() }
    }

    /// Whom to ask now; `None`: the system names nobody. Without anybody it is asked each time, else every 10 s.
    pub(crate) async fn current(&self) -> Option<Dns> {
        let (file, families, seen) = match self {
            Self::Configured(dns) => return Some(dns.clone()),
            Self::System { file, families, seen } => (file, *families, seen),
        };
        let mut seen = seen.lock().await;
        if seen.dns.is_none() || seen.at.is_none_or(|at| at.elapsed() >= LOOK_AGAIN) {
            seen.look(file, families).await;
        }
        seen.dns.clone()
    }
}

impl Seen {
    /// A file that is gone or names nobody leaves the servers before in use. Each content is told about once.
    async fn look(&mut self, file: &Path, families: Families) {
        let is_first = self.at.replace(Instant::now()).is_none();
        // Gone is as good as empty.
        let content = tokio::fs::read(file).await.unwrap_or_default();
        if content == self.content && !is_first {
            return;
        }
        match Dns::of_system(&content, families) {
            Ok(dns) => {
                let servers = dns.servers().len();
                tracing::info!(servers, file = %file.display(), "names of carriers are asked of the system's DNS servers");
                self.dns = Some(dns);
            }
            Err(error) => {
                tracing::warn!(%error, file = %file.display(), "no DNS server for carriers' names, but those known before");
            }
        }
        self.content = content;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test(start_paused = true)]
    async fn servers_that_the_system_names_later_are_asked_and_new_ones_every_ten_seconds() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("resolv.conf");
        let resolvers = Resolvers::of_file(&file, Families { v4: true, v6: false });
        let Resolvers::System { seen, .. } = &resolvers else { panic!("of a file") };
        let in_use = async || seen.lock().await.dns.as_ref().map(|dns| dns.servers().to_vec());
        let ip = |text: &str| text.parse::<std::net::IpAddr>().expect("an address");
        // The network is not up yet.
        assert!(resolvers.current().await.is_none());
        fs::write(&file, "# nobody yet\n").expect("written");
        assert!(resolvers.current().await.is_none());
        fs::write(&file, "nameserver 192.0.2.1\n").expect("written");
        assert!(resolvers.current().await.is_some());
        assert_eq!(in_use().await, Some(vec![ip("192.0.2.1")]));

        fs::write(&file, "nameserver 192.0.2.2\n").expect("written");
        tokio::time::advance(LOOK_AGAIN - Duration::from_millis(1)).await;
        resolvers.current().await;
        assert_eq!(in_use().await, Some(vec![ip("192.0.2.1")]), "looked at 10 s ago at most");
        tokio::time::advance(Duration::from_millis(1)).await;
        resolvers.current().await;
        assert_eq!(in_use().await, Some(vec![ip("192.0.2.2")]));

        // Half written, or gone for a moment.
        fs::write(&file, "").expect("written");
        tokio::time::advance(LOOK_AGAIN).await;
        assert!(resolvers.current().await.is_some());
        fs::write(&file, "nameserver 192.0.2.3\n").expect("written");
        tokio::time::advance(LOOK_AGAIN).await;
        resolvers.current().await;
        assert_eq!(in_use().await, Some(vec![ip("192.0.2.3")]));
    }
}
