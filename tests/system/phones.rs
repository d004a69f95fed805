//! Phones of other makers: they register, call, are charged, and either side hangs up.

use ringfence::certificate::self_signed;
use ringfence::config::Config;
use schema::call::{Cdr, HangupSide};
use schema::id::AccountKey;
use schema::money::Micros;
use sip::demo::carrier::CarrierEvent;
use std::net::SocketAddr;
use std::time::Duration;
use tests::carrier::TestCarrier;
use tests::phone::TestPhone;
use tests::server::TestServer;
use tests::softphone::{Baresip, Line, Linphone};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// The test carrier answers at once.
const ANSWERS: &str = "+447700900001";
/// It answers and hangs up after five seconds.
const HANGS_UP: &str = "+447700900080";

async fn registered(server: &TestServer) {
    server.until("the phone is registered", async |s| s.sip_counts().registrations == 1).await;
}

async fn charged(server: &TestServer, account: AccountKey) {
    let costs = |call: &schema::call::Call| call.cost >= Micros(10_000);
    let is_so = async |s: &ringfence::server::Server| {
        s.actors.view(account).await.is_ok_and(|view| view.live_calls.iter().any(costs))
    };
    server.until("the call is charged while it lasts", is_so).await;
}

/// The call that has just ended, charged what it lasted.
async fn record(server: &TestServer, account: AccountKey, calls: usize) -> Cdr {
    server.left_clean().await;
    let mut history = server.history(account).await;
    assert_eq!(history.len(), calls);
    let cdr = history.pop().expect("a call");
    let seconds = cdr.talk_ms.div_ceil(1_000);
    assert_eq!(
        (cdr.call.billed_seconds, cdr.charged),
        (seconds, Micros(10_000 * i64::try_from(seconds).expect("short")))
    );
    cdr
}

fn ended_by(cdr: &Cdr) -> Option<HangupSide> {
    cdr.call.hangup.as_ref().map(|hangup| hangup.side)
}

/// Registers and calls twice: the phone ends the first call, the other side the second.
async fn with_baresip(transport: &'static str) {
    let server = TestServer::start().await;
    server.accounts(1, "10.00", "live_calls = 2, calls_per_minute = 10").await;
    let account = server.account("u0").await;
    let addresses = server.addresses();
    let listener = match transport {
        "udp" => addresses.sip_udp,
        "tcp" => addresses.sip_tcp,
        _ => addresses.sip_tls,
    };
    let certificate = server.config.data_dir.join("tls/cert.pem");
    let listener = listener.expect("a listener");
    let line = Line { username: "u0", password: "pw0", transport, server: listener, certificate: &certificate };
    let mut phone = Baresip::start(&server.folder.path().join("baresip"), line).await;
    registered(&server).await;

    phone.tell("dial", ANSWERS).await;
    phone.event("CALL_ESTABLISHED").await;
    charged(&server, account).await;
    phone.tell("hangup", "").await;
    phone.event("CALL_CLOSED").await;
    let cdr = record(&server, account, 1).await;
    assert_eq!(
        (ended_by(&cdr), cdr.call.destination.as_ref().map(|n| n.as_str())),
        (Some(HangupSide::Caller), Some(ANSWERS))
    );

    phone.tell("dial", HANGS_UP).await;
    phone.event("CALL_ESTABLISHED").await;
    phone.event("CALL_CLOSED").await;
    let cdr = record(&server, account, 2).await;
    assert_eq!(ended_by(&cdr), Some(HangupSide::Callee));
    assert!((5..=10).contains(&cdr.call.billed_seconds), "{cdr:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn baresip_calls_over_tls() {
    with_baresip("tls").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn baresip_calls_over_tcp() {
    with_baresip("tcp").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn baresip_holds_a_call_and_takes_it_up_again() {
    let mut server = TestServer::start_with(|config| config.test_carrier = None).await;
    let mut carrier = TestCarrier::start().await;
    server.gateway = carrier.address;
    server.accounts(1, "10.00", "live_calls = 2, calls_per_minute = 10").await;
    let account = server.account("u0").await;
    let certificate = server.config.data_dir.join("tls/cert.pem");
    let listener = server.addresses().sip_tcp.expect("a listener");
    let line = Line { username: "u0", password: "pw0", transport: "tcp", server: listener, certificate: &certificate };
    let mut phone = Baresip::start(&server.folder.path().join("baresip"), line).await;
    registered(&server).await;
    phone.tell("dial", ANSWERS).await;
    phone.event("CALL_ESTABLISHED").await;
    assert_eq!(carrier.event().await, CarrierEvent::Confirmed);
    // The carrier is asked each time: its answer to a re-INVITE is acknowledged.
    for command in ["hold", "resume"] {
        phone.tell(command, "").await;
        assert_eq!(carrier.event().await, CarrierEvent::Confirmed, "{command}");
    }
    charged(&server, account).await;
    phone.tell("hangup", "").await;
    assert_eq!(carrier.event().await, CarrierEvent::Ended { by_carrier: false });
    let cdr = record(&server, account, 1).await;
    assert_eq!(ended_by(&cdr), Some(HangupSide::Caller));
}

#[tokio::test(flavor = "multi_thread")]
async fn linphone_calls_over_udp() {
    // It knows SHA-256, which is offered first outside development.
    let server = TestServer::start_with(|config| config.sip.digest.reverse()).await;
    assert_eq!(server.config.sip.digest, ["SHA-256", "MD5"]);
    server.accounts(1, "10.00", "live_calls = 2, calls_per_minute = 10").await;
    let account = server.account("u0").await;
    let listener = server.addresses().sip_udp.expect("a listener");
    let nowhere = server.folder.path();
    let line = Line { username: "u0", password: "pw0", transport: "udp", server: listener, certificate: nowhere };
    let mut phone = Linphone::start(&server.folder.path().join("linphone"), line);
    registered(&server).await;

    phone.tell(&format!("call sip:{ANSWERS}@localhost"));
    phone.says("Media streams established").await;
    charged(&server, account).await;
    phone.tell("terminate");
    phone.says(&format!("Call 1 with sip:{ANSWERS}@localhost ended")).await;
    let cdr = record(&server, account, 1).await;
    assert_eq!(ended_by(&cdr), Some(HangupSide::Caller));

    phone.tell(&format!("call sip:{HANGS_UP}@localhost"));
    phone.says(&format!("Call 2 with sip:{HANGS_UP}@localhost connected")).await;
    phone.says(&format!("Call 2 with sip:{HANGS_UP}@localhost ended")).await;
    let cdr = record(&server, account, 2).await;
    assert_eq!(ended_by(&cdr), Some(HangupSide::Callee));

    phone.tell("unregister");
    server.until("the registration is gone", async |s| s.sip_counts().registrations == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_development_customers_call_over_tls_only() {
    let mut server = TestServer::start_with(|config| {
        config.development = false;
        config.test_carrier = None;
        config.http.allow_plain = true;
        config.sip.tcp = None;
        config.sip.allow_plain_customers = false;
        config.sip.digest = vec!["SHA-256".to_owned(), "MD5".to_owned()];
        let (cert, key) = self_signed(&config.data_dir, "localhost").expect("a certificate");
        let tls = config.sip.tls.as_mut().expect("a listener");
        (tls.cert, tls.key) = (Some(cert), Some(key));
    })
    .await;
    let mut carrier = TestCarrier::start().await;
    server.gateway = carrier.address;
    server.accounts(1, "10.00", "live_calls = 2, calls_per_minute = 10").await;
    let account = server.account("u0").await;
    // Over UDP, which is there for carriers, nobody is let in with whatever password.
    let mut plain = TestPhone::start(server.addresses().sip_udp.expect("UDP"), "u0", "pw0").await;
    let call = plain.dial(ANSWERS).await;
    assert_eq!(plain.outcome(call).await, Err(403));

    let certificate = server.config.data_dir.join("tls/cert.pem");
    let listener = server.addresses().sip_tls.expect("TLS");
    let line = Line { username: "u0", password: "pw0", transport: "tls", server: listener, certificate: &certificate };
    let mut phone = Baresip::start(&server.folder.path().join("baresip"), line).await;
    registered(&server).await;
    phone.tell("dial", ANSWERS).await;
    phone.event("CALL_ESTABLISHED").await;
    assert_eq!(carrier.event().await, CarrierEvent::Confirmed);
    charged(&server, account).await;
    phone.tell("hangup", "").await;
    assert_eq!(carrier.event().await, CarrierEvent::Ended { by_carrier: false });
    record(&server, account, 1).await;
}

/// Passes datagrams between a phone and the server, and tells of each OPTIONS to the phone.
async fn between(server: SocketAddr) -> (SocketAddr, mpsc::Receiver<String>) {
    let (to_phone, to_server) = (udp().await, udp().await);
    let address = to_phone.local_addr().expect("an address");
    let (tell, asked) = mpsc::channel(16);
    tokio::spawn(async move {
        let (mut phone, mut out, mut back) = (None, [0; 4_096], [0; 4_096]);
        loop {
            tokio::select! {
                Ok((length, from)) = to_phone.recv_from(&mut out) => {
                    phone = Some(from);
                    to_server.send_to(&out[..length], server).await.expect("sent");
                }
                Ok((length, _)) = to_server.recv_from(&mut back) => {
                    let text = String::from_utf8_lossy(&back[..length]);
                    if text.starts_with("OPTIONS ") {
                        let _ = tell.send(text.into_owned()).await;
                    }
                    to_phone.send_to(&back[..length], phone.expect("it sent first")).await.expect("sent");
                }
            }
        }
    });
    (address, asked)
}

async fn udp() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.expect("a socket")
}

/// The tests of `sip` say what becomes of the answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_phone_of_which_nothing_is_heard_is_asked_as_often_as_configured() {
    assert_eq!(Config::for_development().sip.dialog_probe_s, 30, "the default");
    let server = TestServer::start_with(|config| config.sip.dialog_probe_s = 10).await;
    server.accounts(1, "10.00", "live_calls = 2, calls_per_minute = 10").await;
    let (address, mut asked) = between(server.addresses().sip_udp.expect("UDP")).await;
    let mut phone = TestPhone::start(address, "u0", "pw0").await;
    let call = phone.talk("15550000000").await;
    let begun = Instant::now();
    for n in 1..=2 {
        let options = timeout(Duration::from_secs(15), asked.recv()).await.expect("within 15 s").expect("one");
        assert!(options.contains(";tag="), "in the dialog: {options}");
        assert!(begun.elapsed() >= Duration::from_secs(9) * n, "not sooner: {:?}", begun.elapsed());
    }
    assert!(phone.is_up(call), "it answers");
    phone.hang_up(call).await;
    server.left_clean().await;
}
