//! TLS settings: 1.2 and 1.3 with rustls' suites (ECDHE and AEAD only), the ring provider named explicitly.

use crate::flow::Unreached;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, ClientConfig, Error, RootCertStore, ServerConfig};
use std::io;
use std::sync::Arc;

/// For the listener: a certificate chain and its key.
///
/// # Errors
/// When the key does not fit the certificate, or cannot be used.
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Arc::new(config))
}

/// For connections to carriers: only certificates under these roots are accepted.
///
/// # Errors
/// When a root is no certificate.
pub fn client_config(roots: Vec<CertificateDer<'static>>) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// What a handshake that failed says about the peer.
pub(super) fn unreached(error: &io::Error) -> Unreached {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => Unreached::WrongName,
        Some(Error::InvalidCertificate(_)) => Unreached::Untrusted,
        _ => Unreached::NoConnection,
    }
}
