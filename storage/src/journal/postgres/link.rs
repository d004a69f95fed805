//! The journal's connection to the server: one of its own, so that reads never make a commit wait.

use super::Trouble;
use crate::sql::{SILENCE_MAX, silent};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _, Error};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long a server may take to come back before a batch fails.
const CONNECT_MAX: Duration = Duration::from_secs(2);
const CONNECT_AGAIN: Duration = Duration::from_millis(100);

/// Made when it is needed, and anew after anything went wrong over it: a server that became a reader (SQLSTATE 25006) or shuts
/// down answers each statement in good health, while its name already leads to another one.
pub(super) struct Link {
    options: PgConnectOptions,
    connection: Option<PgConnection>,
}

impl Link {
    pub(super) const fn new(options: PgConnectOptions) -> Self {
        Self { options, connection: None }
    }

    /// Does something over the connection. When nothing is heard it is closed, and what became of a commit is asked over the next.
    pub(super) async fn within_silence<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let done =
            timeout(SILENCE_MAX, work(&mut connection)).await.unwrap_or_else(|_| Err(Trouble::Unknown(silent())));
        let is_well = match &done {
            Ok(_) => true,
            // What was begun is rolled back with the next thing that is said.
            Err(Trouble::Contradiction) => matches!(timeout(SILENCE_MAX, connection.ping()).await, Ok(Ok(()))),
            Err(Trouble::NotDone(_) | Trouble::Unknown(_)) => false,
        };
        self.connection = is_well.then_some(connection);
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
        if let Some(connection) = self.connection {
            let _ = timeout(CONNECT_MAX, connection.close()).await;
        }
    }
}
