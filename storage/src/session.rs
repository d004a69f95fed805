//! Web sessions and device tokens. Only the SHA-256 of a token is kept; a revoked one is removed.

use crate::error::StoreError;
use crate::store::{Backend, Store};
use schema::id::{DeviceTokenId, SessionId, UserId};
use schema::pii::Pii;
use schema::time::Timestamp;

/// SHA-256 of a token.
pub type TokenHash = [u8; 32];

/// A web session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Identity.
    pub id: SessionId,
    /// Whose.
    pub user: UserId,
    /// Of its token.
    pub token_sha256: TokenHash,
    /// When it began.
    pub created_at: Timestamp,
    /// When it was last seen.
    pub last_used_at: Timestamp,
    /// When it ends at the latest.
    pub expires_at: Timestamp,
}

/// What a device token may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the scopes of contract.graphql")]
pub enum TokenScope {
    Read,
    Call,
    Manage,
}

/// A token of a mobile app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceToken {
    /// Identity.
    pub id: DeviceTokenId,
    /// Whose.
    pub user: UserId,
    /// The owner's name for it.
    pub label: Pii<String>,
    /// What it may be used for.
    pub scopes: Vec<TokenScope>,
    /// Of its token.
    pub token_sha256: TokenHash,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used.
    pub last_used_at: Option<Timestamp>,
}

impl TokenScope {
    /// All of them; a stored set is a sum of `1 << position`.
    pub const ALL: [Self; 3] = [Self::Read, Self::Call, Self::Manage];
}

impl Store {
    /// Stores a session.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without its user; or the store failed.
    pub async fn create_session(&self, session: &Session) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.create_session(session).await,
            Backend::Memory(disk) => disk.write(|t| {
                t.known_user(session.user)?;
                t.sessions.insert(session.token_sha256, *session);
                Ok(())
            }),
        }
    }

    /// The session of a token; also one that has expired: whoever asks compares `expires_at` with its clock.
    ///
    /// # Errors
    /// The store failed.
    pub async fn session(&self, token_sha256: &TokenHash) -> Result<Option<Session>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.session(token_sha256).await,
            Backend::Memory(disk) => disk.read(|t| t.sessions.get(token_sha256).copied()),
        }
    }

    /// Notes that a session was seen.
    ///
    /// # Errors
    /// The store failed.
    pub async fn touch_session(&self, id: SessionId, at: Timestamp) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.touch_session(id, at).await,
            Backend::Memory(disk) => disk.write(|t| {
                t.sessions.values_mut().filter(|s| s.id == id).for_each(|s| s.last_used_at = at);
                Ok(())
            }),
        }
    }

    /// Ends a session. True when it was there.
    ///
    /// # Errors
    /// The store failed.
    pub async fn revoke_session(&self, id: SessionId) -> Result<bool, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.revoke_session(id).await,
            Backend::Memory(disk) => disk.write(|t| {
                let before = t.sessions.len();
                t.sessions.retain(|_, s| s.id != id);
                Ok(t.sessions.len() < before)
            }),
        }
    }

    /// A user's sessions, oldest first.
    ///
    /// # Errors
    /// The store failed.
    pub async fn sessions(&self, user: UserId) -> Result<Vec<Session>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.sessions(user).await,
            Backend::Memory(disk) => disk.read(|t| {
                let mut found: Vec<_> = t.sessions.values().filter(|s| s.user == user).copied().collect();
                found.sort_by_key(|s| (s.created_at, s.id));
                found
            }),
        }
    }

    /// Removes sessions that ended before `at`. Returns how many.
    ///
    /// # Errors
    /// The store failed.
    pub async fn purge_sessions(&self, at: Timestamp) -> Result<u64, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.purge_sessions(at).await,
            Backend::Memory(disk) => disk.write(|t| {
                let before = t.sessions.len();
                t.sessions.retain(|_, s| s.expires_at >= at);
                Ok((before - t.sessions.len()) as u64)
            }),
        }
    }

    /// Stores a device token.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without its user; or the store failed.
    pub async fn create_device_token(&self, token: &DeviceToken) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.create_device_token(token).await,
            Backend::Memory(disk) => disk.write(|t| {
                t.known_user(token.user)?;
                t.device_tokens.insert(token.token_sha256, token.clone());
                Ok(())
            }),
        }
    }

    /// The device token of a secret.
    ///
    /// # Errors
    /// The store failed.
    pub async fn device_token(&self, token_sha256: &TokenHash) -> Result<Option<DeviceToken>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.device_token(token_sha256).await,
            Backend::Memory(disk) => disk.read(|t| t.device_tokens.get(token_sha256).cloned()),
        }
    }

    /// Notes that a device token was used.
    ///
    /// # Errors
    /// The store failed.
    pub async fn touch_device_token(&self, id: DeviceTokenId, at: Timestamp) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.touch_device_token(id, at).await,
            Backend::Memory(disk) => disk.write(|t| {
                t.device_tokens.values_mut().filter(|d| d.id == id).for_each(|d| d.last_used_at = Some(at));
                Ok(())
            }),
        }
    }

    /// Removes a device token of a user. True when it was there.
    ///
    /// # Errors
    /// The store failed.
    pub async fn revoke_device_token(&self, user: UserId, id: DeviceTokenId) -> Result<bool, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.revoke_device_token(user, id).await,
            Backend::Memory(disk) => disk.write(|t| {
                let before = t.device_tokens.len();
                t.device_tokens.retain(|_, d| !(d.id == id && d.user == user));
                Ok(t.device_tokens.len() < before)
            }),
        }
    }

    /// A user's device tokens, oldest first.
    ///
    /// # Errors
    /// The store failed.
    pub async fn device_tokens(&self, user: UserId) -> Result<Vec<DeviceToken>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.device_tokens(user).await,
            Backend::Memory(disk) => disk.read(|t| {
                let mut found: Vec<_> = t.device_tokens.values().filter(|d| d.user == user).cloned().collect();
                found.sort_by_key(|d| (d.created_at, d.id));
                found
            }),
        }
    }
}
