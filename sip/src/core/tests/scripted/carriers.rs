//! Carriers that ask who we are.

use super::*;
use schema::leg::TakeBack;

const MD5: &str = "Digest realm=\"carrier.example\", nonce=\"n1\", qop=\"auth\", algorithm=MD5";
const SHA: &str =
    "Digest realm=\"carrier.example\", nonce=\"n1\", qop=\"auth,auth-int\", algorithm=SHA-256, opaque=\"o\"";
const PROXY: HeaderName = HeaderName::ProxyAuthorization;

/// A carrier's trunk whose login is for this realm, and a call over it.
fn dialled(realm: Option<&str>) -> (Desk, LegId, Message) {
    let mut desk = Desk::new();
    desk.trunks(vec![with_login(realm, None)]);
    desk.handle(Input::Timeout);
    let leg = some_call();
    let invite = desk.dial(leg);
    (desk, leg, invite)
}

/// Up, after a challenge.
fn talking() -> (Desk, LegId, Message) {
    let (mut desk, leg, invite) = dialled(None);
    desk.challenge(&invite, 407, &[SHA]);
    let again = desk.last_sent();
    desk.carrier(&again, 200, "x", ANSWER);
    desk.take_sent();
    desk.leg(LegCommand::Confirm { leg, answer: None });
    (desk, leg, again)
}

fn failed(desk: &mut Desk) -> Option<u16> {
    match desk.take_legs().pop() {
        Some(LegEvent::Failed { status, .. }) => Some(status),
        _ => None,
    }
}

#[test]
fn an_invite_that_is_challenged_leaves_again_in_the_same_dialog() {
    let (mut desk, leg, invite) = dialled(None);
    assert!(invite.text(PROXY).is_none() && invite.text(HeaderName::Authorization).is_none());
    desk.take_sent();
    desk.challenge(&invite, 407, &[MD5, SHA]);
    let sent = desk.take_sent();
    assert_eq!(sent.len(), 2, "the ACK, then the INVITE");
    let ack = Message::parse_datagram(&Bytes::from(sent[0].clone())).expect("readable");
    assert_eq!((ack.method(), ack.branch(), ack.cseq().0), (&Method::Ack, invite.branch(), 1));
    let again = Message::parse_datagram(&Bytes::from(sent[1].clone())).expect("readable");
    assert_eq!((again.call_id(), again.from_tag(), again.to_tag()), (invite.call_id(), invite.from_tag(), None));
    assert_eq!((again.cseq().0, again.body()), (2, invite.body()));
    assert_ne!(again.branch(), invite.branch());
    let answer = answer_in(&again, PROXY);
    assert_eq!((answer["algorithm"].as_str(), answer["nc"].as_str()), ("SHA-256", "00000001"), "the strongest");
    assert_eq!((answer["opaque"].as_str(), answer["qop"].as_str()), ("o", "auth"));
    assert!(is_right(&again, PROXY, "carrier-secret") && !is_right(&again, PROXY, "another"));
    assert!(desk.take_legs().is_empty(), "nobody else is concerned");
    // A repeated challenge is acknowledged and no more.
    desk.challenge(&invite, 407, &[MD5, SHA]);
    assert_eq!(desk.kinds(), ["ACK"]);
    desk.carrier(&again, 180, "x", "");
    desk.carrier(&again, 200, "x", ANSWER);
    desk.leg(LegCommand::Confirm { leg, answer: None });
    let ack = desk.last_sent();
    assert_eq!((ack.cseq().0, ack.text(PROXY)), (2, again.text(PROXY)), "the ACK repeats the INVITE's (RFC 3261 22.1)");
    desk.leg(LegCommand::HangUp { leg, cause: HangupCause::OtherLeg });
    desk.wait(Duration::from_secs(1));
    assert!(desk.last_sent().cseq().0 == 3 && *desk.last_sent().method() == Method::Bye);
    desk.trunks(Vec::new());
    desk.assert_empty();
}

#[test]
fn every_request_in_the_dialog_answers_for_us() {
    let (mut desk, leg, invite) = talking();
    // Without being asked again: the nonce is known, its count rises.
    let ours = |desk: &mut Desk| {
        let request = desk.last_sent();
        assert!(is_right(&request, PROXY, "carrier-secret"), "{:?}", request.method());
        let nc = answer_in(&request, PROXY)["nc"].clone();
        (request, nc)
    };
    desk.leg(LegCommand::Offer { leg, offer: Pii::new(OFFER.replace("4000", "4002").into()) });
    let (offer, nc) = ours(&mut desk);
    assert_eq!((offer.method(), nc.as_str(), offer.cseq().0), (&Method::Invite, "00000002", invite.cseq().0 + 1));
    // The nonce has aged.
    desk.challenge(&offer, 407, &[&SHA.replace("n1", "n2").replace("SHA-256", "SHA-256, stale=true")]);
    let (again, nc) = ours(&mut desk);
    assert_eq!((again.body(), nc.as_str(), again.cseq().0), (offer.body(), "00000001", invite.cseq().0 + 2));
    desk.carrier(&again, 200, "x", ANSWER);
    assert!(matches!(desk.take_legs()[..], [.., LegEvent::OfferAnswered { answer: Ok(_), .. }, _]));
    desk.leg(LegCommand::PressKey { leg, key: schema::leg::Key { signal: Pii::new('5'), duration_ms: None } });
    let (info, nc) = ours(&mut desk);
    assert_eq!((info.method(), nc.as_str()), (&Method::Info, "00000002"));
    desk.carrier(&info, 200, "x", "");
    desk.leg(LegCommand::HangUp { leg, cause: HangupCause::OtherLeg });
    let (bye, nc) = ours(&mut desk);
    assert_eq!((bye.method(), nc.as_str()), (&Method::Bye, "00000003"));
    // A nonce of its own for each: the leg is gone, its BYE is answered for nevertheless.
    desk.challenge(&bye, 401, &[&MD5.replace("n1", "n3")]);
    let again = desk.last_sent();
    assert_eq!((again.method(), again.cseq().0), (&Method::Bye, bye.cseq().0 + 1));
    assert!(is_right(&again, HeaderName::Authorization, "carrier-secret"));
    desk.carrier(&again, 200, "x", "");
    desk.trunks(Vec::new());
    desk.assert_empty();
}

#[test]
fn a_session_key_is_made_of_the_first_cnonce_and_serves_the_whole_dialog() {
    for algorithm in ["MD5-sess", "SHA-256-sess", "SHA-512-256-sess"] {
        let (mut desk, leg, invite) = dialled(None);
        desk.challenge(&invite, 407, &[&SHA.replace("SHA-256", algorithm), MD5]);
        let first = desk.last_sent();
        desk.carrier(&first, 200, "x", ANSWER);
        desk.leg(LegCommand::Confirm { leg, answer: None });
        desk.leg(LegCommand::HangUp { leg, cause: HangupCause::OtherLeg });
        let bye = desk.last_sent();
        let (invites, byes) = (answer_in(&first, PROXY), answer_in(&bye, PROXY));
        assert_eq!((bye.method(), byes["algorithm"].as_str()), (&Method::Bye, algorithm));
        assert_eq!((byes["nc"].as_str(), &byes["cnonce"]), ("00000002", &invites["cnonce"]));
        assert!(is_right(&first, PROXY, "carrier-secret") && is_right(&bye, PROXY, "carrier-secret"));
        // A carrier that asks anew begins a session of its own.
        desk.challenge(&bye, 407, &[&SHA.replace("n1", "n2").replace("SHA-256", &format!("{algorithm}, stale=true"))]);
        let again = answer_in(&desk.last_sent(), PROXY);
        assert_eq!(again["nc"], "00000001");
        assert_ne!(again["cnonce"], invites["cnonce"]);
        assert!(is_right(&desk.last_sent(), PROXY, "carrier-secret"));
    }
}

#[test]
fn credentials_that_were_rejected_are_not_sent_again_and_the_trunk_rests() {
    let (mut desk, _, invite) = dialled(None);
    desk.challenge(&invite, 407, &[SHA]);
    let again = desk.last_sent();
    desk.take_sent();
    desk.challenge(&again, 407, &[&SHA.replace("n1", "n2")]);
    assert_eq!(desk.kinds(), ["ACK"]);
    assert_eq!(failed(&mut desk), Some(407));
    assert_eq!(desk.probed, [Some(TrunkDown::CredentialsRefused)]);
    desk.wait(Duration::from_secs(91));
    assert_eq!(desk.probed[1..], [None], "it is tried again after a while");
}

#[test]
fn a_nonce_that_was_too_old_is_replaced_once() {
    let (mut desk, _, invite) = dialled(None);
    let stale = |nonce: &str| SHA.replace("n1", nonce).replace("SHA-256", "SHA-256, stale=TRUE");
    desk.challenge(&invite, 407, &[SHA]);
    let second = desk.last_sent();
    desk.challenge(&second, 407, &[&stale("n2")]);
    let third = desk.last_sent();
    assert_eq!((answer_in(&third, PROXY)["nonce"].as_str(), third.cseq().0), ("n2", 3));
    desk.take_sent();
    desk.challenge(&third, 407, &[&stale("n3")]);
    assert_eq!((desk.kinds(), failed(&mut desk)), (vec!["ACK".to_owned()], Some(407)));
}

#[test]
fn a_proxy_and_the_server_behind_it_are_both_answered() {
    let (mut desk, _, invite) = dialled(None);
    desk.challenge(&invite, 407, &[SHA]);
    let second = desk.last_sent();
    desk.challenge(&second, 401, &[&MD5.replace("n1", "inner")]);
    let third = desk.last_sent();
    assert!(is_right(&third, PROXY, "carrier-secret") && is_right(&third, HeaderName::Authorization, "carrier-secret"));
    assert_eq!(answer_in(&third, PROXY)["nc"], "00000002");
}

/// What has credentials of ours among what was sent since the last look.
fn signed(desk: &mut Desk) -> Vec<String> {
    let sent = desk.take_sent().into_iter().filter(|text| text.contains("uthorization: "));
    sent.map(|text| text.split(' ').next().unwrap_or_default().to_owned()).collect()
}

/// The carrier is a proxy that does not record its route: what follows goes to whoever was called.
#[test]
fn whoever_is_called_never_sees_our_credentials_and_is_not_answered_when_it_asks() {
    let (mut desk, leg, invite) = dialled(None);
    desk.challenge(&invite, 407, &[SHA]);
    let second = desk.last_sent();
    assert_eq!(signed(&mut desk), ["INVITE"]);
    let contact = NameAddr::parse("<sip:called@198.51.100.9:5070>").expect("valid");
    let called = Flow::udp(([198, 51, 100, 9], 5_070).into());
    let answer = |desk: &mut Desk, request: &Message, status: u16, challenge: &str| {
        let response = ResponseBuilder::to_request(request, status, Some("x")).contact(&contact);
        let response =
            if challenge.is_empty() { response } else { response.header(HeaderName::ProxyAuthenticate, &challenge) };
        let response = if status == 200 { response.body("application/sdp", ANSWER.into()) } else { response };
        let text = String::from_utf8(response.build().expect("complete").to_vec()).expect("text");
        desk.take(called, &text);
    };
    answer(&mut desk, &second, 200, "");
    let kept = desk.take_legs().into_iter().find_map(|event| match event {
        LegEvent::Answered { checkpoint, .. } => Some(checkpoint),
        _ => None,
    });
    desk.leg(LegCommand::Confirm { leg, answer: None });
    assert_eq!(desk.last_sent().method(), &Method::Ack);
    // Nor after a restart.
    let mut after = Desk::with(config(), 77);
    after.trunks(vec![with_login(None, None)]);
    after.leg(LegCommand::Resume { leg, checkpoint: kept.expect("answered") });
    after.leg(LegCommand::HangUp { leg, cause: HangupCause::OtherLeg });
    let bye = after.last_sent();
    assert_eq!((bye.method(), after.sent.last().map(|(to, _)| *to)), (&Method::Bye, Some(called.peer)));
    answer(&mut after, &bye, 407, &SHA.replace("n1", "theirs"));
    assert_eq!(signed(&mut after), Vec::<String>::new());
    for (number, command) in [
        LegCommand::PressKey { leg, key: schema::leg::Key { signal: Pii::new('5'), duration_ms: None } },
        LegCommand::Offer { leg, offer: Pii::new(OFFER.replace("4000", "4002").into()) },
        LegCommand::HangUp { leg, cause: HangupCause::OtherLeg },
    ]
    .into_iter()
    .enumerate()
    {
        desk.leg(command);
        let request = desk.last_sent();
        assert_eq!(desk.sent.last().map(|(to, _)| *to), Some(called.peer), "{number}");
        answer(&mut desk, &request, 407, &SHA.replace("n1", "theirs"));
        assert_eq!(signed(&mut desk), Vec::<String>::new(), "{number}");
    }
}

#[test]
fn the_realm_in_which_a_call_was_answered_stays_its_only_one() {
    let (mut desk, _, invite) = dialled(None);
    desk.challenge(&invite, 407, &[SHA]);
    let second = desk.last_sent();
    desk.take_sent();
    // Whoever is called says it, and the carrier hands it on.
    desk.challenge(&second, 401, &[&MD5.replace("carrier.example", "theirs")]);
    assert_eq!((desk.kinds(), failed(&mut desk)), (vec!["ACK".to_owned()], Some(401)));
    assert!(desk.probed.is_empty(), "nothing is wrong with the trunk");
    // Another call may be asked in another.
    let other = desk.dial(LegId::b(some_call().call, 2));
    desk.challenge(&other, 407, &[&MD5.replace("carrier.example", "other")]);
    assert_eq!(answer_in(&desk.last_sent(), PROXY)["realm"], "other");
}

#[test]
fn whoever_is_called_does_not_keep_a_trunk_from_others_by_asking_who_we_are() {
    let mut desk = Desk::new();
    desk.trunks(vec![trunk()]);
    let call = |number| LegId::b(some_call().call, number);
    let invite = desk.dial(call(1));
    desk.carrier(&invite, 200, "x", ANSWER);
    desk.take_legs();
    let asks = |desk: &mut Desk, number| {
        let invite = desk.dial(call(number));
        desk.challenge(&invite, 407, &[SHA]);
        assert_eq!(failed(desk), Some(407));
    };
    asks(&mut desk, 2);
    assert!(desk.probed.is_empty(), "a call has just got through");
    desk.wait(Duration::from_secs(601));
    desk.probed.clear();
    asks(&mut desk, 3);
    assert_eq!(desk.probed, [Some(TrunkDown::NotAnswerable)]);
}

#[test]
fn what_cannot_be_answered_is_told_by_name() {
    let cases: [(Option<&str>, &[&str], TrunkDown); 4] = [
        (Some("other"), &[MD5, SHA], TrunkDown::OtherRealm),
        (None, &[], TrunkDown::NotAnswerable),
        (None, &["Basic realm=\"carrier.example\""], TrunkDown::NotAnswerable),
        (None, &["Digest realm=\"carrier.example\", nonce=\"n\", algorithm=SHA-512"], TrunkDown::NotAnswerable),
    ];
    for (realm, challenges, down) in cases {
        let (mut desk, _, invite) = dialled(realm);
        desk.take_sent();
        desk.challenge(&invite, 407, challenges);
        assert_eq!((desk.kinds(), failed(&mut desk)), (vec!["ACK".to_owned()], Some(407)), "{challenges:?}");
        assert_eq!(desk.probed, [Some(down)]);
    }
    // Of two realms the configured one is answered, though the other is offered stronger.
    let (mut desk, _, invite) = dialled(Some("mine"));
    desk.challenge(&invite, 407, &[SHA, &MD5.replace("carrier.example", "mine")]);
    assert_eq!(answer_in(&desk.last_sent(), PROXY)["realm"], "mine");
    // Whoever knows us by our address has no credentials of ours.
    let mut desk = Desk::new();
    desk.trunks(vec![trunk()]);
    let invite = desk.dial(some_call());
    desk.challenge(&invite, 407, &[SHA]);
    assert_eq!((failed(&mut desk), &desk.probed[..]), (Some(407), &[Some(TrunkDown::NotAnswerable)][..]));
}

#[test]
fn a_customers_phone_that_challenges_us_gets_nothing() {
    let mut desk = Desk::new();
    desk.trunks(vec![with_login(None, None)]);
    let mut talk = desk.talk(udp(), "c");
    desk.in_dialog(&mut talk, "UPDATE", "", "");
    desk.take_sent();
    let asks = |desk: &mut Desk, status| {
        let request = desk.last_sent();
        desk.take_sent();
        let name = if status == 401 { HeaderName::WwwAuthenticate } else { HeaderName::ProxyAuthenticate };
        let response = ResponseBuilder::to_request(&request, status, None).header(name, &SHA).build();
        desk.take(udp(), std::str::from_utf8(&response.expect("complete")).expect("text"));
        request
    };
    desk.leg(LegCommand::Offer { leg: talk.leg, offer: Pii::new(OFFER.replace("4000", "4002").into()) });
    assert_eq!(*asks(&mut desk, 407).method(), Method::Invite);
    assert_eq!(desk.kinds(), ["ACK"]);
    assert!(matches!(desk.take_legs()[..], [LegEvent::OfferAnswered { answer: Err(407), .. }]));
    desk.leg(LegCommand::Probe { leg: talk.leg });
    desk.handle(Input::Timeout);
    assert_eq!(*asks(&mut desk, 401).method(), Method::Options);
    desk.leg(LegCommand::HangUp { leg: talk.leg, cause: HangupCause::OtherLeg });
    assert_eq!(*asks(&mut desk, 407).method(), Method::Bye);
    assert!(desk.take_sent().is_empty());
    desk.wait(Duration::from_secs(20));
    assert!(desk.sent.iter().all(|(_, text)| !text.contains("uthorization")), "no credentials on the wire");
}

#[test]
fn a_call_that_is_given_up_before_its_challenge_is_not_begun_again() {
    let (mut desk, leg, invite) = dialled(None);
    desk.leg(LegCommand::HangUp { leg, cause: HangupCause::Cancelled });
    desk.take_sent();
    desk.challenge(&invite, 407, &[SHA]);
    assert_eq!((desk.kinds(), failed(&mut desk)), (vec!["ACK".to_owned()], Some(487)));
    assert!(desk.probed.is_empty(), "the trunk did nothing wrong");
}

#[test]
fn a_cancel_belongs_to_the_invite_with_credentials() {
    let (mut desk, leg, invite) = dialled(None);
    desk.carrier(&invite, 100, "x", "");
    desk.challenge(&invite, 407, &[SHA]);
    let again = desk.last_sent();
    desk.take_sent();
    desk.leg(LegCommand::HangUp { leg, cause: HangupCause::Cancelled });
    assert!(desk.take_sent().is_empty(), "nothing was said to this one yet");
    desk.carrier(&again, 180, "x", "");
    let cancel = desk.last_sent();
    assert_eq!((cancel.method(), cancel.branch(), cancel.cseq().0), (&Method::Cancel, again.branch(), 2));
    desk.carrier(&again, 487, "x", "");
    assert_eq!(failed(&mut desk), Some(487));
}

/// A call rang behind a challenge when the process ended: what the next one sends meets the carrier's transaction.
#[test]
fn a_call_that_rang_behind_a_challenge_is_withdrawn_after_a_restart() {
    let mut before = Desk::new();
    before.trunks(vec![with_login(None, None)]);
    let invited = before.invited(udp(), "c");
    let b = LegId::b(invited.leg.call, 1);
    before.leg(LegCommand::Invite(Box::new(Invite { offer: invited.offer.clone(), ..outgoing(b) })));
    let first = before.last_sent();
    before.challenge(&first, 407, &[SHA]);
    let rang = before.last_sent();

    let mut desk = Desk::with(config(), 77);
    desk.trunks(vec![with_login(None, None)]);
    desk.take_sent();
    desk.leg(LegCommand::TakeBack(Box::new(TakeBack {
        leg: invited.leg,
        checkpoint: invited.checkpoint.clone(),
        invite: Some(Box::new(Invite { offer: None, ..outgoing(b) })),
        retry_after_s: 7,
    })));
    let repeated = desk.sent_to(CARRIER.into());
    let repeated = Message::parse_datagram(&Bytes::from(repeated[0].clone())).expect("readable");
    assert_eq!((repeated.branch(), repeated.cseq().0), (first.branch(), first.cseq().0));
    // A proxy's 100 lets the CANCEL out, which comes too late for the challenge.
    desk.carrier(&repeated, 100, "x", "");
    desk.challenge(&repeated, 407, &[&SHA.replace("n1", "n9")]);
    let again = desk.last_sent();
    assert_eq!((again.branch(), again.cseq().0, again.body()), (rang.branch(), rang.cseq().0, rang.body()));
    desk.carrier(&again, 180, "x", "");
    let cancel = desk.last_sent();
    assert_eq!((cancel.method(), cancel.branch()), (&Method::Cancel, rang.branch()));
    desk.carrier(&again, 487, "x", "");
    assert_eq!(failed(&mut desk), Some(487));
}

#[test]
fn an_answered_call_goes_on_after_a_restart_and_its_bye_is_answered_for() {
    let (mut before, leg, invite) = dialled(None);
    before.challenge(&invite, 407, &[SHA]);
    let again = before.last_sent();
    before.carrier(&again, 200, "x", ANSWER);
    let Some(LegEvent::Answered { checkpoint, .. }) = before.take_legs().pop() else { panic!("not answered") };
    assert!(!checkpoint.state.expose().contains("carrier-secret"));

    let mut desk = Desk::with(CoreConfig { dialog_probe: Duration::ZERO, ..config() }, 77);
    desk.trunks(vec![with_login(None, None)]);
    desk.leg(LegCommand::Resume { leg, checkpoint });
    desk.leg(LegCommand::HangUp { leg, cause: HangupCause::OtherLeg });
    let bye = desk.last_sent();
    assert!(bye.cseq().0 > again.cseq().0);
    desk.challenge(&bye, 407, &[SHA]);
    assert!(*desk.last_sent().method() == Method::Bye && is_right(&desk.last_sent(), PROXY, "carrier-secret"));
}

#[test]
fn a_forked_200_is_ended_with_credentials_too() {
    let (mut desk, _, again) = talking();
    desk.take_sent();
    desk.carrier(&again, 200, "fork", ANSWER);
    let sent = desk.take_sent();
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|text| text.contains("Proxy-Authorization: Digest")), "{sent:?}");
    let bye = Message::parse_datagram(&Bytes::from(sent[1].clone())).expect("readable");
    desk.challenge(&bye, 407, &[&SHA.replace("n1", "n2")]);
    assert!(is_right(&desk.last_sent(), PROXY, "carrier-secret"));
}

#[test]
fn a_carrier_that_answers_calls_is_up_though_it_answers_no_probe() {
    let mut desk = Desk::new();
    desk.trunks(vec![trunk()]);
    for attempt in 1..=4 {
        desk.wait(Duration::from_secs(60));
        let invite = desk.dial(LegId::b(some_call().call, attempt));
        desk.carrier(&invite, 486, "x", "");
    }
    assert!(desk.probed.iter().all(Option::is_none), "{:?}", desk.probed);
    desk.wait(Duration::from_secs(150));
    assert_eq!(desk.probed.last(), Some(&Some(TrunkDown::Silent)), "then nothing is heard of it");
}

#[test]
fn a_redirection_to_many_is_acknowledged_and_not_followed() {
    let mut desk = Desk::new();
    let invite = desk.dial(some_call());
    let response = ResponseBuilder::to_request(&invite, 302, Some("x"));
    let response = (0..20).fold(response, |response, host| {
        response.contact(&NameAddr::parse(&format!("<sip:c@192.0.2.{host}>")).expect("valid"))
    });
    let response = response.build().expect("complete");
    desk.take(Flow::udp(CARRIER.into()), std::str::from_utf8(&response).expect("text"));
    assert_eq!(desk.kinds(), ["INVITE", "ACK"]);
    assert_eq!(failed(&mut desk), Some(302));
    desk.assert_empty();
}
