//! Passwords: Argon2id (RFC 9106) in PHC form, worked out off the async threads by at most two at a time, so that a flood of
//! sign-ins costs a bounded amount of memory and time.

use argon2::password_hash::PasswordHasher;
use argon2::{Algorithm, Argon2, Params, PasswordHash, PasswordVerifier, Version};
use schema::pii::Pii;
use std::sync::{Arc, LazyLock};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// Shortest password, in characters.
pub const MIN_CHARACTERS: usize = 8;
/// Longest password, in characters.
pub const MAX_CHARACTERS: usize = 128;
/// Memory of one computation: 19 MiB (OWASP's floor), in KiB.
const MEMORY_KIB: u32 = 19_456;
/// Passes over the memory.
const PASSES: u32 = 2;
/// Computations at the same time.
const CONCURRENT: usize = 2;
/// Computations that may wait for their turn.
const WAITING: usize = 32;

/// Why a password cannot be hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Fewer than 8 or more than 128 characters.
    #[error("a password has 8 to 128 characters")]
    Length,
    /// The computation failed (no memory).
    #[error("the password could not be hashed")]
    Failed,
}

fn argon2id() -> Argon2<'static> {
    // The constants lie within the allowed ranges; the default of the crate has the same values.
    let params = Params::new(MEMORY_KIB, PASSES, 1, Some(32)).unwrap_or_default();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// Whether a password is one that may be set: 8 to 128 characters, of any kind.
///
/// # Errors
/// Its length.
pub fn check_password(password: &str) -> Result<(), PasswordError> {
    let is_allowed = (MIN_CHARACTERS..=MAX_CHARACTERS).contains(&password.chars().count());
    if is_allowed { Ok(()) } else { Err(PasswordError::Length) }
}

/// The PHC string of a password, with 16 fresh random bytes as salt. Takes some 30 ms.
///
/// # Errors
/// Its length, or that the computation failed.
pub fn hash_password(password: &str, salt: [u8; 16]) -> Result<Pii<String>, PasswordError> {
    check_password(password)?;
    let hash = argon2id().hash_password_with_salt(password.as_bytes(), &salt).map_err(|_| PasswordError::Failed)?;
    Ok(Pii::new(hash.to_string()))
}

/// Whether a password fits its PHC string. Takes as long as hashing. A string that is none fits nothing.
#[must_use]
pub fn verify_password(password: &str, hash: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| argon2id().verify_password(password.as_bytes(), &hash).is_ok())
}

/// Compared with when there is no such user or no password, so that the answer takes the same time.
static NOBODY: LazyLock<Option<Pii<String>>> =
    LazyLock::new(|| hash_password("nobody has this password", [7; 16]).ok());

/// Too many computations wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Busy;

/// The bounded pool.
#[derive(Debug, Clone)]
pub(crate) struct Verifier {
    places: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl Verifier {
    pub(crate) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(CONCURRENT + WAITING)), running: Arc::new(Semaphore::new(CONCURRENT)) }
    }

    /// Whether the password fits; never when `hash` is `None`, after the same time.
    pub(crate) async fn verify(&self, password: Zeroizing<String>, hash: Option<Pii<String>>) -> Result<bool, Busy> {
        let _place = self.places.clone().try_acquire_owned().map_err(|_| Busy)?;
        let running = self.running.clone().acquire_owned().await.map_err(|_| Busy)?;
        #[expect(clippy::disallowed_methods, reason = "the web edge is not part of the simulator, and hashing blocks")]
        let verified = tokio::task::spawn_blocking(move || {
            let _running = running; // until the computation ends, also when nobody waits for it any more
            // Made with the first password of all, whoever's it is.
            let nobody = &*NOBODY;
            match (hash, nobody) {
                (Some(hash), _) => verify_password(&password, hash.expose()),
                (None, Some(nobody)) => {
                    std::hint::black_box(verify_password(&password, nobody.expose()));
                    false
                }
                (None, None) => false,
            }
        });
        verified.await.map_err(|_| Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_fits_its_own_hash_only() {
        let hash = hash_password("correct horse", [1; 16]).expect("hashed");
        assert!(hash.expose().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "the parameters stand in the hash");
        assert!(verify_password("correct horse", hash.expose()));
        assert!(!verify_password("correct horsf", hash.expose()));
        assert!(!verify_password("correct horse", "nonsense"));
        assert_ne!(hash, hash_password("correct horse", [2; 16]).expect("hashed"));
    }

    #[test]
    fn lengths_count_characters() {
        assert_eq!(hash_password("short", [0; 16]), Err(PasswordError::Length));
        assert_eq!(hash_password(&"x".repeat(129), [0; 16]), Err(PasswordError::Length));
        assert!(hash_password("pässwörd", [0; 16]).is_ok());
    }

    #[tokio::test]
    async fn the_pool_refuses_beyond_its_queue() {
        let pool = Verifier::new();
        let held = pool.running.clone().acquire_many_owned(2).await.expect("open");
        let waiting: Vec<_> = (0..34)
            .map(|_| {
                tokio::spawn({
                    let pool = pool.clone();
                    async move { pool.verify(Zeroizing::new(String::from("x")), None).await }
                })
            })
            .collect();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert_eq!(pool.verify(Zeroizing::new(String::from("x")), None).await, Err(Busy));
        for task in &waiting {
            task.abort();
        }
        drop(held);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert_eq!(pool.verify(Zeroizing::new(String::from("x")), None).await, Ok(false), "and recovers");
    }
}
