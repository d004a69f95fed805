//! Whose data a key protects, and what kind of data.

use schema::id::{AccountKey, UserId};
use std::fmt;

/// Whose personal data it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// An account's.
    Account(AccountKey),
    /// A person's who signs in.
    User(UserId),
}

/// How long data is kept, and so which key seals it (DESIGN §9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Names, e-mail addresses, caller IDs, callback numbers, SIP secrets.
    Identity,
    /// Numbers dialled and presented, call records, events.
    Calls,
    /// Invoices.
    Billing,
    /// IP addresses, registrations.
    Tech,
}

impl Class {
    /// All of them, in the order of their columns.
    pub const ALL: [Self; 4] = [Self::Identity, Self::Calls, Self::Billing, Self::Tech];

    /// Its column in the key store, and its word in a seal's associated data.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Calls => "calls",
            Self::Billing => "billing",
            Self::Tech => "tech",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What can go wrong with keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The subject's key was destroyed: nothing can be sealed under it any more.
    #[error("the {0} key of this subject was destroyed")]
    Destroyed(Class),
    /// The subject has no keys.
    #[error("this subject has no keys")]
    Missing,
}
