//! Digest authentication for SIP (RFC 3261 §22, RFC 7616, RFC 8760): server side ([`Challenger`]) and client side
//! ([`Challenge`]). Pure: time, randomness and the stored secret come in.

mod challenger;
mod client;
mod hash;
mod nonce;
mod params;

pub use challenger::{Challenger, Claim, Origin, Refusal};
pub use client::Challenge;

use crate::message::HeaderName;
use hash::Hash;
use schema::account::Ha1;
use schema::entropy::hex;

/// A hash algorithm of RFC 8760 of which credentials are stored, so that customers can be asked with it. SHA-256 is preferred.
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
        self.hash().as_str()
    }

    const fn hash(self) -> Hash {
        match self {
            Self::Md5 => Hash::Md5,
            Self::Sha256 => Hash::Sha256,
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
    Ha1 { md5: hash::md5_of(&parts), sha256: hash::sha256_of(&parts) }
}

/// `response` of RFC 7616 §3.4.1 for a hexadecimal HA1. `tail` is all behind it.
fn response(hash: Hash, ha1: &str, tail: &str) -> String {
    hash.hex_of(&[ha1, tail])
}

/// Everything of the response's input behind HA1, with `qop=auth`: `nonce:nc:cnonce:auth:H(A2)`.
fn tail(hash: Hash, nonce: &str, nc: u32, cnonce: &str, method: &str, uri: &str) -> String {
    let a2 = hash.hex_of(&[method, uri]);
    format!("{nonce}:{nc:08x}:{cnonce}:auth:{a2}")
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
                algorithm.hash(),
                "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
                1,
                "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
                "GET",
                "/dir/index.html",
            );
            assert_eq!(response(algorithm.hash(), &algorithm.hex_ha1(&ha1), &tail), expected);
        }
    }
}
