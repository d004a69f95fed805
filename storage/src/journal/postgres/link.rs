//! A lane's connection to the server: one of its own, so that neither reads nor the other lane make a commit wait.

use super::super::known::Known;
use super::Trouble;
use crate::sql::{SILENCE_MAX, silent};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _, Error};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long a server may take to come back before a batch fails.
const CONNECT_MAX: Duration = Duration::from_secs(2);
const CONNECT_AGAIN: Duration = Duration::from_millis(100);

/// A connection, with what was committed over it.
pub(super) struct Session {
    pub(super) connection: PgConnection,
    pub(super) known: Known,
    /// The number of the advisory lock that a lane's batch holds until its transaction is over, one way or the other; shared, so
    /// that nobody waits for it but who asks what became of a batch.
    pub(super) writing: i64,
}

/// Of the first lane.
const WRITING: i64 = 7_242;

/// Made when it is needed, and anew after anything went wrong over it: a server that became a reader (SQLSTATE 25006) or shuts
/// down answers each statement in good health, while its name already leads to another one.
pub(super) struct Link {
    options: PgConnectOptions,
    writing: i64,
    session: Option<Session>,
}

impl Link {
    pub(super) const fn new(options: PgConnectOptions, lane: usize) -> Self {
        Self { options, writing: WRITING + lane as i64, session: None }
    }

    /// Does something over the connection. When nothing is heard it is closed, and what became of a commit is asked over the next.
    pub(super) async fn within_silence<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => {
                let connection = self.connect().await?;
                Session { connection, known: Known::default(), writing: self.writing }
            }
        };
        let done = timeout(SILENCE_MAX, work(&mut session)).await.unwrap_or_else(|_| Err(Trouble::Unknown(silent())));
        let is_well = match &done {
            Ok(_) => true,
            Err(Trouble::Contradiction) => {
                session.known = Known::default();
                // What was begun is rolled back with the next thing that is said.
                matches!(timeout(SILENCE_MAX, session.connection.ping()).await, Ok(Ok(())))
            }
            Err(Trouble::NotDone(_) | Trouble::Unknown(_)) => false,
        };
        self.session = is_well.then_some(session);
        done
    }

    /// Tries again for a while: a server that restarts refuses connections meanwhile.
    async fn connect(&self) -> Result<PgConnection, Error> {
        let mut refused = silent();
        let connecting = async {
            loop {
                match self.options.connect().await {
                    Ok(connection) => return connection,
                    Err(error) => refused = error,
                }
                sleep(CONNECT_AGAIN).await;
            }
        };
        let connected = timeout(CONNECT_MAX, Box::pin(connecting)).await;
        connected.map_err(|_| refused)
    }

    /// Says farewell.
    pub(super) async fn close(self) {
        if let Some(session) = self.session {
            let _ = timeout(CONNECT_MAX, session.connection.close()).await;
        }
    }
}
