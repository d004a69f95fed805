//! What survives: the journal (group commit) and the stores for SQLite, PostgreSQL and memory, behind one set of functions
//! that one conformance suite holds to the same meaning.
//!
//! * [`Store`] reads, and writes what no account actor decides (provisioning, sessions, bindings, tariffs).
//! * [`Journal`] writes what account actors decide: entries in order, many in one transaction, acknowledged after the commit.
//! * [`Keyring`] holds the keys under which personal columns are sealed.
//! * [`audit::audit`] derives every stored figure again from the rows.

// Shared with the conformance suite, which uses this crate by its name.
#[cfg(test)]
extern crate self as storage;
#[cfg(test)]
#[path = "../tests/conformance/samples.rs"]
#[expect(dead_code, unreachable_pub, reason = "the conformance suite uses all of it")]
mod samples;

pub mod account;
pub mod audit;
pub mod binding;
pub mod call;
pub mod error;
pub mod event;
pub mod journal;
pub mod keyring;
pub mod ledger;
pub mod memory;
pub mod person;
mod seal;
pub mod session;
mod sql;
pub mod store;
pub mod tariff;
pub mod url;

pub use account::{AccountSummary, CreatedAccount, LoadedAccount, NewAccount, NewCredential};
pub use binding::{BindingWrite, Registration, StoredBinding};
pub use call::{CallFilter, StoredCall};
pub use error::StoreError;
pub use journal::{Done, Journal, JournalFull, JournalOptions};
pub use keyring::{Class, Keyring, KeyringError, MasterKey, MasterKeyError, Subject, create_file};
pub use ledger::{LedgerCursor, PostedTransfer};
pub use memory::MemDisk;
pub use person::{Brand, MemberRole, Membership, OperatorRole, User, canonical_email};
pub use session::{DeviceToken, Session, TokenHash, TokenScope};
pub use store::Store;
pub use tariff::{Deck, Rate};
pub use url::{DatabaseUrl, DatabaseUrlError};
