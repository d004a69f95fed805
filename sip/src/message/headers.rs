//! Typed reading of a message's start line and header fields.

use super::lexer::Start;
use super::scan::{self, split_list};
use super::via::ViaParts;
use super::writer::Writer;
use super::{HeaderName, Malformed, Message, Method, NameAddr, Reason, Uri, Via};

const CHECKED: &str = "checked when the message was read";

impl Message {
    /// True for a request.
    #[must_use]
    pub fn is_request(&self) -> bool {
        matches!(self.head.start, Start::Request { .. })
    }

    /// True for an ACK request, which is never answered.
    #[must_use]
    pub fn is_ack(&self) -> bool {
        self.is_request() && self.head.method == Method::Ack
    }

    /// A request's method; for a response the method of its CSeq.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.head.method
    }

    /// A request's Request-URI.
    #[must_use]
    pub fn request_uri(&self) -> Option<&Uri> {
        match &self.head.start {
            Start::Request { uri } => uri.as_ref(),
            Start::Response { .. } => None,
        }
    }

    /// A response's status code, 100 to 699.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self.head.start {
            Start::Request { .. } => None,
            Start::Response { status } => Some(status),
        }
    }

    /// Texts of all fields of this name in order, unfolded, not split at commas.
    pub fn texts(&self, name: HeaderName) -> impl Iterator<Item = &str> {
        self.head.texts(name)
    }

    /// Text of the first field of this name.
    #[must_use]
    pub fn text(&self, name: HeaderName) -> Option<&str> {
        self.head.texts(name).next()
    }

    /// Values of all fields of this name in order, split at commas outside quotes and angle brackets.
    pub fn values(&self, name: HeaderName) -> impl Iterator<Item = Result<&str, Malformed>> {
        self.head.texts(name).filter(|text| !text.is_empty()).flat_map(split_list)
    }

    /// Top Via, with `received` and `rport` filled in when the source is known.
    #[must_use]
    pub fn top_via(&self) -> Via {
        self.stamped_via().expect(CHECKED)
    }

    fn stamped_via(&self) -> Option<Via> {
        Some(self.head.top_via()?.seen_from(self.source))
    }

    /// Values of Via below the top one, as they stand there.
    fn texts_below(&self) -> impl Iterator<Item = &str> {
        let all = (!self.head.is_of_one_hop).then(|| self.values(HeaderName::Via).filter_map(Result::ok).skip(1));
        all.into_iter().flatten()
    }

    fn vias_below(&self) -> impl Iterator<Item = ViaParts<'_>> {
        self.texts_below().filter_map(|value| ViaParts::parse(value).ok())
    }

    /// All Vias, the top one as [`Message::top_via`].
    #[must_use]
    pub fn vias(&self) -> Vec<Via> {
        self.stamped_via().into_iter().chain(self.vias_below().map(|via| via.seen_from(None))).collect()
    }

    /// Sent-by host and branch of each Via that has a branch, the top one first.
    pub fn hops(&self) -> impl Iterator<Item = (&str, &str)> {
        let top = self.head.top_via().and_then(|via| Some((via.host, self.branch()?)));
        top.into_iter().chain(self.vias_below().filter_map(|via| Some((via.host, via.params.value("branch")?))))
    }

    /// Writes the Vias as a response carries them: copied as they came when the top one cannot be read (RFC 3261 §8.2.6.2), which
    /// only a refusal meets.
    pub(super) fn write_vias(&self, writer: &mut Writer) {
        let Some(top) = self.head.top_via() else {
            return self.texts(HeaderName::Via).for_each(|via| writer.line(HeaderName::Via, &[via]));
        };
        writer.line_with(HeaderName::Via, |text| top.write_seen_from(self.source, text));
        for below in self.texts_below() {
            writer.line(HeaderName::Via, &[below]);
        }
    }

    /// Where a response goes over UDP: `received` and `rport` of the top Via, else its sent-by (RFC 3261 §18.2.2, RFC 3581
    /// §4). `None` when the source was not noted and sent-by is a name. `maddr` is not followed.
    #[must_use]
    pub fn response_address(&self) -> Option<std::net::SocketAddr> {
        self.head.top_via()?.response_address(self.source)
    }

    /// `branch` of the top Via.
    #[must_use]
    pub fn branch(&self) -> Option<&str> {
        self.head.branch()
    }

    /// Sent-by of the top Via: host as written (IPv6 in brackets) and port if written.
    #[must_use]
    pub fn sent_by(&self) -> (&str, Option<u16>) {
        let via = self.head.top_via().expect(CHECKED);
        (via.host, via.port)
    }

    fn single_address(&self, name: HeaderName) -> Option<NameAddr> {
        NameAddr::parse(self.text(name)?).ok()
    }

    /// From.
    #[must_use]
    pub fn from(&self) -> NameAddr {
        self.single_address(HeaderName::From).expect(CHECKED)
    }

    /// To.
    #[must_use]
    pub fn to(&self) -> NameAddr {
        self.single_address(HeaderName::To).expect(CHECKED)
    }

    /// From's tag.
    #[must_use]
    pub fn from_tag(&self) -> Option<&str> {
        self.head.tags().0
    }

    /// To's tag.
    #[must_use]
    pub fn to_tag(&self) -> Option<&str> {
        self.head.tags().1
    }

    /// Call-ID.
    #[must_use]
    pub fn call_id(&self) -> &str {
        self.head.call_id().expect(CHECKED)
    }

    /// CSeq: number below 2³¹ and method (of a request the same as its own).
    #[must_use]
    pub fn cseq(&self) -> (u32, &Method) {
        (self.head.cseq, &self.head.method)
    }

    fn addresses(&self, name: HeaderName) -> Vec<NameAddr> {
        self.values(name).filter_map(|value| NameAddr::parse(value.ok()?).ok()).collect()
    }

    /// All Contacts; empty for `*`.
    #[must_use]
    pub fn contacts(&self) -> Vec<NameAddr> {
        if self.is_contact_wildcard() { Vec::new() } else { self.addresses(HeaderName::Contact) }
    }

    /// The first Contact; `None` for `*`.
    #[must_use]
    pub fn contact(&self) -> Option<NameAddr> {
        self.values(HeaderName::Contact).find_map(|value| NameAddr::parse(value.ok()?).ok())
    }

    /// True for `Contact: *`.
    #[must_use]
    pub fn is_contact_wildcard(&self) -> bool {
        self.text(HeaderName::Contact) == Some("*")
    }

    /// Route values in order.
    #[must_use]
    pub fn routes(&self) -> Vec<NameAddr> {
        self.addresses(HeaderName::Route)
    }

    /// Record-Route values in order.
    #[must_use]
    pub fn record_routes(&self) -> Vec<NameAddr> {
        self.addresses(HeaderName::RecordRoute)
    }

    /// Max-Forwards, 0 to 255; `None` reads as 70 (RFC 3261 §16.3).
    #[must_use]
    pub fn max_forwards(&self) -> Option<u8> {
        u8::try_from(self.number(HeaderName::MaxForwards)?).ok()
    }

    /// Expires, in seconds.
    #[must_use]
    pub fn expires(&self) -> Option<u32> {
        self.number(HeaderName::Expires)
    }

    /// Min-Expires, in seconds.
    #[must_use]
    pub fn min_expires(&self) -> Option<u32> {
        self.number(HeaderName::MinExpires)
    }

    /// Retry-After, in seconds; its comment and parameters are ignored.
    #[must_use]
    pub fn retry_after(&self) -> Option<u32> {
        let text = self.text(HeaderName::RetryAfter)?;
        scan::decimal(text.split([' ', '\t', ';', '(']).next().unwrap_or(text)).ok()
    }

    fn number(&self, name: HeaderName) -> Option<u32> {
        scan::decimal(self.text(name)?).ok()
    }

    fn tokens(&self, name: HeaderName) -> impl Iterator<Item = &str> {
        self.values(name).filter_map(Result::ok).take(super::limits::MAX_TOKENS)
    }

    /// Option tags of Require.
    pub fn require(&self) -> impl Iterator<Item = &str> {
        self.tokens(HeaderName::Require)
    }

    /// Option tags of Proxy-Require.
    pub fn proxy_require(&self) -> impl Iterator<Item = &str> {
        self.tokens(HeaderName::ProxyRequire)
    }

    /// Option tags of Supported.
    pub fn supported(&self) -> impl Iterator<Item = &str> {
        self.tokens(HeaderName::Supported)
    }

    /// Methods of Allow, as written.
    pub fn allow(&self) -> impl Iterator<Item = &str> {
        self.tokens(HeaderName::Allow)
    }

    /// Whether its sender can be sent an UPDATE (RFC 3311 §5.1).
    #[must_use]
    pub fn takes_updates(&self) -> bool {
        self.allow().any(|method| method == "UPDATE")
    }

    /// Content-Type as written, parameters included.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.text(HeaderName::ContentType)
    }

    /// True when the body is there and its type is `application/sdp`.
    #[must_use]
    pub fn has_sdp(&self) -> bool {
        self.head.is_of_sdp && !self.body().is_empty()
    }

    /// Well-formed Reason values in order (RFC 3326).
    pub fn reasons(&self) -> impl Iterator<Item = Reason> {
        self.values(HeaderName::Reason).filter_map(|value| Reason::parse(value.ok()?).ok())
    }

    /// Whether a response finds its way to the transaction (RFC 3261 §17.1.3). What it copies may be broken: the peer knows what it
    /// wrote itself (RFC 4475 §3.1.2.1, §3.1.2.6, §3.1.2.16); what is missing is missing in the response too (§3.3.1).
    pub(super) fn has_answerable_fields(&self) -> bool {
        [HeaderName::Via, HeaderName::CSeq].iter().all(|&name| self.text(name).is_some())
    }

    /// Whether a tag can be put behind To.
    pub(super) fn takes_to_tag(&self) -> bool {
        self.head.takes_to_tag()
    }
}
