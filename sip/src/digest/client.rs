//! Client side: answers a 401 or 407. Used by the test phone and, with carriers' credentials, by trunks; a challenge from a
//! customer's leg is never answered (it would give the carrier's digest away).

use super::hash::Hash;
use super::params::DigestParams;
use super::{Scheme, response, tail};
use crate::message::scan::quote;
use crate::message::{Malformed, Message};
use std::borrow::Cow;

/// How a carrier may ask: a hash of RFC 8760, as it is or with a session key (`-sess`, RFC 7616 §3.4.2).
#[derive(Clone, Copy, PartialEq, Eq)]
struct Asked {
    hash: Hash,
    by_session: bool,
}

impl Asked {
    /// Reads a token, in any case.
    fn parse(token: &str) -> Option<Self> {
        let hashes = [Hash::Sha512256, Hash::Sha256, Hash::Md5];
        let mut all = hashes.into_iter().flat_map(|hash| [false, true].map(|by_session| Self { hash, by_session }));
        all.find(|known| known.as_str().eq_ignore_ascii_case(token))
    }

    const fn as_str(self) -> &'static str {
        match (self.hash, self.by_session) {
            (hash, false) => hash.as_str(),
            (Hash::Md5, true) => "MD5-sess",
            (Hash::Sha256, true) => "SHA-256-sess",
            (Hash::Sha512256, true) => "SHA-512-256-sess",
        }
    }

    /// MD5 alone is weak; among the others the server's order counts.
    const fn is_strong(self) -> bool {
        !matches!(self.hash, Hash::Md5)
    }
}

/// A challenge worth answering.
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge {
    scheme: Scheme,
    realm: Box<str>,
    nonce: Box<str>,
    opaque: Option<Box<str>>,
    algorithm: Asked,
    /// Absent: RFC 2069, still met at carriers.
    qop_auth: bool,
    stale: bool,
}

impl Challenge {
    /// The best challenge of a 401 or 407, as [`Challenge::strongest`]. `None` when there is none we can answer.
    #[must_use]
    pub fn best_of(response: &Message) -> Option<Self> {
        Self::strongest(Self::all_of(response))
    }

    /// All challenges of a 401 or 407 that we can answer, as they stand there.
    pub fn all_of(response: &Message) -> impl Iterator<Item = Self> {
        let scheme = match response.status() {
            Some(401) => Some(Scheme::Www),
            Some(407) => Some(Scheme::Proxy),
            _ => None,
        };
        scheme.into_iter().flat_map(|scheme| {
            response.texts(scheme.challenge_header()).filter_map(move |text| Self::parse(scheme, text).ok()?)
        })
    }

    /// The topmost that we know, as the server prefers (RFC 8760 §2.4); one with MD5 only when there is no other.
    pub fn strongest(challenges: impl Iterator<Item = Self>) -> Option<Self> {
        let is_stronger = |next: &Self, best: &Self| next.algorithm.is_strong() && !best.algorithm.is_strong();
        // `max_by_key` would take the last.
        challenges.reduce(|best, next| if is_stronger(&next, &best) { next } else { best })
    }

    /// The nonce with which this request of ours has answered for this realm already.
    #[must_use]
    pub fn nonce_answered_in(&self, request: &Message) -> Option<String> {
        let mut all =
            request.texts(self.scheme.credentials_header()).filter_map(|text| DigestParams::parse(text).ok()?);
        let ours = all.find(|params| params.value("realm").as_deref() == Some(&*self.realm))?;
        ours.value("nonce").map(Cow::into_owned)
    }

    /// Whether it asks with this nonce.
    #[must_use]
    pub fn has_nonce(&self, nonce: &str) -> bool {
        *self.nonce == *nonce
    }

    fn parse(scheme: Scheme, text: &str) -> Result<Option<Self>, Malformed> {
        let Some(params) = DigestParams::parse(text)? else { return Ok(None) };
        let algorithm = match params.value("algorithm") {
            None => Asked { hash: Hash::Md5, by_session: false },
            Some(token) => Asked::parse(&token).ok_or(Malformed)?,
        };
        let qop = params.value("qop");
        let qop_auth = match &qop {
            None => false,
            Some(list) if list.split(',').any(|item| item.trim().eq_ignore_ascii_case("auth")) => true,
            Some(_) => return Err(Malformed),
        };
        // Without qop there is no cnonce, which a session key is made of.
        if algorithm.by_session && !qop_auth {
            return Err(Malformed);
        }
        Ok(Some(Self {
            scheme,
            realm: params.required("realm", 256)?.into(),
            nonce: params.required("nonce", 512)?.into(),
            opaque: params.value("opaque").map(Box::from),
            algorithm,
            qop_auth,
            stale: params.value("stale").is_some_and(|value| value.eq_ignore_ascii_case("true")),
        }))
    }

    /// Header pair.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Realm: a carrier's credentials go to the configured realm only.
    #[must_use]
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// Token of the algorithm chosen.
    #[must_use]
    pub const fn algorithm(&self) -> &'static str {
        self.algorithm.as_str()
    }

    /// True when only the nonce was too old: the same secret may be tried again.
    #[must_use]
    pub const fn is_stale(&self) -> bool {
        self.stale
    }

    /// Value of the credentials header for a password. `nc` counts the uses of this nonce from 1; `cnonce` is the same for all
    /// of them (a session key is made of the first one, RFC 7616 §3.4.2). User names are not hashed (`userhash`, §3.4.4): no
    /// carrier may ask for that, only offer it.
    #[must_use]
    pub fn answer(&self, username: &str, password: &str, method: &str, uri: &str, cnonce: &str, nc: u32) -> String {
        let (nonce, hash, name) = (&self.nonce, self.algorithm.hash, self.algorithm.as_str());
        let secret = hash.hex_of(&[username, &self.realm, password]);
        let ha1 = if self.algorithm.by_session { hash.hex_of(&[&secret, nonce, cnonce]) } else { secret };
        let answer = if self.qop_auth {
            response(hash, &ha1, &tail(hash, nonce, nc, cnonce, method, uri))
        } else {
            response(hash, &ha1, &format!("{nonce}:{}", hash.hex_of(&[method, uri])))
        };
        let mut out = format!(
            "Digest username={}, realm={}, nonce={}, uri={}, response=\"{answer}\", algorithm={name}",
            quote(username),
            quote(&self.realm),
            quote(nonce),
            quote(uri)
        );
        if self.qop_auth {
            out.push_str(&format!(", qop=auth, cnonce={}, nc={nc:08x}", quote(cnonce)));
        }
        if let Some(opaque) = &self.opaque {
            out.push_str(&format!(", opaque={}", quote(opaque)));
        }
        out
    }
}

/// Algorithm only.
impl std::fmt::Debug for Challenge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Challenge({:?}, {})", self.scheme, self.algorithm())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn challenged(headers: &str) -> Option<Challenge> {
        let text = format!(
            "SIP/2.0 401 x\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>;tag=2\r\n\
             Call-ID: c\r\nCSeq: 1 REGISTER\r\n{headers}Content-Length: 0\r\n\r\n"
        );
        Challenge::best_of(&Message::parse_datagram(&Bytes::from(text)).expect("readable"))
    }

    fn asking(realm: &str, algorithm: &str) -> String {
        format!(
            "WWW-Authenticate: Digest realm=\"{realm}\", nonce=\"1\", algorithm={algorithm}, qop=\"auth-int, auth\"\r\n"
        )
    }

    #[test]
    fn the_topmost_challenge_that_can_be_answered_is_taken() {
        for (offered, taken) in [
            (&["MD5", "SHA-256", "SHA-512-256"][..], Some("SHA-256")),
            (&["SHA-512-256", "SHA-256", "MD5"], Some("SHA-512-256")),
            (&["SHA-1024", "MD5-sess", "MD5"], Some("MD5-sess")),
            (&["MD5", "sha-256-SESS", "SHA-256"], Some("SHA-256-sess")),
            (&["MD5", "SHA-512-256-sess"], Some("SHA-512-256-sess")),
            (&["SHA-512", "SHA-256-sess-sess"], None),
        ] {
            let all: String = offered.iter().map(|algorithm| asking("r", algorithm)).collect();
            assert_eq!(challenged(&all).map(|c| c.algorithm()), taken, "{offered:?}");
        }
        let twice = asking("a", "SHA-256") + &asking("b", "SHA-256");
        assert_eq!(challenged(&twice).map(|c| c.realm().to_owned()).as_deref(), Some("a"));
        assert!(challenged("").is_none());
        assert!(challenged("WWW-Authenticate: Basic realm=\"x\"\r\n").is_none());
        assert!(challenged("WWW-Authenticate: Digest realm=\"x\", nonce=\"1\", qop=\"auth-int\"\r\n").is_none());
        assert!(challenged("WWW-Authenticate: Digest realm=\"x\", nonce=\"1\", algorithm=MD5-sess\r\n").is_none());
        assert!(challenged("Proxy-Authenticate: Digest realm=\"x\", nonce=\"1\"\r\n").is_none());
    }

    /// RFC 7616 §3.9.1 for each algorithm of RFC 8760, the values that are not printed there by Python's hashlib; a session
    /// key stays that of the first request.
    #[test]
    fn each_algorithm_gives_the_value_that_others_compute() {
        let (nonce, cnonce) =
            ("7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ");
        for (algorithm, nc, expected) in [
            ("MD5", 1, "8ca523f5e9506fed4657c9700eebdbec"),
            ("MD5-sess", 1, "e783283f46242139c486a698fec7211d"),
            ("MD5-sess", 2, "6914b51e16f9459d9abc967ad41c4599"),
            ("SHA-256", 1, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
            ("SHA-256-sess", 1, "2fd51b3a77ad75bad6afad6003e818d767133c46d9e2749e7f5232ae1ea3efd7"),
            ("SHA-256-sess", 2, "6bb0010aa4bdf46422a798c509ea32e256f27bd37de5cc3bdf8ed51e1d77d650"),
            ("SHA-512-256", 1, "430d05014cecc49cab6fbe03176d41a1da86cbfe24a16580e22aaad928d960d0"),
            ("SHA-512-256-sess", 1, "3f2a34f923c38b0fb26dce2fdfc2ce326c23cecf86fbb1444f3e51fbbc2cb92e"),
            ("SHA-512-256-sess", 2, "3f0b079c78edc3f154dc32cd155ef358aab704e07c9fda1f425282a15cc97cf7"),
        ] {
            let header = format!(
                "WWW-Authenticate: Digest realm=\"http-auth@example.org\", nonce=\"{nonce}\", algorithm={algorithm}, qop=auth\r\n"
            );
            let challenge = challenged(&header).expect("answerable");
            let text = challenge.answer("Mufasa", "Circle of Life", "GET", "/dir/index.html", cnonce, nc);
            let params = DigestParams::parse(&text).expect("well-formed").expect("digest");
            assert_eq!(params.value("response").as_deref(), Some(expected), "{algorithm} {nc}");
            assert_eq!(params.value("algorithm").as_deref(), Some(algorithm));
            assert_eq!(params.value("cnonce").as_deref(), Some(cnonce));
        }
    }

    /// The response as erratum 4897 has it: the one printed is that of a truncated SHA-512. The user name is not hashed.
    #[test]
    fn the_example_of_rfc_7616_for_sha_512_256_holds() {
        let header = "WWW-Authenticate: Digest realm=\"api@example.org\", qop=\"auth\", algorithm=SHA-512-256, \
                      nonce=\"5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK\", charset=UTF-8, userhash=true, \
                      opaque=\"HRPCssKJSGjCrkzDg8OhwpzCiGPChXYjwrI2QmXDnsOS\"\r\n";
        let challenge = challenged(header).expect("answerable");
        let cnonce = "NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v";
        let text = challenge.answer("Jäsøn Doe", "Secret, or not?", "GET", "/doe.json", cnonce, 1);
        let params = DigestParams::parse(&text).expect("well-formed").expect("digest");
        let expected = "3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5";
        assert_eq!(params.value("response").as_deref(), Some(expected));
        assert_eq!(params.value("username").as_deref(), Some("Jäsøn Doe"));
        assert_eq!(params.value("userhash"), None);
    }

    /// The example of RFC 2617 §3.5 without its qop, as RFC 2069 computes it.
    #[test]
    fn a_carrier_without_qop_gets_the_older_digest() {
        let challenge = challenged("WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", opaque=\"o\"\r\n").expect("one");
        let text = challenge.answer("u", "p", "REGISTER", "sip:r", "cn", 1);
        let params = DigestParams::parse(&text).expect("well-formed").expect("digest");
        let (a1, a2) = (Hash::Md5.hex_of(&["u", "r", "p"]), Hash::Md5.hex_of(&["REGISTER", "sip:r"]));
        assert_eq!(params.value("response").as_deref(), Some(&*Hash::Md5.hex_of(&[&a1, "n", &a2])));
        assert_eq!((params.value("qop"), params.value("opaque").as_deref()), (None, Some("o")));
    }
}
