//! SIP messages (RFC 3261 §7): a strict lexer that is also the framer, typed header values, and builders that write
//! messages from typed values only. Nothing here allocates more than the message's own size, or recurses on input.

mod address;
mod error;
mod essentials;
mod framer;
mod glance;
mod headers;
mod lexer;
pub mod limits;
mod name;
mod params;
mod rack;
mod reason;
mod request;
mod response;
pub(crate) mod scan;
mod spoilt;
mod uri;
mod validate;
mod via;
mod writer;
mod written;

pub(crate) use address::AddressParts;
pub(crate) use address::AddressText;
pub use address::{Address, NameAddr};
pub use error::{Malformed, ParseError, Problem};
pub use framer::{Frame, Framer, Unfinished};
pub use glance::{Glance, acknowledged};
pub use name::{HeaderName, Method};
pub use params::Params;
pub use rack::RAck;
pub use reason::Reason;
pub use request::RequestBuilder;
pub use response::{ResponseBuilder, reason_phrase};
pub use uri::{Scheme, Uri};
pub use via::{Transport, Via};
pub use writer::BuildError;
pub use written::Written;

use bytes::Bytes;
use lexer::Head;
use std::net::SocketAddr;
use std::sync::Arc;

/// A received message: its head checked and indexed, its body as it came. Cloning copies two pointers.
///
/// Every `Message` handed out by [`Message::parse_datagram`] or [`Framer`] is complete: one From, To, Call-ID and CSeq,
/// at least one Via, all of them well-formed, so the accessors of those need no `Option`.
#[derive(Clone)]
pub struct Message {
    head: Arc<Head>,
    body: Bytes,
    source: Option<SocketAddr>,
}

impl Message {
    /// Reads one datagram (RFC 3261 §18.3): without Content-Length the body is the rest, surplus bytes are cut off.
    ///
    /// # Errors
    /// The first rule broken. [`Problem::Empty`] is a keep-alive and not worth counting.
    pub fn parse_datagram(datagram: &Bytes) -> Result<Self, ParseError> {
        if datagram.len() > limits::MAX_DATAGRAM {
            return Err(ParseError::silent(Problem::MessageTooLarge));
        }
        let blank = lexer::blank_lines(datagram);
        let text = &datagram[blank..];
        if text.is_empty() {
            return Err(ParseError::silent(Problem::Empty));
        }
        let head_end = lexer::head_end(text, 0).ok_or(ParseError::silent(Problem::Truncated))?;
        let (head, problem) = lexer::lex(&text[..head_end]).map_err(ParseError::silent)?;
        let available = text.len() - head_end;
        let (length, length_problem) = match head.content_length() {
            Ok(None) => (available, None),
            Ok(Some(length)) if length <= available => (length, None),
            Ok(Some(_)) => (0, Some(Problem::ContentLength)),
            Err(problem) => (0, Some(problem)),
        };
        let start = blank + head_end;
        Self::finish(head, datagram.slice(start..start + length), problem.or(length_problem))
    }

    /// Checks the fields and makes the message, or the error that can still answer it.
    fn finish(mut head: Head, body: Bytes, problem: Option<Problem>) -> Result<Self, ParseError> {
        let checked = validate::check(&mut head, !body.is_empty());
        let message = Self { head: Arc::new(head), body, source: None };
        match problem.map_or(checked, Err) {
            Ok(()) => Ok(message),
            Err(problem) => Err(ParseError::with_request(problem, message)),
        }
    }

    /// Notes where the message came from. The top Via then reads with `received` and `rport` filled in
    /// (RFC 3261 §18.2.1, RFC 3581 §4), here and in responses built from it.
    #[must_use]
    pub fn with_source(self, source: SocketAddr) -> Self {
        Self { source: Some(source), ..self }
    }

    /// Where the message came from, if noted.
    #[must_use]
    pub const fn source(&self) -> Option<SocketAddr> {
        self.source
    }

    /// The same, to be kept for a while.
    pub(crate) fn kept(self) -> Self {
        Self { body: self.body_alone().into(), ..self }
    }

    /// The body, to be kept: it stands alone and does not keep all that was read together with it.
    pub(crate) fn body_alone(&self) -> Box<[u8]> {
        Box::from(&*self.body)
    }

    /// Bytes of memory that it takes when it is kept.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.head.size() + self.body.len()
    }

    /// The body, cut to its Content-Length.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }
}

/// Start line kind and sizes only: header values may be personal.
impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Message");
        debug.field("method", self.method());
        if let Some(status) = self.status() {
            debug.field("status", &status);
        }
        debug.field("headers", &self.head.fields.len()).field("body", &self.body.len()).finish()
    }
}

#[cfg(test)]
pub(crate) mod tests;
