//! What is wrong with a received message; never an echo of what was received.

use super::{HeaderName, Message, ResponseBuilder};
use bytes::Bytes;

/// A value that does not follow its grammar. Carries nothing of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed value")]
pub struct Malformed;

/// Which rule a message breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Nothing but line ends: a keep-alive, not a message.
    #[error("empty message")]
    Empty,
    /// Larger than the transport's limit.
    #[error("message too large")]
    MessageTooLarge,
    /// A line does not end in CRLF, or holds a bare CR or LF.
    #[error("bad line ending")]
    LineEnding,
    /// No empty line ends the header section.
    #[error("header section not ended")]
    Truncated,
    /// The start line is neither a request line nor a status line.
    #[error("malformed start line")]
    StartLine,
    /// The start line is longer than its limit.
    #[error("start line too long")]
    StartLineTooLong,
    /// Another version than SIP/2.0.
    #[error("unsupported SIP version")]
    Version,
    /// The Request-URI does not follow its grammar.
    #[error("malformed request URI")]
    RequestUri,
    /// A header line without a name and a colon.
    #[error("malformed header line")]
    HeaderLine,
    /// A header line longer than its limit.
    #[error("header line too long")]
    HeaderLineTooLong,
    /// The header section holds a control character, or is not UTF-8 where it matters.
    #[error("illegal character in the header section")]
    IllegalCharacter,
    /// More header fields than the limit.
    #[error("too many header fields")]
    TooManyHeaders,
    /// More values of this header than its limit.
    #[error("too many {0} values")]
    TooMany(HeaderName),
    /// A required header is absent.
    #[error("{0} missing")]
    Missing(HeaderName),
    /// A header that may stand once stands twice.
    #[error("{0} repeated")]
    Duplicate(HeaderName),
    /// The header's value does not follow its grammar.
    #[error("malformed {0}")]
    Malformed(HeaderName),
    /// CSeq names another method than the request line.
    #[error("CSeq method differs from the request's")]
    MethodMismatch,
    /// Content-Length and the bytes received disagree.
    #[error("Content-Length disagrees with the body")]
    ContentLength,
}

impl Problem {
    /// Status code that says this problem to a client.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Version => 505,
            Self::MessageTooLarge | Self::HeaderLineTooLong | Self::TooManyHeaders | Self::TooMany(_) => 513,
            Self::StartLineTooLong => 414,
            _ => 400,
        }
    }
}

/// A message refused, and the request to answer where RFC 3261 allows an answer.
#[derive(Clone, thiserror::Error)]
#[error("{problem}")]
pub struct ParseError {
    /// Which rule was broken first.
    pub problem: Problem,
    request: Option<Box<Message>>,
}

impl ParseError {
    pub(super) const fn silent(problem: Problem) -> Self {
        Self { problem, request: None }
    }

    pub(super) fn with_request(problem: Problem, message: Message) -> Self {
        let answerable = message.is_request() && !message.is_ack() && message.has_answerable_fields();
        Self { problem, request: answerable.then(|| Box::new(message)) }
    }

    /// True when a response can be built: a request other than ACK with Via and CSeq, readable or not.
    #[must_use]
    pub const fn can_answer(&self) -> bool {
        self.request.is_some()
    }

    /// What a request that can be answered says it was sent by.
    #[must_use]
    pub fn user_agent(&self) -> Option<&str> {
        self.request.as_deref()?.text(HeaderName::UserAgent)
    }

    /// The response (400, 414, 505 or 513) to send back, if one is allowed. `source` is where the request came from.
    #[must_use]
    pub fn answer(&self, source: std::net::SocketAddr, to_tag: &str) -> Option<Bytes> {
        let request = self.request.as_deref()?.clone().with_source(source);
        ResponseBuilder::to_request(&request, self.problem.status(), Some(to_tag)).build().ok()
    }
}

impl std::fmt::Debug for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParseError").field("problem", &self.problem).field("can_answer", &self.can_answer()).finish()
    }
}
