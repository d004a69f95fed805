//! Builds requests from typed values.

use super::limits::MAX_STREAM_MESSAGE;
use super::scan::{is_call_id, is_clean};
use super::{HeaderName, Message, Method, NameAddr, Uri, Via};
use bytes::Bytes;
use std::borrow::Cow;
use std::fmt::Write as _;

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

/// The part requests and responses share: header lines, then the body.
#[derive(Clone)]
pub(super) struct Writer {
    text: String,
    error: Option<BuildError>,
    extra: Vec<(HeaderName, String)>,
    body: Option<(Cow<'static, str>, Bytes)>,
}

impl Writer {
    pub(super) const fn new() -> Self {
        Self { text: String::new(), error: None, extra: Vec::new(), body: None }
    }

    pub(super) fn start_line(&mut self, capacity: usize, line: std::fmt::Arguments<'_>) {
        self.text.reserve(capacity);
        let _ = self.text.write_fmt(line);
        self.text.push_str("\r\n");
    }

    /// One header line; a control character in the value is the only thing that can break it.
    pub(super) fn line(&mut self, name: HeaderName, value: &dyn std::fmt::Display) {
        let start = self.text.len();
        let _ = write!(self.text, "{}: {value}", name.as_str());
        if !is_writable(&self.text[start..]) {
            self.fail(BuildError::Illegal(name));
        }
        self.text.push_str("\r\n");
    }

    pub(super) fn fail(&mut self, error: BuildError) {
        self.error = self.error.or(Some(error));
    }

    /// A header that has no setter of its own.
    pub(super) fn extra(&mut self, name: HeaderName, value: String) {
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
        if structural || value.is_empty() || !is_clean(&value) {
            self.fail(BuildError::Illegal(name));
        } else {
            self.extra.push((name, value));
        }
    }

    pub(super) fn body(&mut self, content_type: Cow<'static, str>, body: Bytes) {
        self.body = Some((content_type, body));
    }

    pub(super) fn finish(mut self) -> Result<Bytes, BuildError> {
        for (name, value) in std::mem::take(&mut self.extra) {
            self.line(name, &value);
        }
        let (content_type, body) = self.body.take().unwrap_or_default();
        if !body.is_empty() {
            self.line(HeaderName::ContentType, &content_type);
        }
        self.line(HeaderName::ContentLength, &body.len());
        self.text.push_str("\r\n");
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.text.len() + body.len() > MAX_STREAM_MESSAGE {
            return Err(BuildError::TooLarge);
        }
        let length = self.text.len() + body.len();
        let mut bytes = if length <= EXACT_MAX {
            let mut exact = Vec::with_capacity(length);
            exact.extend_from_slice(self.text.as_bytes());
            exact
        } else {
            self.text.into_bytes()
        };
        bytes.extend_from_slice(&body);
        Ok(Bytes::from(bytes))
    }
}

/// No line end, and no control character but a tab or one in a quoted pair (copied from a checked request).
fn is_writable(line: &str) -> bool {
    let bytes = line.as_bytes();
    bytes.iter().enumerate().all(|(at, byte)| match byte {
        b'\r' | b'\n' => false,
        b'\t' => true,
        0..=31 | 127 => at > 0 && bytes[at - 1] == b'\\',
        _ => true,
    })
}

/// What a repetition of a request does not copy as it is.
const fn is_rewritten(name: HeaderName) -> bool {
    matches!(
        name,
        HeaderName::Via
            | HeaderName::From
            | HeaderName::To
            | HeaderName::CallId
            | HeaderName::CSeq
            | HeaderName::MaxForwards
            | HeaderName::Route
            | HeaderName::Authorization
            | HeaderName::ProxyAuthorization
            | HeaderName::ContentLength
            | HeaderName::ContentType
    )
}

/// Writes a request; every value is typed or checked, so that no value can add a header line.
#[derive(Clone)]
pub struct RequestBuilder {
    method: Method,
    uri: Uri,
    vias: Vec<String>,
    max_forwards: u8,
    routes: Vec<String>,
    from: Option<String>,
    to: Option<String>,
    call_id: Option<String>,
    cseq: Option<u32>,
    writer: Writer,
}

impl RequestBuilder {
    /// A request to this Request-URI, with Max-Forwards 70.
    #[must_use]
    pub const fn new(method: Method, uri: Uri) -> Self {
        Self {
            method,
            uri,
            vias: Vec::new(),
            max_forwards: 70,
            routes: Vec::new(),
            from: None,
            to: None,
            call_id: None,
            cseq: None,
            writer: Writer::new(),
        }
    }

    /// The ACK of a final response that is not 2xx, within the INVITE's transaction (RFC 3261 §17.1.1.3).
    /// `invite` is the request as it was sent.
    #[must_use]
    pub fn ack_of_failure(invite: &Message, response: &Message) -> Self {
        let mut ack = Self::same_hop(Method::Ack, invite);
        ack.to = response.text(HeaderName::To).map(str::to_owned);
        ack
    }

    /// The CANCEL of an INVITE (RFC 3261 §9.1). `invite` is the request as it was sent.
    #[must_use]
    pub fn cancel(invite: &Message) -> Self {
        Self::same_hop(Method::Cancel, invite)
    }

    fn same_hop(method: Method, invite: &Message) -> Self {
        let text = |name| invite.text(name).map(str::to_owned);
        // A request read always has a URI; an INVITE given as response would be the caller's error.
        let uri = invite.request_uri().cloned().unwrap_or_else(|| invite.to().uri);
        Self {
            vias: vec![invite.top_via().to_string()],
            routes: invite.texts(HeaderName::Route).map(str::to_owned).collect(),
            from: text(HeaderName::From),
            to: text(HeaderName::To),
            call_id: text(HeaderName::CallId),
            cseq: Some(invite.cseq().0),
            ..Self::new(method, uri)
        }
    }

    /// A request of ours once more, in a new transaction: all of it but Via, CSeq and credentials. Its Via is still to be given.
    #[must_use]
    pub fn again(request: &Message, cseq: u32) -> Self {
        let mut again = Self::same_hop(request.method().clone(), request).cseq(cseq);
        again.vias.clear();
        for field in &request.head.fields {
            if !is_rewritten(field.name) {
                again.writer.extra(field.name, request.head.value(field).to_owned());
            }
        }
        if let Some(content_type) = request.content_type() {
            again.writer.body(Cow::Owned(content_type.to_owned()), request.body().clone());
        }
        again
    }

    /// Through these proxies, the nearest first, instead of those given before.
    pub(crate) fn through(mut self, path: &[NameAddr]) -> Self {
        self.routes = path.iter().map(ToString::to_string).collect();
        self
    }

    /// Its method.
    pub(crate) const fn method(&self) -> &Method {
        &self.method
    }

    /// Its Request-URI.
    pub(crate) const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Adds a Via below those given before.
    #[must_use]
    pub fn via(mut self, via: &Via) -> Self {
        self.vias.push(via.to_string());
        self
    }

    /// Hops left.
    #[must_use]
    pub const fn max_forwards(mut self, hops: u8) -> Self {
        self.max_forwards = hops;
        self
    }

    /// Adds a Route below those given before.
    #[must_use]
    pub fn route(mut self, route: &NameAddr) -> Self {
        self.routes.push(route.to_string());
        self
    }

    /// From, with its tag.
    #[must_use]
    pub fn from(mut self, from: &NameAddr) -> Self {
        self.from = Some(from.to_string());
        self
    }

    /// To, with the tag within a dialog.
    #[must_use]
    pub fn to(mut self, to: &NameAddr) -> Self {
        self.to = Some(to.to_string());
        self
    }

    /// Call-ID.
    #[must_use]
    pub fn call_id(mut self, call_id: &str) -> Self {
        self.call_id = Some(call_id.to_owned());
        self
    }

    /// CSeq number, below 2³¹; its method is the request's.
    #[must_use]
    pub const fn cseq(mut self, number: u32) -> Self {
        self.cseq = Some(number);
        self
    }

    /// Adds a Contact.
    #[must_use]
    pub fn contact(self, contact: &NameAddr) -> Self {
        self.header(HeaderName::Contact, contact)
    }

    /// Expires, in seconds.
    #[must_use]
    pub fn expires(self, seconds: u32) -> Self {
        self.header(HeaderName::Expires, &seconds)
    }

    /// Adds a header that has no setter of its own. A control character in the value, an empty value, or a header that
    /// has a setter makes [`RequestBuilder::build`] fail.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &dyn std::fmt::Display) -> Self {
        self.writer.extra(name, value.to_string());
        self
    }

    /// The body. Content-Type is a constant of ours, Content-Length is counted.
    #[must_use]
    pub fn body(mut self, content_type: &'static str, body: Bytes) -> Self {
        self.writer.body(Cow::Borrowed(content_type), body);
        self
    }

    /// Writes it.
    ///
    /// # Errors
    /// When a needed field was not given or a value cannot be written.
    pub fn build(self) -> Result<Bytes, BuildError> {
        let Self { method, uri, vias, max_forwards, routes, from, to, call_id, cseq, mut writer } = self;
        if vias.is_empty() {
            return Err(BuildError::Missing(HeaderName::Via));
        }
        let from = from.ok_or(BuildError::Missing(HeaderName::From))?;
        let to = to.ok_or(BuildError::Missing(HeaderName::To))?;
        let call_id = call_id.ok_or(BuildError::Missing(HeaderName::CallId))?;
        let cseq = cseq.ok_or(BuildError::Missing(HeaderName::CSeq))?;
        if uri.has_headers() {
            return Err(BuildError::RequestUri);
        }
        if !is_call_id(&call_id) {
            return Err(BuildError::Illegal(HeaderName::CallId));
        }
        if cseq >= 1 << 31 {
            return Err(BuildError::Illegal(HeaderName::CSeq));
        }
        writer.start_line(768, format_args!("{method} {uri} SIP/2.0"));
        for via in &vias {
            writer.line(HeaderName::Via, via);
        }
        writer.line(HeaderName::MaxForwards, &max_forwards);
        for route in &routes {
            writer.line(HeaderName::Route, route);
        }
        writer.line(HeaderName::From, &from);
        writer.line(HeaderName::To, &to);
        writer.line(HeaderName::CallId, &call_id);
        writer.line(HeaderName::CSeq, &format_args!("{cseq} {method}"));
        writer.finish()
    }
}
