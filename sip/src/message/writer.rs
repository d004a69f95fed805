//! Header lines in one buffer, then the body: what requests and responses are written with.

use super::limits::MAX_STREAM_MESSAGE;
use super::scan::{is_clean, next_control};
use super::{HeaderName, Written};
use bytes::Bytes;
use std::borrow::Cow;

/// A message up to this length takes no more memory than it has bytes, since a transaction may keep it for 32 s. Of a longer one the
/// rest of its buffer is small, and it is not held twice while it is copied.
const EXACT_MAX: usize = 1_024;

/// Why a message cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A field every message needs was not given.
    #[error("{0} not given")]
    Missing(HeaderName),
    /// A value that would break the message, or a header with a setter of its own.
    #[error("{0} cannot be written")]
    Illegal(HeaderName),
    /// A Request-URI with URI headers (RFC 3261 §19.1.1).
    #[error("a request URI has no headers")]
    RequestUri,
    /// Larger than any transport takes.
    #[error("message too large")]
    TooLarge,
}

/// Lines of a message under way, and its body.
#[derive(Clone)]
pub(super) struct Writer {
    text: String,
    error: Option<BuildError>,
    body: Option<(Cow<'static, str>, Bytes)>,
}

impl Writer {
    pub(super) const fn new() -> Self {
        Self { text: String::new(), error: None, body: None }
    }

    pub(super) fn reserve(&mut self, bytes: usize) {
        self.text.reserve(bytes);
    }

    /// What was written so far.
    pub(super) const fn text(&self) -> &String {
        &self.text
    }

    /// Text that ends a line.
    pub(super) fn start_line(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.text.push_str(part));
        self.text.push_str("\r\n");
    }

    /// One header line, its value in parts; a control character in the value is the only thing that can break it.
    pub(super) fn line(&mut self, name: HeaderName, value: &[&str]) {
        self.line_with(name, |text| value.iter().for_each(|part| text.push_str(part)));
    }

    /// One header line whose value is written by `value`.
    pub(super) fn line_with(&mut self, name: HeaderName, value: impl FnOnce(&mut String)) {
        let start = self.begin(name);
        value(&mut self.text);
        if !is_writable(&self.text[start..]) {
            self.fail(BuildError::Illegal(name));
        }
        self.text.push_str("\r\n");
    }

    /// Lines that were written and checked before.
    pub(super) fn lines(&mut self, lines: &str) {
        self.text.push_str(lines);
    }

    fn begin(&mut self, name: HeaderName) -> usize {
        self.text.push_str(name.line_start());
        self.text.len()
    }

    pub(super) fn fail(&mut self, error: BuildError) {
        self.error = self.error.or(Some(error));
    }

    /// A header that has no setter of its own.
    pub(super) fn extra(&mut self, name: HeaderName, value: &(impl Written + ?Sized)) {
        let structural = matches!(
            name,
            HeaderName::Via
                | HeaderName::From
                | HeaderName::To
                | HeaderName::CallId
                | HeaderName::CSeq
                | HeaderName::MaxForwards
                | HeaderName::ContentLength
                | HeaderName::ContentType
                | HeaderName::Other
        );
        let start = self.begin(name);
        value.write_to(&mut self.text);
        let written = &self.text[start..];
        // No Info Package at all is said by an empty list (RFC 6086 §7.2).
        let lacks = written.is_empty() && name != HeaderName::RecvInfo;
        if structural || lacks || !is_clean(written) {
            self.fail(BuildError::Illegal(name));
        }
        self.text.push_str("\r\n");
    }

    pub(super) fn body(&mut self, content_type: Cow<'static, str>, body: Bytes) {
        self.body = Some((content_type, body));
    }

    /// Bytes that [`Self::finish`] adds.
    pub(super) fn rest(&self) -> usize {
        let (content_type, body) =
            self.body.as_ref().map_or(("", &[][..]), |(content_type, body)| (content_type, body));
        let type_line = if body.is_empty() { 0 } else { "Content-Type: \r\n".len() + content_type.len() };
        type_line + "Content-Length: \r\n\r\n".len() + digits(body.len()) + body.len()
    }

    /// The body of another, and what went wrong with it.
    pub(super) fn take_over(&mut self, other: Self) {
        self.error = self.error.or(other.error);
        self.body = other.body;
    }

    pub(super) fn finish(mut self) -> Result<Bytes, BuildError> {
        let length = self.text.len() + self.rest();
        self.make_room(length);
        let (content_type, body) = self.body.take().unwrap_or_default();
        if !body.is_empty() {
            self.line(HeaderName::ContentType, &[&content_type]);
        }
        self.begin(HeaderName::ContentLength);
        (body.len() as u64).write_to(&mut self.text);
        self.text.push_str("\r\n\r\n");
        if let Some(error) = self.error {
            return Err(error);
        }
        if length > MAX_STREAM_MESSAGE {
            return Err(BuildError::TooLarge);
        }
        let mut bytes = self.text.into_bytes();
        bytes.extend_from_slice(&body);
        Ok(Bytes::from(bytes))
    }

    /// For a message of this length. A block that only shrinks would stay as large as it is: the allocator moves nothing then.
    fn make_room(&mut self, length: usize) {
        if length <= EXACT_MAX && self.text.capacity() != length {
            let mut exact = String::with_capacity(length);
            exact.push_str(&self.text);
            self.text = exact;
        } else {
            self.text.reserve(length - self.text.len());
        }
    }
}

/// Digits of a number as it is written.
pub(super) fn digits(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |power| power as usize + 1)
}

/// No line end, and no control character but a tab or one in a quoted pair (copied from a checked request).
fn is_writable(value: &str) -> bool {
    let bytes = value.as_bytes();
    let mut at = next_control(bytes, 0);
    while let Some(byte) = bytes.get(at) {
        let is_quoted = at > 0 && bytes[at - 1] == b'\\';
        if matches!(byte, b'\r' | b'\n') || (*byte != b'\t' && !is_quoted) {
            return false;
        }
        at = next_control(bytes, at + 1);
    }
    true
}
