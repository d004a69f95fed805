//! The built-in test phone on a UDP socket of its own.

use crate::wire::{Recorded, Side, Wire};
use schema::entropy::Entropy;
use schema::pii::Pii;
use sip::demo::phone::{Phone, PhoneCall, PhoneCommand, PhoneConfig, PhoneEvent};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

/// How long anything expected of a phone may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// A phone that does what it is told and remembers what it saw.
pub struct TestPhone {
    commands: mpsc::Sender<PhoneCommand>,
    events: mpsc::Receiver<PhoneEvent>,
    /// Seen, and not yet asked for.
    seen: Vec<PhoneEvent>,
    last: u64,
}

impl TestPhone {
    /// A phone on 127.0.0.1.
    ///
    /// # Panics
    /// When there is no socket for it.
    pub async fn start(server: SocketAddr, username: &str, password: &str) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), server, username, password).await
    }

    /// A phone at this address of the machine.
    ///
    /// # Panics
    /// When there is no socket for it.
    pub async fn start_at(ip: IpAddr, server: SocketAddr, username: &str, password: &str) -> Self {
        Self::begin(ip, server, username, password, None).await
    }

    /// A phone on 127.0.0.1 whose messages are recorded.
    ///
    /// # Panics
    /// When there is no socket for it.
    pub async fn recorded(wire: &Wire, server: SocketAddr, username: &str, password: &str) -> Self {
        Self::begin(Ipv4Addr::LOCALHOST.into(), server, username, password, Some(wire.clone())).await
    }

    async fn begin(ip: IpAddr, server: SocketAddr, username: &str, password: &str, wire: Option<Wire>) -> Self {
        let socket = UdpSocket::bind((ip, 0)).await.expect("a socket");
        let config = PhoneConfig {
            server,
            domain: "localhost".into(),
            address: socket.local_addr().expect("an address"),
            username: username.into(),
            password: Pii::new(password.into()),
            expires_s: 300,
            most_calls: 1_000,
            takes_reliable: false,
        };
        let clock = ringfence::clock::system();
        let seed = u64::from(config.address.port()) << 48 ^ clock().mono.0;
        let phone = Phone::new(config, Entropy::from_number(seed)).expect("a valid domain");
        let mut phone = Recorded::new(phone, Side::Caller, wire.unwrap_or_default());
        let (commands, commands_in) = mpsc::channel(64);
        let (events_out, events) = mpsc::channel(4_096);
        tokio::spawn(async move { sip::demo::run(&socket, &mut phone, &clock, commands_in, &events_out).await });
        Self { commands, events, seen: Vec::new(), last: 0 }
    }

    async fn tell(&self, command: PhoneCommand) {
        self.commands.send(command).await.expect("the phone runs");
    }

    /// Registers, and waits until it is.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn register(&mut self) {
        self.try_register().await.unwrap_or_else(|status| panic!("not registered: {status}"));
    }

    /// Registers, and waits for the answer.
    ///
    /// # Errors
    /// The final status of a refusal.
    ///
    /// # Panics
    /// When none comes, or a registration that is over at once.
    pub async fn try_register(&mut self) -> Result<(), u16> {
        self.tell(PhoneCommand::Register).await;
        self.wait("a registration", |event| match *event {
            PhoneEvent::Registered { expires_s } => {
                assert!(expires_s > 0, "it is over at once");
                Some(Ok(()))
            }
            PhoneEvent::RegistrationFailed { status } => Some(Err(status)),
            _ => None,
        })
        .await
    }

    /// Calls a number.
    pub async fn dial(&mut self, number: &str) -> PhoneCall {
        self.last += 1;
        let call = PhoneCall(self.last);
        self.tell(PhoneCommand::Call { call, number: Pii::new(number.into()) }).await;
        call
    }

    /// Calls a number and waits for the answer.
    ///
    /// # Panics
    /// When it is not answered.
    pub async fn talk(&mut self, number: &str) -> PhoneCall {
        let call = self.dial(number).await;
        self.outcome(call).await.unwrap_or_else(|status| panic!("not answered: {status}"));
        call
    }

    /// Waits until a call is answered, or not.
    ///
    /// # Errors
    /// The final status of a call that is not answered.
    ///
    /// # Panics
    /// When neither comes.
    pub async fn outcome(&mut self, wanted: PhoneCall) -> Result<(), u16> {
        self.wait("an answer", |event| match *event {
            PhoneEvent::Answered { call } if call == wanted => Some(Ok(())),
            PhoneEvent::Failed { call, status } if call == wanted => Some(Err(status)),
            _ => None,
        })
        .await
    }

    /// Waits until a call rings.
    ///
    /// # Panics
    /// When it does not.
    pub async fn rings(&mut self, wanted: PhoneCall) {
        let rings =
            |event: &PhoneEvent| matches!(*event, PhoneEvent::Progress { call, status: 180, .. } if call == wanted);
        self.wait("ringing", |event| rings(event).then_some(())).await;
    }

    /// Gives a call up that is not answered yet.
    pub async fn give_up(&self, call: PhoneCall) {
        self.tell(PhoneCommand::HangUp { call }).await;
    }

    /// Hangs up and waits for the end.
    ///
    /// # Panics
    /// When the call has ended in another way.
    pub async fn hang_up(&mut self, call: PhoneCall) {
        self.tell(PhoneCommand::HangUp { call }).await;
        assert!(self.ended(call).await, "the phone hung up, not the server");
    }

    /// Waits until an answered call is over; true when the phone hung up.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn ended(&mut self, wanted: PhoneCall) -> bool {
        self.wait("the end of a call", |event| match *event {
            PhoneEvent::Ended { call, by_phone, .. } if call == wanted => Some(by_phone),
            _ => None,
        })
        .await
    }

    /// Whether an answered call is still up, as far as the phone has heard.
    pub fn is_up(&mut self, wanted: PhoneCall) -> bool {
        while let Ok(event) = self.events.try_recv() {
            self.seen.push(event);
        }
        !self.seen.iter().any(|event| matches!(*event, PhoneEvent::Ended { call, .. } if call == wanted))
    }

    async fn wait<T>(&mut self, what: &str, is_it: impl Fn(&PhoneEvent) -> Option<T>) -> T {
        let found = self.seen.iter().enumerate().find_map(|(at, event)| Some((at, is_it(event)?)));
        if let Some((at, found)) = found {
            self.seen.remove(at);
            return found;
        }
        let waiting = async {
            loop {
                let event = self.events.recv().await.expect("the phone runs");
                if let Some(found) = is_it(&event) {
                    return found;
                }
                self.seen.push(event);
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what} did not come"))
    }
}
