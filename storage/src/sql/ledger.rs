//! Transfers in SQL.

use super::account::count;
use super::call::carrier_cost;
use super::{Row, SqlStore, values};
use crate::error::StoreError;
use crate::ledger::{LedgerCursor, PostedTransfer};
use schema::id::{AccountKey, CallNo, Seq, TransferId};
use schema::ledger::{IdempotencyKey, LedgerAccount, LedgerKind, Transfer};
use schema::money::Micros;
use schema::time::Timestamp;

macro_rules! select_transfer {
    ($rest:literal) => {
        concat!(
            "select account_key, seq, position, at, id, kind, debit, credit, amount, call_no, cost_trunk, cost_micros, ",
            "cost_currency, loss, key, request, balance_after, description from transfers ",
            $rest
        )
    };
}

fn read(mut row: Row) -> Result<(AccountKey, PostedTransfer), StoreError> {
    let account = AccountKey(row.int()?);
    let cursor = LedgerCursor { seq: Seq(row.int()?), position: row.small("transfers")? };
    let at = Timestamp(row.int()?);
    let id = TransferId(row.id()?);
    let kind = row.word("transfers", LedgerKind::parse)?;
    let (debit, credit) = (row.word("transfers", LedgerAccount::parse)?, row.word("transfers", LedgerAccount::parse)?);
    let amount = Micros(row.int()?);
    let call = row.opt_int()?.map(CallNo);
    let carrier_cost = carrier_cost(&mut row)?;
    let loss = Micros(row.int()?);
    let (key, request) = (row.opt_text()?, row.opt_bytes()?);
    let request = request.and_then(|r| <[u8; 32]>::try_from(r.as_slice()).ok());
    let key = key.zip(request).map(|(key, request)| IdempotencyKey { key, request });
    let balance_after = Micros(row.int()?);
    let description = row.text()?;
    let transfer =
        Transfer { id, kind, debit, credit, amount, call, carrier_cost, loss, key, balance_after, description };
    Ok((account, PostedTransfer { cursor, at, transfer }))
}

impl SqlStore {
    pub(crate) async fn ledger_page(
        &self,
        account: AccountKey,
        before: LedgerCursor,
        limit: usize,
    ) -> Result<Vec<PostedTransfer>, StoreError> {
        let text = select_transfer!(
            "where account_key = $1 and (seq < $2 or (seq = $2 and position < $3)) order by seq desc, position desc limit $4"
        );
        let values = values![account.0, before.seq.0, u32::from(before.position), count(limit)];
        let rows = self.db.fetch(text, values).await?;
        rows.into_iter().map(|row| read(row).map(|(_, posted)| posted)).collect()
    }

    pub(crate) async fn transfer(&self, id: TransferId) -> Result<Option<(AccountKey, PostedTransfer)>, StoreError> {
        self.db.fetch_one(select_transfer!("where id = $1"), values![id.0]).await?.map(read).transpose()
    }

    pub(crate) async fn transfer_by_key(
        &self,
        account: AccountKey,
        key: &str,
    ) -> Result<Option<PostedTransfer>, StoreError> {
        let text = select_transfer!("where account_key = $1 and key = $2");
        let found = self.db.fetch_one(text, values![account.0, key]).await?.map(read).transpose()?;
        Ok(found.map(|(_, posted)| posted))
    }
}
