//! When two URIs are the same (RFC 3261 §19.1.4).

use super::{Scheme, Uri};

/// Decodes escapes of bytes that are not `reserved` (§19.1.4); others stay escaped, in upper case.
fn comparable(text: &str, fold_case: bool) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let decoded =
            (byte == b'%').then(|| text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok())).flatten();
        at += if decoded.is_some() { 3 } else { 1 };
        match decoded {
            Some(value) if matches!(value, b';' | b'/' | b'?' | b':' | b'@' | b'&' | b'=' | b'+' | b'$' | b',') => {
                out.extend_from_slice(format!("%{value:02X}").as_bytes());
            }
            Some(value) => out.push(if fold_case { value.to_ascii_lowercase() } else { value }),
            None => out.push(if fold_case { byte.to_ascii_lowercase() } else { byte }),
        }
    }
    out
}

impl Uri {
    /// Equivalence of RFC 3261 §19.1.4: user and password exact after unescaping, host without case, port as
    /// written, `user` `ttl` `method` `maddr` `transport` never defaulted, headers never ignored.
    #[must_use]
    pub fn is_equivalent(&self, other: &Self) -> bool {
        if self.at.scheme != other.at.scheme {
            return false;
        }
        if self.at.scheme == Scheme::Other {
            return self.text == other.text;
        }
        let exact = |part: Option<&str>| part.map(|p| comparable(p, false));
        if exact(self.user()) != exact(other.user())
            || exact(self.password()) != exact(other.password())
            || self.at.port != other.at.port
            || !self.host().eq_ignore_ascii_case(other.host())
        {
            return false;
        }
        self.params_agree_with(other)
            && other.params_agree_with(self)
            && self.sorted_headers() == other.sorted_headers()
    }

    fn params_agree_with(&self, other: &Self) -> bool {
        const NEVER_DEFAULTED: [&str; 5] = ["user", "ttl", "method", "maddr", "transport"];
        self.params().all(|(name, value)| match other.param(name) {
            None => !NEVER_DEFAULTED.iter().any(|n| n.eq_ignore_ascii_case(name)),
            Some(theirs) => comparable(theirs, true) == comparable(value.unwrap_or(""), true),
        })
    }

    fn sorted_headers(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut headers: Vec<_> = self.headers().map(|(n, v)| (comparable(n, true), comparable(v, false))).collect();
        headers.sort();
        headers
    }
}
