//! The built-in test carrier on a UDP socket of the test's own, so that the test hears what reaches it.

use crate::wire::{Recorded, Side, Wire};
use schema::entropy::Entropy;
use sip::demo::carrier::{Carrier, CarrierCommand, CarrierEvent, CarrierLogin};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

/// A carrier that tells what it sees.
pub struct TestCarrier {
    /// Where it takes calls.
    pub address: SocketAddr,
    events: mpsc::Receiver<CarrierEvent>,
    commands: mpsc::Sender<CarrierCommand>,
}

impl TestCarrier {
    /// Starts one on a free port.
    ///
    /// # Panics
    /// When there is no socket for it.
    pub async fn start() -> Self {
        Self::recorded(&Wire::default()).await
    }

    /// Starts one that asks for credentials.
    ///
    /// # Panics
    /// When there is no socket for it.
    pub async fn asking(login: &CarrierLogin) -> Self {
        Self::with(Ipv4Addr::LOCALHOST.into(), &Wire::default(), |carrier| carrier.asking(login).expect("a realm"))
            .await
    }

    /// Starts one whose messages are recorded.
    ///
    /// # Panics
    /// When there is no socket for it.
    pub async fn recorded(wire: &Wire) -> Self {
        Self::at(Ipv4Addr::LOCALHOST.into(), wire).await
    }

    /// Starts one at this address of the machine.
    ///
    /// # Panics
    /// When there is no socket for it.
    pub async fn at(ip: IpAddr, wire: &Wire) -> Self {
        Self::with(ip, wire, |carrier| carrier).await
    }

    async fn with(ip: IpAddr, wire: &Wire, made: impl FnOnce(Carrier) -> Carrier) -> Self {
        let socket = UdpSocket::bind((ip, 0)).await.expect("a socket");
        let address = socket.local_addr().expect("an address");
        let carrier = Carrier::new(Entropy::from_number(address.port().into()), address, 10_000);
        let mut carrier = Recorded::new(made(carrier), Side::Callee, wire.clone());
        let (commands, commands_in) = mpsc::channel(1);
        let (events_out, events) = mpsc::channel(4_096);
        let clock = ringfence::clock::system();
        tokio::spawn(async move { sip::demo::run(&socket, &mut carrier, &clock, commands_in, &events_out).await });
        Self { address, events, commands }
    }

    /// Tells it something; what arrives there afterwards meets it changed.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn tell(&self, command: CarrierCommand) {
        self.commands.send(command).await.expect("the carrier runs");
        // There is room for one: it has taken this one out before it looks at a datagram again.
        drop(self.commands.reserve().await.expect("the carrier runs"));
    }

    /// Waits for this to happen; what happens before is passed over.
    ///
    /// # Panics
    /// When it does not happen.
    pub async fn until(&mut self, wanted: CarrierEvent) {
        while self.event().await != wanted {}
    }

    /// What has happened and was not looked at yet.
    pub fn so_far(&mut self) -> Vec<CarrierEvent> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    /// The next thing that happened.
    ///
    /// # Panics
    /// When nothing does.
    pub async fn event(&mut self) -> CarrierEvent {
        let event = tokio::time::timeout(Duration::from_secs(60), self.events.recv()).await;
        event.expect("something in time").expect("the carrier runs")
    }
}
