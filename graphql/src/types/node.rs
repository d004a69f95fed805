//! Anything with an identity, found by it.

use crate::app::App;
use crate::error::ApiError;
use crate::policy::{Access, Right};
use crate::types::account::{Account, sip_credentials};
use crate::types::call::Call;
use crate::types::caller_id::{CallbackNumber, CallerId};
use crate::types::ledger::LedgerEntry;
use crate::types::operator::{Carrier, carriers};
use crate::types::sip_credential::SipCredential;
use crate::types::viewer::DeviceToken;
use async_graphql::{ID, Interface};
use schema::id::{AccountId, AccountKey, CallId, TransferId};
use std::sync::Arc;
use storage::TokenScope;

/// Something with an identity that is unique over all types.
#[derive(Interface)]
#[graphql(field(name = "id", ty = "ID", desc = "Opaque; unique over all types"))]
pub(crate) enum Node {
    Account(Account),
    Call(Call),
    CallbackNumber(CallbackNumber),
    CallerId(CallerId),
    Carrier(Carrier),
    DeviceToken(DeviceToken),
    LedgerEntry(LedgerEntry),
    SipCredential(SipCredential),
}

/// Whatever has this identity, if the viewer may see it. Identities are UUIDs and do not say of what, so it is looked for
/// where it can be: in the viewer's accounts, then by the indexes of calls, transfers and accounts.
pub(crate) async fn find(app: &App, access: &Access, id: &str) -> Result<Option<Node>, ApiError> {
    let viewer = access.viewer(TokenScope::Read)?;
    let Ok(uuid) = id.parse::<uuid::Uuid>() else { return Ok(None) };
    for &key in &viewer.accounts {
        if let Some(node) = in_account(app, access, key, uuid).await? {
            return Ok(Some(node));
        }
    }
    if let Some(call) = call(app, access, CallId(uuid)).await? {
        return Ok(Some(call.into()));
    }
    if let Some(entry) = ledger_entry(app, access, TransferId(uuid)).await? {
        return Ok(Some(entry.into()));
    }
    let tokens = app.store.device_tokens(viewer.user).await?;
    if let Some(token) = tokens.iter().find(|token| token.id.0 == uuid) {
        return Ok(Some(DeviceToken::from(token).into()));
    }
    if access.staff(Right::SeeAccount).is_err() {
        return Ok(None);
    }
    if let Some(key) = app.store.account_key(AccountId(uuid)).await? {
        return Ok(Some(Account::load(app, key).await?.into()));
    }
    Ok(carriers(app).await?.into_iter().find(|carrier| carrier.id.as_str() == uuid.to_string()).map(Node::from))
}

/// The account itself, or what its snapshot holds.
async fn in_account(app: &App, access: &Access, key: AccountKey, id: uuid::Uuid) -> Result<Option<Node>, ApiError> {
    access.check(Right::SeeAccount, key)?;
    let view = app.actors.view(key).await?;
    if view.profile.id.0 == id {
        return Ok(Some(Account::Whole(view).into()));
    }
    if let Some(found) = view.caller_ids.iter().find(|c| c.id.0 == id) {
        return Ok(Some(CallerId(found.clone()).into()));
    }
    if let Some(found) = view.callback_phones.iter().find(|c| c.id.0 == id) {
        access.check(Right::SeeCallbackNumbers, key)?;
        return Ok(Some(CallbackNumber(found.clone()).into()));
    }
    let credentials = sip_credentials(app, key).await?;
    Ok(credentials.into_iter().find(|c| c.key.0 == id).map(Node::from))
}

/// A call, live or past, that the viewer may see.
pub(crate) async fn call(app: &App, access: &Access, id: CallId) -> Result<Option<Call>, ApiError> {
    let viewer = access.viewer(TokenScope::Read)?;
    for &key in &viewer.accounts {
        if let Some(live) = live_call(app, access, key, id).await? {
            return Ok(Some(live));
        }
    }
    if let Some((key, cdr)) = app.store.call(id).await? {
        return Ok(access.check(Right::SeeCalls, key).is_ok().then(|| cdr.call.into()));
    }
    if access.staff(Right::SeeCalls).is_err() {
        return Ok(None);
    }
    match app.store.live_call(id).await? {
        Some((key, stored)) => Ok(Some(live_call(app, access, key, id).await?.unwrap_or_else(|| stored.call.into()))),
        None => Ok(None),
    }
}

async fn live_call(app: &App, access: &Access, key: AccountKey, id: CallId) -> Result<Option<Call>, ApiError> {
    access.check(Right::SeeCalls, key)?;
    let view = app.actors.view(key).await?;
    Ok(view.live_calls.iter().find(|call| call.id == id).cloned().map(Call::from))
}

async fn ledger_entry(app: &App, access: &Access, id: TransferId) -> Result<Option<LedgerEntry>, ApiError> {
    let Some((key, posted)) = app.store.transfer(id).await? else { return Ok(None) };
    if access.check(Right::SeeLedger, key).is_err() {
        return Ok(None);
    }
    let Some(profile) = app.store.account_profile(key).await? else { return Ok(None) };
    let call = match posted.transfer.call.filter(|_| access.check(Right::SeeCalls, key).is_ok()) {
        Some(no) => app.store.cdr(key, no).await?.map(|cdr| Arc::new(cdr.call)),
        None => None,
    };
    Ok(Some(LedgerEntry { posted, currency: profile.currency, call }))
}
