//! Which transfers exist and what they say. A transfer is one amount that leaves one account and arrives at another, so it
//! balances by its form (L2).

use super::core::{AccountCore, Credited, Draft, Patch};
use super::meter::Bill;
use schema::call::{LegSide, LiveCall};
use schema::event::EventBody;
use schema::id::TransferId;
use schema::journal::Change;
use schema::ledger::{CarrierCost, IdempotencyKey, LedgerAccount, LedgerKind, Transfer};
use schema::money::Micros;
use schema::time::Now;
use schema::wrong::{self, Wrong};

/// Money that is to be posted to an account, under a key that is used once for ever.
#[derive(Debug, Clone)]
pub struct Credit {
    /// What for: top-up, adjustment, refund or promotion.
    pub kind: LedgerKind,
    /// How much; only an adjustment may be negative.
    pub amount: Micros,
    /// Its key and the hash of the request.
    pub key: IdempotencyKey,
    /// For the customer's statement, 1 to 200 characters; nothing personal.
    pub reason: String,
}

/// Why money was not posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CreditRefused {
    /// The key was used for another request.
    #[error("this idempotency key was used before, for another amount or reason")]
    Conflict,
    /// Zero, too large, or negative where that is not allowed.
    #[error("the amount is zero, too large, or negative where that is not allowed")]
    Amount,
    /// More would be taken than is available.
    #[error("more would be taken than is available")]
    InsufficientBalance,
    /// This kind does not come this way.
    #[error("this kind of transfer is not posted this way")]
    Kind,
    /// Empty or longer than 200 characters.
    #[error("a reason has 1 to 200 characters")]
    Reason,
    /// Not 1 to 128 printable ASCII characters.
    #[error("an idempotency key has 1 to 128 printable ASCII characters")]
    Key,
}

/// The hash of a credit's request in its canonical form, for [`IdempotencyKey::request`]: kind, micro-units and reason,
/// each on its line, SHA-256.
#[must_use]
pub fn credit_request_hash(kind: LedgerKind, amount: Micros, reason: &str) -> [u8; 32] {
    let text = format!("{}\n{}\n{reason}", kind.as_str(), amount.0);
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

/// An idempotency key as it may be shown: the first bytes of its SHA-256.
#[must_use]
pub fn key_hash(key: &str) -> [u8; 8] {
    let digest = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
    let mut hash = [0; 8];
    hash.copy_from_slice(&digest.as_ref()[..8]);
    hash
}

impl AccountCore {
    /// Posts money once per key. A key used before gives the stored answer, or a conflict.
    pub fn credit(
        &self,
        credit: &Credit,
        transfer: TransferId,
        now: Now,
    ) -> (Result<Credited, CreditRefused>, Option<Draft>) {
        // L4: what was posted since the account was loaded; what was posted before, the store knows by its unique key.
        let known = self.credited.iter().find(|(known, _)| known.key == credit.key.key);
        if let Some((known, credited)) = known.filter(|_| !wrong::chosen(Wrong::IdempotencyIgnored)) {
            let same = known.request == credit.key.request;
            return (
                if same { Ok(Credited { replayed: true, ..*credited }) } else { Err(CreditRefused::Conflict) },
                None,
            );
        }
        let (debit, to) = match direction(credit) {
            Ok(direction) => direction,
            Err(refused) => return (Err(refused), None),
        };
        if self.figures.available() + credit.amount < Micros::ZERO {
            return (Err(CreditRefused::InsufficientBalance), None);
        }
        let mut figures = self.figures;
        figures.total += credit.amount;
        let posted = Transfer {
            id: transfer,
            kind: credit.kind,
            debit,
            credit: to,
            amount: Micros(credit.amount.0.abs()),
            call: None,
            carrier_cost: None,
            loss: Micros::ZERO,
            key: Some(credit.key.clone()),
            balance_after: figures.total,
            description: credit.reason.clone(),
        };
        debug_assert_eq!(posted.customer_delta(), credit.amount, "l2: the customer gets what the transfer moves");
        let credited = Credited { transfer, amount: credit.amount, balance_after: figures.total, replayed: false };
        let events = vec![EventBody::BalanceChanged(self.balance_of(&figures, now))];
        let patch = Patch { credited: Some((credit.key.clone(), credited)), ..Patch::default() };
        (Ok(credited), Some(self.draft(now, figures, vec![Change::Posted(Box::new(posted))], events, patch)))
    }
}

/// Where the money comes from and goes to.
fn direction(credit: &Credit) -> Result<(LedgerAccount, LedgerAccount), CreditRefused> {
    let (key, reason) = (credit.key.key.as_bytes(), credit.reason.chars().count());
    if !(1..=128).contains(&key.len()) || !key.iter().all(|b| b.is_ascii_graphic() || *b == b' ') {
        return Err(CreditRefused::Key);
    }
    if !(1..=200).contains(&reason) {
        return Err(CreditRefused::Reason);
    }
    if credit.amount == Micros::ZERO || credit.amount.0.abs() > Micros::MAX_INPUT.0 {
        return Err(CreditRefused::Amount);
    }
    let from = match credit.kind {
        LedgerKind::TopUp => LedgerAccount::PaymentClearing,
        LedgerKind::Adjustment | LedgerKind::Refund => LedgerAccount::Revenue,
        LedgerKind::Promotion => LedgerAccount::Promotion,
        LedgerKind::CallCharge | LedgerKind::Chargeback | LedgerKind::Subscription => return Err(CreditRefused::Kind),
    };
    match (credit.amount.is_negative(), credit.kind) {
        (false, _) => Ok((from, LedgerAccount::Customer)),
        (true, LedgerKind::Adjustment) => Ok((LedgerAccount::Customer, from)),
        (true, _) => Err(CreditRefused::Amount),
    }
}

/// The one transfer that settles an answered call: the customer's charge, the carrier's cost, the loss.
pub(super) fn call_charge(
    id: TransferId,
    live: &LiveCall,
    bill: &Bill,
    carrier_cost: Option<CarrierCost>,
    balance_after: Micros,
) -> Transfer {
    let rate = live.call.legs.iter().find(|leg| leg.side == LegSide::B).and_then(|leg| leg.rate.as_ref());
    let destination = rate.map_or("unknown", |rate| &*rate.destination);
    Transfer {
        id,
        kind: LedgerKind::CallCharge,
        debit: LedgerAccount::Customer,
        credit: LedgerAccount::Revenue,
        amount: bill.charge,
        call: Some(live.no),
        carrier_cost,
        loss: bill.loss,
        key: None,
        balance_after,
        description: format!("Call to {destination}, {} s", bill.billed_s),
    }
}
