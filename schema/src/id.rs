//! Typed identities. Public ones are UUIDv7; hot tables use account-local integers beside them.

use crate::entropy::Entropy;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new identity for something that begins at `at`.
            pub fn generate(entropy: &mut Entropy, at: Timestamp) -> Self {
                Self(entropy.uuid_v7(at))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                Uuid::from_str(s).map(Self)
            }
        }
    )*};
}

ids! {
    /// A paying entity.
    AccountId
    /// One call: an A-leg and its B-leg attempts.
    CallId
    /// A caller ID of an account.
    CallerIdId
    /// A callback number of an account.
    CallbackNumberId
    /// A SIP credential.
    CredentialId
    /// A person who signs in.
    UserId
    /// A web session.
    SessionId
    /// A device token of a mobile app.
    DeviceTokenId
    /// A brand: domain, realm, service number.
    BrandId
    /// A trunk: one carrier's gateway.
    TrunkId
    /// A rate deck.
    DeckId
    /// One version of a rate deck; calls keep the version they were rated with.
    DeckVersionId
    /// A ledger transfer.
    TransferId
}

/// The integer key of an account row: small, dense, never shown outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AccountKey(pub i64);

/// The n-th call of its account, from 1. (account key, call number) is the key of calls, holds, attempts and CDRs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct CallNo(pub i64);

/// The n-th journal entry of its account, from 1; 0 means none yet. Also the order of its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Seq(pub i64);

impl Seq {
    /// The next one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl CallNo {
    /// The next one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
