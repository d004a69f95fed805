//! What ties media to their own path: RTCP's address, keys, fingerprints, ICE. Each value is read by its grammar, so that nothing
//! else of a side can stand in it: no name of a host, no address of its private network.

use super::Attribute;
use super::rewrite::{Keys, family};
use crate::message::scan::is_token;
use std::net::{IpAddr, Ipv4Addr};

/// Extensions of ICE that may be told (RFC 8838, RFC 8445, RFC 6679).
const ICE_OPTIONS: [&str; 3] = ["trickle", "ice2", "rtp+ecn"];
/// The longest digest of a certificate, in bytes (SHA-512).
const DIGEST_MAX: usize = 64;
/// The longest user name and password of ICE (RFC 8839 §5.4).
const ICE_MAX: usize = 256;
/// Parameters of a key (RFC 4568 §6.3).
const SESSION_PARAMETERS: [&str; 7] =
    ["KDR", "UNENCRYPTED_SRTCP", "UNENCRYPTED_SRTP", "UNAUTHENTICATED_SRTP", "FEC_ORDER", "FEC_KEY", "WSH"];

/// Writes an attribute if it passes. `own` is where the medium's packets go.
pub(super) fn write_path<'a>(
    out: &mut String,
    attribute: &'a Attribute<'_>,
    own: Option<IpAddr>,
    keys: Keys,
    foundations: &mut Foundations<'a>,
) {
    let name = attribute.name;
    let Some(value) = attribute.value.map(str::trim) else {
        if matches!(name, "rtcp-mux" | "ice-lite") {
            out.extend(["a=", name, "\r\n"]);
        }
        return;
    };
    let written = match name {
        "candidate" => candidate(value, own, foundations),
        "rtcp" => rtcp(value, own),
        "ice-options" => ice_options(value),
        _ if is_well_formed(name, value, keys) => return out.extend(["a=", name, ":", value, "\r\n"]),
        _ => None,
    };
    if let Some(written) = written {
        out.extend(["a=", name, ":", &written, "\r\n"]);
    }
}

/// Of what passes as it came, or not at all.
fn is_well_formed(name: &str, value: &str, keys: Keys) -> bool {
    match name {
        "setup" => matches!(value, "active" | "passive" | "actpass" | "holdconn"),
        "fingerprint" => is_fingerprint(value),
        "ice-ufrag" => is_ice(value, 4),
        "ice-pwd" => is_ice(value, 22),
        "crypto" => keys == Keys::Pass && is_key(value),
        _ => false,
    }
}

/// `hash-function XX:XX…` (RFC 8122 §5).
fn is_fingerprint(value: &str) -> bool {
    let Some((function, digest)) = value.split_once(' ') else { return false };
    let is_byte = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_hexdigit());
    matches!(function.to_ascii_lowercase().as_str(), "sha-1" | "sha-224" | "sha-256" | "sha-384" | "sha-512")
        && digest.len() <= 3 * DIGEST_MAX
        && digest.split(':').all(is_byte)
}

/// Characters of a user name or password (RFC 8839 §5.4).
fn is_ice(value: &str, shortest: usize) -> bool {
    (shortest..=ICE_MAX).contains(&value.len())
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

/// `tag suite inline:key|lifetime|mki parameter …` (RFC 4568 §9.1).
fn is_key(value: &str) -> bool {
    let mut fields = value.split(' ').filter(|field| !field.is_empty());
    let is_tag = |tag: &str| (1..=9).contains(&tag.len()) && tag.bytes().all(|b| b.is_ascii_digit());
    let is_suite = |suite: &str| suite.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let is_inline = |key: &str| {
        let of_a_key = |b| matches!(b, b'+' | b'/' | b'=' | b'|' | b'^' | b':');
        key.strip_prefix("inline:").is_some_and(|key| key.bytes().all(|b| b.is_ascii_alphanumeric() || of_a_key(b)))
    };
    let is_parameter = |text: &str| SESSION_PARAMETERS.contains(&text.split('=').next().unwrap_or(text));
    fields.next().is_some_and(is_tag)
        && fields.next().is_some_and(is_suite)
        && fields.next().is_some_and(|keys| keys.split(';').all(is_inline))
        && fields.all(is_parameter)
}

fn ice_options(value: &str) -> Option<String> {
    let known: Vec<&str> = value.split(' ').filter(|option| ICE_OPTIONS.contains(option)).collect();
    (!known.is_empty()).then(|| known.join(" "))
}

/// `port`, or `port IN IP4 address` (RFC 3605 §2.1). An address that may not be told is left out: then the medium's own counts.
fn rtcp(value: &str, own: Option<IpAddr>) -> Option<String> {
    let mut fields = value.split(' ');
    let port: u16 = fields.next()?.parse().ok()?;
    let address = fields.nth(2).and_then(|text| public(text, own));
    Some(match address {
        Some(address) => format!("{port} IN {} {address}", family(address)),
        None => port.to_string(),
    })
}

/// An address that the other side may be told: the medium's own, or one that leads through the internet. A name is none (RFC 8839
/// §5.1 has them of mDNS, which nobody outside can look up).
fn public(text: &str, own: Option<IpAddr>) -> Option<IpAddr> {
    let address = text.parse().ok()?;
    (Some(address) == own || !is_private(address)).then_some(address)
}

/// Of the host itself, its link or its private network (RFC 6890).
fn is_private(address: IpAddr) -> bool {
    let of_v4 = |address: Ipv4Addr| {
        let [first, second, ..] = address.octets();
        let is_shared = first == 100 && second & 0xc0 == 64;
        first == 0 || address.is_private() || address.is_loopback() || address.is_link_local() || is_shared
    };
    match address {
        IpAddr::V4(address) => of_v4(address),
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_unique_local()
                || address.is_unicast_link_local()
                || address.to_ipv4_mapped().is_some_and(of_v4)
        }
    }
}

/// Foundations as they came, in order. Some stacks make theirs of a private address, so they are numbered here: equal where
/// theirs are equal, which is all that they say (RFC 8839 §5.1).
#[derive(Default)]
pub(super) struct Foundations<'a>(Vec<&'a str>);

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
fn candidate<'a>(value: &'a str, own: Option<IpAddr>, foundations: &mut Foundations<'a>) -> Option<String> {
    let fields: Vec<&str> = value.split(' ').filter(|field| !field.is_empty()).collect();
    let (&[foundation, component, transport, priority, address, port], pairs) = fields.split_first_chunk()?;
    let (component, priority, port): (u16, u32, u16) =
        (component.parse().ok()?, priority.parse().ok()?, port.parse().ok()?);
    let address = public(address, own)?;
    if pairs.len() % 2 != 0 || pairs.first() != Some(&"typ") || !is_token(transport) {
        return None;
    }
    let mut out = format!(" {component} {transport} {priority} {address} {port}");
    for pair in pairs.chunks_exact(2) {
        let value = match pair {
            ["typ", kind @ ("host" | "srflx" | "prflx" | "relay")] => kind,
            ["tcptype", kind @ ("active" | "passive" | "so")] => kind,
            ["typ" | "tcptype", _] => return None,
            ["raddr", address] if address.contains(':') => "::",
            ["raddr", _] => "0.0.0.0",
            ["rport", _] => "9",
            _ => continue,
        };
        out.extend([" ", pair[0], " ", value]);
    }
    // Only one that passes has a number.
    Some(foundations.number(foundation).to_string() + &out)
}
