//! Cuts a byte stream into messages (RFC 3261 §18.3, RFC 5626 §3.5.1).

use super::lexer::{self, Head};
use super::limits::MAX_STREAM_MESSAGE;
use super::{HeaderName, Message, ParseError, Problem};
use bytes::{Buf, Bytes, BytesMut};

/// One thing found in a stream.
#[derive(Debug)]
pub enum Frame {
    /// A message.
    Message(Message),
    /// A complete message that breaks a rule; the stream goes on behind it.
    Refused(ParseError),
    /// Two line ends between messages: a keep-alive that wants one line end back.
    Ping,
}

/// Where in the current message the stream stands.
enum State {
    /// In the head; the first `scanned` bytes hold no end of it.
    Head { scanned: usize },
    /// In the body: the head is read and cut off, `length` bytes of body are to come.
    Body { head: Box<Head>, problem: Option<Problem>, length: usize },
    /// After a fatal error: the place of the next message is not known.
    Lost,
}

/// Collects a connection's bytes and gives out messages.
///
/// ```text
/// Head ──(empty line, Content-Length known)──▶ Body ──(all bytes there)──▶ Head
///   └──(head cannot be read, or its length cannot be known)──▶ Lost
/// ```
pub struct Framer {
    buffer: BytesMut,
    state: State,
    /// Something was cut off since the last read.
    is_cut: bool,
}

/// What a message takes that has not come to its end, in bytes; nothing between messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfinished {
    /// What has come of it.
    pub came: usize,
    /// Memory.
    pub takes: usize,
}

impl Default for Framer {
    fn default() -> Self {
        Self::new()
    }
}

impl Framer {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self { buffer: BytesMut::new(), state: State::Head { scanned: 0 }, is_cut: false }
    }

    /// Adds received bytes. The caller then takes frames until there is none, so that the buffer holds at most one
    /// incomplete message ([`MAX_STREAM_MESSAGE`]) and one read.
    pub fn push(&mut self, bytes: &[u8]) {
        if !matches!(self.state, State::Lost) {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// True between messages: nothing of the next one has come but line ends, which are nothing (RFC 3261 §7.5) or half a ping.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Head { scanned: 0 }) && b"\r\n\r".starts_with(&self.buffer)
    }

    /// Of the message under way.
    #[must_use]
    pub fn unfinished(&self) -> Unfinished {
        let head = if let State::Body { head, .. } = &self.state { head.size() } else { 0 };
        Unfinished { came: self.buffer.len() + head, takes: self.buffer.capacity() + head }
    }

    /// The next frame, `None` when more bytes are needed.
    ///
    /// # Errors
    /// When the place of the next message cannot be known: the connection must be closed, after the answer if
    /// [`ParseError::answer`] gives one. Every later call gives the same kind of error.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, ParseError> {
        let frame = self.find_frame()?;
        if frame.is_none() && std::mem::take(&mut self.is_cut) {
            // The rest stands alone: a peer that is silent keeps none of what was read with it.
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        Ok(frame)
    }

    fn cut_off(&mut self, length: usize) {
        self.buffer.advance(length);
        self.is_cut = true;
    }

    fn find_frame(&mut self) -> Result<Option<Frame>, ParseError> {
        if let State::Head { scanned } = self.state {
            // No further than a ping, or a flood of line ends would be looked through again for each of them.
            if scanned == 0 && self.buffer.starts_with(b"\r\n\r\n") {
                self.cut_off(4);
                return Ok(Some(Frame::Ping));
            }
            let may_be_ping = self.buffer.get(2).is_none_or(|byte| *byte == b'\r');
            if scanned == 0 && self.buffer.starts_with(b"\r\n") && !may_be_ping {
                self.cut_off(2);
            }
            if !self.read_head(scanned)? {
                return Ok(None);
            }
        }
        self.read_body()
    }

    fn fail(&mut self, error: ParseError) -> ParseError {
        self.state = State::Lost;
        self.buffer = BytesMut::new();
        error
    }

    /// Reads the head if it is complete.
    fn read_head(&mut self, scanned: usize) -> Result<bool, ParseError> {
        let Some(end) = lexer::head_end(&self.buffer, scanned) else {
            // Line ends in front of the start line are looked at again, since they may become a ping.
            let scanned = if self.buffer.len() <= 3 { 0 } else { self.buffer.len() };
            self.state = State::Head { scanned };
            return if self.buffer.len() >= MAX_STREAM_MESSAGE {
                Err(self.fail(ParseError::silent(Problem::MessageTooLarge)))
            } else {
                Ok(false)
            };
        };
        let (head, problem) = match lexer::lex(&self.buffer[..end]) {
            Ok(read) => read,
            Err(problem) => return Err(self.fail(ParseError::silent(problem))),
        };
        self.cut_off(end);
        let length = match (problem, head.content_length()) {
            // A header line that cannot be read might have been a Content-Length.
            (Some(problem @ (Problem::HeaderLine | Problem::HeaderLineTooLong | Problem::TooManyHeaders)), _) => {
                Err(problem)
            }
            (_, Ok(Some(length))) if length.saturating_add(end) <= MAX_STREAM_MESSAGE => Ok(length),
            (_, Ok(Some(_))) => Err(Problem::MessageTooLarge),
            (_, Ok(None)) => Err(Problem::Missing(HeaderName::ContentLength)),
            (_, Err(problem)) => Err(problem),
        };
        match length {
            Ok(length) => {
                self.state = State::Body { head: Box::new(head), problem, length };
                Ok(true)
            }
            Err(problem) => {
                let error = Message::finish(head, bytes::Bytes::new(), Some(problem))
                    .err()
                    .unwrap_or(ParseError::silent(problem));
                Err(self.fail(error))
            }
        }
    }

    fn read_body(&mut self) -> Result<Option<Frame>, ParseError> {
        match std::mem::replace(&mut self.state, State::Lost) {
            State::Body { head, problem, length } if self.buffer.len() >= length => {
                self.state = State::Head { scanned: 0 };
                let body = Bytes::copy_from_slice(&self.buffer[..length]);
                self.cut_off(length);
                Ok(Some(match Message::finish(*head, body, problem) {
                    Ok(message) => Frame::Message(message),
                    Err(error) => Frame::Refused(error),
                }))
            }
            waiting @ State::Body { .. } => {
                self.state = waiting;
                Ok(None)
            }
            State::Head { .. } => Ok(None),
            State::Lost => Err(ParseError::silent(Problem::Truncated)),
        }
    }
}

impl std::fmt::Debug for Framer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Framer").field("buffered", &self.buffer.len()).finish_non_exhaustive()
    }
}
