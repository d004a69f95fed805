//! The SIP edge: messages, digest, SDP, transactions; decisions are pure, transports only carry.

pub mod digest;
pub mod message;
pub mod sdp;
