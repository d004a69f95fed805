//! Server side: makes challenges, reads answers, decides.

use super::nonce::{self, NonceCounts, NonceKey};
use super::params::DigestParams;
use super::{Algorithm, Scheme, response, tail};
use crate::message::{Malformed, Message, Uri};
use ring::hmac;
use schema::account::Ha1;
use schema::entropy::Entropy;
use schema::time::Mono;
use std::net::IpAddr;
use std::time::Duration;
use subtle::ConstantTimeEq;

/// Longest username, bytes.
const MAX_USERNAME: usize = 64;
/// A challenge that is answered within so many seconds is answered at once.
const PROMPT_S: u32 = 10;
/// How long nonces are made with one key.
const KEY_LIFE: Duration = Duration::from_secs(86_400);
/// Longest cnonce, bytes.
const MAX_CNONCE: usize = 256;

/// Where a request came from, as far as its nonce is bound to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A datagram's source address; its port may change behind a NAT.
    Address(IpAddr),
    /// A connection.
    Connection(u64),
}

impl Origin {
    fn bytes(self) -> Vec<u8> {
        match self {
            Self::Address(IpAddr::V4(ip)) => ip.octets().to_vec(),
            Self::Address(IpAddr::V6(ip)) => ip.octets().to_vec(),
            Self::Connection(number) => [b"c".as_slice(), &number.to_be_bytes()].concat(),
        }
    }
}

/// Why a request's credentials are not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It carries none for our realm: challenge it.
    #[error("no credentials")]
    Absent,
    /// They do not follow the grammar, or stand twice: 400.
    #[error("malformed credentials")]
    Malformed,
    /// An algorithm or `qop` we did not offer: challenge it.
    #[error("unsupported digest algorithm or qop")]
    Unsupported,
    /// The digest URI names another host than the Request-URI and is not ours: 400.
    #[error("digest URI of another host")]
    ForeignUri,
    /// The nonce is too old, or of another key or origin: challenge it with `stale=true`.
    #[error("stale nonce")]
    Stale,
    /// The nonce count was used before: challenge it with `stale=true`.
    #[error("nonce count repeated")]
    Replayed,
    /// Unknown user or wrong secret: challenge it.
    #[error("wrong credentials")]
    Wrong,
}

impl Refusal {
    /// 400, or `None` when the answer is a challenge.
    #[must_use]
    pub const fn status(self) -> Option<u16> {
        match self {
            Self::Malformed | Self::ForeignUri => Some(400),
            _ => None,
        }
    }

    /// Whether the new challenge says `stale=true`: the client may answer it without asking its user.
    #[must_use]
    pub const fn is_stale(self) -> bool {
        matches!(self, Self::Stale | Self::Replayed)
    }
}

/// Credentials whose form and nonce are good; the secret has to be looked up.
#[derive(Clone)]
pub struct Claim {
    username: Box<str>,
    algorithm: Algorithm,
    tail: Box<str>,
    response: Box<str>,
    nonce: NonceKey,
    nc: u32,
}

impl Claim {
    /// The digest username. It decides the account; From is never believed.
    #[must_use]
    pub fn username(&self) -> &str {
        &self.username
    }

    /// Whether it answers a challenge that was given only just now, as the first to use its nonce.
    pub(crate) fn is_prompt(&self, now: Mono) -> bool {
        self.nc == 1 && nonce::seconds(now).saturating_sub(self.nonce.0) <= PROMPT_S
    }
}

/// Algorithm only.
impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// Challenges requests of one realm and checks their answers. Holds no state of unauthenticated requests.
pub struct Challenger {
    key: hmac::Key,
    /// When the next challenge takes a new one; none has been given with this one yet.
    renewed_at: Option<Mono>,
    realm: Box<str>,
    hosts: Vec<Box<str>>,
    algorithms: Box<[Algorithm]>,
    dummy: Ha1,
    counts: NonceCounts,
}

impl Challenger {
    /// For a realm (usually the domain), the host names and addresses that are ours, and the algorithms to offer, most
    /// preferred first. The key is new, so that nonces of an earlier process are stale.
    ///
    /// # Errors
    /// When no algorithm is given, or the realm is empty or holds a quote, a backslash or a control character.
    pub fn new(
        entropy: &mut Entropy,
        realm: &str,
        hosts: &[&str],
        algorithms: &[Algorithm],
    ) -> Result<Self, Malformed> {
        if algorithms.is_empty() || realm.is_empty() || realm.chars().any(|c| c.is_control() || matches!(c, '"' | '\\'))
        {
            return Err(Malformed);
        }
        Ok(Self {
            key: new_key(entropy),
            renewed_at: None,
            realm: realm.into(),
            hosts: hosts.iter().map(|host| Box::from(*host)).collect(),
            algorithms: algorithms.into(),
            dummy: Ha1 { md5: entropy.bytes(), sha256: entropy.bytes() },
            counts: NonceCounts::default(),
        })
    }

    /// The realm of all challenges.
    #[must_use]
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// A new key: all nonces given out become stale. Every day [`Self::challenge`] takes one by itself.
    pub fn rotate(&mut self, entropy: &mut Entropy) {
        (self.key, self.renewed_at) = (new_key(entropy), None);
        self.counts.clear();
    }

    /// Nonces whose counts are kept at the moment; bounded.
    #[cfg(test)]
    pub(crate) fn counted_nonces(&self) -> usize {
        self.counts.len()
    }

    /// Values of the challenge header, most preferred first: one header field each (RFC 8760 §2.3).
    #[must_use]
    pub fn challenge(&mut self, entropy: &mut Entropy, now: Mono, origin: Origin, stale: bool) -> Vec<String> {
        if self.renewed_at.is_some_and(|at| at <= now) {
            self.rotate(entropy);
        }
        self.renewed_at.get_or_insert(now + KEY_LIFE);
        let nonce = nonce::make(&self.key, entropy, now, &origin.bytes());
        let stale = if stale { ", stale=true" } else { "" };
        let one = |algorithm: &Algorithm| {
            let (realm, algorithm) = (&self.realm, algorithm.as_str());
            format!("Digest realm=\"{realm}\", nonce=\"{nonce}\", qop=\"auth\", algorithm={algorithm}{stale}")
        };
        self.algorithms.iter().map(one).collect()
    }

    /// Reads a request's credentials and checks everything but the secret. Keeps nothing.
    ///
    /// # Errors
    /// Why they are not accepted.
    pub fn claim(&self, request: &Message, scheme: Scheme, origin: Origin, now: Mono) -> Result<Claim, Refusal> {
        let mut ours = None;
        for text in request.texts(scheme.credentials_header()) {
            let Some(params) = DigestParams::parse(text).map_err(|_| Refusal::Malformed)? else { continue };
            if params.value("realm").as_deref() != Some(&*self.realm) {
                continue;
            }
            if ours.replace(params).is_some() {
                return Err(Refusal::Malformed);
            }
        }
        let params = ours.ok_or(Refusal::Absent)?;
        self.read(&params, request, origin, now)
    }

    fn read(&self, params: &DigestParams<'_>, request: &Message, origin: Origin, now: Mono) -> Result<Claim, Refusal> {
        let required = |name, most| params.required(name, most).map_err(|_| Refusal::Malformed);
        let algorithm = match params.value("algorithm") {
            None => Algorithm::Md5,
            Some(token) => Algorithm::parse(&token).ok_or(Refusal::Unsupported)?,
        };
        if !self.algorithms.contains(&algorithm) {
            return Err(Refusal::Unsupported);
        }
        let is_auth = params.value("qop").is_some_and(|qop| qop.eq_ignore_ascii_case("auth"));
        let is_hashed = params.value("userhash").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if !is_auth || is_hashed {
            return Err(Refusal::Unsupported);
        }
        let username = required("username", MAX_USERNAME)?;
        let nonce_text = required("nonce", 256)?;
        let uri = required("uri", crate::message::limits::MAX_URI)?;
        let cnonce = required("cnonce", MAX_CNONCE)?;
        let response = required("response", 64)?.to_ascii_lowercase();
        let nc_text = required("nc", 8)?;
        let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if nc_text.len() != 8 || !is_hex(&nc_text) || !is_hex(&response) {
            return Err(Refusal::Malformed);
        }
        let nc = u32::from_str_radix(&nc_text, 16).map_err(|_| Refusal::Malformed)?;
        self.check_uri(&uri, request)?;
        let nonce = nonce::check(&self.key, &nonce_text, &origin.bytes()).ok_or(Refusal::Stale)?;
        if nonce::seconds(now).saturating_sub(nonce.0) > nonce::LIFE_S {
            return Err(Refusal::Stale);
        }
        let tail = tail(algorithm.hash(), &nonce_text, nc, &cnonce, request.method().as_str(), &uri);
        Ok(Claim { username: username.into(), algorithm, tail: tail.into(), response: response.into(), nonce, nc })
    }

    /// The digest URI may differ from the Request-URI in its user part (SIPp's does); its host must be ours or the same.
    fn check_uri(&self, uri: &str, request: &Message) -> Result<(), Refusal> {
        let uri = Uri::parse(uri).map_err(|_| Refusal::Malformed)?;
        let same = request.request_uri().is_some_and(|target| target.host().eq_ignore_ascii_case(uri.host()));
        let ours = self.hosts.iter().any(|host| host.eq_ignore_ascii_case(uri.host()));
        if same || ours { Ok(()) } else { Err(Refusal::ForeignUri) }
    }

    /// Checks the secret, then that the nonce count is new. For an unknown user the same work is done with a secret that
    /// nobody has.
    ///
    /// # Errors
    /// [`Refusal::Wrong`], or [`Refusal::Replayed`] after a correct answer.
    pub fn verify(&mut self, claim: &Claim, known: Option<&Ha1>, now: Mono) -> Result<(), Refusal> {
        let ha1 = claim.algorithm.hex_ha1(known.unwrap_or(&self.dummy));
        let expected = response(claim.algorithm.hash(), &ha1, &claim.tail);
        let equal = bool::from(expected.as_bytes().ct_eq(claim.response.as_bytes()));
        if !equal || known.is_none() {
            return Err(Refusal::Wrong);
        }
        if self.counts.take(claim.nonce, claim.nc, now) { Ok(()) } else { Err(Refusal::Replayed) }
    }
}

fn new_key(entropy: &mut Entropy) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &entropy.bytes::<32>())
}

/// Realm and sizes only.
impl std::fmt::Debug for Challenger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Challenger").field("counted", &self.counts.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
