//! Registered phones. They survive a restart, so that calls reach the newest flow of a phone.

use crate::error::StoreError;
use crate::store::{Backend, Store};
use schema::edge::Binding;
use schema::id::{AccountKey, CredentialId};
use schema::time::Timestamp;

/// A change of what is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindingWrite {
    /// A phone registered or refreshed.
    Put(Binding),
    /// A phone left.
    Remove(Binding),
}

/// The row of a binding, for a restart. Whose it is can be read whatever became of the rest.
#[derive(Debug)]
pub struct StoredBinding {
    /// Whose.
    pub account: AccountKey,
    /// Registered with which credential.
    pub credential: CredentialId,
    /// Of that credential.
    pub username: Box<str>,
    /// What is registered; or why it cannot be read, now and by any later try with this program.
    pub binding: Result<Binding, StoreError>,
}

/// What is registered with a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration {
    /// Which.
    pub credential: CredentialId,
    /// Phones registered now.
    pub bindings: u32,
    /// The last REGISTER that was accepted.
    pub last_registered_at: Option<Timestamp>,
}

/// What makes two bindings of a credential the same: the phone's instance and flow (RFC 5626 §6), else its contact.
pub(crate) fn identity(binding: &Binding) -> String {
    let of_phone = binding.instance.as_ref().unwrap_or(&binding.contact).expose();
    match binding.reg_id {
        Some(flow) => format!("{of_phone};reg-id={flow}"),
        None => of_phone.clone(),
    }
}

impl Store {
    /// Stores changes of bindings, in order, in one transaction. Changes of unknown credentials are left out.
    ///
    /// # Errors
    /// The store failed; then nothing is changed.
    pub async fn write_bindings(&self, writes: &[BindingWrite], at: Timestamp) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.write_bindings(writes, at).await,
            Backend::Memory(disk) => disk.write(|t| {
                writes.iter().for_each(|write| t.write_binding(write, at));
                Ok(())
            }),
        }
    }

    /// All bindings that last beyond `at`, but those whose key was destroyed: for a restart.
    ///
    /// # Errors
    /// The store failed; what cannot be read of a single row is in its result.
    pub async fn bindings(&self, at: Timestamp) -> Result<Vec<StoredBinding>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.bindings(at).await,
            Backend::Memory(disk) => disk.read(|t| t.stored_bindings(at)),
        }
    }

    /// What is registered with each credential of an account at `at`, in the order of [`Store::credentials`].
    ///
    /// # Errors
    /// The store failed.
    pub async fn registrations(&self, account: AccountKey, at: Timestamp) -> Result<Vec<Registration>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.registrations(account, at).await,
            Backend::Memory(disk) => disk.read(|t| t.registrations(account, at)),
        }
    }

    /// Removes bindings that ended before `at`. Returns how many.
    ///
    /// # Errors
    /// The store failed.
    pub async fn purge_bindings(&self, at: Timestamp) -> Result<u64, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.purge_bindings(at).await,
            Backend::Memory(disk) => disk.write(|t| {
                let before = t.bindings.len();
                t.bindings.retain(|_, b| b.expires_at >= at);
                Ok((before - t.bindings.len()) as u64)
            }),
        }
    }
}
