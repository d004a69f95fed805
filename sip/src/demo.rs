//! A test phone and a test carrier, for `ringfence demo call`, the built-in development carrier, the simulator and the
//! benchmarks. Each is a pure machine (datagram or time in, datagrams and events out); [`run`] is the shell that gives it a
//! UDP socket. One machine carries many calls: no task per call, one timer heap.

pub mod carrier;
pub mod phone;

use crate::message::Uri;
use bytes::Bytes;
use schema::time::{Clock, Mono};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

/// RFC 3261 timer T1.
const T1: Duration = Duration::from_millis(500);
/// RFC 3261 timer T2.
const T2: Duration = Duration::from_secs(4);
/// When a transaction is given up: 64·T1.
const GIVE_UP: Duration = Duration::from_secs(32);
/// How long an ended call still answers repetitions.
const LINGER: Duration = Duration::from_secs(5);
/// Datagrams taken from the socket before time and commands are looked at again.
const BATCH: usize = 128;
/// The option tag of reliable provisional responses (RFC 3262).
const RELIABLE: &str = "100rel";

/// What a machine wants done.
#[derive(Debug)]
pub struct Actions<E> {
    /// Datagrams to send, in order.
    pub datagrams: Vec<(SocketAddr, Bytes)>,
    /// What happened, in order.
    pub events: Vec<E>,
}

impl<E> Default for Actions<E> {
    fn default() -> Self {
        Self { datagrams: Vec::new(), events: Vec::new() }
    }
}

/// A sans-IO SIP endpoint over UDP.
pub trait Endpoint {
    /// What it is told to do.
    type Command;
    /// What it reports.
    type Event;

    /// Carries out a command.
    fn on_command(&mut self, command: Self::Command, now: Mono, actions: &mut Actions<Self::Event>);
    /// Takes a datagram; anything unreadable is ignored.
    fn on_datagram(&mut self, datagram: &Bytes, source: SocketAddr, now: Mono, actions: &mut Actions<Self::Event>);
    /// Does what is due.
    fn on_time(&mut self, now: Mono, actions: &mut Actions<Self::Event>);
    /// When [`Endpoint::on_time`] has something to do next.
    fn next_time(&self) -> Option<Mono>;
}

/// A retransmission's schedule: at T1, doubling, until 64·T1 (RFC 3261 §17.1).
#[derive(Debug, Clone, Copy)]
struct Repeat {
    interval: Duration,
    most: Duration,
    give_up: Mono,
}

impl Repeat {
    /// Of an INVITE: doubling without a ceiling (timer A).
    fn of_invite(now: Mono) -> Self {
        Self { interval: T1, most: GIVE_UP, give_up: now + GIVE_UP }
    }

    /// Of all else, and of responses to INVITE: doubling up to T2 (timers E and G).
    fn up_to_t2(now: Mono) -> Self {
        Self { interval: T1, most: T2, give_up: now + GIVE_UP }
    }

    /// The next moment after a sending at `now`.
    fn next(&mut self, now: Mono) -> Mono {
        let at = (now + self.interval).min(self.give_up);
        self.interval = (self.interval * 2).min(self.most);
        at
    }
}

/// One heap for all timers: entries are never removed early, their owner ignores those it no longer waits for.
#[derive(Debug)]
struct Timers<T: Ord>(BinaryHeap<Reverse<(Mono, T)>>);

impl<T: Ord> Timers<T> {
    const fn new() -> Self {
        Self(BinaryHeap::new())
    }

    fn set(&mut self, at: Mono, owner: T) {
        self.0.push(Reverse((at, owner)));
    }

    fn next(&self) -> Option<Mono> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    /// The owner of the earliest timer due.
    fn pop(&mut self, now: Mono) -> Option<T> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse((_, owner))| owner)
    }
}

/// The address in a URI, 5060 being the port not written; `None` for a host name.
fn address_in(uri: &Uri) -> Option<SocketAddr> {
    let ip = uri.host().trim_matches(['[', ']']).parse().ok()?;
    Some(SocketAddr::new(ip, uri.port().unwrap_or(5060)))
}

/// Carries a machine's datagrams until `commands` is closed. Events that nobody takes in time are dropped.
///
/// # Errors
/// When the socket fails.
pub async fn run<E: Endpoint>(
    socket: &UdpSocket,
    endpoint: &mut E,
    clock: &Clock,
    mut commands: mpsc::Receiver<E::Command>,
    events: &mpsc::Sender<E::Event>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; crate::message::limits::MAX_DATAGRAM + 1];
    let mut actions = Actions::default();
    loop {
        let wait = endpoint.next_time().map(|at| at.since(clock().mono));
        let timer = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            command = commands.recv() => match command {
                Some(command) => endpoint.on_command(command, clock().mono, &mut actions),
                None => return Ok(()),
            },
            ready = socket.readable() => {
                ready?;
                receive(socket, endpoint, clock, &mut buffer, &mut actions)?;
            }
            () = timer => endpoint.on_time(clock().mono, &mut actions),
        }
        for (to, datagram) in actions.datagrams.drain(..) {
            // UDP may lose anything; what matters is repeated.
            let _ = socket.send_to(&datagram, to).await;
        }
        for event in actions.events.drain(..) {
            let _ = events.try_send(event);
        }
    }
}

fn receive<E: Endpoint>(
    socket: &UdpSocket,
    endpoint: &mut E,
    clock: &Clock,
    buffer: &mut [u8],
    actions: &mut Actions<E::Event>,
) -> std::io::Result<()> {
    for _ in 0..BATCH {
        match socket.try_recv_from(buffer) {
            Ok((length, source)) => {
                let datagram = Bytes::copy_from_slice(&buffer[..length]);
                endpoint.on_datagram(&datagram, source, clock().mono, actions);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            // An ICMP error of an earlier datagram.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
