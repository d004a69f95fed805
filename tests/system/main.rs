//! The whole system over real SIP, HTTP and WebSocket.

mod dashboard;
mod credit;
mod money;
mod panics;
mod sipp;
