//! What a call would cost.

use crate::app::App;
use crate::error::ApiError;
use crate::types::call::{Attestation, Explanation, LegSide, RateApplied};
use crate::types::scalar::{PhoneNumber, int};
use actors::QuoteRequest;
use async_graphql::{ID, InputObject, OneofObject, SimpleObject};
use schema::id::{AccountKey, CallerIdId, CredentialId};
use schema::money::Currency;
use schema::pii::Pii;

/// From what a call begins.
#[derive(OneofObject)]
pub(crate) enum CallVia {
    /// The customer's own phone is rung first.
    CallbackNumberId(ID),
    /// A softphone.
    SipCredentialId(ID),
}

/// A call that somebody wants to make.
#[derive(InputObject)]
pub(crate) struct CallInput {
    /// As it would be dialled: in E.164, or as in the account's country. At most 64 characters.
    destination: String,
    /// The caller ID to show; without one, the default.
    caller_id_id: Option<ID>,
    /// Whether not to show it.
    #[graphql(default_with = "Some(false)")]
    withhold: Option<bool>,
    /// Without it, a softphone.
    via: Option<CallVia>,
}

impl CallInput {
    /// For the account that asks, or what is wrong with it.
    pub(crate) async fn checked(self, app: &App, account: AccountKey) -> Result<QuoteRequest, ApiError> {
        if self.destination.is_empty() || self.destination.chars().count() > 64 {
            return Err(ApiError::invalid("input.destination", "(…)", "must have 1 to 64 characters"));
        }
        match self.via {
            None => {}
            Some(CallVia::CallbackNumberId(_)) => {
                let allowed = "callbacks are not placed yet: leave it out, or name a SIP credential";
                return Err(ApiError::invalid("input.via.callbackNumberId", "(…)", allowed));
            }
            Some(CallVia::SipCredentialId(id)) => {
                let id: Option<CredentialId> = id.parse().ok();
                let known = app.store.credentials(account).await?;
                if !known.iter().any(|credential| Some(credential.id) == id) {
                    return Err(ApiError::not_found("SIP credential"));
                }
            }
        }
        let caller_id =
            self.caller_id_id.map(|id| id.parse::<CallerIdId>().map_err(|_| ApiError::not_found("caller ID")));
        Ok(QuoteRequest {
            destination: Pii::new(self.destination),
            caller_id: caller_id.transpose()?,
            withhold: self.withhold.unwrap_or(false),
        })
    }
}

/// What a call would cost, found by the same code as a live call.
#[derive(Debug, SimpleObject)]
pub(crate) struct Quote {
    /// Null when what was dialled is no number.
    destination: Option<PhoneNumber>,
    /// Empty when it would be refused before the price.
    legs: Vec<QuotedLeg>,
    /// How long the available money lasts, within the longest duration.
    affordable_seconds: i32,
    /// Null when withheld or refused.
    presented_number: Option<PhoneNumber>,
    attestation: Option<Attestation>,
    explanation: Explanation,
}

/// What one leg would cost.
#[derive(Debug, SimpleObject)]
pub(crate) struct QuotedLeg {
    side: LegSide,
    rate: RateApplied,
}

impl Quote {
    pub(crate) fn new(quote: &actors::Quote, currency: Currency, sees_costs: bool) -> Self {
        let leg = |rate| QuotedLeg { side: LegSide::B, rate: RateApplied::new(rate, currency) };
        Self {
            destination: quote.destination.clone().map(PhoneNumber),
            legs: quote.rate.iter().map(leg).collect(),
            affordable_seconds: int(quote.affordable_s),
            presented_number: quote.presented_number.clone().map(PhoneNumber),
            attestation: quote.attestation.map(Into::into),
            explanation: Explanation::new(&quote.explanation, quote.rate.as_ref(), currency, sees_costs),
        }
    }
}
