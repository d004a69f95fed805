//! Builds responses from the request they answer.

use super::scan::is_token;
use super::writer::{BuildError, Writer};
use super::{Address, HeaderName, Message, Written};
use bytes::Bytes;

/// Room for the lines of a usual response.
const USUAL: usize = 640;

/// Standard phrase of a status code (RFC 3261 §21 and the IANA registry); that of its class for unknown codes.
#[must_use]
pub const fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        199 => "Early Dialog Terminated",
        200 => "OK",
        202 => "Accepted",
        204 => "No Notification",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        305 => "Use Proxy",
        380 => "Alternative Service",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        412 => "Conditional Request Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        420 => "Bad Extension",
        421 => "Extension Required",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        428 => "Use Identity Header",
        429 => "Provide Referrer Identity",
        430 => "Flow Failed",
        433 => "Anonymity Disallowed",
        436 => "Bad Identity Info",
        437 => "Unsupported Credential",
        438 => "Invalid Identity Header",
        439 => "First Hop Lacks Outbound Support",
        469 => "Bad Info Package",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        485 => "Ambiguous",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        491 => "Request Pending",
        493 => "Undecipherable",
        494 => "Security Agreement Required",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        580 => "Precondition Failure",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        607 => "Unwanted",
        608 => "Rejected",
        _ => match status / 100 {
            0 | 1 => "Progress",
            2 => "OK",
            3 => "Redirection",
            4 => "Request Failure",
            5 => "Server Failure",
            _ => "Global Failure",
        },
    }
}

/// Writes a response; what belongs to the request is copied from it (RFC 3261 §8.2.6).
pub struct ResponseBuilder {
    writer: Writer,
    request: Message,
}

impl ResponseBuilder {
    /// A response with what the request has of Via, From, To, Call-ID and CSeq. `to_tag` is added where To has none yet. A 100
    /// also carries the request's Timestamp.
    #[must_use]
    pub fn to_request(request: &Message, status: u16, to_tag: Option<&str>) -> Self {
        let mut writer = Writer::new();
        writer.reserve(USUAL);
        writer.start_line(&["SIP/2.0 ", &status.written(), " ", reason_phrase(status)]);
        if !(100..=699).contains(&status) {
            writer.fail(BuildError::Illegal(HeaderName::CSeq));
        }
        request.write_vias(&mut writer);
        for name in [HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq] {
            match (request.text(name), to_tag) {
                (None, _) => {}
                (Some(to), Some(tag)) if name == HeaderName::To && request.takes_to_tag() => {
                    if !is_token(tag) {
                        writer.fail(BuildError::Illegal(name));
                    }
                    writer.line(name, &[to, ";tag=", tag]);
                }
                (Some(text), _) => writer.line(name, &[text]),
            }
        }
        if status == 100
            && let Some(timestamp) = request.text(HeaderName::Timestamp)
        {
            writer.line(HeaderName::Timestamp, &[timestamp]);
        }
        Self { writer, request: request.clone() }
    }

    /// Copies the request's Record-Route: for responses that make a dialog (RFC 3261 §12.1.1).
    #[must_use]
    pub fn record_route(mut self) -> Self {
        for route in self.request.texts(HeaderName::RecordRoute) {
            self.writer.line(HeaderName::RecordRoute, &[route]);
        }
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
    /// has a setter makes [`ResponseBuilder::build`] fail.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &(impl Written + ?Sized)) -> Self {
        self.writer.extra(name, value);
        self
    }

    /// The body. Content-Type is a constant of ours, Content-Length is counted.
    #[must_use]
    pub fn body(mut self, content_type: &'static str, body: Bytes) -> Self {
        self.writer.body(std::borrow::Cow::Borrowed(content_type), body);
        self
    }

    /// Writes it.
    ///
    /// # Errors
    /// When a value cannot be written.
    pub fn build(self) -> Result<Bytes, BuildError> {
        self.writer.finish()
    }
}
