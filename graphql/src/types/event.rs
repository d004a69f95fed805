//! Durable events of an account, with values as of the event.

use crate::app::App;
use crate::types::account::Account;
use crate::types::call::Call;
use crate::types::caller_id::CallerId;
use crate::types::money::Balance;
use crate::types::scalar::{Cursor, DateTime, int};
use async_graphql::{Context, Interface, Object, Result, SimpleObject};
use schema::event::{AccountEvent as Event, EventBody};
use schema::id::{AccountId, AccountKey};

/// A durable change of an account.
#[derive(Interface)]
#[graphql(
    field(name = "cursor", ty = "Cursor", desc = "Its place: pass it to `accountEvents(after:)`"),
    field(name = "at", ty = "DateTime", desc = "When it happened")
)]
pub(crate) enum AccountEvent {
    AccountChanged(AccountChanged),
    BalanceChanged(BalanceChanged),
    CallChanged(CallChanged),
    CallWarning(CallWarning),
    CallerIdChanged(CallerIdChanged),
    SnapshotRequired(SnapshotRequired),
}

/// The balance changed.
#[derive(SimpleObject)]
pub(crate) struct BalanceChanged {
    #[graphql(owned)]
    cursor: Cursor,
    #[graphql(owned)]
    at: DateTime,
    balance: Box<Balance>,
}

/// A call began, was answered, ended or was refused.
#[derive(SimpleObject)]
pub(crate) struct CallChanged {
    #[graphql(owned)]
    cursor: Cursor,
    #[graphql(owned)]
    at: DateTime,
    call: Call,
}

/// A call will be cut when its money ends.
#[derive(SimpleObject)]
pub(crate) struct CallWarning {
    #[graphql(owned)]
    cursor: Cursor,
    #[graphql(owned)]
    at: DateTime,
    call: Call,
    /// 60, 30 or 10; null: withdrawn.
    seconds_left: Option<i32>,
}

/// A caller ID changed.
#[derive(SimpleObject)]
pub(crate) struct CallerIdChanged {
    #[graphql(owned)]
    cursor: Cursor,
    #[graphql(owned)]
    at: DateTime,
    caller_id: CallerId,
}

/// What came before is no longer kept: read the account again, then go on after its `eventCursor`.
#[derive(SimpleObject)]
pub(crate) struct SnapshotRequired {
    #[graphql(owned)]
    cursor: Cursor,
    #[graphql(owned)]
    at: DateTime,
}

/// The account's standing or settings changed.
pub(crate) struct AccountChanged {
    cursor: Cursor,
    at: DateTime,
    account: AccountKey,
}

/// The account's standing or settings changed.
#[Object]
impl AccountChanged {
    pub(crate) async fn cursor(&self) -> Cursor {
        self.cursor.clone()
    }
    pub(crate) async fn at(&self) -> DateTime {
        self.at
    }
    /// As it is now.
    async fn account(&self, ctx: &Context<'_>) -> Result<Account> {
        Ok(Account::load(App::of(ctx), self.account).await?)
    }
}

impl AccountEvent {
    pub(crate) fn new(account: AccountKey, id: AccountId, event: Event) -> Self {
        let (cursor, at) = (Cursor::of(id, event.cursor), DateTime(event.at));
        match event.body {
            EventBody::BalanceChanged(balance) => {
                BalanceChanged { cursor, at, balance: Box::new((&balance).into()) }.into()
            }
            EventBody::CallChanged(call) => CallChanged { cursor, at, call: (*call).into() }.into(),
            EventBody::CallWarning { call, seconds_left } => {
                let seconds_left = seconds_left.map(|s| int(s.into()));
                CallWarning { cursor, at, call: (*call).into(), seconds_left }.into()
            }
            EventBody::CallerIdChanged(caller_id) => {
                CallerIdChanged { cursor, at, caller_id: CallerId(caller_id) }.into()
            }
            EventBody::AccountChanged(_) => AccountChanged { cursor, at, account }.into(),
        }
    }

    pub(crate) fn snapshot_required(cursor: Cursor, at: DateTime) -> Self {
        SnapshotRequired { cursor, at }.into()
    }
}
