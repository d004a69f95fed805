//! A PostgreSQL server that falls silent: its machine has lost power, or the network swallows everything. TCP itself waits for a
//! quarter of an hour, or for ever. Who asks is told after [`SILENCE_MAX`], and the connection is closed.

use super::failed;
use crate::error::StoreError;
use futures_util::{Stream, StreamExt};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Error, Row as _};
use std::io;
use std::time::Duration;
use tokio::time::timeout;

/// A server of which nothing is heard for so long is given up.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Longest wait for a row of a statement that may have to look at all of them first.
const ROW_MAX: Duration = Duration::from_secs(600);
/// How long a connection that is given back may take to show that it still answers.
const PING_MAX: Duration = Duration::from_secs(5);

/// What is told then.
pub(crate) fn silent() -> Error {
    Error::Io(io::Error::from(io::ErrorKind::TimedOut))
}

/// The answer, or that none came. Then the connection is dropped with the question, and its pool closes it. Boxed: whoever asks has
/// room for a pointer, not for all that sqlx keeps, once more for each step in between.
pub(super) fn answered<'a, T: 'a>(
    asked: impl Future<Output = Result<T, StoreError>> + Send + 'a,
) -> impl Future<Output = Result<T, StoreError>> + Send + 'a {
    let answer = timeout(SILENCE_MAX, Box::pin(asked));
    async { answer.await.unwrap_or_else(|_| Err(failed(silent()))) }
}

/// A row, or the end of them, of a statement that reads much.
pub(super) async fn next_row<T>(rows: &mut (impl Stream<Item = Result<T, Error>> + Unpin)) -> Option<Result<T, Error>> {
    timeout(ROW_MAX, rows.next()).await.unwrap_or_else(|_| Some(Err(silent())))
}

/// Whether a connection may be used again: its server writes, and no transaction is open. One whose `begin` was given up is, and
/// `sqlx` knows nothing of it: what the next one writes would go with it. Outside of one a statement begins its own.
const IS_USABLE: &str =
    "select current_setting('transaction_read_only') = 'off' and transaction_timestamp() = statement_timestamp()";

/// A pool whose connections make room for others when they are given back and do not answer any more, since the pool asks each of
/// them and would wait for the answer without a limit; or when they are of no use: a server became a reader, and its name leads to
/// another one.
pub(super) fn closing_useless(options: PgPoolOptions) -> PgPoolOptions {
    options.after_release(|connection, _| {
        Box::pin(async move {
            // In one message, so that the server's two clocks are of the same one.
            let asked = sqlx::raw_sql(IS_USABLE).fetch_one(connection);
            timeout(PING_MAX, asked).await.unwrap_or_else(|_| Err(silent()))?.try_get(0)
        })
    })
}
