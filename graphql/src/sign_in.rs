//! Signing in: the same words after the same time whoever is asked for, and few tries.

use crate::app::App;
use crate::error::{ApiError, ErrorCode};
use crate::origin::network;
use crate::throttle::Throttle;
use ring::digest::{SHA256, digest};
use schema::entropy::Entropy;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use storage::User;
use zeroize::Zeroizing;

/// Attempts in 15 minutes for one e-mail address.
const PER_ACCOUNT: usize = 5;
/// Attempts in 15 minutes from one address.
const PER_SOURCE: usize = 20;
/// Longest e-mail address (RFC 5321 §4.5.3.1.3), in bytes.
const EMAIL_BYTES: usize = 254;
/// Longest password looked at, in bytes.
const PASSWORD_BYTES: usize = 512;

/// The address that a request counts for; `None` when the listener did not say.
#[derive(Clone, Copy)]
pub(crate) struct Source(pub(crate) Option<IpAddr>);

/// Who tried how often. Keys are hashed with a secret of this process: nothing personal is held.
pub(crate) struct Attempts {
    secret: [u8; 32],
    tables: Mutex<[Throttle; 2]>,
}

impl Attempts {
    pub(crate) fn new(entropy: &mut Entropy) -> Self {
        Self { secret: entropy.bytes(), tables: Mutex::new([Throttle::new(PER_SOURCE), Throttle::new(PER_ACCOUNT)]) }
    }

    fn key(&self, text: &str) -> [u8; 16] {
        let digest = digest(&SHA256, &[&self.secret[..], text.as_bytes()].concat());
        let mut key = [0; 16];
        key.copy_from_slice(&digest.as_ref()[..16]);
        key
    }

    fn tables(&self) -> std::sync::MutexGuard<'_, [Throttle; 2]> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The user of this e-mail address and password.
///
/// # Errors
/// UNAUTHENTICATED, whatever was wrong; RATE_LIMITED after too many tries or while too many people sign in.
pub(crate) async fn check(
    app: &App,
    source: Source,
    email: &str,
    password: Zeroizing<String>,
) -> Result<User, ApiError> {
    if email.is_empty() || email.len() > EMAIL_BYTES {
        return Err(ApiError::invalid("input.email", "(…)", "must have 1 to 254 bytes"));
    }
    if password.is_empty() || password.len() > PASSWORD_BYTES {
        return Err(ApiError::invalid("input.password", "(…)", "must have 1 to 512 bytes"));
    }
    let now = (app.clock)().mono;
    let keys = [
        app.attempts.key(&source.0.map(network).map(|address| address.to_string()).unwrap_or_default()),
        app.attempts.key(&email.trim().to_lowercase()),
    ];
    for (table, key) in app.attempts.tables().iter_mut().zip(keys) {
        table.attempt(key, now).map_err(|seconds| {
            count("rate_limited");
            ApiError::new(ErrorCode::RateLimited, format!("too many attempts: try again in {seconds} s"))
        })?;
    }
    let user = app.store.user_by_email(email).await?;
    let hash = user.as_ref().and_then(|user| user.password.clone());
    let fits = app.verifier.verify(password, hash).await.map_err(|_| {
        count("busy");
        ApiError::new(ErrorCode::RateLimited, "too many people sign in at the moment: try again in a few seconds")
    })?;
    let Some(user) = user.filter(|_| fits) else {
        count("refused");
        return Err(ApiError::new(ErrorCode::Unauthenticated, "e-mail address or password is wrong"));
    };
    for (table, key) in app.attempts.tables().iter_mut().zip(keys) {
        table.forgive(key, now);
    }
    count("ok");
    Ok(user)
}

fn count(outcome: &'static str) {
    metrics::counter!("ringfence_sign_ins_total", "outcome" => outcome).increment(1);
}
