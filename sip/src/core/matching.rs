//! What belongs together: a request and its repetitions, its CANCEL and its ACK; and one request that came by two ways.

use crate::message::{Message, Method, Uri};
use std::sync::Arc;

/// What identifies a server transaction (RFC 3261 §17.2.3): branch, sent-by and method, ACK counting as INVITE. Without the branch's
/// magic cookie it is what RFC 2543 has: Request-URI, Call-ID, From-tag, CSeq and the top Via.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ServerKey(Arc<str>);

impl ServerKey {
    /// Of a request; `as_method` other than its own for ACK and CANCEL.
    pub(super) fn of(request: &Message, as_method: &Method) -> Self {
        let (host, port) = request.sent_by();
        let (host, port) = (host.to_ascii_lowercase(), port.unwrap_or(0));
        let branch = request.branch().unwrap_or_default();
        let key = if branch.len() > 7 && branch.starts_with("z9hG4bK") {
            format!("{branch} {host}:{port} {as_method}")
        } else {
            let uri = request.request_uri().map(Uri::as_str).unwrap_or_default();
            let (call_id, tag, cseq) = (request.call_id(), request.from_tag().unwrap_or_default(), request.cseq().0);
            format!("2543 {uri} {call_id} {tag} {cseq} {branch} {host}:{port} {as_method}")
        };
        Self(key.into())
    }
}

/// Call-ID, From-tag and CSeq: the same request by two ways has the same (RFC 3261 §8.2.2.2).
pub(super) type MergeKey = (Box<str>, Box<str>, u32);

pub(super) fn merge_key(request: &Message) -> MergeKey {
    (request.call_id().into(), request.from_tag().unwrap_or_default().into(), request.cseq().0)
}
