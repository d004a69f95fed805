//! What can be read.

use crate::app::{App, Identity};
use crate::error::ApiError;
use crate::policy::Right;
use crate::types::call::Call;
use crate::types::node::{self, Node};
use crate::types::quote::{CallInput, Quote};
use crate::types::viewer::Viewer;
use async_graphql::{Context, ID, Object, Result};

/// What can be read.
pub(crate) struct Query;

/// What can be read.
#[Object]
impl Query {
    /// Null when signed out.
    async fn viewer(&self, ctx: &Context<'_>) -> Result<Option<Viewer>> {
        Ok(Viewer::of(ctx).await?)
    }

    /// Anything with this identity; null when there is none that the viewer may see.
    #[graphql(complexity = "child_complexity + 5")]
    async fn node(&self, ctx: &Context<'_>, id: ID) -> Result<Option<Node>> {
        Ok(node::find(App::of(ctx), &Identity::of(ctx), &id).await?)
    }

    /// A call, live or past; null when there is none that the viewer may see.
    #[graphql(complexity = "child_complexity + 2")]
    async fn call(&self, ctx: &Context<'_>, id: ID) -> Result<Option<Call>> {
        let access = Identity::of(ctx);
        access.viewer(storage::TokenScope::Read)?;
        let Ok(id) = id.parse() else { return Ok(None) };
        Ok(node::call(App::of(ctx), &access, id).await?)
    }

    /// What a call would cost and which way it would go, without placing it.
    #[graphql(complexity = "child_complexity + 20")]
    async fn quote(&self, ctx: &Context<'_>, input: CallInput) -> Result<Quote> {
        let app = App::of(ctx);
        let access = Identity::of(ctx);
        let account = access.own_account(Right::Quote)?;
        let request = input.checked(app, account).await?;
        let currency = app.actors.view(account).await.map_err(ApiError::from)?.profile.currency;
        let quote = app.actors.quote(account, request).await.map_err(ApiError::from)?;
        Ok(Quote::new(&quote, currency, access.sees_costs()))
    }
}
