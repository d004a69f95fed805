//! People who sign in: users, their memberships in accounts and their roles as operator staff; and the brand they see.

use crate::error::StoreError;
use crate::store::{Backend, Store};
use schema::id::{AccountId, AccountKey, BrandId, UserId};
use schema::pii::Pii;
use schema::time::Timestamp;
use std::collections::BTreeSet;

/// The name under which the service is sold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brand {
    /// Identity.
    pub id: BrandId,
    /// Its SIP domain.
    pub domain: String,
    /// The digest realm; HA1s are bound to it.
    pub realm: String,
}

/// A person who signs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Identity.
    pub id: UserId,
    /// Where the person signed up.
    pub brand: BrandId,
    /// Signs in with it; unique without regard to case.
    pub email: Pii<String>,
    /// Shown to its owner.
    pub username: Pii<String>,
    /// Argon2id in PHC form; `None` until one is set.
    pub password: Option<Pii<String>>,
    /// When.
    pub created_at: Timestamp,
}

/// What a user may do in an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberRole {
    /// Everything.
    Owner,
    /// Place calls and see.
    Member,
}

/// A user's part in an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// Whose.
    pub user: UserId,
    /// In which account.
    pub account: AccountKey,
    /// The account's public identity.
    pub account_id: AccountId,
    /// As what.
    pub role: MemberRole,
}

/// What operator staff may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the role of that name")]
pub enum OperatorRole {
    Admin,
    Support,
    Finance,
    Compliance,
}

impl MemberRole {
    /// The stored word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "OWNER",
            Self::Member => "MEMBER",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Owner, Self::Member].into_iter().find(|r| r.as_str() == text)
    }
}

impl OperatorRole {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Admin, Self::Support, Self::Finance, Self::Compliance];

    /// The stored word, as in a world file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Support => "support",
            Self::Finance => "finance",
            Self::Compliance => "compliance",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == text)
    }
}

/// The form of an e-mail address by which it is found: without surrounding space, in lower case.
#[must_use]
pub fn canonical_email(email: &str) -> String {
    email.trim().to_lowercase()
}

impl Store {
    /// The brand; `None` before the first start stored one.
    ///
    /// # Errors
    /// The store failed.
    pub async fn brand(&self) -> Result<Option<Brand>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.brand().await,
            Backend::Memory(disk) => disk.read(|t| t.brand.clone()),
        }
    }

    /// Stores or changes the brand.
    ///
    /// # Errors
    /// The store failed.
    pub async fn put_brand(&self, brand: &Brand) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.put_brand(brand).await,
            Backend::Memory(disk) => disk.write(|t| {
                t.brand = Some(brand.clone());
                Ok(())
            }),
        }
    }

    /// Adds a user with memberships and operator roles, all or nothing.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when the e-mail address is in use, [`StoreError::NotFound`] for an account that does not exist;
    /// or the store failed.
    pub async fn create_user(
        &self,
        user: &User,
        memberships: &[(AccountKey, MemberRole)],
        roles: &[OperatorRole],
    ) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.create_user(user, memberships, roles).await,
            Backend::Memory(disk) => disk.write(|t| t.create_user(user, memberships, roles)),
        }
    }

    /// A user by identity.
    ///
    /// # Errors
    /// The store failed.
    pub async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.user(id).await,
            Backend::Memory(disk) => disk.read(|t| t.users.get(&id).cloned()),
        }
    }

    /// A user by e-mail address, without regard to case.
    ///
    /// # Errors
    /// The store failed.
    pub async fn user_by_email(&self, email: &str) -> Result<Option<User>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.user_by_email(email).await,
            Backend::Memory(disk) => disk.read(|t| t.users.get(t.emails.get(&canonical_email(email))?).cloned()),
        }
    }

    /// Sets or removes a user's password hash.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or the store failed.
    pub async fn set_password(&self, user: UserId, password: Option<Pii<String>>) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.set_password(user, password.as_ref()).await,
            Backend::Memory(disk) => disk.write(|t| {
                t.users.get_mut(&user).ok_or(StoreError::NotFound("user"))?.password = password;
                Ok(())
            }),
        }
    }

    /// The accounts a user belongs to, oldest account first.
    ///
    /// # Errors
    /// The store failed.
    pub async fn memberships(&self, user: UserId) -> Result<Vec<Membership>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.memberships(user).await,
            Backend::Memory(disk) => disk.read(|t| {
                let mine = t.memberships.range((user, AccountKey(i64::MIN))..=(user, AccountKey(i64::MAX)));
                mine.filter_map(|(&(user, account), &role)| {
                    Some(Membership { user, account, account_id: t.accounts.get(&account)?.profile.id, role })
                })
                .collect()
            }),
        }
    }

    /// Whether anybody belongs to an account.
    ///
    /// # Errors
    /// The store failed.
    pub async fn has_member(&self, account: AccountKey) -> Result<bool, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.has_member(account).await,
            Backend::Memory(disk) => disk.read(|t| t.memberships.keys().any(|(_, of)| *of == account)),
        }
    }

    /// Gives a user a part in an account, or another role there.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when either does not exist; or the store failed.
    pub async fn put_membership(&self, user: UserId, account: AccountKey, role: MemberRole) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.put_membership(user, account, role).await,
            Backend::Memory(disk) => disk.write(|t| t.put_membership(user, account, role)),
        }
    }

    /// What the user may do as operator staff; none for customers.
    ///
    /// # Errors
    /// The store failed.
    pub async fn operator_roles(&self, user: UserId) -> Result<Vec<OperatorRole>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.operator_roles(user).await,
            Backend::Memory(disk) => disk
                .read(|t| t.operator_roles.get(&user).map(|roles| roles.iter().copied().collect()).unwrap_or_default()),
        }
    }

    /// Replaces what the user may do as operator staff.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or the store failed.
    pub async fn set_operator_roles(&self, user: UserId, roles: &[OperatorRole]) -> Result<(), StoreError> {
        let roles: BTreeSet<_> = roles.iter().copied().collect();
        match &self.backend {
            Backend::Sql(sql) => sql.set_operator_roles(user, &roles).await,
            Backend::Memory(disk) => disk.write(|t| {
                if !t.users.contains_key(&user) {
                    return Err(StoreError::NotFound("user"));
                }
                t.operator_roles.insert(user, roles);
                Ok(())
            }),
        }
    }
}
