//! Requests that are large for UDP (RFC 3261 §18.1.1): over TCP where the trunk has that, over UDP when it is refused.

use super::registering::ASKS;
use super::*;
use crate::message::{HeaderName, Method};

#[test]
fn an_invite_over_1300_bytes_goes_over_tcp_where_the_trunk_has_that_and_over_udp_when_it_is_refused() {
    let mut desk = Desk::new();
    let with = |large_over_tcp| TrunkAddress { large_over_tcp, ..trunk() };
    let calls = std::cell::Cell::new(0_u8);
    // The offer's last line fills the INVITE up to a size.
    let invite = |desk: &mut Desk, size: usize| {
        calls.set(calls.get() + 1);
        let leg = LegId::b(some_call().call, calls.get());
        let sent = |desk: &mut Desk, payload: usize| {
            let offer = format!("{OFFER}a=fmtp:0 {}\r\n", "x".repeat(payload));
            desk.leg(LegCommand::Invite(Box::new(Invite { offer: Some(Pii::new(offer.into())), ..outgoing(leg) })));
            std::mem::take(&mut desk.sent).pop().expect("sent").1
        };
        let mut trial = Desk::new();
        let payload = size + 10 - sent(&mut trial, 10).len();
        // Content-Length may have another digit.
        let mut trial = Desk::new();
        let payload = payload + size - sent(&mut trial, payload).len();
        (leg, sent(desk, payload))
    };
    let over = |text: &str| text.split("Via: SIP/2.0/").nth(1).map(|rest| rest[..3].to_owned()).expect("a Via");
    desk.trunks(vec![with(false)]);
    desk.sent.clear();
    let (_, text) = invite(&mut desk, 1_500);
    assert_eq!((text.len(), over(&text).as_str()), (1_500, "UDP"));
    desk.trunks(vec![with(true)]);
    desk.sent.clear();
    let (_, text) = invite(&mut desk, 1_300);
    assert_eq!((text.len(), over(&text).as_str()), (1_300, "UDP"));
    let (leg, text) = invite(&mut desk, 1_301);
    assert_eq!((text.len(), over(&text).as_str()), (1_301, "TCP"));
    // It rings over TCP: its CANCEL goes the same way.
    let request = Message::parse_datagram(&Bytes::from(text)).expect("readable");
    desk.carrier(&request, 100, "x", "");
    desk.leg(LegCommand::HangUp { leg, cause: HangupCause::Cancelled });
    let cancel = desk.take_sent().pop().expect("sent");
    assert!(cancel.starts_with("CANCEL ") && over(&cancel) == "TCP");
    // Refused: the same INVITE over UDP, as another transaction, and nothing is told.
    desk.wait(Duration::from_secs(40));
    desk.take_legs();
    desk.sent.clear();
    let (leg, first) = invite(&mut desk, 1_400);
    refuse_tcp(&mut desk);
    let again = desk.take_sent().pop().expect("sent again");
    let branch =
        |text: &str| text.split("branch=").nth(1).and_then(|rest| rest.split("\r\n").next().map(str::to_owned));
    assert_eq!((over(&first).as_str(), over(&again).as_str()), ("TCP", "UDP"));
    assert_ne!(branch(&first), branch(&again));
    assert!(desk.take_legs().is_empty());
    let body = |text: &str| text.split("\r\n\r\n").nth(1).map(str::to_owned);
    assert_eq!(body(&first), body(&again));
    let request = Message::parse_datagram(&Bytes::from(again)).expect("readable");
    desk.carrier(&request, 200, "x", ANSWER);
    assert!(matches!(desk.take_legs()[..], [LegEvent::Answered { leg: answered, .. }] if answered == leg));
    desk.leg(LegCommand::Confirm { leg, answer: None });
    assert_eq!(over(&desk.take_sent()[0]), "UDP", "the dialog is spoken to as it asks");
}

#[test]
fn an_invite_that_grows_by_its_credentials_goes_over_tcp_and_over_udp_when_that_is_refused() {
    let mut desk = Desk::new();
    desk.trunks(vec![TrunkAddress { large_over_tcp: true, ..with_login(None, None) }]);
    let leg = some_call();
    let mut trial = Desk::new();
    trial.dial(leg);
    let room = 1_270 - trial.take_sent().pop().expect("an INVITE").len();
    let offer = format!("{OFFER}a=fmtp:0 {}\r\n", "x".repeat(room));
    desk.leg(LegCommand::Invite(Box::new(Invite { offer: Some(Pii::new(offer.into())), ..outgoing(leg) })));
    let over = |desk: &Desk| {
        desk.sent.last().map(|(_, text)| text[text.find("SIP/2.0/").expect("a Via") + 8..][..3].to_owned())
    };
    let first = desk.last_sent();
    assert_eq!(over(&desk).as_deref(), Some("UDP"));
    desk.challenge(&first, 407, &[ASKS]);
    let large = desk.last_sent();
    assert_eq!((over(&desk).as_deref(), large.cseq().0), (Some("TCP"), first.cseq().0 + 1));
    assert!(desk.sent.last().is_some_and(|(_, text)| text.len() > 1_300));
    refuse_tcp(&mut desk);
    let small = desk.last_sent();
    assert_eq!((over(&desk).as_deref(), small.cseq().0, small.body()), (Some("UDP"), large.cseq().0, large.body()));
    assert!(small.branch() != large.branch() && desk.take_legs().is_empty());
    assert!(is_right(&small, HeaderName::ProxyAuthorization, "carrier-secret"), "what was asked for is known");
    // Its nonce has aged: TCP is not tried again.
    desk.challenge(&small, 407, &[&ASKS.replace("n1", "n2").replace("SHA-256", "SHA-256, stale=true")]);
    let last = desk.last_sent();
    assert_eq!((over(&desk).as_deref(), last.cseq().0), (Some("UDP"), small.cseq().0 + 1));
    desk.carrier(&last, 200, "x", ANSWER);
    assert!(matches!(desk.take_legs()[..], [LegEvent::Answered { .. }]));
}

/// A call that is up over a trunk with TCP, whose own INVITE was small, and an offer that makes its re-INVITE large.
fn up_with_a_large_offer(trunk: TrunkAddress) -> (Desk, LegId, LegCommand) {
    let mut desk = Desk::new();
    desk.trunks(vec![TrunkAddress { large_over_tcp: true, ..trunk }]);
    let leg = some_call();
    let invite = desk.dial(leg);
    desk.carrier(&invite, 200, "x", ANSWER);
    desk.leg(LegCommand::Confirm { leg, answer: None });
    desk.take_legs();
    let offer = large_offer();
    (desk, leg, LegCommand::Offer { leg, offer: Pii::new(offer.into()) })
}

pub(super) fn large_offer() -> String {
    OFFER.to_owned() + &format!("a=fmtp:0 {}\r\n", "x".repeat(300)).repeat(4)
}

pub(super) fn sent_over(desk: &Desk) -> String {
    let (_, text) = desk.sent.last().expect("sent");
    text[text.find("SIP/2.0/").expect("a Via") + 8..][..3].to_owned()
}

pub(super) fn refuse_tcp(desk: &mut Desk) {
    desk.handle(Input::Unreachable(Destination::new(Protocol::Tcp, CARRIER.into()), Unreached::NoConnection));
}

#[test]
fn a_reinvite_over_1300_bytes_goes_over_tcp_and_its_dialog_stays_on_udp() {
    let (mut desk, leg, offer) = up_with_a_large_offer(trunk());
    desk.leg(offer.clone());
    let large = desk.last_sent();
    assert_eq!((large.method(), sent_over(&desk).as_str()), (&Method::Invite, "TCP"));
    assert!(desk.sent.last().is_some_and(|(_, text)| text.len() > 1_300));
    desk.carrier(&large, 200, "x", ANSWER);
    assert_eq!((desk.last_sent().method(), sent_over(&desk).as_str()), (&Method::Ack, "UDP"));
    assert!(matches!(
        desk.take_legs()[..],
        [LegEvent::OfferAnswered { answer: Ok(_), .. }, LegEvent::Checkpointed { .. }]
    ));
    // One that takes too long is cancelled where it went.
    desk.leg(offer.clone());
    let slow = desk.last_sent();
    desk.carrier(&slow, 100, "x", "");
    desk.wait(Duration::from_secs(21));
    assert_eq!((desk.last_sent().method(), sent_over(&desk).as_str()), (&Method::Cancel, "TCP"));
    desk.carrier(&slow, 487, "x", "");
    // What is small goes as ever, and so does all where the trunk has no TCP.
    desk.leg(LegCommand::Offer { leg, offer: Pii::new(OFFER.replace("4000", "4002").into()) });
    assert_eq!((desk.last_sent().method(), sent_over(&desk).as_str()), (&Method::Invite, "UDP"));
    let small = desk.last_sent();
    desk.carrier(&small, 200, "x", ANSWER);
    desk.trunks(vec![trunk()]);
    desk.leg(offer);
    assert_eq!((desk.last_sent().method(), sent_over(&desk).as_str()), (&Method::Invite, "UDP"));
}

#[test]
fn a_large_reinvite_goes_over_udp_when_tcp_is_refused() {
    let (mut desk, _, offer) = up_with_a_large_offer(trunk());
    desk.leg(offer.clone());
    let large = desk.last_sent();
    refuse_tcp(&mut desk);
    let again = desk.last_sent();
    assert_eq!((again.method(), sent_over(&desk).as_str()), (&Method::Invite, "UDP"));
    assert_eq!((again.cseq().0, again.body(), again.to_tag()), (large.cseq().0 + 1, large.body(), large.to_tag()));
    assert_eq!(again.branch().map(str::to_owned), large.branch().map(|branch| format!("{branch}u")));
    assert!(desk.take_legs().is_empty(), "nobody hears of it");
    desk.carrier(&again, 200, "x", ANSWER);
    assert!(matches!(
        desk.take_legs()[..],
        [LegEvent::OfferAnswered { answer: Ok(_), .. }, LegEvent::Checkpointed { .. }]
    ));
    // Nobody waits for one that was given up meanwhile.
    desk.core.refusals.forget_all();
    desk.leg(offer);
    desk.wait(Duration::from_secs(21));
    assert!(matches!(desk.take_legs()[..], [LegEvent::OfferAnswered { answer: Err(504), .. }]));
    desk.take_sent();
    refuse_tcp(&mut desk);
    assert!(!desk.kinds().contains(&"INVITE".to_owned()));
}

#[test]
fn a_reinvite_that_grows_by_its_credentials_goes_over_tcp_and_over_udp_when_that_is_refused() {
    let (mut desk, leg, _) = up_with_a_large_offer(with_login(None, None));
    let offer = |payload| LegCommand::Offer {
        leg,
        offer: Pii::new(format!("{OFFER}a=fmtp:0 {}\r\n", "x".repeat(payload)).into()),
    };
    let (mut trial, ..) = up_with_a_large_offer(with_login(None, None));
    trial.leg(offer(100));
    let room = 1_350 - trial.sent.last().expect("sent").1.len();
    desk.leg(offer(room));
    let bare = desk.last_sent();
    assert_eq!(sent_over(&desk), "UDP", "{}", desk.sent.last().expect("sent").1.len());
    desk.challenge(&bare, 407, &[ASKS]);
    let large = desk.last_sent();
    assert_eq!((sent_over(&desk).as_str(), large.cseq().0), ("TCP", bare.cseq().0 + 1));
    refuse_tcp(&mut desk);
    let small = desk.last_sent();
    assert_eq!((sent_over(&desk).as_str(), small.cseq().0, small.body()), ("UDP", large.cseq().0 + 1, large.body()));
    assert!(is_right(&small, HeaderName::ProxyAuthorization, "carrier-secret"));
    desk.challenge(&small, 407, &[&ASKS.replace("n1", "n2").replace("SHA-256", "SHA-256, stale=true")]);
    let last = desk.last_sent();
    assert_eq!((sent_over(&desk).as_str(), last.cseq().0), ("UDP", small.cseq().0 + 1), "TCP is not tried again");
    desk.carrier(&last, 200, "x", ANSWER);
    assert!(matches!(
        desk.take_legs()[..],
        [LegEvent::OfferAnswered { answer: Ok(_), .. }, LegEvent::Checkpointed { .. }]
    ));
    // The next one brings its credentials along, and is large from the beginning.
    desk.core.refusals.forget_all();
    desk.leg(offer(room + 1));
    assert_eq!((desk.last_sent().method(), sent_over(&desk).as_str()), (&Method::Invite, "TCP"));
    assert!(is_right(&desk.last_sent(), HeaderName::ProxyAuthorization, "carrier-secret"));
}

#[test]
fn a_phone_is_offered_over_its_own_flow_however_large_the_offer_is() {
    let mut desk = Desk::new();
    desk.trunks(vec![TrunkAddress { large_over_tcp: true, ..trunk() }]);
    let talk = desk.talk(udp(), "c");
    let offer = large_offer();
    desk.leg(LegCommand::Offer { leg: talk.leg, offer: Pii::new(offer.into()) });
    assert_eq!((desk.last_sent().method(), sent_over(&desk).as_str()), (&Method::Invite, "UDP"));
}

/// The carrier answers from behind ten proxies with long names.
fn from_far_away(desk: &mut Desk, invite: &Message, status: u16, more: &[(HeaderName, &str)], sdp: &str) {
    let contact = NameAddr::parse("<sip:c@127.0.0.1:5090>").expect("valid");
    let hops: Vec<_> = (0..10).map(|hop| format!("<sip:{}{hop}@127.0.0.1:5090;lr>", "p".repeat(100))).collect();
    let response = ResponseBuilder::to_request(invite, status, Some("x")).contact(&contact);
    let response = hops.iter().fold(response, |response, hop| response.header(HeaderName::RecordRoute, hop));
    let response = more.iter().fold(response, |response, (name, value)| response.header(*name, value));
    let response = if sdp.is_empty() { response } else { response.body("application/sdp", sdp.to_owned().into()) };
    let text = String::from_utf8(response.build().expect("complete").to_vec()).expect("text");
    desk.take(Flow::udp(CARRIER.into()), &text);
}

/// A request that has just left over TCP leaves once more over UDP when that is refused, as another transaction.
fn leaves_over_udp_when_tcp_is_refused(desk: &mut Desk, method: &Method) -> Message {
    let large = desk.last_sent();
    assert_eq!((large.method(), sent_over(desk).as_str()), (method, "TCP"));
    assert!(desk.sent.last().is_some_and(|(_, text)| text.len() > 1_300));
    desk.take_sent();
    refuse_tcp(desk);
    let small = desk.last_sent();
    assert_eq!((small.method(), sent_over(desk).as_str(), desk.sent.len()), (method, "UDP", 1));
    assert_eq!((small.body(), small.routes()), (large.body(), large.routes()));
    assert!(small.branch() != large.branch() && small.cseq().0 >= large.cseq().0);
    assert!(desk.take_legs().is_empty(), "nobody hears of it");
    small
}

fn press(desk: &mut Desk, leg: LegId, key: char) {
    desk.leg(LegCommand::PressKey { leg, key: schema::leg::Key { signal: Pii::new(key), duration_ms: None } });
}

/// A call that is up behind a long route, over a trunk with TCP.
fn up_far_away() -> (Desk, LegId) {
    let mut desk = Desk::with(CoreConfig { dialog_probe: Duration::ZERO, ..config() }, 3);
    desk.trunks(vec![TrunkAddress { large_over_tcp: true, ..trunk() }]);
    let leg = some_call();
    let invite = desk.dial(leg);
    from_far_away(&mut desk, &invite, 200, &[], ANSWER);
    desk.leg(LegCommand::Confirm { leg, answer: None });
    desk.take_legs();
    desk.take_sent();
    (desk, leg)
}

#[test]
fn keys_that_wait_for_tcp_arrive_in_order_when_it_is_refused() {
    let (mut desk, leg) = up_far_away();
    let keys = "123456789";
    keys.chars().for_each(|key| press(&mut desk, leg, key));
    assert!(desk.take_sent().iter().all(|text| text.contains("SIP/2.0/TCP")));
    refuse_tcp(&mut desk);
    let sent: Vec<_> =
        desk.take_sent().into_iter().map(|text| Message::parse_datagram(&text.into()).expect("ours")).collect();
    let pressed = |info: &Message| String::from_utf8_lossy(info.body()).chars().nth("Signal=".len());
    assert_eq!(sent.iter().filter_map(pressed).collect::<String>(), keys);
    assert!(sent.windows(2).all(|two| two[0].cseq().0 < two[1].cseq().0));
}

#[test]
fn whoever_refused_tcp_is_not_asked_again_for_five_minutes() {
    let (mut desk, leg) = up_far_away();
    press(&mut desk, leg, '1');
    refuse_tcp(&mut desk);
    desk.take_sent();
    press(&mut desk, leg, '2');
    assert_eq!((desk.last_sent().method(), sent_over(&desk).as_str()), (&Method::Info, "UDP"));
    desk.wait(Duration::from_secs(290));
    press(&mut desk, leg, '3');
    assert_eq!((desk.last_sent().method(), sent_over(&desk).as_str()), (&Method::Info, "UDP"));
    desk.wait(Duration::from_secs(50));
    press(&mut desk, leg, '4');
    assert_eq!((desk.last_sent().method(), sent_over(&desk).as_str()), (&Method::Info, "TCP"));
}

/// After a crash nobody remembers, and the INVITE that rings is looked for under its branch.
#[test]
fn a_large_invite_has_one_branch_over_udp_whether_the_refusal_is_remembered_or_not() {
    let branches = |is_remembered: bool| {
        let mut desk = Desk::new();
        desk.trunks(vec![TrunkAddress { large_over_tcp: true, ..with_login(None, None) }]);
        let dial = |desk: &mut Desk, attempt| {
            desk.dial_with(LegId::b(some_call().call, attempt), &large_offer());
            if sent_over(desk) == "TCP" {
                refuse_tcp(desk);
            }
            assert_eq!(sent_over(desk), "UDP");
            desk.last_sent()
        };
        if is_remembered {
            dial(&mut desk, 2);
        }
        let first = dial(&mut desk, 1);
        desk.challenge(&first, 407, &[ASKS]);
        if sent_over(&desk) == "TCP" {
            refuse_tcp(&mut desk);
        }
        [first, desk.last_sent()].map(|invite| invite.branch().expect("ours").to_owned())
    };
    assert_eq!(branches(true), branches(false));
}

#[test]
fn the_ack_of_a_reinvite_gets_through_where_tcp_is_refused() {
    let (mut desk, leg) = up_far_away();
    desk.leg(LegCommand::Offer { leg, offer: Pii::new(OFFER.replace("4000", "4002").into()) });
    let reinvite = desk.last_sent();
    assert_eq!(sent_over(&desk), "TCP");
    desk.carrier(&reinvite, 200, "x", ANSWER);
    assert_eq!((desk.last_sent().method(), sent_over(&desk).as_str()), (&Method::Ack, "TCP"));
    refuse_tcp(&mut desk);
    desk.take_sent();
    // Nobody has heard it: the 200 is repeated.
    desk.carrier(&reinvite, 200, "x", ANSWER);
    assert_eq!((desk.last_sent().method(), sent_over(&desk).as_str()), (&Method::Ack, "UDP"));
}

#[test]
fn a_large_bye_that_is_lost_over_tcp_twice_goes_over_udp_and_a_key_does_not() {
    let (mut desk, leg) = up_far_away();
    let tcp = Destination::new(Protocol::Tcp, CARRIER.into());
    let ends = |desk: &mut Desk| {
        let flow = Flow { protocol: Protocol::Tcp, peer: CARRIER.into(), connection: Some(ConnectionId(9)) };
        desk.handle(Input::Disconnected(flow, tcp));
        desk.take_sent()
    };
    press(&mut desk, leg, '1');
    desk.take_sent();
    assert_eq!((ends(&mut desk).len(), ends(&mut desk).len()), (1, 0));
    desk.leg(LegCommand::HangUp { leg, cause: HangupCause::OtherLeg });
    desk.take_sent();
    assert!(matches!(&ends(&mut desk)[..], [again] if again.starts_with("BYE ") && again.contains("SIP/2.0/TCP")));
    assert!(matches!(&ends(&mut desk)[..], [last] if last.starts_with("BYE ") && last.contains("SIP/2.0/UDP")));
}

#[test]
fn what_belongs_to_a_leg_that_is_gone_does_not_leave_again() {
    let (mut desk, leg) = up_far_away();
    press(&mut desk, leg, '1');
    desk.leg(LegCommand::HangUp { leg, cause: HangupCause::OtherLeg });
    desk.take_sent();
    refuse_tcp(&mut desk);
    assert_eq!(desk.kinds(), ["BYE"]);
}

#[test]
fn what_follows_a_long_route_goes_over_tcp_and_over_udp_when_that_is_refused() {
    let mut desk = Desk::with(CoreConfig { dialog_probe: Duration::ZERO, ..config() }, 3);
    desk.trunks(vec![TrunkAddress { large_over_tcp: true, ..trunk() }]);
    let leg = some_call();
    let over_udp = |desk: &mut Desk, method| {
        let small = leaves_over_udp_when_tcp_is_refused(desk, &method);
        desk.core.refusals.forget_all();
        small
    };
    let invite = desk.dial(leg);
    let allow = (HeaderName::Allow, "INVITE, ACK, BYE, CANCEL, PRACK, UPDATE");
    let reliable = [(HeaderName::Require, "100rel"), (HeaderName::RSeq, "1"), allow];
    from_far_away(&mut desk, &invite, 183, &reliable, ANSWER);
    desk.take_legs();
    let prack = over_udp(&mut desk, Method::Prack);
    desk.carrier(&prack, 200, "x", "");
    from_far_away(&mut desk, &invite, 200, &[(HeaderName::SessionExpires, "400;refresher=uac"), allow], ANSWER);
    desk.take_legs();
    desk.leg(LegCommand::Confirm { leg, answer: None });
    desk.take_legs();
    assert_eq!(over_udp(&mut desk, Method::Ack).cseq(), (invite.cseq().0, &Method::Ack));
    press(&mut desk, leg, '5');
    let info = over_udp(&mut desk, Method::Info);
    desk.carrier(&info, 200, "x", "");
    desk.wait(Duration::from_secs(200));
    let update = over_udp(&mut desk, Method::Update);
    desk.carrier(&update, 200, "x", "");
    desk.leg(LegCommand::HangUp { leg, cause: HangupCause::OtherLeg });
    assert!(matches!(desk.take_legs()[..], [LegEvent::Ended { .. }]));
    let bye = over_udp(&mut desk, Method::Bye);
    desk.carrier(&bye, 200, "x", "");
    desk.trunks(Vec::new());
    desk.assert_empty();
}

#[test]
fn a_bye_keeps_its_credentials_when_it_goes_over_tcp_and_when_that_is_refused() {
    let mut desk = Desk::new();
    desk.trunks(vec![TrunkAddress { large_over_tcp: true, ..with_login(None, None) }]);
    let leg = some_call();
    let invite = desk.dial(leg);
    from_far_away(&mut desk, &invite, 200, &[], ANSWER);
    desk.leg(LegCommand::Confirm { leg, answer: None });
    desk.leg(LegCommand::HangUp { leg, cause: HangupCause::OtherLeg });
    desk.take_legs();
    // Over TCP, and asked for there: the answer goes the same way.
    let bare = desk.last_sent();
    assert_eq!((bare.method(), sent_over(&desk).as_str()), (&Method::Bye, "TCP"));
    desk.challenge(&bare, 407, &[ASKS]);
    assert!(is_right(&desk.last_sent(), HeaderName::ProxyAuthorization, "carrier-secret"));
    let small = leaves_over_udp_when_tcp_is_refused(&mut desk, &Method::Bye);
    assert!(is_right(&small, HeaderName::ProxyAuthorization, "carrier-secret"));
    desk.challenge(&small, 407, &[&ASKS.replace("n1", "n2").replace("SHA-256", "SHA-256, stale=true")]);
    let last = desk.last_sent();
    assert_eq!((last.method(), sent_over(&desk).as_str()), (&Method::Bye, "UDP"), "TCP is not tried again");
    desk.carrier(&last, 200, "x", "");
    desk.trunks(Vec::new());
    desk.assert_empty();
}

#[test]
fn a_long_route_goes_over_udp_where_the_trunk_has_no_tcp() {
    let mut desk = Desk::new();
    desk.trunks(vec![trunk()]);
    let leg = some_call();
    let invite = desk.dial(leg);
    from_far_away(&mut desk, &invite, 200, &[], ANSWER);
    desk.leg(LegCommand::Confirm { leg, answer: None });
    assert_eq!((desk.last_sent().method(), sent_over(&desk).as_str()), (&Method::Ack, "UDP"));
    desk.leg(LegCommand::HangUp { leg, cause: HangupCause::OtherLeg });
    assert_eq!((desk.last_sent().method(), sent_over(&desk).as_str()), (&Method::Bye, "UDP"));
}
