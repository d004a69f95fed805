//! What the SIP edge asks and is told beside call legs: credentials, bindings, trunks. Plain data.

use crate::account::SipCredential;
use crate::carrier::{TrunkDown, TrunkLogin, TrunkState};
use crate::id::{AccountKey, CredentialId, TrunkId};
use crate::pii::Pii;
use crate::target::{GatewayName, Targets, TrunkGateway};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A question's number; the answer carries it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What the SIP edge says.
#[derive(Debug, Clone)]
pub enum EdgeEvent {
    /// A request names this digest user; answered by [`EdgeCommand::Credential`] with the same ticket.
    CredentialWanted {
        /// To answer with.
        ticket: Ticket,
        /// At most 64 bytes.
        username: Box<str>,
    },
    /// A phone registered, refreshed or left.
    BindingChanged(Box<BindingChange>),
    /// A trunk's probes, its registration or its name brought something new.
    TrunkProbed {
        /// Which.
        trunk: TrunkId,
        /// Whether and where calls can be sent.
        state: TrunkState,
    },
    /// A name is to be looked up as RFC 3263 says; answered by [`EdgeCommand::Located`].
    NameWanted(GatewayName),
}

/// What the SIP edge is told.
#[derive(Debug, Clone)]
pub enum EdgeCommand {
    /// The answer to [`EdgeEvent::CredentialWanted`].
    Credential {
        /// Of the question.
        ticket: Ticket,
        /// What was found.
        found: CredentialLookup,
    },
    /// A credential was rotated or revoked: its bindings end at once.
    CredentialRevoked {
        /// Which.
        credential: CredentialId,
    },
    /// The trunks to probe and to accept requests from. Replaces the list before.
    Trunks(Vec<TrunkAddress>),
    /// The answer to [`EdgeEvent::NameWanted`].
    Located {
        /// The name.
        name: GatewayName,
        /// Where it leads, or why nowhere.
        found: Result<Located, TrunkDown>,
    },
    /// The server ends: carriers are told that we are not to be reached any more. Calls go on with the next process.
    Leaving,
    /// A binding kept from before a restart.
    BindingRestored {
        /// It.
        binding: Box<Binding>,
        /// Of its credential.
        username: Box<str>,
    },
    /// The legs of all calls from before a restart are resumed: whoever names another dialog is told that there is none.
    Recovered,
}

/// What is known of a digest username.
#[derive(Debug, Clone)]
pub enum CredentialLookup {
    /// It exists.
    Found(Box<SipCredential>),
    /// It does not. The edge answers as for a wrong password.
    Unknown,
    /// It could not be looked up: 503.
    Unavailable,
}

/// Where a name leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The targets, at least one.
    pub targets: Targets,
    /// How long that holds, seconds: the shortest TTL of the records used.
    pub ttl_s: u32,
}

/// A trunk as the edge knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkAddress {
    /// Which.
    pub trunk: TrunkId,
    /// Where it is.
    pub gateway: TrunkGateway,
    /// Large requests go over TCP.
    pub large_over_tcp: bool,
    /// How we show who we are; `None`: it knows our address.
    pub login: Option<Arc<TrunkLogin>>,
}

/// A registered phone (RFC 3261 §10, RFC 5626).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The credential it registered with.
    pub credential: CredentialId,
    /// Its account.
    pub account: AccountKey,
    /// Its Contact URI.
    pub contact: Pii<String>,
    /// `+sip.instance`, if given.
    pub instance: Option<Pii<String>>,
    /// Which of the phone's flows it is (`reg-id` of RFC 5626); `None`: its only one.
    #[serde(default)]
    pub reg_id: Option<u32>,
    /// Proxies between us and the phone, the nearest first (RFC 3327), as written in a Route.
    #[serde(default)]
    pub path: Vec<Pii<String>>,
    /// Where its REGISTER came from: transport, address and port. Over UDP that is its flow, which a restart does not end.
    pub source: Pii<String>,
    /// When it was refreshed: the newest flow of a phone is tried first. Zero in rows of programs that did not note it.
    #[serde(default)]
    pub registered_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// A change of a binding.
#[derive(Debug, Clone)]
pub struct BindingChange {
    /// The binding as it is now; its `expires_at` lies in the past when the phone left.
    pub binding: Binding,
    /// How many bindings the credential has now.
    pub bindings: u32,
}
