//! Calls as everyone but SIP sees them: what is shown live, what is stored while one lasts, and the CDR it leaves.

use crate::account::Attestation;
use crate::carrier::Gateway;
use crate::id::{CallId, CallNo, CredentialId, TrunkId};
use crate::ledger::CarrierCost;
use crate::leg::AttemptIds;
use crate::money::{Currency, Micros, NanosPerMinute};
use crate::number::E164;
use crate::pii::Pii;
use crate::rate::{RateApplied, RateTerms};
use crate::target::GatewayName;
use crate::time::{ClockReading, Timestamp};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// How a call begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CallMode {
    /// The customer's softphone sends an INVITE.
    Softphone,
    /// We ring the customer's phone first, then the destination.
    Callback,
}

/// Where a call is.
///
/// ```text
/// AUTHORIZING ─► ROUTING ─► RINGING ─► ANSWERED ─► ENDING ─► ENDED
///      │            └──────────┴───────────────────────────► ENDED (failed, cancelled)
///      └─► REFUSED        (callback: AUTHORIZING ─► RINGING_CALLER ─► ROUTING)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CallState {
    /// The account is asked.
    Authorizing,
    /// Granted; the INVITE to a carrier is out, nothing heard yet.
    Routing,
    /// Callback: the customer's phone rings.
    RingingCaller,
    /// The destination rings.
    Ringing,
    /// Both talk; charged.
    Answered,
    /// One leg has ended, the other is being ended.
    Ending,
    /// Over; settled.
    Ended,
    /// Never allowed; see the refusal.
    Refused,
}

impl CallState {
    /// Ended or refused: nothing changes any more.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Ended | Self::Refused)
    }
}

/// Which leg: A towards the caller, B towards the called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the leg of that name")]
pub enum LegSide {
    A,
    B,
}

impl LegSide {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// Who ended a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum HangupSide {
    /// The customer.
    Caller,
    /// The person called.
    Callee,
    /// We did: the money ended, a limit, a hang-up from the dashboard, a drain.
    Service,
    /// The carrier, or it could not be reached.
    Carrier,
}

/// Why a call was refused. One table ([`RefusalCode::sip_status`], [`RefusalCode::as_str`]) gives SIP code, GraphQL code,
/// log field and metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the codes of contract.graphql")]
pub enum RefusalCode {
    InsufficientBalance,
    CallerIdUnverified,
    CallerIdMissing,
    AccountNotActive,
    DestinationInvalid,
    DestinationNotPermitted,
    EmergencyNotSupported,
    NoRate,
    NoRoute,
    TooManyCalls,
    TooFast,
    SpendLimit,
    FraudSuspected,
    Overloaded,
    Draining,
    Unavailable,
}

impl RefusalCode {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::InsufficientBalance,
        Self::CallerIdUnverified,
        Self::CallerIdMissing,
        Self::AccountNotActive,
        Self::DestinationInvalid,
        Self::DestinationNotPermitted,
        Self::EmergencyNotSupported,
        Self::NoRate,
        Self::NoRoute,
        Self::TooManyCalls,
        Self::TooFast,
        Self::SpendLimit,
        Self::FraudSuspected,
        Self::Overloaded,
        Self::Draining,
        Self::Unavailable,
    ];

    /// The final response the caller's phone gets.
    #[must_use]
    pub const fn sip_status(self) -> u16 {
        match self {
            Self::InsufficientBalance => 402,
            Self::CallerIdUnverified | Self::CallerIdMissing => 403,
            Self::AccountNotActive | Self::DestinationNotPermitted | Self::EmergencyNotSupported => 403,
            Self::SpendLimit | Self::FraudSuspected => 403,
            Self::DestinationInvalid => 484,
            Self::NoRate | Self::NoRoute => 404,
            Self::TooManyCalls | Self::TooFast => 480,
            Self::Overloaded | Self::Draining | Self::Unavailable => 503,
        }
    }

    /// The word in the API, in logs and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InsufficientBalance => "INSUFFICIENT_BALANCE",
            Self::CallerIdUnverified => "CALLER_ID_UNVERIFIED",
            Self::CallerIdMissing => "CALLER_ID_MISSING",
            Self::AccountNotActive => "ACCOUNT_NOT_ACTIVE",
            Self::DestinationInvalid => "DESTINATION_INVALID",
            Self::DestinationNotPermitted => "DESTINATION_NOT_PERMITTED",
            Self::EmergencyNotSupported => "EMERGENCY_NOT_SUPPORTED",
            Self::NoRate => "NO_RATE",
            Self::NoRoute => "NO_ROUTE",
            Self::TooManyCalls => "TOO_MANY_CALLS",
            Self::TooFast => "TOO_FAST",
            Self::SpendLimit => "SPEND_LIMIT",
            Self::FraudSuspected => "FRAUD_SUSPECTED",
            Self::Overloaded => "OVERLOADED",
            Self::Draining => "DRAINING",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

/// A refusal, with what to tell the customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Which rule refused.
    pub code: RefusalCode,
    /// One sentence for the customer: the value that decided and what would help. No personal data.
    pub message: String,
}

/// One route that was thought of, tried or left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteCandidate {
    /// The carrier's name.
    pub carrier: String,
    /// The prefix of its deck that matched; empty when none did.
    pub prefix: Box<str>,
    /// What it charges us; operators only.
    pub cost_per_minute: Option<NanosPerMinute>,
    /// Of the cost.
    pub currency: Currency,
    /// What became of it: `excluded: …`, `planned`, `answered`, `486 Busy Here` …
    pub outcome: String,
}

/// Why this route and this caller ID; or why refused. The price is its leg's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Explanation {
    /// Routes in the order tried, with those excluded and why.
    pub candidates: Vec<RouteCandidate>,
    /// Set when the call was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Box<Refusal>>,
    /// Why the call is attested as it is.
    pub attestation_basis: Option<Cow<'static, str>>,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hangup {
    /// Who ended it.
    pub side: HangupSide,
    /// Final SIP status, where one decided.
    pub sip_code: Option<u16>,
    /// Q.850 cause.
    pub q850: Option<u8>,
    /// In words, from a fixed list.
    pub reason: String,
    /// Where to complain about a block (603, 607, 608): the card that a network names in Call-Info.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redress: Option<String>,
}

/// What one leg costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallLeg {
    /// Which.
    pub side: LegSide,
    /// The rate fixed at authorization; `None` for a leg that is free of charge.
    pub rate: Option<RateApplied>,
    /// Seconds billed so far.
    pub billed_seconds: u64,
    /// Cost so far.
    pub cost: Micros,
}

/// A call as shown: live, in events and in the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Identity.
    pub id: CallId,
    /// Where it is.
    pub state: CallState,
    /// How it began.
    pub mode: CallMode,
    /// As the phone sent it; `None` once erased.
    pub dialled: Option<Pii<String>>,
    /// `None` when it is no E.164 number, or erased.
    pub destination: Option<E164>,
    /// The caller ID shown; `None` when withheld or refused.
    pub presented_number: Option<E164>,
    /// Whether the caller ID is withheld.
    pub withheld: bool,
    /// How far the number's proof allows it to be attested. Nothing is signed yet.
    pub attestation: Option<Attestation>,
    /// When it was asked for.
    pub started_at: Timestamp,
    /// When the B-leg answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_at: Option<Timestamp>,
    /// When it was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Of all costs.
    pub currency: Currency,
    /// So far while it lasts; then what was charged.
    pub cost: Micros,
    /// Seconds billed, over all legs.
    pub billed_seconds: u64,
    /// One leg for a softphone call, two for a callback.
    pub legs: Vec<CallLeg>,
    /// Projected cut-off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub funded_until: Option<Timestamp>,
    /// The carrier's name; only after routing.
    pub route: Option<String>,
    /// From our INVITE to the first 180, early media or final answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_dial_delay_ms: Option<u32>,
    /// Set when it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hangup: Option<Box<Hangup>>,
    /// Why this route, price and caller ID.
    pub explanation: Explanation,
}

impl Call {
    /// The rate of the B-leg, fixed at authorization; `None` when the call was refused before its price, or its data was erased.
    #[must_use]
    pub fn rate(&self) -> Option<&RateApplied> {
        self.legs.iter().find(|leg| leg.side == LegSide::B)?.rate.as_ref()
    }
}

/// One try of a B-leg on one trunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// From 1 within the call.
    pub number: u8,
    /// The trunk tried.
    pub trunk: TrunkId,
    /// Its carrier's name.
    pub carrier: String,
    /// Next hop, as chosen before the hold is stored.
    pub gateway: Gateway,
    /// The trunk's name, when its gateway is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<GatewayName>,
    /// Next hops of the same trunk that were tried before in this call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<Gateway>,
    /// Call-ID, From-tag, branch and CSeq of its INVITE, fixed before it is stored, so that it can be repeated byte for byte.
    pub ids: AttemptIds,
    /// What the carrier charges for it.
    pub cost: RateTerms,
    /// Of the cost.
    pub cost_currency: Currency,
    /// When it began.
    pub started_at: Timestamp,
}

impl Attempt {
    /// Next hops of its trunk that were tried in this call, with its own.
    #[must_use]
    pub fn hops_tried(&self) -> Vec<Gateway> {
        self.tried.iter().copied().chain([self.gateway]).collect()
    }
}

/// An attempt that ended without an answer. Append-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Of which call.
    pub call: CallNo,
    /// From 1 within the call.
    pub number: u8,
    /// The trunk tried.
    pub trunk: TrunkId,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Final status; 408 for a time-out, 487 for one we cancelled.
    pub sip_code: u16,
}

/// What is stored of a call while it lasts: enough to rebuild its actor and its account's meter. Its dialogs stand apart
/// ([`crate::leg::Dialogs`]), and what each renewal changes has columns of its own, so it is no part of the serialized state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveCall {
    /// Its number within the account.
    pub no: CallNo,
    /// The credential that placed it.
    pub credential: Option<CredentialId>,
    /// As shown, as of the last journal entry.
    pub call: Call,
    /// Paid seconds per leg are derived from these: what is held, in steps of `Hold`.
    #[serde(skip)]
    pub held: Micros,
    /// The step of its last hold.
    #[serde(skip)]
    pub hold_step: u32,
    /// Seconds of the B-leg that the holds pay for.
    #[serde(skip)]
    pub paid_s: u64,
    /// The running or winning attempt.
    pub attempt: Option<Attempt>,
    /// The verified number behind the call, shown or withheld: the attempt's INVITE is made again with it after a restart.
    #[serde(default)]
    pub caller_id: Option<E164>,
    /// Its media are encrypted with keys that leave over TLS only: no other trunk can take it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_tls: bool,
    /// When the B-leg answered, by all clocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered: Option<ClockReading>,
    /// Its answer came too late, so the customer pays nothing; the carrier is owed for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late_answer: bool,
    /// The last moment the call was known to be up, by all clocks: its answer, then the caller's last sign of life before each
    /// renewal.
    #[serde(skip)]
    pub proof_of_life: Option<ClockReading>,
}

impl LiveCall {
    /// Answered, and nothing that is stored shows that the caller heard it: the process that died may have refused it since.
    #[must_use]
    pub fn is_unheard(&self) -> bool {
        self.answered.is_some() && self.proof_of_life == self.answered
    }

    /// Takes over what a renewal changes.
    pub const fn renew(&mut self, renewed: &Self) {
        self.held = renewed.held;
        self.hold_step = renewed.hold_step;
        self.paid_s = renewed.paid_s;
        self.proof_of_life = renewed.proof_of_life;
    }
}

/// The immutable record of one call (invariant C3: exactly one for each).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cdr {
    /// Its number within the account.
    pub no: CallNo,
    /// The credential that placed it.
    pub credential: Option<CredentialId>,
    /// As shown: ended or refused.
    pub call: Call,
    /// The verified number behind a call that withheld it: a trusted carrier was told it. One that was shown stands in the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld_number: Option<E164>,
    /// Talk time of the B-leg in milliseconds; 0 when not answered.
    pub talk_ms: u64,
    /// What the customer was charged.
    pub charged: Micros,
    /// The part of the true price that could not be charged.
    pub loss: Micros,
    /// What the carrier charges us.
    pub carrier_cost: Option<CarrierCost>,
    /// How many trunks were tried.
    pub attempts: u8,
}
