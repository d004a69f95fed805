//! The whole edge over real sockets: the test phone registers and calls through the SIP thread to the test carrier; a bridge of a
//! few lines stands where the call actors are.

mod floods;
mod flows;

use super::*;
use crate::core::{Advertised, CoreConfig};
use crate::demo::carrier::Carrier;
use crate::demo::phone::{Phone, PhoneCall, PhoneCommand, PhoneConfig, PhoneEvent};
use crate::digest::ha1;
use crate::guard::{GuardLimits, Network};
use crate::transport::TransportConfig;
use schema::account::SipCredential;
use schema::carrier::{Gateway, GatewayTransport};
use schema::edge::CredentialLookup;
use schema::id::{AccountKey, CallId, CredentialId, TrunkId};
use schema::leg::{AttemptIds, Checkpoint, HangupCause, Invite, LegEvent, LegId};
use schema::number::{E164, Presentation, PresentedNumber, ServiceNumber};
use schema::pii::Pii;
use schema::time::{Mono, Timestamp};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::UdpSocket;

fn clock() -> Clock {
    let start = tokio::time::Instant::now();
    Arc::new(move || {
        let micros = u64::try_from(start.elapsed().as_micros()).expect("a short test");
        Now { mono: Mono(1_000_000 + micros), wall: Timestamp(1_700_000_000_000_000 + micros as i64) }
    })
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// What a call actor would answer, without money.
fn bridge(event: LegEvent, gateway: Gateway, trunk: TrunkId) -> Vec<LegCommand> {
    let a = |leg: LegId| LegId::a(leg.call);
    let b = |leg: LegId| LegId::b(leg.call, 1);
    let other = |leg: LegId| if leg == a(leg) { b(leg) } else { a(leg) };
    match event {
        LegEvent::Invited(invited) => {
            let number = E164::parse(invited.dialled.expose()).expect("the phone dials E.164");
            let caller = ServiceNumber(E164::parse("+441632960000").expect("a number"));
            let unique = invited.leg.call.to_string();
            vec![LegCommand::Invite(Box::new(Invite {
                leg: b(invited.leg),
                trunk,
                gateway,
                name: None,
                trusted: false,
                ids: AttemptIds {
                    call_id: unique.replace('-', "").into(),
                    from_tag: "tag".into(),
                    branch: format!("z9hG4bK{unique}").into(),
                    cseq: 1,
                },
                destination: number,
                presentation: Presentation::Shown(PresentedNumber::service(&caller)),
                offer: invited.offer.clone(),
                ring_timeout_s: 60,
            }))]
        }
        LegEvent::Progress { leg, status, sdp, .. } => vec![LegCommand::Progress { leg: a(leg), status, sdp }],
        LegEvent::Answered { leg, sdp, .. } => {
            vec![LegCommand::Confirm { leg, answer: None }, LegCommand::Accept { leg: a(leg), sdp }]
        }
        LegEvent::Failed { leg, status, .. } => {
            vec![LegCommand::Reject { leg: a(leg), status, reason: None, retry_after_s: None }]
        }
        LegEvent::Cancelled { leg } => vec![LegCommand::HangUp { leg: b(leg), cause: HangupCause::Cancelled }],
        LegEvent::Ended { leg, .. } => {
            vec![LegCommand::HangUp { leg: other(leg), cause: HangupCause::OtherLeg }]
        }
        LegEvent::Offered { leg, offer } => vec![LegCommand::Offer { leg: other(leg), offer }],
        LegEvent::OfferAnswered { leg, answer } => vec![LegCommand::AnswerOffer { leg: other(leg), answer }],
        LegEvent::KeyPressed { leg, key } => vec![LegCommand::PressKey { leg: other(leg), key }],
        LegEvent::Confirmed { .. }
        | LegEvent::Alive { .. }
        | LegEvent::Unwatched { .. }
        | LegEvent::Checkpointed { .. } => Vec::new(),
    }
}

fn bound() -> Bound {
    Bound::open(TransportConfig { udp: Some(any_port()), ..TransportConfig::default() }).expect("a free port")
}

fn start(gateway: SocketAddr, clock: &Clock) -> (SipThread, SocketAddr) {
    start_with(bound(), everybody(), gateway, clock)
}

/// Nobody here is a stranger.
fn everybody() -> GuardLimits {
    GuardLimits { exempt: [Network::LOOPBACK_V4].into(), ..GuardLimits::default() }
}

/// The thread of a core with a seed.
fn start_core(bound: Bound, guard: GuardLimits, clock: &Clock, seam: Seam) -> (SipThread, SocketAddr) {
    let address = bound.udp_address().expect("bound");
    let advertised = Advertised { host: "127.0.0.1".into(), port: address.port() };
    let config = CoreConfig {
        digest: vec![crate::digest::Algorithm::Sha256, crate::digest::Algorithm::Md5],
        domain: "ringfence.example".into(),
        other_hosts: Vec::new(),
        udp: Some(advertised),
        tcp: None,
        tls: None,
        v6: Default::default(),
        sdp_address: address.ip(),
        plain_customers: true,
        dialog_probe: Duration::from_secs(30),
        legs_max: 100,
        calls_per_second: 10_000,
        bounds_waiting: true,
        transactions_max: 1_000,
        lookups_max: 100,
        guard,
    };
    let mut entropy = Entropy::from_number(1);
    let core = Core::new(config, entropy.fork()).expect("a realm");
    let thread = SipThread::start(bound, TransportLimits::default(), core, entropy, Arc::clone(clock), seam);
    (thread.expect("started"), address)
}

fn start_with(bound: Bound, guard: GuardLimits, gateway: SocketAddr, clock: &Clock) -> (SipThread, SocketAddr) {
    let mut entropy = Entropy::from_number(2);
    let trunk = TrunkId::generate(&mut entropy, Timestamp(0));
    let id = CredentialId::generate(&mut entropy, Timestamp(0));
    let gateway = Gateway { transport: GatewayTransport::Udp, address: gateway };
    let (commands, legs) = mpsc::channel(64);
    let (answers, edge) = mpsc::channel(64);
    let on_edge = move |event| {
        let EdgeEvent::CredentialWanted { ticket, username } = event else { return };
        let found = if &*username == "alice" {
            CredentialLookup::Found(Box::new(SipCredential {
                id,
                account: AccountKey(1),
                secret: Pii::new(ha1("alice", "ringfence.example", "secret")),
                username,
                label: Pii::new(String::new()),
                created_at: Timestamp(0),
            }))
        } else {
            CredentialLookup::Unknown
        };
        answers.try_send(EdgeCommand::Credential { ticket, found }).expect("room");
    };
    let seam = Seam {
        legs,
        edge,
        on_leg: Box::new(move |told| {
            for command in bridge(told.event, gateway, trunk) {
                commands.try_send(command).expect("room");
            }
        }),
        on_edge: Box::new(on_edge),
    };
    start_core(bound, guard, clock, seam)
}

/// Runs `commands` of the phone, each after the event before it, and gives all events.
async fn play(password: &str, script: Vec<(PhoneCommand, PhoneEvent)>) -> (Vec<PhoneEvent>, Counts) {
    let clock = clock();
    let (phone_socket, carrier_socket) = (UdpSocket::bind(any_port()).await, UdpSocket::bind(any_port()).await);
    let (phone_socket, carrier_socket) = (phone_socket.expect("a port"), carrier_socket.expect("a port"));
    let gateway = carrier_socket.local_addr().expect("bound");
    let (thread, server) = start(gateway, &clock);
    let config = PhoneConfig {
        server,
        domain: "ringfence.example".into(),
        address: phone_socket.local_addr().expect("bound"),
        username: "alice".into(),
        password: Pii::new(password.into()),
        expires_s: 300,
        most_calls: 10,
        takes_reliable: false,
    };
    let mut phone = Phone::new(config, Entropy::from_number(2)).expect("a domain");
    let mut carrier = Carrier::new(Entropy::from_number(3), gateway, 10);
    let (commands, phone_commands) = mpsc::channel(8);
    let (_kept, carrier_commands) = mpsc::channel(1);
    let (events, mut heard) = mpsc::channel(64);
    let (carrier_events, _unheard) = mpsc::channel(64);
    let play = async {
        let mut seen = Vec::new();
        for (command, until) in script {
            commands.send(command).await.expect("listening");
            while let Some(event) = heard.recv().await {
                seen.push(event);
                if seen.last() == Some(&until) {
                    break;
                }
            }
        }
        // ACKs and BYEs of the other leg are still under way.
        while thread.core_counts().legs > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        seen
    };
    let seen = tokio::select! {
        seen = tokio::time::timeout(Duration::from_secs(20), play) => seen.expect("the script ends in time"),
        _ = crate::demo::run(&phone_socket, &mut phone, &clock, phone_commands, &events) => panic!("the phone stopped"),
        _ = crate::demo::run(&carrier_socket, &mut carrier, &clock, carrier_commands, &carrier_events) => panic!("the carrier stopped"),
    };
    let counts = thread.core_counts();
    thread.stop().expect("no panic");
    (seen, counts)
}

const CALL: PhoneCall = PhoneCall(1);

fn dial(number: &str) -> PhoneCommand {
    PhoneCommand::Call { call: CALL, number: Pii::new(number.into()) }
}

fn progress(status: u16) -> PhoneEvent {
    PhoneEvent::Progress { call: CALL, status, early_media: status == 183 }
}

const ANSWERED: PhoneEvent = PhoneEvent::Answered { call: CALL };
const HUNG_UP: PhoneEvent = PhoneEvent::Ended { call: CALL, by_phone: true, q850: None };

#[tokio::test]
async fn a_phone_registers_calls_and_hangs_up() {
    let registered = PhoneEvent::Registered { expires_s: 300 };
    let (seen, counts) = play(
        "secret",
        vec![
            (PhoneCommand::Register, registered.clone()),
            (dial("+447700900100"), ANSWERED),
            (PhoneCommand::HangUp { call: CALL }, HUNG_UP),
        ],
    )
    .await;
    assert_eq!(seen, [registered, progress(180), ANSWERED, HUNG_UP]);
    assert_eq!((counts.legs, counts.dialogs, counts.registrations), (0, 0, 1));
}

#[tokio::test]
async fn the_carriers_hang_up_reaches_the_phone() {
    let ended = PhoneEvent::Ended { call: CALL, by_phone: false, q850: Some(16) };
    let (seen, counts) = play("secret", vec![(dial("+447700900180"), ended.clone())]).await;
    assert_eq!((seen.last(), counts.legs), (Some(&ended), 0));
}

#[tokio::test]
async fn refusals_cancels_and_wrong_passwords_end_cleanly() {
    let failed = |status| PhoneEvent::Failed { call: CALL, status };
    let (seen, counts) = play("secret", vec![(dial("+447700900150"), failed(486))]).await;
    assert_eq!((seen, counts.legs), (vec![progress(180), failed(486)], 0));
    let cancel = PhoneCommand::HangUp { call: CALL };
    let (seen, counts) = play("secret", vec![(dial("+447700900160"), progress(180)), (cancel, failed(487))]).await;
    assert_eq!((seen, counts.legs), (vec![progress(180), failed(487)], 0));
    let (seen, counts) = play("wrong", vec![(dial("+447700900100"), failed(407))]).await;
    assert_eq!((seen, counts.legs), (vec![failed(407)], 0));
}

#[tokio::test]
async fn a_stopped_thread_is_seen() {
    let clock = clock();
    let (mut thread, _) = start(any_port(), &clock);
    assert!(tokio::time::timeout(Duration::from_millis(50), thread.ended()).await.is_err());
    thread.stop().expect("no panic");
}

/// Whoever has handed a command over relies on it: a hang-up that is taken and not carried out would leave a leg that nobody knows.
/// Here each command is a dialog that cannot be read, which is told as ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_before_the_stop_is_carried_out() {
    for _ in 0..20 {
        let (commands, legs) = mpsc::channel(64);
        let (_answers, edge) = mpsc::channel(64);
        let ended = Arc::new(AtomicUsize::new(0));
        let told = ended.clone();
        let on_leg = move |told_at: LegEventAt| {
            let is_end = matches!(told_at.event, LegEvent::Ended { .. });
            told.fetch_add(is_end.into(), Ordering::Relaxed);
        };
        let seam = Seam { legs, edge, on_leg: Box::new(on_leg), on_edge: Box::new(|_| {}) };
        let (thread, _) = start_core(bound(), everybody(), &clock(), seam);
        let commanding = tokio::spawn(async move {
            let mut taken = 0;
            let leg = LegId::a(CallId::generate(&mut Entropy::from_number(1), Timestamp(0)));
            let checkpoint = Checkpoint { state: Pii::new("unreadable".into()) };
            while commands.send(LegCommand::Resume { leg, checkpoint: checkpoint.clone() }).await.is_ok() {
                taken += 1;
            }
            taken
        });
        tokio::time::sleep(Duration::from_millis(5)).await;
        thread.stop().expect("no panic");
        assert_eq!(commanding.await.expect("no panic"), ended.load(Ordering::Relaxed));
        assert!(ended.load(Ordering::Relaxed) > 0);
    }
}
