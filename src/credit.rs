//! `ringfence credit`: what an operator asks, as the account's actor takes it.

use actors::{Credit, credit_request_hash};
use anyhow::{Context as _, bail};
use schema::id::AccountKey;
use schema::ledger::{IdempotencyKey, LedgerKind};
use schema::money::Micros;
use storage::Store;

/// An operator's credit; a negative amount takes back.
///
/// # Errors
/// The amount is no decimal number.
pub fn by_operator(amount: &str, key: &str, reason: &str) -> anyhow::Result<Credit> {
    let kind = LedgerKind::Adjustment;
    let amount = Micros::parse(amount).with_context(|| format!("amount {amount}"))?;
    let request = credit_request_hash(kind, amount, reason);
    Ok(Credit { kind, amount, key: IdempotencyKey { key: key.to_owned(), request }, reason: reason.to_owned() })
}

/// The account of an id or of a SIP username.
///
/// # Errors
/// There is none.
pub async fn account(store: &Store, named: &str) -> anyhow::Result<AccountKey> {
    let by_id = match named.parse() {
        Ok(id) => store.account_key(id).await?,
        Err(_) => store.credential(named).await?.map(|credential| credential.account),
    };
    match by_id {
        Some(key) => Ok(key),
        None => bail!("no account has the id or SIP username {named}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_amount_is_named() {
        let error = by_operator("ten", "k", "r").expect_err("no number");
        assert!(format!("{error:#}").starts_with("amount ten: "));
    }
}
