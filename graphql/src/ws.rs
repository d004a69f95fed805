//! `/graphql/ws`: the socket around the protocol. One task reads, runs the subscriptions and writes, so a client that stops
//! reading holds up only itself: sources conflate or read again from storage, nothing queues, and it is cut after a while.

pub(crate) mod protocol;
mod strangers;

use crate::app::{App, Identity};
use crate::error::{ApiError, ErrorCode, complete};
use crate::graph::Graph;
use crate::limits::{self, Transport};
use crate::origin::client_address;
use crate::policy::{Access, Viewer};
use crate::session::{Credential, Ticket, bearer};
use async_graphql::{Request, Response, Variables};
use axum::Extension;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response as HttpResponse};
use futures_util::stream::{BoxStream, SelectAll, StreamExt};
use protocol::{Action, Close, Operation, Protocol};
use schema::pii::Pii;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use strangers::{Stranger, Strangers};
use tokio::sync::watch;
use tokio::time::{Instant, Interval, interval_at, sleep_until, timeout};

/// Until `connection_init` must have come.
const INIT_TIMEOUT: Duration = Duration::from_secs(3);
/// Between our pings; they are answered within one more of it, or the socket is dead.
const PING: Duration = Duration::from_secs(20);
/// So many pings between two confirmations of the session with the store.
const PINGS_PER_CONFIRMATION: u32 = 3;
/// Largest message of a client, in bytes.
const FRAME_BYTES: usize = 16 * 1024;
/// A client that takes nothing for this long is cut.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// For the client's side of the closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Messages of a client between two of our pings.
const MESSAGES: u32 = 200;

/// What the sockets share.
#[derive(Clone, Default)]
pub(crate) struct Sockets {
    strangers: Arc<Strangers>,
}

/// The upgrade. A foreign page is refused before there is a socket.
pub(crate) async fn upgrade(
    State(app): State<Arc<App>>,
    Extension(graph): Extension<Graph>,
    Extension(sockets): Extension<Sockets>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> HttpResponse {
    if app.origins.admit(&headers) == Some(false) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let peer = peer.map(|Extension(ConnectInfo(peer))| peer.ip());
    let stranger = match sockets.strangers.admit(client_address(peer, &headers, &app.config.trusted_proxies)) {
        Ok(stranger) => stranger,
        Err(status) => return status.into_response(),
    };
    let cookie = app.sessions.credential(&headers);
    // Small buffers: axum's own take 128 KiB a socket.
    upgrade
        .protocols([protocol::NAME])
        .read_buffer_size(4_096)
        .write_buffer_size(0)
        .max_write_buffer_size(limits::ANSWER_BYTES + FRAME_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_message_size(FRAME_BYTES)
        .on_upgrade(move |socket| async move {
            let _open = Open::new();
            Connection::new(app, graph, socket, cookie, stranger).run().await;
        })
}

/// Counts an open socket, also when its task panics.
struct Open;

impl Open {
    fn new() -> Self {
        metrics::gauge!("ringfence_websockets").increment(1.0);
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("ringfence_websockets").decrement(1.0);
    }
}

/// What one subscription brings: an answer, or that it is over.
enum Item {
    Answer(String, Box<Response>),
    Over(String),
}

struct Connection {
    app: Arc<App>,
    graph: Graph,
    socket: WebSocket,
    protocol: Protocol,
    /// What came with the upgrade.
    credential: Option<Credential>,
    /// Counts among those that have not said who they are.
    stranger: Option<Stranger>,
    session: Option<Session>,
    draining: watch::Receiver<bool>,
    running: SelectAll<BoxStream<'static, Item>>,
    stops: BTreeMap<String, watch::Sender<()>>,
    ping: Interval,
    pings: u32,
    is_alive: bool,
    budget: u32,
}

struct Session {
    ticket: Ticket,
    viewer: Viewer,
}

/// What happens next on a connection.
enum Next {
    Received(Option<Result<Message, axum::Error>>),
    Item(Item),
    Tick,
    InitTimeout,
    Revoked,
    Draining,
}

impl Connection {
    fn new(app: Arc<App>, graph: Graph, socket: WebSocket, credential: Option<Credential>, stranger: Stranger) -> Self {
        Self {
            draining: app.draining.clone(),
            app,
            graph,
            socket,
            protocol: Protocol::new(),
            credential,
            stranger: Some(stranger),
            session: None,
            running: SelectAll::new(),
            stops: BTreeMap::new(),
            ping: interval_at(Instant::now() + PING, PING),
            pings: 0,
            is_alive: true,
            budget: MESSAGES,
        }
    }

    async fn run(mut self) {
        let close = if self.socket.protocol().is_none() { Some(Close::NO_SUBPROTOCOL) } else { self.serve().await };
        if let Some(Close(code, reason)) = close {
            let frame = CloseFrame { code, reason: reason.into() };
            let _ = timeout(WRITE_TIMEOUT, self.socket.send(Message::Close(Some(frame)))).await;
            // What the client still sends is read: a connection closed with unread data is reset, and the reason lost.
            let _ = timeout(CLOSE_TIMEOUT, async { while let Some(Ok(_)) = self.socket.recv().await {} }).await;
        }
    }

    /// Until the connection ends; `None` when there is nobody to tell why.
    async fn serve(&mut self) -> Option<Close> {
        let init_by = Instant::now() + INIT_TIMEOUT;
        loop {
            let outcome = match self.next(init_by).await {
                Next::Received(Some(Ok(message))) => self.on_message(message).await,
                Next::Received(_) => return None,
                Next::Item(item) => self.on_item(item).await,
                Next::Tick => self.on_tick().await,
                Next::InitTimeout => Err(Some(Close::INIT_TIMEOUT)),
                Next::Revoked => Err(Some(Close::FORBIDDEN)),
                Next::Draining => Err(Some(Close::GOING_AWAY)),
            };
            if let Err(close) = outcome {
                return close;
            }
        }
    }

    async fn next(&mut self, init_by: Instant) -> Next {
        let is_fresh = self.protocol.is_fresh();
        let Self { session, ping, socket, running, draining, .. } = self;
        tokio::select! {
            biased;
            () = revoked(session) => Next::Revoked,
            () = drained(draining) => Next::Draining,
            () = sleep_until(init_by), if is_fresh => Next::InitTimeout,
            _ = ping.tick() => Next::Tick,
            message = socket.recv() => Next::Received(message),
            Some(item) = running.next() => Next::Item(item),
        }
    }

    async fn on_message(&mut self, message: Message) -> Result<(), Option<Close>> {
        self.is_alive = true;
        self.budget = self.budget.checked_sub(1).ok_or(Some(Close::TOO_MANY_MESSAGES))?;
        let action = match &message {
            Message::Text(text) => self.protocol.on_text(text),
            Message::Binary(_) => Action::Close(Close::BAD_MESSAGE),
            Message::Ping(_) | Message::Pong(_) => Action::Nothing,
            Message::Close(_) => return Err(None),
        };
        match action {
            Action::Nothing => Ok(()),
            Action::Close(close) => Err(Some(close)),
            Action::Pong => self.send(protocol::message("pong", None, None)).await,
            Action::Authenticate { authorization } => self.authenticate(authorization).await,
            Action::Stop(id) => {
                self.stops.remove(&id);
                Ok(())
            }
            Action::TooMany(id) => {
                let message = format!("at most {} subscriptions of one socket", protocol::SUBSCRIPTIONS);
                let error = ApiError::new(ErrorCode::RateLimited, message).into_server_error();
                self.send(error_message(&id, &[error])).await
            }
            Action::Subscribe(id, operation) => self.subscribe(id, *operation).await,
        }
    }

    async fn authenticate(&mut self, authorization: Option<Pii<String>>) -> Result<(), Option<Close>> {
        let credential = authorization.map(|text| bearer(text.expose())).or_else(|| self.credential.take());
        let credential = credential.ok_or(Some(Close::FORBIDDEN))?;
        let access = self.app.sessions.access(Some(&credential)).await.map_err(|error| Some(refusal(error.code)))?;
        let viewer = access.0.ok_or(Some(Close::FORBIDDEN))?;
        let ticket = self.app.sessions.admit_socket(&viewer, credential).await;
        let ticket = ticket.map_err(|error| Some(refusal(error.code)))?;
        self.session = Some(Session { ticket, viewer });
        self.stranger = None;
        self.protocol.accepted();
        self.send(protocol::message("connection_ack", None, None)).await
    }

    async fn subscribe(&mut self, id: String, operation: Operation) -> Result<(), Option<Close>> {
        let Some(Session { viewer, .. }) = &self.session else { return Err(Some(Close::UNAUTHORIZED)) };
        let access = Access(Some(viewer.clone()));
        let document = match limits::parse(&operation.query, Transport::WebSocket) {
            Ok((document, _)) => document,
            Err(error) => {
                self.protocol.ended(&id);
                return self.send(error_message(&id, &[error.into_server_error()])).await;
            }
        };
        metrics::counter!("ringfence_graphql_operations_total", "kind" => "subscription", "outcome" => "ok")
            .increment(1);
        let mut request =
            Request::new(operation.query).variables(Variables::from_json(operation.variables.into_exposed()));
        request.operation_name = operation.operation_name;
        request.set_parsed_query(document);
        let answers = self.graph.0.execute_stream(request.data(Identity::new(access)));
        let (stop, mut stopped) = watch::channel(());
        let (name, last) = (id.clone(), id.clone());
        let items = answers
            .map(move |answer| Item::Answer(name.clone(), Box::new(answer)))
            .chain(futures_util::stream::once(async move { Item::Over(last) }))
            .take_until(async move {
                // Ends when the sender is dropped.
                while stopped.changed().await.is_ok() {}
            });
        self.stops.insert(id, stop);
        self.running.push(items.boxed());
        Ok(())
    }

    async fn on_item(&mut self, item: Item) -> Result<(), Option<Close>> {
        if !self.session.as_ref().is_some_and(|session| session.ticket.is_current()) {
            return Err(Some(Close::FORBIDDEN));
        }
        match item {
            Item::Answer(id, mut answer) => {
                complete(&mut answer.errors);
                if answer.data == async_graphql::Value::Null && answer.is_err() {
                    // Nothing can follow that would not leave a gap.
                    self.forget(&id);
                    return self.send(error_message(&id, &answer.errors)).await;
                }
                let payload = serde_json::to_value(&*answer).unwrap_or(Value::Null);
                self.send(protocol::message("next", Some(&id), Some(payload))).await
            }
            Item::Over(id) => {
                let is_news = self.forget(&id);
                if is_news { self.send(protocol::message("complete", Some(&id), None)).await } else { Ok(()) }
            }
        }
    }

    fn forget(&mut self, id: &str) -> bool {
        self.stops.remove(id);
        self.protocol.ended(id)
    }

    async fn on_tick(&mut self) -> Result<(), Option<Close>> {
        if !self.is_alive {
            return Err(Some(Close::SILENT));
        }
        self.is_alive = false;
        self.budget = MESSAGES;
        self.pings += 1;
        if let Some(session) = &self.session {
            let confirms = self.pings.is_multiple_of(PINGS_PER_CONFIRMATION);
            if !session.ticket.is_current() || (confirms && !session.ticket.is_confirmed().await) {
                return Err(Some(Close::FORBIDDEN));
            }
        }
        self.send(protocol::message("ping", None, None)).await
    }

    /// Writes a message; whoever does not take it in time, or is signed out meanwhile, is cut.
    async fn send(&mut self, text: String) -> Result<(), Option<Close>> {
        let Self { socket, session, .. } = self;
        tokio::select! {
            biased;
            written = timeout(WRITE_TIMEOUT, socket.send(Message::Text(text.into()))) => match written {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) | Err(_) => Err(None),
            },
            () = revoked(session) => Err(None),
        }
    }
}

/// Why a socket gets no session. An app may throw its token away at 4403, so a store that fails is told apart.
const fn refusal(code: ErrorCode) -> Close {
    match code {
        ErrorCode::RateLimited => Close::TOO_MANY_SOCKETS,
        ErrorCode::Unavailable => Close::UNAVAILABLE,
        _ => Close::FORBIDDEN,
    }
}

/// Returns when the session, if there is one, was revoked.
async fn revoked(session: &mut Option<Session>) {
    match session {
        Some(session) => session.ticket.revoked().await,
        None => std::future::pending().await,
    }
}

/// Returns when the process drains; never when whoever would say so is gone.
async fn drained(draining: &mut watch::Receiver<bool>) {
    if draining.wait_for(|draining| *draining).await.is_err() {
        std::future::pending().await
    }
}

fn error_message(id: &str, errors: &[async_graphql::ServerError]) -> String {
    protocol::message("error", Some(id), serde_json::to_value(errors).ok())
}
