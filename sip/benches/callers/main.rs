//! Many callers at a running server, over UDP from one socket and one thread: what SIPp does for `tests/bench/overload`, for a
//! third of its processor time, so that ten times as many calls as the server carries can be offered from one core. By hand.

#![expect(clippy::float_arithmetic, clippy::disallowed_methods, reason = "times that are measured; no money")]

mod call;
#[path = "../registrar/figures.rs"]
mod figures;

use bytes::Bytes;
use call::{Asked, Call, Event, World};
use clap::Parser;
use figures::{at, bar};
use sip::message::Message;
use socket2::{Domain, Protocol, Socket, Type};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Room for datagrams that arrive while others are written.
const RECEIVE_BYTES: usize = 32 << 20;
/// Calls that begin, and what is read or sent again, in one turn.
const BEGIN_MAX: u32 = 8;
const READ_MAX: u32 = 64;
/// So long after the last call began, what has no end has failed.
const PATIENCE: Duration = Duration::from_secs(45);
/// Behind by more, the callers are the limit: what is overdue is not caught up in one burst.
const BURST: Duration = Duration::from_millis(200);

/// Callers with the accounts `u0`, `u1` … and the passwords `pw0`, `pw1` …, each of whose calls ends when it is answered.
#[derive(Parser)]
struct Arguments {
    /// Where the server takes SIP over UDP.
    #[arg(long)]
    server: SocketAddr,
    /// Accounts that it has.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    users: u32,
    /// Calls a second.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// For so long calls begin.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What was seen.
#[derive(Default)]
struct Seen {
    answered: u32,
    /// While calls began.
    in_time: u32,
    ended: u32,
    failed: u32,
    set_up: Vec<Duration>,
    refused: Vec<Duration>,
}

struct Callers {
    socket: UdpSocket,
    world: World,
    calls: Vec<Call>,
    /// When which call looks whether what it asked is answered.
    due: BinaryHeap<Reverse<(Instant, usize, Asked)>>,
    until: Instant,
    seen: Seen,
}

impl Callers {
    fn over(&self) -> u64 {
        u64::from(self.seen.ended + self.seen.failed) + self.seen.refused.len() as u64
    }

    fn say(&self, text: &str) {
        // What the kernel has no room for is as lost as on a network.
        let _ = self.socket.send_to(text.as_bytes(), self.world.server);
    }

    fn send(&mut self, number: usize, now: Instant) {
        let call = &mut self.calls[number];
        if let Some((request, wait)) = call.send(&self.world) {
            self.due.push(Reverse((now + wait, number, call.asked())));
            self.say(&request);
        }
    }

    fn begin(&mut self, now: Instant) {
        let number = self.calls.len();
        self.calls.push(Call::new(u32::try_from(number).expect("bounded by the arguments"), now));
        self.send(number, now);
    }

    /// Asks again what is due, or gives it up. Whether anything was.
    fn repeat(&mut self, now: Instant) -> bool {
        let Some(Reverse((_, number, asked))) = self.due.peek().filter(|due| due.0.0 <= now).copied() else {
            return false;
        };
        self.due.pop();
        if self.calls[number].gives_up(asked) {
            self.seen.failed += 1;
        } else if self.calls[number].asked() == asked {
            self.send(number, now);
        }
        true
    }

    fn take(&mut self, datagram: &[u8], now: Instant) {
        let Ok(answer) = Message::parse_datagram(&Bytes::copy_from_slice(datagram)) else { return };
        let Some(number) = Call::number_of(&self.world, &answer).filter(|number| *number < self.calls.len()) else {
            return;
        };
        let before = self.calls[number].asked();
        let (ack, event) = self.calls[number].take(&self.world, &answer, now);
        if let Some(ack) = ack {
            self.say(&ack);
        }
        match event {
            Some(Event::Answered(took)) => {
                self.seen.answered += 1;
                self.seen.in_time += u32::from(now <= self.until);
                self.seen.set_up.push(took);
            }
            Some(Event::Refused(took)) => self.seen.refused.push(took),
            Some(Event::Ended) => self.seen.ended += 1,
            Some(Event::Failed) => self.seen.failed += 1,
            None => {}
        }
        if self.calls[number].asked() != before {
            self.send(number, now);
        }
    }

    /// Whether there was anything.
    fn read(&mut self) -> bool {
        let mut datagram = [0; 4_096];
        let mut count = 0;
        while count < READ_MAX
            && let Ok(length) = self.socket.recv(&mut datagram)
        {
            self.take(&datagram[..length], Instant::now());
            count += 1;
        }
        count > 0
    }

    /// Offers calls until the time is over, and carries on until each has its end.
    fn run(&mut self, rate: u32, seconds: u32) {
        let bar = bar("calls", u64::from(rate) * u64::from(seconds));
        let (apart, mut next) = (Duration::from_secs(1) / rate, Instant::now());
        loop {
            let now = Instant::now();
            next = next.max(now - BURST);
            let mut busy = self.read() | (0..READ_MAX).take_while(|_| self.repeat(now)).count().gt(&0);
            for _ in 0..BEGIN_MAX {
                if next > now || now >= self.until {
                    break;
                }
                self.begin(now);
                (next, busy) = (next + apart, true);
            }
            let open = self.calls.len() as u64 - self.over();
            if now >= self.until && (open == 0 || now >= self.until + PATIENCE) {
                self.seen.failed += u32::try_from(open).unwrap_or(u32::MAX);
                break;
            }
            if !busy {
                bar.set_position(self.over());
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        bar.finish_and_clear();
    }
}

/// p50, p95 and p99 in milliseconds.
fn percentiles(times: &mut [Duration]) -> [f64; 3] {
    times.sort_unstable();
    [500, 950, 990].map(|permille| at(times, permille).as_secs_f64() * 1e3)
}

fn main() {
    let arguments = Arguments::parse();
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
    let _ = socket.set_recv_buffer_size(RECEIVE_BYTES);
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    let socket = UdpSocket::from(socket);
    socket.set_nonblocking(true).expect("a socket that does not wait");
    let own = socket.local_addr().expect("an address");
    let run = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let world = World { server: arguments.server, own, users: arguments.users, run };
    let until = Instant::now() + Duration::from_secs(arguments.seconds.into());
    let mut callers =
        Callers { socket, world, calls: Vec::new(), due: BinaryHeap::new(), until, seen: Seen::default() };
    callers.run(arguments.rate, arguments.seconds);
    let rate = callers.calls.len() as f64 / f64::from(arguments.seconds);
    let Seen { answered, in_time, failed, mut set_up, mut refused, .. } = callers.seen;
    let report = serde_json::json!({
        "created": callers.calls.len(), "rate": rate.round(), "answered": answered, "in_time": in_time, "failed": failed,
        "refused": refused.len(), "set_up_ms": percentiles(&mut set_up), "refused_ms": percentiles(&mut refused),
    });
    println!("{report}");
}
