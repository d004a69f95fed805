//! One TCP or TLS connection: a task between two bounded queues. It can delay nobody but itself.

use super::TransportLimits;
use crate::flow::{ConnectionId, Flow, Unreached};
use crate::message::{Frame, Framer, Message, ParseError};
use bytes::Bytes;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

/// Bytes taken from a socket at once.
const READ: usize = 16 * 1024;

/// What connections tell the SIP thread.
#[derive(Debug)]
pub(super) enum Arrived {
    /// The handshake or the connect is done.
    Opened(ConnectionId),
    /// A message.
    Message(Flow, Message),
    /// A message that breaks a rule.
    Refused(Flow, ParseError),
    /// The place of the next message is not known: the connection ends after the answer.
    Lost(Flow, ParseError),
    /// It is over; `unreached` says why a connection never came up.
    Closed { id: ConnectionId, unreached: Option<Unreached> },
}

/// What a connection's task is given.
pub(super) struct Line {
    pub(super) flow: Flow,
    pub(super) id: ConnectionId,
    /// Whether the peer opened it: then its first message has to come in time, and its pings are answered.
    pub(super) incoming: bool,
    pub(super) arrivals: mpsc::Sender<Arrived>,
    pub(super) outbox: mpsc::Receiver<Bytes>,
    pub(super) limits: TransportLimits,
}

/// The connection is to end.
struct End;

impl Line {
    /// Carries messages until either side closes, a limit is broken, or the SIP thread drops the outbox.
    pub(super) async fn carry<S: AsyncRead + AsyncWrite>(mut self, stream: S) {
        let _ = self.arrivals.send(Arrived::Opened(self.id)).await;
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut pace = Pace::new(&self.limits, self.incoming);
        let mut framer = Framer::new();
        let mut buffer = vec![0; READ];
        loop {
            let step = tokio::select! {
                read = reader.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => Err(End),
                    Ok(length) => {
                        framer.push(&buffer[..length]);
                        self.take_frames(&mut framer, &mut pace, &mut writer).await
                    }
                },
                bytes = self.outbox.recv() => match bytes {
                    Some(bytes) => self.write(&mut writer, &bytes).await,
                    None => Err(End),
                },
                () = sleep_until(pace.deadline()) => Err(End),
            };
            if step.is_err() {
                break;
            }
        }
        let _ = timeout(Duration::from_secs(1), writer.shutdown()).await;
        let _ = self.arrivals.send(Arrived::Closed { id: self.id, unreached: None }).await;
    }

    /// Handshake or connect failed, or took too long.
    pub(super) async fn never_opened(self, why: Unreached) {
        let _ = self.arrivals.send(Arrived::Closed { id: self.id, unreached: Some(why) }).await;
    }

    async fn take_frames<W: AsyncWrite + Unpin>(
        &mut self,
        framer: &mut Framer,
        pace: &mut Pace,
        writer: &mut W,
    ) -> Result<(), End> {
        loop {
            match framer.next_frame() {
                Ok(None) => {
                    pace.waiting(framer.is_idle());
                    return Ok(());
                }
                Ok(Some(Frame::Message(message))) => {
                    pace.message();
                    let message = message.with_source(self.flow.peer);
                    self.tell(Arrived::Message(self.flow, message)).await?;
                }
                Ok(Some(Frame::Refused(error))) => {
                    pace.message();
                    self.tell(Arrived::Refused(self.flow, error)).await?;
                }
                Ok(Some(Frame::Ping)) => {
                    pace.ping();
                    if self.incoming {
                        self.write(writer, b"\r\n").await?;
                    }
                }
                Err(error) => {
                    // The next message cannot be found: answer what can be answered, then close.
                    self.tell(Arrived::Lost(self.flow, error)).await?;
                    while let Some(bytes) = self.outbox.recv().await {
                        self.write(writer, &bytes).await?;
                    }
                    return Err(End);
                }
            }
        }
    }

    /// Waits for room in the queue: a flood is read no faster than it is handled.
    async fn tell(&self, arrived: Arrived) -> Result<(), End> {
        self.arrivals.send(arrived).await.map_err(|_| End)
    }

    async fn write<W: AsyncWrite + Unpin>(&self, writer: &mut W, bytes: &[u8]) -> Result<(), End> {
        let write = async {
            writer.write_all(bytes).await?;
            writer.flush().await
        };
        match timeout(self.limits.write, write).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(End),
        }
    }
}

/// When a peer has to have said something.
struct Pace {
    limits: TransportLimits,
    /// Until the first complete message.
    first: Option<Instant>,
    /// Since when a message is incomplete.
    partial: Option<Instant>,
    last: Instant,
}

impl Pace {
    fn new(limits: &TransportLimits, incoming: bool) -> Self {
        let now = Instant::now();
        Self { limits: limits.clone(), first: incoming.then(|| now + limits.first_message), partial: None, last: now }
    }

    fn deadline(&self) -> Instant {
        let idle = self.last + self.limits.idle;
        let partial = self.partial.map(|since| since + self.limits.first_message);
        [self.first, partial].into_iter().flatten().fold(idle, Instant::min)
    }

    /// A keep-alive counts as life, but not as the first message.
    fn ping(&mut self) {
        self.last = Instant::now();
        self.partial = None;
    }

    fn message(&mut self) {
        self.ping();
        self.first = None;
    }

    fn waiting(&mut self, between_messages: bool) {
        self.partial = if between_messages { None } else { Some(self.partial.unwrap_or_else(Instant::now)) };
    }
}
