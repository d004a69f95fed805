//! Datagrams on their way out. What goes to one peer in datagrams of one length leaves in one system call and takes the way
//! through the kernel once (generic segmentation offload, `UDP_SEGMENT` of udp(7)); on the wire each is its own. On loopback 16
//! together take 2.3 µs each, one alone 7.1.

use super::{Sockets, TransportCounts};
use bytes::Bytes;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::Relaxed;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Most that wait for the end of a turn, and the most the kernel takes together.
const WAITING: usize = 64;
/// Longer ones may have to be fragmented, which excludes segmentation.
const TOGETHER_LENGTH: usize = 1_300;
/// Most bytes together: somewhat less than one datagram has.
const TOGETHER_BYTES: usize = 64_000;

/// A datagram and whom it is for.
pub(super) type Datagram = (SocketAddr, Bytes);

/// Those of one turn, in the order in which each peer gets them.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    waiting: Vec<Datagram>,
}

impl Outgoing {
    /// Takes one; true when they must leave now.
    pub(super) fn push(&mut self, to: SocketAddr, bytes: Bytes) -> bool {
        self.waiting.push((to, bytes));
        self.waiting.len() >= WAITING
    }

    /// Sends what waits. A full socket buffer loses datagrams, as the network may; what matters is repeated.
    pub(super) fn leave(&mut self, sockets: &Sockets<UdpSocket>, counts: &TransportCounts) {
        // Stable: what one peer gets stays in order.
        self.waiting.sort_by_key(|(to, _)| *to);
        for run in self.waiting.chunk_by(alike) {
            let Some((to, first)) = run.first() else { continue };
            let v6 = sockets.v6.as_ref().filter(|_| to.is_ipv6());
            let Some(socket) = v6.or(sockets.first.as_ref()) else {
                counts.unsent.fetch_add(run.len() as u64, Relaxed);
                continue;
            };
            for part in run.chunks(TOGETHER_BYTES / first.len().max(1)) {
                counts.unsent.fetch_add(send(socket, *to, part), Relaxed);
            }
        }
        self.waiting.clear();
    }
}

/// Puts datagrams whose order does not matter so that many leave together.
pub(super) fn group(datagrams: &mut [Datagram]) {
    datagrams.sort_unstable_by_key(|(to, bytes)| (*to, bytes.len()));
}

fn alike((to, bytes): &Datagram, (next_to, next_bytes): &Datagram) -> bool {
    to == next_to && bytes.len() == next_bytes.len() && bytes.len() <= TOGETHER_LENGTH
}

/// How many of them were not sent.
fn send(socket: &UdpSocket, to: SocketAddr, part: &[Datagram]) -> u64 {
    if part.len() > 1 {
        match together(socket, to, part) {
            Ok(_) => return 0,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return part.len() as u64,
            // The way to this peer cannot do it (a small MTU, no checksums by the device).
            Err(_) => {}
        }
    }
    part.iter().map(|(to, bytes)| u64::from(socket.try_send_to(bytes, *to).is_err())).sum()
}

fn together(socket: &UdpSocket, to: SocketAddr, part: &[Datagram]) -> io::Result<usize> {
    let length = part.first().and_then(|(_, bytes)| u16::try_from(bytes.len()).ok()).unwrap_or(0);
    let slices: Vec<_> = part.iter().map(|(_, bytes)| IoSlice::new(bytes)).collect();
    let segments = [ControlMessage::UdpGsoSegments(&length)];
    socket.try_io(Interest::WRITABLE, || {
        let to = SockaddrStorage::from(to);
        sendmsg(socket.as_raw_fd(), &slices, &segments, MsgFlags::empty(), Some(&to)).map_err(io::Error::from)
    })
}

#[cfg(test)]
mod tests;
