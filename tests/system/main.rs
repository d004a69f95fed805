//! The whole system over real SIP, HTTP and WebSocket.

mod commands;
mod credit;
mod dashboard;
mod graphql;
mod money;
mod panics;
mod phones;
mod sipp;
