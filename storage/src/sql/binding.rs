//! Registered phones in SQL.

use super::{Row, SqlStore, values};
use crate::binding::{BindingWrite, Registration, StoredBinding, identity};
use crate::error::StoreError;
use crate::keyring::{Class, Subject};
use schema::edge::Binding;
use schema::id::{AccountKey, CredentialId};
use schema::time::Timestamp;

const PUT: &str = "insert into bindings (credential, identity_index, account_key, binding, expires_at) \
     values ($1, $2, $3, $4, $5) on conflict (credential, identity_index) \
     do update set binding = excluded.binding, expires_at = excluded.expires_at";

impl SqlStore {
    pub(crate) async fn write_bindings(&self, writes: &[BindingWrite], at: Timestamp) -> Result<(), StoreError> {
        let of = |write: &BindingWrite| match write {
            BindingWrite::Put(b) | BindingWrite::Remove(b) => Subject::Account(b.account),
        };
        self.keys.load(&writes.iter().map(of).collect::<Vec<_>>()).await?;
        let mut tx = self.db.write().await?;
        for write in writes {
            let (BindingWrite::Put(binding) | BindingWrite::Remove(binding)) = write;
            let index = self.keys.blind_index("bindings.identity", &identity(binding));
            let BindingWrite::Put(_) = write else {
                let text = "delete from bindings where credential = $1 and identity_index = $2";
                tx.execute(text, values![binding.credential.0, index]).await?;
                continue;
            };
            let text = "update credentials set last_registered_at = $1 where id = $2 and account_key = $3";
            let values = values![at.0, binding.credential.0, binding.account.0];
            if tx.execute(text, values).await? == 1 {
                let sealed =
                    self.keys.seal_json(Subject::Account(binding.account), Class::Tech, "bindings.binding", binding)?;
                let values = values![binding.credential.0, index, binding.account.0, sealed, binding.expires_at.0];
                tx.execute(PUT, values).await?;
            }
        }
        tx.commit().await
    }

    pub(crate) async fn bindings(&self, at: Timestamp) -> Result<Vec<StoredBinding>, StoreError> {
        let text = "select b.account_key, b.credential, c.username, b.binding from bindings b \
                    join credentials c on c.id = b.credential where b.expires_at > $1 \
                    order by b.credential, b.identity_index";
        let mut bindings = Vec::new();
        for mut row in self.db.look_up(text, values![at.0]).await? {
            let (account, credential) = (AccountKey(row.int()?), CredentialId(row.id()?));
            let username = row.text()?.into_boxed_str();
            let keys = self.row_keys(account).await?;
            let binding = keys.and_then(|()| self.read_binding(account, &mut row)).transpose();
            bindings.extend(binding.map(|binding| StoredBinding { account, credential, username, binding }));
        }
        Ok(bindings)
    }

    /// `None` when its key was destroyed.
    fn read_binding(&self, account: AccountKey, row: &mut Row) -> Result<Option<Binding>, StoreError> {
        self.keys.unseal_json(Subject::Account(account), Class::Tech, "bindings.binding", &row.bytes()?)
    }

    pub(crate) async fn registrations(
        &self,
        account: AccountKey,
        at: Timestamp,
    ) -> Result<Vec<Registration>, StoreError> {
        let text = "select c.id, c.last_registered_at, \
                    (select count(*) from bindings b where b.credential = c.id and b.expires_at > $2) \
                    from credentials c where c.account_key = $1 order by c.created_at, c.id";
        let rows = self.db.look_up(text, values![account.0, at.0]).await?;
        rows.into_iter()
            .map(|mut row| {
                let (credential, last) = (CredentialId(row.id()?), row.opt_int()?.map(Timestamp));
                Ok(Registration { credential, bindings: row.small("bindings")?, last_registered_at: last })
            })
            .collect()
    }

    pub(crate) async fn purge_bindings(&self, at: Timestamp) -> Result<u64, StoreError> {
        self.db.execute("delete from bindings where expires_at < $1", values![at.0]).await
    }
}
