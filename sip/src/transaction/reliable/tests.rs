//! Both machines, first at their limits, then against each other over a network that loses, repeats and delays.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const fn at(ms: u64) -> Mono {
    Mono(ms * 1_000)
}

fn text(rseq: u32) -> Bytes {
    Bytes::from(rseq.to_string())
}

fn push(server: &mut ReliableServer, has_sdp: bool, ms: u64) -> Option<Bytes> {
    let rseq = server.next_rseq();
    server.push(text(rseq), has_sdp, at(ms))
}

#[test]
fn a_response_is_repeated_at_doubling_intervals_until_its_prack_or_64_t1() {
    let mut server = ReliableServer::new(7);
    assert_eq!(push(&mut server, false, 0), Some(text(7)));
    let mut moments = Vec::new();
    while let Due::Repeat(bytes) = {
        let next = server.next_time().expect("it is outstanding");
        moments.push(next.0 / 1_000);
        server.on_time(next)
    } {
        assert_eq!(bytes, text(7));
    }
    assert_eq!(moments, [500, 1_500, 3_500, 7_500, 15_500, 31_500, 32_000]);
    assert_eq!(server.on_time(at(32_000)), Due::GiveUp);

    let mut server = ReliableServer::new(7);
    push(&mut server, false, 0);
    assert_eq!(server.acknowledge(8, at(1)), Acknowledged::Unknown);
    assert_eq!(server.acknowledge(7, at(1)), Acknowledged::Known(None));
    assert_eq!(server.acknowledge(7, at(2)), Acknowledged::Unknown, "once");
    assert_eq!((server.next_time(), server.is_settled()), (None, true));
}

#[test]
fn one_is_outstanding_at_a_time_and_one_has_the_answer() {
    let mut server = ReliableServer::new(1);
    assert!(push(&mut server, false, 0).is_some() && push(&mut server, true, 0).is_none());
    assert!(!server.takes_answer() && !server.is_answered() && server.may_accept());
    assert_eq!(server.acknowledge(2, at(1)), Acknowledged::Unknown, "it was not sent yet");
    assert_eq!(server.acknowledge(1, at(1)), Acknowledged::Known(Some(text(2))));
    assert!(server.is_answered() && !server.may_accept(), "the answer is not acknowledged");
    assert_eq!(server.next_time(), Some(at(501)));
    assert_eq!(server.acknowledge(2, at(2)), Acknowledged::Known(None));
    assert!(server.may_accept());
}

#[test]
fn after_the_final_response_nothing_is_sent_and_a_prack_is_still_known() {
    let mut server = ReliableServer::new(1);
    push(&mut server, false, 0);
    push(&mut server, true, 0);
    server.finish();
    assert_eq!((server.next_time(), server.on_time(at(40_000))), (None, Due::Nothing));
    assert!(!server.is_answered(), "what waited was never sent: the 200 has the answer");
    assert_eq!(server.acknowledge(1, at(1)), Acknowledged::Known(None));
    assert_eq!(push(&mut server, false, 2), None);
}

#[test]
fn what_waits_is_limited() {
    let mut server = ReliableServer::new(1);
    for _ in 0..WAITING_MAX + 5 {
        push(&mut server, false, 0);
    }
    let sent = (1..).take_while(|rseq| server.acknowledge(*rseq, at(1)) != Acknowledged::Unknown).count();
    assert_eq!(sent, WAITING_MAX + 1);
}

#[test]
fn a_client_takes_each_number_once_and_in_order() {
    let mut client = ReliableClient::default();
    let taken: Vec<bool> = [9, 9, 11, 10, 9, 10, 11, 0].into_iter().map(|rseq| client.take(rseq)).collect();
    assert_eq!(taken, [true, false, false, true, false, false, true, false]);
    let mut client = ReliableClient::default();
    assert!(client.take(u32::MAX) && !client.take(0), "it does not begin anew (§3)");
}

/// What happens to the call.
#[derive(Debug, Clone, Copy)]
enum Event {
    Progress { has_sdp: bool },
    Answer,
    Cancel,
    Wait(u16),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => any::<bool>().prop_map(|has_sdp| Event::Progress { has_sdp }),
        6 => (1_u16..4_000).prop_map(Event::Wait),
        1 => Just(Event::Answer),
        1 => Just(Event::Cancel),
    ]
}

enum Packet {
    Response(u32),
    Prack(u32),
}

/// A server, a client and what is on the way between them.
struct World {
    server: ReliableServer,
    client: ReliableClient,
    now: u64,
    on_the_way: BTreeMap<(u64, u64), Packet>,
    sent: u64,
    /// What the network does to each packet in turn; behind the last of them it is fair.
    weather: Vec<u8>,
    /// Whether each number has an answer, and when it was sent first.
    has_sdp: BTreeMap<u32, bool>,
    first_sent: BTreeMap<u32, u64>,
    acknowledged: Vec<u32>,
    taken: Vec<u32>,
    wants_answer: bool,
    accepted: bool,
    given_up: bool,
}

impl World {
    fn new(weather: Vec<u8>) -> Self {
        Self {
            server: ReliableServer::new(1),
            client: ReliableClient::default(),
            now: 0,
            on_the_way: BTreeMap::new(),
            sent: 0,
            weather,
            has_sdp: BTreeMap::new(),
            first_sent: BTreeMap::new(),
            acknowledged: Vec::new(),
            taken: Vec::new(),
            wants_answer: false,
            accepted: false,
            given_up: false,
        }
    }

    fn put(&mut self, packet: fn(u32) -> Packet, rseq: u32) {
        let number = usize::try_from(self.sent).expect("small");
        let late: &[u64] = match self.weather.get(number).map_or(1, |weather| weather % 6) {
            0 => &[],
            2 => &[10, 40],
            3 => &[1_700],
            4 => &[20, 6_000],
            _ => &[10],
        };
        self.sent += 1;
        for late in late {
            self.on_the_way.insert((self.now + late, self.sent * 8 + late % 7), packet(rseq));
        }
    }

    fn respond(&mut self, bytes: &Bytes) {
        let rseq: u32 = std::str::from_utf8(bytes).expect("text").parse().expect("a number");
        // Nothing leaves before the one before it is acknowledged.
        assert_eq!(usize::try_from(rseq).expect("small"), self.acknowledged.len() + 1);
        self.first_sent.entry(rseq).or_insert(self.now);
        self.put(Packet::Response, rseq);
    }

    fn is_over(&self) -> bool {
        self.accepted || self.given_up
    }

    fn try_accept(&mut self) {
        if self.wants_answer && !self.is_over() && self.server.may_accept() {
            let open = self.first_sent.keys().find(|rseq| self.has_sdp[rseq] && !self.acknowledged.contains(rseq));
            assert_eq!(open, None, "a 200 before the PRACK of a session description");
            self.server.finish();
            self.accepted = true;
        }
    }

    fn arrive(&mut self, packet: &Packet) {
        match *packet {
            Packet::Response(rseq) => {
                if self.client.take(rseq) {
                    self.taken.push(rseq);
                    self.put(Packet::Prack, rseq);
                } else if self.taken.contains(&rseq) && !self.acknowledged.contains(&rseq) {
                    // Its PRACK is under way, and repeated by its transaction.
                    self.put(Packet::Prack, rseq);
                }
            }
            Packet::Prack(rseq) => match self.server.acknowledge(rseq, at(self.now)) {
                Acknowledged::Known(next) => {
                    self.acknowledged.push(rseq);
                    if let Some(bytes) = next.filter(|_| !self.given_up) {
                        assert!(!self.accepted, "sent after the 200");
                        self.respond(&bytes);
                    }
                    self.try_accept();
                }
                Acknowledged::Unknown => assert!(self.acknowledged.contains(&rseq), "the PRACK of one that was sent"),
            },
        }
    }

    fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        loop {
            let network = self.on_the_way.keys().next().map(|(at, _)| *at);
            let timer = self.server.next_time().filter(|_| !self.is_over()).map(|at| at.0 / 1_000);
            let Some(next) = network.into_iter().chain(timer).min().filter(|at| *at <= end) else { break };
            self.now = next.max(self.now);
            if let Some(entry) = self.on_the_way.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let packet = entry.remove();
                self.arrive(&packet);
                continue;
            }
            match self.server.on_time(at(self.now)) {
                Due::Repeat(bytes) => self.respond(&bytes),
                Due::GiveUp => {
                    let last = self.first_sent.last_key_value().expect("one was sent");
                    assert_eq!(self.now - last.1, 32_000);
                    self.given_up = true;
                }
                Due::Nothing => {}
            }
        }
        self.now = end;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_network_does_all_arrive_in_order_or_the_call_is_given_up(
        events in prop::collection::vec(event(), 1..25),
        weather in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut world = World::new(weather);
        for event in events {
            match event {
                Event::Wait(ms) => world.run(u64::from(ms)),
                _ if world.is_over() => {}
                Event::Progress { has_sdp } => {
                    let has_sdp = has_sdp && world.server.takes_answer();
                    world.has_sdp.insert(world.server.next_rseq(), has_sdp);
                    if let Some(bytes) = push(&mut world.server, has_sdp, world.now) {
                        world.respond(&bytes);
                    }
                }
                Event::Answer => {
                    world.wants_answer = true;
                    world.try_accept();
                }
                Event::Cancel => {
                    world.server.finish();
                    world.given_up = true;
                }
            }
        }
        world.run(700_000);
        let in_order: Vec<u32> = (1..=u32::try_from(world.taken.len()).expect("small")).collect();
        prop_assert_eq!(&world.taken, &in_order, "in order, without a gap, each once");
        prop_assert_eq!(&world.acknowledged[..], &in_order[..world.acknowledged.len()]);
        if !world.is_over() {
            let pushed = world.server.next_rseq() - 1;
            prop_assert_eq!(world.taken.len(), usize::try_from(pushed).expect("small"), "all of them");
            prop_assert!(world.server.is_settled() && world.server.next_time().is_none());
        }
        prop_assert!(world.accepted || world.given_up || !world.wants_answer, "an answer is never stuck");
        prop_assert!(world.on_the_way.is_empty());
    }
}
