//! Calls, live and past.

use crate::app::Identity;
use crate::error::ApiError;
use crate::types::money::{Money, Rate};
use crate::types::page::{Page, PageInfo};
use crate::types::scalar::{DateTime, PhoneNumber, int};
use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject};
use schema::account::Attestation as SchemaAttestation;
use schema::money::Currency;
use schema::pii::Pii;
use std::sync::Arc;

/// How a call begins.
#[derive(Debug, Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "schema::call::CallMode")]
pub(crate) enum CallMode {
    /// The customer's softphone calls.
    Softphone,
    /// The customer's own phone is rung first, then the destination.
    Callback,
}

/// Where a call is.
#[derive(Debug, Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "schema::call::CallState")]
pub(crate) enum CallState {
    /// The account is asked.
    Authorizing,
    /// Granted; a carrier was asked, nothing heard yet.
    Routing,
    /// Callback: the customer's phone rings.
    RingingCaller,
    /// The destination rings.
    Ringing,
    /// Both talk; it is charged.
    Answered,
    /// One side has ended, the other is being ended.
    Ending,
    /// Over and settled.
    Ended,
    /// Never allowed; see the refusal.
    Refused,
}

/// Who ended a call.
#[derive(Debug, Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "schema::call::HangupSide")]
pub(crate) enum HangupSide {
    /// The customer.
    Caller,
    /// The person called.
    Callee,
    /// We did: the money ended, a limit, a hang-up from the dashboard.
    Service,
    /// The carrier, or it could not be reached.
    Carrier,
}

/// Which leg of a call: A towards the caller, B towards the called.
#[derive(Debug, Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "schema::call::LegSide")]
pub(crate) enum LegSide {
    A,
    B,
}

/// How far a number's proof allows a call to be attested (SHAKEN). C is never issued. Calls are not signed yet.
#[derive(Debug, Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "SchemaAttestation")]
pub(crate) enum Attestation {
    A,
    B,
}

/// Why a call was refused. A refused call is a Call in state REFUSED, not a GraphQL error. Of a phone that redials without end the
/// first ten of a minute are kept, or as many as the account may begin.
#[derive(Debug, Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "schema::call::RefusalCode")]
pub(crate) enum RefusalCode {
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

/// A call, with values as of one moment.
pub(crate) struct Call(pub(crate) Arc<schema::call::Call>);

impl From<schema::call::Call> for Call {
    fn from(call: schema::call::Call) -> Self {
        Self(Arc::new(call))
    }
}

/// A call: one leg towards the caller and one towards the called.
#[Object]
impl Call {
    pub(crate) async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }
    async fn state(&self) -> CallState {
        self.0.state.into()
    }
    async fn mode(&self) -> CallMode {
        self.0.mode.into()
    }
    /// As the phone sent it; null once erased.
    async fn dialled(&self) -> Option<&str> {
        self.0.dialled.as_ref().map(|dialled| dialled.expose().as_str())
    }
    /// Null when it is no E.164 number, or erased.
    async fn destination(&self) -> Option<PhoneNumber> {
        self.0.destination.clone().map(PhoneNumber)
    }
    /// The caller ID shown to the person called; null when withheld or refused.
    async fn presented_number(&self) -> Option<PhoneNumber> {
        self.0.presented_number.clone().map(PhoneNumber)
    }
    /// Whether the caller ID is withheld.
    async fn withheld(&self) -> bool {
        self.0.withheld
    }
    async fn attestation(&self) -> Option<Attestation> {
        self.0.attestation.map(Into::into)
    }
    async fn started_at(&self) -> DateTime {
        DateTime(self.0.started_at)
    }
    async fn answered_at(&self) -> Option<DateTime> {
        self.0.answered_at.map(DateTime)
    }
    async fn ended_at(&self) -> Option<DateTime> {
        self.0.ended_at.map(DateTime)
    }
    /// So far while it lasts; then what was charged.
    async fn cost(&self) -> Money {
        Money::new(self.0.cost, self.0.currency)
    }
    async fn billed_seconds(&self) -> i32 {
        int(self.0.billed_seconds)
    }
    /// What each leg costs: one for a softphone call, two for a callback.
    async fn legs(&self) -> Vec<CallLeg> {
        self.0.legs.iter().map(|leg| CallLeg::new(leg, self.0.currency)).collect()
    }
    /// Projected cut-off from its hold and the shared available money at the present burn.
    async fn funded_until(&self) -> Option<DateTime> {
        self.0.funded_until.map(DateTime)
    }
    /// The carrier's name; only after routing.
    async fn route(&self) -> Option<&str> {
        self.0.route.as_deref()
    }
    /// From our INVITE to the first sign of ringing or the final answer.
    async fn post_dial_delay_ms(&self) -> Option<i32> {
        self.0.post_dial_delay_ms.map(|ms| int(ms.into()))
    }
    async fn hangup(&self) -> Option<Hangup> {
        self.0.hangup.as_deref().map(Hangup::new)
    }
    /// Why this route, this price, this caller ID; or why refused.
    async fn explanation(&self, ctx: &Context<'_>) -> Explanation {
        Explanation::new(&self.0.explanation, self.0.rate(), self.0.currency, Identity::of(ctx).sees_costs())
    }
}

/// What one leg of a call costs.
#[derive(Debug, SimpleObject)]
pub(crate) struct CallLeg {
    side: LegSide,
    /// Null for a leg that is free of charge.
    rate: Option<RateApplied>,
    billed_seconds: i32,
    cost: Money,
}

impl CallLeg {
    fn new(leg: &schema::call::CallLeg, currency: Currency) -> Self {
        Self {
            side: leg.side.into(),
            rate: leg.rate.as_ref().map(|rate| RateApplied::new(rate, currency)),
            billed_seconds: int(leg.billed_seconds),
            cost: Money::new(leg.cost, currency),
        }
    }
}

/// How a call ended.
#[derive(Debug, SimpleObject)]
pub(crate) struct Hangup {
    side: HangupSide,
    /// Final SIP status, where one decided.
    sip_code: Option<i32>,
    /// Cause of ITU-T Q.850.
    q850: Option<i32>,
    /// In words.
    reason: String,
    /// Where to complain about a block (603, 607, 608): the card that a network names in Call-Info.
    redress: Option<String>,
}

impl Hangup {
    fn new(hangup: &schema::call::Hangup) -> Self {
        Self {
            side: hangup.side.into(),
            sip_code: hangup.sip_code.map(i32::from),
            q850: hangup.q850.map(i32::from),
            reason: hangup.reason.clone(),
            redress: hangup.redress.clone(),
        }
    }
}

/// Why a call went, or would go, as it did.
#[derive(Debug, SimpleObject)]
pub(crate) struct Explanation {
    rate: Option<RateApplied>,
    /// In the order tried, with those excluded and why.
    candidates: Vec<RouteCandidate>,
    /// Set when the call was refused.
    refusal: Option<Refusal>,
    /// Why the call is attested as it is.
    attestation_basis: Option<String>,
}

impl Explanation {
    pub(crate) fn new(
        explanation: &schema::call::Explanation,
        rate: Option<&schema::rate::RateApplied>,
        currency: Currency,
        sees_costs: bool,
    ) -> Self {
        Self {
            rate: rate.map(|rate| RateApplied::new(rate, currency)),
            candidates: explanation.candidates.iter().map(|route| RouteCandidate::new(route, sees_costs)).collect(),
            refusal: explanation.refusal.as_deref().map(Refusal::new),
            attestation_basis: explanation.attestation_basis.as_deref().map(str::to_owned),
        }
    }
}

/// One line of a rate deck as it is applied to a leg.
#[derive(Debug, SimpleObject)]
pub(crate) struct RateApplied {
    /// The deck's name.
    deck: String,
    deck_version: ID,
    /// The longest matching prefix, digits without plus.
    prefix: String,
    /// The destination's name in the deck.
    destination: String,
    per_minute: Rate,
    /// Charged once when the call is answered.
    connect_fee: Money,
    /// The first billing step.
    minimum_seconds: i32,
    /// Each further billing step.
    increment_seconds: i32,
    /// Whether the prices include tax.
    tax_included: bool,
}

impl RateApplied {
    pub(crate) fn new(rate: &schema::rate::RateApplied, currency: Currency) -> Self {
        Self {
            deck: rate.deck.to_string(),
            deck_version: rate.deck_version.to_string().into(),
            prefix: rate.prefix.to_string(),
            destination: rate.destination.to_string(),
            per_minute: Rate::new(rate.terms.per_minute, currency),
            connect_fee: Money::new(rate.terms.connect_fee, currency),
            minimum_seconds: int(rate.terms.minimum_s.into()),
            increment_seconds: int(rate.terms.increment_s.into()),
            tax_included: rate.tax_included,
        }
    }
}

/// One route that was thought of.
#[derive(Debug, SimpleObject)]
pub(crate) struct RouteCandidate {
    carrier: String,
    /// The prefix of the carrier's deck that matched.
    prefix: String,
    /// What the carrier charges; operators only.
    cost_per_minute: Option<Rate>,
    /// What became of it.
    outcome: String,
}

impl RouteCandidate {
    fn new(route: &schema::call::RouteCandidate, sees_costs: bool) -> Self {
        Self {
            carrier: route.carrier.clone(),
            prefix: route.prefix.to_string(),
            cost_per_minute: route.cost_per_minute.filter(|_| sees_costs).map(|cost| Rate::new(cost, route.currency)),
            outcome: route.outcome.clone(),
        }
    }
}

/// Why a call was refused, and what would help.
#[derive(Debug, SimpleObject)]
pub(crate) struct Refusal {
    code: RefusalCode,
    message: String,
}

impl Refusal {
    fn new(refusal: &schema::call::Refusal) -> Self {
        Self { code: refusal.code.into(), message: refusal.message.clone() }
    }
}

/// Which calls of a history are wanted. The range of time is half-open: `from <= startedAt < to`.
#[derive(InputObject)]
pub(crate) struct CallFilter {
    from: Option<DateTime>,
    to: Option<DateTime>,
    /// First characters of the destination, with the plus.
    destination_prefix: Option<String>,
    /// ENDED or REFUSED; calls in another state are in `liveCalls`.
    state: Option<CallState>,
}

impl CallFilter {
    /// For the store, or what is wrong with it.
    pub(crate) fn checked(self) -> Result<storage::CallFilter, ApiError> {
        let is_prefix = |text: &str| {
            text.strip_prefix('+')
                .is_some_and(|digits| digits.len() <= 15 && digits.bytes().all(|b| b.is_ascii_digit()))
        };
        if self.destination_prefix.as_deref().is_some_and(|prefix| !is_prefix(prefix)) {
            let allowed = "must be a plus and at most 15 digits";
            return Err(ApiError::invalid("filter.destinationPrefix", "(…)", allowed));
        }
        Ok(storage::CallFilter {
            from: self.from.map(|time| time.0),
            to: self.to.map(|time| time.0),
            state: self.state.map(Into::into),
            destination_prefix: self.destination_prefix.map(Pii::new),
        })
    }
}

/// A page of calls.
#[derive(SimpleObject)]
pub(crate) struct CallConnection {
    edges: Vec<CallEdge>,
    page_info: PageInfo,
    /// Null where counting would cost as much as reading.
    total_count: Option<i32>,
}

/// A call in a page.
#[derive(SimpleObject)]
pub(crate) struct CallEdge {
    cursor: String,
    node: Call,
}

impl CallConnection {
    pub(crate) fn new(page: Page<Call>, total_count: Option<i32>) -> Self {
        let edges = page.entries.into_iter().map(|(cursor, node)| CallEdge { cursor, node }).collect();
        Self { edges, page_info: page.info, total_count }
    }
}
