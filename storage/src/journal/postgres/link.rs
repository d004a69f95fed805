//! A lane's connection to the server: one of its own, so that neither reads nor the other lane make a commit wait.

use super::super::known::Known;
use super::{Failure, Trouble};
use crate::sql::{SILENCE_MAX, failed, silent};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _, Error, query, query_as, query_scalar};
use std::io;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long a server may take to come back before a batch fails.
const CONNECT_MAX: Duration = Duration::from_secs(2);
const CONNECT_AGAIN: Duration = Duration::from_millis(100);

/// A connection, with what was committed over it.
pub(super) struct Session {
    pub(super) connection: PgConnection,
    pub(super) known: Known,
    pub(super) backend: Backend,
}

/// The server's process of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backend {
    pub(super) pid: i32,
    /// When it began (µs since 1970): a number may be given again.
    began: i64,
}

impl Backend {
    /// And whether it writes.
    const OURS: &str = "select pid, (extract(epoch from backend_start) * 1000000)::bigint, \
                        current_setting('transaction_read_only') = 'off' from pg_stat_activity where pid = pg_backend_pid()";
    /// Waits for its end, less than [`SILENCE_MAX`]. Not while it waits for a standby, which it would give up. No row: there is no
    /// such process, perhaps because this is another server.
    const END: &str = "select case when wait_event = 'SyncRep' then false else pg_terminate_backend(pid, 15000) end \
                       from pg_stat_activity where pid = $1 and (extract(epoch from backend_start) * 1000000)::bigint = $2";
    /// A commit that reaches the standbys that must have it, and so all those before it.
    const REACH: &str = "select pg_logical_emit_message(true, 'ringfence', '')";
}

impl Session {
    /// Has the server end an earlier session of this lane: what it was sent may still be on its way to it, or being done. Then
    /// what it has written is to be seen, and nothing more will come. Whether it is over.
    pub(super) async fn outlives(&mut self, earlier: Backend) -> Result<bool, Error> {
        let asked = query_scalar::<_, bool>(Backend::END).bind(earlier.pid).bind(earlier.began);
        Ok(asked.fetch_optional(&mut self.connection).await?.unwrap_or(true))
    }

    /// What is to be seen may be on this server only, when the session that wrote it ended before its standbys had it.
    pub(super) async fn reach_standbys(&mut self) -> Result<(), Error> {
        query(Backend::REACH).execute(&mut self.connection).await.map(drop)
    }
}

/// What a lane's statements need: their plans are made once, and find rows by their keys, however small the tables look then.
const PLANNED: [(&str, &str); 3] =
    [("plan_cache_mode", "force_generic_plan"), ("enable_seqscan", "off"), ("jit", "off")];

/// Made when it is needed, and anew after anything went wrong over it: a server that became a reader (SQLSTATE 25006) or shuts
/// down answers each statement in good health, while its name already leads to another one.
pub(super) struct Link {
    options: PgConnectOptions,
    session: Option<Session>,
}

impl Link {
    /// The server shows it under its lane's name.
    pub(super) fn new(options: PgConnectOptions, lane: usize) -> Self {
        let options = options.options(PLANNED).application_name(&format!("ringfence journal {lane}"));
        Self { options, session: None }
    }

    /// Does something over the connection. When nothing is heard it is closed, and what became of a commit is asked over the next.
    pub(super) async fn within_silence<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => self.connect().await?,
        };
        let done = timeout(SILENCE_MAX, work(&mut session)).await;
        let done = done.unwrap_or_else(|_| Err(Failure::Unknown(session.backend, failed(silent()))));
        self.session = match &done {
            Ok(_) => Some(session),
            Err(Failure::Known(Trouble::Contradiction)) => Some(Session { known: Known::default(), ..session }),
            Err(Failure::Known(Trouble::NotDone(_)) | Failure::Unknown(..)) => None,
        };
        done
    }

    /// Tries again for a while: a server that restarts refuses connections meanwhile.
    async fn connect(&self) -> Result<Session, Error> {
        let mut refused = silent();
        let connecting = async {
            loop {
                match self.begin().await {
                    Ok(session) => return session,
                    Err(error) => refused = error,
                }
                sleep(CONNECT_AGAIN).await;
            }
        };
        let connected = timeout(CONNECT_MAX, Box::pin(connecting)).await;
        connected.map_err(|_| refused)
    }

    /// Not with a server that only reads: it may lack what was written.
    async fn begin(&self) -> Result<Session, Error> {
        let mut connection = self.options.connect().await?;
        let (pid, began, writes): (i32, i64, bool) = query_as(Backend::OURS).fetch_one(&mut connection).await?;
        if !writes {
            return Err(Error::Io(io::Error::from(io::ErrorKind::ReadOnlyFilesystem)));
        }
        Ok(Session { connection, known: Known::default(), backend: Backend { pid, began } })
    }

    /// Says farewell.
    pub(super) async fn close(self) {
        if let Some(session) = self.session {
            let _ = timeout(CONNECT_MAX, session.connection.close()).await;
        }
    }
}
