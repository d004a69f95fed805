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

            fn from_lower(lower: &[u8]) -> Self {
                // `concat!` cannot make byte strings, so compare through str.
                match std::str::from_utf8(lower) {
                    $( Ok($lower $(| $compact)?) => Self::$variant, )*
                    _ => Self::Other,
                }
            }

            /// All known names.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )* ];
        }
    };
}

header_names! {
    Accept = "Accept", "accept";
    AcceptEncoding = "Accept-Encoding", "accept-encoding";
    AcceptLanguage = "Accept-Language", "accept-language";
    Allow = "Allow", "allow";
    AllowEvents = "Allow-Events", "allow-events" | "u";
    AuthenticationInfo = "Authentication-Info", "authentication-info";
    Authorization = "Authorization", "authorization";
    CallId = "Call-ID", "call-id" | "i";
    Contact = "Contact", "contact" | "m";
    ContentDisposition = "Content-Disposition", "content-disposition";
    ContentEncoding = "Content-Encoding", "content-encoding" | "e";
    ContentLength = "Content-Length", "content-length" | "l";
    ContentType = "Content-Type", "content-type" | "c";
    CSeq = "CSeq", "cseq";
    Date = "Date", "date";
    Event = "Event", "event" | "o";
    Expires = "Expires", "expires";
    FlowTimer = "Flow-Timer", "flow-timer";
    From = "From", "from" | "f";
    Identity = "Identity", "identity" | "y";
    MaxForwards = "Max-Forwards", "max-forwards";
    MinExpires = "Min-Expires", "min-expires";
    MinSe = "Min-SE", "min-se";
    PAssertedIdentity = "P-Asserted-Identity", "p-asserted-identity";
    Path = "Path", "path";
    PPreferredIdentity = "P-Preferred-Identity", "p-preferred-identity";
    Privacy = "Privacy", "privacy";
    ProxyAuthenticate = "Proxy-Authenticate", "proxy-authenticate";
    ProxyAuthorization = "Proxy-Authorization", "proxy-authorization";
    ProxyRequire = "Proxy-Require", "proxy-require";
    RAck = "RAck", "rack";
    Reason = "Reason", "reason";
    RecordRoute = "Record-Route", "record-route";
    ReferTo = "Refer-To", "refer-to" | "r";
    ReferredBy = "Referred-By", "referred-by" | "b";
    Replaces = "Replaces", "replaces";
    Require = "Require", "require";
    RetryAfter = "Retry-After", "retry-after";
    Route = "Route", "route";
    RSeq = "RSeq", "rseq";
    Server = "Server", "server";
    ServiceRoute = "Service-Route", "service-route";
    SessionExpires = "Session-Expires", "session-expires" | "x";
    SessionId = "Session-ID", "session-id";
    Subject = "Subject", "subject" | "s";
    SubscriptionState = "Subscription-State", "subscription-state";
    Supported = "Supported", "supported" | "k";
    Timestamp = "Timestamp", "timestamp";
    To = "To", "to" | "t";
    Unsupported = "Unsupported", "unsupported";
    UserAgent = "User-Agent", "user-agent";
    Via = "Via", "via" | "v";
    Warning = "Warning", "warning";
    WwwAuthenticate = "WWW-Authenticate", "www-authenticate";
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
