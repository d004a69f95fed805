//! The web edge from outside: real HTTP and WebSocket clients against the real router, actors and a store in memory.

mod authorization;
mod live;
mod sessions;
mod sockets;
mod transport;
mod world;
