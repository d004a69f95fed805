//! Header names and methods.

use std::fmt;

macro_rules! header_names {
    ($( $variant:ident = $canonical:literal, $lower:literal $(| $compact:literal)? ; )*) => {
        /// A header field's name. Unknown names are one value: we never act on them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum HeaderName {
            $( #[doc = concat!("`", $canonical, "`")] $variant, )*
            /// Any name not in this list.
            Other,
        }

        impl HeaderName {
            /// Canonical spelling; `"Other"` for unknown names.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $canonical, )* Self::Other => "Other" }
            }

            /// What a line of this header begins with.
            pub(super) const fn line_start(self) -> &'static str {
                match self { $( Self::$variant => concat!($canonical, ": "), )* Self::Other => "Other: " }
            }

            fn from_lower(lower: &[u8]) -> Self {
                match lower {
                    $( $lower $(| $compact)? => Self::$variant, )*
                    _ => Self::Other,
                }
            }

            /// All known names.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )* ];
        }
    };
}

header_names! {
    Accept = "Accept", b"accept";
    AcceptEncoding = "Accept-Encoding", b"accept-encoding";
    AcceptLanguage = "Accept-Language", b"accept-language";
    Allow = "Allow", b"allow";
    AllowEvents = "Allow-Events", b"allow-events" | b"u";
    AuthenticationInfo = "Authentication-Info", b"authentication-info";
    Authorization = "Authorization", b"authorization";
    CallId = "Call-ID", b"call-id" | b"i";
    CallInfo = "Call-Info", b"call-info";
    Contact = "Contact", b"contact" | b"m";
    ContentDisposition = "Content-Disposition", b"content-disposition";
    ContentEncoding = "Content-Encoding", b"content-encoding" | b"e";
    ContentLength = "Content-Length", b"content-length" | b"l";
    ContentType = "Content-Type", b"content-type" | b"c";
    CSeq = "CSeq", b"cseq";
    Date = "Date", b"date";
    Event = "Event", b"event" | b"o";
    Expires = "Expires", b"expires";
    FlowTimer = "Flow-Timer", b"flow-timer";
    From = "From", b"from" | b"f";
    Identity = "Identity", b"identity" | b"y";
    InfoPackage = "Info-Package", b"info-package";
    MaxForwards = "Max-Forwards", b"max-forwards";
    MinExpires = "Min-Expires", b"min-expires";
    MinSe = "Min-SE", b"min-se";
    PAssertedIdentity = "P-Asserted-Identity", b"p-asserted-identity";
    Path = "Path", b"path";
    PPreferredIdentity = "P-Preferred-Identity", b"p-preferred-identity";
    Privacy = "Privacy", b"privacy";
    ProxyAuthenticate = "Proxy-Authenticate", b"proxy-authenticate";
    ProxyAuthorization = "Proxy-Authorization", b"proxy-authorization";
    ProxyRequire = "Proxy-Require", b"proxy-require";
    RAck = "RAck", b"rack";
    Reason = "Reason", b"reason";
    RecvInfo = "Recv-Info", b"recv-info";
    RecordRoute = "Record-Route", b"record-route";
    ReferTo = "Refer-To", b"refer-to" | b"r";
    ReferredBy = "Referred-By", b"referred-by" | b"b";
    Replaces = "Replaces", b"replaces";
    Require = "Require", b"require";
    RetryAfter = "Retry-After", b"retry-after";
    Route = "Route", b"route";
    RSeq = "RSeq", b"rseq";
    Server = "Server", b"server";
    ServiceRoute = "Service-Route", b"service-route";
    SessionExpires = "Session-Expires", b"session-expires" | b"x";
    SessionId = "Session-ID", b"session-id";
    Subject = "Subject", b"subject" | b"s";
    SubscriptionState = "Subscription-State", b"subscription-state";
    Supported = "Supported", b"supported" | b"k";
    Timestamp = "Timestamp", b"timestamp";
    To = "To", b"to" | b"t";
    Unsupported = "Unsupported", b"unsupported";
    UserAgent = "User-Agent", b"user-agent";
    Via = "Via", b"via" | b"v";
    Warning = "Warning", b"warning";
    WwwAuthenticate = "WWW-Authenticate", b"www-authenticate";
}

impl HeaderName {
    /// Reads a name in any case, long or compact (RFC 3261 §7.3.3).
    #[must_use]
    pub fn parse(name: &str) -> Self {
        let mut lower = [0_u8; 24];
        let Some(target) = lower.get_mut(..name.len()) else { return Self::Other };
        target.copy_from_slice(name.as_bytes());
        target.make_ascii_lowercase();
        Self::from_lower(target)
    }

    /// A bit for each name.
    pub(super) const fn bit(self) -> u64 {
        1 << (self as u8)
    }

    /// Headers that may stand only once (RFC 3261 §7.3.1); a second one is refused.
    #[must_use]
    pub const fn is_single(self) -> bool {
        matches!(
            self,
            Self::CallId
                | Self::ContentDisposition
                | Self::ContentLength
                | Self::ContentType
                | Self::CSeq
                | Self::Date
                | Self::Event
                | Self::Expires
                | Self::From
                | Self::MaxForwards
                | Self::MinExpires
                | Self::MinSe
                | Self::RAck
                | Self::ReferTo
                | Self::ReferredBy
                | Self::Replaces
                | Self::RetryAfter
                | Self::RSeq
                | Self::SessionExpires
                | Self::SessionId
                | Self::Subject
                | Self::SubscriptionState
                | Self::Timestamp
                | Self::To
        )
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const _: () = assert!(HeaderName::ALL.len() < u64::BITS as usize, "Other has a bit, too");

/// A request method; case-sensitive (RFC 3261 §7.1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the method of that name")]
pub enum Method {
    Invite,
    Ack,
    Bye,
    Cancel,
    Register,
    Options,
    Info,
    Prack,
    Update,
    Subscribe,
    Notify,
    Refer,
    Message,
    Publish,
    /// An extension method; a token.
    Other(Box<str>),
}

impl Method {
    /// Reads a method token.
    ///
    /// # Errors
    /// When the text is not a token.
    pub fn parse(text: &str) -> Result<Self, super::Malformed> {
        Ok(match text {
            "INVITE" => Self::Invite,
            "ACK" => Self::Ack,
            "BYE" => Self::Bye,
            "CANCEL" => Self::Cancel,
            "REGISTER" => Self::Register,
            "OPTIONS" => Self::Options,
            "INFO" => Self::Info,
            "PRACK" => Self::Prack,
            "UPDATE" => Self::Update,
            "SUBSCRIBE" => Self::Subscribe,
            "NOTIFY" => Self::Notify,
            "REFER" => Self::Refer,
            "MESSAGE" => Self::Message,
            "PUBLISH" => Self::Publish,
            other if super::scan::is_token(other) => Self::Other(other.into()),
            _ => return Err(super::Malformed),
        })
    }

    /// The token as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Invite => "INVITE",
            Self::Ack => "ACK",
            Self::Bye => "BYE",
            Self::Cancel => "CANCEL",
            Self::Register => "REGISTER",
            Self::Options => "OPTIONS",
            Self::Info => "INFO",
            Self::Prack => "PRACK",
            Self::Update => "UPDATE",
            Self::Subscribe => "SUBSCRIBE",
            Self::Notify => "NOTIFY",
            Self::Refer => "REFER",
            Self::Message => "MESSAGE",
            Self::Publish => "PUBLISH",
            Self::Other(token) => token,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
