//! Amounts, prices and balances.

use crate::types::scalar::{DateTime, Decimal};
use async_graphql::SimpleObject;
use schema::money::{Currency, Micros, NanosPerMinute};

/// An amount of money.
#[derive(Debug, Clone, SimpleObject)]
pub(crate) struct Money {
    /// In units of the currency.
    amount: Decimal,
    /// ISO 4217.
    currency: String,
    /// 10⁻⁶ units, a signed 64-bit number as a string.
    micros: String,
}

impl Money {
    pub(crate) fn new(amount: Micros, currency: Currency) -> Self {
        Self { amount: Decimal(amount.to_string()), currency: currency.to_string(), micros: amount.0.to_string() }
    }
}

/// A price per minute.
#[derive(Debug, Clone, SimpleObject)]
pub(crate) struct Rate {
    /// In units of the currency, per minute.
    amount: Decimal,
    /// ISO 4217.
    currency: String,
    /// 10⁻⁹ units per minute, a signed 64-bit number as a string.
    nanos: String,
}

impl Rate {
    pub(crate) fn new(price: NanosPerMinute, currency: Currency) -> Self {
        Self { amount: Decimal(price.to_string()), currency: currency.to_string(), nanos: price.0.to_string() }
    }
}

/// What an account has. All figures are absolute and of one moment.
#[derive(Debug, Clone, SimpleObject)]
pub(crate) struct Balance {
    /// Posted transfers.
    total: Money,
    /// Held by live calls.
    reserved: Money,
    /// `total - reserved`, never negative.
    available: Money,
    /// What the live calls have cost so far; posts when each ends.
    accrued: Money,
    /// `total - accrued`: the figure that falls while a call lasts.
    remaining: Money,
    /// What the live calls cost now.
    burn_per_minute: Money,
    /// When the money runs out at this burn; null without live calls.
    exhausts_at: Option<DateTime>,
}

impl From<&schema::ledger::Balance> for Balance {
    fn from(balance: &schema::ledger::Balance) -> Self {
        let money = |amount| Money::new(amount, balance.currency);
        Self {
            total: money(balance.total),
            reserved: money(balance.reserved),
            available: money(balance.available),
            accrued: money(balance.accrued),
            remaining: money(balance.remaining),
            burn_per_minute: money(balance.burn_per_minute),
            exhausts_at: balance.exhausts_at.map(DateTime),
        }
    }
}
