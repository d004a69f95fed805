//! The whole system over real SIP, HTTP and WebSocket.

mod carriers;
mod commands;
mod credit;
mod dashboard;
mod drain;
mod faults;
mod graphql;
mod ipv6;
mod kills;
mod logs;
mod money;
mod names;
mod overload;
mod panics;
mod phones;
mod restart;
mod secure_carriers;
mod sipp;
mod streams;
mod tls;
mod unanswered;
