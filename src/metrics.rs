//! `/metrics` for Prometheus, on a listener of its own.

use crate::listener::{self, Limits};
use crate::logs;
use actors::Actors;
use axum::Router;
use axum::routing::get;
use metrics::gauge;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use sip::core::Figures;
use sip::transport::TransportCounts;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use storage::Store;
use tokio::net::TcpListener;

/// Upper bounds of the buckets in which the times of commits are counted.
const SECONDS: [f64; 19] = [
    0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0,
    5.0,
];

/// One recorder a process.
fn recorder() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let commits = Matcher::Full("ringfence_journal_commit_seconds".to_owned());
        let buckets = PrometheusBuilder::new().set_buckets_for_metric(commits, &SECONDS).expect("there are some");
        let recorder = buckets.build_recorder();
        let handle = recorder.handle();
        // Only this function sets it, once.
        let _ = metrics::set_global_recorder(recorder);
        handle
    })
}

/// Serves `/metrics` until it is dropped.
///
/// # Errors
/// The listener failed.
pub(crate) async fn serve(
    listener: TcpListener,
    actors: Actors,
    store: Store,
    transport: Arc<TransportCounts>,
    core: Arc<dyn Fn() -> Figures + Send + Sync>,
) -> anyhow::Result<()> {
    let handle = recorder();
    let render = move || {
        let (actors, store, transport, core) = (actors.clone(), store.clone(), transport.clone(), core.clone());
        async move {
            read_gauges(&actors, &store, &transport, core()).await;
            handle.render()
        }
    };
    listener::serve(listener, None, Limits::default(), Router::new().route("/metrics", get(render))).await;
    Ok(())
}

/// Figures that are read when asked for; counters are kept where things happen.
async fn read_gauges(actors: &Actors, store: &Store, transport: &TransportCounts, core: Figures) {
    let set = |name: &'static str, value: u64| gauge!(name).set(as_f64(value));
    let counts = actors.counts();
    set("ringfence_live_calls", counts.live_calls as u64);
    set("ringfence_loaded_accounts", counts.loaded_accounts as u64);
    set("ringfence_journal_depth", counts.journal_depth as u64);
    set("ringfence_calls_admitted", counts.calls_admitted);
    set("ringfence_calls_shed", counts.calls_shed);
    set("ringfence_actor_restarts", counts.restarts);
    set("ringfence_actors_resting", counts.resting as u64);
    set("ringfence_supervisors_beyond_intensity", counts.beyond_intensity as u64);
    set("ringfence_messages_set_aside", counts.set_aside as u64);
    set("ringfence_messages_dropped", counts.messages_dropped);
    set("ringfence_calls_unsettled", counts.unsettled_calls as u64);
    set("ringfence_rows_unreadable", counts.unreadable_rows);
    set("ringfence_log_lines_lost", logs::lines_lost());
    set("ringfence_sip_server_transactions", core.tables.server_transactions as u64);
    set("ringfence_sip_client_transactions", core.tables.client_transactions as u64);
    set("ringfence_sip_legs", core.tables.legs as u64);
    set("ringfence_sip_dialogs", core.tables.dialogs as u64);
    set("ringfence_sip_ended_dialogs", core.tables.ended_dialogs as u64);
    set("ringfence_sip_undecided_calls", core.tables.undecided as u64);
    set("ringfence_sip_waiting", core.tables.waiting as u64);
    set("ringfence_sip_registrations", core.tables.registrations as u64);
    set("ringfence_sip_datagrams", transport.datagrams.load(Relaxed));
    set("ringfence_sip_refused_messages", transport.refused.load(Relaxed));
    set("ringfence_sip_connections", transport.connections.load(Relaxed));
    set("ringfence_sip_connections_shed", transport.shed_connections.load(Relaxed));
    set("ringfence_sip_connections_slow", transport.slow_connections.load(Relaxed));
    let guard = core.guard;
    set("ringfence_sip_dropped_scanners", guard.scanners);
    set("ringfence_sip_dropped_rate", guard.rate);
    set("ringfence_sip_dropped_banned", guard.banned);
    set("ringfence_sip_bans", guard.bans);
    set("ringfence_sip_failed_authentications", guard.failures);
    set("ringfence_sip_accounts_slowed", guard.accounts_slowed);
    set("ringfence_sip_slowed_attempts", guard.slowed);
    set("ringfence_sip_sources", guard.sources as u64);
    let overload = core.overload;
    let shed = |reason: &'static str, count: u64| gauge!("ringfence_sip_shed", "reason" => reason).set(as_f64(count));
    shed("live", overload.live);
    shed("rate", overload.rate);
    shed("delay", overload.delay);
    shed("queue", overload.queue);
    shed("registrations", overload.registrations);
    gauge!("ringfence_sip_standing_delay_seconds").set(overload.standing.as_secs_f64());
    if let Ok(open) = store.open_holds().await {
        set("ringfence_open_holds", open);
    }
}

/// Prometheus values are floats; counts below 2⁵³ are exact.
#[expect(clippy::cast_precision_loss, clippy::as_conversions, reason = "metrics only, no money")]
const fn as_f64(value: u64) -> f64 {
    value as f64
}
