//! Carriers' trunks, as calls are routed over them.

use crate::id::{DeckId, TrunkId};
use crate::money::Currency;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The transport to a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each is the transport of that name")]
pub enum GatewayTransport {
    Udp,
    Tcp,
    Tls,
}

/// Where a carrier takes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Gateway {
    /// Transport.
    pub transport: GatewayTransport,
    /// Address and port.
    pub address: SocketAddr,
}

/// A trunk: the commercial relation with a carrier and its gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trunk {
    /// Identity.
    pub id: TrunkId,
    /// The carrier's name, shown as the call's route.
    pub name: String,
    /// Where its calls go.
    pub gateway: Gateway,
    /// What it charges us in.
    pub currency: Currency,
    /// What it charges us by.
    pub deck: DeckId,
    /// Most calls at the same time.
    pub max_channels: u32,
    /// Most new calls a second.
    pub max_cps: u32,
    /// Lower is tried first among routes of equal cost.
    pub priority: i32,
    /// Inside our trust domain (RFC 3325): may be told P-Asserted-Identity of a withheld number and honours Privacy.
    pub trusted: bool,
}
