//! Whole-system tests: real SIP, HTTP and WebSocket on loopback, and the simulator.

pub mod server;
pub mod sipp;
