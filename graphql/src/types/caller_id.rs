//! Numbers of an account: those it may present, and its own phones, which are never presented.

use crate::app::App;
use crate::types::call::Attestation;
use crate::types::scalar::{DateTime, PhoneNumber};
use async_graphql::{Context, Enum, ID, Object};
use schema::account::CallbackPhone;
use schema::number::PresentedNumber;

/// Where a number stands in its verification.
#[derive(Debug, Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "schema::account::CallerIdStatus")]
pub(crate) enum CallerIdStatus {
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

/// How it was proved that a number belongs to the account.
#[derive(Debug, Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "schema::account::Evidence")]
pub(crate) enum Evidence {
    /// Assigned to the account by us.
    Assigned,
    /// A code given in a call.
    CallCode,
    /// A code sent by SMS.
    SmsCode,
    /// Documents reviewed by an operator.
    Document,
    /// The operator's word, on record.
    Operator,
}

/// A number that may be presented once it is verified.
pub(crate) struct CallerId(pub(crate) schema::account::CallerId);

/// A number that the account may present once it is verified.
#[Object]
impl CallerId {
    pub(crate) async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }
    async fn number(&self) -> PhoneNumber {
        PhoneNumber(self.0.number.clone())
    }
    /// The owner's name for it.
    async fn label(&self) -> Option<&str> {
        self.0.label.as_ref().map(|label| label.expose().as_str())
    }
    async fn status(&self, ctx: &Context<'_>) -> CallerIdStatus {
        self.0.status_at((App::of(ctx).clock)().wall).into()
    }
    /// What proved it.
    async fn evidence(&self) -> Option<Evidence> {
        self.0.evidence.map(Into::into)
    }
    /// How far its proof allows a call presenting it to be attested; null while it may not be presented.
    async fn attestation(&self, ctx: &Context<'_>) -> Option<Attestation> {
        let now = (App::of(ctx).clock)().wall;
        PresentedNumber::of(&self.0, now).ok().map(|number| number.attestation().into())
    }
    /// Presented when a call names none.
    async fn is_default(&self) -> bool {
        self.0.is_default
    }
    async fn verified_at(&self) -> Option<DateTime> {
        self.0.verified_at.map(DateTime)
    }
    /// When the proof ends.
    async fn expires_at(&self) -> Option<DateTime> {
        self.0.expires_at.map(DateTime)
    }
}

/// The customer's own phone.
pub(crate) struct CallbackNumber(pub(crate) CallbackPhone);

/// The customer's own phone, rung first in a callback. Only its owner sees it, masked except for the last two digits.
#[Object]
impl CallbackNumber {
    pub(crate) async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }
    /// The owner's name for it.
    async fn label(&self) -> Option<&str> {
        self.0.label.as_ref().map(|label| label.expose().as_str())
    }
    async fn masked(&self) -> String {
        self.0.number.masked()
    }
    async fn status(&self) -> CallerIdStatus {
        self.0.status.into()
    }
}
