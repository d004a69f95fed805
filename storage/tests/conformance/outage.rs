//! PostgreSQL goes away at the worst moment: an entry is told as written exactly when it is. One that falls silent holds nobody up.

use crate::postgres::Cluster;
use crate::proxy::*;
use crate::samples::*;
use schema::id::AccountKey;
use schema::journal::Rejection;
use schema::money::Micros;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::sync::atomic::Ordering;
use std::time::Duration;
use storage::*;

pub async fn on_postgres(cluster: &Cluster) {
    println!("outage");
    cluster.create_database("outage").await;
    let (store, switch) = behind_a_proxy(cluster, "outage").await;
    let mut world = World::new(store.clone(), 1).await;
    let key = world.account("ann", 100).await;
    let journal = Journal::start(&store, JournalOptions::default());
    let mut actor = world.actor(key).await;
    let first = actor.credit(&mut world, 1, "a", [0; 32]).1;
    assert_eq!(submit(&journal, vec![first]).await, [Ok(())]);

    switch.set(CUT_AFTER);
    let told = actor.credit(&mut world, 10, "b", [0; 32]).1;
    assert_eq!(submit(&journal, vec![told]).await, [Ok(())], "it was committed, though the answer was lost");
    assert_eq!(world.actor(key).await.figures.total, Micros(111));

    switch.set(CUT_BEFORE);
    let again = actor.credit(&mut world, 100, "c", [0; 32]).1;
    assert_eq!(submit(&journal, vec![again]).await, [Ok(())], "it never arrived, and is written again");
    assert_eq!(world.actor(key).await.figures.total, Micros(211));

    let mut raw = PgConnection::connect(&cluster.url("outage")).await.expect("connects");
    let end =
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'outage' and pid <> pg_backend_pid()";
    sqlx::raw_sql(end).execute(&mut raw).await.expect("ended");
    let again = actor.credit(&mut world, 1, "d", [0; 32]).1;
    assert_eq!(submit(&journal, vec![again]).await, [Ok(())], "a broken connection is made anew");
    assert_eq!(world.actor(key).await.figures.total, Micros(212));

    // A standby takes over that has not got the newest entry: what was committed over the old connection counts for nothing.
    let behind = actor.clone();
    let lost = actor.credit(&mut world, 1, "lost", [0; 32]).1;
    assert_eq!(submit(&journal, vec![lost]).await, [Ok(())]);
    let lose = "set session_replication_role = replica; \
                with lost as (delete from entries where seq = (select max(seq) from entries) returning id) \
                delete from events where id in (select id from lost); \
                set session_replication_role = origin";
    sqlx::raw_sql(lose).execute(&mut raw).await.expect("lost");
    sqlx::raw_sql(end).execute(&mut raw).await.expect("ended");
    let follows = actor.credit(&mut world, 1, "follows", [0; 32]).1;
    assert_eq!(submit(&journal, vec![follows]).await, [Err(Rejection::Fenced)]);
    let mut actor = behind;

    // The server becomes a reader for whoever is connected already, as after a failover; its name leads to one that writes.
    let mut raw = PgConnection::connect(&cluster.url("outage")).await.expect("connects");
    let reader = "alter database outage set default_transaction_read_only = off";
    sqlx::raw_sql(reader).execute(&mut raw).await.expect("set");
    set(&mut raw, "alter system set default_transaction_read_only = on").await;
    while read_only(&mut raw).await == "off" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let written = actor.credit(&mut world, 1, "e", [0; 32]).1;
    assert_eq!(submit(&journal, vec![written]).await, [Ok(())], "no connection to a reader is kept");
    assert_eq!(world.actor(key).await.figures.total, Micros(213));
    set(&mut raw, "alter system reset default_transaction_read_only").await;

    // Whoever is given up while a transaction begins leaves no connection behind that is in one.
    switch.set(LATE_BEGIN);
    for _ in 0..10 {
        let put = tokio::time::timeout(Duration::from_millis(10), store.put_brand(&world.brand)).await;
        assert!(put.is_err(), "it was given up");
    }
    switch.set(PASS);
    let open = "select count(*) from pg_stat_activity where datname = 'outage' and state like 'idle in transaction%'";
    let mut left = 1_i64;
    for _ in 0..100 {
        left = sqlx::query_scalar(open).fetch_one(&mut raw).await.expect("counted");
        if left == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(left, 0);

    crate::audited(&store).await;
    raw.close().await.expect("closed");
    store.close().await;
}

async fn read_only(connection: &mut PgConnection) -> String {
    sqlx::query_scalar("show transaction_read_only").fetch_one(connection).await.expect("shown")
}

/// Nothing more is heard over the journal's connection once a commit is answered.
#[tokio::test]
async fn a_server_that_falls_silent_after_a_commit_is_asked_over_a_new_connection() {
    let cluster = Cluster::start().await;
    cluster.create_database("hushed").await;
    let (store, switch) = behind_a_proxy(&cluster, "hushed").await;
    let mut world = World::new(store.clone(), 1).await;
    let key = world.account("ann", 100).await;
    let journal = Journal::start(&store, JournalOptions::default());
    let mut actor = world.actor(key).await;
    switch.set(SILENT_AFTER);
    let heard = actor.credit(&mut world, 1, "a", [0; 32]).1;
    assert_eq!(submit(&journal, vec![heard]).await, [Ok(())]);

    let again = actor.credit(&mut world, 1, "b", [0; 32]).1;
    let told = hand_over(&journal, vec![again]);
    while switch.unanswered.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(21)).await;
    tokio::time::resume();
    assert_eq!(outcomes(&journal, &told, 1).await, [Ok(())], "it never arrived, and is written over a new connection");
    assert_eq!(world.actor(key).await.figures.total, Micros(102));
    store.close().await;
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..2_000 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not within 10 s: {what}");
}

/// A session that has written an account's next entry and not committed it: until it rolls back, a batch with that waits.
async fn in_the_way(cluster: &Cluster, database: &str, account: AccountKey) -> PgConnection {
    let mut other = PgConnection::connect(&cluster.url(database)).await.expect("connects");
    let same_key = format!(
        "begin; insert into entries (account_key, seq, position, at, status, total, held, receivable, last_call, event_count) \
         select account_key, seq + 1, position, at, status, total, held, receivable, last_call, 0 from entries \
         where account_key = {} order by seq desc limit 1",
        account.0
    );
    sqlx::raw_sql(AssertSqlSafe(same_key)).execute(&mut other).await.expect("written, not committed");
    other
}

/// An account's rows wait for another session; those of the other half of the accounts do not.
#[tokio::test]
async fn two_batches_are_in_flight_and_flushing_waits_for_both() {
    let cluster = Cluster::start().await;
    let store = crate::postgres(&cluster, "flight").await;
    let mut world = World::new(store.clone(), 1).await;
    let (waiting, free) = (world.account("ann", 100).await, world.account("ben", 100).await);
    assert_ne!(waiting.0 % 2, free.0 % 2);
    let journal = Journal::start(&store, JournalOptions { batch: 1, ..Default::default() });
    let (mut ann, mut ben) = (world.actor(waiting).await, world.actor(free).await);

    let mut other = in_the_way(&cluster, "flight", waiting).await;
    // With one entry a batch they fill the lane and stand in line.
    let entries: Vec<_> = (0..4).map(|n| ann.credit(&mut world, 1, &format!("a{n}"), [0; 32]).1).collect();
    let held_up = hand_over(&journal, entries);
    let mut watching = PgConnection::connect(&cluster.url("flight")).await.expect("connects");
    let waits = async || waits_for(&mut watching).await.as_deref() == Some("transactionid");
    until("the server waits for the other session", waits).await;
    let told = hand_over(&journal, vec![ben.credit(&mut world, 1, "b", [0; 32]).1]);
    until("nothing of his is in the way", async || !told.lock().expect("not poisoned").is_empty()).await;
    assert!(held_up.lock().expect("not poisoned").is_empty());
    assert!(
        tokio::time::timeout(Duration::from_millis(100), journal.flush()).await.is_err(),
        "one is not acknowledged"
    );

    sqlx::raw_sql("rollback").execute(&mut other).await.expect("rolled back");
    assert!(outcomes(&journal, &held_up, 4).await.iter().all(Result::is_ok));
    assert_eq!(outcomes(&journal, &told, 1).await, [Ok(())]);
    crate::audited(&store).await;
    store.close().await;
}

/// The answer to a batch is lost in which one entry was written and one refused.
#[tokio::test]
async fn an_entry_that_was_refused_in_a_batch_of_which_nothing_was_heard_is_told_why() {
    let cluster = Cluster::start().await;
    cluster.create_database("refused").await;
    let (store, switch) = behind_a_proxy(&cluster, "refused").await;
    let mut world = World::new(store.clone(), 1).await;
    let keys = (world.account("ann", 100).await, world.account("ben", 100).await, world.account("cid", 100).await);
    assert_eq!(keys.0.0 % 2, keys.2.0 % 2);
    let journal = Journal::start(&store, JournalOptions::default());
    let (mut ann, mut cid) = (world.actor(keys.0).await, world.actor(keys.2).await);
    let (first, credit) = ann.credit(&mut world, 1, "a", [0; 32]);
    assert_eq!(submit(&journal, vec![credit]).await, [Ok(())]);

    let mut other = in_the_way(&cluster, "refused", keys.2).await;
    let before = hand_over(&journal, vec![cid.credit(&mut world, 1, "c", [0; 32]).1]);
    let mut watching = PgConnection::connect(&cluster.url("refused")).await.expect("connects");
    let waits = async || waits_for(&mut watching).await.as_deref() == Some("transactionid");
    until("the server waits for the other session", waits).await;
    // These two gather meanwhile.
    let again = ann.credit(&mut world, 1, "a", [0; 32]).1;
    let both = hand_over(&journal, vec![again, cid.credit(&mut world, 1, "d", [0; 32]).1]);
    switch.set(CUT_AFTER);
    sqlx::raw_sql("rollback").execute(&mut other).await.expect("rolled back");
    assert_eq!(outcomes(&journal, &before, 1).await, [Ok(())]);
    let duplicate = Rejection::DuplicateKey { transfer: first, same_request: true };
    assert_eq!(outcomes(&journal, &both, 2).await, [Err(duplicate), Ok(())]);
    assert_eq!(switch.next.load(Ordering::SeqCst), PASS, "it was cut");
    assert_eq!(world.actor(keys.2).await.figures.total, Micros(102));
    crate::audited(&store).await;
    store.close().await;
}

/// Sends a signal to a process of the server.
fn signal(name: &str, pid: i32) {
    let sent = std::process::Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    assert!(sent.expect("kill runs").success());
}

/// The connection ends while the batch lies in the socket of a server's process that does not come to read it.
#[tokio::test]
async fn a_batch_on_its_way_is_told_when_its_session_is_over_and_holds_up_no_other_lane() {
    let cluster = Cluster::start().await;
    cluster.create_database("asked").await;
    let (store, switch) = behind_a_proxy(&cluster, "asked").await;
    let mut world = World::new(store.clone(), 1).await;
    let (cut, free) = (world.account("ann", 100).await, world.account("ben", 100).await);
    assert_ne!(cut.0 % 2, free.0 % 2);
    let journal = Journal::start(&store, JournalOptions::default());
    let (mut ann, mut ben) = (world.actor(cut).await, world.actor(free).await);
    let (mut call, started) = ann.start(&mut world, 10);
    assert_eq!(submit(&journal, vec![started]).await, [Ok(())]);
    // From here on a batch like this one is sent at once: the server knows the statement, and nothing is read before.
    assert_eq!(submit(&journal, vec![ann.renew(&mut world, &mut call, 10)]).await, [Ok(())]);
    let mut watching = PgConnection::connect(&cluster.url("asked")).await.expect("connects");
    let hers = "select pid from pg_stat_activity where application_name like 'ringfence journal%'";
    let pid = sqlx::query_scalar::<_, i32>(hers).fetch_all(&mut watching).await.expect("asked");
    let [pid] = pid[..] else { panic!("one lane has written: {pid:?}") };

    signal("STOP", pid);
    switch.set(CUT_ON_ITS_WAY);
    let doubtful = hand_over(&journal, vec![ann.renew(&mut world, &mut call, 10)]);
    let ends = "select count(*) from pg_stat_activity where state = 'active' and query like '%pg_terminate_backend(pid%' \
                and pid <> pg_backend_pid()";
    let mut count = async || sqlx::query_scalar::<_, i64>(ends).fetch_one(&mut watching).await.expect("counted");
    until("it is asked what became of hers", async || count().await > 0).await;
    let told = hand_over(&journal, vec![ben.credit(&mut world, 1, "b", [0; 32]).1]);
    until("his is written", async || !told.lock().expect("not poisoned").is_empty()).await;
    assert!(doubtful.lock().expect("not poisoned").is_empty());

    signal("CONT", pid);
    assert_eq!(outcomes(&journal, &doubtful, 1).await, [Ok(())]);
    assert_eq!(outcomes(&journal, &told, 1).await, [Ok(())]);
    assert_eq!(world.actor(cut).await.figures.held, Micros(30));
    crate::audited(&store).await;
    store.close().await;
}

/// What a batch waits for at the server.
async fn waits_for(watching: &mut PgConnection) -> Option<String> {
    let text = "select max(wait_event) from pg_stat_activity where application_name like 'ringfence journal%'";
    sqlx::query_scalar(text).fetch_one(watching).await.expect("asked")
}

async fn set(raw: &mut PgConnection, change: &str) {
    for text in [change, "select pg_reload_conf()"] {
        sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(&mut *raw).await.expect("set");
    }
}

/// It is on one server only, and would be lost with it.
#[tokio::test]
async fn a_batch_that_waits_for_its_standby_is_not_told_before_it_is_there() {
    let cluster = Cluster::start().await;
    let store = crate::postgres(&cluster, "standby").await;
    let mut world = World::new(store.clone(), 1).await;
    let key = world.account("ann", 100).await;
    let journal = Journal::start(&store, JournalOptions::default());
    let mut actor = world.actor(key).await;
    assert_eq!(submit(&journal, vec![actor.credit(&mut world, 1, "a", [0; 32]).1]).await, [Ok(())]);

    let mut raw = PgConnection::connect(&cluster.url("standby")).await.expect("connects");
    set(&mut raw, "alter system set synchronous_standby_names = 'nobody'").await;
    let mut probe = PgConnection::connect(&cluster.url("standby")).await.expect("connects");
    until("commits wait for standbys", async || {
        let writes = sqlx::raw_sql("create table probe (); drop table probe").execute(&mut probe);
        tokio::time::timeout(Duration::from_millis(200), writes).await.is_err()
    })
    .await;
    let credit = actor.credit(&mut world, 1, "b", [0; 32]).1;
    let told = hand_over(&journal, vec![credit]);
    until("it waits for its standby", async || waits_for(&mut raw).await.as_deref() == Some("SyncRep")).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(21)).await;
    tokio::time::resume();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(told.lock().expect("not poisoned").is_empty());
    assert_eq!(waits_for(&mut raw).await.as_deref(), Some("SyncRep"), "nobody made it give up");

    // Somebody else did. Then who asked waits for the standby.
    sqlx::raw_sql("select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'")
        .execute(&mut raw)
        .await
        .expect("asked");
    let asks = "select count(*) from pg_stat_activity where wait_event = 'SyncRep' and query like '%emit_message%'";
    let mut count = async || sqlx::query_scalar::<_, i64>(asks).fetch_one(&mut raw).await.expect("counted");
    until("who asks waits for the standby", async || count().await > 0).await;
    assert!(told.lock().expect("not poisoned").is_empty());

    set(&mut raw, "alter system reset synchronous_standby_names").await;
    assert_eq!(outcomes(&journal, &told, 1).await, [Ok(())]);
    assert_eq!(world.actor(key).await.figures.total, Micros(102));
    crate::audited(&store).await;
    store.close().await;
}

/// The server's name leads to one that only reads and has not got the batch.
#[tokio::test]
async fn a_reader_is_not_asked_what_became_of_a_batch() {
    let (cluster, second) = (Cluster::start().await, Cluster::start().await);
    cluster.create_database("led").await;
    let (store, switch) = behind_a_proxy(&cluster, "led").await;
    let mut world = World::new(store.clone(), 1).await;
    let key = world.account("ann", 100).await;
    let journal = Journal::start(&store, JournalOptions::default());
    let mut actor = world.actor(key).await;
    crate::postgres(&second, "led").await.close().await;
    let mut reader = PgConnection::connect(&second.url("led")).await.expect("connects");
    set(&mut reader, "alter system set default_transaction_read_only = on").await;

    assert_eq!(submit(&journal, vec![actor.credit(&mut world, 1, "a", [0; 32]).1]).await, [Ok(())]);
    switch.set(CUT_AFTER);
    switch.lead_to(&second);
    let told = hand_over(&journal, vec![actor.credit(&mut world, 1, "b", [0; 32]).1]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(told.lock().expect("not poisoned").is_empty(), "nothing it says counts");
    switch.lead_to(&cluster);
    assert_eq!(outcomes(&journal, &told, 1).await, [Ok(())]);
    assert_eq!(world.actor(key).await.figures.total, Micros(102));
    store.close().await;
}

/// Time is virtual while the server is silent: then it passes as soon as everybody waits.
#[tokio::test]
async fn a_server_that_falls_silent_holds_no_reader_and_no_connection() {
    const CONNECTIONS: usize = 8;
    let cluster = Cluster::start().await;
    cluster.create_database("silent").await;
    let (store, switch) = behind_a_proxy(&cluster, "silent").await;
    let read = || {
        let store = store.clone();
        tokio::spawn(async move { store.brand().await })
    };

    switch.set(SILENT);
    // Some wait for a connection.
    let readers: Vec<_> = (0..CONNECTIONS + 4).map(|_| read()).collect();
    while switch.silent.load(Ordering::SeqCst) < CONNECTIONS {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    for reader in readers {
        let read = reader.await.expect("no panic");
        assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    }
    assert!(begun.elapsed() <= Duration::from_secs(21), "{:?}", begun.elapsed());
    // What they had asked is given up; so are the connections, a little later.
    tokio::time::sleep(Duration::from_secs(6)).await;
    tokio::time::resume();

    switch.set(PASS);
    let again = tokio::time::Instant::now();
    for reader in (0..CONNECTIONS + 4).map(|_| read()).collect::<Vec<_>>() {
        reader.await.expect("no panic").expect("it is read");
    }
    assert!(again.elapsed() < Duration::from_secs(5), "{:?}", again.elapsed());
    store.close().await;
}
