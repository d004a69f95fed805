//! Accounts and credentials in SQL.

use super::{Row, SqlStore, Tx, Value, values};
use crate::account::{AccountSummary, CreatedAccount, LoadedAccount, NewAccount};
use crate::error::StoreError;
use crate::event::last_cursor;
use crate::journal::encode::{Write, caller_id_history_row, caller_id_row, encode};
use crate::keyring::{Class, Subject};
use crate::seal::{parse_word, word};
use schema::account::{
    AccountFigures, AccountProfile, AccountStatus, CallbackPhone, CallerId, Ha1, Limits, SipCredential,
};
use schema::event::EventCursor;
use schema::id::{AccountId, AccountKey, CallNo, CallbackNumberId, CallerIdId, CredentialId, DeckId, Seq};
use schema::money::{Currency, Micros, NanosPerMinute};
use schema::number::{CallbackNumber, E164};
use schema::pii::Pii;
use schema::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

macro_rules! select_account {
    ($rest:literal) => {
        concat!(
            "select key, id, currency, country, time_zone, deck, max_live_calls, calls_per_minute, call_seconds, ",
            "max_rate_per_minute, seq, status, total, held, receivable, last_call, event_count ",
            "from accounts join account_figures on account_key = key ",
            $rest
        )
    };
}

macro_rules! select_credential {
    ($rest:literal) => {
        concat!("select id, account_key, username, label, secret, created_at from credentials ", $rest)
    };
}

const INSERT_ACCOUNT: &str = "accounts (key, id, brand, parent, country, time_zone, currency, deck, max_live_calls, \
     calls_per_minute, call_seconds, max_rate_per_minute, created_at)";
const INSERT_CREDENTIAL: &str = "credentials (id, account_key, username, label, secret, created_at)";
const INSERT_CALLBACK: &str = "callback_numbers (id, account_key, number, label, status)";

fn read_summary(row: &mut Row) -> Result<AccountSummary, StoreError> {
    let profile = AccountProfile {
        key: AccountKey(row.int()?),
        id: AccountId(row.id()?),
        currency: row.word("accounts", |c| Currency::parse(c).ok())?,
        country: row.text()?.into(),
        time_zone: row.text()?.into(),
        deck: DeckId(row.id()?),
        limits: Limits {
            live_calls: row.small("accounts")?,
            calls_per_minute: row.small("accounts")?,
            call_seconds: row.small("accounts")?,
            rate_per_minute: row.opt_int()?.map(NanosPerMinute),
        },
    };
    let figures = AccountFigures {
        seq: Seq(row.int()?),
        status: row.word("accounts", AccountStatus::parse)?,
        total: Micros(row.int()?),
        held: Micros(row.int()?),
        receivable: Micros(row.int()?),
        last_call: CallNo(row.int()?),
    };
    Ok(AccountSummary { profile, figures })
}

impl SqlStore {
    pub(crate) async fn account(&self, key: AccountKey) -> Result<Option<LoadedAccount>, StoreError> {
        self.keys.load(&[Subject::Account(key)]).await?;
        self.db.in_snapshot(async |tx| self.read_account(tx, key).await).await
    }

    async fn read_account(&self, tx: &mut Tx, key: AccountKey) -> Result<Option<LoadedAccount>, StoreError> {
        let Some(mut row) = tx.fetch_one(select_account!("where key = $1"), values![key.0]).await? else {
            return Ok(None);
        };
        let AccountSummary { profile, figures } = read_summary(&mut row)?;
        let caller_ids = self.caller_ids(tx, key).await?;
        let callback_phones = self.callback_phones(tx, key).await?;
        let live_calls = self.account_calls(tx, key).await?;
        let last_event: EventCursor = last_cursor(figures.seq, row.small("entries")?);
        Ok(Some(LoadedAccount { profile, figures, caller_ids, callback_phones, live_calls, last_event }))
    }

    pub(crate) async fn account_key(&self, id: AccountId) -> Result<Option<AccountKey>, StoreError> {
        let row = self.db.look_up_one("select key from accounts where id = $1", values![id.0]).await?;
        row.map(|mut row| row.int().map(AccountKey)).transpose()
    }

    pub(crate) async fn account_profile(&self, key: AccountKey) -> Result<Option<AccountProfile>, StoreError> {
        // Of what is read only the profile is told, which the journal does not write.
        let row = self.db.look_up_one(select_account!("where key = $1"), values![key.0]).await?;
        row.map(|mut row| read_summary(&mut row).map(|s| s.profile)).transpose()
    }

    pub(crate) async fn accounts_page(
        &self,
        after: AccountKey,
        limit: usize,
    ) -> Result<Vec<AccountSummary>, StoreError> {
        let text = select_account!("where key > $1 order by key limit $2");
        let rows = self.db.fetch(text, values![after.0, count(limit)]).await?;
        rows.into_iter().map(|mut row| read_summary(&mut row)).collect()
    }

    async fn caller_ids(&self, tx: &mut Tx, account: AccountKey) -> Result<Vec<CallerId>, StoreError> {
        let text = "select id, number, label, status, evidence, is_default, verified_at, expires_at from caller_ids \
                    where account_key = $1 order by id";
        let subject = Subject::Account(account);
        let mut caller_ids = Vec::new();
        for mut row in tx.fetch(text, values![account.0]).await? {
            let id = CallerIdId(row.id()?);
            let number = self.keys.unseal_text(subject, Class::Identity, "caller_ids.number", &row.bytes()?)?;
            let label = row.opt_bytes()?;
            let label =
                label.map(|l| self.keys.unseal_text(subject, Class::Identity, "caller_ids.label", &l)).transpose()?;
            let Some(number) = number else { continue };
            caller_ids.push(CallerId {
                id,
                number: E164::parse(&number)
                    .map_err(|_| StoreError::unreadable("caller_ids", "a number that is none"))?,
                label: label.flatten().map(Pii::new),
                status: row.word("caller_ids", parse_word)?,
                evidence: row.opt_text()?.and_then(|e| parse_word(&e)),
                is_default: row.bool()?,
                verified_at: row.opt_int()?.map(Timestamp),
                expires_at: row.opt_int()?.map(Timestamp),
            });
        }
        Ok(caller_ids)
    }

    async fn callback_phones(&self, tx: &mut Tx, account: AccountKey) -> Result<Vec<CallbackPhone>, StoreError> {
        let text = "select id, number, label, status from callback_numbers where account_key = $1 order by id";
        let subject = Subject::Account(account);
        let mut phones = Vec::new();
        for mut row in tx.fetch(text, values![account.0]).await? {
            let id = CallbackNumberId(row.id()?);
            let number = self.keys.unseal_text(subject, Class::Identity, "callback_numbers.number", &row.bytes()?)?;
            let label = row.opt_bytes()?;
            let label = label
                .map(|l| self.keys.unseal_text(subject, Class::Identity, "callback_numbers.label", &l))
                .transpose()?;
            let Some(number) = number else { continue };
            let number = CallbackNumber::parse(&number)
                .map_err(|_| StoreError::unreadable("callback_numbers", "a number that is none"))?;
            let status = row.word("callback_numbers", parse_word)?;
            phones.push(CallbackPhone { id, number, label: label.flatten().map(Pii::new), status });
        }
        Ok(phones)
    }

    /// One transaction. The keys of new accounts are durable before anything is sealed under them.
    pub(crate) async fn create_accounts(&self, chunk: &[NewAccount]) -> Result<Vec<CreatedAccount>, StoreError> {
        let mut tx = self.db.write().await?;
        let existing = existing_accounts(&mut tx, chunk).await?;
        let is_new = |new: &&NewAccount| first_username(new).is_none_or(|name| !existing.contains_key(name));
        let fresh: Vec<&NewAccount> = chunk.iter().filter(is_new).collect();
        check_references(&mut tx, &fresh).await?;
        let mut key = next_key(&mut tx, fresh.len()).await?;
        let subjects: Vec<_> = (0..).map(|n| Subject::Account(AccountKey(key + n))).take(fresh.len()).collect();
        self.keys.create(&subjects).await?;
        let mut created = Vec::with_capacity(chunk.len());
        let mut rows = NewRows::default();
        for new in chunk {
            if let Some(&key) = first_username(new).and_then(|name| existing.get(name)) {
                created.push(CreatedAccount { key, existed: true });
                continue;
            }
            self.add_rows(&mut rows, AccountKey(key), new)?;
            created.push(CreatedAccount { key: AccountKey(key), existed: false });
            key += 1;
        }
        rows.insert(&mut tx).await?;
        tx.commit().await?;
        self.keys.forget(&subjects);
        Ok(created)
    }

    fn add_rows(&self, rows: &mut NewRows, key: AccountKey, new: &NewAccount) -> Result<(), StoreError> {
        rows.accounts.push(account_row(key, new));
        for credential in &new.credentials {
            rows.credentials.push(self.credential_row(&credential.of(key, new.created_at))?);
        }
        for caller_id in &new.caller_ids {
            rows.caller_ids.push(caller_id_row(key, caller_id, &self.keys)?);
            rows.history.push(caller_id_history_row(key, Seq(0), new.created_at, caller_id));
        }
        for phone in &new.callback_phones {
            rows.callbacks.push(self.callback_row(key, phone)?);
        }
        let first = std::iter::once(new.first_entry(key)).chain(new.opening_entry(key));
        for entry in first {
            for (write, values) in encode(&entry, &self.keys).rows.map_err(StoreError::Refused)? {
                match write {
                    Write::Transfer => rows.transfers.push(values),
                    Write::Event => {
                        rows.events.accounts.push(key);
                        rows.events.payloads.extend(values.into_iter().nth(2));
                    }
                    _ => rows.entries.push(values),
                }
            }
        }
        Ok(())
    }

    fn callback_row(&self, account: AccountKey, phone: &CallbackPhone) -> Result<Vec<Value>, StoreError> {
        let subject = Subject::Account(account);
        let seal = |place, text: &str| self.keys.seal_text(subject, Class::Identity, place, text);
        let label = phone.label.as_ref().map(|l| seal("callback_numbers.label", l.expose())).transpose()?;
        let number = seal("callback_numbers.number", phone.number.sealed_form())?;
        Ok(values![phone.id.0, account.0, number, label, word(&phone.status).as_str()])
    }

    fn credential_row(&self, credential: &SipCredential) -> Result<Vec<Value>, StoreError> {
        let subject = Subject::Account(credential.account);
        Ok(values![
            credential.id.0,
            credential.account.0,
            &*credential.username,
            self.keys.seal_text(subject, Class::Identity, "credentials.label", credential.label.expose())?,
            self.sealed_secret(subject, &credential.secret)?,
            credential.created_at.0,
        ])
    }

    fn sealed_secret(&self, subject: Subject, secret: &Pii<Ha1>) -> Result<Vec<u8>, StoreError> {
        let secret = secret.expose();
        let plain = zeroize::Zeroizing::new([&secret.md5[..], &secret.sha256[..]].concat());
        self.keys.seal(subject, Class::Identity, "credentials.secret", &plain)
    }

    /// `None` when its key was destroyed.
    async fn read_credential(&self, mut row: Row) -> Result<Option<SipCredential>, StoreError> {
        let (id, account) = (CredentialId(row.id()?), AccountKey(row.int()?));
        let subject = Subject::Account(account);
        self.keys.load(&[subject]).await?;
        let username = row.text()?.into_boxed_str();
        let label = self.keys.unseal_text(subject, Class::Identity, "credentials.label", &row.bytes()?)?;
        let secret = self.keys.unseal(subject, Class::Identity, "credentials.secret", &row.bytes()?)?;
        let (Some(label), Some(secret)) = (label, secret.map(zeroize::Zeroizing::new)) else { return Ok(None) };
        let bad = || StoreError::unreadable("credentials", "a secret of another length");
        let (md5, sha256) = secret.split_at_checked(16).ok_or_else(bad)?;
        let secret = Ha1 { md5: md5.try_into().map_err(|_| bad())?, sha256: sha256.try_into().map_err(|_| bad())? };
        let created_at = Timestamp(row.int()?);
        let (label, secret) = (Pii::new(label), Pii::new(secret));
        Ok(Some(SipCredential { id, account, username, label, secret, created_at }))
    }

    pub(crate) async fn credential(&self, username: &str) -> Result<Option<SipCredential>, StoreError> {
        match self.db.look_up_one(select_credential!("where username = $1"), values![username]).await? {
            Some(row) => self.read_credential(row).await,
            None => Ok(None),
        }
    }

    pub(crate) async fn credentials(&self, account: AccountKey) -> Result<Vec<SipCredential>, StoreError> {
        let text = select_credential!("where account_key = $1 order by created_at, id");
        let mut credentials = Vec::new();
        for row in self.db.look_up(text, values![account.0]).await? {
            credentials.extend(self.read_credential(row).await?);
        }
        Ok(credentials)
    }

    pub(crate) async fn create_credential(&self, credential: &SipCredential) -> Result<(), StoreError> {
        if self.account_profile(credential.account).await?.is_none() {
            return Err(StoreError::NotFound("account"));
        }
        self.keys.load(&[Subject::Account(credential.account)]).await?;
        let row = self.credential_row(credential)?;
        let mut tx = self.db.write().await?;
        tx.insert(INSERT_CREDENTIAL, vec![row]).await.map_err(|e| e.named("username", "account"))?;
        tx.commit().await
    }

    pub(crate) async fn rotate_credential(&self, id: CredentialId, secret: &Pii<Ha1>) -> Result<(), StoreError> {
        let found = self.db.look_up_one("select account_key from credentials where id = $1", values![id.0]).await?;
        let account = found.ok_or(StoreError::NotFound("credential"))?.int()?;
        let subject = Subject::Account(AccountKey(account));
        self.keys.load(&[subject]).await?;
        let secret = self.sealed_secret(subject, secret)?;
        let changed =
            self.db.execute("update credentials set secret = $1 where id = $2", values![secret, id.0]).await?;
        if changed == 1 { Ok(()) } else { Err(StoreError::NotFound("credential")) }
    }

    pub(crate) async fn revoke_credential(&self, id: CredentialId) -> Result<bool, StoreError> {
        let mut tx = self.db.write().await?;
        tx.execute("delete from bindings where credential = $1", values![id.0]).await?;
        let removed = tx.execute("delete from credentials where id = $1", values![id.0]).await?;
        tx.commit().await?;
        Ok(removed == 1)
    }
}

/// The rows of new accounts, by table.
#[derive(Default)]
struct NewRows {
    accounts: Vec<Vec<Value>>,
    credentials: Vec<Vec<Value>>,
    caller_ids: Vec<Vec<Value>>,
    history: Vec<Vec<Value>>,
    callbacks: Vec<Vec<Value>>,
    entries: Vec<Vec<Value>>,
    transfers: Vec<Vec<Value>>,
    events: OpeningEvents,
}

impl NewRows {
    async fn insert(self, tx: &mut Tx) -> Result<(), StoreError> {
        let tables = [
            (INSERT_ACCOUNT, self.accounts, "account id"),
            (INSERT_CREDENTIAL, self.credentials, "username"),
            (Write::CallerId.into(), self.caller_ids, "caller id"),
            (Write::CallerIdHistory.into(), self.history, "caller id"),
            (INSERT_CALLBACK, self.callbacks, "callback number"),
            (Write::Entry.into(), self.entries, "entry"),
            (Write::Transfer.into(), self.transfers, "transfer id"),
        ];
        for (into, rows, what) in tables {
            tx.insert(into, rows).await.map_err(|e| e.named(what, "brand or deck"))?;
        }
        self.events.insert(tx).await
    }
}

/// The events of opening entries, by account.
#[derive(Default)]
struct OpeningEvents {
    accounts: Vec<AccountKey>,
    payloads: Vec<Value>,
}

impl OpeningEvents {
    /// After the entries: the events of one have its number.
    async fn insert(self, tx: &mut Tx) -> Result<(), StoreError> {
        let (Some(first), Some(last)) = (self.accounts.first(), self.accounts.last()) else { return Ok(()) };
        let text = "select id from entries where account_key >= $1 and account_key <= $2 and seq = 1 and position = 0 \
                    order by account_key";
        let mut rows = Vec::with_capacity(self.payloads.len());
        for (mut entry, payload) in tx.fetch(text, values![first.0, last.0]).await?.into_iter().zip(self.payloads) {
            rows.push(vec![entry.int()?.into(), payload]);
        }
        tx.insert("events (id, payload)", rows).await
    }
}

fn first_username(new: &NewAccount) -> Option<&str> {
    new.credentials.first().map(|c| &*c.username)
}

/// Accounts that exist already, by their first credential's username.
async fn existing_accounts(tx: &mut Tx, chunk: &[NewAccount]) -> Result<BTreeMap<String, AccountKey>, StoreError> {
    let usernames: Vec<_> = chunk.iter().filter_map(first_username).map(Value::from).collect();
    let mut existing = BTreeMap::new();
    for mut row in tx.fetch_in("select username, account_key from credentials where username", usernames).await? {
        existing.insert(row.text()?, AccountKey(row.int()?));
    }
    Ok(existing)
}

/// Brand and deck must exist, the deck in the account's currency.
async fn check_references(tx: &mut Tx, fresh: &[&NewAccount]) -> Result<(), StoreError> {
    let mut brands = BTreeSet::new();
    for mut row in tx.fetch("select id from brands", values![]).await? {
        brands.insert(row.id()?);
    }
    let mut decks = BTreeMap::new();
    for mut row in tx.fetch("select id, currency from decks", values![]).await? {
        decks.insert(row.id()?, row.text()?);
    }
    for new in fresh {
        let currency = decks.get(&new.deck.0).ok_or(StoreError::NotFound("deck"))?;
        if currency != new.currency.as_str() {
            return Err(StoreError::Refused("an account's currency is its deck's"));
        }
        if !brands.contains(&new.brand.0) {
            return Err(StoreError::NotFound("brand"));
        }
    }
    Ok(())
}

/// The first of so many account keys that nobody else gets. Keys are never used twice.
async fn next_key(tx: &mut Tx, accounts: usize) -> Result<i64, StoreError> {
    let text = "update counters set value = value + $1 where name = 'account_key' returning value";
    let row = tx.fetch_one(text, values![count(accounts)]).await?;
    let last = row.ok_or(StoreError::unreadable("counters", "no account key"))?.int()?;
    Ok(last - count(accounts) + 1)
}

pub(super) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn account_row(key: AccountKey, new: &NewAccount) -> Vec<Value> {
    values![
        key.0,
        new.id.0,
        new.brand.0,
        new.parent.map(|p| p.0),
        &*new.country,
        &*new.time_zone,
        new.currency.as_str(),
        new.deck.0,
        new.limits.live_calls,
        new.limits.calls_per_minute,
        new.limits.call_seconds,
        new.limits.rate_per_minute.map(|r| r.0),
        new.created_at.0,
    ]
}
