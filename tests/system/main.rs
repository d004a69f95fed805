//! The whole system over real SIP, HTTP and WebSocket.

mod sipp;
