//! A DNS server on loopback for the names of test carriers: answers over UDP what it was told, as late as it was told, or not
//! at all.

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, NAPTR, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;

/// What it says.
#[derive(Default)]
struct Zone {
    records: BTreeMap<String, Vec<Record>>,
    late: Duration,
    asked: usize,
}

/// A running DNS server.
pub struct TestDns {
    /// Where it listens.
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
}

fn name(text: &str) -> Name {
    Name::from_ascii(format!("{text}.")).expect("a name")
}

impl TestDns {
    /// Starts one that knows no name.
    ///
    /// # Panics
    /// When there is no socket for it.
    pub async fn start() -> Self {
        let socket = Arc::new(UdpSocket::bind(("127.0.0.1", 0)).await.expect("a socket"));
        let (address, zone) = (socket.local_addr().expect("an address"), Arc::new(Mutex::new(Zone::default())));
        tokio::spawn(serve(socket, zone.clone()));
        Self { address, zone }
    }

    fn change(&self, change: impl FnOnce(&mut Zone)) {
        change(&mut self.zone.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn add(&self, of: &str, ttl: u32, data: RData) {
        let record = Record::from_rdata(name(of), ttl, data);
        self.change(|zone| zone.records.entry(of.to_owned()).or_default().push(record));
    }

    /// Adds a NAPTR record with the flag `s`.
    pub fn naptr(&self, of: &str, order: u16, service: &str, replacement: &str) {
        let bytes = |text: &str| text.as_bytes().to_vec().into_boxed_slice();
        let data = NAPTR::new(order, 0, bytes("s"), bytes(service), bytes(""), name(replacement));
        self.add(of, 300, RData::NAPTR(data));
    }

    /// Adds an SRV record.
    pub fn srv(&self, of: &str, priority: u16, port: u16, target: &str, ttl: u32) {
        self.add(of, ttl, RData::SRV(SRV::new(priority, 0, port, name(target))));
    }

    /// Says that a name is 127.0.0.1.
    pub fn loopback(&self, of: &str) {
        self.add(of, 300, RData::A(A(Ipv4Addr::LOCALHOST)));
    }

    /// Says that a name is ::1, and has no IPv4 address.
    pub fn loopback_v6(&self, of: &str) {
        self.add(of, 300, RData::AAAA(AAAA(Ipv6Addr::LOCALHOST)));
    }

    /// Says that this is the only server of a service from now on.
    pub fn only_srv(&self, of: &str, port: u16, target: &str, ttl: u32) {
        let data = RData::SRV(SRV::new(1, 0, port, name(target)));
        let record = Record::from_rdata(name(of), ttl, data);
        self.change(|zone| drop(zone.records.insert(of.to_owned(), vec![record])));
    }

    /// From now on it answers so late.
    pub fn late(&self, late: Duration) {
        self.change(|zone| zone.late = late);
    }

    /// How often it was asked.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner).asked
    }
}

async fn serve(socket: Arc<UdpSocket>, zone: Arc<Mutex<Zone>>) {
    let mut buffer = vec![0; 4_096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let Ok(request) = Message::from_vec(&buffer[..length]) else { continue };
        let (answer, late) = {
            let mut zone = zone.lock().unwrap_or_else(PoisonError::into_inner);
            zone.asked += 1;
            (answer(&zone, &request), zone.late)
        };
        let socket = socket.clone();
        tokio::spawn(async move {
            tokio::time::sleep(late).await;
            let _ = socket.send_to(&answer, from).await;
        });
    }
}

fn answer(zone: &Zone, request: &Message) -> Vec<u8> {
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.add_queries(request.queries.iter().cloned());
    for query in &request.queries {
        let of = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
        let kind: RecordType = query.query_type();
        match zone.records.get(&of) {
            Some(records) => {
                response.add_answers(records.iter().filter(|record| record.record_type() == kind).cloned());
            }
            None => response.metadata.response_code = ResponseCode::NXDomain,
        }
    }
    response.to_vec().expect("it can be written")
}
