//! The ledger as the customer sees it: each transfer that moved the account's money.

use crate::types::call::Call;
use crate::types::money::Money;
use crate::types::page::{Page, PageInfo};
use crate::types::scalar::DateTime;
use async_graphql::{Enum, ID, Object, SimpleObject};
use schema::money::Currency;
use std::sync::Arc;
use storage::PostedTransfer;

/// What a transfer is for.
#[derive(Debug, Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "schema::ledger::LedgerKind")]
pub(crate) enum LedgerKind {
    TopUp,
    CallCharge,
    Adjustment,
    Refund,
    Chargeback,
    Subscription,
    Promotion,
}

/// A transfer with the call it settled, if that was asked for.
pub(crate) struct LedgerEntry {
    pub(crate) posted: PostedTransfer,
    pub(crate) currency: Currency,
    pub(crate) call: Option<Arc<schema::call::Call>>,
}

/// Money that moved. Entries are never changed or removed.
#[Object]
impl LedgerEntry {
    pub(crate) async fn id(&self) -> ID {
        self.posted.transfer.id.to_string().into()
    }
    async fn at(&self) -> DateTime {
        DateTime(self.posted.at)
    }
    async fn kind(&self) -> LedgerKind {
        self.posted.transfer.kind.into()
    }
    /// What it added to the balance; negative when it took.
    async fn amount(&self) -> Money {
        Money::new(self.posted.transfer.customer_delta(), self.currency)
    }
    /// The balance's `total` afterwards.
    async fn balance_after(&self) -> Money {
        Money::new(self.posted.transfer.balance_after, self.currency)
    }
    /// The call it settled.
    async fn call(&self) -> Option<Call> {
        self.call.clone().map(Call)
    }
    async fn description(&self) -> &str {
        &self.posted.transfer.description
    }
}

/// A page of the ledger.
#[derive(SimpleObject)]
pub(crate) struct LedgerEntryConnection {
    edges: Vec<LedgerEntryEdge>,
    page_info: PageInfo,
}

/// A transfer in a page.
#[derive(SimpleObject)]
pub(crate) struct LedgerEntryEdge {
    cursor: String,
    node: LedgerEntry,
}

impl From<Page<LedgerEntry>> for LedgerEntryConnection {
    fn from(page: Page<LedgerEntry>) -> Self {
        let edges = page.entries.into_iter().map(|(cursor, node)| LedgerEntryEdge { cursor, node }).collect();
        Self { edges, page_info: page.info }
    }
}
