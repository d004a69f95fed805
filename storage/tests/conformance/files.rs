//! SQLite files: reopened, refused when newer, append-only, without a readable word of anybody.

use crate::samples::*;
use schema::carrier::{Trunk, TrunkLogin};
use schema::edge::Binding;
use schema::id::*;
use schema::journal::Rejection;
use schema::money::Micros;
use schema::pii::Pii;
use schema::time::Timestamp;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use storage::*;

/// A store with something in every table that holds personal data.
async fn populate(store: &Store) -> AccountKey {
    let mut world = World::new(store.clone(), 3).await;
    let key = world.account("ann", 1_000_000).await;
    let journal = Journal::start(store, JournalOptions::default());
    let mut actor = world.actor(key).await;
    let (mut call, start) = actor.start(&mut world, 100);
    let answer = actor.renew(&mut world, &mut call, 10);
    let settle = actor.settle(&mut world, &call, 50);
    let (mut live, second) = actor.start(&mut world, 100);
    let mut renew = actor.renew(&mut world, &mut live, 10);
    renew.events.push(schema::event::EventBody::CallChanged(Box::new(live.call.clone())));
    let outcomes = submit(&journal, vec![start, answer, settle, second, renew]).await;
    assert!(outcomes.iter().all(Result::is_ok));
    let user = User {
        id: UserId::generate(&mut world.entropy, START),
        brand: world.brand.id,
        email: Pii::new("canary@example.org".to_owned()),
        username: Pii::new("canary.name".to_owned()),
        password: Some(Pii::new("$argon2id$canary-hash".to_owned())),
        created_at: START,
    };
    store.create_user(&user, &[(key, MemberRole::Owner)], &[OperatorRole::Admin]).await.expect("created");
    let token = DeviceToken {
        id: DeviceTokenId::generate(&mut world.entropy, START),
        user: user.id,
        label: Pii::new("canary-device".to_owned()),
        scopes: vec![TokenScope::Call],
        token_sha256: [1; 32],
        created_at: START,
        last_used_at: None,
    };
    store.create_device_token(&token).await.expect("created");
    let binding = Binding {
        credential: store.credential("ann").await.expect("readable").expect("there").id,
        account: key,
        contact: Pii::new("sip:ann@192.0.2.77".to_owned()),
        instance: Some(Pii::new("canary-instance".to_owned())),
        reg_id: None,
        path: vec![Pii::new("<sip:edge@192.0.2.77;lr>".to_owned())],
        source: Pii::new("tls 192.0.2.77:40000".to_owned()),
        registered_at: START,
        expires_at: Timestamp(i64::MAX),
    };
    store.write_bindings(&[BindingWrite::Put(binding)], START).await.expect("written");
    let deck = store.decks().await.expect("readable").first().expect("a deck").id;
    let trunk = TrunkId::generate(&mut world.entropy, START);
    let (name, max) = ("carrier".to_owned(), 10);
    let row = Trunk {
        id: trunk,
        name,
        gateway: gateway().into(),
        large_over_tcp: false,
        currency: eur(),
        deck,
        max_channels: max,
        max_cps: max,
        priority: 0,
        trusted: false,
    };
    store.put_trunk(&row).await.expect("stored");
    for password in ["canary-trunk-before", "canary-trunk-password"] {
        let password = Pii::new(password.to_owned());
        let login = TrunkLogin { username: "us".to_owned(), password, realm: None, register_s: None };
        store.put_trunk_login(trunk, Some(&login)).await.expect("stored");
    }
    key
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test]
async fn p3_no_database_file_holds_a_readable_word_of_anybody() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = crate::sqlite(folder.path()).await;
    populate(&store).await;
    let mut seen = 0;
    for pass in 0..2 {
        for file in std::fs::read_dir(folder.path()).expect("readable").flatten() {
            let bytes = std::fs::read(file.path()).expect("readable");
            for canary in CANARIES {
                let (plain, wide) =
                    (canary.as_bytes(), canary.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>());
                assert!(!contains(&bytes, plain) && !contains(&bytes, &wide), "{canary} in {:?}", file.file_name());
            }
            seen += bytes.len();
        }
        if pass == 0 {
            store.close().await;
        }
    }
    assert!(seen > 100_000, "the files were looked at");
    let plain = std::fs::read(folder.path().join("data.db")).expect("readable");
    assert!(contains(&plain, b"opening credit"), "what is not sealed is found this way");
}

#[tokio::test]
async fn p4_a_destroyed_key_is_in_no_file_any_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = crate::sqlite(folder.path()).await;
    let key = populate(&store).await;
    let wrapped: Vec<u8> = {
        let raw = rusqlite::Connection::open(folder.path().join("keys.db")).expect("opens");
        let text = "select identity from subject_keys where subject = ?1";
        let subject = [&[1][..], &key.0.to_be_bytes()].concat();
        raw.query_row(text, [subject], |row| row.get(0)).expect("there")
    };
    let found = || {
        let files = std::fs::read_dir(folder.path()).expect("readable").flatten();
        files.filter(|file| contains(&std::fs::read(file.path()).expect("readable"), &wrapped)).count()
    };
    assert!(found() > 0);
    store.destroy_key(Subject::Account(key), Class::Identity).await.expect("destroyed");
    assert_eq!(found(), 0, "neither in the database nor in its write-ahead log");
    store.close().await;
}

/// Everything can be awaited in a spawned task.
#[test]
fn the_futures_can_move_between_threads() {
    fn is_send<T: Send>(_: impl FnOnce(Store) -> T) {}
    is_send(|store| async move { store.account(AccountKey(1)).await.map(drop) });
    is_send(|store| async move { store.create_accounts(&[], |_| {}).await.map(drop) });
    is_send(|store| async move { store.decks().await.map(drop) });
    is_send(|store| async move { store.live_calls(None, 1).await.map(drop) });
    is_send(|store| async move { store.calls_page(AccountKey(1), None, 1, &CallFilter::default()).await.map(drop) });
    is_send(|store| async move { store.events_after(AccountKey(1), Default::default(), 1).await.map(drop) });
    is_send(|store| async move { store.write_bindings(&[], START).await });
    is_send(|store| async move { store.user_by_email("x").await.map(drop) });
    is_send(|store| async move { store.memberships(UserId(uuid::Uuid::nil())).await.map(drop) });
    is_send(|store| async move { store.device_token(&[0; 32]).await.map(drop) });
    is_send(|store| async move { store.purge_events(START, START, 1).await.map(drop) });
    is_send(|store| async move { store.destroy_key(Subject::Account(AccountKey(1)), Class::Calls).await });
    is_send(|store| async move { storage::audit::audit(&store, |_| {}).await.map(drop) });
    is_send(|store| async move { Journal::start(&store, JournalOptions::default()).flush().await });
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = crate::sqlite(folder.path()).await;
    let key = populate(&store).await;
    let before = store.account(key).await.expect("readable").expect("there");
    // Dropped, not closed: as after a kill, nothing is tidied up.
    drop(store);
    let store = crate::sqlite(folder.path()).await;
    let after = store.account(key).await.expect("readable").expect("there");
    assert_eq!(
        (before.figures, &before.live_calls, &before.caller_ids),
        (after.figures, &after.live_calls, &after.caller_ids)
    );
    assert_eq!(before.last_event, after.last_event);
    assert_eq!(store.bindings(START).await.expect("readable").len(), 1);
    crate::audited(&store).await;
    let mut world_actor = Actor { key, figures: after.figures };
    let entry = world_actor.entry(START, Vec::new());
    let journal = Journal::start(&store, JournalOptions::default());
    assert_eq!(submit(&journal, vec![entry.clone()]).await, [Ok(())]);
    assert_eq!(submit(&journal, vec![entry]).await, [Err(Rejection::Fenced)]);
}

fn raw(path: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(path.join("data.db")).expect("opens")
}

#[tokio::test]
async fn a_newer_database_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    crate::sqlite(folder.path()).await.close().await;
    raw(folder.path()).execute("update schema_version set version = 7", []).expect("changed");
    let keys = async || Keyring::open(&url(folder.path(), "keys.db"), &MasterKey::from_bytes(crate::MASTER)).await;
    let refused = Store::open(&url(folder.path(), "data.db"), keys().await.expect("keys")).await;
    assert_eq!(refused.expect_err("refused").to_string(), "database is at version 7, this program knows 2");
    let swapped = Store::open(&url(folder.path(), "keys.db"), keys().await.expect("keys")).await;
    assert_eq!(swapped.expect_err("refused").to_string(), "data and keys do not belong in one database");
}

#[tokio::test]
async fn what_was_written_before_there_were_marks_is_marked_when_its_people_have_keys() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = crate::sqlite(folder.path()).await;
    populate(&store).await;
    store.close().await;
    let unmark = || {
        raw(folder.path())
            .execute_batch("drop table key_store; update schema_version set version = 1")
            .expect("as version 1 left it");
    };
    let marks = || {
        let count = "select count(*) from key_store";
        raw(folder.path()).query_row(count, [], |row| row.get::<_, i64>(0)).expect("counted")
    };
    unmark();
    crate::sqlite(folder.path()).await.close().await;
    assert_eq!(marks(), 1);
    unmark();
    let master = MasterKey::from_bytes(crate::MASTER);
    let others = Keyring::open(&url(folder.path(), "others.db"), &master).await.expect("keys");
    let refused = Store::open(&url(folder.path(), "data.db"), others).await;
    assert!(matches!(refused, Err(StoreError::OtherKeys)), "{refused:?}");
    assert_eq!(marks(), 0);
}

/// The same on PostgreSQL.
pub async fn on_postgres(cluster: &crate::Cluster) {
    let store = crate::postgres(cluster, "marked").await;
    store.close().await;
    let database = DatabaseUrl::parse(&cluster.url("marked")).expect("a url");
    assert!(Store::is_sealed(&database).await.expect("looked at"));
    let master = MasterKey::from_bytes(crate::MASTER);
    let open = async |keys: &str| {
        let keys = Keyring::open(&url(cluster.folder(), keys), &master).await.expect("keys");
        Store::open(&database, keys).await
    };
    let refused = open("others.keys.db").await;
    assert!(matches!(refused, Err(StoreError::OtherKeys)), "{refused:?}");
    open("marked.keys.db").await.expect("its own keys").close().await;
    let unmarked = DatabaseUrl::parse(&cluster.url("postgres")).expect("a url");
    assert!(!Store::is_sealed(&unmarked).await.expect("looked at"));
}

fn url(folder: &Path, file: &str) -> DatabaseUrl {
    DatabaseUrl::sqlite(folder.join(file))
}

#[tokio::test]
async fn append_only_tables_refuse_every_change() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = crate::sqlite(folder.path()).await;
    populate(&store).await;
    store.close().await;
    let raw = raw(folder.path());
    for table in ["entries", "cdrs", "caller_id_history"] {
        let rows: i64 = raw.query_row(&format!("select count(*) from {table}"), [], |row| row.get(0)).expect("counted");
        assert!(rows > 0, "{table} has rows");
        for text in [format!("update {table} set account_key = account_key"), format!("delete from {table}")] {
            let refused = raw.execute(&text, []).expect_err(&text).to_string();
            assert!(refused.contains("append-only"), "{text}: {refused}");
        }
    }
    raw.execute("update cdrs set destination_index = null", []).expect("a blind index may be erased");
    raw.execute("update cdrs set destination_index = x'00'", []).expect_err("but not written");
}

#[tokio::test]
async fn rare_writes_and_the_journal_share_one_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = crate::sqlite(folder.path()).await;
    let mut world = World::new(store.clone(), 5).await;
    let key = world.account("ann", 1_000).await;
    let mut actor = world.actor(key).await;
    let journal = Journal::start(&store, JournalOptions { queue: 1_000, batch: 4, ..Default::default() });
    let entries: Vec<_> = (0..200).map(|n| actor.credit(&mut world, 1, &format!("k{n}"), [0; 32]).1).collect();
    let accounts: Vec<_> = (0..500).map(|n| world.new_account(&format!("bulk{n}"), 5)).collect();
    let others = tokio::spawn({
        let store = store.clone();
        async move {
            for chunk in accounts.chunks(25) {
                store.create_accounts(chunk, |_| {}).await.expect("created");
            }
        }
    });
    let outcomes = submit(&journal, entries).await;
    others.await.expect("no panic");
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(world.actor(key).await.figures.total, Micros(1_200));
    crate::audited(&store).await;
}

#[tokio::test]
async fn a_database_is_written_where_a_link_leads() {
    let (folder, disk) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("another"));
    let there = disk.path().join("there.db");
    std::os::unix::fs::symlink(&there, folder.path().join("data.db")).expect("a link");
    let store = crate::sqlite(folder.path()).await;
    let mut world = World::new(store.clone(), 1).await;
    let key = world.account("ann", 100).await;
    let mut actor = world.actor(key).await;
    let journal = Journal::start(&store, JournalOptions::default());
    let (_, entry) = actor.credit(&mut world, 1, "a", [0; 32]);
    assert_eq!(submit(&journal, vec![entry]).await, [Ok(())]);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&there).expect("it").permissions());
    assert_eq!(mode & 0o777, 0o600);
    drop(journal);
    store.close().await;
    let store = crate::sqlite(folder.path()).await;
    crate::audited(&store).await;
    assert_eq!(store.account(key).await.expect("readable").expect("there").figures.total, Micros(101));
    store.close().await;
}

/// The log is carried into the database beside the writer and begins anew, again and again, though an audit reads all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_begins_anew_while_entries_come_and_an_audit_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = crate::sqlite(folder.path()).await;
    let mut world = World::new(store.clone(), 5).await;
    let key = world.account("ann", 0).await;
    let mut actor = world.actor(key).await;
    let journal = Journal::start(&store, JournalOptions { batch: 1, log: 256, ..Default::default() });
    let (read, ended) = (store.clone(), Arc::new(AtomicBool::new(false)));
    let end = ended.clone();
    let auditing = tokio::spawn(async move {
        let mut audits = 0;
        while !end.load(Ordering::SeqCst) {
            crate::audited(&read).await;
            audits += 1;
        }
        audits
    });
    // SQLite counts in the log's header how often it began.
    let begun = || {
        let log = std::fs::read(folder.path().join("data.db-wal")).expect("a log");
        u32::from_be_bytes(log[12..16].try_into().expect("four bytes"))
    };
    let (first, mut rounds) = (begun(), 0);
    // Some 80 pages a round. A second of grace for a reader that was in the way once or twice.
    while begun() < first + 5 && rounds < 1_000 {
        let credits = (0..20).map(|n| actor.credit(&mut world, 1, &format!("{rounds}.{n}"), [0; 32]).1);
        assert!(submit(&journal, credits.collect()).await.iter().all(Result::is_ok));
        rounds += 1;
    }
    ended.store(true, Ordering::SeqCst);
    let audits = auditing.await.expect("no panic");
    println!("{audits} audits, the log began anew {} times within {rounds} rounds", begun() - first);
    assert!(audits >= 5 && begun() >= first + 5);
    store.close().await;
}
