//! One TCP or TLS connection: a task between two bounded queues. It can delay nobody but itself.

use super::TransportLimits;
use super::incomplete::Share;
use super::outbox::Queued;
use crate::flow::{ConnectionId, Flow, Unreached};
use crate::message::{Frame, Framer, Message, Method, ParseError};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::ready;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

/// Pings a second of one connection that a peer opened; more end it. A phone sends one in some ten seconds.
const PINGS: u32 = 100;
/// Bytes taken from a socket at once.
const READ: usize = 16 * 1024;
/// How long a connection whose next message cannot be found stays for the answers to those before.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes taken from such a connection and not looked at. A socket that is closed with bytes unread is reset, and what was
/// answered may be lost with it.
const UNHEARD: usize = 256 * 1024;

/// What connections tell the SIP thread.
#[derive(Debug)]
pub(super) enum Arrived {
    /// The handshake or the connect is done.
    Opened(ConnectionId),
    /// A message.
    Message(Flow, Message),
    /// A message that breaks a rule. Where the place of the next one is not known the connection ends after the answers.
    Refused(Flow, ParseError),
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
    pub(super) outbox: Queued,
    /// Of what peers have begun to say; none of a connection that we opened.
    pub(super) share: Option<Share>,
    pub(super) limits: TransportLimits,
}

thread_local! {
    /// What has just been read: a connection that is silent takes no memory for it.
    static JUST_READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

/// Reads once and shows what has come, nothing when the peer will say no more. May be given up at any time.
async fn read<R: AsyncRead + Unpin>(reader: &mut R, mut show: impl FnMut(&[u8])) -> io::Result<usize> {
    let read = |context: &mut std::task::Context<'_>| {
        JUST_READ.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut *reader).poll_read(context, &mut buffer))?;
            show(buffer.filled());
            std::task::Poll::Ready(Ok(buffer.filled().len()))
        })
    };
    poll_fn(read).await
}

/// How the connection is to end.
enum End {
    /// At once.
    Now,
    /// When what was read is answered.
    Answered,
}

/// Requests read and not answered yet.
#[derive(Default)]
struct Unanswered(usize);

impl Unanswered {
    fn read(&mut self, message: &Message) {
        self.0 += usize::from(message.is_request() && *message.method() != Method::Ack);
    }

    /// What breaks a rule is answered where that is allowed.
    fn refused(&mut self, error: &ParseError) {
        self.0 += usize::from(error.can_answer());
    }

    fn written(&mut self, bytes: &[u8]) {
        let is_final = bytes.starts_with(b"SIP/2.0 ") && !bytes.starts_with(b"SIP/2.0 1");
        self.0 = self.0.saturating_sub(usize::from(is_final));
    }
}

impl Line {
    /// Carries messages until either side closes, a limit is broken, or the SIP thread drops the outbox.
    pub(super) async fn carry<S: AsyncRead + AsyncWrite>(mut self, stream: S) {
        let _ = self.arrivals.send(Arrived::Opened(self.id)).await;
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut pace = Pace::new(&self.limits, self.incoming);
        let (mut framer, mut unanswered) = (Framer::new(), Unanswered::default());
        let end = loop {
            let step = tokio::select! {
                read = read(&mut reader, |bytes| framer.push(bytes)) => match read {
                    Ok(0) | Err(_) => Err(End::Now),
                    Ok(_) => self.take_frames(&mut framer, &mut pace, &mut unanswered, &mut writer).await,
                },
                bytes = self.outbox.next() => match bytes {
                    Some(bytes) => self.answer(&mut writer, &mut unanswered, &bytes).await,
                    None => Err(End::Now),
                },
                () = sleep_until(pace.deadline()) => Err(End::Now),
            };
            if let Err(end) = step {
                break end;
            }
        };
        if matches!(end, End::Answered) {
            self.linger(&mut reader, &mut writer, unanswered).await;
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
        unanswered: &mut Unanswered,
        writer: &mut W,
    ) -> Result<(), End> {
        let mut is_pinged = false;
        loop {
            match framer.next_frame() {
                Ok(None) => {
                    pace.waiting(framer.is_idle());
                    let is_known = self.outbox.is_known();
                    if self.share.as_mut().is_some_and(|share| !share.keep(framer.unfinished(), is_known)) {
                        return Err(End::Now);
                    }
                    // One for all that came together: a phone sends the next one when it has this.
                    return if is_pinged { self.write(writer, b"\r\n").await } else { Ok(()) };
                }
                Ok(Some(Frame::Message(message))) => {
                    pace.message();
                    unanswered.read(&message);
                    let message = message.with_source(self.flow.peer);
                    self.tell(Arrived::Message(self.flow, message)).await?;
                }
                Ok(Some(Frame::Refused(error))) => {
                    pace.message();
                    unanswered.refused(&error);
                    self.tell(Arrived::Refused(self.flow, error)).await?;
                }
                Ok(Some(Frame::Ping)) => {
                    if !pace.ping() && self.incoming {
                        return Err(End::Now);
                    }
                    is_pinged = self.incoming;
                }
                Err(error) => {
                    unanswered.refused(&error);
                    self.tell(Arrived::Refused(self.flow, error)).await?;
                    return Err(End::Answered);
                }
            }
        }
    }

    /// The next message cannot be found: writes the answers to what was read, says that no more will come and waits until the
    /// peer has heard that. What it still sends is not looked at.
    async fn linger<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        reader: &mut R,
        writer: &mut W,
        mut unanswered: Unanswered,
    ) {
        let until = Instant::now() + LINGER;
        let (mut unheard, mut is_shut, mut has_ended) = (UNHEARD, false, false);
        loop {
            if unanswered.0 == 0 && !is_shut {
                is_shut = true;
                let _ = timeout(LINGER, writer.shutdown()).await;
            }
            if is_shut && has_ended {
                return;
            }
            let step = tokio::select! {
                bytes = self.outbox.next() => match bytes {
                    Some(_) if is_shut => Ok(()),
                    Some(bytes) => self.answer(writer, &mut unanswered, &bytes).await,
                    None => Err(End::Now),
                },
                read = read(reader, |_| ()), if unheard > 0 && !has_ended => read.map_err(|_| End::Now).map(|length| {
                    // Whoever has said all may still listen.
                    has_ended = length == 0;
                    unheard = unheard.saturating_sub(length);
                }),
                () = sleep_until(until) => Err(End::Now),
            };
            if step.is_err() {
                return;
            }
        }
    }

    /// Waits for room in the queue: a flood is read no faster than it is handled.
    async fn tell(&self, arrived: Arrived) -> Result<(), End> {
        self.arrivals.send(arrived).await.map_err(|_| End::Now)
    }

    async fn answer<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut W,
        unanswered: &mut Unanswered,
        bytes: &[u8],
    ) -> Result<(), End> {
        self.write(writer, bytes).await?;
        unanswered.written(bytes);
        Ok(())
    }

    async fn write<W: AsyncWrite + Unpin>(&self, writer: &mut W, bytes: &[u8]) -> Result<(), End> {
        let write = async {
            writer.write_all(bytes).await?;
            writer.flush().await
        };
        match timeout(self.limits.write, write).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(End::Now),
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
    /// Pings of the second that began then.
    pings: (Instant, u32),
}

impl Pace {
    fn new(limits: &TransportLimits, incoming: bool) -> Self {
        let now = Instant::now();
        let first = incoming.then(|| now + limits.first_message);
        Self { limits: limits.clone(), first, partial: None, last: now, pings: (now, 0) }
    }

    fn deadline(&self) -> Instant {
        let idle = self.last + self.limits.idle;
        let partial = self.partial.map(|since| since + self.limits.first_message);
        [self.first, partial].into_iter().flatten().fold(idle, Instant::min)
    }

    /// A keep-alive counts as life, but not as the first message. False: too many have come.
    fn ping(&mut self) -> bool {
        self.alive();
        if self.last - self.pings.0 >= Duration::from_secs(1) {
            self.pings = (self.last, 0);
        }
        self.pings.1 += 1;
        self.pings.1 <= PINGS
    }

    fn alive(&mut self) {
        self.last = Instant::now();
        self.partial = None;
    }

    fn message(&mut self) {
        self.alive();
        self.first = None;
    }

    /// What was read is taken. Line ends alone count as life, as a ping does.
    fn waiting(&mut self, between_messages: bool) {
        if between_messages {
            return self.alive();
        }
        self.partial = Some(self.partial.unwrap_or_else(Instant::now));
    }
}
