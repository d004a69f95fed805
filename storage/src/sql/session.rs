//! Sessions and device tokens in SQL.

use super::{Row, SqlStore, values};
use crate::error::StoreError;
use crate::keyring::{Class, Subject};
use crate::session::{DeviceToken, Session, TokenHash, TokenScope};
use schema::id::{DeviceTokenId, SessionId, UserId};
use schema::pii::Pii;
use schema::time::Timestamp;

fn hash(bytes: &[u8]) -> Result<TokenHash, StoreError> {
    TokenHash::try_from(bytes).map_err(|_| StoreError::unreadable("sessions", "a hash of another length"))
}

fn read_session(mut row: Row) -> Result<Session, StoreError> {
    Ok(Session {
        token_sha256: hash(&row.bytes()?)?,
        id: SessionId(row.id()?),
        user: UserId(row.id()?),
        created_at: Timestamp(row.int()?),
        last_used_at: Timestamp(row.int()?),
        expires_at: Timestamp(row.int()?),
    })
}

fn scope_bits(scopes: &[TokenScope]) -> i64 {
    let has = |scope: &TokenScope| scopes.contains(scope);
    TokenScope::ALL.iter().enumerate().filter(|(_, scope)| has(scope)).map(|(bit, _)| 1 << bit).sum()
}

impl SqlStore {
    pub(crate) async fn create_session(&self, session: &Session) -> Result<(), StoreError> {
        let text = "insert into sessions (token_sha256, id, user_id, created_at, last_used_at, expires_at) \
                    values ($1, $2, $3, $4, $5, $6)";
        let s = session;
        let values = values![s.token_sha256, s.id.0, s.user.0, s.created_at.0, s.last_used_at.0, s.expires_at.0];
        self.db.execute(text, values).await.map(drop).map_err(|e| e.named("session", "user"))
    }

    pub(crate) async fn session(&self, token_sha256: &TokenHash) -> Result<Option<Session>, StoreError> {
        let text = "select token_sha256, id, user_id, created_at, last_used_at, expires_at from sessions where token_sha256 = $1";
        self.db.look_up_one(text, values![*token_sha256]).await?.map(read_session).transpose()
    }

    pub(crate) async fn touch_session(&self, id: SessionId, at: Timestamp) -> Result<(), StoreError> {
        self.db.execute("update sessions set last_used_at = $1 where id = $2", values![at.0, id.0]).await.map(drop)
    }

    pub(crate) async fn revoke_session(&self, id: SessionId) -> Result<bool, StoreError> {
        Ok(self.db.execute("delete from sessions where id = $1", values![id.0]).await? > 0)
    }

    pub(crate) async fn sessions(&self, user: UserId) -> Result<Vec<Session>, StoreError> {
        let text = "select token_sha256, id, user_id, created_at, last_used_at, expires_at from sessions where user_id = $1 \
                    order by created_at, id";
        self.db.look_up(text, values![user.0]).await?.into_iter().map(read_session).collect()
    }

    pub(crate) async fn purge_sessions(&self, at: Timestamp) -> Result<u64, StoreError> {
        self.db.execute("delete from sessions where expires_at < $1", values![at.0]).await
    }

    pub(crate) async fn create_device_token(&self, token: &DeviceToken) -> Result<(), StoreError> {
        let subject = Subject::User(token.user);
        self.keys.load(&[subject]).await?;
        if !self.keys.is_loaded(subject) {
            return Err(StoreError::NotFound("user"));
        }
        let label = self.keys.seal_text(subject, Class::Identity, "device_tokens.label", token.label.expose())?;
        let text = "insert into device_tokens (token_sha256, id, user_id, label, scopes, created_at, last_used_at) \
                    values ($1, $2, $3, $4, $5, $6, $7)";
        let values = values![
            token.token_sha256,
            token.id.0,
            token.user.0,
            label,
            scope_bits(&token.scopes),
            token.created_at.0,
            token.last_used_at.map(|t| t.0),
        ];
        self.db.execute(text, values).await.map(drop).map_err(|e| e.named("device token", "user"))
    }

    /// `None` when its key was destroyed.
    async fn read_device_token(&self, mut row: Row) -> Result<Option<DeviceToken>, StoreError> {
        let (token_sha256, id, user) = (hash(&row.bytes()?)?, DeviceTokenId(row.id()?), UserId(row.id()?));
        let subject = Subject::User(user);
        self.keys.load(&[subject]).await?;
        let label = self.keys.unseal_text(subject, Class::Identity, "device_tokens.label", &row.bytes()?)?;
        let bits = row.int()?;
        let scopes =
            (0..).zip(TokenScope::ALL).filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, scope)| scope).collect();
        let (created_at, last_used_at) = (Timestamp(row.int()?), row.opt_int()?.map(Timestamp));
        let Some(label) = label.map(Pii::new) else { return Ok(None) };
        Ok(Some(DeviceToken { id, user, label, scopes, token_sha256, created_at, last_used_at }))
    }

    pub(crate) async fn device_token(&self, token_sha256: &TokenHash) -> Result<Option<DeviceToken>, StoreError> {
        let text = "select token_sha256, id, user_id, label, scopes, created_at, last_used_at from device_tokens \
                    where token_sha256 = $1";
        match self.db.look_up_one(text, values![*token_sha256]).await? {
            Some(row) => self.read_device_token(row).await,
            None => Ok(None),
        }
    }

    pub(crate) async fn touch_device_token(&self, id: DeviceTokenId, at: Timestamp) -> Result<(), StoreError> {
        self.db.execute("update device_tokens set last_used_at = $1 where id = $2", values![at.0, id.0]).await.map(drop)
    }

    pub(crate) async fn revoke_device_token(&self, user: UserId, id: DeviceTokenId) -> Result<bool, StoreError> {
        let text = "delete from device_tokens where id = $1 and user_id = $2";
        Ok(self.db.execute(text, values![id.0, user.0]).await? > 0)
    }

    pub(crate) async fn device_tokens(&self, user: UserId) -> Result<Vec<DeviceToken>, StoreError> {
        let text = "select token_sha256, id, user_id, label, scopes, created_at, last_used_at from device_tokens \
                    where user_id = $1 order by created_at, id";
        let mut tokens = Vec::new();
        for row in self.db.look_up(text, values![user.0]).await? {
            tokens.extend(self.read_device_token(row).await?);
        }
        Ok(tokens)
    }
}
