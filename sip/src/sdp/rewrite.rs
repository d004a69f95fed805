//! Writes a description for the other leg. Only what stands in the lists below passes; all else is dropped.
//!
//! | passes | why |
//! |---|---|
//! | `m=` kind, protocol, formats of RTP audio, video and text | what the media are; other media go on as rejected (port 0), so that an answer has as many `m=` as its offer |
//! | `c=`, port | where media go, unless anchored |
//! | `rtpmap`, `fmtp` of listed formats, `ptime`, `maxptime` | codecs |
//! | `sendrecv`, `sendonly`, `recvonly`, `inactive` | hold |
//! | `rtcp`, `rtcp-mux`, `crypto`, `fingerprint`, `setup`, `ice-ufrag`, `ice-pwd`, `ice-options`, `ice-lite`, `candidate` | needed by media that flow between the two sides; dropped when anchored. Read and written by their grammar (`path.rs`) |
//!
//! Dropped among others: `i=`, `u=`, `e=`, `p=` (literally a phone number), `b=`, `k=`, `a=tool`, `a=label`, `a=mid`, `a=ssrc` with its
//! cname, `a=rtcp-xr`, header extensions, related addresses of ICE candidates (RFC 8839 §5.1 allows 0.0.0.0 there), names of
//! hosts and addresses of a private network other than the media's own, and whatever is not known today. Keys (`crypto`) leave
//! over protected ways only (RFC 4568 §7).

use super::path::{Foundations, write_path};
use super::{Attribute, Description, Media};
use crate::message::Written;
use crate::message::scan::{is_token, split_at};
use schema::entropy::Entropy;
use std::net::{IpAddr, SocketAddr};

/// Room for a usual description.
const USUAL: usize = 256;

/// Identity of the session in `o=`: kept over a dialog, its version rising with each new description (RFC 3264 §8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Origin {
    /// Session id; random, not a time.
    pub id: u64,
    /// From 1.
    pub version: u64,
}

impl Origin {
    /// A new session, version 1.
    #[must_use]
    pub fn fresh(entropy: &mut Entropy) -> Self {
        // Below 2⁶²: some stacks read the id as a signed number.
        Self { id: entropy.u64() >> 2, version: 1 }
    }

    /// The next version of the same session.
    #[must_use]
    pub const fn next(self) -> Self {
        Self { id: self.id, version: self.version + 1 }
    }
}

/// Where a medium's packets are to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// To the address that was given, past us.
    AsGiven,
    /// To us.
    Anchored(SocketAddr),
}

/// Whether keys in it (SDES) may leave. RFC 4568 §7 wants them protected all the way, else whoever reads the signalling listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// All of the call's signalling is over TLS.
    Pass,
    /// Some of it is not. A stream that has no other keys does not pass.
    Withheld,
}

pub(super) const fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IP4",
        IpAddr::V6(_) => "IP6",
    }
}

impl Description<'_> {
    /// Writes it for the other leg. `our_address` stands in `o=`; `place` says for each medium (by index) where its packets go.
    #[must_use]
    pub fn rewrite(
        &self,
        origin: Origin,
        our_address: IpAddr,
        keys: Keys,
        mut place: impl FnMut(usize, &Media<'_>) -> Placement,
    ) -> String {
        let Origin { id, version } = origin;
        let mut out = String::with_capacity(USUAL);
        out.push_str("v=0\r\no=- ");
        id.write_to(&mut out);
        out.push(' ');
        version.write_to(&mut out);
        out.push(' ');
        write_address(&mut out, our_address);
        out.push_str("\r\ns=-\r\nt=0 0\r\n");
        let mut foundations = Foundations::default();
        let placements: Vec<_> = self.media.iter().enumerate().map(|(at, media)| place(at, media)).collect();
        if placements.contains(&Placement::AsGiven) {
            for attribute in &self.attributes {
                match is_codec(attribute) {
                    true => write_attribute(&mut out, attribute),
                    false => write_path(&mut out, attribute, None, keys, &mut foundations),
                }
            }
        }
        for (media, placement) in self.media.iter().zip(placements) {
            let on = media.port != 0 && self.is_relayed(media, keys);
            let placement = Some(placement).filter(|_| on);
            self.write_media(&mut out, media, placement, our_address, keys, &mut foundations);
        }
        out
    }

    /// Whether streams are on and none of them would pass: whoever heard of it would be left with silence.
    pub(crate) fn passes_nothing(&self, keys: Keys) -> bool {
        let on = || self.media.iter().filter(|media| media.port != 0);
        on().next().is_some() && !on().any(|media| self.is_relayed(media, keys))
    }

    /// Whether a medium would be passed on; all else goes on as rejected.
    fn is_relayed(&self, media: &Media<'_>, keys: Keys) -> bool {
        is_rtp(media) && (keys == Keys::Pass || !self.needs_keys(media))
    }

    /// Whether its packets are encrypted with keys of the description itself (SDES, RFC 4568), not with those of DTLS.
    fn needs_keys(&self, media: &Media<'_>) -> bool {
        let has_fingerprint = |of: &[Attribute<'_>]| of.iter().any(|attribute| attribute.name == "fingerprint");
        matches!(media.protocol, "RTP/SAVP" | "RTP/SAVPF")
            && !has_fingerprint(&media.attributes)
            && !has_fingerprint(&self.attributes)
    }

    /// All media both ways, which goes without saying (RFC 3264 §5.1).
    pub(crate) fn lift_holds(&mut self) {
        let is_hold = |attribute: &Attribute<'_>| is_direction(attribute.name) && attribute.name != "sendrecv";
        let sections = self.media.iter_mut().map(|media| &mut media.attributes).chain([&mut self.attributes]);
        sections.for_each(|attributes| attributes.retain(|attribute| !is_hold(attribute)));
    }

    /// Without a placement it is rejected.
    fn write_media<'a>(
        &'a self,
        out: &mut String,
        media: &'a Media<'_>,
        placement: Option<Placement>,
        our_address: IpAddr,
        keys: Keys,
        foundations: &mut Foundations<'a>,
    ) {
        let own = self.address_of(media);
        let (address, port) = match placement {
            None => (our_address, 0),
            Some(Placement::AsGiven) => (own.unwrap_or(our_address), media.port),
            Some(Placement::Anchored(address)) => (address.ip(), address.port()),
        };
        out.extend(["m=", media.kind, " "]);
        port.write_to(out);
        out.extend([" ", media.protocol]);
        for format in &media.formats {
            out.extend([" ", format]);
        }
        out.push_str("\r\nc=");
        write_address(out, address);
        out.push_str("\r\n");
        let Some(placement) = placement else { return };
        let anchored = placement != Placement::AsGiven;
        let session_codec =
            self.attributes.iter().filter(|a| anchored && is_codec(a) && !is_overridden(a, &media.attributes));
        for attribute in session_codec.chain(&media.attributes) {
            if is_format(attribute, media) || is_codec(attribute) {
                write_attribute(out, attribute);
            } else if !anchored {
                write_path(out, attribute, own, keys, foundations);
            }
        }
    }
}

/// `IN IP4 192.0.2.1`
fn write_address(out: &mut String, address: IpAddr) {
    out.extend(["IN ", family(address), " "]);
    address.write_to(out);
}

fn is_rtp(media: &Media<'_>) -> bool {
    const PROTOCOLS: [&str; 6] =
        ["RTP/AVP", "RTP/AVPF", "RTP/SAVP", "RTP/SAVPF", "UDP/TLS/RTP/SAVP", "UDP/TLS/RTP/SAVPF"];
    matches!(media.kind, "audio" | "video" | "text") && PROTOCOLS.contains(&media.protocol)
}

/// `rtpmap` and `fmtp` of a format that the medium lists.
fn is_format(attribute: &Attribute<'_>, media: &Media<'_>) -> bool {
    let Some((format, rest)) = attribute.value.and_then(|value| split_at(value, b' ')) else { return false };
    let is_good = match attribute.name {
        "rtpmap" => is_encoding(rest),
        "fmtp" => rest.bytes().all(|b| matches!(b, b' '..=b'~')),
        _ => false,
    };
    is_good && media.formats.contains(&format)
}

/// `name/clock rate`, for audio also `/channels`.
fn is_encoding(text: &str) -> bool {
    let mut fields = text.trim().split('/');
    let is_number = |text: &str| (1..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    fields.next().is_some_and(is_token)
        && fields.next().is_some_and(is_number)
        && fields.by_ref().take(1).all(is_number)
        && fields.next().is_none()
}

fn is_codec(attribute: &Attribute<'_>) -> bool {
    match (attribute.name, attribute.value) {
        ("ptime" | "maxptime", Some(value)) => is_number(value),
        (name, None) => is_direction(name),
        _ => false,
    }
}

pub(super) fn is_direction(name: &str) -> bool {
    matches!(name, "sendrecv" | "sendonly" | "recvonly" | "inactive")
}

/// Whether the medium says the same thing itself: the four directions are one thing.
fn is_overridden(attribute: &Attribute<'_>, by: &[Attribute<'_>]) -> bool {
    by.iter()
        .any(|own| own.name == attribute.name || (own.value.is_none() && attribute.value.is_none() && is_codec(own)))
}

fn is_number(value: &str) -> bool {
    (1..=5).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit())
}

/// As it came.
fn write_attribute(out: &mut String, attribute: &Attribute<'_>) {
    out.extend(["a=", attribute.name]);
    if let Some(value) = attribute.value {
        out.extend([":", value]);
    }
    out.push_str("\r\n");
}
