//! Session descriptions (RFC 8866): read strictly, written anew for the other leg from an allow-list, so that nothing of one
//! side but its media can reach the other (P1, P2).

mod answer;
mod parse;
mod path;
mod rewrite;

pub use rewrite::{Keys, Origin, Placement};

use schema::entropy::Entropy;
use std::net::IpAddr;

/// Largest description, bytes.
pub const MAX_SDP: usize = 8 * 1024;
/// Most media lines.
pub const MAX_MEDIA: usize = 8;
/// Longest line, bytes.
pub const MAX_LINE: usize = 1024;
/// Most attributes of the session, and of each medium.
pub const MAX_ATTRIBUTES: usize = 64;
/// Most formats of one medium.
pub const MAX_FORMATS: usize = 32;

/// The content type of a description.
pub const CONTENT_TYPE: &str = "application/sdp";

/// What is wrong with a description; carries nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// Larger than [`MAX_SDP`].
    #[error("session description too large")]
    TooLarge,
    /// Not UTF-8, or a control character in a line.
    #[error("illegal character in the session description")]
    IllegalCharacter,
    /// A line longer than [`MAX_LINE`], or not of the form `x=value`.
    #[error("malformed line {line} of the session description")]
    Line {
        /// From 1.
        line: usize,
    },
    /// A line of a type that may not stand here.
    #[error("line {line} of the session description ({kind}=) out of place")]
    Order {
        /// From 1.
        line: usize,
        /// Its type.
        kind: char,
    },
    /// A line whose value does not follow its grammar.
    #[error("line {line} of the session description ({kind}=) malformed")]
    Value {
        /// From 1.
        line: usize,
        /// Its type.
        kind: char,
    },
    /// A required line is absent.
    #[error("session description without {kind}=")]
    Missing {
        /// Its type.
        kind: char,
    },
    /// More media, formats or attributes than the limit.
    #[error("too many {what} in the session description")]
    TooMany {
        /// Of what.
        what: &'static str,
    },
}

/// `a=name` or `a=name:value`.
#[derive(Clone, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Token.
    pub name: &'a str,
    /// Text behind the colon.
    pub value: Option<&'a str>,
}

/// One `m=` section.
#[derive(Clone, PartialEq, Eq)]
pub struct Media<'a> {
    /// `audio`, `video` …
    pub kind: &'a str,
    /// Transport port; 0 when the stream is off.
    pub port: u16,
    /// `RTP/AVP`, `RTP/SAVP` …
    pub protocol: &'a str,
    /// Payload types or other formats, in order of preference.
    pub formats: Vec<&'a str>,
    /// Its own `c=`.
    pub connection: Option<IpAddr>,
    /// In order.
    pub attributes: Vec<Attribute<'a>>,
}

/// A session description. What is never passed on (`i=`, `u=`, `e=`, `p=`, `b=`, `k=`, `r=`, `z=`) is checked and forgotten.
/// It borrows the text it was read from.
#[derive(Clone, PartialEq, Eq)]
pub struct Description<'a> {
    /// The session's `c=`.
    pub connection: Option<IpAddr>,
    /// The session's attributes, in order.
    pub attributes: Vec<Attribute<'a>>,
    /// Media sections, in order: an answer has as many as its offer.
    pub media: Vec<Media<'a>>,
}

impl<'a> Description<'a> {
    /// Reads a description.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn parse(text: &'a [u8]) -> Result<Self, SdpError> {
        parse::parse(text)
    }

    /// Address a medium's packets go to: its own `c=`, else the session's.
    #[must_use]
    pub fn address_of(&self, media: &Media<'_>) -> Option<IpAddr> {
        media.connection.or(self.connection)
    }

    /// Whether the first audio stream is there and on.
    #[cfg(test)]
    pub fn has_audio(&self) -> bool {
        self.media.iter().any(|media| media.kind == "audio" && media.port != 0)
    }
}

/// Kinds and counts only: addresses are personal.
impl std::fmt::Debug for Description<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.media.iter().map(|media| &media.kind)).finish()
    }
}

/// Kind and protocol only.
impl std::fmt::Debug for Media<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Media({} {})", self.kind, self.protocol)
    }
}

/// Name only.
impl std::fmt::Debug for Attribute<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Reads the description of one leg and writes it for the other, media addresses as they are, in a session of its own.
///
/// # Errors
/// As [`Description::parse`].
pub fn rewrite(text: &[u8], entropy: &mut Entropy, our_address: IpAddr) -> Result<String, SdpError> {
    let description = Description::parse(text)?;
    Ok(description.rewrite(Origin::fresh(entropy), our_address, Keys::Pass, |_, _| Placement::AsGiven))
}

/// The answer to an offer that takes none of its media (RFC 3264 §6). `None` when the offer cannot be read.
#[must_use]
pub fn refuse(offer: &[u8], origin: Origin, our_address: IpAddr) -> Option<String> {
    let mut description = Description::parse(offer).ok()?;
    for media in &mut description.media {
        media.port = 0;
    }
    Some(description.rewrite(origin, our_address, Keys::Withheld, |_, _| Placement::AsGiven))
}

/// An offer or answer of one audio stream with G.711 and RFC 4733 tones, at this address: for the test phone and carrier.
#[must_use]
pub fn audio(origin: Origin, address: std::net::SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    let family = rewrite::family(ip);
    let Origin { id, version } = origin;
    format!(
        "v=0\r\no=- {id} {version} IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n\
         a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n"
    )
}

#[cfg(test)]
mod tests;
