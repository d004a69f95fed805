//! Rows that cannot be opened any more, by bit rot or because an older program wrote them: they are told one by one, and stand in
//! nobody's way.

use crate::samples::*;
use schema::edge::Binding;
use schema::id::{AccountKey, CallNo, CredentialId};
use schema::pii::Pii;
use schema::time::Timestamp;
use storage::*;

/// How a kind of store is spoilt: a live call's row, a credential's bindings.
trait Spoil {
    async fn call(&mut self, account: AccountKey, no: CallNo);
    async fn bindings(&mut self, credential: CredentialId);
}

impl Spoil for MemDisk {
    async fn call(&mut self, account: AccountKey, no: CallNo) {
        self.spoil_call(account, no);
    }

    async fn bindings(&mut self, credential: CredentialId) {
        self.spoil_bindings(credential);
    }
}

impl Spoil for rusqlite::Connection {
    async fn call(&mut self, account: AccountKey, no: CallNo) {
        let text = "update calls set state = x'0102' where account_key = ?1 and no = ?2";
        assert_eq!(self.execute(text, (account.0, no.0)).expect("spoilt"), 1);
    }

    async fn bindings(&mut self, credential: CredentialId) {
        let text = "update bindings set binding = x'0102' where credential = ?1";
        assert_eq!(self.execute(text, [credential.0.as_bytes().as_slice()]).expect("spoilt"), 1);
    }
}

impl Spoil for sqlx::PgConnection {
    async fn call(&mut self, account: AccountKey, no: CallNo) {
        let text = "update calls set state = decode('0102', 'hex') where account_key = $1 and no = $2";
        let done = sqlx::query(text).bind(account.0).bind(no.0).execute(self).await.expect("spoilt");
        assert_eq!(done.rows_affected(), 1);
    }

    async fn bindings(&mut self, credential: CredentialId) {
        let text = "update bindings set binding = decode('0102', 'hex') where credential = $1";
        let done = sqlx::query(text).bind(credential.0).execute(self).await.expect("spoilt");
        assert_eq!(done.rows_affected(), 1);
    }
}

async fn rows_that_cannot_be_opened_are_told_one_by_one(store: &Store, spoil: &mut impl Spoil) {
    let mut world = World::new(store.clone(), 91).await;
    let journal = Journal::start(store, JournalOptions::default());
    let mut all = Vec::new();
    for name in ["ann", "bob"] {
        let key = world.account(name, 1_000).await;
        let mut actor = world.actor(key).await;
        for _ in 0..3 {
            let (call, start) = actor.start(&mut world, 10);
            assert_eq!(submit(&journal, vec![start]).await, [Ok(())]);
            all.push((actor.key, call.no, call.call.id));
        }
    }
    // A whole page of the first account, and one of the second.
    for (account, no, _) in [all[0], all[1], all[2], all[4]] {
        spoil.call(account, no).await;
    }
    let (mut found, mut opened, mut after) = (Vec::new(), Vec::new(), None);
    loop {
        let page = store.live_calls_with_dialogs(after, 2).await.expect("the store can read");
        let Some(last) = page.last() else { break };
        after = Some((last.account, last.no));
        for row in page {
            let key = (row.account, row.no, row.id);
            found.push(key);
            match row.call {
                Ok(call) => opened.push((row.account, call.no, call.call.id)),
                Err(error) => {
                    assert_eq!(error.to_string(), "a sealed value in calls.state does not fit its key");
                }
            }
        }
    }
    assert_eq!((found, &opened), (all.clone(), &vec![all[3], all[5]]));
    let shown = store.live_calls(None, 2).await.expect("the store can read");
    assert_eq!(shown.iter().map(|(key, call)| (*key, call.no, call.call.id)).collect::<Vec<_>>(), opened);
    assert!(store.live_call(all[0].2).await.is_err() && store.live_call(all[3].2).await.is_ok());
    // Its money depends on it: an account is not loaded without one of its calls.
    assert!(store.account(all[0].0).await.is_err());

    let mut credentials = Vec::new();
    for (name, account) in [("ann", all[0].0), ("bob", all[3].0)] {
        let credential = store.credential(name).await.expect("readable").expect("there").id;
        credentials.push((account, credential));
        let binding = Binding {
            credential,
            account,
            contact: Pii::new("sip:phone@192.0.2.77:5060".to_owned()),
            instance: None,
            reg_id: None,
            path: Vec::new(),
            source: Pii::new("udp 192.0.2.77:5060".to_owned()),
            registered_at: START,
            expires_at: Timestamp(START.0 + 100),
        };
        store.write_bindings(&[BindingWrite::Put(binding)], START).await.expect("written");
    }
    spoil.bindings(credentials[0].1).await;
    let mut found: Vec<_> = store.bindings(START).await.expect("the store can read");
    found.sort_by_key(|row| row.account);
    let told: Vec<_> = found.iter().map(|row| (row.account, row.credential)).collect();
    assert_eq!(told, credentials);
    assert!(found[0].binding.is_err() && found[1].binding.is_ok());
}

#[tokio::test(start_paused = true)]
async fn on_memory() {
    let mut disk = MemDisk::new();
    rows_that_cannot_be_opened_are_told_one_by_one(&Store::memory(&disk.clone()), &mut disk).await;
}

#[tokio::test]
async fn on_sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = crate::sqlite(folder.path()).await;
    let mut raw = rusqlite::Connection::open(folder.path().join("data.db")).expect("opens");
    rows_that_cannot_be_opened_are_told_one_by_one(&store, &mut raw).await;
    store.close().await;
}

pub async fn on_postgres(cluster: &crate::postgres::Cluster) {
    use sqlx::{Connection, PgConnection};
    let store = crate::postgres(cluster, "rot").await;
    let mut raw = PgConnection::connect(&cluster.url("rot")).await.expect("connects");
    rows_that_cannot_be_opened_are_told_one_by_one(&store, &mut raw).await;
    raw.close().await.expect("closed");
    store.close().await;
}
