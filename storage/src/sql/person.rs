//! Brand, users and their roles in SQL.

use super::{Row, SqlStore, Tx, values};
use crate::error::StoreError;
use crate::keyring::{Class, Subject};
use crate::person::{Brand, MemberRole, Membership, OperatorRole, User, canonical_email};
use schema::id::{AccountId, AccountKey, BrandId, UserId};
use schema::pii::Pii;
use schema::time::Timestamp;
use std::collections::BTreeSet;

const PUT_MEMBERSHIP: &str = "insert into memberships (user_id, account_key, role) values ($1, $2, $3) \
     on conflict (user_id, account_key) do update set role = excluded.role";

impl SqlStore {
    pub(crate) async fn brand(&self) -> Result<Option<Brand>, StoreError> {
        let text = "select id, domain, realm from brands order by id limit 1";
        let Some(mut row) = self.db.look_up_one(text, values![]).await? else { return Ok(None) };
        Ok(Some(Brand { id: BrandId(row.id()?), domain: row.text()?, realm: row.text()? }))
    }

    pub(crate) async fn put_brand(&self, brand: &Brand) -> Result<(), StoreError> {
        let text = "insert into brands (id, domain, realm) values ($1, $2, $3) \
                    on conflict (id) do update set domain = excluded.domain, realm = excluded.realm";
        let values = values![brand.id.0, brand.domain.as_str(), brand.realm.as_str()];
        self.db.execute(text, values).await.map(drop)
    }

    pub(crate) async fn create_user(
        &self,
        user: &User,
        memberships: &[(AccountKey, MemberRole)],
        roles: &[OperatorRole],
    ) -> Result<(), StoreError> {
        let subject = Subject::User(user.id);
        self.keys.create(&[subject]).await?;
        let seal = |place, text: &Pii<String>| self.keys.seal_text(subject, Class::Identity, place, text.expose());
        let row = values![
            user.id.0,
            user.brand.0,
            seal("users.email", &user.email)?,
            self.keys.blind_index("users.email", &canonical_email(user.email.expose())),
            seal("users.username", &user.username)?,
            user.password.as_ref().map(|p| seal("users.password", p)).transpose()?,
            user.created_at.0,
        ];
        let mut tx = self.db.write().await?;
        let into = "users (id, brand, email, email_index, username, password, created_at)";
        tx.insert(into, vec![row]).await.map_err(|e| e.named("e-mail address", "brand"))?;
        for (account, role) in memberships {
            let put = tx.execute(PUT_MEMBERSHIP, values![user.id.0, account.0, role.as_str()]).await;
            put.map_err(|e| e.named("membership", "account"))?;
        }
        insert_roles(&mut tx, user.id, roles).await?;
        tx.commit().await
    }

    /// `None` when its key was destroyed.
    async fn read_user(&self, mut row: Row) -> Result<Option<User>, StoreError> {
        let (id, brand) = (UserId(row.id()?), BrandId(row.id()?));
        let subject = Subject::User(id);
        self.keys.load(&[subject]).await?;
        let open = |place, sealed: &[u8]| self.keys.unseal_text(subject, Class::Identity, place, sealed);
        let (email, username) = (open("users.email", &row.bytes()?)?, open("users.username", &row.bytes()?)?);
        let password = row.opt_bytes()?.map(|p| open("users.password", &p)).transpose()?.flatten().map(Pii::new);
        let created_at = Timestamp(row.int()?);
        let (Some(email), Some(username)) = (email, username) else { return Ok(None) };
        Ok(Some(User { id, brand, email: Pii::new(email), username: Pii::new(username), password, created_at }))
    }

    pub(crate) async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        let text = "select id, brand, email, username, password, created_at from users where id = $1";
        match self.db.look_up_one(text, values![id.0]).await? {
            Some(row) => self.read_user(row).await,
            None => Ok(None),
        }
    }

    pub(crate) async fn user_by_email(&self, email: &str) -> Result<Option<User>, StoreError> {
        let index = self.keys.blind_index("users.email", &canonical_email(email));
        let text = "select id, brand, email, username, password, created_at from users where email_index = $1";
        match self.db.look_up_one(text, values![index]).await? {
            Some(row) => self.read_user(row).await,
            None => Ok(None),
        }
    }

    pub(crate) async fn set_password(&self, user: UserId, password: Option<&Pii<String>>) -> Result<(), StoreError> {
        let subject = Subject::User(user);
        self.keys.load(&[subject]).await?;
        if !self.keys.is_loaded(subject) {
            return Err(StoreError::NotFound("user"));
        }
        let sealed = password
            .map(|p| self.keys.seal_text(subject, Class::Identity, "users.password", p.expose()))
            .transpose()?;
        let changed = self.db.execute("update users set password = $1 where id = $2", values![sealed, user.0]).await?;
        if changed == 1 { Ok(()) } else { Err(StoreError::NotFound("user")) }
    }

    pub(crate) async fn memberships(&self, user: UserId) -> Result<Vec<Membership>, StoreError> {
        let text = "select m.account_key, a.id, m.role from memberships m join accounts a on a.key = m.account_key \
                    where m.user_id = $1 order by m.account_key";
        let rows = self.db.look_up(text, values![user.0]).await?;
        rows.into_iter()
            .map(|mut row| {
                let (account, account_id) = (AccountKey(row.int()?), AccountId(row.id()?));
                Ok(Membership { user, account, account_id, role: row.word("memberships", MemberRole::parse)? })
            })
            .collect()
    }

    pub(crate) async fn has_member(&self, account: AccountKey) -> Result<bool, StoreError> {
        let text = "select account_key from memberships where account_key = $1 limit 1";
        Ok(self.db.look_up_one(text, values![account.0]).await?.is_some())
    }

    pub(crate) async fn put_membership(
        &self,
        user: UserId,
        account: AccountKey,
        role: MemberRole,
    ) -> Result<(), StoreError> {
        let put = self.db.execute(PUT_MEMBERSHIP, values![user.0, account.0, role.as_str()]).await;
        put.map(drop).map_err(|e| e.named("membership", "user or account"))
    }

    pub(crate) async fn operator_roles(&self, user: UserId) -> Result<Vec<OperatorRole>, StoreError> {
        let rows = self.db.look_up("select role from operator_roles where user_id = $1", values![user.0]).await?;
        let roles = rows.into_iter().map(|mut row| row.word("operator_roles", OperatorRole::parse));
        Ok(roles.collect::<Result<BTreeSet<_>, _>>()?.into_iter().collect())
    }

    pub(crate) async fn set_operator_roles(
        &self,
        user: UserId,
        roles: &BTreeSet<OperatorRole>,
    ) -> Result<(), StoreError> {
        let mut tx = self.db.write().await?;
        tx.execute("delete from operator_roles where user_id = $1", values![user.0]).await?;
        if tx.fetch_one("select created_at from users where id = $1", values![user.0]).await?.is_none() {
            return Err(StoreError::NotFound("user"));
        }
        insert_roles(&mut tx, user, &roles.iter().copied().collect::<Vec<_>>()).await?;
        tx.commit().await
    }
}

async fn insert_roles(tx: &mut Tx, user: UserId, roles: &[OperatorRole]) -> Result<(), StoreError> {
    let roles: BTreeSet<_> = roles.iter().collect();
    let rows = roles.into_iter().map(|role| values![user.0, role.as_str()]);
    tx.insert("operator_roles (user_id, role)", rows.collect()).await
}
