//! The hashes of RFC 8760, in hexadecimal as digest uses them.

use md5::Digest as _;
use schema::entropy::hex;

/// A hash function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    /// RFC 1321.
    Md5,
    /// FIPS 180-4 §6.2.
    Sha256,
    /// FIPS 180-4 §6.7: not a SHA-512 that was cut off, it begins with other values.
    Sha512256,
}

impl Hash {
    /// Token as written in a header.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
            Self::Sha512256 => "SHA-512-256",
        }
    }

    /// Hash of the parts joined by colons, in lower-case hexadecimal.
    pub(super) fn hex_of(self, parts: &[&str]) -> String {
        match self {
            Self::Md5 => hex(&md5_of(parts)),
            Self::Sha256 => hex(&sha256_of(parts)),
            Self::Sha512256 => hex(&sha512_256_of(parts)),
        }
    }
}

pub(super) fn md5_of(parts: &[&str]) -> [u8; 16] {
    let mut hash = md5::Md5::new();
    joined(parts, |bytes| hash.update(bytes));
    hash.finalize().into()
}

pub(super) fn sha256_of(parts: &[&str]) -> [u8; 32] {
    by_ring(&ring::digest::SHA256, parts)
}

fn sha512_256_of(parts: &[&str]) -> [u8; 32] {
    by_ring(&ring::digest::SHA512_256, parts)
}

fn by_ring(algorithm: &'static ring::digest::Algorithm, parts: &[&str]) -> [u8; 32] {
    let mut hash = ring::digest::Context::new(algorithm);
    joined(parts, |bytes| hash.update(bytes));
    hash.finish().as_ref().try_into().expect("both give 32 bytes")
}

fn joined(parts: &[&str], mut take: impl FnMut(&[u8])) {
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            take(b":");
        }
        take(part.as_bytes());
    }
}
