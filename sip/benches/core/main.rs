//! What a whole call costs in the SIP core alone: a challenged INVITE, 180, 200, ACK and BYE on both legs, at a steady rate in
//! virtual time, so that the tables are as full as they would be. By hand, without sockets or other threads:
//! `cargo bench -p sip --bench core -- [CALLS PER SECOND] [SECONDS]`. Only the time within the core and its reader is counted.

#![expect(clippy::float_arithmetic, clippy::disallowed_methods, reason = "times that are measured; no money")]

mod world;

use sip::core::Input;
use sip::flow::{ConnectionId, Flow, Protocol};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use world::World;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn argument(place: usize, default: u64) -> u64 {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    words.get(place).map_or(default, |word| word.parse().expect("a whole number"))
}

fn main() {
    let (rate, seconds) = (argument(0, 4_000).max(1), argument(1, 45).max(1));
    let mut world = World::new(1_000_000);
    let pause = Duration::from_secs(1) / u32::try_from(rate).expect("a rate below four thousand million");
    println!(
        "{rate} calls/s of virtual time\n  second  us/call  messages/call  server transactions  client transactions"
    );
    for second in 1..=seconds {
        (world.spent, world.messages, world.ended) = (Duration::ZERO, 0, 0);
        for number in 0..rate {
            world.call(second * rate + number, pause);
        }
        assert_eq!(world.ended, 2 * rate, "both legs of each call end once");
        if second % 5 == 0 || second == seconds {
            let per_call = |count: f64| count / rate as f64;
            let counts = world.core.counts();
            println!(
                "{second:8}  {:7.1}  {:13.1}  {:19}  {:19}",
                per_call(world.spent.as_secs_f64() * 1e6),
                per_call(world.messages as f64),
                counts.server_transactions,
                counts.client_transactions,
            );
        }
    }
    closed(&mut world);
    refused();
}

/// What the end of a stranger's connection costs beside all that is in the tables.
fn closed(world: &mut World) {
    const CONNECTIONS: u32 = 1_000;
    let start = Instant::now();
    for id in 0..CONNECTIONS {
        let peer = SocketAddr::from(([192, 0, 2, 1], 5_060));
        let flow = Flow { protocol: Protocol::Tcp, peer, connection: Some(ConnectionId(id.into())) };
        world.core.handle(Input::FlowClosed(flow), world.now);
    }
    println!("end of a connection that carries nothing: {:.1} us", (start.elapsed() / CONNECTIONS).as_secs_f64() * 1e6);
}

/// What somebody costs who is told 503 because it is too much.
fn refused() {
    const CALLS: u64 = 100_000;
    let mut world = World::new(1);
    let refused = (0..CALLS).filter(|number| world.stranger(*number) == 503).count();
    assert!(refused as u64 > CALLS * 9 / 10, "{refused} refused");
    println!("refused with 503: {:.1} us/call", world.spent.as_secs_f64() * 1e6 / CALLS as f64);
}
