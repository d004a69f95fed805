//! What belongs together: a request and its repetitions, its CANCEL and its ACK; a response and its request; and one request that
//! came by two ways.

use crate::key::Key;
use crate::message::scan::split_at;
use crate::message::{Message, Method, Uri};
use std::borrow::Cow;

/// With this a branch begins that is unique (RFC 3261 §8.1.1.7).
const COOKIE: &str = "z9hG4bK";

/// What identifies a server transaction (RFC 3261 §17.2.3): branch, sent-by and method, ACK counting as INVITE. Without the branch's
/// magic cookie it is what RFC 2543 has: Request-URI, Call-ID, From-tag, CSeq and the top Via.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ServerKey(Key);

impl ServerKey {
    /// Of a request; `as_method` other than its own for ACK and CANCEL.
    pub(super) fn of(request: &Message, as_method: &Method) -> Self {
        let branch = request.branch().unwrap_or_default();
        Self::unique(branch, request.sent_by(), as_method).unwrap_or_else(|| {
            let uri = request.request_uri().map(Uri::as_str).unwrap_or_default();
            let (call_id, tag) = (request.call_id(), request.from_tag().unwrap_or_default());
            let cseq = request.cseq().0.to_be_bytes();
            let of_request: [&[u8]; 5] = [b"2543", uri.as_bytes(), call_id.as_bytes(), tag.as_bytes(), &cseq];
            of_via(branch, request.sent_by(), as_method, |of_via| {
                Self(Key::of(of_call(call_id), &[of_request.as_slice(), of_via].concat()))
            })
        })
    }

    /// Of a request of which only the top Via is read; `None` without the magic cookie.
    pub(super) fn unique(branch: &str, sent_by: (&str, Option<u16>), as_method: &Method) -> Option<Self> {
        let unique = branch.strip_prefix(COOKIE).filter(|unique| !unique.is_empty())?;
        Some(of_via(branch, sent_by, as_method, |of_via| Self(Key::of(unique, of_via))))
    }
}

/// What the top Via gives to a key.
fn of_via<T>(
    branch: &str,
    (host, port): (&str, Option<u16>),
    as_method: &Method,
    make: impl FnOnce(&[&[u8]]) -> T,
) -> T {
    let is_lower = !host.bytes().any(|byte| byte.is_ascii_uppercase());
    let lower = if is_lower { Cow::Borrowed(host) } else { Cow::Owned(host.to_ascii_lowercase()) };
    let port = port.unwrap_or(0).to_be_bytes();
    make(&[branch.as_bytes(), lower.as_bytes(), as_method.as_str().as_bytes(), &port])
}

/// What identifies a client transaction (RFC 3261 §17.1.3): branch and method.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClientKey(Key);

impl ClientKey {
    /// A CANCEL has its INVITE's branch: the method tells them apart.
    pub(super) fn of(branch: &str, method: &Method) -> Self {
        let unique = branch.strip_prefix(COOKIE).unwrap_or(branch);
        Self(Key::of(unique, &[branch.as_bytes(), method.as_str().as_bytes()]))
    }
}

/// Call-ID, From-tag and CSeq: the same request by two ways has the same (RFC 3261 §8.2.2.2).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MergeKey(Key);

impl MergeKey {
    pub(super) fn of(request: &Message) -> Self {
        let (call_id, tag) = (request.call_id(), request.from_tag().unwrap_or_default());
        Self(Key::of(of_call(call_id), &[call_id.as_bytes(), tag.as_bytes(), &request.cseq().0.to_be_bytes()]))
    }
}

/// What a Call-ID has before its host, which many share.
fn of_call(call_id: &str) -> &str {
    split_at(call_id, b'@').map_or(call_id, |(word, _)| word)
}
