//! Accounts: what one is, which numbers it may present, its limits and its SIP credentials.

use crate::id::{AccountId, AccountKey, CallNo, CallbackNumberId, CallerIdId, CredentialId, DeckId, Seq};
use crate::money::{Currency, Micros, NanosPerMinute};
use crate::number::{CallbackNumber, E164};
use crate::pii::Pii;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Where an account stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AccountStatus {
    /// Signed up, e-mail not yet verified: no paid calls.
    Pending,
    /// In use.
    Active,
    /// In use under tighter limits.
    Limited,
    /// No new calls; live calls end.
    Suspended,
    /// Closing was asked for; no new calls.
    Closing,
    /// Closed; retention periods run.
    Closed,
}

impl AccountStatus {
    /// The word stored in the database and shown by the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Active => "ACTIVE",
            Self::Limited => "LIMITED",
            Self::Suspended => "SUSPENDED",
            Self::Closing => "CLOSING",
            Self::Closed => "CLOSED",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Pending, Self::Active, Self::Limited, Self::Suspended, Self::Closing, Self::Closed]
            .into_iter()
            .find(|s| s.as_str() == text)
    }
}

/// What an account may do at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Calls at the same time.
    pub live_calls: u32,
    /// New calls in any 60 seconds.
    pub calls_per_minute: u32,
    /// Longest call, in seconds.
    pub call_seconds: u32,
    /// Dearest destination, per minute; dearer ones are refused. `None`: no bound.
    pub rate_per_minute: Option<NanosPerMinute>,
}

/// What a new account gets: little enough that a stolen password costs little before somebody looks; an operator raises it (D16).
impl Default for Limits {
    fn default() -> Self {
        Self {
            live_calls: 2,
            calls_per_minute: 10,
            call_seconds: 7_200,
            rate_per_minute: Some(NanosPerMinute(500_000_000)),
        }
    }
}

/// How it was proved that a number belongs to the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Evidence {
    /// The number was assigned to the account by us.
    Assigned,
    /// A code given in a call.
    CallCode,
    /// A code sent by SMS.
    SmsCode,
    /// Documents reviewed by an operator (letter of authorization).
    Document,
    /// The operator's word, on record.
    Operator,
}

impl Evidence {
    /// How far it allows a call presenting the number to be attested: A only for numbers we assigned, or documents (LOA with identity
    /// check); B for a known customer without that.
    #[must_use]
    pub const fn attestation(self) -> Attestation {
        match self {
            Self::Assigned | Self::Document => Attestation::A,
            Self::CallCode | Self::SmsCode | Self::Operator => Attestation::B,
        }
    }
}

/// SHAKEN attestation level (ATIS-1000074). C is never issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the level of that name")]
pub enum Attestation {
    A,
    B,
}

/// Where a caller ID or callback number stands in its verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CallerIdStatus {
    /// Added, not proved.
    Unverified,
    /// A proof has begun.
    Pending,
    /// Proved.
    Verified,
    /// The proof ran out.
    Expired,
    /// Taken back.
    Revoked,
    /// Another account proved it since.
    Contested,
}

/// A number of the account that may be presented once verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerId {
    /// Identity.
    pub id: CallerIdId,
    /// The number.
    pub number: E164,
    /// The owner's name for it.
    pub label: Option<Pii<String>>,
    /// State of its proof as it was given; what it is by now [`CallerId::status_at`] tells.
    pub status: CallerIdStatus,
    /// What proved it.
    pub evidence: Option<Evidence>,
    /// Presented when a call names none.
    pub is_default: bool,
    /// When it was proved.
    pub verified_at: Option<Timestamp>,
    /// When the proof ends.
    pub expires_at: Option<Timestamp>,
}

impl CallerId {
    /// State of its proof at `at`: one that ran out is kept as it was given.
    #[must_use]
    pub fn status_at(&self, at: Timestamp) -> CallerIdStatus {
        let has_run_out = self.expires_at.is_some_and(|end| end <= at);
        match self.status {
            CallerIdStatus::Verified if has_run_out => CallerIdStatus::Expired,
            status => status,
        }
    }
}

/// The subscriber's own phone, for callbacks. Never presented.
#[derive(Clone)]
pub struct CallbackPhone {
    /// Identity.
    pub id: CallbackNumberId,
    /// The number.
    pub number: CallbackNumber,
    /// The owner's name for it.
    pub label: Option<Pii<String>>,
    /// State of its proof.
    pub status: CallerIdStatus,
}

/// Without number and label.
impl std::fmt::Debug for CallbackPhone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallbackPhone").field("id", &self.id).field("status", &self.status).finish_non_exhaustive()
    }
}

/// A SIP username with its secret, as a digest server needs it. The password itself is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SipCredential {
    /// Identity.
    pub id: CredentialId,
    /// Whose it is.
    pub account: AccountKey,
    /// The username, unique within the realm.
    pub username: Box<str>,
    /// The owner's name for it.
    pub label: Pii<String>,
    /// `H(username:realm:password)` for both digest algorithms.
    pub secret: Pii<Ha1>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// HA1 of RFC 7616 §3.4.2 for MD5 and SHA-256: as good as the password within its realm.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ha1 {
    /// `MD5(username:realm:password)`.
    pub md5: [u8; 16],
    /// `SHA-256(username:realm:password)`.
    pub sha256: [u8; 32],
}

/// What does not change with every call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountProfile {
    /// Public identity.
    pub id: AccountId,
    /// Key of its rows.
    pub key: AccountKey,
    /// Its one currency; equal to its deck's.
    pub currency: Currency,
    /// ISO 3166-1 alpha-2: how national numbers are read.
    pub country: Box<str>,
    /// IANA time zone.
    pub time_zone: Box<str>,
    /// The rate deck it pays by.
    pub deck: DeckId,
    /// Its limits.
    pub limits: Limits,
}

/// The figures of an account after its journal entry `seq`, in whose row they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountFigures {
    /// The last committed entry.
    pub seq: Seq,
    /// Standing.
    pub status: AccountStatus,
    /// Posted transfers (the balance's `total`).
    pub total: Micros,
    /// Held by live calls (the balance's `reserved`). `total - held` is available and never negative (invariant L1).
    pub held: Micros,
    /// What a chargeback left owing.
    pub receivable: Micros,
    /// The number of the last call.
    pub last_call: CallNo,
}

impl AccountFigures {
    /// What can still be held. Never negative (invariant L1).
    #[must_use]
    pub fn available(&self) -> Micros {
        self.total - self.held
    }
}
