//! What operator staff see beyond their own account.

use crate::app::{App, Identity};
use crate::cursor;
use crate::error::ApiError;
use crate::policy::Right;
use crate::types::account::{Account, AccountConnection};
use crate::types::call::{Call, CallConnection};
use crate::types::page::{self, Page};
use crate::types::scalar::int;
use actors::AccountView;
use async_graphql::{Context, ID, Object, Result, SimpleObject};
use schema::call::LiveCall;
use schema::carrier::{Trunk, TrunkDown};
use schema::id::{AccountId, AccountKey, CallNo};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

/// A carrier's trunk.
#[derive(Debug, SimpleObject)]
pub(crate) struct Carrier {
    #[graphql(owned)]
    pub(crate) id: ID,
    name: String,
    /// Transport, and address and port or name.
    gateway: String,
    /// Whether calls can be sent there.
    up: bool,
    /// Why none can be sent there, e.g. `down: not registered`.
    down_reason: Option<String>,
    channels_in_use: i32,
    max_channels: i32,
}

impl Carrier {
    /// `status`: channels in use, and why no more calls can be sent there; `None` while the actors do not know the trunk.
    pub(crate) fn new(trunk: &Trunk, status: Option<(u32, Option<TrunkDown>)>) -> Self {
        let (channels, down) = status.unwrap_or((0, Some(TrunkDown::Silent)));
        Self {
            id: trunk.id.to_string().into(),
            name: trunk.name.clone(),
            gateway: trunk.gateway.to_string(),
            up: down.is_none(),
            down_reason: down.map(|down| down.as_str().to_owned()),
            channels_in_use: int(channels.into()),
            max_channels: int(trunk.max_channels.into()),
        }
    }
}

/// All carriers, by name.
pub(crate) async fn carriers(app: &App) -> Result<Vec<Carrier>, ApiError> {
    let trunks = app.store.trunks().await?;
    Ok(trunks.iter().map(|trunk| Carrier::new(trunk, app.actors.trunk(trunk.id))).collect())
}

/// What of an account stands in its actor's snapshot only.
const NOT_IN_THE_ROW: [&str; 4] = ["eventCursor", "callerIds", "callbackNumbers", "liveCalls"];

/// The operator's view of the service; what of it may be seen depends on the viewer's role.
pub(crate) struct Operator;

/// The operator's view of the service. What of it may be seen depends on the viewer's role.
#[Object]
impl Operator {
    /// Calls of all accounts that have not ended, by account.
    #[graphql(complexity = "page::weight(first, 100) * child_complexity + 1")]
    async fn live_calls(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "1 to 100", default_with = "Some(100)")] first: Option<i32>,
        #[graphql(desc = "A cursor of this list")] after: Option<String>,
    ) -> Result<CallConnection> {
        Identity::of(ctx).staff(Right::SeeCalls)?;
        let app = App::of(ctx);
        let first = page::first(first, 100)?;
        let after = after.as_deref().map(read_live).transpose()?;
        let stored = app.store.live_calls(after, first + 1).await.map_err(ApiError::from)?;
        let views = views(app, stored.iter().map(|(key, _)| *key)).await;
        let entry = |(key, live): (AccountKey, LiveCall)| {
            let now = views.get(&key).and_then(|view| view.live_calls.iter().find(|call| call.id == live.call.id));
            (write_live(key, live.no), Call::from(now.cloned().unwrap_or(live.call)))
        };
        let entries = stored.into_iter().map(entry).collect();
        let total = int(app.actors.counts().live_calls as u64);
        Ok(CallConnection::new(Page::cut(entries, first, after.is_some()), Some(total)))
    }

    /// Accounts, oldest first.
    #[graphql(complexity = "page::weight(first, 25) * child_complexity + 1")]
    async fn accounts(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "1 to 100", default_with = "Some(25)")] first: Option<i32>,
        #[graphql(desc = "A cursor of this list")] after: Option<String>,
        #[graphql(desc = "An account's id, a SIP username or a member's e-mail address, whole")] search: Option<String>,
    ) -> Result<AccountConnection> {
        Identity::of(ctx).staff(Right::SeeAccount)?;
        let app = App::of(ctx);
        let first = page::first(first, 25)?;
        let after = after.as_deref().map(|text| cursor::read::<AccountKey>(None, text, "after")).transpose()?;
        let mut entries = Vec::new();
        match search.as_deref().map(str::trim).filter(|text| !text.is_empty()) {
            Some(text) => {
                for key in search_keys(app, text, after).await? {
                    entries.push((cursor::write(None, key), Account::load(app, key).await?));
                }
            }
            None => {
                let node = ctx.look_ahead().field("edges").field("node");
                let asks_actor = NOT_IN_THE_ROW.iter().any(|field| node.field(field).exists());
                for summary in app.store.accounts_page(after, first + 1).await.map_err(ApiError::from)? {
                    let key = summary.profile.key;
                    let listed = Account::Listed(Box::new(summary));
                    // All of an account in one snapshot, or nothing of it that an actor must be asked for.
                    let account = if asks_actor { Account::load(app, key).await? } else { listed };
                    entries.push((cursor::write(None, key), account));
                }
            }
        }
        Ok(Page::cut(entries, first, after.is_some()).into())
    }

    /// By name.
    async fn carriers(&self, ctx: &Context<'_>) -> Result<Vec<Carrier>> {
        Identity::of(ctx).staff(Right::SeeAccount)?;
        Ok(carriers(App::of(ctx)).await?)
    }
}

/// Snapshots of the accounts that have live calls, and so are in memory. One that gives no answer is left out.
async fn views(app: &App, keys: impl Iterator<Item = AccountKey>) -> BTreeMap<AccountKey, Arc<AccountView>> {
    let mut views = BTreeMap::new();
    for key in keys {
        if let Entry::Vacant(place) = views.entry(key)
            && let Ok(view) = app.actors.view(key).await
        {
            place.insert(view);
        }
    }
    views
}

/// The accounts that `text` names whole: personal columns are sealed, so that no part of them can be searched for.
async fn search_keys(app: &App, text: &str, after: Option<AccountKey>) -> Result<Vec<AccountKey>, ApiError> {
    if text.len() > 254 {
        return Err(ApiError::invalid("search", "(…)", "must have at most 254 bytes"));
    }
    let mut keys = Vec::new();
    if let Ok(id) = text.parse::<AccountId>() {
        keys.extend(app.store.account_key(id).await?);
    } else if text.contains('@') {
        if let Some(user) = app.store.user_by_email(text).await? {
            keys.extend(app.store.memberships(user.id).await?.iter().map(|m| m.account));
        }
    } else {
        keys.extend(app.store.credential(text).await?.map(|credential| credential.account));
    }
    keys.retain(|key| after.is_none_or(|after| *key > after));
    Ok(keys)
}

/// A place in the list of all live calls: the account's place and the call's, as two cursors in one.
fn write_live(account: AccountKey, call: CallNo) -> String {
    format!("{}.{}", cursor::write(None, account), cursor::write(None, call))
}

fn read_live(text: &str) -> Result<(AccountKey, CallNo), ApiError> {
    let (account, call) = text.split_once('.').unwrap_or((text, ""));
    Ok((cursor::read(None, account, "after")?, cursor::read(None, call, "after")?))
}
