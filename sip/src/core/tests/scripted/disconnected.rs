//! Connections to carriers that end, or do not come up any more, with something on its way.

use super::*;
use schema::edge::Located;
use schema::leg::Key;
use schema::target::{Server, Targets, TrunkGateway};

const NAME: &str = "tcp:sip.example.com";

/// The carrier's address over TCP.
fn tcp() -> Gateway {
    Gateway { transport: GatewayTransport::Tcp, ..gateway() }
}

/// Our connection to the carrier, which is up.
const OURS: ConnectionId = ConnectionId(7);

fn ends(desk: &mut Desk, to: Destination) {
    let flow = Flow { protocol: to.protocol, peer: to.address, connection: Some(OURS) };
    desk.handle(Input::Disconnected(flow, to));
}

fn refuses(desk: &mut Desk) {
    desk.handle(Input::Unreachable(tcp().into(), Unreached::NoConnection));
}

fn dial(desk: &mut Desk, attempt: u8) -> (LegId, Message) {
    let leg = LegId::b(some_call().call, attempt);
    desk.leg(LegCommand::Invite(Box::new(Invite { gateway: tcp(), ..outgoing(leg) })));
    (leg, desk.last_sent())
}

/// The carrier answers over this connection.
fn answers(desk: &mut Desk, connection: ConnectionId, request: &Message, status: u16) {
    let contact = NameAddr::parse("<sip:c@127.0.0.1:5090;transport=tcp>").expect("valid");
    let mut response = ResponseBuilder::to_request(request, status, Some("x")).contact(&contact);
    if status == 200 && *request.method() == Method::Invite {
        response = response.body("application/sdp", Bytes::from(ANSWER));
    }
    let flow = Flow { protocol: Protocol::Tcp, peer: CARRIER.into(), connection: Some(connection) };
    desk.take(flow, std::str::from_utf8(&response.build().expect("complete")).expect("text"));
}

/// A call that is up over TCP.
fn up() -> (Desk, LegId) {
    let mut desk = Desk::with(CoreConfig { dialog_probe: Duration::ZERO, ..config() }, 3);
    let (leg, invite) = dial(&mut desk, 1);
    answers(&mut desk, OURS, &invite, 200);
    desk.leg(LegCommand::Confirm { leg, answer: None });
    desk.take_legs();
    desk.take_sent();
    (desk, leg)
}

fn press_key(desk: &mut Desk, leg: LegId) {
    desk.leg(LegCommand::PressKey { leg, key: Key { signal: Pii::new('5'), duration_ms: None } });
}

#[test]
fn what_is_on_its_way_over_a_connection_that_ends_leaves_once_more_in_order_and_the_same() {
    let (mut desk, leg) = up();
    press_key(&mut desk, leg);
    let first = desk.last_sent();
    for _ in 0..8 {
        press_key(&mut desk, leg);
    }
    desk.leg(LegCommand::HangUp { leg, cause: HangupCause::OtherLeg });
    answers(&mut desk, OURS, &first, 200);
    let left = std::mem::take(&mut desk.sent);
    assert_eq!(left.len(), 10);
    // One to another name at the same address, or that the peer opened, is not it.
    for other in [Destination { name: Some(crate::flow::PeerName(0)), ..tcp().into() }, gateway().into()] {
        ends(&mut desk, other);
    }
    desk.handle(Input::FlowClosed(Flow { protocol: Protocol::Tcp, peer: CARRIER.into(), connection: Some(OURS) }));
    assert!(desk.sent.is_empty());
    ends(&mut desk, tcp().into());
    assert_eq!(std::mem::take(&mut desk.sent), left[1..], "all but the one that was answered");
    let bye = Message::parse_datagram(&Bytes::from(left[9].1.clone())).expect("readable");
    assert_eq!(*bye.method(), Method::Bye);
    answers(&mut desk, ConnectionId(8), &bye, 200);
    ends(&mut desk, tcp().into());
    assert!(desk.sent.is_empty(), "once");
    assert_eq!(desk.core.counts().client_transactions, 1, "its INVITE; all others are over");
    desk.assert_empty();
}

#[test]
fn an_invite_whose_connection_ends_before_any_response_goes_to_the_next_target_at_once() {
    let mut desk = Desk::new();
    let Ok(TrunkGateway::Named(name)) = NAME.parse() else { panic!("no name") };
    desk.trunks(vec![TrunkAddress { gateway: TrunkGateway::Named(name.clone()), ..trunk() }]);
    let other = Gateway { address: SocketAddr::from(([192, 0, 2, 2], 5060)), ..tcp() };
    let server = |rank, gateway| Server { rank, weight: 0, gateways: vec![gateway] };
    let targets = Targets::new(vec![server(0, tcp()), server(1, other)]);
    desk.handle(Input::Edge(EdgeCommand::Located { name, found: Ok(Located { targets, ttl_s: 3_000 }) }));
    let (leg, invite) = dial(&mut desk, 1);
    desk.states.clear();
    ends(&mut desk, tcp().into());
    let told = desk.take_legs();
    assert!(matches!(told[..], [LegEvent::Failed { leg: failed, status: 503, rang: false, .. }] if failed == leg));
    let usable = desk.states.last().and_then(|state| state.targets.clone()).expect("told");
    assert_eq!(usable.gateways().collect::<Vec<_>>(), [other], "the other one is called");
    // It had arrived: nobody is left with a call that nobody pays for.
    desk.take_sent();
    answers(&mut desk, ConnectionId(8), &invite, 200);
    assert_eq!(desk.kinds(), ["ACK", "BYE"]);
    // A re-INVITE has failed in the same way, and the session stands.
    let (mut desk, leg) = up();
    desk.leg(LegCommand::Offer { leg, offer: Pii::new(OFFER.replace("4000", "4002").into()) });
    ends(&mut desk, tcp().into());
    assert!(matches!(desk.take_legs()[..], [LegEvent::OfferAnswered { answer: Err(503), .. }]));
    desk.leg(LegCommand::HangUp { leg, cause: HangupCause::OtherLeg });
    desk.assert_empty();
}

#[test]
fn an_invite_that_has_arrived_is_left_alone_when_its_connection_ends_or_the_next_does_not_come_up() {
    for fails in [|desk: &mut Desk| ends(desk, tcp().into()), refuses] {
        // It is answered over a connection of the carrier's own.
        let mut desk = Desk::with(CoreConfig { dialog_probe: Duration::ZERO, ..config() }, 3);
        let (leg, invite) = dial(&mut desk, 1);
        answers(&mut desk, OURS, &invite, 180);
        assert!(matches!(desk.take_legs()[..], [LegEvent::Progress { .. }]));
        desk.take_sent();
        fails(&mut desk);
        assert!(desk.take_legs().is_empty() && desk.take_sent().is_empty());
        answers(&mut desk, ConnectionId(8), &invite, 200);
        assert!(matches!(desk.take_legs()[..], [LegEvent::Answered { .. }]));
        desk.leg(LegCommand::Confirm { leg, answer: None });
        desk.leg(LegCommand::HangUp { leg, cause: HangupCause::OtherLeg });
        assert_eq!(desk.kinds(), ["ACK", "BYE"]);
        // It is withdrawn, by a CANCEL over a new connection.
        let (leg, invite) = dial(&mut desk, 2);
        answers(&mut desk, OURS, &invite, 100);
        fails(&mut desk);
        desk.take_sent();
        desk.take_legs();
        desk.leg(LegCommand::HangUp { leg, cause: HangupCause::Cancelled });
        assert_eq!(desk.kinds(), ["CANCEL"]);
        answers(&mut desk, ConnectionId(8), &invite, 487);
        assert!(matches!(desk.take_legs()[..], [LegEvent::Failed { status: 487, .. }]));
        // The CANCEL finds nobody either: the call's own limit ends it.
        let (leg, invite) = dial(&mut desk, 3);
        answers(&mut desk, OURS, &invite, 180);
        fails(&mut desk);
        desk.leg(LegCommand::HangUp { leg, cause: HangupCause::Cancelled });
        refuses(&mut desk);
        desk.take_legs();
        desk.wait(Duration::from_secs(32));
        assert!(matches!(desk.take_legs()[..], [LegEvent::Failed { status: 487, .. }]));
        desk.assert_empty();
    }
}

#[test]
fn a_call_that_is_withdrawn_before_any_response_is_cancelled_should_one_come_after_its_connection_has_ended() {
    for comes in [true, false] {
        let mut desk = Desk::with(CoreConfig { dialog_probe: Duration::ZERO, ..config() }, 3);
        let (leg, invite) = dial(&mut desk, 1);
        desk.leg(LegCommand::HangUp { leg, cause: HangupCause::Cancelled });
        desk.take_sent();
        ends(&mut desk, tcp().into());
        assert!(desk.take_sent().is_empty() && desk.take_legs().is_empty());
        if comes {
            answers(&mut desk, ConnectionId(8), &invite, 180);
            assert_eq!(desk.kinds(), ["CANCEL"]);
            answers(&mut desk, ConnectionId(8), &invite, 487);
        } else {
            desk.wait(Duration::from_secs(32));
        }
        let told = desk.take_legs();
        let status = if comes { 487 } else { 408 };
        assert!(matches!(told[..], [LegEvent::Failed { status: told, .. }] if told == status), "{told:?}");
        desk.assert_empty();
    }
}

#[test]
fn a_probe_whose_connection_ends_is_sent_once_more_and_counts_once() {
    let mut desk = Desk::new();
    desk.trunks(vec![TrunkAddress { gateway: TrunkGateway::At(tcp()), ..trunk() }]);
    for round in 0..3 {
        desk.handle(Input::Timeout);
        assert_eq!(desk.kinds(), ["OPTIONS"], "{round}");
        assert!(!desk.probed.contains(&Some(TrunkDown::Silent)), "{round}");
        ends(&mut desk, tcp().into());
        assert_eq!(desk.kinds(), ["OPTIONS"], "once more");
        ends(&mut desk, tcp().into());
        assert!(desk.take_sent().is_empty());
        desk.now = desk.now.after(Duration::from_secs(30));
    }
    assert_eq!(desk.probed.last(), Some(&Some(TrunkDown::Silent)));
}

#[test]
fn a_trunk_over_tcp_is_down_when_it_refuses_connections_and_up_when_it_takes_one() {
    let mut desk = Desk::new();
    desk.trunks(vec![TrunkAddress { gateway: TrunkGateway::At(tcp()), ..trunk() }]);
    let probe = |desk: &mut Desk| {
        desk.handle(Input::Timeout);
        let options = desk.last_sent();
        assert_eq!(desk.kinds(), ["OPTIONS"]);
        options
    };
    let options = probe(&mut desk);
    answers(&mut desk, OURS, &options, 200);
    assert_eq!(desk.probed.last(), Some(&None));
    for refused in 1..=3 {
        desk.now = desk.now.after(Duration::from_secs(30));
        probe(&mut desk);
        refuses(&mut desk);
        assert!(desk.take_sent().is_empty());
        assert_eq!(desk.probed.contains(&Some(TrunkDown::Silent)), refused == 3, "{refused}");
    }
    desk.now = desk.now.after(Duration::from_secs(30));
    let options = probe(&mut desk);
    answers(&mut desk, ConnectionId(8), &options, 200);
    assert_eq!(desk.probed.last(), Some(&None));
}
