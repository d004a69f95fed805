//! The paths, and the headers that every answer carries.

use crate::app::App;
use crate::config::WebConfig;
use crate::graph::Graph;
use crate::origin::{Origins, is_https, keeps_secure_cookies};
use crate::password::Verifier;
use crate::session::Sessions;
use crate::sign_in::Attempts;
use crate::ws::Sockets;
use crate::{assets, http, ws};
use actors::Actors;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::routing::{any, get, post};
use axum::{Extension, Router};
use schema::entropy::Entropy;
use schema::time::Clock;
use std::sync::Arc;
use std::time::Duration;
use storage::Store;
use tokio::sync::watch;
use tokio::time::timeout;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::set_header::SetResponseHeaderLayer;

/// What the web edge works with.
pub struct Api {
    /// The accounts and calls.
    pub actors: Actors,
    /// For what no actor decides: people, sessions, history.
    pub store: Store,
    /// For expiry and limits.
    pub clock: Clock,
    /// For tokens.
    pub entropy: Entropy,
    /// Addresses and modes.
    pub config: WebConfig,
    /// True once this process takes no more work: `/readyz` says so, and sockets are closed, to be opened at the next one.
    pub draining: watch::Receiver<bool>,
}

/// The whole web edge. Serve it with `into_make_service_with_connect_info::<SocketAddr>()`, or put
/// `ConnectInfo<SocketAddr>` into each request's extensions: without it all clients share one limit of sign-ins.
pub fn router(api: Api) -> Router {
    let Api { actors, store, clock, mut entropy, config, draining } = api;
    let secure_cookies = keeps_secure_cookies(&config.public_url);
    let sessions = Sessions::new(store.clone(), clock.clone(), entropy.fork(), secure_cookies);
    let hsts = is_https(&config.public_url);
    let app = Arc::new(App {
        actors,
        store,
        clock,
        sessions: Arc::new(sessions),
        verifier: Verifier::new(),
        attempts: Attempts::new(&mut entropy),
        origins: Origins::new(&config.public_url, &config.origins),
        config,
        draining,
    });
    let api = Router::new()
        .route("/graphql", post(http::graphql))
        .route("/graphql/ws", any(ws::upgrade))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .layer(header(header::CACHE_CONTROL, "no-store"))
        .layer(Extension(Graph::new(app.clone())))
        .layer(Extension(Sockets::default()));
    let all = api
        .fallback_service(get(assets::serve).layer(CompressionLayer::new()))
        .layer(CatchPanicLayer::custom(http::panicked))
        .layer(header(
            header::CONTENT_SECURITY_POLICY,
            "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
        ))
        .layer(header(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(header(header::REFERRER_POLICY, "same-origin"))
        .with_state(app);
    if hsts { all.layer(header(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000")) } else { all }
}

fn header(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value))
}

/// Whether new work may be sent here.
async fn ready(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    if *app.draining.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    if !app.actors.is_ready() {
        return (StatusCode::SERVICE_UNAVAILABLE, "calls fail: no new ones are let in for a while\n");
    }
    match timeout(Duration::from_secs(1), app.store.brand()).await {
        Ok(Ok(_)) => (StatusCode::OK, "ready\n"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n"),
    }
}
