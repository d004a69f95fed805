//! What is logged while calls are made, refused, disturbed and ended: nothing personal (invariant P3).

use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tests::api::Client;
use tests::logs::Logs;
use tests::phone::TestPhone;
use tests::server::TestServer;
use tests::softphone::{Baresip, Line};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, UdpSocket};

/// How a carrier refuses calls.
const REFUSALS: [u16; 3] = [486, 404, 302];
/// What it says in its own words.
const CANARIES: [&str; 3] = ["canary-phrase", "canary-reason", "canary-contact"];
/// Where the customer is.
const CUSTOMER_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77));
/// Where somebody guesses passwords.
const GUESSER_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 88));
/// What no line may show; numbers without their first digits, in case one is written nationally.
const PERSONAL: [&str; 10] = [
    "127.0.0.77",
    "127.0.0.88",
    "7700900020",
    "7700900050",
    "700900007",
    "2025550177",
    "5550199",
    "mallory@example.test",
    "unguessable web password",
    "unguessable-sip-password",
];
const ACCOUNT: &str = r#"
[[account]]
email = "mallory@example.test"
username = "Mallory"
password = "unguessable web password"
country = "US"
currency = "EUR"
opening_credit = "1.00"
rate_deck = "Retail test"
sip_username = "desk"
sip_password = "unguessable-sip-password"
caller_ids = [{ number = "+12025550177", evidence = "assigned" }]
callback_numbers = ["+12025550199"]
limits = { rate_per_minute = "none", calls_per_minute = 100 }
"#;

/// Sends something from the customer's address over TCP, until the server closes or is silent.
async fn stream(server: SocketAddr, bytes: &[u8]) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(CUSTOMER_IP, 0)).expect("an address");
    let mut stream = socket.connect(server).await.expect("a connection");
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_millis(500), stream.read_to_end(&mut answer)).await;
}

/// A carrier that refuses the calls in words of its own.
async fn talkative_carrier() -> SocketAddr {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).await.expect("a socket");
    let address = socket.local_addr().expect("bound");
    tokio::spawn(async move {
        let (mut buffer, mut refused) = (vec![0; 4_096], 0);
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let request = String::from_utf8_lossy(&buffer[..length]);
            let status = match request.split(' ').next() {
                Some("OPTIONS") => 200,
                Some("INVITE") => REFUSALS[refused % REFUSALS.len()],
                _ => continue,
            };
            refused += usize::from(status != 200);
            let kept = |line: &&str| ["Via:", "From:", "Call-ID:", "CSeq:"].iter().any(|name| line.starts_with(name));
            let kept: Vec<_> = request.lines().filter(kept).collect();
            let to = request.lines().find(|line| line.starts_with("To:")).unwrap_or_default();
            let [phrase, reason, contact] = CANARIES;
            let answer = format!(
                "SIP/2.0 {status} {phrase} +447700900007\r\n{}\r\n{to};tag=c\r\nReason: Q.850;cause=17;text=\"{reason}\"\r\n\
                 Contact: \"+447700900007\" <sip:{contact}@{address}>\r\nContent-Length: 0\r\n\r\n",
                kept.join("\r\n")
            );
            let _ = socket.send_to(answer.as_bytes(), from).await;
        }
    });
    address
}

/// Calls that such a carrier refuses.
async fn refused_in_words() {
    let mut server = TestServer::start_with(|config| config.test_carrier = None).await;
    server.gateway = talkative_carrier().await;
    server.provision(ACCOUNT).await;
    let account = server.account("desk").await;
    let udp = server.addresses().sip_udp.expect("UDP");
    let mut phone = TestPhone::start_at(CUSTOMER_IP, udp, "desk", "unguessable-sip-password").await;
    for _ in REFUSALS {
        let call = phone.dial("+447700900007").await;
        phone.outcome(call).await.expect_err("refused");
    }
    server.left_clean().await;
    let attempts: Vec<_> = server.history(account).await.iter().map(|cdr| cdr.attempts).collect();
    assert_eq!(attempts, [1; REFUSALS.len()], "each was refused by the carrier");
}

/// A call over TLS, of a phone of another maker.
async fn call_over_tls(server: &TestServer) {
    let certificate = server.config.data_dir.join("tls/cert.pem");
    let listener = server.addresses().sip_tls.expect("TLS");
    let line = Line {
        username: "desk",
        password: "unguessable-sip-password",
        transport: "tls",
        server: listener,
        certificate: &certificate,
    };
    let mut phone = Baresip::start(&server.folder.path().join("baresip"), line).await;
    phone.tell("dial", "+447700900007").await;
    phone.event("CALL_ESTABLISHED").await;
    phone.tell("hangup", "").await;
    phone.event("CALL_CLOSED").await;
}

/// Malformed messages, foreign ones and nonsense, all with a number in them.
async fn disturb(server: &TestServer) {
    let via = "Via: SIP/2.0/UDP 127.0.0.77:5;branch=z9hG4bK1\r\n";
    let message = |start: &str, more: &str| {
        format!(
            "{start} SIP/2.0\r\n{via}From: <sip:+447700900007@localhost>;tag=1\r\nTo: <sip:+447700900007@localhost>\r\nCall-ID: +447700900007\r\n{more}\r\n"
        )
    };
    let messages = [
        message("INVITE sip:+447700900007@localhost", "CSeq: 1 INVITE\r\nContent-Length: x\r\n"),
        message("INVITE sip:+447700900007@elsewhere.test", "CSeq: 1 INVITE\r\nMax-Forwards: 0\r\n"),
        message("MESSAGE sip:+447700900007@localhost", "CSeq: 1 MESSAGE\r\nContent-Length: 0\r\n"),
        message("BYE sip:+447700900007@localhost", "CSeq: 1 BYE\r\nContent-Length: 0\r\n"),
        message(
            "INVITE sip:+447700900007@localhost",
            "CSeq: 1 INVITE\r\nProxy-Authorization: Digest username=\"desk\", realm=\"localhost\", uri=\"sip:+447700900007\"\r\n",
        ),
        "nonsense +447700900007\r\n\r\n".to_owned(),
    ];
    let addresses = server.addresses();
    let (udp, tcp) = (addresses.sip_udp.expect("UDP"), addresses.sip_tcp.expect("TCP"));
    let socket = UdpSocket::bind((CUSTOMER_IP, 0)).await.expect("a socket");
    let scan = message("OPTIONS sip:+447700900007@localhost", "CSeq: 2 OPTIONS\r\nUser-Agent: friendly-scanner\r\n");
    for text in messages.into_iter().chain([scan]) {
        socket.send_to(text.as_bytes(), udp).await.expect("sent");
        stream(tcp, text.as_bytes()).await;
    }
    stream(addresses.sip_tls.expect("TLS"), b"no handshake +447700900007").await;
    stream(addresses.http, b"GET /+447700900007 HTTP/9\r\n\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_no_log_line_shows_a_number_an_address_or_a_secret() {
    let logs = Logs::listen();
    // Not exempt: a source of guesses is banned here.
    let server = TestServer::start_with(|config| config.limits.exempt_ips.clear()).await;
    server.provision(ACCOUNT).await;
    let account = server.account("desk").await;
    let udp = server.addresses().sip_udp.expect("UDP");

    let email = "mallory@example.test";
    let page = Client::page(server.addresses().http, CUSTOMER_IP);
    assert_eq!(page.refused_sign_in(email, "a guess: unguessable web passwor").await, "UNAUTHENTICATED");
    let page = page.signed_in(email, "unguessable web password").await;
    let app = Client::app(server.addresses().http, CUSTOMER_IP).with_token(email, "unguessable web password").await;
    let mut socket = page.socket().await;
    socket.subscribe("calls", "subscription { liveCalls { id dialled destination presentedNumber } }", json!({})).await;
    socket.next("calls").await;
    page.ask(
        "query($i: CallInput!) { quote(input: $i) { destination } }",
        json!({"i": {"destination": "+447700900020"}}),
    )
    .await;

    let mut stranger = TestPhone::start_at(CUSTOMER_IP, udp, "desk", "a wrong password").await;
    let call = stranger.dial("+447700900007").await;
    assert_eq!(stranger.outcome(call).await, Err(407));
    let mut phone = TestPhone::start_at(CUSTOMER_IP, udp, "desk", "unguessable-sip-password").await;
    phone.register().await;
    for (number, status) in
        [("+447700900050", 486), ("7700900007x", 484), ("+4477009000071234567", 484), ("+33700900007", 404)]
    {
        let call = phone.dial(number).await;
        let outcome = phone.outcome(call).await.expect_err(number);
        assert_eq!(outcome, status, "{number}");
    }
    let call = phone.talk("+447700900020").await;
    let live = server.view(account).await.live_calls[0].id;
    app.ask(
        "mutation($i: HangUpInput!) { hangUp(input: $i) { call { id } } }",
        json!({"i": {"callId": live.to_string()}}),
    )
    .await;
    phone.ended(call).await;
    let call = phone.talk("+447700900007").await;
    server.server.actors.panic_account(account);
    server.server.actors.panic_call(server.view(account).await.live_calls[0].id);
    phone.ended(call).await;
    call_over_tls(&server).await;
    refused_in_words().await;
    disturb(&server).await;
    for guess in 0..12 {
        let mut guesser = TestPhone::start_at(GUESSER_IP, udp, "desk", "a wrong password").await;
        let call = guesser.dial("+447700900007").await;
        // The ban begins with the tenth.
        if guess < 10 {
            assert_eq!(guesser.outcome(call).await, Err(407));
        }
    }
    server.left_clean().await;

    let lines = logs.lines();
    assert!(lines.iter().any(|line| line.contains("call over")), "the logs are heard: {lines:?}");
    let shown: Vec<_> =
        lines.iter().filter(|line| PERSONAL.iter().chain(&CANARIES).any(|word| line.contains(word))).collect();
    assert!(shown.is_empty(), "{} of {} lines: {shown:#?}", shown.len(), lines.len());
}
