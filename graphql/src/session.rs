//! Who is signed in: web sessions (an opaque cookie) and device tokens (a bearer). Only the SHA-256 of a token is kept. What
//! is revoked here closes its sockets at once.

use crate::error::{ApiError, ErrorCode};
use crate::policy::{Access, Means, Viewer};
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use schema::entropy::Entropy;
use schema::id::{DeviceTokenId, SessionId, UserId};
use schema::pii::Pii;
use schema::time::{Clock, Timestamp};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use storage::{DeviceToken, Session, Store, TokenHash, TokenScope};
use tokio::sync::watch;
use zeroize::Zeroizing;

/// A session ends after this long without a request.
pub(crate) const IDLE: Duration = Duration::from_secs(30 * 60);
/// A session ends after this long in any case.
pub(crate) const ABSOLUTE: Duration = Duration::from_secs(12 * 60 * 60);
/// How often the use of a session or token is noted in the store at most.
const TOUCH: Duration = Duration::from_secs(60);
/// Sockets of one session or device token.
pub(crate) const SOCKETS: usize = 5;
/// Sessions of one user; a further sign-in ends the oldest.
const SESSIONS: usize = 20;
/// Device tokens of one user.
const DEVICE_TOKENS: usize = 50;
/// Longest cookie or bearer looked at.
const TOKEN_BYTES: usize = 128;

/// A token as it came with a request.
#[derive(Clone)]
pub(crate) enum Credential {
    /// From the session cookie.
    Cookie(Zeroizing<String>),
    /// From `Authorization: Bearer`.
    Bearer(Zeroizing<String>),
}

/// Reads, makes and ends sessions and device tokens.
pub(crate) struct Sessions {
    store: Store,
    clock: Clock,
    entropy: Mutex<Entropy>,
    /// Browsers keep `Secure` cookies of our address.
    secure_cookies: bool,
    /// Of every session and token that has sockets; removed with the last of them.
    lives: Mutex<BTreeMap<Means, Arc<Life>>>,
}

/// What the sockets of one session or token share.
struct Life {
    ended: watch::Sender<bool>,
    /// Wall-clock microseconds of the last request.
    last_seen: AtomicI64,
}

impl Sessions {
    pub(crate) fn new(store: Store, clock: Clock, entropy: Entropy, secure_cookies: bool) -> Self {
        Self { store, clock, entropy: Mutex::new(entropy), secure_cookies, lives: Mutex::default() }
    }

    const fn cookie_name(&self) -> &'static str {
        if self.secure_cookies { "__Host-sid" } else { "sid" }
    }

    /// The credential of a request: a bearer, if there is one, else the cookie.
    pub(crate) fn credential(&self, headers: &HeaderMap) -> Option<Credential> {
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            return Some(bearer(value.to_str().unwrap_or("")));
        }
        let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let (_, token) = pairs.find(|(name, _)| *name == self.cookie_name())?;
        Some(Credential::Cookie(Zeroizing::new(token.to_owned())))
    }

    /// Who has this credential. An unknown or expired cookie is nobody's: a browser sends it without being asked.
    ///
    /// # Errors
    /// UNAUTHENTICATED for a bearer that is not known; UNAVAILABLE when the store failed.
    pub(crate) async fn access(&self, credential: Option<&Credential>) -> Result<Access, ApiError> {
        let viewer = match credential {
            None => None,
            Some(Credential::Cookie(token)) => self.session(&hash(token)).await?,
            Some(Credential::Bearer(token)) => {
                let found = self.device(&hash(token)).await?;
                Some(found.ok_or_else(|| ApiError::new(ErrorCode::Unauthenticated, "unknown or revoked token"))?)
            }
        };
        Ok(Access(viewer))
    }

    async fn session(&self, token: &TokenHash) -> Result<Option<Viewer>, ApiError> {
        let now = (self.clock)().wall;
        let Some(session) = self.store.session(token).await?.filter(|s| is_current(s, now)) else { return Ok(None) };
        if now.since(session.last_used_at) >= TOUCH {
            self.store.touch_session(session.id, now).await?;
        }
        let viewer = self.viewer(session.user, Means::Session(session.id), TokenScope::ALL.to_vec()).await?;
        self.seen(viewer.means, now);
        Ok(Some(viewer))
    }

    async fn device(&self, token: &TokenHash) -> Result<Option<Viewer>, ApiError> {
        let now = (self.clock)().wall;
        let Some(device) = self.store.device_token(token).await? else { return Ok(None) };
        if device.last_used_at.is_none_or(|at| now.since(at) >= TOUCH) {
            self.store.touch_device_token(device.id, now).await?;
        }
        self.viewer(device.user, Means::Device(device.id), device.scopes).await.map(Some)
    }

    /// Somebody who is signed in by `means`.
    pub(crate) async fn viewer(&self, user: UserId, means: Means, scopes: Vec<TokenScope>) -> Result<Viewer, ApiError> {
        let accounts = self.store.memberships(user).await?.iter().map(|m| m.account).collect();
        let roles = self.store.operator_roles(user).await?;
        Ok(Viewer { user, means, scopes, accounts, roles })
    }

    fn seen(&self, means: Means, now: Timestamp) {
        if let Some(life) = self.lives().get(&means) {
            life.last_seen.fetch_max(now.0, Ordering::Relaxed);
        }
    }

    /// Begins a session. Returns it with the `Set-Cookie` line that carries its token.
    pub(crate) async fn begin(&self, user: UserId) -> Result<(Viewer, String), ApiError> {
        let now = (self.clock)().wall;
        let (id, token) = self.draw(|entropy| (SessionId::generate(entropy, now), token(entropy)));
        let token_sha256 = hash(&token);
        let session =
            Session { id, user, token_sha256, created_at: now, last_used_at: now, expires_at: now + ABSOLUTE };
        self.store.purge_sessions(now).await?;
        let others = self.store.sessions(user).await?;
        for oldest in others.iter().take((others.len() + 1).saturating_sub(SESSIONS)) {
            self.end(user, Means::Session(oldest.id)).await?;
        }
        self.store.create_session(&session).await?;
        let viewer = self.viewer(user, Means::Session(id), TokenScope::ALL.to_vec()).await?;
        Ok((viewer, self.cookie(&token, "")))
    }

    /// Makes a device token. Returns it with the secret, which is shown once.
    ///
    /// # Errors
    /// CONFLICT when the user has too many.
    pub(crate) async fn create_device_token(
        &self,
        user: UserId,
        label: String,
        scopes: Vec<TokenScope>,
    ) -> Result<(DeviceToken, Zeroizing<String>), ApiError> {
        if self.store.device_tokens(user).await?.len() >= DEVICE_TOKENS {
            let message = format!("at most {DEVICE_TOKENS} device tokens: revoke one first");
            return Err(ApiError::new(ErrorCode::Conflict, message));
        }
        let now = (self.clock)().wall;
        let (id, secret) = self.draw(|entropy| {
            let secret = Zeroizing::new(format!("rf_{}", *token(entropy)));
            (DeviceTokenId::generate(entropy, now), secret)
        });
        let device = DeviceToken {
            id,
            user,
            label: Pii::new(label),
            scopes,
            token_sha256: hash(&secret),
            created_at: now,
            last_used_at: None,
        };
        self.store.create_device_token(&device).await?;
        Ok((device, secret))
    }

    /// Ends a session or device token of a user and closes its sockets. True when it was there.
    pub(crate) async fn end(&self, user: UserId, means: Means) -> Result<bool, ApiError> {
        let was_there = match means {
            Means::Session(id) => self.store.revoke_session(id).await?,
            Means::Device(id) => self.store.revoke_device_token(user, id).await?,
        };
        if was_there && let Some(life) = self.lives().get(&means) {
            life.ended.send_replace(true);
        }
        Ok(was_there)
    }

    /// The `Set-Cookie` line that removes the cookie.
    pub(crate) fn removal(&self) -> String {
        self.cookie("", "; Max-Age=0")
    }

    /// Without `Max-Age`: it ends with the browser, as the privacy policy promises.
    fn cookie(&self, token: &str, more: &str) -> String {
        let secure = if self.secure_cookies { "; Secure" } else { "" };
        format!("{}={token}; Path=/{secure}; HttpOnly; SameSite=Strict{more}", self.cookie_name())
    }

    /// Counts a socket in, until the ticket is dropped.
    ///
    /// # Errors
    /// RATE_LIMITED when the session or token has too many; UNAUTHENTICATED when it is gone meanwhile; UNAVAILABLE when the
    /// store failed.
    pub(crate) async fn admit_socket(
        self: &Arc<Self>,
        viewer: &Viewer,
        credential: Credential,
    ) -> Result<Ticket, ApiError> {
        let mut ticket = self.ticket(viewer, credential)?;
        // Asked only now: `end` deletes first and tells the sockets then, so it finds this one, or this finds nothing.
        match &ticket.credential {
            Credential::Cookie(token) => {
                let now = (self.clock)().wall;
                let session = self.store.session(&hash(token)).await?.filter(|session| is_current(session, now));
                ticket.expires_at = Some(session.ok_or_else(gone)?.expires_at);
            }
            Credential::Bearer(token) => {
                self.store.device_token(&hash(token)).await?.ok_or_else(gone)?;
            }
        }
        Ok(ticket)
    }

    fn ticket(self: &Arc<Self>, viewer: &Viewer, credential: Credential) -> Result<Ticket, ApiError> {
        let now = (self.clock)().wall;
        let mut lives = self.lives();
        let life = lives
            .entry(viewer.means)
            .or_insert_with(|| Arc::new(Life { ended: watch::Sender::new(false), last_seen: AtomicI64::new(now.0) }));
        if life.ended.receiver_count() >= SOCKETS {
            return Err(ApiError::new(ErrorCode::RateLimited, format!("at most {SOCKETS} sockets of one session")));
        }
        let (ended, life) = (life.ended.subscribe(), life.clone());
        drop(lives);
        Ok(Ticket { sessions: self.clone(), viewer: viewer.clone(), credential, life, expires_at: None, ended })
    }

    fn draw<T>(&self, from: impl FnOnce(&mut Entropy) -> T) -> T {
        from(&mut self.entropy.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn lives(&self) -> std::sync::MutexGuard<'_, BTreeMap<Means, Arc<Life>>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket's part in its session.
pub(crate) struct Ticket {
    sessions: Arc<Sessions>,
    viewer: Viewer,
    credential: Credential,
    life: Arc<Life>,
    /// Of a session.
    expires_at: Option<Timestamp>,
    ended: watch::Receiver<bool>,
}

impl Ticket {
    /// Returns when the session or token was revoked.
    pub(crate) async fn revoked(&mut self) {
        // The sender lives in `life`, so waiting cannot fail.
        let _ = self.ended.wait_for(|ended| *ended).await;
    }

    /// Whether the session lasts, as far as this process knows. Cheap: asked before each event.
    pub(crate) fn is_current(&self) -> bool {
        let now = (self.sessions.clock)().wall;
        let idle = now.since(Timestamp(self.life.last_seen.load(Ordering::Relaxed)));
        let is_session = matches!(self.viewer.means, Means::Session(_));
        !*self.ended.borrow() && self.expires_at.is_none_or(|end| now < end) && !(is_session && idle >= IDLE)
    }

    /// Whether the store still says the same about this socket's session and its user's rights.
    pub(crate) async fn is_confirmed(&self) -> bool {
        let store = &self.sessions.store;
        let lasts = match &self.credential {
            Credential::Cookie(token) => store.session(&hash(token)).await.map(|found| found.is_some()),
            Credential::Bearer(token) => store.device_token(&hash(token)).await.map(|found| found.is_some()),
        };
        let accounts =
            store.memberships(self.viewer.user).await.map(|all| all.iter().map(|m| m.account).collect::<Vec<_>>());
        let roles = store.operator_roles(self.viewer.user).await;
        // A store that fails now does not close everybody's sockets: the next confirmation decides.
        lasts.unwrap_or(true)
            && accounts.map_or(true, |accounts| accounts == self.viewer.accounts)
            && roles.map_or(true, |roles| roles == self.viewer.roles)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut lives = self.sessions.lives();
        // This socket's own receiver still counts.
        if self.life.ended.receiver_count() <= 1
            && lives.get(&self.viewer.means).is_some_and(|l| Arc::ptr_eq(l, &self.life))
        {
            lives.remove(&self.viewer.means);
        }
    }
}

/// The token of an `Authorization` value; one that fits nothing when the scheme is another.
pub(crate) fn bearer(value: &str) -> Credential {
    let token =
        value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map_or("", |(_, t)| t.trim());
    Credential::Bearer(Zeroizing::new(token.to_owned()))
}

fn is_current(session: &Session, now: Timestamp) -> bool {
    now < session.expires_at && now.since(session.last_used_at) < IDLE
}

fn gone() -> ApiError {
    ApiError::new(ErrorCode::Unauthenticated, "the session or token has ended")
}

/// 256 random bits.
fn token(entropy: &mut Entropy) -> Zeroizing<String> {
    Zeroizing::new(URL_SAFE_NO_PAD.encode(entropy.bytes::<32>()))
}

fn hash(token: &str) -> TokenHash {
    let mut out = [0; 32];
    let known_length = if token.len() <= TOKEN_BYTES { token } else { "" };
    out.copy_from_slice(digest(&SHA256, known_length.as_bytes()).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bearer_is_a_bearer() {
        for (value, token) in
            [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", ""), ("Bearer", ""), ("", "")]
        {
            let Credential::Bearer(found) = bearer(value) else { panic!("a bearer") };
            assert_eq!(*found, token, "{value}");
        }
    }

    #[test]
    fn tokens_have_256_bits() {
        let mut entropy = Entropy::from_number(1);
        assert_eq!(token(&mut entropy).len(), 43);
        assert_ne!(token(&mut entropy), token(&mut entropy));
    }

    /// Sessions of a store on SQLite with one user, and the ways in which that user is signed in.
    async fn signed_in(folder: &std::path::Path) -> (Arc<Sessions>, UserId, [(Viewer, Credential); 2]) {
        use storage::{Brand, DatabaseUrl, Keyring, MasterKey, User};
        let master = MasterKey::create(&folder.join("master.key")).expect("made");
        let keys = Keyring::open(&DatabaseUrl::sqlite(folder.join("keys.db")), &master).await.expect("opened");
        let store = Store::open(&DatabaseUrl::sqlite(folder.join("data.db")), keys).await.expect("opened");
        let (mut entropy, now) = (Entropy::from_number(1), Timestamp(1_790_000_000_000_000));
        let (id, domain) = (schema::id::BrandId::generate(&mut entropy, now), String::from("localhost"));
        let brand = Brand { id, realm: domain.clone(), domain };
        store.put_brand(&brand).await.expect("stored");
        let (user, name) = (UserId::generate(&mut entropy, now), Pii::new(String::from("somebody")));
        let row = User { id: user, brand: id, email: name.clone(), username: name, password: None, created_at: now };
        store.create_user(&row, &[], &[]).await.expect("created");
        let clock: Clock = Arc::new(move || schema::time::Now { mono: schema::time::Mono(0), wall: now });
        let sessions = Arc::new(Sessions::new(store, clock, entropy, false));
        let (web, line) = sessions.begin(user).await.expect("begun");
        let cookie = line.split(';').next().and_then(|pair| pair.strip_prefix("sid=")).expect("a cookie").to_owned();
        let (device, secret) =
            sessions.create_device_token(user, String::new(), TokenScope::ALL.to_vec()).await.expect("made");
        let app = sessions.viewer(user, Means::Device(device.id), TokenScope::ALL.to_vec()).await.expect("known");
        let ways = [(web, Credential::Cookie(Zeroizing::new(cookie))), (app, Credential::Bearer(secret))];
        (sessions, user, ways)
    }

    #[tokio::test]
    async fn what_ended_before_its_socket_opens_gets_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let (sessions, user, ways) = signed_in(folder.path()).await;
        for (viewer, credential) in ways {
            let ticket = sessions.admit_socket(&viewer, credential.clone()).await.expect("a socket");
            assert!(ticket.is_current());
            drop(ticket);
            assert!(sessions.end(user, viewer.means).await.expect("ended"));
            let refused = sessions.admit_socket(&viewer, credential).await.err().expect("refused");
            assert_eq!(refused.code, ErrorCode::Unauthenticated);
            assert!(sessions.lives().is_empty());
        }
    }

    #[tokio::test]
    async fn what_ends_while_its_socket_opens_is_refused_or_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let (sessions, user, ways) = signed_in(folder.path()).await;
        for (viewer, credential) in ways {
            let mut opening = Box::pin(sessions.admit_socket(&viewer, credential.clone()));
            // Until the store is still being asked: now and then it has answered at once.
            for _ in 0..1_000 {
                if futures_util::poll!(&mut opening).is_pending() {
                    break;
                }
                opening = Box::pin(sessions.admit_socket(&viewer, credential.clone()));
            }
            assert!(sessions.end(user, viewer.means).await.expect("ended"));
            // What the store said may be from before the end.
            assert!(opening.await.map_or(true, |ticket| !ticket.is_current()));
        }
    }

    #[test]
    fn a_session_ends_by_idleness_and_by_age() {
        let start = Timestamp(1_000_000);
        let session = |last_used_at| Session {
            id: SessionId::generate(&mut Entropy::from_number(1), start),
            user: UserId(uuid::Uuid::nil()),
            token_sha256: [0; 32],
            created_at: start,
            last_used_at,
            expires_at: start + ABSOLUTE,
        };
        assert!(is_current(&session(start), start + IDLE - Duration::from_secs(1)));
        assert!(!is_current(&session(start), start + IDLE));
        assert!(!is_current(&session(start + ABSOLUTE), start + ABSOLUTE));
    }
}
