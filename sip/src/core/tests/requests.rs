//! Who is let in, what is refused, and which trunks are up.

use super::*;

#[test]
fn a_phone_registers_with_digest_and_its_binding_ends() {
    let mut world = World::new("secret", FAIR);
    world.command(PhoneCommand::Register);
    world.run(Duration::from_secs(1));
    assert_eq!(world.phone_events, [PhoneEvent::Registered { expires_s: 120 }]);
    assert_eq!(world.registered, 1);
    world.command(PhoneCommand::Unregister);
    world.run(Duration::from_secs(1));
    assert_eq!((world.registered, world.core.counts().registrations), (0, 0));
}

#[test]
fn a_wrong_password_and_an_unknown_user_are_refused_alike() {
    let refused = |username: &'static str, password: &str| {
        let mut world = World::of(Caller { username, ..DEMO }, password, FAIR);
        world.known = "demo";
        world.command(PhoneCommand::Register);
        world.call("+447700900000");
        world.run(Duration::from_secs(5));
        assert!(world.leg_events.is_empty());
        world.assert_empty();
        world.phone_events
    };
    let events = refused("demo", "wrong");
    let of_both = [PhoneEvent::RegistrationFailed { status: 401 }, PhoneEvent::Failed { call: CALL, status: 407 }];
    assert!(events.len() == 2 && of_both.iter().all(|event| events.contains(event)), "{events:?}");
    assert_eq!(refused("nobody", "secret"), events);
}

#[test]
fn requests_that_are_not_for_us_are_refused_in_their_class() {
    let mut world = World::new("secret", FAIR);
    let request = |method: &str, uri: &str, more: &str| {
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5100;branch=z9hG4bK{method}{}\r\nMax-Forwards: 70\r\nFrom: <sip:demo@localhost>;tag=a\r\nTo: <{uri}>\r\nCall-ID: {method}\r\nCSeq: 1 {method}\r\nContact: <sip:demo@127.0.0.1:5100>\r\n{more}Content-Length: 0\r\n\r\n",
            more.len() + uri.len()
        )
    };
    let cases = [
        (request("INVITE", "sip:1@localhost", ""), "407"),
        (request("INVITE", "sip:1@elsewhere.example", ""), "404"),
        (request("INVITE", "sip:1@localhost", "Require: 100rel\r\n"), "407"),
        (request("INVITE", "sip:1@localhost", "Require: 100rel, precondition\r\n"), "420"),
        (request("OPTIONS", "sip:localhost", "Require: 100rel\r\n"), "420"),
        (request("PRACK", "sip:1@localhost", ""), "481"),
        (request("INVITE", "http://localhost", ""), "416"),
        (request("REGISTER", "sip:localhost", ""), "401"),
        (request("REGISTER", "sip:elsewhere.example", ""), "404"),
        (request("OPTIONS", "sip:localhost", ""), "200"),
        (request("MESSAGE", "sip:1@localhost", ""), "405"),
        (request("REFER", "sip:1@localhost", ""), "405"),
        (request("NONSENSE", "sip:1@localhost", ""), "501"),
        (request("BYE", "sip:1@localhost", ""), "481"),
        (request("CANCEL", "sip:1@localhost", ""), "481"),
        (
            request("INVITE", "sip:3@localhost", "")
                .replace("Max-Forwards: 70", "Max-Forwards: 0")
                .replace("z9hG4bK", "z9hG4bKx"),
            "483",
        ),
        (
            request("OPTIONS", "sip:localhost", "")
                .replace("Max-Forwards: 70", "Max-Forwards: 0")
                .replace("z9hG4bK", "z9hG4bKx"),
            "200",
        ),
        (request("INVITE", "sip:2@localhost", "").replace("z9hG4bK", ""), "407"),
    ];
    for (text, status) in cases {
        let message =
            Message::parse_datagram(&Bytes::from(text.clone())).expect("well-formed").with_source(PHONE.into());
        world.core.handle(Input::Message(Flow::udp(PHONE.into()), message), world.now);
        let mut answers = Vec::new();
        while let Some(output) = world.core.poll_output() {
            if let Output::Send(_, bytes) = output {
                answers.push(String::from_utf8(bytes.to_vec()).expect("text"));
            }
        }
        assert_eq!(answers.len(), 1, "{text}");
        assert!(answers[0].starts_with(&format!("SIP/2.0 {status} ")), "{text} was answered {}", answers[0]);
    }
    world.assert_empty();
}

#[test]
fn a_trunk_that_does_not_answer_is_down_and_up_again_when_it_does() {
    let mut world = World::new("secret", |_| &[]);
    let trunk = TrunkId::generate(&mut Entropy::from_number(6), Timestamp(0));
    let gateway = Gateway { transport: GatewayTransport::Udp, address: CARRIER.into() }.into();
    let address = TrunkAddress { trunk, gateway, large_over_tcp: false, login: None };
    world.core.handle(Input::Edge(EdgeCommand::Trunks(vec![address])), world.now);
    let mut told = Vec::new();
    let watch = |world: &mut World, seconds: u64, told: &mut Vec<bool>| {
        for _ in 0..seconds {
            world.now = world.now.after(Duration::from_secs(1));
            world.core.handle(Input::Timeout, world.now);
            while let Some(output) = world.core.poll_output() {
                match output {
                    Output::Edge(EdgeEvent::TrunkProbed { state, .. }) => told.push(state.down.is_none()),
                    Output::SendTo(_, bytes) => world.send(SERVER.into(), CARRIER.into(), bytes),
                    _ => {}
                }
            }
            world.step();
        }
    };
    watch(&mut world, 130, &mut told);
    assert_eq!(told, [false]);
    world.weather = FAIR;
    watch(&mut world, 40, &mut told);
    assert_eq!(told, [false, true]);
}
