//! Digest authentication for SIP (RFC 3261 §22, RFC 7616, RFC 8760): server side ([`Challenger`]) and client side
//! ([`Challenge`]). Pure: time, randomness and the stored secret come in.

mod challenger;
mod client;
mod nonce;
mod params;

pub use challenger::{Challenger, Claim, Origin, Refusal};
pub use client::Challenge;

use crate::message::HeaderName;
use md5::Digest as _;
use schema::account::Ha1;

/// A hash algorithm of RFC 8760. SHA-256 is preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// `MD5`
    Md5,
    /// `SHA-256`
    Sha256,
}

impl Algorithm {
    /// Reads a token, in any case.
    #[must_use]
    pub fn parse(token: &str) -> Option<Self> {
        [Self::Sha256, Self::Md5].into_iter().find(|known| known.as_str().eq_ignore_ascii_case(token))
    }

    /// Token as written in a header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
        }
    }

    /// Hash of the parts joined by colons, in lower-case hexadecimal.
    fn hex_of(self, parts: &[&str]) -> String {
        match self {
            Self::Md5 => hex(&md5_of(parts)),
            Self::Sha256 => hex(&sha256_of(parts)),
        }
    }

    fn hex_ha1(self, ha1: &Ha1) -> String {
        match self {
            Self::Md5 => hex(&ha1.md5),
            Self::Sha256 => hex(&ha1.sha256),
        }
    }
}

/// Which of the two header pairs a challenge uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// 401, WWW-Authenticate, Authorization: registrars and user agents.
    Www,
    /// 407, Proxy-Authenticate, Proxy-Authorization: calls.
    Proxy,
}

impl Scheme {
    /// Status code of the challenge.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Www => 401,
            Self::Proxy => 407,
        }
    }

    /// Header that carries a challenge.
    #[must_use]
    pub const fn challenge_header(self) -> HeaderName {
        match self {
            Self::Www => HeaderName::WwwAuthenticate,
            Self::Proxy => HeaderName::ProxyAuthenticate,
        }
    }

    /// Header that carries the answer.
    #[must_use]
    pub const fn credentials_header(self) -> HeaderName {
        match self {
            Self::Www => HeaderName::Authorization,
            Self::Proxy => HeaderName::ProxyAuthorization,
        }
    }
}

/// What is stored instead of a password (RFC 7616 §3.4.2): as good as the password within the realm.
#[must_use]
pub fn ha1(username: &str, realm: &str, password: &str) -> Ha1 {
    let parts = [username, realm, password];
    Ha1 { md5: md5_of(&parts), sha256: sha256_of(&parts) }
}

fn md5_of(parts: &[&str]) -> [u8; 16] {
    let mut hash = md5::Md5::new();
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            hash.update(b":");
        }
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

fn sha256_of(parts: &[&str]) -> [u8; 32] {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            hash.update(b":");
        }
        hash.update(part.as_bytes());
    }
    hash.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|nibble| char::from(DIGITS[usize::from(nibble)])).collect()
}

/// `response` of RFC 7616 §3.4.1 with `qop=auth`. `tail` is `:nonce:nc:cnonce:auth:H(A2)`.
fn response(algorithm: Algorithm, ha1: &Ha1, tail: &str) -> String {
    let head = algorithm.hex_ha1(ha1);
    // `tail` begins with the colon that joins it to HA1.
    algorithm.hex_of(&[&format!("{head}{tail}")])
}

/// Everything of the response's input behind HA1.
fn tail(algorithm: Algorithm, nonce: &str, nc: u32, cnonce: &str, method: &str, uri: &str) -> String {
    let a2 = algorithm.hex_of(&[method, uri]);
    format!(":{nonce}:{nc:08x}:{cnonce}:auth:{a2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_rfc_7616_hold() {
        let ha1 = ha1("Mufasa", "http-auth@example.org", "Circle of Life");
        for (algorithm, expected) in [
            (Algorithm::Md5, "8ca523f5e9506fed4657c9700eebdbec"),
            (Algorithm::Sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let tail = tail(
                algorithm,
                "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
                1,
                "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
                "GET",
                "/dir/index.html",
            );
            assert_eq!(response(algorithm, &ha1, &tail), expected);
        }
    }
}
