//! Client side: answers a 401 or 407. Used by the test phone and, with carriers' credentials, by trunks; a challenge from a
//! customer's leg is never answered (it would give the carrier's digest away).

use super::params::DigestParams;
use super::{Algorithm, Scheme, ha1, response, tail};
use crate::message::scan::quote;
use crate::message::{Malformed, Message};
use schema::account::Ha1;

/// A challenge worth answering.
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge {
    scheme: Scheme,
    realm: Box<str>,
    nonce: Box<str>,
    opaque: Option<Box<str>>,
    algorithm: Algorithm,
    /// Absent: RFC 2069, still met at carriers.
    qop_auth: bool,
    stale: bool,
}

impl Challenge {
    /// The best challenge of a 401 or 407: SHA-256 before MD5 (RFC 8760 §2.4). `None` when there is none we can answer.
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

    /// The first of the strongest.
    pub fn strongest(challenges: impl Iterator<Item = Self>) -> Option<Self> {
        // `max_by_key` would take the last.
        challenges.reduce(|best, next| if next.algorithm > best.algorithm { next } else { best })
    }

    /// The nonce with which this request of ours has answered for this realm already.
    #[must_use]
    pub fn nonce_answered_in(&self, request: &Message) -> Option<String> {
        let mut all =
            request.texts(self.scheme.credentials_header()).filter_map(|text| DigestParams::parse(text).ok()?);
        let ours = all.find(|params| params.value("realm").as_deref() == Some(&*self.realm))?;
        ours.value("nonce")
    }

    /// Whether it asks with this nonce.
    #[must_use]
    pub fn has_nonce(&self, nonce: &str) -> bool {
        *self.nonce == *nonce
    }

    fn parse(scheme: Scheme, text: &str) -> Result<Option<Self>, Malformed> {
        let Some(params) = DigestParams::parse(text)? else { return Ok(None) };
        let algorithm = match params.value("algorithm") {
            None => Algorithm::Md5,
            Some(token) => Algorithm::parse(&token).ok_or(Malformed)?,
        };
        let qop = params.value("qop");
        let qop_auth = match &qop {
            None => false,
            Some(list) if list.split(',').any(|item| item.trim().eq_ignore_ascii_case("auth")) => true,
            Some(_) => return Err(Malformed),
        };
        Ok(Some(Self {
            scheme,
            realm: params.required("realm", 256)?.into(),
            nonce: params.required("nonce", 512)?.into(),
            opaque: params.value("opaque").map(String::into_boxed_str),
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

    /// Algorithm chosen.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// True when only the nonce was too old: the same secret may be tried again.
    #[must_use]
    pub const fn is_stale(&self) -> bool {
        self.stale
    }

    /// Value of the credentials header for a password. `nc` counts the uses of this nonce from 1.
    #[must_use]
    pub fn answer(&self, username: &str, password: &str, method: &str, uri: &str, cnonce: &str, nc: u32) -> String {
        self.answer_with(&ha1(username, &self.realm, password), username, method, uri, cnonce, nc)
    }

    /// As [`Challenge::answer`], for a stored HA1.
    #[must_use]
    pub fn answer_with(&self, ha1: &Ha1, username: &str, method: &str, uri: &str, cnonce: &str, nc: u32) -> String {
        let (nonce, name) = (&self.nonce, self.algorithm.as_str());
        let answer = if self.qop_auth {
            response(self.algorithm, ha1, &tail(self.algorithm, nonce, nc, cnonce, method, uri))
        } else {
            let a2 = self.algorithm.hex_of(&[method, uri]);
            response(self.algorithm, ha1, &format!(":{nonce}:{a2}"))
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
        write!(f, "Challenge({:?}, {:?})", self.scheme, self.algorithm)
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

    #[test]
    fn the_strongest_challenge_that_can_be_answered_is_taken() {
        let both = "WWW-Authenticate: Digest realm=\"a\", nonce=\"1\", algorithm=MD5, qop=\"auth\"\r\n\
                    WWW-Authenticate: Digest realm=\"b\", nonce=\"2\", algorithm=SHA-256, qop=\"auth-int, auth\"\r\n\
                    WWW-Authenticate: Digest realm=\"c\", nonce=\"3\", algorithm=SHA-512-256, qop=\"auth\"\r\n\
                    WWW-Authenticate: Digest realm=\"d\", nonce=\"4\", algorithm=SHA-256, qop=\"auth\"\r\n";
        assert_eq!(challenged(both).map(|c| c.realm().to_owned()).as_deref(), Some("b"));
        assert!(challenged("").is_none());
        assert!(challenged("WWW-Authenticate: Basic realm=\"x\"\r\n").is_none());
        assert!(challenged("WWW-Authenticate: Digest realm=\"x\", nonce=\"1\", qop=\"auth-int\"\r\n").is_none());
        assert!(challenged("Proxy-Authenticate: Digest realm=\"x\", nonce=\"1\"\r\n").is_none());
    }

    /// The example of RFC 2617 §3.5 without its qop, as RFC 2069 computes it.
    #[test]
    fn a_carrier_without_qop_gets_the_older_digest() {
        let challenge = challenged("WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", opaque=\"o\"\r\n").expect("one");
        let text = challenge.answer("u", "p", "REGISTER", "sip:r", "cn", 1);
        let params = DigestParams::parse(&text).expect("well-formed").expect("digest");
        let (a1, a2) = (Algorithm::Md5.hex_of(&["u", "r", "p"]), Algorithm::Md5.hex_of(&["REGISTER", "sip:r"]));
        assert_eq!(params.value("response"), Some(Algorithm::Md5.hex_of(&[&a1, "n", &a2])));
        assert_eq!((params.value("qop"), params.value("opaque").as_deref()), (None, Some("o")));
    }
}
