//! The SIP edge: messages, digest, SDP, transactions; decisions are pure, transports only carry.

pub mod core;
pub mod demo;
mod dialog;
pub mod digest;
pub mod flow;
pub mod guard;
mod key;
pub mod locate;
pub mod message;
pub mod overload;
mod registrar;
mod registration;
pub mod sdp;
mod transaction;
pub mod transport;
