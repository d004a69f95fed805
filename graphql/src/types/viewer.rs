//! The person who is signed in.

use crate::app::{App, Identity};
use crate::error::ApiError;
use crate::policy::Right;
use crate::types::account::Account;
use crate::types::operator::Operator;
use crate::types::scalar::DateTime;
use async_graphql::{Context, Enum, ID, Object, Result, SimpleObject};
use storage::{TokenScope as StoredScope, User};

/// What a device token may be used for.
#[derive(Debug, Enum, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[graphql(remote = "StoredScope")]
pub(crate) enum TokenScope {
    /// See the account and its calls.
    Read,
    /// Place and end calls.
    Call,
    /// Change settings, make and revoke tokens.
    Manage,
}

/// A token of a mobile app. Its secret is shown once, when it is made.
#[derive(SimpleObject)]
pub(crate) struct DeviceToken {
    #[graphql(owned)]
    pub(crate) id: ID,
    /// The owner's name for it.
    label: String,
    scopes: Vec<TokenScope>,
    created_at: DateTime,
    /// To the minute.
    last_used_at: Option<DateTime>,
}

impl From<&storage::DeviceToken> for DeviceToken {
    fn from(token: &storage::DeviceToken) -> Self {
        Self {
            id: token.id.to_string().into(),
            label: token.label.expose().clone(),
            scopes: token.scopes.iter().copied().map(Into::into).collect(),
            created_at: DateTime(token.created_at),
            last_used_at: token.last_used_at.map(DateTime),
        }
    }
}

/// A signed-in person.
pub(crate) struct Viewer(pub(crate) User);

impl Viewer {
    /// Whoever makes the request, with a token good for reading; `None` for nobody.
    pub(crate) async fn of(ctx: &Context<'_>) -> Result<Option<Self>, ApiError> {
        let access = Identity::of(ctx);
        if access.0.is_none() {
            return Ok(None);
        }
        Ok(App::of(ctx).store.user(access.viewer(StoredScope::Read)?.user).await?.map(Self))
    }
}

/// The person who is signed in.
#[Object]
impl Viewer {
    async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }
    async fn email(&self) -> &str {
        self.0.email.expose()
    }
    async fn username(&self) -> &str {
        self.0.username.expose()
    }
    /// The viewer's own account; null for operator staff without one.
    async fn account(&self, ctx: &Context<'_>) -> Result<Option<Account>> {
        let access = Identity::of(ctx);
        let Some(key) = access.viewer(StoredScope::Read)?.accounts.first().copied() else { return Ok(None) };
        access.check(Right::SeeAccount, key)?;
        Ok(Some(Account::load(App::of(ctx), key).await?))
    }
    /// Null for those who are no operator staff.
    async fn operator(&self, ctx: &Context<'_>) -> Option<Operator> {
        Identity::of(ctx).staff(Right::SeeAccount).ok().map(|()| Operator)
    }
    /// Oldest first.
    async fn device_tokens(&self, ctx: &Context<'_>) -> Result<Vec<DeviceToken>> {
        let user = Identity::of(ctx).viewer(StoredScope::Read)?.user;
        let tokens = App::of(ctx).store.device_tokens(user).await.map_err(ApiError::from)?;
        Ok(tokens.iter().map(Into::into).collect())
    }
}
