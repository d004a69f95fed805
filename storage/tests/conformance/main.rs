//! One suite for every store: memory, SQLite and PostgreSQL.

#![expect(unreachable_pub, reason = "the modules of one test")]

mod corruption;
mod disk;
mod files;
mod model;
mod outage;
mod panics;
mod postgres;
mod proxy;
mod rot;
mod samples;
mod suite;

use postgres::Cluster;
use storage::*;

const MASTER: [u8; 32] = [9; 32];

/// `ringfence audit` finds nothing to complain of.
async fn audited(store: &Store) {
    let report = storage::audit::audit(store, |_| {}).await.expect("the audit can read");
    assert!(report.is_clean(), "{report}");
}

async fn sqlite(folder: &std::path::Path) -> Store {
    let keys = Keyring::open(&DatabaseUrl::sqlite(folder.join("keys.db")), &MasterKey::from_bytes(MASTER))
        .await
        .expect("keys");
    Store::open(&DatabaseUrl::sqlite(folder.join("data.db")), keys).await.expect("a store")
}

/// On a database of its own. The keys are in a PostgreSQL database where a test destroys some, else in a file.
async fn postgres(cluster: &Cluster, name: &str) -> Store {
    cluster.create_database(name).await;
    let url = |name: &str| DatabaseUrl::parse(&cluster.url(name)).expect("a url");
    let keys_url = if name.starts_with("p4") {
        cluster.create_database("keys").await;
        url("keys")
    } else {
        DatabaseUrl::sqlite(cluster.folder().join(format!("{name}.keys.db")))
    };
    let keys = Keyring::open(&keys_url, &MasterKey::from_bytes(MASTER)).await.expect("keys");
    Store::open(&url(name), keys).await.expect("a store")
}

macro_rules! conformance {
    ($($name:ident)*) => {
        mod on_memory {
            $(#[tokio::test(start_paused = true)]
            async fn $name() {
                crate::suite::$name(storage::Store::memory(&storage::MemDisk::new())).await;
            })*
        }

        mod on_sqlite {
            $(#[tokio::test]
            async fn $name() {
                let folder = tempfile::tempdir().expect("a folder");
                let store = crate::sqlite(folder.path()).await;
                crate::suite::$name(store.clone()).await;
                store.close().await;
            })*
        }

        /// All of it in one cluster, which takes a second to start.
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn on_postgres() {
            let cluster = Cluster::start().await;
            $(
                println!("{}", stringify!($name));
                let database = stringify!($name);
                let store = postgres(&cluster, &database[..database.len().min(50)]).await;
                Box::pin(suite::$name(store.clone())).await;
                store.close().await;
            )*
            files::on_postgres(&cluster).await;
            model::on_postgres(&cluster).await;
            outage::on_postgres(&cluster).await;
            corruption::on_postgres(&cluster).await;
            rot::on_postgres(&cluster).await;
        }
    };
}

conformance! {
    accounts_are_created_whole_and_found
    creating_again_creates_only_what_is_missing
    credentials_are_found_rotated_and_revoked
    c3_a_call_is_granted_answered_and_settled_in_three_entries
    dialogs_are_written_when_they_change_and_go_with_their_call
    a_renewal_writes_nothing_but_what_it_changes
    l3_a_call_ends_once
    l3_a_step_is_held_for_once
    an_entry_may_move_several_things
    two_writers_of_an_account_are_fenced
    l1_money_below_zero_is_never_written
    an_entry_out_of_order_is_fenced_with_all_that_follow
    a_rejected_entry_takes_its_accounts_later_ones_with_it
    a_rejection_reaches_the_batches_in_flight_behind_it
    l4_a_key_posts_once_for_ever
    many_entries_of_a_hot_account_share_batches
    events_are_read_in_order_and_purged
    what_was_told_of_a_call_that_ended_is_read_as_it_was_told
    many_events_are_purged_once
    an_entry_of_a_time_to_come_keeps_no_events
    histories_are_read_by_pages_and_filters
    live_calls_are_read_by_pages_over_all_accounts
    caller_ids_change_through_the_journal
    decks_have_versions_and_trunks_change
    people_sign_in_and_belong_to_accounts
    sessions_and_device_tokens_live_until_revoked
    bindings_survive_and_end
    p4_what_a_destroyed_key_sealed_cannot_be_read
}
