//! Writes a description for the other leg. Only what stands in the lists below passes; all else is dropped.
//!
//! | passes | why |
//! |---|---|
//! | `m=` kind, protocol, formats of RTP audio, video and text | what the media are; other media go on as rejected (port 0), so that an answer has as many `m=` as its offer |
//! | `c=`, port | where media go, unless anchored |
//! | `rtpmap`, `fmtp` of listed formats, `ptime`, `maxptime` | codecs |
//! | `sendrecv`, `sendonly`, `recvonly`, `inactive` | hold |
//! | `rtcp`, `rtcp-mux`, `crypto`, `fingerprint`, `setup`, `ice-ufrag`, `ice-pwd`, `ice-options`, `ice-lite`, `candidate` | needed by media that flow between the two sides; dropped when anchored |
//!
//! Dropped among others: `i=`, `u=`, `e=`, `p=` (literally a phone number), `b=`, `k=`, `a=tool`, `a=label`, `a=mid`, `a=ssrc` with its
//! cname, `a=rtcp-xr`, header extensions, related addresses of ICE candidates (RFC 8839 §5.1 allows 0.0.0.0 there), and whatever
//! is not known today.

use super::{Attribute, Description, Media};
use crate::message::Written;
use crate::message::scan::split_at;
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
            for attribute in self.attributes.iter().filter(|a| is_codec(a) || is_path(a)) {
                write_attribute(&mut out, attribute, &mut foundations);
            }
        }
        for (media, placement) in self.media.iter().zip(placements) {
            self.write_media(&mut out, media, placement, our_address, &mut foundations);
        }
        out
    }

    /// Whether streams are on and none of them would pass: whoever heard of it would be left with silence.
    pub(crate) fn passes_nothing(&self) -> bool {
        let on = || self.media.iter().filter(|media| media.port != 0);
        on().next().is_some() && !on().any(is_relayed)
    }

    /// All media both ways, which goes without saying (RFC 3264 §5.1).
    pub(crate) fn lift_holds(&mut self) {
        let is_hold = |attribute: &Attribute<'_>| is_direction(attribute.name) && attribute.name != "sendrecv";
        let sections = self.media.iter_mut().map(|media| &mut media.attributes).chain([&mut self.attributes]);
        sections.for_each(|attributes| attributes.retain(|attribute| !is_hold(attribute)));
    }

    fn write_media<'a>(
        &'a self,
        out: &mut String,
        media: &'a Media<'_>,
        placement: Placement,
        our_address: IpAddr,
        foundations: &mut Foundations<'a>,
    ) {
        let on = media.port != 0 && is_relayed(media);
        let (address, port) = match placement {
            _ if !on => (our_address, 0),
            Placement::AsGiven => (self.address_of(media).unwrap_or(our_address), media.port),
            Placement::Anchored(address) => (address.ip(), address.port()),
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
        if !on {
            return;
        }
        let anchored = matches!(placement, Placement::Anchored(_));
        let session_codec =
            self.attributes.iter().filter(|a| anchored && is_codec(a) && !is_overridden(a, &media.attributes));
        for attribute in session_codec.chain(&media.attributes) {
            if is_format(attribute, media) || is_codec(attribute) || (!anchored && is_path(attribute)) {
                write_attribute(out, attribute, foundations);
            }
        }
    }
}

/// `IN IP4 192.0.2.1`
fn write_address(out: &mut String, address: IpAddr) {
    out.extend(["IN ", family(address), " "]);
    address.write_to(out);
}

/// RTP that we would relay; all else goes on as rejected.
fn is_relayed(media: &Media<'_>) -> bool {
    const PROTOCOLS: [&str; 6] =
        ["RTP/AVP", "RTP/AVPF", "RTP/SAVP", "RTP/SAVPF", "UDP/TLS/RTP/SAVP", "UDP/TLS/RTP/SAVPF"];
    matches!(media.kind, "audio" | "video" | "text") && PROTOCOLS.contains(&media.protocol)
}

/// `rtpmap` and `fmtp` of a format that the medium lists.
fn is_format(attribute: &Attribute<'_>, media: &Media<'_>) -> bool {
    let Some(value) = attribute.value else { return false };
    let format = || split_at(value, b' ').map_or(value, |(format, _)| format);
    matches!(attribute.name, "rtpmap" | "fmtp") && media.formats.contains(&format())
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

/// What ties media to their own path: keys, fingerprints, ICE, RTCP's address.
fn is_path(attribute: &Attribute<'_>) -> bool {
    match (attribute.name, attribute.value) {
        ("rtcp-mux" | "ice-lite", None) => true,
        ("rtcp" | "crypto" | "fingerprint" | "setup" | "ice-ufrag" | "ice-pwd" | "ice-options", Some(_)) => true,
        ("candidate", Some(value)) => candidate(value, &mut Foundations::default()).is_some(),
        _ => false,
    }
}

fn write_attribute<'a>(out: &mut String, attribute: &'a Attribute<'_>, foundations: &mut Foundations<'a>) {
    match (attribute.name, attribute.value) {
        (name, None) => out.extend(["a=", name, "\r\n"]),
        (name @ "candidate", Some(value)) => {
            out.extend(["a=", name, ":", &candidate(value, foundations).unwrap_or_default(), "\r\n"]);
        }
        (name, Some(value)) => out.extend(["a=", name, ":", value, "\r\n"]),
    }
}

/// Foundations as they came, in order. Some stacks make theirs of a private address, so they are numbered here: equal where
/// theirs are equal, which is all that they say (RFC 8839 §5.1).
#[derive(Default)]
struct Foundations<'a>(Vec<&'a str>);

impl<'a> Foundations<'a> {
    /// From 1.
    fn number(&mut self, theirs: &'a str) -> usize {
        let known = self.0.iter().position(|known| *known == theirs);
        1 + known.unwrap_or_else(|| {
            self.0.push(theirs);
            self.0.len() - 1
        })
    }
}

/// `foundation component transport priority address port typ type …`: related addresses blanked, unknown extensions dropped.
fn candidate<'a>(value: &'a str, foundations: &mut Foundations<'a>) -> Option<String> {
    let fields: Vec<&str> = value.split(' ').filter(|field| !field.is_empty()).collect();
    let (head, pairs) = fields.split_at_checked(6)?;
    if pairs.len() % 2 != 0 || pairs.first() != Some(&"typ") || head[5].parse::<u16>().is_err() {
        return None;
    }
    let mut out = foundations.number(head[0]).to_string();
    for field in &head[1..] {
        out.extend([" ", field]);
    }
    for pair in pairs.chunks_exact(2) {
        let value = match pair[0] {
            "typ" | "tcptype" => pair[1],
            "raddr" if pair[1].contains(':') => "::",
            "raddr" => "0.0.0.0",
            "rport" => "9",
            _ => continue,
        };
        out.extend([" ", pair[0], " ", value]);
    }
    Some(out)
}
