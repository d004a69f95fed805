//! A phone with two sockets, as one with two networks has them: each is a flow of it (RFC 5626).

use super::*;
use crate::digest::Challenge;
use crate::message::{HeaderName, Message, Method, ResponseBuilder};
use bytes::Bytes;

/// It answers, and hangs up soon.
const NUMBER: &str = "sip:+447700900180@ringfence.example";
const OFFER: &str =
    "v=0\r\no=phone 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";

/// One socket of the phone. Its Via and Contact name an address where nobody is: behind a NAT a phone knows no other.
struct Socket {
    socket: UdpSocket,
    server: SocketAddr,
    flow: u32,
    serial: u32,
}

impl Socket {
    async fn open(server: SocketAddr, flow: u32) -> Self {
        let socket = UdpSocket::bind(any_port()).await.expect("a port");
        Self { socket, server, flow, serial: 0 }
    }

    async fn send(&mut self, method: &str, to_tag: &str, more: &str, body: &str) {
        self.serial += 1;
        let Self { flow, serial, .. } = self;
        let (uri, to) = match method {
            "REGISTER" => ("sip:ringfence.example", "sip:alice@ringfence.example"),
            _ => (NUMBER, NUMBER),
        };
        let cseq = if method == "ACK" { *serial - 1 } else { *serial };
        let length = body.len();
        let text = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9:5060;rport;branch=z9hG4bK{method}{flow}{serial}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:alice@ringfence.example>;tag=a\r\nTo: <{to}>{to_tag}\r\n\
             Call-ID: {method}{flow}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:alice@192.0.2.9;ob>;+sip.instance=\"<urn:uuid:1>\";reg-id={flow}\r\n\
             Supported: path, outbound\r\n{more}Content-Length: {length}\r\n\r\n{body}"
        );
        let text = text.replace("Call-ID: ACK", "Call-ID: INVITE");
        self.socket.send_to(text.as_bytes(), self.server).await.expect("sent");
    }

    /// The next message that is no provisional response.
    async fn next(&self) -> Message {
        let mut buffer = [0; 4_096];
        loop {
            let received = tokio::time::timeout(Duration::from_secs(10), self.socket.recv_from(&mut buffer)).await;
            let (length, _) = received.expect("in time").expect("open");
            let message = Message::parse_datagram(&Bytes::copy_from_slice(&buffer[..length])).expect("readable");
            if message.status().is_none_or(|status| status >= 200) {
                return message;
            }
        }
    }

    /// Sends a request, and again with credentials.
    async fn ask(&mut self, method: &str, body: &str) -> Message {
        let more = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        self.send(method, "", more, body).await;
        let challenge = Challenge::best_of(&self.next().await).expect("a challenge");
        let (uri, name) = match method {
            "REGISTER" => ("sip:ringfence.example", "Authorization"),
            _ => (NUMBER, "Proxy-Authorization"),
        };
        let answer = challenge.answer("alice", "secret", method, uri, "c", 1);
        self.send(method, "", &format!("{name}: {answer}\r\n{more}"), body).await;
        self.next().await
    }

    async fn answer(&self, request: &Message, status: u16) {
        let response = ResponseBuilder::to_request(request, status, None).build().expect("complete");
        self.socket.send_to(&response, self.server).await.expect("sent");
    }
}

#[tokio::test]
async fn a_request_reaches_the_other_socket_of_a_phone_when_its_own_has_failed() {
    let clock = clock();
    let carrier_socket = UdpSocket::bind(any_port()).await.expect("a port");
    let gateway = carrier_socket.local_addr().expect("bound");
    let (thread, server) = start(gateway, &clock);
    let mut carrier = Carrier::new(Entropy::from_number(3), gateway, 10);
    let (_kept, commands) = mpsc::channel(1);
    let (events, _unheard) = mpsc::channel(64);
    let talk = async {
        let (mut first, mut second) = (Socket::open(server, 1).await, Socket::open(server, 2).await);
        for (socket, contacts) in [(&mut first, 1), (&mut second, 2)] {
            let ok = socket.ask("REGISTER", "").await;
            let (status, flow_timer) = (ok.status(), ok.text(HeaderName::FlowTimer));
            assert_eq!((status, ok.contacts().len(), flow_timer), (Some(200), contacts, Some("29")));
        }
        let ok = first.ask("INVITE", OFFER).await;
        assert_eq!(ok.status(), Some(200));
        first.send("ACK", &format!(";tag={}", ok.to_tag().expect("a tag")), "", "").await;
        // The callee hangs up. The socket of the call is that of a proxy, which knows the phone no more.
        let bye = first.next().await;
        assert_eq!(*bye.method(), Method::Bye);
        first.answer(&bye, 430).await;
        let again = second.next().await;
        assert_eq!((again.method(), again.cseq()), (bye.method(), bye.cseq()));
        assert_eq!((again.call_id(), again.request_uri()), (bye.call_id(), bye.request_uri()));
        second.answer(&again, 200).await;
        let ok = second.ask("REGISTER", "").await;
        assert_eq!(ok.contacts().len(), 1, "what has failed is no binding any more");
    };
    tokio::select! {
        talked = tokio::time::timeout(Duration::from_secs(20), talk) => talked.expect("in time"),
        _ = crate::demo::run(&carrier_socket, &mut carrier, &clock, commands, &events) => panic!("the carrier stopped"),
    }
    let counts = thread.core_counts();
    assert_eq!((counts.legs, counts.registrations), (0, 1));
    thread.stop().expect("no panic");
}
