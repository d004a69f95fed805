//! The keys of personal data at rest: whose data, of which retention class, and how a value is sealed.

use crate::error::StoreError;
use crate::sql::{Db, KEYS, Value, migrate, values};
use crate::url::DatabaseUrl;
use dashmap::DashMap;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use schema::id::{AccountKey, TrunkId, UserId};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use zeroize::{Zeroize, ZeroizeOnDrop};

mod master;

pub use master::{MasterKey, MasterKeyError, create_file};

/// Whose personal data or secret it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// An account's.
    Account(AccountKey),
    /// A person's who signs in.
    User(UserId),
    /// The operator's, for a carrier: what it uses on one trunk.
    Trunk(TrunkId),
}

/// How long data is kept, and so which key seals it: destroying the key ends the class (P4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Names, e-mail addresses, caller IDs, callback numbers, SIP secrets.
    Identity,
    /// Numbers dialled and presented, call records, events.
    Calls,
    /// Invoices.
    Billing,
    /// IP addresses, registrations.
    Tech,
}

impl Class {
    /// All of them, in the order of their columns.
    pub const ALL: [Self; 4] = [Self::Identity, Self::Calls, Self::Billing, Self::Tech];

    /// Its column in the key store, and its word in a seal's associated data.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Calls => "calls",
            Self::Billing => "billing",
            Self::Tech => "tech",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What can go wrong with keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The subject's key was destroyed: nothing can be sealed under it any more.
    #[error("the {0} key of this subject was destroyed")]
    Destroyed(Class),
    /// The subject has no keys.
    #[error("this subject has no keys")]
    Missing,
    /// The key store was written under another master key.
    #[error("the master key does not fit the key store")]
    WrongMaster,
    /// Something sealed was changed since, or belongs elsewhere.
    #[error("a sealed value in {0} does not fit its key")]
    Tampered(&'static str),
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    NoRandom,
}

/// The keys of all subjects. A cheap handle.
///
/// One row per subject in a database of its own: four random data keys (AES-256-GCM), each wrapped by the master key. A new
/// subject's row is durable before anything is sealed under it. Destroying a key makes all it sealed unreadable, backups
/// included: reading gives `None` then.
#[derive(Clone)]
pub struct Keyring(Arc<Inner>);

struct Inner {
    db: Db,
    master: LessSafeKey,
    index: hmac::Key,
    random: SystemRandom,
    /// Unwrapped keys in use.
    cache: DashMap<Subject, Arc<SubjectKeys>>,
    /// How many keys were destroyed: whoever read a row before must not cache it afterwards.
    destroyed: AtomicU64,
}

/// A subject's data keys, by class; `None`: destroyed.
#[derive(Default, Clone)]
struct SubjectKeys([Option<DataKey>; 4]);

#[derive(Clone, Zeroize, ZeroizeOnDrop)]
struct DataKey([u8; 32]);

/// Most subjects whose keys are kept unwrapped.
const CACHE: usize = 1_048_576;

/// Why a key of call data is not destroyed.
pub(crate) const LIVE_CALL: StoreError = StoreError::Refused("the account has a live call, whose state this key seals");

/// First byte of everything sealed: AES-256-GCM, 12 bytes of nonce, ciphertext and tag.
const SEALED: u8 = 1;

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring")
    }
}

impl Keyring {
    /// Opens the key store; its key of blind indexes is made when it is new.
    ///
    /// # Errors
    /// [`KeyringError::WrongMaster`], or the store failed.
    pub async fn open(url: &DatabaseUrl, master: &MasterKey) -> Result<Self, StoreError> {
        let db = Db::open(url).await?;
        migrate(&db, &KEYS).await?;
        let random = SystemRandom::new();
        let master = aead_key(master.bytes());
        let mut tx = db.write().await?;
        let index = match tx.fetch_one("select key from index_key", values![]).await? {
            Some(mut row) => unwrap_key(&master, b"index", &row.bytes()?)?,
            None => {
                let fresh = random_bytes::<32>(&random)?;
                let wrapped = seal_with(&master, &random, b"index", &fresh)?;
                tx.execute("insert into index_key (id, key) values (1, $1)", values![wrapped]).await?;
                DataKey(fresh)
            }
        };
        tx.commit().await?;
        let index = hmac::Key::new(hmac::HMAC_SHA256, &index.0);
        Ok(Self(Arc::new(Inner { db, master, index, random, cache: DashMap::new(), destroyed: AtomicU64::new(0) })))
    }

    /// Closes its connections.
    pub async fn close(&self) {
        self.0.db.close().await;
    }

    /// Makes keys for subjects that have none, durably, in one transaction, and loads them.
    pub(crate) async fn create(&self, subjects: &[Subject]) -> Result<(), StoreError> {
        let (mut rows, mut fresh) = (Vec::with_capacity(subjects.len()), Vec::with_capacity(subjects.len()));
        for &subject in subjects {
            let id = subject.bytes();
            let mut row = values![id.clone()];
            let mut keys = SubjectKeys::default();
            for (slot, class) in keys.0.iter_mut().zip(Class::ALL) {
                let key = DataKey(random_bytes::<32>(&self.0.random)?);
                row.push(Value::from(seal_with(&self.0.master, &self.0.random, &wrap_aad(&id, class), &key.0)?));
                *slot = Some(key);
            }
            rows.push(row);
            fresh.push((subject, Arc::new(keys)));
        }
        // An existing row is never replaced: something may be sealed under its keys, or they were destroyed.
        let mut tx = self.0.db.write().await?;
        let inserted = tx.insert_new("subject_keys (subject, identity, calls, billing, tech)", rows).await?;
        tx.commit().await?;
        if inserted == fresh.len() as u64 {
            for (subject, keys) in fresh {
                self.0.cache.insert(subject, keys);
            }
        }
        self.load(subjects).await
    }

    /// Removes subjects' keys from memory until they are loaded again.
    pub(crate) fn forget(&self, subjects: &[Subject]) {
        for subject in subjects {
            self.0.cache.remove(subject);
        }
    }

    /// Brings subjects' keys into memory, so that they can be used without waiting.
    pub(crate) async fn load(&self, subjects: &[Subject]) -> Result<(), StoreError> {
        for &subject in subjects {
            while !self.0.cache.contains_key(&subject) {
                let before = self.0.destroyed.load(Ordering::SeqCst);
                let Some(keys) = self.read(subject).await? else { break };
                self.make_room();
                self.0.cache.insert(subject, Arc::new(keys));
                if self.0.destroyed.load(Ordering::SeqCst) != before {
                    self.0.cache.remove(&subject);
                }
            }
        }
        Ok(())
    }

    /// Where the cache is full an eighth of it goes. Whoever was about to use one of those keys is told that it is missing.
    fn make_room(&self) {
        if self.0.cache.len() >= CACHE {
            let mut excess = CACHE / 8;
            self.0.cache.retain(|_, _| {
                let goes = excess > 0;
                excess -= usize::from(goes);
                !goes
            });
        }
    }

    /// A subject's keys as they are stored; `None` when it has none.
    async fn read(&self, subject: Subject) -> Result<Option<SubjectKeys>, StoreError> {
        let id = subject.bytes();
        let text = "select identity, calls, billing, tech from subject_keys where subject = $1";
        let Some(mut row) = self.0.db.fetch_one(text, values![id.clone()]).await? else { return Ok(None) };
        let mut keys = SubjectKeys::default();
        for (slot, class) in keys.0.iter_mut().zip(Class::ALL) {
            let wrapped = row.opt_bytes()?;
            *slot = wrapped.map(|w| unwrap_key(&self.0.master, &wrap_aad(&id, class), &w)).transpose()?;
        }
        Ok(Some(keys))
    }

    /// Whether a subject's keys are in memory.
    pub(crate) fn is_loaded(&self, subject: Subject) -> bool {
        self.0.cache.contains_key(&subject)
    }

    /// Seals a value for `place` (table and column). Its subject must be loaded.
    pub(crate) fn seal(
        &self,
        subject: Subject,
        class: Class,
        place: &'static str,
        plain: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        self.sealer(subject, class)?.seal(place, plain)
    }

    /// What seals several values of a subject: its key is prepared once. It must be loaded.
    pub(crate) fn sealer(&self, subject: Subject, class: Class) -> Result<Sealer<'_>, StoreError> {
        let keys = self.0.cache.get(&subject).ok_or(KeyringError::Missing)?;
        let key = aead_key(&keys.of(class).ok_or(KeyringError::Destroyed(class))?.0);
        Ok(Sealer { random: &self.0.random, subject, class, key })
    }

    /// Opens what [`Self::seal`] sealed for the same place; `None` when the key was destroyed. The subject must be loaded.
    pub(crate) fn unseal(
        &self,
        subject: Subject,
        class: Class,
        place: &'static str,
        sealed: &[u8],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let keys = self.0.cache.get(&subject).map(|k| k.clone()).ok_or(KeyringError::Missing)?;
        let Some(key) = keys.of(class) else { return Ok(None) };
        let opened = open_with(&aead_key(&key.0), &aad(subject, class, place), sealed);
        opened.map(Some).ok_or(KeyringError::Tampered(place).into())
    }

    /// The blind index of a value in a column: HMAC-SHA-256 under a key of this store.
    pub(crate) fn blind_index(&self, column: &'static str, value: &str) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.0.index);
        context.update(column.as_bytes());
        context.update(&[0]);
        context.update(value.as_bytes());
        context.sign().as_ref().to_vec()
    }

    /// What stands in a database whose columns are sealed with these keys: a hash that another key store does not have.
    pub(crate) fn mark(&self) -> Vec<u8> {
        self.blind_index("key_store", "mark")
    }

    /// Whether a subject has, or had, keys.
    pub(crate) async fn knows(&self, subject: Subject) -> Result<bool, StoreError> {
        Ok(self.read(subject).await?.is_some())
    }

    /// Destroys a key, durably.
    pub(crate) async fn destroy(&self, subject: Subject, class: Class) -> Result<(), StoreError> {
        let text = match class {
            Class::Identity => "update subject_keys set identity = null where subject = $1",
            Class::Calls => "update subject_keys set calls = null where subject = $1",
            Class::Billing => "update subject_keys set billing = null where subject = $1",
            Class::Tech => "update subject_keys set tech = null where subject = $1",
        };
        self.0.db.execute(text, values![subject.bytes()]).await?;
        self.0.destroyed.fetch_add(1, Ordering::SeqCst);
        self.0.cache.remove(&subject);
        self.0.db.forget_overwritten().await
    }
}

/// Seals values of one subject and class. Not kept: a key that is destroyed is in no memory a moment later.
pub(crate) struct Sealer<'k> {
    random: &'k SystemRandom,
    subject: Subject,
    class: Class,
    key: LessSafeKey,
}

impl Sealer<'_> {
    /// Seals a value for `place` (table and column).
    pub(crate) fn seal(&self, place: &'static str, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        Ok(seal_with(&self.key, self.random, &aad(self.subject, self.class, place), plain)?)
    }
}

impl SubjectKeys {
    fn of(&self, class: Class) -> Option<&DataKey> {
        self.0[class as usize].as_ref()
    }
}

impl Subject {
    /// Its row's key.
    fn bytes(self) -> Vec<u8> {
        match self {
            Self::Account(key) => [&[1][..], &key.0.to_be_bytes()].concat(),
            Self::User(id) => [&[2][..], id.0.as_bytes()].concat(),
            Self::Trunk(id) => [&[3][..], id.0.as_bytes()].concat(),
        }
    }
}

fn aead_key(bytes: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).expect("AES-256 takes 32 bytes"))
}

/// What a sealed value is bound to: it opens nowhere else.
fn aad(subject: Subject, class: Class, place: &'static str) -> Vec<u8> {
    [place.as_bytes(), &[0], class.as_str().as_bytes(), &[0], &subject.bytes()].concat()
}

fn wrap_aad(subject: &[u8], class: Class) -> Vec<u8> {
    [b"wrap\0", class.as_str().as_bytes(), &[0], subject].concat()
}

fn random_bytes<const N: usize>(random: &SystemRandom) -> Result<[u8; N], KeyringError> {
    let mut bytes = [0; N];
    random.fill(&mut bytes).map_err(|_| KeyringError::NoRandom)?;
    Ok(bytes)
}

fn seal_with(key: &LessSafeKey, random: &SystemRandom, aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, KeyringError> {
    let nonce = random_bytes::<NONCE_LEN>(random)?;
    let mut sealed = Vec::with_capacity(1 + NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
    sealed.push(SEALED);
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(plain);
    let body = &mut sealed[1 + NONCE_LEN..];
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), body)
        .expect("a value is far shorter than AES-GCM's limit of 64 GiB");
    sealed.extend_from_slice(tag.as_ref());
    Ok(sealed)
}

fn open_with(key: &LessSafeKey, aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (&SEALED, rest) = sealed.split_first()? else { return None };
    let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>()?;
    let mut body = body.to_vec();
    let plain = key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), &mut body).ok()?;
    let length = plain.len();
    body.truncate(length);
    Some(body)
}

fn unwrap_key(master: &LessSafeKey, aad: &[u8], wrapped: &[u8]) -> Result<DataKey, KeyringError> {
    let mut plain = open_with(master, aad, wrapped).ok_or(KeyringError::WrongMaster)?;
    let key = <[u8; 32]>::try_from(plain.as_slice()).map_err(|_| KeyringError::WrongMaster);
    plain.zeroize();
    key.map(DataKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(byte: u8) -> MasterKey {
        MasterKey::from_bytes([byte; 32])
    }

    fn url(folder: &tempfile::TempDir) -> DatabaseUrl {
        DatabaseUrl::sqlite(folder.path().join("keys.db"))
    }

    const ANN: Subject = Subject::Account(schema::id::AccountKey(1));
    const BOB: Subject = Subject::Account(schema::id::AccountKey(2));

    #[tokio::test]
    async fn a_sealed_value_opens_only_in_its_place_and_for_its_subject() {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = Keyring::open(&url(&folder), &master(1)).await.expect("opens");
        keys.create(&[ANN, BOB]).await.expect("made");
        keys.load(&[ANN, BOB]).await.expect("loaded");
        let sealed = keys.seal(ANN, Class::Calls, "cdrs.record", b"secret").expect("sealed");
        assert!(!sealed.windows(6).any(|w| w == b"secret"));
        assert_eq!(keys.unseal(ANN, Class::Calls, "cdrs.record", &sealed).expect("opens"), Some(b"secret".to_vec()));
        for (subject, class, place) in [
            (BOB, Class::Calls, "cdrs.record"),
            (ANN, Class::Tech, "cdrs.record"),
            (ANN, Class::Calls, "events.payload"),
        ] {
            let opened = keys.unseal(subject, class, place, &sealed);
            assert!(matches!(opened, Err(StoreError::Keys(KeyringError::Tampered(_)))), "{place}");
        }
        let mut changed = sealed;
        *changed.last_mut().expect("not empty") ^= 1;
        assert!(keys.unseal(ANN, Class::Calls, "cdrs.record", &changed).is_err());
    }

    #[tokio::test]
    async fn keys_survive_a_restart_and_need_their_master_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = Keyring::open(&url(&folder), &master(1)).await.expect("opens");
        keys.create(&[ANN]).await.expect("made");
        keys.load(&[ANN]).await.expect("loaded");
        let sealed = keys.seal(ANN, Class::Identity, "users.email", b"x").expect("sealed");
        let index = keys.blind_index("users.email", "x");
        keys.close().await;
        let again = Keyring::open(&url(&folder), &master(1)).await.expect("opens");
        again.load(&[ANN]).await.expect("loaded");
        assert_eq!(again.unseal(ANN, Class::Identity, "users.email", &sealed).expect("opens"), Some(b"x".to_vec()));
        assert_eq!(again.blind_index("users.email", "x"), index);
        assert_ne!(again.blind_index("caller_ids.number", "x"), index);
        again.close().await;
        let wrong = Keyring::open(&url(&folder), &master(2)).await;
        assert!(matches!(wrong, Err(StoreError::Keys(KeyringError::WrongMaster))));
    }

    #[tokio::test]
    async fn p4_a_destroyed_key_leaves_nothing_readable_and_seals_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = Keyring::open(&url(&folder), &master(1)).await.expect("opens");
        keys.create(&[ANN]).await.expect("made");
        keys.load(&[ANN]).await.expect("loaded");
        let sealed = keys.seal(ANN, Class::Calls, "cdrs.record", b"x").expect("sealed");
        let kept = keys.seal(ANN, Class::Billing, "cdrs.record", b"y").expect("sealed");
        keys.destroy(ANN, Class::Calls).await.expect("destroyed");
        keys.create(&[ANN]).await.expect("an existing row is left alone");
        keys.load(&[ANN]).await.expect("loaded");
        assert_eq!(keys.unseal(ANN, Class::Calls, "cdrs.record", &sealed).expect("no error"), None);
        assert_eq!(keys.unseal(ANN, Class::Billing, "cdrs.record", &kept).expect("opens"), Some(b"y".to_vec()));
        let refused = keys.seal(ANN, Class::Calls, "cdrs.record", b"z");
        assert!(matches!(refused, Err(StoreError::Keys(KeyringError::Destroyed(Class::Calls)))));
    }
}
