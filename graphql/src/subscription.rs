//! What can be watched. The socket checks the session before each event; these streams only bring what happens.

use crate::app::{App, Identity};
use crate::cursor;
use crate::error::ApiError;
use crate::policy::Right;
use crate::types::call::Call;
use crate::types::event::AccountEvent;
use crate::types::money::Balance;
use crate::types::scalar::{Cursor, DateTime};
use actors::{EventItem, LiveView};
use async_graphql::{Context, Result, Subscription as GraphqlSubscription};
use futures_util::future::ready;
use futures_util::{Stream, StreamExt};
use std::sync::Arc;
use tokio_stream::wrappers::WatchStream;

/// What can be watched.
pub(crate) struct Subscription;

/// What can be watched.
#[GraphqlSubscription]
impl Subscription {
    /// Every durable change of the account, in order, with values as of the event. With `after`, what happened since that
    /// cursor first; if that is no longer kept, one SnapshotRequired and then live events. Never a silent gap.
    async fn account_events(
        &self,
        ctx: &Context<'_>,
        after: Option<Cursor>,
    ) -> Result<impl Stream<Item = AccountEvent> + use<>> {
        let app = App::of(ctx).clone();
        let access = Identity::of(ctx);
        let account = access.own_account(Right::SeeAccount)?;
        access.check(Right::SeeCalls, account)?;
        let id = app.actors.view(account).await.map_err(ApiError::from)?.profile.id;
        let after = after.map(|after| cursor::read(Some(id), &after.0, "after")).transpose()?;
        let events = app.actors.events(account, after);
        Ok(events.map(move |item| match item {
            EventItem::Event(event) => AccountEvent::new(account, id, event),
            EventItem::SnapshotRequired(place) => {
                AccountEvent::snapshot_required(Cursor::of(id, place), DateTime((app.clock)().wall))
            }
        }))
    }

    /// Now, then at each change and each second while a call lasts; conflated to the latest.
    async fn balance(&self, ctx: &Context<'_>) -> Result<impl Stream<Item = Balance> + use<>> {
        let live = live(ctx, Right::SeeAccount).await?;
        Ok(changes(live.map(|view| view.balance)).map(|balance| (&balance).into()))
    }

    /// Now, then at each change and at most once a second; conflated to the latest.
    async fn live_calls(&self, ctx: &Context<'_>) -> Result<impl Stream<Item = Vec<Call>> + use<>> {
        let live = live(ctx, Right::SeeCalls).await?;
        Ok(changes(live.map(|view| view.live_calls.clone())).map(|calls| calls.into_iter().map(Call::from).collect()))
    }
}

/// The viewer's own account as it goes; a slow reader gets the latest, not every one.
async fn live(ctx: &Context<'_>, right: Right) -> Result<WatchStream<Arc<LiveView>>, ApiError> {
    let account = Identity::of(ctx).own_account(right)?;
    Ok(WatchStream::new(App::of(ctx).actors.watch(account).await?))
}

/// Without those that equal the one before.
fn changes<T: PartialEq + Clone + Send + 'static>(all: impl Stream<Item = T> + Send) -> impl Stream<Item = T> + Send {
    let mut last = None;
    all.filter_map(move |item| {
        let is_new = last.as_ref() != Some(&item);
        last = Some(item.clone());
        ready(is_new.then_some(item))
    })
}
