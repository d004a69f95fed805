//! The rows of the simulated disk and the writes that are not the journal's.

use crate::account::{CreatedAccount, LoadedAccount, NewAccount};
use crate::binding::{BindingWrite, Registration, StoredBinding, identity};
use crate::call::{StoredCall, without_call_data};
use crate::error::StoreError;
use crate::event::{EventRow, last_cursor};
use crate::keyring::{Class, KeyringError, LIVE_CALL, Subject};
use crate::ledger::{LedgerCursor, PostedTransfer};
use crate::person::{Brand, MemberRole, OperatorRole, User, canonical_email};
use crate::session::{DeviceToken, Session, TokenHash};
use crate::tariff::Deck;
use schema::account::{AccountFigures, AccountProfile, CallbackPhone, CallerId, SipCredential};
use schema::call::{AttemptRecord, Cdr, LegSide, LiveCall};
use schema::carrier::{Trunk, TrunkLogin};
use schema::edge::Binding;
use schema::id::{
    AccountId, AccountKey, CallId, CallNo, CredentialId, DeckId, DeckVersionId, Seq, TransferId, TrunkId, UserId,
};
use schema::ledger::Hold;
use schema::leg::Dialogs;
use schema::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Default)]
pub(crate) struct Tables {
    pub(crate) brand: Option<Brand>,
    pub(crate) accounts: BTreeMap<AccountKey, Account>,
    pub(crate) account_ids: BTreeMap<AccountId, AccountKey>,
    pub(crate) credentials: BTreeMap<Box<str>, SipCredential>,
    pub(crate) call_ids: BTreeMap<CallId, (AccountKey, CallNo)>,
    pub(crate) transfer_ids: BTreeMap<TransferId, (AccountKey, LedgerCursor)>,
    pub(crate) users: BTreeMap<UserId, User>,
    pub(crate) emails: BTreeMap<String, UserId>,
    pub(crate) memberships: BTreeMap<(UserId, AccountKey), MemberRole>,
    pub(crate) operator_roles: BTreeMap<UserId, BTreeSet<OperatorRole>>,
    pub(crate) sessions: BTreeMap<TokenHash, Session>,
    pub(crate) device_tokens: BTreeMap<TokenHash, DeviceToken>,
    pub(crate) decks: BTreeMap<DeckId, Deck>,
    pub(crate) trunks: BTreeMap<TrunkId, Trunk>,
    pub(crate) trunk_logins: BTreeMap<TrunkId, TrunkLogin>,
    pub(crate) bindings: BTreeMap<(CredentialId, String), Binding>,
    /// Credentials whose bindings cannot be opened any more.
    pub(crate) rotten_bindings: BTreeSet<CredentialId>,
    pub(crate) registered: BTreeMap<CredentialId, Timestamp>,
    pub(crate) destroyed: BTreeSet<(Subject, Class)>,
}

#[derive(Clone)]
pub(crate) struct Account {
    pub(crate) profile: AccountProfile,
    pub(crate) figures: AccountFigures,
    pub(crate) caller_ids: Vec<CallerId>,
    pub(crate) callback_phones: Vec<CallbackPhone>,
    pub(crate) calls: BTreeMap<CallNo, LiveCall>,
    /// Live calls whose row cannot be opened any more.
    pub(crate) rotten: BTreeSet<CallNo>,
    /// Of the live calls.
    pub(crate) dialogs: BTreeMap<CallNo, Dialogs>,
    pub(crate) holds: BTreeMap<(CallNo, LegSide, u32), Hold>,
    pub(crate) attempts: BTreeMap<(CallNo, u8), AttemptRecord>,
    pub(crate) cdrs: BTreeMap<CallNo, (Timestamp, Cdr)>,
    pub(crate) transfers: BTreeMap<LedgerCursor, PostedTransfer>,
    /// Idempotency keys.
    pub(crate) keys: BTreeMap<String, LedgerCursor>,
    pub(crate) entries: BTreeMap<Seq, StoredEntry>,
    pub(crate) events: BTreeMap<Seq, EventRow>,
}

/// An entry, as its rows say it.
#[derive(Clone)]
pub(crate) struct StoredEntry {
    /// After it.
    pub(crate) figures: AccountFigures,
    pub(crate) rows: Vec<EntryRow>,
    /// What it told of, kept or not.
    pub(crate) event_count: usize,
}

/// What a row of an entry moved; a transfer stands among the account's, at its place.
#[derive(Debug, Clone, Copy)]
pub(crate) enum EntryRow {
    Hold(Hold),
    Transfer,
    Ended(CallNo),
}

impl Account {
    /// What the SQL stores say of a row that was changed by somebody else.
    pub(crate) fn readable(&self, call: CallNo) -> Result<(), StoreError> {
        if self.rotten.contains(&call) { Err(KeyringError::Tampered("calls.state").into()) } else { Ok(()) }
    }

    pub(crate) fn load(&self) -> Result<LoadedAccount, StoreError> {
        self.calls.keys().try_for_each(|call| self.readable(*call))?;
        let seq = self.figures.seq;
        let event_count = self.entries.get(&seq).map_or(0, |entry| entry.event_count);
        Ok(LoadedAccount {
            profile: self.profile.clone(),
            figures: self.figures,
            caller_ids: sorted(&self.caller_ids, |c| c.id),
            callback_phones: sorted(&self.callback_phones, |c| c.id),
            live_calls: self.calls.values().cloned().collect(),
            last_event: last_cursor(seq, event_count),
        })
    }

    fn new(key: AccountKey, new: &NewAccount) -> Self {
        Self {
            profile: new.profile(key),
            figures: new.figures(),
            caller_ids: new.caller_ids.clone(),
            callback_phones: new.callback_phones.clone(),
            calls: BTreeMap::new(),
            rotten: BTreeSet::new(),
            dialogs: BTreeMap::new(),
            holds: BTreeMap::new(),
            attempts: BTreeMap::new(),
            cdrs: BTreeMap::new(),
            transfers: BTreeMap::new(),
            keys: BTreeMap::new(),
            entries: [(Seq(0), StoredEntry { figures: new.figures(), rows: Vec::new(), event_count: 0 })].into(),
            events: BTreeMap::new(),
        }
    }
}

/// Oldest first: identities are ordered by time.
fn sorted<T: Clone, K: Ord>(rows: &[T], key: impl Fn(&T) -> K) -> Vec<T> {
    let mut rows = rows.to_vec();
    rows.sort_by_key(key);
    rows
}

impl Tables {
    /// Live calls of all accounts, by (account, number).
    fn live_calls_after(&self, after: (AccountKey, CallNo)) -> impl Iterator<Item = (AccountKey, &Account, &LiveCall)> {
        let accounts = self.accounts.range(after.0..);
        let calls = accounts.flat_map(|(key, account)| account.calls.values().map(move |call| (*key, account, call)));
        calls.filter(move |(key, _, call)| (*key, call.no) > after)
    }

    pub(crate) fn readable_calls_after(
        &self,
        after: (AccountKey, CallNo),
    ) -> impl Iterator<Item = (AccountKey, &LiveCall)> {
        let calls = self.live_calls_after(after).filter(|(_, account, call)| account.readable(call.no).is_ok());
        calls.map(|(key, _, call)| (key, call))
    }

    pub(crate) fn stored_calls_after(&self, after: (AccountKey, CallNo)) -> impl Iterator<Item = StoredCall> {
        self.live_calls_after(after).map(|(key, account, call)| StoredCall {
            account: key,
            no: call.no,
            id: call.call.id,
            call: account.readable(call.no).map(|()| call.clone()),
            dialogs: Ok(account.dialogs.get(&call.no).cloned().unwrap_or_default()),
        })
    }

    /// The bindings that last beyond `at`.
    pub(crate) fn stored_bindings(&self, at: Timestamp) -> Vec<StoredBinding> {
        let names: BTreeMap<_, _> = self.credentials.iter().map(|(name, credential)| (credential.id, name)).collect();
        let found = self.bindings.values().filter(|binding| binding.expires_at > at);
        found
            .filter_map(|binding| {
                let is_rotten = self.rotten_bindings.contains(&binding.credential);
                let tampered = || KeyringError::Tampered("bindings.binding").into();
                Some(StoredBinding {
                    account: binding.account,
                    credential: binding.credential,
                    username: (*names.get(&binding.credential)?).clone(),
                    binding: if is_rotten { Err(tampered()) } else { Ok(binding.clone()) },
                })
            })
            .collect()
    }

    pub(crate) fn known_user(&self, user: UserId) -> Result<(), StoreError> {
        if self.users.contains_key(&user) { Ok(()) } else { Err(StoreError::NotFound("user")) }
    }

    pub(crate) fn create_accounts(&mut self, chunk: &[NewAccount]) -> Result<Vec<CreatedAccount>, StoreError> {
        self.check_new_accounts(chunk)?;
        chunk.iter().map(|new| self.create_account(new)).collect()
    }

    /// All of a chunk is created or nothing: what could be refused is looked at first.
    fn check_new_accounts(&self, chunk: &[NewAccount]) -> Result<(), StoreError> {
        let (mut ids, mut usernames) = (BTreeSet::new(), BTreeSet::new());
        for new in chunk {
            if self.existing(new).is_some() {
                continue;
            }
            if self.account_ids.contains_key(&new.id) || !ids.insert(new.id) {
                return Err(StoreError::Taken("account id"));
            }
            let currency = self.decks.get(&new.deck).ok_or(StoreError::NotFound("deck"))?.currency;
            if currency != new.currency {
                return Err(StoreError::Refused("an account's currency is its deck's"));
            }
            if self.brand.as_ref().is_none_or(|brand| brand.id != new.brand) {
                return Err(StoreError::NotFound("brand"));
            }
            let numbers: BTreeSet<_> = new.caller_ids.iter().map(|c| &c.number).collect();
            if numbers.len() < new.caller_ids.len() {
                return Err(StoreError::Taken("caller id"));
            }
            for credential in &new.credentials {
                if self.credentials.contains_key(&credential.username) || !usernames.insert(&credential.username) {
                    return Err(StoreError::Taken("username"));
                }
            }
        }
        Ok(())
    }

    fn existing(&self, new: &NewAccount) -> Option<AccountKey> {
        Some(self.credentials.get(&new.credentials.first()?.username)?.account)
    }

    fn create_account(&mut self, new: &NewAccount) -> Result<CreatedAccount, StoreError> {
        if let Some(key) = self.existing(new) {
            return Ok(CreatedAccount { key, existed: true });
        }
        let key = AccountKey(self.accounts.last_key_value().map_or(0, |(key, _)| key.0) + 1);
        self.accounts.insert(key, Account::new(key, new));
        self.account_ids.insert(new.id, key);
        for credential in &new.credentials {
            self.create_credential(credential.of(key, new.created_at))?;
        }
        if let Some(entry) = new.opening_entry(key) {
            self.apply(entry).map_err(|_| StoreError::Taken("transfer id"))?;
        }
        Ok(CreatedAccount { key, existed: false })
    }

    pub(crate) fn create_credential(&mut self, credential: SipCredential) -> Result<(), StoreError> {
        if !self.accounts.contains_key(&credential.account) {
            return Err(StoreError::NotFound("account"));
        }
        if self.credentials.contains_key(&credential.username) {
            return Err(StoreError::Taken("username"));
        }
        self.credentials.insert(credential.username.clone(), credential);
        Ok(())
    }

    pub(crate) fn create_user(
        &mut self,
        user: &User,
        memberships: &[(AccountKey, MemberRole)],
        roles: &[OperatorRole],
    ) -> Result<(), StoreError> {
        let email = canonical_email(user.email.expose());
        if self.emails.contains_key(&email) {
            return Err(StoreError::Taken("e-mail address"));
        }
        if memberships.iter().any(|(account, _)| !self.accounts.contains_key(account)) {
            return Err(StoreError::NotFound("account"));
        }
        self.emails.insert(email, user.id);
        self.users.insert(user.id, user.clone());
        self.memberships.extend(memberships.iter().map(|&(account, role)| ((user.id, account), role)));
        self.operator_roles.insert(user.id, roles.iter().copied().collect());
        Ok(())
    }

    pub(crate) fn put_membership(
        &mut self,
        user: UserId,
        account: AccountKey,
        role: MemberRole,
    ) -> Result<(), StoreError> {
        self.known_user(user)?;
        if !self.accounts.contains_key(&account) {
            return Err(StoreError::NotFound("account"));
        }
        self.memberships.insert((user, account), role);
        Ok(())
    }

    pub(crate) fn put_deck(&mut self, deck: Deck) -> Result<DeckVersionId, StoreError> {
        if self.decks.values().any(|other| other.name == deck.name && other.id != deck.id) {
            return Err(StoreError::Taken("deck name"));
        }
        if let Some(stored) = self.decks.get(&deck.id) {
            let same = Deck { version: stored.version, ..deck.clone() } == *stored;
            if same {
                return Ok(stored.version);
            }
            if stored.currency != deck.currency {
                return Err(StoreError::Refused("a deck's currency cannot change"));
            }
        }
        let version = deck.version;
        self.decks.insert(deck.id, deck);
        Ok(version)
    }

    pub(crate) fn write_binding(&mut self, write: &BindingWrite, at: Timestamp) {
        let (BindingWrite::Put(binding) | BindingWrite::Remove(binding)) = write;
        if !self.credentials.values().any(|c| c.id == binding.credential) {
            return;
        }
        let key = (binding.credential, identity(binding));
        match write {
            BindingWrite::Put(binding) => {
                self.bindings.insert(key, binding.clone());
                self.registered.insert(binding.credential, at);
            }
            BindingWrite::Remove(_) => {
                self.bindings.remove(&key);
            }
        }
    }

    pub(crate) fn registrations(&self, account: AccountKey, at: Timestamp) -> Vec<Registration> {
        let mut credentials: Vec<_> = self.credentials.values().filter(|c| c.account == account).collect();
        credentials.sort_by_key(|c| (c.created_at, c.id));
        let of = |id: CredentialId| self.bindings.iter().filter(move |((c, _), b)| *c == id && b.expires_at > at);
        let registration = |c: &SipCredential| Registration {
            credential: c.id,
            bindings: u32::try_from(of(c.id).count()).unwrap_or(u32::MAX),
            last_registered_at: self.registered.get(&c.id).copied(),
        };
        credentials.into_iter().map(registration).collect()
    }

    /// What the SQL stores cannot read any more is not there any more.
    pub(crate) fn destroy_key(&mut self, subject: Subject, class: Class) -> Result<(), StoreError> {
        if let (Subject::Account(key), Class::Calls) = (subject, class)
            && self.accounts.get(&key).is_some_and(|account| !account.calls.is_empty())
        {
            return Err(LIVE_CALL);
        }
        self.destroyed.insert((subject, class));
        match (subject, class) {
            (Subject::Account(key), Class::Identity) => {
                self.credentials.retain(|_, c| c.account != key);
                if let Some(account) = self.accounts.get_mut(&key) {
                    account.caller_ids.clear();
                    account.callback_phones.clear();
                }
            }
            (Subject::Account(key), Class::Calls) => {
                if let Some(account) = self.accounts.get_mut(&key) {
                    account.events.clear();
                    account.cdrs.values_mut().for_each(|(_, cdr)| *cdr = without_call_data(cdr));
                }
            }
            (Subject::Account(key), Class::Tech) => self.bindings.retain(|_, b| b.account != key),
            (Subject::User(user), Class::Identity) => {
                self.users.remove(&user);
                self.emails.retain(|_, id| *id != user);
                self.device_tokens.retain(|_, d| d.user != user);
            }
            (Subject::Trunk(trunk), Class::Identity) => {
                self.trunk_logins.remove(&trunk);
            }
            (Subject::Account(_), Class::Billing) | (Subject::User(_) | Subject::Trunk(_), _) => {}
        }
        Ok(())
    }
}
