//! RFC 3263 on hand-written zones.

use super::*;

const BOTH: Families = Families { v4: true, v6: true };
const V4: Families = Families { v4: true, v6: false };

fn host(text: &str) -> HostName {
    HostName::parse(text).expect("a name")
}

fn name(text: &str) -> GatewayName {
    match text.parse() {
        Ok(schema::target::TrunkGateway::Named(name)) => name,
        other => panic!("{text}: {other:?}"),
    }
}

fn naptr(order: u16, preference: u16, service: &str, replacement: &str) -> Naptr {
    Naptr { order, preference, flags: "s".into(), service: service.into(), replacement: host(replacement) }
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Srv {
    Srv { priority, weight, port, target: host(target) }
}

/// Answers of one zone; what it does not know does not exist.
#[derive(Default)]
struct Zone(Answers);

impl Zone {
    fn naptr(mut self, of: &str, records: Vec<Naptr>) -> Self {
        self.0.insert(Question::Naptr(host(of)), Answer::Found(Records::Naptr(records), 300));
        self
    }

    fn srv(mut self, of: &str, records: Vec<Srv>) -> Self {
        self.0.insert(Question::Srv(host(of)), Answer::Found(Records::Srv(records), 200));
        self
    }

    fn v4(mut self, of: &str, last: &[u8]) -> Self {
        let found = last.iter().map(|last| IpAddr::from([192, 0, 2, *last])).collect();
        self.0.insert(Question::V4(host(of)), Answer::Found(Records::Addresses(found), 100));
        self.0.entry(Question::V6(host(of))).or_insert(Answer::Nothing);
        self
    }

    fn v6(mut self, of: &str, last: u16) -> Self {
        let found = vec![IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last])];
        self.0.insert(Question::V6(host(of)), Answer::Found(Records::Addresses(found), 50));
        self
    }

    fn answer(mut self, question: Question, answer: Answer) -> Self {
        self.0.insert(question, answer);
        self
    }

    /// Asks as the shell does; the questions of each round.
    fn ask(&self, of: &str, families: Families) -> (Result<Located, TrunkDown>, Vec<Vec<Question>>) {
        let (mut answers, mut rounds) = (Answers::new(), Vec::new());
        loop {
            match locate(&name(of), families, &answers) {
                Step::Done(found) => return (found, rounds),
                Step::Ask(questions) => {
                    assert!(!questions.is_empty() && rounds.len() < 4, "it ends");
                    for question in &questions {
                        let answer = self.0.get(question).cloned().unwrap_or(Answer::NoSuchName);
                        assert!(answers.insert(question.clone(), answer).is_none(), "asked twice: {question:?}");
                    }
                    rounds.push(questions);
                }
            }
        }
    }

    /// The targets as text, by rank.
    fn targets(&self, of: &str, families: Families) -> Vec<String> {
        let found = self.ask(of, families).0.expect("found");
        found.targets.gateways().map(|g| schema::target::TrunkGateway::At(g).to_string()).collect()
    }

    fn fails(&self, of: &str) -> TrunkDown {
        self.ask(of, BOTH).0.expect_err("nothing to find")
    }
}

#[test]
fn naptr_chooses_the_transport_and_srv_the_order() {
    let zone = Zone::default()
        .naptr(
            "example.com",
            vec![
                naptr(20, 1, "SIP+D2U", "_sip._udp.example.com"),
                naptr(10, 2, "SIP+D2T", "_sip._tcp.example.net"),
                naptr(10, 1, "sips+d2t", "_sips._tcp.example.com"),
                naptr(1, 1, "E2U+sip", "elsewhere.example.com"),
                Naptr { flags: "u".into(), ..naptr(1, 1, "SIP+D2U", "elsewhere.example.com") },
            ],
        )
        .srv("_sips._tcp.example.com", vec![srv(2, 0, 5061, "b.example.com"), srv(1, 0, 5071, "a.example.com")])
        .srv("_sip._tcp.example.net", vec![srv(1, 0, 5060, "a.example.com")])
        .srv("_sip._udp.example.com", vec![srv(1, 0, 5060, "b.example.com")])
        .v4("a.example.com", &[1])
        .v4("b.example.com", &[2, 3])
        .v6("b.example.com", 9);
    assert_eq!(
        zone.targets("example.com", V4),
        [
            "tls:192.0.2.1:5071",
            "tls:192.0.2.2:5061",
            "tls:192.0.2.3:5061",
            "tcp:192.0.2.1:5060",
            "udp:192.0.2.2:5060",
            "udp:192.0.2.3:5060"
        ]
    );
    assert_eq!(zone.targets("example.com", BOTH)[1], "tls:[2001:db8::9]:5061", "IPv6 first where it can be reached");
    let (found, rounds) = zone.ask("example.com", BOTH);
    assert_eq!(found.map(|found| found.ttl_s), Ok(50), "the shortest of all");
    assert_eq!(rounds.len(), 3, "NAPTR, then all SRV at once, then all addresses");
}

#[test]
fn a_transport_or_a_port_leaves_less_to_ask() {
    let zone = Zone::default()
        .srv("_sips._tcp.example.com", vec![srv(1, 0, 5071, "a.example.com")])
        .v4("a.example.com", &[1])
        .v4("example.com", &[7]);
    assert_eq!(zone.targets("tls:example.com", V4), ["tls:192.0.2.1:5071"]);
    assert_eq!(zone.targets("tcp:example.com", V4), ["tcp:192.0.2.7:5060"], "no SRV: the host itself");
    assert_eq!(zone.targets("tls:example.com:5099", V4), ["tls:192.0.2.7:5099"]);
    assert_eq!(zone.targets("example.com:5080", V4), ["udp:192.0.2.7:5080"]);
    assert_eq!(zone.ask("example.com:5080", V4).1, [vec![Question::V4(host("example.com"))]]);
}

#[test]
fn without_naptr_every_transport_is_asked_and_without_srv_the_host() {
    let zone = Zone::default()
        .srv("_sip._udp.example.com", vec![srv(1, 0, 5070, "a.example.com")])
        .srv("_sip._tcp.example.com", vec![srv(9, 0, 5080, "a.example.com")])
        .v4("a.example.com", &[1]);
    assert_eq!(zone.targets("example.com", V4), ["tcp:192.0.2.1:5080", "udp:192.0.2.1:5070"]);
    assert_eq!(Zone::default().v4("example.com", &[7]).targets("example.com", BOTH), ["udp:192.0.2.7:5060"]);
}

#[test]
fn each_failure_has_its_name() {
    assert_eq!(Zone::default().fails("example.com"), TrunkDown::NoSuchName);
    let empty = Zone::default().answer(Question::V4(host("example.com")), Answer::Nothing);
    assert_eq!(
        empty.answer(Question::V6(host("example.com")), Answer::Nothing).fails("example.com"),
        TrunkDown::NoTarget
    );
    let withdrawn = Zone::default().srv("_sip._udp.example.com", Vec::new()).v4("example.com", &[7]);
    assert_eq!(withdrawn.fails("udp:example.com"), TrunkDown::NoTarget, "a service that says no is not gone around");
    let silent = Zone::default().answer(Question::Naptr(host("example.com")), Answer::Failed).v4("example.com", &[7]);
    assert_eq!(silent.fails("example.com"), TrunkDown::DnsSilent, "an answer that is missing is not taken for none");
    let half = Zone::default()
        .srv("_sip._udp.example.com", vec![srv(1, 0, 1, "a.example.com"), srv(2, 0, 2, "b.example.com")])
        .answer(Question::V4(host("a.example.com")), Answer::Failed)
        .v4("b.example.com", &[2]);
    assert_eq!(half.targets("udp:example.com", V4), ["udp:192.0.2.2:2"], "what is known is used");
}

#[test]
fn long_answers_are_cut() {
    let many = |count: u16| (0..count).map(|n| srv(n, 0, 5060 + n, "a.example.com")).collect();
    let zone = |count| Zone::default().srv("_sip._udp.example.com", many(count)).v4("a.example.com", &[1]);
    let addresses: Vec<u8> = (1..=9).collect();
    let count = |count| zone(count).targets("udp:example.com", V4).len();
    assert_eq!((count(16), count(17)), (16, 16));
    assert_eq!(Zone::default().v4("example.com", &addresses).targets("udp:example.com", V4).len(), ADDRESSES_MAX);
    let records: Vec<Naptr> = (0..10).map(|n| naptr(n, 0, "SIP+D2U", &format!("s{n}.example.com"))).collect();
    let asked = Zone::default().naptr("example.com", records).ask("example.com", V4).1;
    assert_eq!(asked[1].len(), NAPTR_MAX);
}
