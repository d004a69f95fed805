//! Accounts: loading one whole, creating many at once.

use crate::error::StoreError;
use crate::memory;
use crate::store::{Backend, Store};
use schema::account::{
    AccountFigures, AccountProfile, AccountStatus, CallbackPhone, CallerId, Ha1, Limits, SipCredential,
};
use schema::call::LiveCall;
use schema::event::{EventBody, EventCursor};
use schema::id::{AccountId, AccountKey, BrandId, CallNo, CredentialId, DeckId, Seq};
use schema::journal::{Change, Entry};
use schema::ledger::{Balance, Transfer};
use schema::money::{Currency, Micros};
use schema::pii::Pii;
use schema::time::Timestamp;

/// Everything an account actor needs, as of one moment.
#[derive(Debug, Clone)]
pub struct LoadedAccount {
    /// What does not change with every call.
    pub profile: AccountProfile,
    /// Its figures after its last entry.
    pub figures: AccountFigures,
    /// Its caller IDs, oldest first.
    pub caller_ids: Vec<CallerId>,
    /// Its own phones, oldest first.
    pub callback_phones: Vec<CallbackPhone>,
    /// Its calls that have not ended, by number.
    pub live_calls: Vec<LiveCall>,
    /// The place of its last event.
    pub last_event: EventCursor,
}

/// An account to be created.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// Public identity.
    pub id: AccountId,
    /// Its brand.
    pub brand: BrandId,
    /// The account above it, if any.
    pub parent: Option<AccountKey>,
    /// ISO 3166-1 alpha-2.
    pub country: Box<str>,
    /// IANA time zone.
    pub time_zone: Box<str>,
    /// Equal to its deck's.
    pub currency: Currency,
    /// The rate deck it pays by.
    pub deck: DeckId,
    /// Its limits.
    pub limits: Limits,
    /// Its standing.
    pub status: AccountStatus,
    /// When.
    pub created_at: Timestamp,
    /// Its first money, posted as its journal entry 1. `balance_after` is its amount.
    pub opening: Option<Transfer>,
    /// Its SIP credentials. An account whose first credential's username exists already is not created again.
    pub credentials: Vec<NewCredential>,
    /// Its caller IDs.
    pub caller_ids: Vec<CallerId>,
    /// Its own phones.
    pub callback_phones: Vec<CallbackPhone>,
}

/// A SIP credential to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCredential {
    /// Identity.
    pub id: CredentialId,
    /// The username, unique, at most 64 bytes.
    pub username: Box<str>,
    /// The owner's name for it.
    pub label: Pii<String>,
    /// Its secret.
    pub secret: Pii<Ha1>,
}

/// What became of a [`NewAccount`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreatedAccount {
    /// The key of its rows.
    pub key: AccountKey,
    /// It was there before, found by its first credential's username; nothing was changed.
    pub existed: bool,
}

/// An account in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountSummary {
    /// What does not change with every call.
    pub profile: AccountProfile,
    /// Its figures after its last entry.
    pub figures: AccountFigures,
}

impl NewAccount {
    pub(crate) fn profile(&self, key: AccountKey) -> AccountProfile {
        AccountProfile {
            id: self.id,
            key,
            currency: self.currency,
            country: self.country.clone(),
            time_zone: self.time_zone.clone(),
            deck: self.deck,
            limits: self.limits,
        }
    }

    /// Its figures before its first entry.
    pub(crate) const fn figures(&self) -> AccountFigures {
        AccountFigures {
            seq: Seq(0),
            status: self.status,
            total: Micros::ZERO,
            held: Micros::ZERO,
            receivable: Micros::ZERO,
            last_call: CallNo(0),
        }
    }

    /// The journal entry 0, with which it is created.
    pub(crate) const fn first_entry(&self, key: AccountKey) -> Entry {
        Entry { account: key, at: self.created_at, figures: self.figures(), changes: Vec::new(), events: Vec::new() }
    }

    /// The journal entry 1 that posts its first money.
    pub(crate) fn opening_entry(&self, key: AccountKey) -> Option<Entry> {
        let opening = self.opening.clone()?;
        let total = opening.customer_delta();
        let balance = Balance {
            currency: self.currency,
            total,
            reserved: Micros::ZERO,
            available: total,
            accrued: Micros::ZERO,
            remaining: total,
            burn_per_minute: Micros::ZERO,
            exhausts_at: None,
        };
        Some(Entry {
            account: key,
            at: self.created_at,
            figures: AccountFigures { seq: Seq(1), total, ..self.figures() },
            changes: vec![Change::Posted(Box::new(opening))],
            events: vec![EventBody::BalanceChanged(balance)],
        })
    }
}

impl NewCredential {
    pub(crate) fn of(&self, account: AccountKey, created_at: Timestamp) -> SipCredential {
        SipCredential {
            id: self.id,
            account,
            username: self.username.clone(),
            label: self.label.clone(),
            secret: self.secret,
            created_at,
        }
    }
}

impl Store {
    /// An account whole, from one snapshot; `None` when there is none.
    ///
    /// # Errors
    /// The store failed.
    pub async fn account(&self, key: AccountKey) -> Result<Option<LoadedAccount>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.account(key).await,
            Backend::Memory(disk) => disk.load(|t| t.accounts.get(&key).map(memory::Account::load).transpose()),
        }
    }

    /// The key of an account's rows.
    ///
    /// # Errors
    /// The store failed.
    pub async fn account_key(&self, id: AccountId) -> Result<Option<AccountKey>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.account_key(id).await,
            Backend::Memory(disk) => disk.read(|t| t.account_ids.get(&id).copied()),
        }
    }

    /// What does not change with every call.
    ///
    /// # Errors
    /// The store failed.
    pub async fn account_profile(&self, key: AccountKey) -> Result<Option<AccountProfile>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.account_profile(key).await,
            Backend::Memory(disk) => disk.read(|t| t.accounts.get(&key).map(|a| a.profile.clone())),
        }
    }

    /// Accounts with a key above `after`, by key, at most `limit` (1,000).
    ///
    /// # Errors
    /// The store failed.
    pub async fn accounts_page(
        &self,
        after: Option<AccountKey>,
        limit: u32,
    ) -> Result<Vec<AccountSummary>, StoreError> {
        let (after, limit) = (after.unwrap_or(AccountKey(0)), crate::store::page(limit));
        match &self.backend {
            Backend::Sql(sql) => sql.accounts_page(after, limit).await,
            Backend::Memory(disk) => disk.read(|t| {
                let rest = t.accounts.range((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded));
                let summary = |a: &memory::Account| AccountSummary { profile: a.profile.clone(), figures: a.figures };
                rest.take(limit).map(|(_, account)| summary(account)).collect()
            }),
        }
    }

    /// Creates accounts, one transaction for each 5,000; `progress` is told how many are done. What is returned has the order
    /// of `accounts`. A repeated call after a failure creates only what is missing.
    ///
    /// # Errors
    /// The store failed, a username or number is taken, or a brand or deck does not exist: then the accounts of that
    /// transaction are not created.
    pub async fn create_accounts(
        &self,
        accounts: &[NewAccount],
        mut progress: impl FnMut(usize) + Send,
    ) -> Result<Vec<CreatedAccount>, StoreError> {
        let mut created = Vec::with_capacity(accounts.len());
        for chunk in accounts.chunks(5_000) {
            match &self.backend {
                Backend::Sql(sql) => created.extend(sql.create_accounts(chunk).await?),
                Backend::Memory(disk) => created.extend(disk.write(|t| t.create_accounts(chunk))?),
            }
            progress(created.len());
        }
        Ok(created)
    }

    /// The SIP credential of a digest username.
    ///
    /// # Errors
    /// The store failed.
    pub async fn credential(&self, username: &str) -> Result<Option<SipCredential>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.credential(username).await,
            Backend::Memory(disk) => disk.read(|t| t.credentials.get(username).cloned()),
        }
    }

    /// The SIP credentials of an account, oldest first.
    ///
    /// # Errors
    /// The store failed.
    pub async fn credentials(&self, account: AccountKey) -> Result<Vec<SipCredential>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.credentials(account).await,
            Backend::Memory(disk) => disk.read(|t| {
                let mut found: Vec<_> = t.credentials.values().filter(|c| c.account == account).cloned().collect();
                found.sort_by_key(|c| (c.created_at, c.id));
                found
            }),
        }
    }

    /// Adds a SIP credential.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when the username exists, [`StoreError::NotFound`] when the account does not; or the store failed.
    pub async fn create_credential(&self, credential: &SipCredential) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.create_credential(credential).await,
            Backend::Memory(disk) => disk.write(|t| t.create_credential(credential.clone())),
        }
    }

    /// Gives a SIP credential another secret.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it does not exist; or the store failed.
    pub async fn rotate_credential(&self, id: CredentialId, secret: &Pii<Ha1>) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.rotate_credential(id, secret).await,
            Backend::Memory(disk) => disk.write(|t| {
                let found =
                    t.credentials.values_mut().find(|c| c.id == id).ok_or(StoreError::NotFound("credential"))?;
                found.secret = *secret;
                Ok(())
            }),
        }
    }

    /// Removes a SIP credential with its bindings. True when it was there.
    ///
    /// # Errors
    /// The store failed.
    pub async fn revoke_credential(&self, id: CredentialId) -> Result<bool, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.revoke_credential(id).await,
            Backend::Memory(disk) => disk.write(|t| {
                t.bindings.retain(|(credential, _), _| *credential != id);
                let before = t.credentials.len();
                t.credentials.retain(|_, c| c.id != id);
                Ok(t.credentials.len() < before)
            }),
        }
    }
}
