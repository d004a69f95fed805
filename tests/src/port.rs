//! Ports that are named before anybody listens on them.

use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// The first of those that the system gives to whoever asks for any.
const EPHEMERAL: u16 = 32_768;

/// How many ports a test may try.
const PORTS: u16 = 2_000;

/// A port of loopback that nobody has, outside the range from which the system gives ports to others: a server that is
/// started again needs it again, and a program of another maker takes it later.
///
/// # Panics
/// When all of them are taken, which is said.
pub fn lasting_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + u16::try_from(std::process::id() % 400).expect("small") * 50;
    let is_free =
        |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok() && UdpSocket::bind(("127.0.0.1", *port)).is_ok();
    let mut ports = (0..PORTS).map(|_| first + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS);
    ports.find(is_free).unwrap_or_else(|| panic!("no port of {first} to {} is free", first + PORTS - 1))
}

/// Two such ports, one behind the other; the first of them.
pub fn two_lasting_ports() -> u16 {
    loop {
        let port = lasting_port();
        if lasting_port() == port + 1 {
            return port;
        }
    }
}

/// Whether a port is there again for a server that was ended.
#[must_use]
pub const fn lasts(port: u16) -> bool {
    port < EPHEMERAL
}
