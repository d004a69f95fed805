//! Whole-system tests: real SIP, HTTP and WebSocket on loopback, and the simulator.

pub mod api;
pub mod browser;
pub mod carrier;
pub mod dns;
pub mod kill;
pub mod logs;
pub mod phone;
pub mod place;
pub mod port;
#[path = "../../storage/tests/conformance/postgres.rs"]
pub mod postgres;
pub mod program;
pub mod server;
pub mod sim;
pub mod sipp;
pub mod site;
pub mod softphone;
pub mod verdict;
pub mod wire;
