//! An account: a snapshot of what is live, and pages of what is past.

use crate::app::{App, Identity};
use crate::cursor;
use crate::error::ApiError;
use crate::policy::Right;
use crate::types::call::{Call, CallConnection, CallFilter};
use crate::types::caller_id::{CallbackNumber, CallerId};
use crate::types::ledger::{LedgerEntry, LedgerEntryConnection};
use crate::types::money::Balance;
use crate::types::page::{self, Page, PageInfo};
use crate::types::scalar::Cursor;
use crate::types::sip_credential::SipCredential;
use actors::AccountView;
use async_graphql::{Context, Enum, ID, Object, Result, SimpleObject};
use schema::account::AccountProfile;
use schema::id::{AccountKey, CallNo};
use schema::money::Micros;
use std::collections::BTreeMap;
use std::sync::Arc;
use storage::{AccountSummary, LedgerCursor, PostedTransfer};

/// Where an account stands.
#[derive(Debug, Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "schema::account::AccountStatus")]
pub(crate) enum AccountStatus {
    /// Signed up, e-mail not yet verified: no paid calls.
    Pending,
    /// In use.
    Active,
    /// In use under tighter limits.
    Limited,
    /// No new calls.
    Suspended,
    /// Closing was asked for.
    Closing,
    /// Closed; retention periods run.
    Closed,
}

/// An account as of one moment.
pub(crate) enum Account {
    /// Asked of its actor.
    Whole(Arc<AccountView>),
    /// One of many, read from its row: a list of accounts does not load them all.
    Listed(Box<AccountSummary>),
}

impl Account {
    pub(crate) async fn load(app: &App, key: AccountKey) -> Result<Self, ApiError> {
        Ok(Self::Whole(app.actors.view(key).await?))
    }

    fn profile(&self) -> &AccountProfile {
        match self {
            Self::Whole(view) => &view.profile,
            Self::Listed(summary) => &summary.profile,
        }
    }

    fn key(&self) -> AccountKey {
        self.profile().key
    }

    /// What is not in its row.
    async fn view(&self, ctx: &Context<'_>) -> Result<Arc<AccountView>, ApiError> {
        match self {
            Self::Whole(view) => Ok(view.clone()),
            Self::Listed(_) => Ok(App::of(ctx).actors.view(self.key()).await?),
        }
    }

    /// Which rights the fields need is decided where the account is reached and here.
    fn check(&self, ctx: &Context<'_>, right: Right) -> Result<(), ApiError> {
        Identity::of(ctx).check(right, self.key())
    }
}

/// A paying account.
#[Object]
impl Account {
    pub(crate) async fn id(&self) -> ID {
        self.profile().id.to_string().into()
    }
    async fn status(&self) -> AccountStatus {
        match self {
            Self::Whole(view) => view.status.into(),
            Self::Listed(summary) => summary.figures.status.into(),
        }
    }
    /// ISO 4217.
    async fn currency(&self) -> String {
        self.profile().currency.to_string()
    }
    /// ISO 3166-1 alpha-2: how national numbers are read.
    async fn country(&self) -> &str {
        &self.profile().country
    }
    /// IANA.
    async fn time_zone(&self) -> &str {
        &self.profile().time_zone
    }
    async fn balance(&self, ctx: &Context<'_>) -> Result<Balance> {
        match self {
            Self::Listed(summary) if summary.figures.held == Micros::ZERO => Ok((&at_rest(summary)).into()),
            _ => Ok((&self.view(ctx).await?.balance).into()),
        }
    }
    /// Read in the same snapshot as everything beside it: pass it to `accountEvents(after:)`.
    async fn event_cursor(&self, ctx: &Context<'_>) -> Result<Cursor> {
        Ok(Cursor::of(self.profile().id, self.view(ctx).await?.cursor))
    }
    /// Oldest first.
    async fn caller_ids(&self, ctx: &Context<'_>) -> Result<Vec<CallerId>> {
        Ok(self.view(ctx).await?.caller_ids.iter().cloned().map(CallerId).collect())
    }
    /// Oldest first. Only the account's own people see them.
    async fn callback_numbers(&self, ctx: &Context<'_>) -> Result<Vec<CallbackNumber>> {
        self.check(ctx, Right::SeeCallbackNumbers)?;
        Ok(self.view(ctx).await?.callback_phones.iter().cloned().map(CallbackNumber).collect())
    }
    /// Oldest first.
    async fn sip_credentials(&self, ctx: &Context<'_>) -> Result<Vec<SipCredential>> {
        self.check(ctx, Right::SeeAccount)?;
        Ok(sip_credentials(App::of(ctx), self.key()).await?)
    }
    /// Calls that have not ended, oldest first.
    async fn live_calls(&self, ctx: &Context<'_>) -> Result<Vec<Call>> {
        self.check(ctx, Right::SeeCalls)?;
        Ok(self.view(ctx).await?.live_calls.iter().cloned().map(Call::from).collect())
    }
    /// Calls that are over, newest first.
    #[graphql(complexity = "page::weight(first, 25) * child_complexity + 1")]
    async fn calls(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "1 to 100", default_with = "Some(25)")] first: Option<i32>,
        #[graphql(desc = "A cursor of this list")] after: Option<String>,
        #[graphql(desc = "Without it, all")] filter: Option<CallFilter>,
    ) -> Result<CallConnection> {
        self.check(ctx, Right::SeeCalls)?;
        let owner = Some(self.profile().id);
        let first = page::first(first, 25)?;
        let before = after.as_deref().map(|text| cursor::read::<CallNo>(owner, text, "after")).transpose()?;
        let filter = filter.map(|filter| filter.checked()).transpose()?.unwrap_or_default();
        let store = &App::of(ctx).store;
        let cdrs = store.calls_page(self.key(), before, first + 1, &filter).await.map_err(ApiError::from)?;
        let entries = cdrs.into_iter().map(|cdr| (cursor::write(owner, cdr.no), cdr.call.into())).collect();
        Ok(CallConnection::new(Page::cut(entries, first, before.is_some()), None))
    }
    /// Transfers, newest first.
    #[graphql(complexity = "page::weight(first, 25) * child_complexity + 1")]
    async fn ledger(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "1 to 100", default_with = "Some(25)")] first: Option<i32>,
        #[graphql(desc = "A cursor of this list")] after: Option<String>,
    ) -> Result<LedgerEntryConnection> {
        self.check(ctx, Right::SeeLedger)?;
        let owner = Some(self.profile().id);
        let first = page::first(first, 25)?;
        let before = after.as_deref().map(|text| cursor::read::<LedgerCursor>(owner, text, "after")).transpose()?;
        let app = App::of(ctx);
        let posted = app.store.ledger_page(self.key(), before, first + 1).await.map_err(ApiError::from)?;
        let wants_calls = ctx.look_ahead().field("edges").field("node").field("call").exists();
        if wants_calls {
            self.check(ctx, Right::SeeCalls)?;
        }
        let calls = if wants_calls { calls_of(app, self.key(), &posted).await? } else { BTreeMap::new() };
        let entry = |posted: PostedTransfer| {
            let call = posted.transfer.call.and_then(|no| calls.get(&no).cloned());
            (cursor::write(owner, posted.cursor), LedgerEntry { posted, currency: self.profile().currency, call })
        };
        Ok(Page::cut(posted.into_iter().map(entry).collect(), first, before.is_some()).into())
    }
}

/// The balance of an account without live calls.
fn at_rest(AccountSummary { profile, figures }: &AccountSummary) -> schema::ledger::Balance {
    schema::ledger::Balance {
        currency: profile.currency,
        total: figures.total,
        reserved: figures.held,
        available: figures.available(),
        accrued: Micros::ZERO,
        remaining: figures.total,
        burn_per_minute: Micros::ZERO,
        exhausts_at: None,
    }
}

/// The calls that transfers settled, in few reads: they lie close together in the history.
async fn calls_of(
    app: &App,
    account: AccountKey,
    posted: &[PostedTransfer],
) -> Result<BTreeMap<CallNo, Arc<schema::call::Call>>, ApiError> {
    let mut wanted: Vec<CallNo> = posted.iter().filter_map(|p| p.transfer.call).collect();
    wanted.sort_unstable();
    let mut found = BTreeMap::new();
    while let Some(&newest) = wanted.last() {
        let page = app.store.calls_page(account, Some(newest.next()), 200, &storage::CallFilter::default()).await?;
        let Some(oldest) = page.last().map(|cdr| cdr.no) else { break };
        wanted.retain(|no| *no < oldest);
        found.extend(page.into_iter().map(|cdr| (cdr.no, Arc::new(cdr.call))));
    }
    Ok(found)
}

/// An account's SIP credentials with what is registered with each: two reads.
pub(crate) async fn sip_credentials(app: &App, key: AccountKey) -> Result<Vec<SipCredential>, ApiError> {
    let credentials = app.store.credentials(key).await?;
    let registrations = app.store.registrations(key, (app.clock)().wall).await?;
    let domain = &app.config.sip_domain;
    let of = |c: &schema::account::SipCredential| registrations.iter().find(|r| r.credential == c.id);
    Ok(credentials.iter().map(|c| SipCredential::new(c, of(c), domain)).collect())
}

/// A page of accounts.
#[derive(SimpleObject)]
pub(crate) struct AccountConnection {
    edges: Vec<AccountEdge>,
    page_info: PageInfo,
    /// Null where counting would cost as much as reading.
    total_count: Option<i32>,
}

/// An account in a page.
#[derive(SimpleObject)]
pub(crate) struct AccountEdge {
    cursor: String,
    node: Account,
}

impl From<Page<Account>> for AccountConnection {
    fn from(page: Page<Account>) -> Self {
        let edges = page.entries.into_iter().map(|(cursor, node)| AccountEdge { cursor, node }).collect();
        Self { edges, page_info: page.info, total_count: None }
    }
}
