//! SIP credentials. Secrets are never shown again.

use crate::types::scalar::{DateTime, int};
use async_graphql::{ID, SimpleObject};
use storage::Registration;

/// A SIP username of an account.
#[derive(SimpleObject)]
pub(crate) struct SipCredential {
    #[graphql(skip)]
    pub(crate) key: schema::id::CredentialId,
    #[graphql(owned)]
    pub(crate) id: ID,
    /// The owner's name for it.
    label: String,
    username: String,
    /// The SIP domain and digest realm.
    domain: String,
    created_at: DateTime,
    last_registered_at: Option<DateTime>,
    /// Phones registered with it now.
    registrations: i32,
}

impl SipCredential {
    pub(crate) fn new(
        credential: &schema::account::SipCredential,
        registration: Option<&Registration>,
        domain: &str,
    ) -> Self {
        Self {
            key: credential.id,
            id: credential.id.to_string().into(),
            label: credential.label.expose().clone(),
            username: credential.username.to_string(),
            domain: domain.to_owned(),
            created_at: DateTime(credential.created_at),
            last_registered_at: registration.and_then(|r| r.last_registered_at).map(DateTime),
            registrations: int(registration.map_or(0, |r| r.bindings).into()),
        }
    }
}
