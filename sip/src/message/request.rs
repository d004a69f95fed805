//! Builds requests from typed values.

use super::scan::is_call_id;
use super::writer::{BuildError, Writer, digits};
use super::{Address, HeaderName, Message, Method, NameAddr, Uri, Via, Written};
use bytes::Bytes;
use std::borrow::Cow;
use std::ops::Range;

/// Lines in front of those that have no place of their own, in order; Max-Forwards stands behind the Vias, CSeq behind Call-ID.
const PLACED: [HeaderName; 5] =
    [HeaderName::Via, HeaderName::Route, HeaderName::From, HeaderName::To, HeaderName::CallId];
/// Room for the lines of a usual request.
const USUAL: usize = 512;

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
    max_forwards: u8,
    cseq: Option<u32>,
    /// Which lines stand where among those written, in the order given.
    places: Vec<(HeaderName, Range<usize>)>,
    writer: Writer,
}

impl RequestBuilder {
    /// A request to this Request-URI, with Max-Forwards 70.
    #[must_use]
    pub const fn new(method: Method, uri: Uri) -> Self {
        Self { method, uri, max_forwards: 70, cseq: None, places: Vec::new(), writer: Writer::new() }
    }

    /// The ACK of a final response that is not 2xx, within the INVITE's transaction (RFC 3261 §17.1.1.3).
    /// `invite` is the request as it was sent.
    #[must_use]
    pub fn ack_of_failure(invite: &Message, response: &Message) -> Self {
        let mut ack = Self::same_hop(Method::Ack, invite);
        ack.only(HeaderName::To, response.text(HeaderName::To));
        ack
    }

    /// The CANCEL of an INVITE (RFC 3261 §9.1). `invite` is the request as it was sent.
    #[must_use]
    pub fn cancel(invite: &Message) -> Self {
        Self::same_hop(Method::Cancel, invite)
    }

    fn same_hop(method: Method, invite: &Message) -> Self {
        let mut same = Self::same_dialog(method, invite);
        same.put(HeaderName::Via, |text| invite.top_via().write_to(text));
        same
    }

    /// All that requests of one dialog, or repeated ones, have in common.
    fn same_dialog(method: Method, request: &Message) -> Self {
        // A request read always has a URI; an INVITE given as response would be the caller's error.
        let uri = request.request_uri().cloned().unwrap_or_else(|| request.to().uri);
        let mut same = Self::new(method, uri).cseq(request.cseq().0).call_id(request.call_id());
        for route in request.texts(HeaderName::Route) {
            same.put(HeaderName::Route, |text| text.push_str(route));
        }
        for name in [HeaderName::From, HeaderName::To] {
            same.only(name, request.text(name));
        }
        same
    }

    /// A request of ours once more, in a new transaction: all of it but Via, CSeq and credentials. Its Via is still to be given.
    #[must_use]
    pub fn again(request: &Message, cseq: u32) -> Self {
        let mut again = Self::same_dialog(request.method().clone(), request).cseq(cseq);
        for field in &request.head.fields {
            if !is_rewritten(field.name) {
                again = again.header(field.name, &request.head.value(field));
            }
        }
        if let Some(content_type) = request.content_type() {
            again.writer.body(Cow::Owned(content_type.to_owned()), request.body().clone());
        }
        again
    }

    /// Writes a line and notes where it belongs.
    fn put(&mut self, name: HeaderName, value: impl FnOnce(&mut String)) {
        self.place(name, |writer| writer.line_with(name, value));
    }

    fn place(&mut self, name: HeaderName, line: impl FnOnce(&mut Writer)) {
        if self.places.is_empty() {
            self.places.reserve(12);
            self.writer.reserve(USUAL);
        }
        let start = self.writer.text().len();
        line(&mut self.writer);
        self.places.push((name, start..self.writer.text().len()));
    }

    /// Instead of what was given under this name before.
    fn only(&mut self, name: HeaderName, value: Option<&str>) {
        self.places.retain(|(known, _)| *known != name);
        if let Some(value) = value {
            self.put(name, |text| text.push_str(value));
        }
    }

    /// Without what was given under this name.
    pub(crate) fn without(mut self, name: HeaderName) -> Self {
        self.only(name, None);
        self
    }

    /// Through these proxies, the nearest first, instead of those given before.
    pub(crate) fn through(mut self, path: &[NameAddr]) -> Self {
        self.places.retain(|(name, _)| *name != HeaderName::Route);
        path.iter().fold(self, Self::route)
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
        self.put(HeaderName::Via, |text| via.write_to(text));
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
        self.put(HeaderName::Route, |text| route.write_to(text));
        self
    }

    /// From, with its tag.
    #[must_use]
    pub fn from(mut self, from: &impl Address) -> Self {
        self.only(HeaderName::From, None);
        self.put(HeaderName::From, |text| from.write_to(text));
        self
    }

    /// To, with the tag within a dialog.
    #[must_use]
    pub fn to(mut self, to: &impl Address) -> Self {
        self.only(HeaderName::To, None);
        self.put(HeaderName::To, |text| to.write_to(text));
        self
    }

    /// Call-ID.
    #[must_use]
    pub fn call_id(mut self, call_id: &str) -> Self {
        if !is_call_id(call_id) {
            self.writer.fail(BuildError::Illegal(HeaderName::CallId));
        }
        self.only(HeaderName::CallId, Some(call_id));
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
    pub fn contact(self, contact: &impl Address) -> Self {
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
    pub fn header(mut self, name: HeaderName, value: &(impl Written + ?Sized)) -> Self {
        self.place(name, |writer| writer.extra(name, value));
        self
    }

    /// The body. Content-Type is a constant of ours, Content-Length is counted.
    #[must_use]
    pub fn body(mut self, content_type: &'static str, body: Bytes) -> Self {
        self.writer.body(Cow::Borrowed(content_type), body);
        self
    }

    /// Bytes of the message with this Via.
    pub(crate) fn length_with(&self, via: &Via) -> usize {
        self.length() + "Via: \r\n".len() + via.written().len()
    }

    fn length(&self) -> usize {
        let lines: usize = self.places.iter().map(|(_, place)| place.len()).sum();
        let method = self.method.as_str().len();
        let start = method + self.uri.as_str().len() + "  SIP/2.0\r\n".len();
        let hops = digits(self.max_forwards.into()) + "Max-Forwards: \r\n".len();
        let cseq = digits(self.cseq.unwrap_or(0) as usize) + method + "CSeq:  \r\n".len();
        start + hops + cseq + lines + self.writer.rest()
    }

    /// Writes it.
    ///
    /// # Errors
    /// When a needed field was not given or a value cannot be written.
    pub fn build(self) -> Result<Bytes, BuildError> {
        let cseq = self.check()?;
        let mut message = Writer::new();
        message.reserve(self.length());
        let (method, number) = (self.method.as_str(), cseq.written());
        message.start_line(&[method, " ", self.uri.as_str(), " SIP/2.0"]);
        let lines = self.writer.text();
        let of =
            |name| self.places.iter().filter(move |(known, _)| *known == name).map(|(_, place)| &lines[place.clone()]);
        for name in PLACED {
            of(name).for_each(|line| message.lines(line));
            match name {
                HeaderName::Via => {
                    message.line_with(HeaderName::MaxForwards, |text| self.max_forwards.write_to(text));
                }
                HeaderName::CallId => message.line(HeaderName::CSeq, &[&number, " ", method]),
                _ => {}
            }
        }
        for (_, place) in self.places.iter().filter(|(name, _)| !PLACED.contains(name)) {
            message.lines(&lines[place.clone()]);
        }
        message.take_over(self.writer);
        message.finish()
    }

    /// The CSeq of a request that has all it needs.
    fn check(&self) -> Result<u32, BuildError> {
        for name in PLACED.into_iter().filter(|name| *name != HeaderName::Route) {
            if !self.places.iter().any(|(known, _)| *known == name) {
                return Err(BuildError::Missing(name));
            }
        }
        let cseq = self.cseq.ok_or(BuildError::Missing(HeaderName::CSeq))?;
        match cseq {
            _ if self.uri.has_headers() => Err(BuildError::RequestUri),
            0x8000_0000.. => Err(BuildError::Illegal(HeaderName::CSeq)),
            _ => Ok(cseq),
        }
    }
}
