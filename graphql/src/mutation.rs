//! What can be changed. Each mutation has one input object and one payload.

use crate::app::{App, Identity};
use crate::error::{ApiError, ErrorCode};
use crate::http::SET_COOKIE;
use crate::policy::{self, Access, Means, Right, Viewer as SignedIn};
use crate::sign_in::{self, Source};
use crate::types::call::Call;
use crate::types::viewer::{DeviceToken, TokenScope, Viewer};
use actors::HangUpError;
use async_graphql::{Context, ID, InputObject, Object, Result, SimpleObject};
use schema::id::CallId;
use storage::TokenScope as StoredScope;
use zeroize::Zeroizing;

/// Whom to sign in.
#[derive(InputObject)]
pub(crate) struct SignInInput {
    email: String,
    password: String,
    /// Label of the token to return instead of a cookie.
    device: Option<String>,
}

/// Who is signed in now, or what is still asked.
#[derive(SimpleObject)]
pub(crate) struct SignInPayload {
    viewer: Option<Viewer>,
    /// Shown once; only when `device` was given.
    token: Option<String>,
    /// A second factor to answer with; null when none is asked for.
    challenge: Option<Challenge>,
}

/// A second factor that is asked for.
#[derive(SimpleObject)]
pub(crate) struct Challenge {
    id: ID,
    methods: Vec<String>,
}

/// Done.
#[derive(SimpleObject)]
pub(crate) struct SignOutPayload {
    ok: bool,
}

/// The token to make.
#[derive(InputObject)]
pub(crate) struct CreateDeviceTokenInput {
    /// 1 to 64 characters.
    label: String,
    /// At least one; of a token's own scopes when a token asks.
    scopes: Vec<TokenScope>,
}

/// The token that was made.
#[derive(SimpleObject)]
pub(crate) struct CreateDeviceTokenPayload {
    device_token: DeviceToken,
    /// Shown once.
    token: String,
}

/// The token to revoke.
#[derive(InputObject)]
pub(crate) struct RevokeDeviceTokenInput {
    id: ID,
}

/// The token that is gone.
#[derive(SimpleObject)]
pub(crate) struct RevokeDeviceTokenPayload {
    id: ID,
}

/// The call to end.
#[derive(InputObject)]
pub(crate) struct HangUpInput {
    call_id: ID,
}

/// The call as it is now.
#[derive(SimpleObject)]
pub(crate) struct HangUpPayload {
    call: Call,
}

/// What can be changed.
pub(crate) struct Mutation;

/// What can be changed.
#[Object]
impl Mutation {
    /// Browsers get a session cookie; apps ask for a token with `device`.
    #[graphql(complexity = "child_complexity + 100")]
    async fn sign_in(&self, ctx: &Context<'_>, input: SignInInput) -> Result<SignInPayload> {
        let app = App::of(ctx);
        let device = input.device.map(|label| checked_label("input.device", label)).transpose()?;
        let source = *ctx.data_unchecked::<Source>();
        let user = sign_in::check(app, source, &input.email, Zeroizing::new(input.password)).await?;
        let (viewer, token) = match device {
            Some(label) => {
                let scopes = StoredScope::ALL.to_vec();
                let (device, secret) = app.sessions.create_device_token(user.id, label, scopes).await?;
                (app.sessions.viewer(user.id, Means::Device(device.id), device.scopes).await?, Some(secret.to_string()))
            }
            None => {
                // A new token at each sign-in; the one the browser had ends.
                end_session(ctx).await?;
                let (viewer, cookie) = app.sessions.begin(user.id).await?;
                ctx.insert_http_header(SET_COOKIE, cookie);
                (viewer, None)
            }
        };
        Identity::replace(ctx, Access(Some(viewer)));
        Ok(SignInPayload { viewer: Some(Viewer(user)), token, challenge: None })
    }

    /// Ends the session, or revokes the token, by which it is asked, and closes its sockets.
    async fn sign_out(&self, ctx: &Context<'_>) -> Result<SignOutPayload> {
        let app = App::of(ctx);
        if let Some(SignedIn { user, means, .. }) = &Identity::of(ctx).0 {
            app.sessions.end(*user, *means).await?;
        }
        Identity::replace(ctx, Access(None));
        ctx.insert_http_header(SET_COOKIE, app.sessions.removal());
        Ok(SignOutPayload { ok: true })
    }

    /// Makes a token for an app. Its secret is in this answer only.
    #[graphql(complexity = "child_complexity + 20")]
    async fn create_device_token(
        &self,
        ctx: &Context<'_>,
        input: CreateDeviceTokenInput,
    ) -> Result<CreateDeviceTokenPayload> {
        let access = Identity::of(ctx);
        let viewer = access.viewer(StoredScope::Manage)?;
        let label = checked_label("input.label", input.label)?;
        let scopes = checked_scopes(viewer, &input.scopes)?;
        let app = App::of(ctx);
        let (device, secret) = app.sessions.create_device_token(viewer.user, label, scopes).await?;
        Ok(CreateDeviceTokenPayload { device_token: (&device).into(), token: secret.to_string() })
    }

    /// Revokes a token of the viewer at once; its sockets are closed.
    async fn revoke_device_token(
        &self,
        ctx: &Context<'_>,
        input: RevokeDeviceTokenInput,
    ) -> Result<RevokeDeviceTokenPayload> {
        let user = Identity::of(ctx).viewer(StoredScope::Manage)?.user;
        let app = App::of(ctx);
        let id = input.id.parse().map_err(|_| ApiError::not_found("device token"))?;
        if !app.sessions.end(user, Means::Device(id)).await? {
            return Err(ApiError::not_found("device token").into());
        }
        Ok(RevokeDeviceTokenPayload { id: input.id })
    }

    /// Ends a call, both legs of it. A call that has ended already is a success.
    #[graphql(complexity = "child_complexity + 20")]
    async fn hang_up(&self, ctx: &Context<'_>, input: HangUpInput) -> Result<HangUpPayload> {
        let app = App::of(ctx);
        let access = Identity::of(ctx);
        let account = access.own_account(Right::HangUp)?;
        let id: CallId = input.call_id.parse().map_err(|_| ApiError::not_found("call"))?;
        match app.actors.hang_up(account, id).await {
            Ok(call) => Ok(HangUpPayload { call: call.into() }),
            Err(HangUpError::NotFound) => Err(ApiError::not_found("call").into()),
            Err(HangUpError::NotTold) => Err(unavailable("the call cannot be ended at this moment: try again")),
            Err(HangUpError::Unknown) => Err(unavailable("the call is ending, its end is not known yet: look again")),
        }
    }
}

fn unavailable(message: &'static str) -> async_graphql::Error {
    ApiError::new(ErrorCode::Unavailable, message).into()
}

/// Ends the session of the request's cookie, if it has one.
async fn end_session(ctx: &Context<'_>) -> Result<(), ApiError> {
    if let Some(SignedIn { user, means: means @ Means::Session(_), .. }) = &Identity::of(ctx).0 {
        App::of(ctx).sessions.end(*user, *means).await?;
    }
    Ok(())
}

fn checked_label(field: &str, label: String) -> Result<String, ApiError> {
    let characters = label.chars().count();
    if !(1..=64).contains(&characters) || label.chars().any(char::is_control) {
        return Err(ApiError::invalid(field, "(…)", "must have 1 to 64 printable characters"));
    }
    Ok(label)
}

/// Nobody makes a token that is good for more than the one that asks.
fn checked_scopes(viewer: &SignedIn, wanted: &[TokenScope]) -> Result<Vec<StoredScope>, ApiError> {
    let mut scopes: Vec<StoredScope> = wanted.iter().copied().map(Into::into).collect();
    scopes.sort_unstable();
    scopes.dedup();
    if scopes.is_empty() {
        return Err(ApiError::invalid("input.scopes", "[]", "name at least one of READ, CALL, MANAGE"));
    }
    match scopes.iter().find(|scope| !viewer.scopes.contains(scope)) {
        Some(scope) => Err(ApiError::forbidden(format!("this token lacks the scope {}", policy::word(*scope)))),
        None => Ok(scopes),
    }
}
