//! The real server under load, killed without warning: nothing acknowledged is lost, nothing is charged twice, calls go on.

use tests::kill::{Moment, Summary, round};
use tests::postgres::Cluster;

/// Of what is random in the load. How it meets the kills differs from run to run.
const SEED: u64 = 4;

async fn survives(moments: &[Moment], more: &str) -> Summary {
    let mut summary = Summary::default();
    let survived = round(SEED, moments, more, &mut summary, &mut |_| ()).await;
    survived.unwrap_or_else(|findings| panic!("seed {SEED}, after kill {}: {findings}", summary.kills));
    println!("{summary}");
    summary
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_what_was_acknowledged_survives_kills_at_random_times() {
    let summary = survives(&[Moment::Random; 6], "").await;
    assert!(summary.with_calls_up > 0, "{summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_what_was_acknowledged_survives_kills_before_a_sync_and_before_it_is_told() {
    // The first ones within the start-up, the last ones among calls.
    let syncs = [1, 2, 3, 5, 9, 60].map(Moment::Sync);
    let sends = [2, 7, 90].map(Moment::Send);
    let summary = survives(&[&syncs[..], &sends].concat(), "").await;
    assert!(summary.with_calls_up > 0, "{summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_what_was_acknowledged_survives_kills_on_postgres() {
    let cluster = Cluster::start().await;
    cluster.create_database("ringfence").await;
    let database = format!("database.url = \"{}\"", cluster.url("ringfence"));
    let moments = [[Moment::Random; 3], [7, 60, 150].map(Moment::Send)].concat();
    let summary = survives(&moments, &database).await;
    assert!(summary.with_calls_up > 0, "{summary}");
}
