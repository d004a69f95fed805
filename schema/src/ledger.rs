//! The double-entry ledger: transfers that were posted, holds that set money aside, and the balance they give.

use crate::call::LegSide;
use crate::id::{CallNo, TransferId, TrunkId};
use crate::money::{Currency, Micros};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// The two ends of a transfer. `Customer` and `Receivable` are per account; the others are the operator's and have no
/// stored balance: their balance is the sum of their transfers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LedgerAccount {
    /// The customer's prepaid money.
    Customer,
    /// What the customer owes after a chargeback.
    Receivable,
    /// What calls earned.
    Revenue,
    /// Money on its way from the payment provider.
    PaymentClearing,
    /// What could not be charged.
    OperatorLoss,
    /// Credit given away.
    Promotion,
    /// Tax collected.
    Tax,
    /// Expense: what carriers charge us.
    CarrierCost,
    /// Liability: what we owe carriers.
    CarrierPayable,
}

impl LedgerAccount {
    /// All of them, in the order of their stored numbers.
    pub const ALL: [Self; 9] = [
        Self::Customer,
        Self::Receivable,
        Self::Revenue,
        Self::PaymentClearing,
        Self::OperatorLoss,
        Self::Promotion,
        Self::Tax,
        Self::CarrierCost,
        Self::CarrierPayable,
    ];

    /// The word stored in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Receivable => "receivable",
            Self::Revenue => "revenue",
            Self::PaymentClearing => "payment_clearing",
            Self::OperatorLoss => "operator_loss",
            Self::Promotion => "promotion",
            Self::Tax => "tax",
            Self::CarrierCost => "carrier_cost",
            Self::CarrierPayable => "carrier_payable",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.as_str() == text)
    }
}

/// What a transfer is for, as the customer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the kinds of contract.graphql")]
pub enum LedgerKind {
    TopUp,
    CallCharge,
    Adjustment,
    Refund,
    Chargeback,
    Subscription,
    Promotion,
}

impl LedgerKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::TopUp,
        Self::CallCharge,
        Self::Adjustment,
        Self::Refund,
        Self::Chargeback,
        Self::Subscription,
        Self::Promotion,
    ];

    /// The word stored in the database and shown by the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TopUp => "TOP_UP",
            Self::CallCharge => "CALL_CHARGE",
            Self::Adjustment => "ADJUSTMENT",
            Self::Refund => "REFUND",
            Self::Chargeback => "CHARGEBACK",
            Self::Subscription => "SUBSCRIPTION",
            Self::Promotion => "PROMOTION",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == text)
    }
}

/// A key chosen by whoever asks for money to move. Unique within its account, for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyKey {
    /// 1 to 128 printable ASCII characters.
    pub key: String,
    /// SHA-256 of the request in its canonical form: the same key with another request is a conflict.
    pub request: [u8; 32],
}

/// Money that moved: `amount` leaves `debit` and arrives at `credit`, so that each transfer sums to zero (invariant L2).
/// Append-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Identity.
    pub id: TransferId,
    /// What for.
    pub kind: LedgerKind,
    /// Where it comes from.
    pub debit: LedgerAccount,
    /// Where it goes.
    pub credit: LedgerAccount,
    /// How much, in the account's currency; never negative. 0 for a call that cost the customer nothing but us something.
    pub amount: Micros,
    /// The call it settles. A call's settling transfer ends all holds of its group (invariant L3).
    pub call: Option<CallNo>,
    /// What the call cost us: a second balanced pair, `CarrierCost` to `CarrierPayable`, in the carrier's currency.
    pub carrier_cost: Option<CarrierCost>,
    /// The part of the true price that could not be charged, `OperatorLoss` to `Revenue`; 0 but after a restart.
    pub loss: Micros,
    /// Who asked, for transfers that did not come from a call.
    pub key: Option<IdempotencyKey>,
    /// The customer's posted money afterwards.
    pub balance_after: Micros,
    /// For the customer's statement; nothing personal.
    pub description: String,
}

impl Transfer {
    /// What it adds to the customer's posted money; negative when it takes.
    #[must_use]
    pub fn customer_delta(&self) -> Micros {
        match (self.debit, self.credit) {
            (LedgerAccount::Customer, LedgerAccount::Customer) => Micros::ZERO,
            (LedgerAccount::Customer, _) => -self.amount,
            (_, LedgerAccount::Customer) => self.amount,
            _ => Micros::ZERO,
        }
    }
}

/// What a carrier charges us for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarrierCost {
    /// Over which trunk.
    pub trunk: TrunkId,
    /// How much.
    pub amount: Micros,
    /// In the carrier's currency.
    pub currency: Currency,
}

/// Money set aside for a call: a pending transfer. The holds of a call are one group; all of them end, once, when the call
/// is settled (invariant L3). Append-only; key (call, leg, step).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// For which call of the account.
    pub call: CallNo,
    /// For which leg.
    pub leg: LegSide,
    /// 0 at authorization, then one more with each renewal.
    pub step: u32,
    /// How much.
    pub amount: Micros,
}

/// The balance as shown: posted, held and what live calls have cost so far. All absolute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// Of all figures.
    pub currency: Currency,
    /// Posted transfers.
    pub total: Micros,
    /// Held by live calls.
    pub reserved: Micros,
    /// `total - reserved`, never negative.
    pub available: Micros,
    /// What the live calls have cost so far; posts when each ends.
    pub accrued: Micros,
    /// `total - accrued`.
    pub remaining: Micros,
    /// What the answered live calls cost a minute now.
    pub burn_per_minute: Micros,
    /// When the money runs out at this burn; `None` without answered live calls.
    pub exhausts_at: Option<Timestamp>,
}
